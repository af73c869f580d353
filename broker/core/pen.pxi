# What seals a journal into recordings and the feed.


cdef class Book:
    """A grant's recording while records are sealed into it."""

    cdef object story, file, head
    cdef Sheet lines
    cdef str name
    cdef bytes grant
    cdef int64_t seq, allowed, finished
    cdef char hash[64]
    cdef Py_ssize_t before
    cdef list ended
    """Statements that have ended here and begun before."""

    def __init__(self, str grant, story, file):
        self.name, self.grant, self.story, self.file = grant, grant.encode("ascii"), story, file
        self.before = file.size
        self.lines = Sheet()
        self.begin()

    cdef int begin(self) except -1:
        """Be where the recording ends."""
        self.lines.size = self.allowed = self.finished = 0
        self.ended = []
        self.head = self.story.head
        self.seq = self.head[0]
        memcpy(self.hash, PyUnicode_AsUTF8(self.head[1]), 64)
        return 0


cdef class Pen:
    """Seals what is in a journal into the recordings and the feed, as FileRecorder does with entries; one loop's.

    The lines are made as the records come, where nobody waits for it, and written all at once. What they begin behind
    may move meanwhile: then they are made anew.
    """

    cdef object _recorder, _log, _commit, _stories, _files, _metrics, _head
    cdef bytes _stream
    cdef Sheet _events
    cdef dict _books, _stranded
    cdef uint64_t _generation
    """Which contents of the journal the lines are of."""
    cdef Py_ssize_t _at, _taken, _given
    """How far the lines are: in the journal's bytes, in its records, and in its lanes that have their books."""
    cdef int64_t _fed
    cdef char _fed_hash[64]

    def __init__(self, recorder, log, metrics):
        self._recorder, self._log, self._commit, self._metrics = recorder, log, log.commit, metrics
        self._stories, self._files = recorder.stories, recorder.files
        self._stream = log.stream.encode("ascii")
        self._events, self._books = Sheet(), {}

    cdef int ahead(self, Journal journal) except -1:
        """Make the lines of what is in a journal; nothing is written, and what fails is tried again with that."""
        try:
            if self._generation != journal._generation:
                self._begin(journal)
            if self._at >= 0 and self._give(journal, None):
                self._make(journal)
        except Exception:
            self._at = -1
        return 0

    def __call__(self, Journal journal):
        """Write them now, all or none; what it returns is shared, and completes when they are synced.

        Those of a grant whose recording does not open, or does not take them, are stranded: others go on without.
        """
        cdef Writer writer
        cdef dict failed = journal._failed
        try:
            if not self._continues(journal):
                self._begin(journal)
            self._give(journal, failed)
            with self._commit.lock:
                pending = None
                while pending is None:
                    pending = self._seal(journal)
        except Exception:
            self._metrics.failures.inc()
            raise
        finally:
            self._generation, self._books = 0, {}
            for writer in journal._lanes:
                writer.book = None
            self._events.rest()
            _body.rest()
        if failed:
            self._metrics.failures.inc(len(failed))
        return pending

    cdef int _begin(self, Journal journal) except -1:
        """Begin with the lines of a journal, whose lanes are given books then."""
        self._generation, self._given, self._books = journal._generation, 0, {}
        return self._anew(journal)

    cdef int _anew(self, Journal journal) except -1:
        """Make no lines yet, or all of them once more: from where the feed and the recordings end."""
        cdef Book book
        cdef Writer writer
        self._head = self._log.head
        self._fed = self._head[0]
        memcpy(self._fed_hash, PyUnicode_AsUTF8(self._head[1]), 64)
        self._events.size = self._at = self._taken = 0
        self._stranded = {}
        for book in self._books.values():
            book.begin()
        for writer in journal._lanes:
            writer.book, writer.begun = self._books.get(writer.grant), NULL
        return 0

    cdef bint _continues(self, Journal journal) except -1:
        """Say whether the recordings that lines were made for stand as they did."""
        cdef Book book
        if self._generation != journal._generation or self._at < 0:
            return False
        for book in self._books.values():
            if self._files.get(book.name) is not book.file or self._stories.get(book.name) is not book.story:
                return False
            if book.story.head is not book.head or book.file.size != book.before:
                return False
        return True

    cdef bint _give(self, Journal journal, dict failed) except -1:
        """Give each lane its grant's book; where that does not open, it is `failed`.

        Without those nothing is opened: False where it would have to be.
        """
        cdef Writer writer
        while self._given < len(journal._lanes):
            writer = journal._lanes[self._given]
            if writer.grant not in self._books and (failed is None or writer.grant not in failed):
                if failed is None and writer.grant not in self._files:
                    self._at = -1
                    return False
                try:
                    self._books[writer.grant] = self._open(writer.grant)
                except Exception as error:
                    if failed is None:
                        raise
                    failed[writer.grant] = error
            writer.book, writer.begun = self._books.get(writer.grant), NULL
            self._given += 1
        return True

    cdef Book _open(self, str grant):
        story, file = self._stories.get(grant), self._files.get(grant)
        if story is None or file is None:
            file = self._recorder.open(grant)
            story = self._stories[grant]
        else:
            self._files.move_to_end(grant)
        return Book(grant, story, file)

    cdef object _seal(self, Journal journal):
        """Seal them, or none; None where a recording does not take its own, and is out of the books from then on."""
        cdef Book book
        cdef Book writing = None
        log, commit = self._log, self._commit
        feed = log.ready()
        if log.head is not self._head:
            # The feed has more by now, perhaps of what has opened just before.
            self._anew(journal)
        before = feed.size
        self._make(journal)
        try:
            for writing in self._books.values():
                _append(writing.file, writing.lines)
            writing = None
            _append(feed, self._events)
            if self._stranded:
                self._recorder.strand(self._stranded)
        except Exception as error:
            if feed.size != before:
                feed.cut(before)
            for book in self._books.values():
                if book.file.size != book.before:
                    book.file.cut(book.before)
            if writing is None:
                raise
            del self._books[writing.name]
            journal._failed[writing.name] = error
            self._anew(journal)
            return None
        kind_of_head = type(log.head)
        for book in self._books.values():
            book.story.head = _tuple(kind_of_head, (book.seq, PyUnicode_DecodeASCII(book.hash, 64, NULL)))
            commit.mark(book.file)
        log.head = _tuple(kind_of_head, (self._fed, PyUnicode_DecodeASCII(self._fed_hash, 64, NULL)))
        commit.mark(feed)
        self._count(journal)
        return commit.future(lazy=not journal.urgent)

    cdef int _make(self, Journal journal) except -1:
        """Make the lines that are not made yet, of what the books are for; the rest is stranded."""
        cdef Book book
        cdef Writer writer
        cdef const char* p
        while self._taken < len(journal._owners):
            writer = journal._owners[self._taken]
            p = journal._data + self._at
            if not _entry.read(p, journal._used - self._at):
                raise AssertionError("the journal does not read")
            book = writer.book
            if book is None:
                self._stranded.setdefault(writer.grant, bytearray()).extend(p[:_entry.size])
            else:
                book.seq += 1
                self._fed += 1
                _seal_entry(
                    _entry, self._stream, book.grant, book.lines, book.seq, book.hash,
                    self._events, self._fed, self._fed_hash,
                )
                if _entry.kind == ALLOWED:
                    book.allowed += 1
                    writer.begun = p
                else:
                    book.finished += 1
                    # Most have begun in this journal too.
                    if writer.begun == NULL:
                        book.ended.append(_named(_entry))
                    writer.begun = NULL
            self._at += _entry.size
            self._taken += 1
        return 0

    cdef int _count(self, Journal journal) except -1:
        """Count what is sealed as `Story.take` does."""
        cdef Writer writer
        cdef Book book
        cdef dict tally = self._metrics.tally
        for book in self._books.values():
            story = book.story
            story.statements += book.allowed
            for name in book.ended:
                story.open_statements.pop(name, None)
            for kind, count in (("statement.allowed", book.allowed), ("statement.finished", book.finished)):
                if count:
                    story.types.add(kind)
                    tally[kind] = tally.get(kind, 0) + count
        for writer in journal._lanes:
            if writer.begun != NULL:
                _entry.read(writer.begun, journal._data + journal._used - writer.begun)
                writer.begun = NULL
                (<Book> writer.book).story.open_statements[_named(_entry)] = None
        for grant, said in journal._said:
            if grant in self._books:
                (<Book> self._books[grant]).story.count(said)
        return 0


