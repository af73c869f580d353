# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False, cdivision=True
"""The compiled core: a known point read goes through here in two calls, and its records are sealed.

It decides nothing. It boards what the gate has a ruling for, as `express` does in Python, and what is not exactly a
Bind, Execute and Sync (perhaps with Describe) or a simple query that the booking gave a ticket for, or whose answer is
not whole in one chunk, it leaves to Python with everything as Python would have it. Each length that a peer sends is
checked against what is there before it is followed.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8, PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.math cimport modf, rint
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

cdef extern from "<stdatomic.h>" nogil:
    void atomic_signal_fence(int)
    int memory_order_seq_cst

include "writing.pxi"
include "disk.pxi"

cdef enum:
    LARGEST = 64 * 1024
    LONGEST_SHAPE = 4096
    MAX_NAME = 63
    # As the registry has it.
    MAX_ENTRIES = 5000

# As clearance has it.
cdef double LATE = 0.25

cdef Sheet _sheet = Sheet()


include "reading.pxi"
include "messages.pxi"
include "seats.pxi"
include "records.pxi"


cdef class Lane(Writer):
    """One session's lane; `booking` is what gives tickets and takes over what is left (booking.Booking).

    While it is `armed`, nothing of the session is under way but its own ride, and Python looks at nothing before
    `leave`. What the booking, the pen or a stream raises passes through, with the session's state unknown.
    """

    cdef Seats _seats
    cdef object _booking, _derailed, _seconds, _monotonic, _upstream, _client, _watched
    cdef Anchor _anchor
    cdef public double expires
    """When the grant ends, in seconds of the epoch by the broker's clock; nothing passes from then on."""
    cdef readonly bint armed
    cdef bint _simple, _described, _out, _first
    cdef Py_ssize_t _parsed
    """Where a Parse ends that what is out begins with."""
    cdef dict _prepared, _portals
    cdef char _status
    cdef int64_t _segment
    cdef Seat _seat
    cdef bytes _data, _portal_data
    cdef Seat _portal_seat
    cdef object _portal_prepared
    cdef str _portal_id
    cdef double _since, _at, _portal_since
    cdef int64_t _rows
    cdef object _awaited
    cdef bytes _held

    def __init__(
        self, booking, derailed, Journal journal, str grant, str session, Ids ids, clock, monotonic, basis, policies, moves,
        upstream, client, double expires,
    ):
        self._booking, self._derailed = booking, derailed
        self._introduce(journal, grant, session, ids)
        self._seats, self._monotonic = Seats(booking, basis, policies, moves), monotonic
        self._upstream, self._client = upstream, client
        anchor = getattr(clock, "anchored", None)
        self._anchor = anchor if isinstance(anchor, Anchor) else None
        self._seconds = clock.seconds
        self.expires = expires

    @property
    def kept(self):
        """About how many bytes of known texts."""
        return self._seats.kept

    cpdef bint depart(self, bytes data) except -1:
        """Record a known exchange and send it on its way, or change nothing and return False."""
        cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Seat seat
        cdef double now
        cdef uint64_t flushes
        if self._out or self._unsynced or size > LARGEST or size < 6 or (p[0] != 66 and p[0] != 81 and p[0] != 80):
            return False
        if not self.armed and not self._arm():
            return False
        self._since = self._at = self._clocked()
        self._parsed = 0
        if p[0] == 66:
            seat = self._bind(p, size, None)
        elif p[0] == 80:
            seat = self._parse(p, size)
        else:
            seat = self._query(p, size)
        if seat is None:
            return False
        now = self._now()
        if now >= self.expires:
            return False
        # What was found stands in the sheet: nothing else writes there before it is recorded.
        flushes = self._journal.flushes
        if not self._record_allowed(seat, now):
            return False
        if flushes != self._journal.flushes and self._clocked() - self._since > LATE and now < self.expires:
            # What stood in the journal took long to seal: the gate decides this anew.
            self._booking.alighted(self._named(), self._clocked() - self._since)
            return False
        if now >= self.expires:
            # What stood in the journal before it, or this itself, is not recorded: nothing departs (fail closed).
            return True
        self._seat, self._data, self._out = seat, data, True
        self._segment += 1
        if not self._upstream.is_closing():
            if seat.send is None:
                self._upstream.write(data)
            else:
                self._upstream.write(seat.send if not self._parsed else seat.send + data[self._parsed:])
        self._journal.ahead()
        return True

    cdef int watch(self, pending) except -1:
        """Learn of what is written and synced soon."""
        if pending is not self._watched:
            self._watched = pending
            self._booking.watch(pending)
        if self._unsynced and self._awaited is None:
            self._awaited = pending
            pending.add_done_callback(self._synced)
        return 0

    cdef int derail(self, error) except -1:
        """End the session: what it needs to have written is not. Nothing passes from here on (fail closed)."""
        self._out = self._unsynced = False
        self.expires = 0.0
        self._held = None
        self._derailed(error)
        return 0

    cpdef bint land(self, bytes data) except -1:
        """Give the client the whole answer to what departed, or change nothing and return False."""
        cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(data)
        cdef double now
        if not self._out or not self._answers(p, PyBytes_GET_SIZE(data)):
            return False
        if self._status == 73 and self._portals:
            # Where a transaction ends, the gate's way ends what was open in it.
            return False
        now = self._now()
        if now >= self.expires:
            return False
        self._at = self._clocked()
        self._record_finished(now, self._at - self._since, self._rows)
        if now >= self.expires:
            return True
        if self._first or self._seat.scrub:
            self._first = False
            self._booking.landed(chr(self._status), self._seat.ticket.ruling)
        self._out = False
        prepared = self._seat.prepared
        if self._parsed:
            self._prepared[self._seat.name] = prepared = self._booking.made(self._seat.ticket, self._seat.types)
        if self._simple:
            self._prepared.pop("", None)
            self._portals.pop("", None)
            self._portal_data = None
        elif self._status == 84:
            self._portal_data, self._portal_seat, self._portal_prepared = self._data, self._seat, prepared
            self._portal_id, self._portal_since = self._named(), self._since
        if self._unsynced:
            self._held = data
        elif not self._client.is_closing():
            self._client.write(data)
        self._journal.ahead()
        return True

    def _synced(self, pending):
        """Let the answer go that has waited for this; what fails to sync ends the session, by who watches."""
        if pending is not self._awaited:
            return
        self._awaited = None
        if pending.cancelled() or pending.exception() is not None:
            return
        self._unsynced, self._at = False, self._clocked()
        data, self._held = self._held, None
        # Behind the grant's end it is dropped, and its session ends (fail closed).
        if data is not None and self._now() < self.expires and not self._client.is_closing():
            self._client.write(data)

    cpdef leave(self):
        """Leave to Python what is under way."""
        if not self.armed:
            return
        if self._unsynced and self._awaited is None:
            self._journal.flush()
        self.armed = False
        self._booking.left(self._segment, self._at)
        if self._portal_data is not None:
            self._booking.portal(
                self._portal_seat.ticket, self._portal_data, self._portal_prepared, self._portal_id, self._portal_since
            )
            self._portal_data = self._portal_seat = self._portal_prepared = None
        awaited, self._awaited, self._unsynced = self._awaited, None, False
        held, self._held = self._held, None
        if held is not None:
            self._booking.withheld(held, awaited)
        if self._out:
            self._out = False
            prepared = self._seat.prepared
            if self._parsed:
                prepared = self._booking.made(self._seat.ticket, self._seat.types)
            self._booking.ride(
                self._seat.ticket, self._data, prepared, self._named(), self._segment - 1, self._since, awaited
            )
        self._seat = self._data = None

    cdef bint _arm(self) except -1:
        quiet = self._booking.quiet()
        if quiet is None:
            return False
        status, self._segment, self._seats.tripwire, self._prepared, self._portals = quiet
        self._status = ord(status)
        self.armed = self._first = True
        return True

    cdef str _named(self):
        return PyUnicode_DecodeASCII(self._id, 17, NULL)

    cdef double _clocked(self) except? -1:
        return _clock(CLOCK_MONOTONIC) if self._monotonic is None else self._monotonic()

    cdef double _now(self) except? -1:
        return self._seconds() if self._anchor is None else self._anchor.seconds()

    cdef Seat _query(self, const unsigned char* p, Py_ssize_t size):
        cdef Seat seat = None
        cdef bytes text
        if _uint32(p + 1) + 1 != <uint32_t> size or memchr(p + 5, 0, size - 5) != p + size - 1:
            return None
        self._simple = True
        if _mark(p + 5, size - 6):
            # Texts of one shape have one ticket, and each its own record.
            seat = self._seats.shaped(_marked.taken(), p + 5, size - 6, self._since)
            if seat is not None:
                _sheet.size = 0
                _sheet.put(b'{"sql":', 7)
                if not _sheet.string(p + 5, size - 6):
                    return None
                _sheet.put(b"}", 1)
                return seat
        text = PyBytes_FromStringAndSize(<const char*> p + 5, size - 6)
        seat = self._seats.text(text, self._since)
        if seat is None:
            return None
        _sheet.size = 0
        _sheet.bytes(seat.texts)
        return seat

    cdef Seat _parse(self, const unsigned char* p, Py_ssize_t size):
        """Read a Parse and the Bind of what it prepares, as `_bind` does."""
        cdef Py_ssize_t end = <Py_ssize_t> _uint32(p + 1) + 1
        cdef Seat seat
        if end < 6 or end + 6 > size or p[end] != 66 or len(self._prepared) >= MAX_ENTRIES:
            return None
        body = PyBytes_FromStringAndSize(<const char*> p + 5, end - 5)
        seat = self._seats.parse(body, self._since)
        if seat is None:
            return None
        self._parsed = end
        return self._bind(p + end, size - end, seat)

    cdef Seat _bind(self, const unsigned char* p, Py_ssize_t size, Seat parsed):
        """Read a Bind of the unnamed portal with what follows it, and write its parameters; None where it is another.

        It may be of a statement that is `parsed` just before.
        """
        cdef Py_ssize_t end = <Py_ssize_t> _uint32(p + 1) + 1
        cdef const unsigned char* nul
        cdef Errand errand
        cdef Seat seat
        if end < 6 or end >= size:
            return None
        errand = _errand(p + end, size - end)
        if errand == OTHER:
            return None
        self._described = errand == DESCRIBE_AND_RUN
        if p[5]:
            return None
        nul = <const unsigned char*> memchr(p + 6, 0, end - 6)
        if nul == NULL or nul - (p + 6) > MAX_NAME:
            return None
        try:
            name = PyUnicode_DecodeUTF8(<const char*> p + 6, nul - (p + 6), NULL)
        except UnicodeDecodeError:
            return None
        self._simple = False
        if parsed is not None:
            if name != parsed.name:
                return None
            seat = parsed
        else:
            prepared = self._prepared.get(name)
            if prepared is None:
                return None
            seat = self._seats.bound(name, prepared, self._since)
            if seat is None:
                return None
        _sheet.size = 0
        _sheet.put(b"{", 1)
        if not _values(_sheet, nul + 1, p + end - (nul + 1)):
            return None
        # Its texts, without their first brace.
        _sheet.put(PyBytes_AS_STRING(seat.texts) + 1, PyBytes_GET_SIZE(seat.texts) - 1)
        return seat

    cdef bint _answers(self, const unsigned char* p, Py_ssize_t size) except -1:
        """Say whether a chunk is the whole, plain answer to what is out; how many rows it says is kept."""
        cdef Answer answer
        if not _answer(p, size, self._status, self._parsed != 0, self._simple, self._described, &answer):
            return False
        if answer.description != NULL and not self._seats.shows(self._seat, answer.description, answer.size):
            return False
        self._rows = answer.rows
        return True


include "side.pxi"
include "tls.pxi"
include "journal.pxi"
include "pen.pxi"
