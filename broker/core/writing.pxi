# How the core writes: clocks, hashes, sheets of bytes, canonical JSON, ids, and lines that are sealed.

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    int RTLD_LAZY, RTLD_NOLOAD

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)
    int CLOCK_REALTIME, CLOCK_MONOTONIC

cdef extern from *:
    """
    #ifdef CLOCK_BOOTTIME
    #define AIRLOCK_BOOT CLOCK_BOOTTIME
    #else
    #define AIRLOCK_BOOT CLOCK_MONOTONIC
    #endif
    """
    int AIRLOCK_BOOT

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write(int, const void*, size_t)

import hashlib
import ssl

_tuple = tuple.__new__

_sha256 = hashlib.sha256
cdef bytes _CRYPTO = f"libcrypto.so.{ssl.OPENSSL_VERSION_INFO[0]}".encode()
# The library that hashlib itself has loaded, by its old calls, which ask for no algorithm by name each time.
cdef void* _crypto = dlopen(PyBytes_AS_STRING(_CRYPTO), RTLD_LAZY | RTLD_NOLOAD)
cdef int (*_init)(void*) noexcept
cdef int (*_update)(void*, const void*, size_t) noexcept
cdef int (*_final)(unsigned char*, void*) noexcept
_init = NULL
if _crypto != NULL:
    _init = <int (*)(void*) noexcept> dlsym(_crypto, b"SHA256_Init")
    _update = <int (*)(void*, const void*, size_t) noexcept> dlsym(_crypto, b"SHA256_Update")
    _final = <int (*)(unsigned char*, void*) noexcept> dlsym(_crypto, b"SHA256_Final")
    if _update == NULL or _final == NULL:
        _init = NULL


cdef int _hash(const char* data, Py_ssize_t size, unsigned char* digest) except -1:
    """Write the SHA-256 of bytes."""
    cdef char context[512]
    cdef bytes slow
    if _init != NULL and _init(context) and _update(context, data, size) and _final(digest, context):
        return 0
    slow = _sha256(PyBytes_FromStringAndSize(data, size)).digest()
    memcpy(digest, PyBytes_AS_STRING(slow), 32)
    return 0


