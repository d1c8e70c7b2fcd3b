"""A one-way call: answered as soon as it is accepted to run, while its handler has yet to run, or runs."""

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

    What keeps it from that is told: gRPC has a way to. What becomes of it then is nobody's but the log's. The door has
    not forgotten it before both its caller has the answer and its handler is back.

    Args:
        door, wire, served: as for ``Rpc``.
    """

    __slots__ = ("_gone", "_running")

    def __init__(self, door: RpcOwner, wire: Wire, served: PathTarget) -> None:
        super().__init__(door, wire, served)
        self._running = False
        self._gone = False

    def _begin(self, worker: Worker | None, entry: Entry, metadata: Metadata, payload: bytes) -> None:
        call = OneWayCall(self, 0, entry, metadata, payload)
        call.read_terms()
        shares = self._door.one_way
        if not shares.enter(self.peer):
            self.refuse(busy(f"{shares.most} one-way calls of this connection wait or run; try again later"))
            return
        with self.lock:
            self._running = not self.over and not self._ending
        if not self._running:
            shares.leave(self.peer)
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
            running = self._running
        if not running:
            super()._forget()
