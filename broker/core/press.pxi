# What departs in one turn of the loop is written together.

cdef class Press:
    """Writes what departs in one turn of the loop together, and then sends it.

    `write` takes a grant and its lines, and returns what completes when they are synced, or raises; `soon` has
    something called at the end of the turn. Whoever writes records otherwise flushes first, for their order.
    """

    cdef object _write, _soon
    cdef list _queue

    def __init__(self, write, soon):
        self._write, self._soon = write, soon
        self._queue = []

    cdef int add(self, Lane lane, list lines, bytes data) except -1:
        self._queue.append((lane, lines, data))
        if len(self._queue) == 1:
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
    """Writes lazy records of one grant, as FileRecorder does with entries, and counts them there."""

    cdef object _stories, _open, _write_sealed, _counted, _failed
    cdef bytes _stream

    def __init__(self, stories, open_, write_sealed, counted, failed, str stream):
        self._stories, self._open, self._write_sealed = stories, open_, write_sealed
        self._counted, self._failed, self._stream = counted, failed, stream.encode("ascii")

    def __call__(self, str grant, list lines):
        cdef Line line
        cdef dict counted = self._counted()
        try:
            story = self._stories.get(grant)
            future = self._write_sealed(self._open(grant, story), story, self, grant, lines)
        except Exception:
            self._failed()
            raise
        for line in lines:
            counted[line.kind] = counted.get(line.kind, 0) + 1
            if line.said is not None or line.kind not in story.types:
                story.take(line.kind, line.session, "", {**(line.said or {}), "statement": line.id})
            elif line.kind == "statement.allowed":
                story.statements += 1
                story.open_statements[line.session, line.id] = None
            else:
                story.open_statements.pop((line.session, line.id), None)
        return future

    def sealed(self, str grant, head, fed, list lines):
        return seal(self._stream, grant.encode("ascii"), head, fed, lines)