cdef inline double _clock(int which) noexcept:
    cdef timespec now
    clock_gettime(which, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Anchor:
    """A moment of the wall clock and the same of the boot clock, as `adapters.clock` has it."""

    cdef public double wall, boot

    def __init__(self, double wall, double boot):
        self.wall, self.boot = wall, boot

    cpdef double seconds(self) noexcept:
        """Return the later of the wall clock and what the boot clock makes of the anchor."""
        cdef double wall = _clock(CLOCK_REALTIME), derived = self.wall + (_clock(AIRLOCK_BOOT) - self.boot)
        return derived if derived > wall else wall

cdef enum:
    LARGEST_SHEET = 1024 * 1024

cdef char* _HEX = b"0123456789abcdef"


cdef class Sheet:
    """Bytes that are being written."""

    cdef char* data
    cdef Py_ssize_t size, room

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int need(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t room
        cdef char* data
        if self.size + more > self.room:
            room = 2 * (self.size + more) + 1024
            data = <char*> PyMem_Realloc(self.data, room)
            if data == NULL:
                raise MemoryError
            self.data, self.room = data, room
        return 0

    cdef int put(self, const char* text, Py_ssize_t size) except -1:
        self.need(size)
        memcpy(self.data + self.size, text, size)
        self.size += size
        return 0

    cdef int bytes(self, bytes text) except -1:
        return self.put(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef int number(self, int64_t value) except -1:
        """Write a number that is not negative."""
        cdef char digits[24]
        cdef int at = 24
        while True:
            at -= 1
            digits[at] = 48 + value % 10
            value //= 10
            if not value:
                break
        return self.put(digits + at, 24 - at)

    cdef int hex(self, const unsigned char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t i
        self.need(2 * size)
        for i in range(size):
            self.data[self.size] = _HEX[data[i] >> 4]
            self.data[self.size + 1] = _HEX[data[i] & 15]
            self.size += 2
        return 0

    cdef bint string(self, const unsigned char* text, Py_ssize_t size) except -1:
        """Write ASCII as a string of canonical JSON; False where it is not ASCII."""
        cdef Py_ssize_t i
        cdef unsigned char c
        self.need(6 * size + 2)
        cdef char* to = self.data + self.size
        to[0] = 34
        to += 1
        for i in range(size):
            c = text[i]
            if c >= 128:
                return False
            if 32 <= c <= 126 and c != 34 and c != 92:
                to[0] = c
                to += 1
                continue
            to[0] = 92
            if c == 34 or c == 92:
                to[1] = c
            elif c == 10:
                to[1] = 110
            elif c == 13:
                to[1] = 114
            elif c == 9:
                to[1] = 116
            elif c == 8:
                to[1] = 98
            elif c == 12:
                to[1] = 102
            else:
                memcpy(to + 1, b"u00", 3)
                to[4] = _HEX[c >> 4]
                to[5] = _HEX[c & 15]
                to += 4
            to += 2
        to[0] = 34
        self.size = to + 1 - self.data
        return True

    cdef bytes taken(self):
        cdef bytes found = PyBytes_FromStringAndSize(self.data, self.size)
        self.rest()
        return found

    cdef void rest(self) noexcept:
        """Take no room for what was large; what is written is gone then."""
        if self.room > LARGEST_SHEET:
            PyMem_Free(self.data)
            self.data = NULL
            self.size = self.room = 0


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


cdef inline uint32_t _uint32(const unsigned char* p) noexcept:
    return (<uint32_t> p[0] << 24) | (<uint32_t> p[1] << 16) | (<uint32_t> p[2] << 8) | p[3]


cdef inline int _uint16(const unsigned char* p) noexcept:
    return (p[0] << 8) | p[1]


cdef Sheet _body = Sheet()


cdef int _seal(Sheet to, Py_ssize_t domain, char* hash_) except -1:
    """Put what is in the body, its hash last, behind the lines; the hash is kept for the next one."""
    cdef unsigned char digest[32]
    _hash(_body.data, _body.size, digest)
    to.put(_body.data + domain, _body.size - domain - 1)
    to.put(b',"hash":"', 9)
    cdef Py_ssize_t at = to.size
    to.hex(digest, 32)
    memcpy(hash_, to.data + at, 64)
    to.put(b'"}\n', 3)
    return 0


cdef const char* _kind_of(int kind) noexcept:
    return b"statement.allowed" if kind == ALLOWED else b"statement.finished"


cdef int _seal_entry(
    Entry entry, bytes stream, bytes grant, Sheet lines, int64_t recorded, char* record_hash, Sheet events, int64_t fed,
    char* feed_hash,
) except -1:
    """Put the lines that a record makes on two sheets; the hashes are those before, and afterwards its own.

    As `record_line` and `event_line`: times and names are ASCII that JSON takes as it is.
    """
    cdef const char* kind = _kind_of(entry.kind)
    _body.size = 0
    _body.put(b"airlock.recording.v1\0", 21)
    _body.put(b'{"at":"', 7)
    _body.put(entry.at, 27)
    _body.put(b'","data":{', 10)
    _body.put(entry.before, entry.before_size)
    _body.put(entry.behind, entry.behind_size)
    _body.put(b'},"detail":', 11)
    _body.put(entry.detail, entry.detail_size)
    _body.put(b',"grant":"', 10)
    _body.bytes(grant)
    _body.put(b'","prev":"', 10)
    _body.put(record_hash, 64)
    _body.put(b'","seq":', 8)
    _body.number(recorded)
    _body.put(b',"session":"', 12)
    _body.put(entry.session, entry.session_size)
    _body.put(b'","type":"', 10)
    _body.put(kind, strlen(kind))
    _body.put(b'"}', 2)
    _seal(lines, 21, record_hash)
    _body.size = 0
    _body.put(b"airlock.event.v1\0", 17)
    _body.put(b'{"at":"', 7)
    _body.put(entry.at, 27)
    _body.put(b'","data":{', 10)
    _body.put(entry.before, entry.before_size)
    _body.put(b'"recorded":"', 12)
    _body.number(recorded)
    _body.put(b":", 1)
    _body.put(record_hash, 64)
    _body.put(b'",', 2)
    _body.put(entry.behind, entry.behind_size)
    _body.put(b'},"grant":"', 11)
    _body.bytes(grant)
    _body.put(b'","prev":"', 10)
    _body.put(feed_hash, 64)
    _body.put(b'","seq":', 8)
    _body.number(fed)
    _body.put(b',"session":"', 12)
    _body.put(entry.session, entry.session_size)
    _body.put(b'","stream":"', 12)
    _body.bytes(stream)
    _body.put(b'","type":"', 10)
    _body.put(kind, strlen(kind))
    _body.put(b'"}', 2)
    _seal(events, 17, feed_hash)
    return 0


cdef int64_t _second_shown = -1
cdef char _shown[20]


cdef void _written_time(char* text, double seconds) noexcept:
    """Write a moment of the epoch as RFC 3339 in UTC, to the microsecond, in 27 bytes; as `timestamp` does."""
    global _second_shown
    cdef double whole
    cdef int64_t second, micro, days, era, doe, yoe, doy, mp, year, month, day, rest
    micro = <int64_t> rint(modf(seconds, &whole) * 1e6)
    second = <int64_t> whole
    if micro >= 1000000:
        second += 1
        micro -= 1000000
    if second != _second_shown:
        # From days to a date, after H. Hinnant's chrono-compatible algorithms.
        days = second // 86400 + 719468
        rest = second % 86400
        era = days // 146097
        doe = days - era * 146097
        yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
        doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
        mp = (5 * doy + 2) // 153
        day = doy - (153 * mp + 2) // 5 + 1
        month = mp + 3 if mp < 10 else mp - 9
        year = yoe + era * 400 + (1 if month <= 2 else 0)
        _digits(_shown, year, 4)
        _shown[4] = _shown[7] = 45
        _digits(_shown + 5, month, 2)
        _digits(_shown + 8, day, 2)
        _shown[10] = 84
        _digits(_shown + 11, rest // 3600, 2)
        _shown[13] = _shown[16] = 58
        _digits(_shown + 14, rest // 60 % 60, 2)
        _digits(_shown + 17, rest % 60, 2)
        _shown[19] = 46
        _second_shown = second
    memcpy(text, _shown, 20)
    _digits(text + 20, micro, 6)
    text[26] = 90


cdef void _digits(char* to, int64_t value, int count) noexcept:
    cdef int i
    for i in range(count - 1, -1, -1):
        to[i] = 48 + value % 10
        value //= 10


def timestamp(double seconds):
    """Write a moment of the epoch, after 1970 and before 10000, as RFC 3339 in UTC, to the microsecond."""
    cdef char text[27]
    _written_time(text, seconds)
    return PyBytes_FromStringAndSize(text, 27)
