"""What a connection reports: frozen values, one class for each thing that can happen.

Classes that may hold an exception stay visible to the garbage collector: once raised, an exception refers back to
whoever holds it.
"""

import enum
from typing import Final

import msgspec

from wireproto.errors import CallError, RemoteProtocolError
from wireproto.wire.answers import Beside
from wireproto.wire.frame import Credit
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Packed, Payload

__all__ = [
    "NEED_DATA",
    "AnswerEvent",
    "AnswerUnreadable",
    "AnsweredBeside",
    "CallOver",
    "CancelReceived",
    "ConnectionEnded",
    "CreditReceived",
    "EndReceived",
    "ErrorReceived",
    "Event",
    "FlaggedRequestReceived",
    "GoAwayReceived",
    "HelloReceived",
    "ItemReceived",
    "NeedData",
    "OneWayCreditReceived",
    "PackedItemReceived",
    "PackedResponseReceived",
    "PingReceived",
    "PongReceived",
    "RequestEnded",
    "RequestReceived",
    "ResponseReceived",
    "WelcomeReceived",
    "bare",
]


class NeedData(enum.Enum):
    """The type of ``NEED_DATA``."""

    NEED_DATA = "need data"

    def __repr__(self) -> str:
        return "NEED_DATA"


NEED_DATA: Final = NeedData.NEED_DATA
"""There is no event in what was received so far. A value, since this is how most reads end."""


class HelloReceived(msgspec.Struct, frozen=True):
    """A client greets; answer with ``send_welcome`` or ``refuse``."""

    hello: Hello


class WelcomeReceived(msgspec.Struct, frozen=True):
    """The server accepted; calls may begin.

    Attributes:
        skipped: ids of the early calls, if they were written for another codec or version than those of ``welcome``:
            they are over, and not processed.
    """

    welcome: Welcome
    skipped: tuple[int, ...] = ()


class RequestReceived(msgspec.Struct, frozen=True):
    """A unary call begins. Metadata that cannot be read fail this call only: they come as the error to answer with."""

    call_id: int
    opcode: int
    metadata: Metadata | CallError
    payload: bytes


class FlaggedRequestReceived(msgspec.Struct, frozen=True):
    """A call of another shape begins, which ``flags`` say, or one whose request is packed. A one-way call is over with
    that: nothing is answered.
    """

    call_id: int
    opcode: int
    flags: int
    metadata: Metadata | CallError
    payload: Payload


class ResponseReceived(msgspec.Struct, frozen=True, gc=False):
    """A call is answered with one message and over."""

    call_id: int
    opcode: int
    payload: bytes


class PackedResponseReceived(msgspec.Struct, frozen=True, gc=False):
    """A call is answered with one message, which is packed, and over."""

    call_id: int
    opcode: int
    payload: Packed


class ItemReceived(msgspec.Struct, frozen=True, gc=False):
    """One item of the half of a call that the peer sends."""

    call_id: int
    payload: bytes


class PackedItemReceived(msgspec.Struct, frozen=True, gc=False):
    """One item of the half of a call that the peer sends, which is packed."""

    call_id: int
    payload: Packed


class RequestEnded(msgspec.Struct, frozen=True, gc=False):
    """The request half of a call is complete: no more ITEMs come of it."""

    call_id: int


class EndReceived(msgspec.Struct, frozen=True, gc=False):
    """The answer half of a call is complete, and the call over."""

    call_id: int


class CallOver(msgspec.Struct, frozen=True, gc=False):
    """A call that was cancelled has had its terminal frame, whatever that said: its place is free again."""

    call_id: int


class ErrorReceived(msgspec.Struct, frozen=True):
    """A call failed and is over."""

    call_id: int
    error: CallError


AnswerEvent = (
    ResponseReceived | PackedResponseReceived | ItemReceived | PackedItemReceived | EndReceived | ErrorReceived
)
"""What of a call comes from the side that answers it."""


class AnsweredBeside(msgspec.Struct, frozen=True):
    """An answer, or an item of one, that says something beside its payload. Most have nothing, and come by themselves.

    ``event`` is what came, which alone counts for the state of the call; of an ``ErrorReceived`` the error may have
    ``packed_details``.
    """

    event: AnswerEvent
    opcode: int
    beside: Beside


class AnswerUnreadable(msgspec.Struct, frozen=True):
    """An item of an answer came with metadata that cannot be read. The call goes on at the peer: cancel it."""

    call_id: int
    error: CallError


class CancelReceived(msgspec.Struct, frozen=True, gc=False):
    """Whoever began a call in flight no longer wants its answer; the terminal frame is still owed."""

    call_id: int


class CreditReceived(msgspec.Struct, frozen=True, gc=False):
    """More ITEMs of our half of a call may be sent."""

    call_id: int
    more: Credit


class OneWayCreditReceived(msgspec.Struct, frozen=True, gc=False):
    """So many more one-way calls may be begun."""

    calls: int


class PingReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer asks for a sign of life; the PONG is queued already, if one may be sent. Reported so that floods can be
    counted.
    """

    data: bytes


class PongReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer answered a PING."""

    data: bytes


class GoAwayReceived(msgspec.Struct, frozen=True):
    """The peer takes no calls after ``last_call_id``; those up to it are still answered."""

    last_call_id: int
    error: CallError


class ConnectionEnded(msgspec.Struct, frozen=True):
    """Nothing more will be reported.

    ``error`` is None after an end of input at a frame boundary or our own ``close``; a ``CallError`` when a side sent
    a final ERROR on purpose; a ``RemoteProtocolError`` when the peer broke the protocol.
    """

    error: RemoteProtocolError | CallError | None


Event = (
    HelloReceived
    | WelcomeReceived
    | RequestReceived
    | FlaggedRequestReceived
    | RequestEnded
    | ResponseReceived
    | PackedResponseReceived
    | ItemReceived
    | PackedItemReceived
    | EndReceived
    | ErrorReceived
    | AnsweredBeside
    | AnswerUnreadable
    | CallOver
    | CancelReceived
    | CreditReceived
    | OneWayCreditReceived
    | PingReceived
    | PongReceived
    | GoAwayReceived
    | ConnectionEnded
)


def bare(event: Event) -> Event:
    """The event itself, without what stands beside it."""
    return event.event if isinstance(event, AnsweredBeside) else event
