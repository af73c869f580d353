# What is recorded stands in the journal, which outlives the process, until it is sealed: many records at a time.

cdef extern from *:
    """
    #define AIRLOCK_MIXER 0x9E3779B97F4A7C15ULL
    """
    uint64_t MIXER "AIRLOCK_MIXER"

cdef enum:
    ALLOWED = 0
    FINISHED = 1
    # As adapters.journal reads it: check, generation, kind, lengths of grant, session, id, before, behind and detail, time.
    AHEAD = 59
    # Of the check, which says that a record is there.
    CHECK = 8
    # So many grants' files are open at once, whatever else is.
    MOST_LANES = 64


cdef uint64_t _check(const char* p, Py_ssize_t size) noexcept:
    """Return what a record's bytes make, as `journal.check` does; never zero."""
    cdef uint64_t first = <uint64_t> size, second = ~first, words[2]
    while size > 0:
        if size >= 16:
            memcpy(words, p, 16)
        else:
            words[0] = words[1] = 0
            memcpy(words, p, size)
        first = (first ^ words[0]) * MIXER
        second = (second ^ words[1]) * MIXER
        first ^= first >> 32
        second ^= second >> 32
        p += 16
        size -= 16
    first += second * MIXER
    first ^= first >> 32
    return first if first else 1


cdef class Entry:
    """Where the parts of one record stand."""

    cdef Py_ssize_t size
    cdef int kind
    cdef const char* grant
    cdef const char* session
    cdef const char* id
    cdef const char* before
    cdef const char* behind
    cdef const char* detail
    cdef const char* at
    cdef Py_ssize_t grant_size, session_size, id_size, before_size, behind_size, detail_size

    cdef bint read(self, const char* p, Py_ssize_t room) noexcept:
        """Read what stands in a place; False where nothing whole does."""
        cdef uint32_t numbers[3]
        cdef const unsigned char* u = <const unsigned char*> p
        cdef uint64_t check
        if room < AHEAD:
            return False
        memcpy(&check, p, CHECK)
        if not check:
            return False
        memcpy(numbers, p + 20, 12)
        self.kind, self.grant_size, self.session_size, self.id_size = u[16], u[17], u[18], u[19]
        self.before_size, self.behind_size, self.detail_size = numbers[0], numbers[1], numbers[2]
        self.at = p + 32
        self.grant = p + AHEAD
        self.session = self.grant + self.grant_size
        self.id = self.session + self.session_size
        self.before = self.id + self.id_size
        self.behind = self.before + self.before_size
        self.detail = self.behind + self.behind_size
        self.size = self.detail + self.detail_size - p
        return self.size <= room


cdef Entry _entry = Entry()

cdef class Pen


