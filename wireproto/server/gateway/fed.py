"""A call whose items follow: an upload or a duplex call, over gRPC a client-streaming or a bidirectional one.

It begins with its headers, for its handler may speak first. A message is asked for when the call is admitted, and then
one whenever the last one was taken: so one waits here at most, and HTTP/2's flow control holds back the rest.

gRPC does not tell a caller who sends nothing from one whose message is half here. So no clock runs for a message, and
what half ones may hold is bounded by the number of such calls that a network may have.
"""

from typing import Final

from wireproto.answering.call import Call
from wireproto.answering.intake import intake_of
from wireproto.answering.pool import Worker
from wireproto.answering.refusals import busy
from wireproto.errors import CallError
from wireproto.server.gateway.halves import network_of
from wireproto.server.gateway.rpc import PathTarget, Rpc, RpcOwner
from wireproto.server.gateway.seam import Wire

__all__ = ["FedRpc", "most_fed"]

_HALF: Final = 256 * 1024 * 1024
"""Bytes that the half messages of one network's calls whose items follow may hold. That many connections of one address
may hold as much on the TCP door, each in one half frame."""

_MOST: Final = 1024
"""Such calls of one network, however small their messages are."""

_BUSY: Final = "your network has too many uploads and duplex calls; let some end, and try again"


def most_fed(largest: int) -> int:
    """How many calls whose items follow a network may have.

    Args:
        largest: bytes that a message may have.
    """
    return min(_MOST, _HALF // largest)


class FedRpc(Rpc):
    """A call whose items follow.

    Args:
        door, wire, served: as for ``Rpc``.
    """

    __slots__ = ("_asked", "_complete", "_fed", "_target")

    def __init__(self, door: RpcOwner, wire: Wire, served: PathTarget) -> None:
        super().__init__(door, wire, served)
        self._target = served
        self._fed = False  # counted among the calls of its network
        self._asked = False  # a message was asked for and is not here
        self._complete = False

    def ask(self) -> None:
        """See ``rpc.Live``: begin."""
        self.take_over()
        if self._door.untaken.keeps(self.peer, self._ask_again):
            return
        self.whole = True
        if not self._door.fed.enter(network_of(self.peer), self.peer):
            self.refuse(busy(_BUSY))
            return
        with self.lock:
            self._fed = not self.over
        if not self._fed:
            self._door.fed.leave(network_of(self.peer), self.peer)
            return
        try:
            entry, metadata, self.version = self._target.terms(self._wire)
        except CallError as error:
            self._door.conduct.note(self.peer, "errors")
            self.refuse(error)
            return
        call = Call(self, 0, entry, metadata, b"")
        call.read_terms()
        with self.lock:
            if self.over or self._ending:
                return
            self.call = call
            call.intake = intake_of(call)
            call.intake.begin_locked()
        if call.deadline is not None:
            self._door.expect(call.deadline)

    def admitted_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``."""
        self._receive_locked(call)

    def taken_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``."""
        self._receive_locked(call)

    def _receive_locked(self, call: Call) -> None:
        """Ask for the next message, if it is time for that."""
        if self._asked or self._complete or self._ending or self.over or call.answered:
            return
        if call.intake is not None and not call.intake.waits:
            self._asked = True
            self._wire.receive()

    def on_message(self, worker: Worker | None, payload: bytes) -> None:
        """See ``seam.CallEvents``: one of the items."""
        with self.lock:
            self._asked = False
            if self.call is not None and self.call.intake is not None:
                self.call.intake.put_locked(payload)

    def on_complete(self) -> None:
        """See ``seam.CallEvents``."""
        with self.lock:
            self._complete = True
            if self.call is not None and self.call.intake is not None:
                self.call.intake.complete_locked()

    def _forget(self) -> None:
        with self.lock:
            fed, self._fed = self._fed, False
        if fed:
            self._door.fed.leave(network_of(self.peer), self.peer)
        super()._forget()
