# What seals a journal into recordings and the feed.


cdef class Book:
    """A grant's recording while records are sealed into it."""

    cdef object story, file
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
        self.seq = self.story.head[0]
        memcpy(self.hash, PyUnicode_AsUTF8(self.story.head[1]), 64)
        return 0


cdef class Pen:
    """Seals what is in a journal into the recordings and the feed, as FileRecorder does with entries; one loop's."""

    cdef object _recorder, _log, _commit, _stories, _files, _metrics
    cdef bytes _stream

    def __init__(self, recorder, log, metrics):
        self._recorder, self._log, self._commit, self._metrics = recorder, log, log.commit, metrics
        self._stories, self._files = recorder.stories, recorder.files
        self._stream = log.stream.encode("ascii")

    def __call__(self, Journal journal):
        """Write them now, all or none; what it returns is shared, and completes when they are synced.

        Those of a grant whose recording does not open, or does not take them, are stranded: others go on without.
        """
        cdef Writer writer
        cdef dict books = {}, failed = journal._failed
        try:
            for writer in journal._lanes:
                if writer.grant not in books and writer.grant not in failed:
                    try:
                        books[writer.grant] = self._open(writer.grant)
                    except Exception as error:
                        failed[writer.grant] = error
            with self._commit.lock:
                pending = None
                while pending is None:
                    pending = self._seal(journal, books)
        except Exception:
            self._metrics.failures.inc()
            raise
        finally:
            for writer in journal._lanes:
                writer.book = None
            _events.rest()
            _body.rest()
        if failed:
            self._metrics.failures.inc(len(failed))
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
        """Seal them, or none; None where a recording does not take its own, and is out of the books from then on."""
        cdef Book book
        cdef Book writing = None
        cdef char fed_hash[64]
        log, commit = self._log, self._commit
        feed, fed = log.ready(), log.head[0]
        before = feed.size
        memcpy(fed_hash, PyUnicode_AsUTF8(log.head[1]), 64)
        stranded = {}
        fed = self._lines(journal, books, fed, fed_hash, stranded)
        try:
            for writing in books.values():
                _append(writing.file, writing.lines)
            writing = None
            _append(feed, _events)
            if stranded:
                self._recorder.strand(stranded)
        except Exception as error:
            if feed.size != before:
                feed.cut(before)
            for book in books.values():
                if book.file.size != book.before:
                    book.file.cut(book.before)
            if writing is None:
                raise
            del books[writing.name]
            journal._failed[writing.name] = error
            return None
        kind_of_head = type(log.head)
        for book in books.values():
            book.story.head = _tuple(kind_of_head, (book.seq, PyUnicode_DecodeASCII(book.hash, 64, NULL)))
            commit.mark(book.file)
        log.head = _tuple(kind_of_head, (fed, PyUnicode_DecodeASCII(fed_hash, 64, NULL)))
        commit.mark(feed)
        self._count(journal, books)
        return commit.future(lazy=not journal.urgent)

    cdef int64_t _lines(self, Journal journal, dict books, int64_t fed, char* fed_hash, dict stranded) except -1:
        """Make the lines of what the books are for, the rest is stranded; return the feed's number behind them."""
        cdef Book book
        cdef Writer writer
        cdef const char* p = journal._data
        cdef const char* end = p + journal._used
        _events.size = 0
        for book in books.values():
            book.begin()
        for writer in journal._lanes:
            writer.book, writer.begun = books.get(writer.grant), NULL
        for writer in journal._owners:
            if not _entry.read(p, end - p):
                raise AssertionError("the journal does not read")
            book = writer.book
            if book is None:
                stranded.setdefault(writer.grant, bytearray()).extend(p[:_entry.size])
                p += _entry.size
                continue
            book.seq += 1
            fed += 1
            _seal_entry(_entry, self._stream, book.grant, book.lines, book.seq, book.hash, fed, fed_hash)
            if _entry.kind == ALLOWED:
                book.allowed += 1
                writer.begun = p
            else:
                book.finished += 1
                # Most have begun in this journal too.
                if writer.begun == NULL:
                    book.ended.append(_named(_entry))
                writer.begun = NULL
            p += _entry.size
        return fed

    cdef int _count(self, Journal journal, dict books) except -1:
        """Count what is sealed as `Story.take` does."""
        cdef Writer writer
        cdef Book book
        cdef dict tally = self._metrics.tally
        for book in books.values():
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
            if grant in books:
                (<Book> books[grant]).story.count(said)
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