cdef class Journal:
    """Takes records as they come, and has them sealed a moment later, or before anything else is written.

    `memory` outlives the process, where it is a mapped file: what a broker leaves there the next one takes up. `write`
    takes the journal and seals what is in it, all or nothing but what is of the grants that it puts among the `failed`;
    it returns what completes when that is synced, or raises.
    `later` has something called in a moment, `soon` at the end of the loop's turn, for what waits for the disk; without
    them, each record is sealed at once.
    """

    cdef object _memory, _write, _later, _soon
    cdef Pen _pen
    cdef readonly bint urgent
    """Something here waits for the disk."""
    cdef unsigned char[::1] _view
    cdef char* _data
    cdef Py_ssize_t _used, _room
    cdef uint64_t _generation
    """Another each time that this is emptied."""
    cdef list _owners, _lanes, _said
    cdef dict _failed
    """Grants whose records are kept elsewhere, and why."""
    cdef bint _due, _stuck
    cdef uint64_t flushes
    """How often this was sealed, or should have been."""

    def __init__(self, memory, write, later, soon):
        self._memory, self._write, self._later, self._soon = memory, write, later, soon
        self._pen = write if isinstance(write, Pen) else None
        self._view = memory
        self._data, self._room = <char*> &self._view[0], self._view.shape[0]
        self._owners, self._lanes, self._said = [], [], []
        self._generation = int.from_bytes(os.urandom(8), "little")
        self._empty()

    cdef void _empty(self) noexcept:
        """Leave nothing of what is sealed: first its first check, so that at no moment a part of it stands there."""
        memset(self._data, 0, CHECK)
        atomic_signal_fence(memory_order_seq_cst)
        memset(self._data, 0, self._used)
        self._used = 0
        self._generation += 1

    cdef char* begin(self, Py_ssize_t size) except? NULL:
        """Return where a record of so many bytes is to be written, or NULL where it is too long; `put` ends it."""
        if self._stuck or self._used + size + CHECK > self._room or len(self._lanes) >= MOST_LANES:
            if size + CHECK > self._room:
                return NULL
            self.flush()
        return self._data + self._used

    cdef int put(self, Writer writer, Py_ssize_t size, object said, bint urgent) except -1:
        """Take what was written behind `begin`: from here on it is recorded."""
        cdef char* p = self._data + self._used
        cdef uint64_t check
        self._owners.append(writer)
        if not writer.touched:
            writer.touched = True
            self._lanes.append(writer)
        if said is not None and said is not writer.said:
            # Once is enough: what it touches is counted as a set.
            writer.said = said
            self._said.append((writer.grant, said))
        self._used += size
        memcpy(p + CHECK, &self._generation, 8)
        check = _check(p + CHECK, size - CHECK)
        # Whoever reads this after a crash finds the record's check last, and an end behind it.
        memset(p + size, 0, CHECK)
        atomic_signal_fence(memory_order_seq_cst)
        memcpy(p, &check, CHECK)
        if self._later is None:
            self.urgent = urgent
            self.flush()
        elif urgent:
            if not self.urgent:
                self.urgent = True
                self._soon(self._in_time)
        elif not self._due:
            self._due = True
            self._later(self._in_due_time)
        return 0

    cdef int ahead(self) except -1:
        """Do what sealing takes of what is here, but for the writing: for when nobody waits for this process."""
        if self._pen is not None and not self._stuck and self._lanes:
            self._pen.ahead(self)
        return 0

    def _in_due_time(self):
        self._due = False
        self._in_time()

    def _in_time(self):
        try:
            self.flush()
        except Exception:
            # The sessions it concerns have learned of it.
            pass

    def flush(self):
        """Have what is here sealed; what cannot be written stays, and ends the sessions that it is of."""
        cdef Lane lane
        if not self._lanes:
            return
        self.flushes += 1
        self._failed = {}
        try:
            pending = self._write(self)
        except Exception as error:
            self._stuck, self.urgent = True, False
            for lane in self._lanes:
                lane.derail(error)
            raise
        lanes, failed = self._lanes, self._failed
        self._owners, self._lanes, self._said = [], [], []
        self._stuck = self.urgent = False
        self._empty()
        for lane in lanes:
            lane.touched = False
        for lane in lanes:
            if lane.grant in failed:
                lane.derail(failed[lane.grant])
            else:
                lane.watch(pending)

    def deliver(self, bytes records, bint urgent, list said):
        """Seal at once what another process has in its journal: as they stand there, and what they touch by grants.

        Returns what completes when they are synced, and the grants whose recordings did not take their own, with the
        errors; raises where none is sealed. Nothing stays here.
        """
        cdef const char* p = self._data
        cdef const char* end = p + PyBytes_GET_SIZE(records)
        cdef Writer writer
        cdef dict writers = {}
        if self._lanes or end - p + CHECK > self._room:
            raise ValueError("there is no room for these records")
        memcpy(self._data, PyBytes_AS_STRING(records), end - p)
        self._used, self.urgent, self._said, self._failed = end - p, urgent, said, {}
        try:
            while p < end:
                if not _entry.read(p, end - p):
                    raise ValueError("these records do not read")
                named = p[AHEAD:AHEAD + _entry.grant_size + _entry.session_size], _entry.grant_size
                writer = writers.get(named)
                if writer is None:
                    writer = writers[named] = Writer()
                    writer.grant = PyUnicode_DecodeASCII(_entry.grant, _entry.grant_size, NULL)
                    self._lanes.append(writer)
                self._owners.append(writer)
                p += _entry.size
            return self._write(self), self._failed
        finally:
            self._owners, self._lanes, self._said = [], [], []
            self.urgent = False
            self._empty()
