# What the core reads: texts whose numbers are marked, runs of rows, tokens.

cdef Sheet _marked = Sheet()


cdef inline bint _opens(unsigned char c) noexcept:
    return c in (32, 61, 60, 62, 40, 44, 9, 10)


cdef inline bint _closes(unsigned char c) noexcept:
    return c in (32, 59, 41, 44, 9, 10)


cdef bint _mark(const unsigned char* text, Py_ssize_t size) except -1:
    """Write a text with a mark for each number, as `shapes.shape` does; False where that gives none."""
    cdef Py_ssize_t at = 0, end
    cdef bint found = False
    if size > LONGEST_SHAPE:
        return False
    _marked.size = 0
    _marked.need(size)
    while at < size:
        if text[at] >= 128 or not text[at]:
            return False
        if 48 <= text[at] <= 57 and at and _opens(text[at - 1]):
            end = at
            while end < size and 48 <= text[end] <= 57:
                end += 1
            if end - at <= 9 and (end == size or _closes(text[end])):
                _marked.data[_marked.size] = 0
                found = True
            else:
                memcpy(_marked.data + _marked.size, text + at, end - at)
                _marked.size += end - at - 1
            _marked.size += 1
            at = end
            continue
        _marked.data[_marked.size] = text[at]
        _marked.size += 1
        at += 1
    return found


def marked(bytes text):
    """Return what `shapes.shape` does, in bytes."""
    if _mark(<const unsigned char*> PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)):
        return _marked.taken()
    return None


cdef inline bint _codes(const unsigned char* p, int count) noexcept:
    """Say whether each of so many format codes is one."""
    cdef int i
    for i in range(count):
        if p[2 * i] or p[2 * i + 1] > 1:
            return False
    return True


def whole_rows(bytes data, Py_ssize_t position, Py_ssize_t total):
    """Count the whole messages of one type that follow each other, as the codec's `_whole_rows` does."""
    cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t count = 0, end
    cdef uint32_t length
    if not 0 <= position < total <= PyBytes_GET_SIZE(data):
        raise IndexError("there is no message")
    cdef unsigned char kind = p[position]
    while total - position >= 5 and p[position] == kind:
        length = _uint32(p + position + 1)
        end = position + 1 + <Py_ssize_t> length
        if length < 4 or end > total:
            return count, position if count else end
        count += 1
        position = end
    return count, position


cdef inline Py_ssize_t _varint(const unsigned char* p, Py_ssize_t size, uint32_t* number) noexcept:
    """Read a number of at most three bytes; returns how many it has, or 0."""
    cdef Py_ssize_t i
    number[0] = 0
    for i in range(3 if size > 3 else size):
        number[0] |= (<uint32_t> (p[i] & 127)) << 7 * i
        if p[i] < 128:
            return i + 1
    return 0


cdef const unsigned char* _FIELDS = b"\x08\x10\x20\x28"


def tokens(bytes data, Py_ssize_t at, token):
    """Read the ScanTokens of a ScanResult from a place on, as `library._tokens` does; None where one is another."""
    cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), end, read
    cdef uint32_t numbers[4]
    cdef int i
    cdef list found = []
    while at < size:
        if size - at < 2 or p[at] != 0x12 or p[at + 1] > 127:
            return None
        end = at + 2 + p[at + 1]
        at += 2
        if end > size:
            return None
        for i in range(4):
            # Start, end, token and keyword_kind; a field that is 0 is left out.
            numbers[i] = 0
            if at < end and p[at] == _FIELDS[i]:
                read = _varint(p + at + 1, end - at - 1, &numbers[i])
                if not read:
                    return None
                at += 1 + read
        if at != end:
            return None
        found.append(_tuple(token, (numbers[0], numbers[1], numbers[2], numbers[3] != 0)))
    return found
