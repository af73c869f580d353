# What the core tells of a client's Bind and of the answer to it, after "Message Formats" in PostgreSQL's manual.

cdef bytes _RUN = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"
cdef bytes _DESCRIBE_AND_RUN = b"D\0\0\0\x06P\0" + _RUN

cdef enum Errand:
    # What follows a Bind of the unnamed portal: its Execute and Sync, perhaps behind its Describe.
    OTHER
    RUN
    DESCRIBE_AND_RUN


cdef Errand _errand(const unsigned char* p, Py_ssize_t size) noexcept:
    """Tell what is asked of a portal; whatever number of rows is asked for."""
    cdef Errand found
    if size == 15 and memcmp(p, PyBytes_AS_STRING(_RUN), 6) == 0:
        found = RUN
    elif size == 22 and memcmp(p, PyBytes_AS_STRING(_DESCRIBE_AND_RUN), 13) == 0:
        found = DESCRIBE_AND_RUN
    else:
        return OTHER
    return OTHER if memcmp(p + size - 5, PyBytes_AS_STRING(_RUN) + 10, 5) else found


cdef bint _values(Sheet to, const unsigned char* p, Py_ssize_t end) except -1:
    """Write a Bind's parameters, with a comma behind them, from its format codes on; False where it is another."""
    cdef Py_ssize_t at = 2, codes = 2
    cdef int formats, count, results, i
    cdef int32_t length
    if at > end:
        return False
    formats = _uint16(p)
    at += 2 * formats
    if at + 2 > end or not _codes(p + codes, formats):
        return False
    count = _uint16(p + at)
    at += 2
    if formats > 1 and formats != count:
        return False
    if count:
        to.put(b'"parameters":[', 14)
        for i in range(count):
            if at + 4 > end:
                return False
            length = <int32_t> _uint32(p + at)
            at += 4
            if i:
                to.put(b",", 1)
            if length < 0:
                if length != -1:
                    return False
                to.put(b'{"null":true}', 13)
                continue
            if length > end - at:
                return False
            if formats and p[codes + (2 * i + 1 if formats > 1 else 1)]:
                to.put(b'{"hex":"', 8)
                to.hex(p + at, length)
                to.put(b'"}', 2)
            else:
                to.put(b'{"text":', 8)
                if not to.string(p + at, length):
                    return False
                to.put(b"}", 1)
            at += length
        to.put(b"],", 2)
    if at + 2 > end:
        return False
    results = _uint16(p + at)
    at += 2
    return at + 2 * results == end and _codes(p + at, results)


cdef struct Answer:
    # What the whole, plain answer to one exchange tells; NULL where it has no description.
    const char* description
    Py_ssize_t size
    int64_t rows


cdef bint _answer(
    const unsigned char* p, Py_ssize_t size, char status, bint parsed, bint simple, bint described, Answer* answer
) noexcept:
    """Read the whole, plain answer to what is out, which ends in the same status; False where a chunk is another."""
    cdef Py_ssize_t at = 0
    cdef uint32_t length
    answer.description = NULL
    answer.rows = 0
    if size < 6 + 5 or p[size - 6] != 90 or p[size - 1] != <unsigned char> status:
        return False
    if _uint32(p + size - 5) != 5:
        return False
    size -= 6
    if parsed:
        if size < 5 or p[0] != 49 or _uint32(p + 1) != 4:
            return False
        at = 5
    if not simple:
        if size < at + 5 or p[at] != 50 or _uint32(p + at + 1) != 4:
            return False
        at += 5
    if simple or described:
        if at + 5 > size:
            return False
        length = _uint32(p + at + 1)
        if length < 4 or length > <uint32_t> (size - at - 1):
            return False
        if p[at] == 84:
            answer.description, answer.size = <const char*> p + at + 5, length - 4
        elif p[at] != 110 or length != 4 or simple:
            return False
        at += 1 + length
    while True:
        if at + 5 > size:
            return False
        length = _uint32(p + at + 1)
        if length < 4 or length > <uint32_t> (size - at - 1):
            return False
        if p[at] != 68:
            break
        answer.rows += 1
        at += 1 + length
    if p[at] == 115 and length == 4 and at + 5 == size and answer.rows and status == 73 and not simple:
        # As many rows as were asked for; where no transaction is open, the portal ends here.
        return True
    if p[at] != 67 or at + 1 + <Py_ssize_t> length != size:
        return False
    return _tag(p + at + 5, length - 4, &answer.rows)


cdef bint _tag(const unsigned char* tag, Py_ssize_t size, int64_t* rows) noexcept:
    """Read the tag of a SELECT; others are left to Python."""
    cdef Py_ssize_t i
    if size < 9 or size > 24 or tag[size - 1] or memcmp(tag, b"SELECT ", 7):
        return False
    rows[0] = 0
    for i in range(7, size - 1):
        if not 48 <= tag[i] <= 57:
            return False
        rows[0] = rows[0] * 10 + tag[i] - 48
    return True
