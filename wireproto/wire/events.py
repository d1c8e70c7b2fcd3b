"""What a connection reports: frozen values, one class for each thing that can happen.

Classes that may hold an exception stay visible to the garbage collector: once raised, an exception refers back to
whoever holds it.
"""

import enum
from typing import Final

import msgspec

from wireproto.errors import CallError, RemoteProtocolError
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.metadata import Metadata

__all__ = [
    "NEED_DATA",
    "CancelReceived",
    "ConnectionEnded",
    "CreditReceived",
    "EndReceived",
    "ErrorReceived",
    "Event",
    "GoAwayReceived",
    "HelloReceived",
    "ItemReceived",
    "NeedData",
    "PingReceived",
    "PongReceived",
    "RequestReceived",
    "ResponseReceived",
    "WelcomeReceived",
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
    """The server accepted; calls may begin."""

    welcome: Welcome


class RequestReceived(msgspec.Struct, frozen=True):
    """A call begins. Metadata that cannot be read fail this call only: they come as the error to answer with."""

    call_id: int
    opcode: int
    metadata: Metadata | CallError
    payload: bytes


class ResponseReceived(msgspec.Struct, frozen=True, gc=False):
    """A unary call is answered and over."""

    call_id: int
    opcode: int
    payload: bytes


class ItemReceived(msgspec.Struct, frozen=True, gc=False):
    """One item of a stream."""

    call_id: int
    payload: bytes


class EndReceived(msgspec.Struct, frozen=True, gc=False):
    """A stream is complete and over."""

    call_id: int


class ErrorReceived(msgspec.Struct, frozen=True):
    """A call failed and is over."""

    call_id: int
    error: CallError


class CancelReceived(msgspec.Struct, frozen=True, gc=False):
    """The client no longer wants the answer of a call in flight; its terminal frame is still owed."""

    call_id: int


class CreditReceived(msgspec.Struct, frozen=True, gc=False):
    """``amount`` more items of a stream may be sent."""

    call_id: int
    amount: int


class PingReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer asks for a sign of life; the PONG is queued already. Reported so that floods can be counted."""

    data: bytes


class PongReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer answered a PING."""

    data: bytes


class GoAwayReceived(msgspec.Struct, frozen=True):
    """The server takes no calls after ``last_call_id``; those up to it are still answered."""

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
    | ResponseReceived
    | ItemReceived
    | EndReceived
    | ErrorReceived
    | CancelReceived
    | CreditReceived
    | PingReceived
    | PongReceived
    | GoAwayReceived
    | ConnectionEnded
)