cdef class Courier:
    """Has another process seal what is in a journal, which stays here until it has.

    `send` is given the records, whether any of them waits for the disk, and what they touch; it returns what completes
    when they are synced, and the grants whose recordings did not take their own, or raises.
    """

    cdef object _send

    def __init__(self, send):
        self._send = send

    def __call__(self, Journal journal):
        records = PyBytes_FromStringAndSize(journal._data, journal._used)
        pending, failed = self._send(records, journal.urgent, journal._said)
        journal._failed.update(failed)
        return pending


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
    cdef Sheet lines = Sheet(), events = Sheet()
    memcpy(record_hash, PyUnicode_AsUTF8(recording[1]), 64)
    memcpy(feed_hash, PyUnicode_AsUTF8(feed[1]), 64)
    while _entry.read(p, end - p):
        recorded += 1
        fed += 1
        _seal_entry(_entry, stream, grant, lines, recorded, record_hash, events, fed, feed_hash)
        p += _entry.size
    heads = (recorded, record_hash[:64].decode("ascii")), (fed, feed_hash[:64].decode("ascii"))
    return lines.taken(), heads[0], events.taken(), heads[1]


cdef int _append(file, Sheet sheet) except -1:
    """Append all of a sheet to an AppendFile or nothing, as its `append` does."""
    cdef Py_ssize_t written = 0
    if file.plain:
        file.check()
        written = write(file.fd, sheet.data, sheet.size)
        if written == sheet.size:
            file.size += written
            return 0
        if written > 0:
            file.cut(file.size)
    file.append(sheet.taken())
    return 0
