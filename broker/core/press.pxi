# What departs in one turn of the loop is written together.

cdef class Press:
    """Writes what departs in one turn of the loop together, and then sends it.

    `write` takes a grant and its lines, and returns what completes when they are synced, or raises; `soon` has
    something called at the end of the turn. Whoever writes records otherwise flushes first, for their order.
    """

    cdef object _write, _soon
    cdef list _queue
    cdef double _last

    def __init__(self, write, soon):
        self._write, self._soon = write, soon
        self._queue = []

    cdef int add(self, Lane lane, list lines, bytes data, double now) except -1:
        cdef double since = ALONE_SECONDS
        if data is not None:
            since, self._last = now - self._last, now
        self._queue.append((lane, lines, data))
        if len(self._queue) == 1:
            # Where little comes, nothing else is to be waited for.
            if since > ALONE_SECONDS:
                self.flush()
            else:
                self._soon(self.flush)
        return 0

    def flush(self):
        """Write what waits, and send it; a lane whose records cannot be written ends its session."""
        cdef Lane lane
        cdef list queue, lines, one
        cdef dict grants
        if not self._queue:
            return
        queue, self._queue = self._queue, []
        grants = {}
        for item in queue:
            grants.setdefault((<Lane> item[0]).grant, []).append(item)
        for grant, items in grants.items():
            if len(items) == 1:
                lines = items[0][1]
            else:
                lines = []
                for item in items:
                    lines += item[1]
            try:
                pending = self._write(grant, lines)
            except Exception as error:
                for item in items:
                    (<Lane> item[0]).derail(error)
                continue
            for item in items:
                try:
                    (<Lane> item[0]).go(item[2], pending)
                except Exception as error:
                    (<Lane> item[0]).derail(error)


cdef class Pen:
    """Writes lazy records of one grant at a time, as FileRecorder and EventLog do with entries, from one event loop."""

    cdef object _recorder, _log, _commit, _stories, _files, _metrics
    cdef bytes _stream

    def __init__(self, recorder, log, metrics):
        self._recorder, self._log, self._commit, self._metrics = recorder, log, log.commit, metrics
        self._stories, self._files = recorder.stories, recorder.files
        self._stream = log.stream.encode("ascii")

    def __call__(self, str grant, list lines):
        """Write them now, all or none; what it returns is shared, and completes when they are synced."""
        try:
            story = self._stories.get(grant)
            file = self._files.get(grant)
            if story is None or file is None:
                file = self._recorder.open(grant)
            else:
                self._files.move_to_end(grant)
            with self._commit.lock:
                pending = self._write(story, file, grant, lines)
        except Exception:
            self._metrics.failures.inc()
            raise
        finally:
            for sheet in (_lines, _events, _body):
                (<Sheet> sheet).rest()
        self._count(story, lines)
        return pending

    cdef object _write(self, story, file, str grant, list lines):
        log, commit = self._log, self._commit
        feed = log.ready()
        head, fed = _seal_all(self._stream, grant.encode("ascii"), story.head, log.head, lines)
        before = file.size
        _append(file, _lines)
        try:
            _append(feed, _events)
        except Exception:
            file.cut(before)
            raise
        story.head, log.head = head, fed
        commit.mark(file)
        commit.mark(feed)
        return commit.future(lazy=True)

    cdef int _count(self, story, list lines) except -1:
        cdef Line line
        cdef dict tally = self._metrics.tally
        for line in lines:
            tally[line.kind] = tally.get(line.kind, 0) + 1
            if line.said is not None or line.kind not in story.types:
                story.take(line.kind, line.session, "", {**(line.said or {}), "statement": line.id})
            elif line.kind == "statement.allowed":
                story.statements += 1
                story.open_statements[line.session, line.id] = None
            else:
                story.open_statements.pop((line.session, line.id), None)
        return 0


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
