# Where the bytes of a session arrive, at either end.

cdef class Side:
    """One end of a session's streams: what arrives there goes by the lane, or else to the session's flow.

    `make` gives the session's lane once the client has said something: one that idles has none.
    """

    cdef Lane _lane
    cdef object _flow, _make
    cdef bint _client
    cdef public bint behind
    """What came before still waits for its turn, so nothing goes by the lane."""

    def __init__(self, flow, make, bint client):
        self._flow, self._make, self._client = flow, make, client

    def arrived(self, bytes data):
        if self.behind:
            self._flow.arrived(data, client=self._client)
            return
        try:
            if self._lane is None:
                self._lane = self._make()
            if self._lane.depart(data) if self._client else self._lane.land(data):
                return
            self._lane.leave()
        except Exception as error:
            self._flow.derailed(error)
            return
        self._flow.arrived(data, client=self._client)

    def lost(self):
        self._flow.lost(client=self._client)

    def full(self):
        self._flow.throttle(client=self._client, full=True)

    def free(self):
        self._flow.throttle(client=self._client, full=False)
