"""Every exception the framework raises.

    WireprotoError
    +-- DeclarationError            a message, method or service is declared wrong (raised at import time)
    +-- ConfigError                 a setting, an address or an option is wrong
    +-- CodecError                  carries the path of the field
    |   +-- EncodeError             ours: the value handed over cannot be written
    |   +-- DecodeError             theirs: the bytes received mean no message
    +-- ProtocolError
    |   +-- LocalProtocolError      ours: a call the connection's state does not allow
    |   |   +-- BothFull            an item cannot be sent before answers are read
    |   +-- RemoteProtocolError     theirs: bytes the protocol does not allow; the connection ends
    +-- CallError                   a call ended without an answer: status, reason, retry advice
        +-- ConnectionLost          the transport went away under the call, or could not be had
        +-- HandshakeError          the peer refused the connection, and says what it supports

Who erred is the type; what to do is in the message. Each of them, and each class that derives from one, comes out of a
pickle or a copy with its text, its fields and its notes; as with all exceptions, its cause and its traceback stay.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from wireproto.status import Retry, Status

__all__ = [
    "BothFull",
    "CallError",
    "CodecError",
    "ConfigError",
    "ConnectionLost",
    "DeclarationError",
    "DecodeError",
    "EncodeError",
    "HandshakeError",
    "LocalProtocolError",
    "PackedDetails",
    "ProtocolError",
    "RemoteProtocolError",
    "WireprotoError",
]


class WireprotoError(Exception):
    """The root of every exception raised by the framework itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not Exception's own way, which calls the class with ``args``: a constructor that takes anything else then
        # fails where the error is read, and multiprocessing.Pool, whose thread reads it, waits for ever.
        return _remade, (type(self), self.args), self.__dict__ or None


def _remade(cls: type[WireprotoError], args: tuple[object, ...]) -> WireprotoError:
    """An error with these ``args`` whose constructor was not called; its fields are set by whoever copies it."""
    return cls.__new__(cls, *args)


class DeclarationError(WireprotoError):
    """A message, method, service or handler table is declared wrong.

    The text names the class and the field, and says what to write instead.
    """


class ConfigError(WireprotoError):
    """A setting, an address or an option is wrong; the text says which and what is accepted."""


class CodecError(WireprotoError):
    """A message could not be turned into bytes or back.

    Attributes:
        path: where, as ``Message.field`` with ``[index]`` or ``[key]`` inside containers.
        problem: what is wrong there, without the path.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class EncodeError(CodecError):
    """The message handed over cannot be written: a wrong type, a value out of range, a field the peer lacks."""


class DecodeError(CodecError):
    """The payload received is not a message of the expected type."""


class ProtocolError(WireprotoError):
    """The rules of the connection were broken."""


class LocalProtocolError(ProtocolError):
    """This side asked for something the connection's state does not allow; nothing was sent."""


class BothFull(LocalProtocolError):
    """Both halves of a duplex call are full: an item cannot be sent before answers are read, and nobody reads them.

    The item was not sent, and the call goes on: read some answers, then send it again.
    """


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow. The connection ends; its peer is told why.

    Attributes:
        status: the status of the final ERROR frame.
        reason: its UPPER_SNAKE reason, one of those listed in ``docs/wire.md``.
        problem: its message.
    """

    def __init__(self, reason: str, problem: str, status: Status = Status.INVALID_ARGUMENT) -> None:
        super().__init__(reason, problem, status)
        self.reason = reason
        self.problem = problem
        self.status = status

    def __str__(self) -> str:
        return f"{self.reason}: {self.problem}"


class PackedDetails(NamedTuple):
    """The details of an error as they travel.

    Attributes:
        name: the full name of their message, such as ``example.v1.OutOfStock``.
        payload: the message, in the codec and the version of the connection.
    """

    name: str
    payload: bytes


_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class CallError(WireprotoError):
    """A call that ended without an answer. It is what a client catches and what ``Context.abort`` raises.

    Attributes:
        status: one of the sixteen codes other than OK.
        reason: UPPER_SNAKE, declared by the method or by the framework, for programs; may be empty.
        message: for people; says what to do.
        retry: whether the call may be sent again.
        retry_after_ms: milliseconds to wait before that; 0 when nothing is known. At most 2**32 - 1.
        details: a message that says more, for programs: one of the method's declared ``errors``; None without one, and
            at a client also where it could not be read. Not shown by ``str``.
        metadata: at a client, what the answer said beside the error, by name; empty for nothing. What a server adds
            to an answer it says by ``Context.set_metadata``, so that an error passed on takes nothing along.
        packed_details: the details as they travel; for doors and clients.

    Raises:
        ValueError: the status is OK.
        TypeError: an argument is of another type than is named here.
    """

    # What few errors have is of the class until one has it.
    details: Any = None
    metadata: Mapping[str, str] = _NONE
    packed_details: PackedDetails | None = None

    def __init__(
        self,
        status: Status,
        reason: str = "",
        message: str = "",
        *,
        retry: Retry = Retry.NEVER,
        retry_after_ms: int = 0,
        details: Any = None,
    ) -> None:
        # Refused here, where the mistake is made: whoever sends it has nobody to tell, and would lose the connection.
        for name, value, kind in (
            ("status", status, Status),
            ("reason", reason, str),
            ("message", message, str),
            ("retry", retry, Retry),
            ("retry_after_ms", retry_after_ms, int),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name} is {value!r}; give {'an' if kind is int else 'a'} {kind.__name__}")
        if status is Status.OK:
            raise ValueError("status is OK; a call that went well has an answer and no error, so give another status")
        super().__init__(status, reason, message)
        self.status: Status = status
        self.reason = reason
        self.message = message
        self.retry = retry
        self.retry_after_ms = retry_after_ms
        if details is not None:
            self.details = details

    def __str__(self) -> str:
        head = f"{self.status.name} {self.reason}" if self.reason else self.status.name
        return f"{head}: {self.message}" if self.message else head


class ConnectionLost(CallError):
    """The transport went away, or could not be had; ``retry`` says whether the call may have been processed."""

    def __init__(self, message: str, *, retry: Retry = Retry.MAYBE_PROCESSED, retry_after_ms: int = 0) -> None:
        super().__init__(Status.UNAVAILABLE, "CONNECTION_LOST", message, retry=retry, retry_after_ms=retry_after_ms)


class HandshakeError(CallError):
    """The peer refused the connection: no common version, codec, service or contract. Its text lists what is."""
