# What a session's lane knows of texts, within bounds, and for as long as what it rests on does not move.

cdef enum:
    MOST_KEPT = 512 * 1024
    LARGEST_SHOWN = 16 * 1024


cdef class Seat:
    """What a ticket says of one known text, or of all texts of its shape, in bytes."""

    cdef object ticket, basis, prepared, wires, types, said
    cdef str name
    """Of the statement that it parses, where it does."""
    cdef bytes before, between, behind, texts, send, shown
    cdef bint shaped, waits, scrub
    cdef Py_ssize_t weight
    """About how many bytes it keeps."""

    def __init__(self, object ticket, object basis, object prepared, bint shaped):
        self.ticket, self.basis, self.prepared, self.shaped = ticket, basis, prepared, shaped
        self.before, self.between, self.behind = ticket.before, ticket.between, ticket.behind
        self.texts, self.send, self.waits = ticket.texts, ticket.send, ticket.waits
        self.said, self.scrub = ticket.said, ticket.scrub
        self.shown, self.wires = b"", None
        # The ruling and its form have each of them once more.
        self.weight = 1024 + 2 * len(self.before) + 2 * len(self.behind) + 3 * len(self.texts)
        if self.send is not None:
            self.weight += len(self.send)


cdef class Moves:
    """Counts what may change a ruling."""

    cdef public int64_t count


cdef class Seats:
    """The seats of one session's known texts; `booking` gives the tickets that they are made of."""

    cdef object _booking, _basis, _policies, _policy, _holds
    cdef Moves _upstream_moves, _own_moves
    cdef int64_t _moved
    cdef double _until
    cdef dict _bound, _texts, _parses
    cdef Py_ssize_t kept
    """About how many bytes of known texts."""
    cdef object tripwire

    def __init__(self, booking, basis, policies, moves):
        self._booking, self._basis, self._policies = booking, basis, policies
        self._upstream_moves, self._own_moves = moves
        self._bound, self._texts, self._parses = {}, {}, {}
        self._moved, self._until = -1, 0.0

    cdef Seat bound(self, str name, object prepared, double at):
        """Return the seat of a prepared statement under the policy and the catalogue of this moment, or None."""
        return self._ticketed(self._bound, name, prepared, None, at)

    cdef Seat text(self, bytes text, double at):
        """Return the seat of a text, as `bound` does."""
        return self._ticketed(self._texts, text, None, text, at)

    cdef Seat shaped(self, bytes key, const unsigned char* text, Py_ssize_t size, double at):
        """Return the seat of all texts of a shape, as `bound` does."""
        cdef Seat seat = self._texts.get(key)
        basis = self._current(at)
        if seat is not None and basis is not None and seat.basis is basis:
            return seat if seat.shaped else None
        if basis is None:
            return None
        ticket = self._booking.alike(PyBytes_FromStringAndSize(<const char*> text, size), key)
        if ticket is None:
            return None
        self.tripwire = self._booking.tripwire
        seat = Seat(ticket, basis, None, True)
        self._keep(self._texts, key, seat)
        return seat

    cdef Seat parse(self, bytes body, double at):
        """Return the seat of a Parse with its Bind, as `bound` does."""
        cdef Seat seat = self._parses.get(body)
        basis = self._current(at)
        if basis is None:
            return None
        if seat is not None and seat.basis is basis:
            return seat
        found = self._booking.parsing(body)
        if found is None:
            return None
        self.tripwire = self._booking.tripwire
        ticket, name, types = found
        seat = Seat(ticket, basis, None, False)
        seat.name, seat.types = name, types
        seat.weight += len(body)
        self._keep(self._parses, body, seat)
        return seat

    cdef bint shows(self, Seat seat, const char* description, Py_ssize_t size) except -1:
        """Say whether a description trips no wire; the gate ends the session where it does."""
        if seat.wires is self.tripwire and PyBytes_GET_SIZE(seat.shown) == size:
            if memcmp(PyBytes_AS_STRING(seat.shown), description, size) == 0:
                return True
        cdef bytes shown = PyBytes_FromStringAndSize(description, size)
        if not self._booking.shows(seat.ticket, shown):
            return False
        if size <= LARGEST_SHOWN:
            seat.weight += size - PyBytes_GET_SIZE(seat.shown)
            self.kept += size - PyBytes_GET_SIZE(seat.shown)
            seat.shown, seat.wires = shown, self.tripwire
        return True

    cdef object _current(self, double at):
        """Return what rulings rest on; asked again when it may have moved, or was looked at too long ago."""
        cdef int64_t moved = self._upstream_moves.count + self._own_moves.count
        policy = self._policies.hash
        if moved != self._moved or policy is not self._policy or at >= self._until:
            self._moved, self._policy = moved, policy
            self._holds, self._until = self._basis()
        return self._holds

    cdef Seat _ticketed(self, dict seats, object key, object prepared, bytes text, double at):
        cdef Seat seat = seats.get(key)
        basis = self._current(at)
        if basis is None:
            return None
        if seat is not None and seat.basis is basis and seat.prepared is prepared:
            return seat
        ticket = self._booking.ticket(text, prepared)
        if ticket is None:
            return None
        self.tripwire = self._booking.tripwire
        seat = Seat(ticket, basis, prepared, False)
        self._keep(seats, key, seat)
        return seat

    cdef int _keep(self, dict seats, object key, Seat seat) except -1:
        """Keep a seat for the next time, and all of them within bounds."""
        cdef Seat before = seats.pop(key, None)
        if before is not None:
            self.kept -= before.weight
        if self.kept + seat.weight > MOST_KEPT:
            self._bound.clear()
            self._texts.clear()
            self._parses.clear()
            self.kept = 0
        seats[key] = seat
        self.kept += seat.weight
        return 0

