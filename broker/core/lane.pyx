# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False, cdivision=True
"""The compiled core: a known point read goes through here in two calls, and its records are sealed.

It decides nothing. It boards what the gate has a ruling for, as `express` does in Python, and what is not exactly a
Bind, Execute and Sync (perhaps with Describe) or a simple query that the booking gave a ticket for, or whose answer is
not whole in one chunk, it leaves to Python with everything as Python would have it. Each length that a peer sends is
checked against what is there before it is followed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8, PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.math cimport modf, rint
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

cdef extern from "<stdatomic.h>" nogil:
    void atomic_signal_fence(int)
    int memory_order_seq_cst

include "writing.pxi"

cdef enum:
    LARGEST = 64 * 1024
    LONGEST_SHAPE = 4096
    MOST_KEPT = 512 * 1024
    LARGEST_SHOWN = 16 * 1024
    MAX_NAME = 63
    # As the registry has it.
    MAX_ENTRIES = 5000

cdef bytes _RUN = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"
cdef bytes _DESCRIBE_AND_RUN = b"D\0\0\0\x06P\0" + _RUN

cdef Sheet _sheet = Sheet()


include "reading.pxi"


cdef class Seat:
    """What a ticket says of one known text, or of all texts of its shape, in bytes."""

    cdef object ticket, basis, prepared, wires, types
    cdef str name
    """Of the statement that it parses, where it does."""
    cdef bytes before, between, behind, texts, send, shown
    cdef bint shaped, waits
    cdef Py_ssize_t weight
    """About how many bytes it keeps."""

    def __init__(self, object ticket, object basis, object prepared, bint shaped):
        self.ticket, self.basis, self.prepared, self.shaped = ticket, basis, prepared, shaped
        self.before, self.between, self.behind = ticket.before, ticket.between, ticket.behind
        self.texts, self.send, self.waits = ticket.texts, ticket.send, ticket.waits
        self.shown, self.wires = b"", None
        # The ruling and its form have each of them once more.
        self.weight = 1024 + 2 * len(self.before) + 2 * len(self.behind) + 3 * len(self.texts)
        if self.send is not None:
            self.weight += len(self.send)


cdef class Ids:
    """Gives the ids of a session's statements, one after the other."""

    cdef uint64_t _next

    def __init__(self, uint64_t first):
        self._next = first

    cdef void write(self, char* to) noexcept:
        """Write the next one, in 17 bytes."""
        cdef int i
        cdef uint64_t left = self._next
        self._next += 1
        to[0] = 113
        for i in range(16, 0, -1):
            to[i] = _HEX[left & 15]
            left >>= 4

    def __call__(self):
        cdef char text[17]
        self.write(text)
        return PyUnicode_DecodeASCII(text, 17, NULL)


cdef class Moves:
    """Counts what may change a ruling."""

    cdef public int64_t count


