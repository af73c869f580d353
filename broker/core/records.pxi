# What a session writes into its journal: that a statement goes on its way, and how it ended.


cdef class Writer:
    """A session whose records a journal takes."""

    cdef readonly str grant
    cdef bint touched
    """The journal has records of it."""
    cdef object book
    """Its grant's, while the journal is sealed."""
    cdef object said
    """What was last counted of its statements."""
    cdef const char* begun
    """Where the record stands of what has begun and not ended, while the journal is sealed."""
    cdef bytes _grant_id, _session_id
    cdef Journal _journal
    cdef Ids _ids
    cdef char _id[17]
    """Of the statement that its records are about."""
    cdef bint _unsynced
    """The answer to that statement waits for its record to be on disk."""

    cdef int _introduce(self, Journal journal, str grant, str session, Ids ids) except -1:
        """Say whose records it writes, where to, and whence its statements have their ids."""
        self.grant, self._grant_id, self._session_id = grant, grant.encode("ascii"), session.encode("ascii")
        if len(self._grant_id) > 255 or len(self._session_id) > 255:
            raise ValueError("a grant's or a session's id is too long")
        self._journal, self._ids = journal, ids
        return 0

    cdef char* _begin(
        self, int kind, double now, Py_ssize_t before, Py_ssize_t behind, Py_ssize_t detail, Py_ssize_t* size
    ) except? NULL:
        """Write the head of a record, and return where its `before` begins, or NULL where it is too long."""
        cdef Py_ssize_t grant = PyBytes_GET_SIZE(self._grant_id), session = PyBytes_GET_SIZE(self._session_id)
        size[0] = AHEAD + grant + session + 17 + before + behind + detail
        cdef char* p = self._journal.begin(size[0])
        if p == NULL:
            return NULL
        cdef uint32_t numbers[3]
        numbers[0], numbers[1], numbers[2] = <uint32_t> before, <uint32_t> behind, <uint32_t> detail
        p[16], p[17], p[18], p[19] = <char> kind, <char> grant, <char> session, 17
        memcpy(p + 20, numbers, 12)
        _written_time(p + 32, now)
        p += AHEAD
        memcpy(p, PyBytes_AS_STRING(self._grant_id), grant)
        memcpy(p + grant, PyBytes_AS_STRING(self._session_id), session)
        p += grant + session
        memcpy(p, self._id, 17)
        return p + 17

    cdef bint _record_allowed(self, Seat seat, double now) except -1:
        """Record that a statement goes on its way; its detail is in the sheet. False where that is too long."""
        cdef Py_ssize_t before = PyBytes_GET_SIZE(seat.before), between = PyBytes_GET_SIZE(seat.between), size
        cdef Py_ssize_t behind = PyBytes_GET_SIZE(seat.behind)
        self._ids.write(self._id)
        cdef char* p = self._begin(ALLOWED, now, before, between + 19 + behind, _sheet.size, &size)
        if p == NULL:
            return False
        self._unsynced = seat.waits
        memcpy(p, PyBytes_AS_STRING(seat.before), before)
        p += before
        memcpy(p, PyBytes_AS_STRING(seat.between), between)
        p += between
        p[0] = p[18] = 34
        memcpy(p + 1, self._id, 17)
        p += 19
        memcpy(p, PyBytes_AS_STRING(seat.behind), behind)
        memcpy(p + behind, _sheet.data, _sheet.size)
        _sheet.rest()
        self._journal.put(self, size, seat.said, seat.waits)
        return True

    cdef int _record_finished(self, double now, double seconds, int64_t rows) except -1:
        """Record the end of a statement, as `records.finished` does."""
        cdef int64_t micro = <int64_t> rint((seconds if seconds > 0 else 0.0) * 1e6)
        cdef int part = micro % 1000, digits = 3
        cdef Py_ssize_t before, size
        _sheet.size = 0
        _sheet.put(b'"milliseconds":', 15)
        _sheet.number(micro // 1000)
        _sheet.put(b".", 1)
        while digits > 1 and part % 10 == 0:
            part //= 10
            digits -= 1
        _sheet.need(digits)
        _digits(_sheet.data + _sheet.size, part, digits)
        _sheet.size += digits
        _sheet.put(b',"outcome":"ok",', 16)
        before = _sheet.size
        _sheet.put(b'"rows":', 7)
        _sheet.number(rows)
        _sheet.put(b',"sqlstate":null,"statement":"', 30)
        _sheet.put(self._id, 17)
        _sheet.put(b'"{}', 3)
        cdef char* p = self._begin(FINISHED, now, before, _sheet.size - before - 2, 2, &size)
        assert p != NULL
        memcpy(p, _sheet.data, _sheet.size)
        self._journal.put(self, size, None, False)
        return 0
