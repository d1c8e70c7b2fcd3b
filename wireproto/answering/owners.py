"""What the parts of a call ask of what owns them: a call and a pump of their connection's side, here and over gRPC.

Each part names here what it needs and no more, so that no two modules import each other.
"""

from _thread import LockType
from collections.abc import Mapping
from typing import Any, Protocol

from wireproto.answering.pool import Pool
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Entry, Outcome
from wireproto.errors import CallError
from wireproto.handling import Context
from wireproto.identity import Holder, Identity
from wireproto.wire.packing import Payload

__all__ = ["CallLine", "CallOwner", "Fed", "Pumped"]


class CallLine(Protocol):
    """A connection's state, as calls and their pumps see it; the owner's lock is held."""

    version: int

    def credit(self, call_id: int) -> tuple[int, int]:
        """What may be sent now: an item while both numbers are 1 or more."""

    def send_item(self, call_id: int, payload: Payload) -> None:
        """Queue an item.

        Raises:
            PayloadTooLarge: the peer does not accept so much.
        """

    def send_item_behind(self, call_id: int, payload: Payload, dropped: int) -> None:
        """The same, of an item before which so many were left out."""


class CallOwner(Protocol):
    """A session, as its calls and their pumps see it. What ends in ``_locked`` is called with ``lock`` held."""

    lock: LockType
    pool: Pool
    peer: str
    codec: str
    identity: Identity | None

    @property
    def holder(self) -> Holder:
        """Who ends the calls of an identity that is revoked."""

    @property
    def client(self) -> ConnectedClient:
        """Who called, to be called in turn; LocalProtocolError where that cannot be."""

    @property
    def connection(self) -> CallLine:
        """What is sent on."""

    @property
    def draining(self) -> bool:
        """The server closes."""

    @property
    def half_closed(self) -> bool:
        """The peer will say nothing more, so that no credit comes."""

    def settle(self, call: Any, outcome: Payload | CallError, last: bool = False) -> None:
        """Queue a call's terminal frame, unless it has had one."""

    def stream_began_locked(self, call: Any) -> None:
        """A call has its stream; one that may not go on is ended."""

    def set_metadata_locked(self, call: Any, said: Mapping[str, str]) -> None:
        """What a call that is not answered is to say beside its answer, whatever that will be."""

    def send_error_locked(self, call: Any, error: CallError) -> None:
        """Queue the ERROR of a call that was not answered."""

    def run_on_locked(self, call: Any, error: CallError) -> None:
        """A call ends with ERROR while its handler runs on: now, or once another such handler is back."""

    def came_back_locked(self, call: Any) -> None:
        """... and its handler is back."""

    def one_way_over(self, call: Any, error: CallError | None) -> None:
        """The handler of a one-way call has returned, or the call was not run."""

    @property
    def collect_bytes(self) -> int:
        """Bytes of the items of one call that are kept until all have come, at most."""

    @property
    def item_timeout(self) -> float:
        """Seconds that a handler that iterates waits for an item."""

    def admitted_locked(self, call: Any) -> None:
        """A call whose items follow may run: have its caller send as much as is allowed."""

    def taken_locked(self, call: Any) -> None:
        """Items of a call were taken, as its intake says: have its caller send more, when it is time."""

    def answered_locked(self, call: Any) -> None:
        """A call whose items follow was answered, whether or not all have come."""

    def end_stream_locked(self, call: Any, error: CallError | None, dropped: int = 0) -> None:
        """The source of a call is exhausted, having left out so many items behind the last one, or failed."""

    def room_locked(self) -> int:
        """How many bytes may be added to what waits to be written; the last frame may go over. 0 when it is full:
        whoever asked is woken when there is room again.
        """

    def flush_locked(self) -> None:
        """Write what is queued, without blocking."""

    def flush(self) -> None:
        """The same, without the lock."""

    def flush_soon(self) -> None:
        """Have the leader write what is queued, so that this thread does no system call."""

    def take_over(self) -> None:
        """The leader was deposed in a call of the session: the next one goes on with its batch."""


class Pumped(Protocol):
    """A call, as the pump of its stream sees it."""

    @property
    def session(self) -> CallOwner:
        """Whose call it is."""

    @property
    def call_id(self) -> int:
        """Its number on the connection."""

    @property
    def entry(self) -> Entry:
        """The method."""

    @property
    def answered(self) -> bool:
        """Its terminal frame is queued, or the connection is gone."""


class Fed(Protocol):
    """A call whose items follow, as what takes them sees it."""

    started: bool

    @property
    def session(self) -> CallOwner:
        """Whose call it is."""

    def let_go_locked(self) -> None:
        """Nobody runs its handler any more; its owner is told if it waits for that."""

    @property
    def entry(self) -> Entry:
        """The method."""

    @property
    def answered(self) -> bool:
        """Its terminal frame is queued, or the connection is gone."""

    @property
    def context(self) -> Context:
        """What its handler may know, the caller's identity included, as it was judged."""

    def to_be_judged(self) -> Context:
        """The same, with who is signed in now: to be judged, once and before anything of the call is run."""

    def go_on(self, outcome: Outcome, last: bool) -> None:
        """Settle what its handler or its sink gave."""