cdef class Lane:
    """One session's lane; `booking` is what gives tickets and takes over what is left (booking.Booking).

    While it is `armed`, nothing of the session is under way but its own ride, and Python looks at nothing before
    `leave`. What the booking, the pen or a stream raises passes through, with the session's state unknown.
    """

    cdef readonly str grant
    cdef bytes _grant_id, _session_id
    cdef Journal _journal
    cdef Ids _ids
    cdef object _booking, _derailed, _seconds, _monotonic, _basis, _policies, _policy, _upstream, _client, _watched, _holds
    cdef Anchor _anchor
    cdef Moves _upstream_moves, _own_moves
    cdef int64_t _moved
    cdef double _until
    cdef public double expires
    """When the grant ends, in seconds of the epoch by the broker's clock; nothing passes from then on."""
    cdef readonly bint armed
    cdef bint _simple, _described, _out, _first
    cdef Py_ssize_t _parsed
    """Where a Parse ends that what is out begins with."""
    cdef dict _bound, _texts, _parses, _prepared, _portals
    cdef readonly Py_ssize_t kept
    """About how many bytes of known texts."""
    cdef object _tripwire
    cdef char _status
    cdef int64_t _segment
    cdef Seat _seat
    cdef char _id[17]
    cdef bytes _data, _portal_data
    cdef Seat _portal_seat
    cdef object _portal_prepared
    cdef str _portal_id
    cdef double _since, _at, _portal_since
    cdef int64_t _rows
    cdef bint _unsynced
    """The answer to what is out waits for its record to be on disk."""
    cdef object _awaited
    cdef bytes _held
    cdef bint touched
    """The journal has records of it."""
    cdef object book
    """Its grant's, while the journal is sealed."""
    cdef object said
    """What was last counted of its statements."""
    cdef const char* begun
    """Where the record stands of what has begun and not ended, while they are counted."""
    cdef int kinds
    """Of which it has records, in bits, while they are counted."""

    def __init__(
        self, booking, derailed, Journal journal, str grant, str session, Ids ids, clock, monotonic, basis, policies, moves,
        upstream, client, double expires,
    ):
        self._booking, self._derailed, self._journal, self._ids = booking, derailed, journal, ids
        self.grant, self._grant_id, self._session_id = grant, grant.encode("ascii"), session.encode("ascii")
        if len(self._grant_id) > 255 or len(self._session_id) > 255:
            raise ValueError("a grant's or a session's id is too long")
        self._monotonic, self._basis, self._policies = monotonic, basis, policies
        self._upstream_moves, self._own_moves = moves
        self._upstream, self._client = upstream, client
        anchor = getattr(clock, "anchored", None)
        self._anchor = anchor if isinstance(anchor, Anchor) else None
        self._seconds = clock.seconds
        self.expires = expires
        self._bound, self._texts, self._parses = {}, {}, {}
        self._moved, self._until = -1, 0.0

    cpdef bint depart(self, bytes data) except -1:
        """Record a known exchange and send it on its way, or change nothing and return False."""
        cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Seat seat
        cdef double now
        if self._out or self._unsynced or size > LARGEST or size < 6 or (p[0] != 66 and p[0] != 81 and p[0] != 80):
            return False
        if not self.armed and not self._arm():
            return False
        self._since = self._at = self._clocked()
        self._parsed = 0
        if p[0] == 66:
            seat = self._bind(p, size, None)
        elif p[0] == 80:
            seat = self._parse(p, size)
        else:
            seat = self._query(p, size)
        if seat is None:
            return False
        now = self._now()
        if now >= self.expires:
            return False
        # What was found stands in the sheet: nothing else writes there before it is recorded.
        if not self._record_allowed(seat, now):
            return False
        self._seat, self._data, self._out = seat, data, True
        self._segment += 1
        if not self._upstream.is_closing():
            if seat.send is None:
                self._upstream.write(data)
            else:
                self._upstream.write(seat.send if not self._parsed else seat.send + data[self._parsed:])
        return True

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
        p[4], p[5], p[6], p[7] = <char> kind, <char> grant, <char> session, 17
        memcpy(p + 8, numbers, 12)
        _written_time(p + 20, now)
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
        self._journal.put(self, size, seat.ticket.said, seat.waits)
        return True

    cdef int _record_finished(self, double now, double seconds) except -1:
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
        _sheet.number(self._rows)
        _sheet.put(b',"sqlstate":null,"statement":"', 30)
        _sheet.put(self._id, 17)
        _sheet.put(b'"{}', 3)
        cdef char* p = self._begin(FINISHED, now, before, _sheet.size - before - 2, 2, &size)
        assert p != NULL
        memcpy(p, _sheet.data, _sheet.size)
        self._journal.put(self, size, None, False)
        return 0

    cdef int watch(self, pending) except -1:
        """Learn of what is written and synced soon."""
        if pending is not self._watched:
            self._watched = pending
            self._booking.watch(pending)
        if self._unsynced and self._awaited is None:
            self._awaited = pending
            pending.add_done_callback(self._synced)
        return 0

    cdef int derail(self, error) except -1:
        """End the session: what it needs to have written is not."""
        self._out = self._unsynced = False
        self._held = None
        self._derailed(error)
        return 0

    cpdef bint land(self, bytes data) except -1:
        """Give the client the whole answer to what departed, or change nothing and return False."""
        cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(data)
        cdef double now
        if not self._out or not self._answers(p, PyBytes_GET_SIZE(data)):
            return False
        if self._status == 73 and self._portals:
            # Where a transaction ends, the gate's way ends what was open in it.
            return False
        now = self._now()
        if now >= self.expires:
            return False
        self._at = self._clocked()
        self._record_finished(now, self._at - self._since)
        if self._first or self._seat.ticket.scrub:
            self._first = False
            self._booking.landed(chr(self._status), self._seat.ticket.ruling)
        self._out = False
        prepared = self._seat.prepared
        if self._parsed:
            self._prepared[self._seat.name] = prepared = self._booking.made(self._seat.ticket, self._seat.types)
        if self._simple:
            self._prepared.pop("", None)
            self._portals.pop("", None)
            self._portal_data = None
        elif self._status == 84:
            self._portal_data, self._portal_seat, self._portal_prepared = self._data, self._seat, prepared
            self._portal_id, self._portal_since = self._named(), self._since
        if self._unsynced:
            self._held = data
        elif not self._client.is_closing():
            self._client.write(data)
        return True

    def _synced(self, pending):
        """Let the answer go that has waited for this; what fails to sync ends the session, by who watches."""
        if pending is not self._awaited:
            return
        self._awaited = None
        if pending.cancelled() or pending.exception() is not None:
            return
        self._unsynced, self._at = False, self._clocked()
        data, self._held = self._held, None
        # Behind the grant's end it is dropped, and its session ends (fail closed).
        if data is not None and self._now() < self.expires and not self._client.is_closing():
            self._client.write(data)

    cpdef leave(self):
        """Leave to Python what is under way."""
        if not self.armed:
            return
        if self._unsynced and self._awaited is None:
            self._journal.flush()
        self.armed = False
        self._booking.left(self._segment, self._at)
        if self._portal_data is not None:
            self._booking.portal(
                self._portal_seat.ticket, self._portal_data, self._portal_prepared, self._portal_id, self._portal_since
            )
            self._portal_data = self._portal_seat = self._portal_prepared = None
        awaited, self._awaited, self._unsynced = self._awaited, None, False
        held, self._held = self._held, None
        if held is not None:
            self._booking.withheld(held, awaited)
        if self._out:
            self._out = False
            prepared = self._seat.prepared
            if self._parsed:
                prepared = self._booking.made(self._seat.ticket, self._seat.types)
            self._booking.ride(
                self._seat.ticket, self._data, prepared, self._named(), self._segment - 1, self._since, awaited
            )
        self._seat = self._data = None

    cdef bint _arm(self) except -1:
        quiet = self._booking.quiet()
        if quiet is None:
            return False
        status, self._segment, self._tripwire, self._prepared, self._portals = quiet
        self._status = ord(status)
        self.armed = self._first = True
        return True

    cdef str _named(self):
        return PyUnicode_DecodeASCII(self._id, 17, NULL)

    cdef double _clocked(self) except? -1:
        return _clock(CLOCK_MONOTONIC) if self._monotonic is None else self._monotonic()

    cdef double _now(self) except? -1:
        return self._seconds() if self._anchor is None else self._anchor.seconds()

    cdef object _current(self):
        """Return what rulings rest on; asked again when it may have moved, or was looked at too long ago."""
        cdef int64_t moved = self._upstream_moves.count + self._own_moves.count
        policy = self._policies.hash
        if moved != self._moved or policy is not self._policy or self._since >= self._until:
            self._moved, self._policy = moved, policy
            self._holds, self._until = self._basis()
        return self._holds

    cdef Seat _ticketed(self, dict seats, object key, object prepared, bytes text):
        """Return the seat that a text has under the policy and the catalogue of this moment, or None."""
        cdef Seat seat = seats.get(key)
        basis = self._current()
        if basis is None:
            return None
        if seat is not None and seat.basis is basis and seat.prepared is prepared:
            return seat
        ticket = self._booking.ticket(text, prepared)
        if ticket is None:
            return None
        self._tripwire = self._booking.tripwire
        seat = Seat(ticket, basis, prepared, False)
        self._keep(seats, key, seat)
        return seat

    cdef int _keep(self, dict seats, object key, Seat seat) except -1:
        """Keep a seat for the next time, and all of them within bounds."""
        cdef Seat before = seats.pop(key, None)
        if before is not None:
            self.kept -= before.weight
        if self.kept + seat.weight > MOST_KEPT:
            self._bound.clear()
            self._texts.clear()
            self._parses.clear()
            self.kept = 0
        seats[key] = seat
        self.kept += seat.weight
        return 0

    cdef Seat _query(self, const unsigned char* p, Py_ssize_t size):
        cdef Seat seat = None
        cdef bytes text
        if _uint32(p + 1) + 1 != <uint32_t> size or memchr(p + 5, 0, size - 5) != p + size - 1:
            return None
        self._simple = True
        if _mark(p + 5, size - 6):
            # Texts of one shape have one ticket, and each its own record.
            seat = self._shaped(_marked.taken(), p, size)
            if seat is not None:
                _sheet.size = 0
                _sheet.put(b'{"sql":', 7)
                if not _sheet.string(p + 5, size - 6):
                    return None
                _sheet.put(b"}", 1)
                return seat
        text = PyBytes_FromStringAndSize(<const char*> p + 5, size - 6)
        seat = self._ticketed(self._texts, text, None, text)
        if seat is None:
            return None
        _sheet.size = 0
        _sheet.bytes(seat.texts)
        return seat

    cdef Seat _shaped(self, bytes key, const unsigned char* p, Py_ssize_t size):
        cdef Seat seat = self._texts.get(key)
        basis = self._current()
        if seat is not None and basis is not None and seat.basis is basis:
            return seat if seat.shaped else None
        if basis is None:
            return None
        ticket = self._booking.alike(PyBytes_FromStringAndSize(<const char*> p + 5, size - 6), key)
        if ticket is None:
            return None
        self._tripwire = self._booking.tripwire
        seat = Seat(ticket, basis, None, True)
        self._keep(self._texts, key, seat)
        return seat

    cdef Seat _parse(self, const unsigned char* p, Py_ssize_t size):
        """Read a Parse and the Bind of what it prepares, as `_bind` does."""
        cdef Py_ssize_t end = <Py_ssize_t> _uint32(p + 1) + 1
        cdef Seat seat
        if end < 6 or end + 6 > size or p[end] != 66 or len(self._prepared) >= MAX_ENTRIES:
            return None
        body = PyBytes_FromStringAndSize(<const char*> p + 5, end - 5)
        seat = self._parses.get(body)
        basis = self._current()
        if basis is None:
            return None
        if seat is None or seat.basis is not basis:
            found = self._booking.parsing(body)
            if found is None:
                return None
            self._tripwire = self._booking.tripwire
            ticket, name, types = found
            seat = Seat(ticket, basis, None, False)
            seat.name, seat.types = name, types
            seat.weight += len(body)
            self._keep(self._parses, body, seat)
        self._parsed = end
        return self._bind(p + end, size - end, seat)

    cdef Seat _bind(self, const unsigned char* p, Py_ssize_t size, Seat parsed):
        """Read a Bind of the unnamed portal with what follows it, and write its parameters; None where it is another.

        It may be of a statement that is `parsed` just before.

        Chapter "Message Formats" of PostgreSQL's manual.
        """
        cdef Py_ssize_t end = <Py_ssize_t> _uint32(p + 1) + 1, at, left, i
        cdef const unsigned char* nul
        cdef int formats, count, results
        cdef int32_t length
        cdef bint first = True
        cdef Seat seat
        if end < 6 or end >= size:
            return None
        left = size - end
        # Whatever number of rows is asked for.
        if left == 15 and memcmp(p + end, PyBytes_AS_STRING(_RUN), 6) == 0:
            self._described = False
        elif left == 22 and memcmp(p + end, PyBytes_AS_STRING(_DESCRIBE_AND_RUN), 13) == 0:
            self._described = True
        else:
            return None
        if memcmp(p + size - 5, PyBytes_AS_STRING(_RUN) + 10, 5):
            return None
        if p[5]:
            return None
        nul = <const unsigned char*> memchr(p + 6, 0, end - 6)
        if nul == NULL or nul - (p + 6) > MAX_NAME:
            return None
        try:
            name = PyUnicode_DecodeUTF8(<const char*> p + 6, nul - (p + 6), NULL)
        except UnicodeDecodeError:
            return None
        self._simple = False
        if parsed is not None:
            if name != parsed.name:
                return None
            seat = parsed
        else:
            prepared = self._prepared.get(name)
            if prepared is None:
                return None
            seat = self._ticketed(self._bound, name, prepared, None)
            if seat is None:
                return None
        at = nul + 1 - p
        if at + 2 > end:
            return None
        formats = _uint16(p + at)
        at += 2
        cdef Py_ssize_t codes = at
        at += 2 * formats
        if at + 2 > end or not _codes(p + codes, formats):
            return None
        count = _uint16(p + at)
        at += 2
        if formats > 1 and formats != count:
            return None
        _sheet.size = 0
        _sheet.put(b"{", 1)
        if count:
            _sheet.put(b'"parameters":[', 14)
            for i in range(count):
                if at + 4 > end:
                    return None
                length = <int32_t> _uint32(p + at)
                at += 4
                if not first:
                    _sheet.put(b",", 1)
                first = False
                if length < 0:
                    if length != -1:
                        return None
                    _sheet.put(b'{"null":true}', 13)
                    continue
                if length > end - at:
                    return None
                if formats and p[codes + (2 * i + 1 if formats > 1 else 1)]:
                    _sheet.put(b'{"hex":"', 8)
                    _sheet.hex(p + at, length)
                    _sheet.put(b'"}', 2)
                else:
                    _sheet.put(b'{"text":', 8)
                    if not _sheet.string(p + at, length):
                        return None
                    _sheet.put(b"}", 1)
                at += length
            _sheet.put(b"],", 2)
        if at + 2 > end:
            return None
        results = _uint16(p + at)
        at += 2
        if at + 2 * results != end or not _codes(p + at, results):
            return None
        # Its texts, without their first brace.
        _sheet.put(PyBytes_AS_STRING(seat.texts) + 1, PyBytes_GET_SIZE(seat.texts) - 1)
        return seat

    cdef bint _answers(self, const unsigned char* p, Py_ssize_t size) except -1:
        """Say whether a chunk is the whole, plain answer to what is out; how many rows it says is kept."""
        cdef Py_ssize_t at = 0, end
        cdef uint32_t length
        cdef bytes description
        if size < 6 + 5 or p[size - 6] != 90 or p[size - 1] != <unsigned char> self._status:
            return False
        if _uint32(p + size - 5) != 5:
            return False
        size -= 6
        if self._parsed:
            if size < 5 or p[0] != 49 or _uint32(p + 1) != 4:
                return False
            at = 5
        if not self._simple:
            if size < at + 5 or p[at] != 50 or _uint32(p + at + 1) != 4:
                return False
            at += 5
        if self._simple or self._described:
            if at + 5 > size:
                return False
            length = _uint32(p + at + 1)
            if length < 4 or length > <uint32_t> (size - at - 1):
                return False
            if p[at] == 84:
                if not self._shows(<const char*> p + at + 5, length - 4):
                    return False
            elif p[at] != 110 or length != 4 or self._simple:
                return False
            at += 1 + length
        cdef int64_t rows = 0
        while True:
            if at + 5 > size:
                return False
            length = _uint32(p + at + 1)
            if length < 4 or length > <uint32_t> (size - at - 1):
                return False
            if p[at] != 68:
                break
            rows += 1
            at += 1 + length
        if p[at] == 115 and length == 4 and at + 5 == size and rows and self._status == 73 and not self._simple:
            # As many rows as were asked for; where no transaction is open, the portal ends here.
            self._rows = rows
            return True
        if p[at] != 67 or at + 1 + <Py_ssize_t> length != size:
            return False
        return self._tag(p + at + 5, length - 4)

    cdef bint _tag(self, const unsigned char* tag, Py_ssize_t size) except -1:
        """Read the tag of a SELECT; others are left to Python."""
        cdef int64_t rows = 0
        cdef Py_ssize_t i
        if size < 9 or size > 24 or tag[size - 1] or memcmp(tag, b"SELECT ", 7):
            return False
        for i in range(7, size - 1):
            if not 48 <= tag[i] <= 57:
                return False
            rows = rows * 10 + tag[i] - 48
        self._rows = rows
        return True

    cdef bint _shows(self, const char* description, Py_ssize_t size) except -1:
        """Say whether a description trips no wire; the gate ends the session where it does."""
        cdef Seat seat = self._seat
        if seat.wires is self._tripwire and PyBytes_GET_SIZE(seat.shown) == size:
            if memcmp(PyBytes_AS_STRING(seat.shown), description, size) == 0:
                return True
        cdef bytes shown = PyBytes_FromStringAndSize(description, size)
        if not self._booking.shows(seat.ticket, shown):
            return False
        if size <= LARGEST_SHOWN:
            seat.weight += size - PyBytes_GET_SIZE(seat.shown)
            self.kept += size - PyBytes_GET_SIZE(seat.shown)
            seat.shown, seat.wires = shown, self._tripwire
        return True


cdef class Side:
    """One end of a session's streams: what arrives there goes by the lane, or else to the session.

    `make` gives the session's lane once the client has said something: one that idles has none.
    """

    cdef Lane _lane
    cdef object _session, _make
    cdef bint _client

    def __init__(self, session, make, bint client):
        self._session, self._make, self._client = session, make, client

    def arrived(self, bytes data):
        try:
            if self._lane is None:
                self._lane = self._make()
            if self._lane.depart(data) if self._client else self._lane.land(data):
                return
            self._lane.leave()
        except Exception as error:
            self._session.derailed(error)
            return
        self._session.arrived(data, client=self._client)

    def lost(self):
        self._session.lost(client=self._client)

    def full(self):
        self._session.throttle(client=self._client, full=True)

    def free(self):
        self._session.throttle(client=self._client, full=False)


include "journal.pxi"
