# What is recorded stands in the journal, which outlives the process, until it is sealed: many records at a time.

import os

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


cdef class Journal:
    """Takes records as they come, and has them sealed a moment later, or before anything else is written.

    `memory` outlives the process, where it is a mapped file: what a broker leaves there the next one takes up. `write`
    takes the journal and seals what is in it, all or nothing; it returns what completes when that is synced, or raises.
    `later` has something called in a moment, `soon` at the end of the loop's turn, for what waits for the disk; without
    them, each record is sealed at once.
    """

    cdef object _memory, _write, _later, _soon
    cdef readonly bint urgent
    """Something here waits for the disk."""
    cdef unsigned char[::1] _view
    cdef char* _data
    cdef Py_ssize_t _used, _room
    cdef uint64_t _generation
    """Another each time that this is emptied."""
    cdef list _owners, _lanes, _said
    cdef bint _due, _stuck

    def __init__(self, memory, write, later, soon):
        self._memory, self._write, self._later, self._soon = memory, write, later, soon
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

    cdef int put(self, Lane lane, Py_ssize_t size, object said, bint urgent) except -1:
        """Take what was written behind `begin`: from here on it is recorded."""
        cdef char* p = self._data + self._used
        cdef uint64_t check
        self._owners.append(lane)
        if not lane.touched:
            lane.touched = True
            self._lanes.append(lane)
        if said is not None and said is not lane.said:
            # Once is enough: what it touches is counted as a set.
            lane.said = said
            self._said.append((lane.grant, said))
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
        try:
            pending = self._write(self)
        except Exception as error:
            self._stuck, self.urgent = True, False
            for lane in self._lanes:
                lane.derail(error)
            raise
        lanes = self._lanes
        self._owners, self._lanes, self._said = [], [], []
        self._stuck = self.urgent = False
        self._empty()
        for lane in lanes:
            lane.touched = False
            lane.watch(pending)


cdef class Book:
    """A grant's recording while records are sealed into it."""

    cdef object story, file
    cdef Sheet lines
    cdef bytes grant
    cdef int64_t seq
    cdef char hash[64]
    cdef Py_ssize_t before

    def __init__(self, str grant, story, file):
        self.grant, self.story, self.file, self.before = grant.encode("ascii"), story, file, file.size
        self.lines = Sheet()
        self.seq = story.head[0]
        memcpy(self.hash, PyUnicode_AsUTF8(story.head[1]), 64)


