# What passes between a TLS connection's records and what they hold, by the standard library's own TLS.

cdef enum:
    # Of a TLS record at most (RFC 8446, 5.1).
    RECORD = 16 * 1024
    # What passes at once: what it passes through grows to that, and stays so.
    SLICE = 32 * 1024

cdef object _wants_more = ssl.SSLWantReadError
cdef object _tls_failed = ssl.SSLError
cdef bytearray _opened = None
"""Where a record is opened, while nobody uses it: the interpreter's lock is given up meanwhile."""


cdef list _slices(data):
    """Return what passes at once of what is more than that, piece by piece."""
    view = memoryview(data)
    return [view[at : at + SLICE] for at in range(0, len(data), SLICE)]


cdef class RecordLayer:
    """As the one in transport.secured."""

    cdef readonly object _tls, _incoming, _outgoing, _protocol
    cdef object _deliver
    cdef public object _raw
    cdef public bint _agreed, _closing
    cdef object _open, _seal, _feed, _drain, _left

    def __init__(self, context, bint server_side, host):
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=host)
        # Its methods only pass on to those of what it holds.
        inner = getattr(self._tls, "_sslobj", self._tls)
        self._open, self._seal, self._left = inner.read, inner.write, inner.pending
        self._feed, self._drain = self._incoming.write, self._outgoing.read

    def set_protocol(self, protocol):
        self._protocol, self._deliver = protocol, protocol.data_received

    def get_protocol(self):
        return self._protocol

    def data_received(self, bytes data):
        if PyBytes_GET_SIZE(data) <= SLICE:
            self._take(data)
            return
        for piece in _slices(data):
            self._take(piece)

    cdef int _take(self, data) except -1:
        global _opened
        cdef bytes found = None
        cdef Py_ssize_t size = -1
        self._feed(data)
        if not self._agreed and not self._agree():
            return 0
        room, _opened = _opened if _opened is not None else bytearray(RECORD), None
        try:
            # Most often this is one record, and nothing behind it.
            while size and (size < 0 or self._incoming.pending or self._left()):
                size = self._open(RECORD, room)
                piece = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(room), size)
                found = piece if found is None else found + piece
        except _wants_more:
            pass
        except _tls_failed:
            # What no key of this connection has made is not for anybody (fail closed).
            self._flush()
            self.abort()
            return 0
        finally:
            _opened = room
        if self._outgoing.pending:
            self._flush()
        if found and not self._closing:
            self._deliver(found)
        if not size:
            # The peer's goodbye.
            self.close()
        return 0

    def write(self, data):
        if self.is_closing():
            return
        if len(data) <= SLICE:
            self._sealed(data)
            return
        for piece in _slices(data):
            self._sealed(piece)

    cdef int _sealed(self, data) except -1:
        cdef Py_ssize_t sent, size = len(data)
        try:
            sent = self._seal(data)
            while sent < size:
                sent += <Py_ssize_t> self._seal(memoryview(data)[sent:])
        except _tls_failed:
            self.abort()
            return 0
        self._raw.write(self._drain())
        return 0

    cpdef bint is_closing(self):
        return self._closing or self._raw is None or self._raw.is_closing()
