"""A one-way call: answered once it has its turn to run, while its handler has yet to run, or runs."""

from wireproto.answering.call import Call, OneWayCall
from wireproto.answering.pool import Worker
from wireproto.answering.refusals import busy
from wireproto.answering.watch import STUCK
from wireproto.dispatch import Entry
from wireproto.errors import CallError
from wireproto.server.gateway.rpc import PathTarget, Rpc, RpcOwner
from wireproto.server.gateway.seam import Wire
from wireproto.wire.metadata import Metadata

__all__ = ["OneWayRpc"]


class OneWayRpc(Rpc):
    """A call whose caller waits for no more than that it is accepted.

    While its connection has as many as it may that wait for a worker or run, it waits for its turn, up to its deadline.
    What keeps it from running is told: gRPC has a way to. What becomes of it then is nobody's but the log's. The door
    has not forgotten it before both its caller has the answer and its handler is back.

    Args:
        door, wire, served: as for ``Rpc``.
    """

    __slots__ = ("_gone", "_running", "_waits")

    def __init__(self, door: RpcOwner, wire: Wire, served: PathTarget) -> None:
        super().__init__(door, wire, served)
        self._running = False
        self._gone = False
        self._waits = False

    def _begin(self, worker: Worker | None, entry: Entry, metadata: Metadata, payload: bytes) -> None:
        call = OneWayCall(self, 0, entry, metadata, payload)
        call.read_terms()
        with self.lock:
            if self.over or self._ending:
                return
            self.call = call  # whose deadline counts until it has its turn; from then on that is nobody's but its own
            self._waits = True
        if self._door.one_way.enter(self.peer, self):
            if not self._take_place(call):
                self._door.one_way.leave(self.peer)
            elif self._door.leads(entry.pace, worker):
                self._accept()
                entry.pace.ran = True
                call.run(True, worker)
                if worker is not None and self.pool.leader is not worker:
                    entry.pace.note(STUCK)  # deposed: the run took at least so long
            elif self.pool.submit(call):
                self._accept()
            else:
                self._back()
                self.refuse(busy())
            return
        with self.lock:
            gone = self._gone
        if gone:  # before it began to wait
            self._door.one_way.withdraw(self.peer, self)
        if call.deadline is not None:
            self._door.expect(call.deadline)
        self.take_over()

    def take_turn(self) -> bool:
        """See ``turns.WaitsForTurn``: another one of its connection is over."""
        call = self.call
        if not isinstance(call, OneWayCall) or not self._take_place(call):
            return False
        if self.pool.submit(call):
            self._accept()
            return True
        with self.lock:
            self._running = False
        self.refuse(busy())
        return False

    def _take_place(self, call: OneWayCall) -> bool:
        """It may run; False when it is over."""
        with self.lock:
            self._waits = False
            self._running = not self.over and not self._ending and not call.answered
            if self._running:
                self.call = None
            return self._running

    def _accept(self) -> None:
        with self.lock:
            if not self.over and not self._ending:
                self._answer_locked(b"")

    def one_way_over(self, call: Call, error: CallError | None) -> None:
        """See ``owners.CallOwner``."""
        if error is not None:
            if error.reason == "BAD_PAYLOAD":
                self._door.conduct.note(self.peer, "errors")
            self._door.note_one_way(self.peer, error)
        self._back()

    def _back(self) -> None:
        """Its handler is back, or was never begun."""
        with self.lock:
            self._running = False
            gone = self._gone
        self._door.one_way.leave(self.peer)
        if gone:
            super()._forget()

    def _forget(self) -> None:
        with self.lock:
            self._gone = True
            running, waits = self._running, self._waits
        if waits:
            self._door.one_way.withdraw(self.peer, self)
        if not running:
            super()._forget()