cdef class Pen:
    """Seals what is in a journal into the recordings and the feed, as FileRecorder does with entries; one loop's."""

    cdef object _recorder, _log, _commit, _stories, _files, _metrics
    cdef bytes _stream

    def __init__(self, recorder, log, metrics):
        self._recorder, self._log, self._commit, self._metrics = recorder, log, log.commit, metrics
        self._stories, self._files = recorder.stories, recorder.files
        self._stream = log.stream.encode("ascii")

    def __call__(self, Journal journal):
        """Write them now, all or none; what it returns is shared, and completes when they are synced."""
        cdef Lane lane
        cdef dict books = {}
        try:
            for lane in journal._lanes:
                lane.book = books.get(lane.grant)
                if lane.book is None:
                    lane.book = books[lane.grant] = self._open(lane.grant)
            with self._commit.lock:
                pending = self._seal(journal, books)
        except Exception:
            self._metrics.failures.inc()
            raise
        finally:
            for lane in journal._lanes:
                lane.book = None
            _events.rest()
            _body.rest()
        return pending

    cdef Book _open(self, str grant):
        story, file = self._stories.get(grant), self._files.get(grant)
        if story is None or file is None:
            file = self._recorder.open(grant)
            story = self._stories[grant]
        else:
            self._files.move_to_end(grant)
        return Book(grant, story, file)

    cdef object _seal(self, Journal journal, dict books):
        cdef Book book
        cdef Lane lane
        cdef const char* p = journal._data
        cdef const char* end = p + journal._used
        cdef char fed_hash[64]
        cdef int64_t fed
        log, commit = self._log, self._commit
        feed = log.ready()
        fed = log.head[0]
        memcpy(fed_hash, PyUnicode_AsUTF8(log.head[1]), 64)
        _events.size = 0
        for lane in journal._owners:
            if not _entry.read(p, end - p):
                raise AssertionError("the journal does not read")
            book = lane.book
            book.seq += 1
            fed += 1
            _seal_entry(_entry, self._stream, book.grant, book.lines, book.seq, book.hash, fed, fed_hash)
            p += _entry.size
        done = []
        try:
            for book in books.values():
                _append(book.file, book.lines)
                done.append(book)
            _append(feed, _events)
        except Exception:
            for book in done:
                book.file.cut(book.before)
            raise
        kind_of_head = type(log.head)
        for book in books.values():
            book.story.head = _tuple(kind_of_head, (book.seq, PyUnicode_DecodeASCII(book.hash, 64, NULL)))
            commit.mark(book.file)
        log.head = _tuple(kind_of_head, (fed, PyUnicode_DecodeASCII(fed_hash, 64, NULL)))
        commit.mark(feed)
        self._count(journal)
        return commit.future(lazy=not journal.urgent)

    cdef int _count(self, Journal journal) except -1:
        """Count them as `Story.take` does; most statements have begun and ended meanwhile."""
        cdef Lane lane
        cdef Book book
        cdef const char* p = journal._data
        cdef const char* end = p + journal._used
        cdef dict tally = self._metrics.tally
        cdef int64_t allowed = 0, finished = 0
        for lane in journal._owners:
            _entry.read(p, end - p)
            lane.kinds |= 1 << _entry.kind
            if _entry.kind == ALLOWED:
                allowed += 1
                (<Book> lane.book).story.statements += 1
                lane.begun = p
            elif lane.begun != NULL:
                finished += 1
                lane.begun = NULL
            else:
                finished += 1
                (<Book> lane.book).story.open_statements.pop(_named(_entry), None)
            p += _entry.size
        for lane in journal._lanes:
            types = (<Book> lane.book).story.types
            if lane.kinds & 1 << ALLOWED:
                types.add("statement.allowed")
            if lane.kinds & 1 << FINISHED:
                types.add("statement.finished")
            lane.kinds = 0
            if lane.begun != NULL:
                _entry.read(lane.begun, end - lane.begun)
                lane.begun = NULL
                (<Book> lane.book).story.open_statements[_named(_entry)] = None
        for grant, said in journal._said:
            self._stories[grant].count(said)
        if allowed:
            tally["statement.allowed"] = tally.get("statement.allowed", 0) + allowed
        if finished:
            tally["statement.finished"] = tally.get("statement.finished", 0) + finished
        return 0


cdef tuple _named(Entry entry):
    return (
        PyUnicode_DecodeASCII(entry.session, entry.session_size, NULL),
        PyUnicode_DecodeASCII(entry.id, entry.id_size, NULL),
    )


def seal(bytes stream, bytes grant, recording, feed, bytes entries):
    """Return the lines of a recording and of the feed that a grant's records make, and where both chains stand then.

    What is returned is the recording's bytes, its head, the feed's bytes, its head.
    """
    cdef const char* p = PyBytes_AS_STRING(entries)
    cdef const char* end = p + PyBytes_GET_SIZE(entries)
    cdef int64_t recorded = recording[0], fed = feed[0]
    cdef char record_hash[64]
    cdef char feed_hash[64]
    cdef Sheet lines = Sheet()
    memcpy(record_hash, PyUnicode_AsUTF8(recording[1]), 64)
    memcpy(feed_hash, PyUnicode_AsUTF8(feed[1]), 64)
    _events.size = 0
    while _entry.read(p, end - p):
        recorded += 1
        fed += 1
        _seal_entry(_entry, stream, grant, lines, recorded, record_hash, fed, feed_hash)
        p += _entry.size
    heads = (recorded, record_hash[:64].decode("ascii")), (fed, feed_hash[:64].decode("ascii"))
    return lines.taken(), heads[0], _events.taken(), heads[1]


cdef int _append(file, Sheet sheet) except -1:
    """Append all of a sheet to an AppendFile or nothing, as its `append` does."""
    cdef Py_ssize_t written = 0
    if file.plain:
        written = write(file.fd, sheet.data, sheet.size)
        if written == sheet.size:
            file.size += written
            return 0
        if written > 0:
            file.cut(file.size)
    file.append(sheet.taken())
    return 0
