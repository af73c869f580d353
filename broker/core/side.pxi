# Where the bytes of a session arrive, at either end.

cdef class Side:
    """One end of a session's streams: what arrives there goes by the lane, or else to the session.

    `make` gives the session's lane once the client has said something: one that idles has none.
    """

    cdef Lane _lane
    cdef object _session, _make
    cdef bint _client

    def __init__(self, session, make, bint client):
        self._session, self._make, self._client = session, make, client

    def arrived(self, bytes data):
        try:
            if self._lane is None:
                self._lane = self._make()
            if self._lane.depart(data) if self._client else self._lane.land(data):
                return
            self._lane.leave()
        except Exception as error:
            self._session.derailed(error)
            return
        self._session.arrived(data, client=self._client)

    def lost(self):
        self._session.lost(client=self._client)

    def full(self):
        self._session.throttle(client=self._client, full=True)

    def free(self):
        self._session.throttle(client=self._client, full=False)
