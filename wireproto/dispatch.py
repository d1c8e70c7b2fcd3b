"""From an opcode and a payload to an answer: handlers, their context, and the one place where calls are judged.

It knows no socket and no gRPC. A door (the TCP server, the gRPC gateway) makes a ``Context`` for each call, hands it
with the payload to ``Entry.run``, and gets back bytes, a ``CallError``, a future or a stream. Identity, permission,
size, decoding, the handler's exceptions and its answer's type are all settled here, so that every door answers alike.
"""

import copy
import inspect
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar, overload

from wireproto.codecs import Codec
from wireproto.connected import ConnectedClient
from wireproto.errors import (
    CallError,
    ConfigError,
    DeclarationError,
    DecodeError,
    EncodeError,
    LocalProtocolError,
    PackedDetails,
)
from wireproto.identity import Holder, Identity
from wireproto.limits import Limits
from wireproto.reasons import REASONS, failure
from wireproto.resuming import position_lost, resuming
from wireproto.schema import (
    By,
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Positions,
    Service,
    Shape,
    StreamMethod,
    UploadMethod,
)
from wireproto.status import Retry, Status
from wireproto.uncopied import Uncopied
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Packed, Payload, pack_payload, plain

__all__ = [
    "Authenticate",
    "Context",
    "Entry",
    "Handlers",
    "Identity",
    "Outcome",
    "Sink",
    "Subscription",
    "Table",
    "each_service",
]

log = logging.getLogger("wireproto.dispatch")

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)
Result = TypeVar("Result")  # a message, or None

SHARED_ITEMS = 64
"""Items of one method, codec and version whose bytes are kept for further subscriptions: as many as one turn takes."""

SHARED_BYTES = 16_384
"""Bytes up to which they are kept, so that all of them together stay within 1 MiB."""


Authenticate: TypeAlias = Callable[[Metadata, str], Identity | None]
"""``f(metadata, peer)``, called when a call carries ``authorization``; None means that it is worth nothing."""


class Context(Uncopied):
    """What a handler may know and do beside its request. One per call; made by the door the call came through.

    Attributes:
        metadata: what the caller sent along.
        identity: who is calling, or None.
        deadline: the point in time, by ``time.monotonic``, at which the caller stops waiting; None without one.
        cancelled: whether the caller is gone or has cancelled; a long handler looks at it now and then.
    """

    # No abstract base class: its metaclass would be at odds with that of the struct which the TCP server makes of every
    # call. Its slots are empty, for each door has these attributes in its way; a checker would want them here.
    if not TYPE_CHECKING:
        __slots__ = ()

    metadata: Metadata
    identity: Identity | None
    deadline: float | None
    cancelled: bool

    def __init_subclass__(cls) -> None:
        """Refuse a door that forgot what is left to it, when its class is made.

        Raises:
            DeclarationError: the class lacks one of the members that only raise here.
        """
        super().__init_subclass__()
        for name in ("peer", "codec", "version", "method", "sign_in", "sign_out", "draining", "set_metadata"):
            if getattr(cls, name) is getattr(Context, name):
                raise DeclarationError(f"{cls.__name__} is a Context without {name}; define it, as each door does")

    @property
    def peer(self) -> str:
        """The caller's address, for logs: ``host:port``."""
        raise NotImplementedError

    @property
    def codec(self) -> str:
        """The name of the codec the call came in."""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """The service version the caller speaks."""
        raise NotImplementedError

    @property
    def method(self) -> Operation[Any, Any]:
        """The method that is being called."""
        raise NotImplementedError

    @property
    def draining(self) -> bool:
        """Whether the server closes: an iterator that has no end of its own ends now, well, or is ended later."""
        raise NotImplementedError

    @property
    def holder(self) -> Holder | None:
        """For doors: who ends the call when its identity is revoked; None where nobody does."""
        return None

    @property
    def client(self) -> ConnectedClient:
        """The client that called, to call it in turn: it may be kept for as long as it is connected.

        Raises:
            LocalProtocolError: nobody there can be called: the call came over gRPC, or this is the client's side.
        """
        raise LocalProtocolError("who called cannot be called: gRPC has no calls of a server, and a server serves")

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0.0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def abort(
        self,
        status: Status,
        reason: str = "",
        message: str = "",
        *,
        retry: Retry = Retry.NEVER,
        retry_after_ms: int = 0,
        details: Message | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> NoReturn:
        """End the call without an answer.

        Args:
            status: any but OK.
            reason: UPPER_SNAKE, one of the method's declared ``reasons``, or empty.
            message: for people; say what to do.
            retry: whether the caller may send the call again.
            retry_after_ms: how long it should wait before that; 0 when nothing is known.
            details: what programs may need to know beside the reason, a message of one of the method's declared
                ``errors``. Left out where it does not fit: above 4,096 bytes with its name, above 7,168 with the
                metadata, or above the largest frame that the caller accepts.
            metadata: what to say beside the error, as by ``set_metadata``.

        Raises:
            CallError: always, but for
            ValueError: the status is OK: return the response instead.
            TypeError: an argument is of another type.
            EncodeError: the metadata cannot be sent.
        """
        error = CallError(status, reason, message, retry=retry, retry_after_ms=retry_after_ms, details=details)
        for name, value in (metadata or {}).items():
            self.set_metadata(name, value)
        raise error

    def set_metadata(self, name: str, value: str) -> None:
        """Say something beside the answer: with the response, the end of a stream, or the error of the call.

        It travels behind all else, as trailing metadata over gRPC; a one-way call has no answer and nothing is sent.
        From any thread, until the call is answered; behind that nothing happens. A second value for a name replaces the
        first one.

        Args:
            name: 1 to 64 characters of ``a-z 0-9 . _ -``, none that gRPC has a use of its own for; ``traceparent`` for
                a W3C trace context.
            value: any text.

        Raises:
            EncodeError: the name or the value cannot be sent, or all entries together count more than 7,168 bytes, each
                with 32 beside its name and its value; of a value that is not printable ASCII three bytes count four.
        """
        raise NotImplementedError

    @property
    def resume_after(self) -> Any:
        """The position of the last item that the caller has: an int, a str or bytes, as the field that the method's
        ``resumable`` names. None for a caller that begins, and in a method that is not resumable.

        It is what a stranger says: whether this caller may see what is behind it is for the handler to look at. A
        handler that cannot go on behind it calls ``position_lost``.
        """
        method, written = self.method, self.metadata.resume_after
        if not written or not isinstance(method, StreamMethod) or method.resumable is None:
            return None
        return Positions(method.response, method.resumable).read(written)

    def position_lost(self, message: str = "") -> NoReturn:
        """End the call because the stream cannot go on behind ``resume_after``; before it has given an item.

        A client that follows the stream begins it anew, and tells its program of the gap.

        Args:
            message: for people; "" for one that says so.

        Raises:
            CallError: always: OUT_OF_RANGE, POSITION_LOST, not processed.
        """
        raise position_lost(message)

    def sign_in(self, identity: Identity) -> None:
        """Bind ``identity`` to the connection for its later calls. Does nothing over gRPC, where each call signs.

        Raises:
            CallError: FAILED_PRECONDITION, ALREADY_SIGNED_IN: the connection has another identity; sign out first.
        """
        raise NotImplementedError

    def sign_out(self) -> None:
        """Take the connection's identity away again; later calls have none of their own."""
        raise NotImplementedError


class Subscription(Uncopied, Generic[Item]):
    """A stream whose items come when they come, without holding a thread. Subclass it and return one from a handler.

    ``wake`` is set by the server before anything else is called; call it, from any thread, whenever ``take`` may have
    something to give. The server calls ``take`` from one thread at a time, and ``close`` last.
    """

    wake: Callable[[], None] = staticmethod(lambda: None)

    giving: AbstractContextManager[object] = nullcontext()
    """The server enters it before ``take`` and leaves it once the items are encoded and, over TCP, in the connection's
    output. A source that can take an item back puts a lock of its own here. Whoever holds that lock knows that no item
    is on its way between ``take`` and the output, if ``keep`` gives none back."""

    def take(self, n: int) -> Sequence[Item]:
        """Up to ``n`` items, at once; empty when there is nothing yet.

        One item may be given to any number of subscriptions: it is encoded once per codec and version. So an item must
        not be changed any more, which only those with a list or a dict in them can be.

        Raises:
            StopIteration: the stream is over.
            CallError: the stream fails with that status.
        """
        raise NotImplementedError(f"{type(self).__name__} must define take(self, n)")

    dropped = 0
    """How many items were left out ahead of those that ``take`` gives, or ahead of the end of the stream. ``take`` sets
    it before it returns or raises; the server tells the caller, with the next item or the end, and sets it back to 0.
    """

    def keep(self, items: Sequence[Item]) -> Sequence[Item]:
        """What becomes of the last items of a ``take`` for which there was no room: they were larger than those before
        them, and so more than the caller's credit in bytes, or than the output takes. Called behind that ``take``,
        still within ``giving``.

        Returns:
            Those that the server keeps, and sends before it calls ``take`` again: all of them, unless a subclass says
            otherwise. One that can take items back puts them back here, and returns none.
        """
        return items

    def stalled(self) -> None:
        """Called in place of ``take`` while nothing can be sent, because the caller grants no credit or reads nothing.
        A source that is at its end, or that waits for nobody, raises here what ``take`` would; it gives nothing.
        """

    def close(self, reason: str) -> None:
        """Called exactly once, when the stream has ended for whatever cause; ``reason`` is for logs."""


class Sink(Uncopied, Generic[Item, Result]):
    """What takes the items of an upload, or of the caller's half of a duplex call, without holding a thread.

    Subclass it, and have what is registered with ``Handlers.sink`` make one for each call. The server calls ``receive``
    from one thread at a time, and then exactly one of ``finished`` and ``failed``, once and last. For a duplex call the
    class derives from ``Subscription`` as well, which gives the answers; it is closed by itself.
    """

    answer: Callable[[Result], None] = staticmethod(lambda response: None)
    """Set by the server before anything is called; call it, from any thread, to answer an upload before all its items
    have come. What still comes is dropped; ``finished`` follows, and what that returns is not looked at."""

    def receive(self, item: Item) -> Future[Any] | None:
        """One more item. With a future the next one comes when that is done; the caller may send more only then.

        Raises:
            CallError: the call fails with that status.
        """
        raise NotImplementedError(f"{type(self).__name__} must define receive(self, item)")

    def finished(self) -> Result | Future[Result] | None:
        """All items have come. Returns the answer to an upload, or a future of it; None for a duplex call.

        Raises:
            CallError: the call fails with that status.
        """
        raise NotImplementedError(f"{type(self).__name__} must define finished(self)")

    def failed(self, error: CallError) -> None:
        """No more items come, and nobody waits for an answer: cancelled, out of time, the connection lost, or what this
        object or an item of the caller's was wrong with; ``error`` is for logs and for cleaning up.
        """


class _Collector(Sink[Any, Any]):
    """Keeps the items of an upload until all have come, and has the handler answer them at once."""

    def __init__(self, handler: "Handler", method: UploadMethod[Any, Any], context: Context) -> None:
        self._handler = handler
        self._method = method
        self._context = context
        self._items: list[Any] = []

    def receive(self, item: Any) -> None:
        most = self._method.collect
        if most is not None and len(self._items) >= most:
            raise failure("REQUEST_TOO_LARGE", f"{self._method.name} takes at most {most} items in one call")
        self._items.append(item)

    def finished(self) -> Any:
        return self._handler(self._items, self._context)


Answer: TypeAlias = Resp | Future[Resp]
Handler: TypeAlias = Callable[..., Any]
_Maker = TypeVar("_Maker", bound=Callable[[Context], Sink[Any, Any]])
Outcome: TypeAlias = "Payload | CallError | Future[Any] | Subscription[Any] | Iterator[Any]"


class _UploadRegistering(Protocol[Item, Resp]):
    """What registers the handler of an upload: of the items as they come, or of all of them where it collects."""

    @overload
    def __call__(
        self, handler: Callable[[Iterator[Item], Context], Answer[Resp]], /
    ) -> Callable[[Iterator[Item], Context], Answer[Resp]]: ...

    @overload
    def __call__(
        self, handler: Callable[[list[Item], Context], Answer[Resp]], /
    ) -> Callable[[list[Item], Context], Answer[Resp]]: ...


class Entry:
    """One method as it is served under one codec and service version. Made once, run for every call."""

    __slots__ = (
        "_authenticate",
        "_decode",
        "_details",
        "_encode",
        "_handler",
        "_reasons",
        "_requires",
        "_response",
        "_shared",
        "_unusual",
        "blocking",
        "collects",
        "flags",
        "max_request",
        "method",
        "of_packed",
        "pace",
        "packs",
        "shape",
        "sinks",
        "timeout",
    )

    def __init__(
        self,
        method: Operation[Any, Any],
        handler: Handler,
        codec: Codec,
        version: int,
        limits: Limits,
        authenticate: Authenticate | None,
        *,
        package: str = "",
        sinks: bool = False,
        packing: int = 0,
    ) -> None:
        self.method = method
        self.shape = method.shape
        self.flags = method.shape.flags
        self.collects = isinstance(method, UploadMethod) and method.collect is not None
        self.sinks = sinks or self.collects
        self._unusual = method.shape is not Shape.UNARY
        self.packs = method.compress and packing != 0 and method.shape is not Shape.ONE_WAY
        self.blocking = method.blocking or self.packs  # packing takes its time, for which the leader does not wait
        self.timeout = method.timeout
        self.max_request = limits.max_frame if method.max_request is None else method.max_request
        self.pace: Any = None  # of a door that runs handlers where others wait for them; see answering/pace.py
        self._handler = handler
        self._requires = method.requires
        self._reasons = frozenset(method.reasons)
        self._response = method.response
        self._shared: dict[int, tuple[object, Payload]] = {}
        self._authenticate = authenticate
        self._decode: Callable[[Any], Any] = codec.plan(method.request, version, limits, request=True).decode
        encode = codec.plan(method.response, version, limits, request=False).encode
        if isinstance(method, StreamMethod):
            self._handler, encode = resuming(method, handler, encode)
        self._encode: Callable[[Any], Payload] = _packing(encode, packing) if self.packs else encode
        self.of_packed: Entry = self  # what runs a request that is packed; see ``unpacking``
        self._details = {
            each: (f"{package}.{each.__name__}", codec.plan(each, version, limits, request=False).encode)
            for each in method.errors
        }

    def unpacking(self) -> "Entry":
        """The same method for requests that are packed: unpacking takes its time, so none of them runs on the leader.

        A copy, so that no other request is asked whether it is packed.
        """
        twin = copy.copy(self)
        decode = self._decode
        twin._decode = lambda payload: decode(payload.unpack())  # noqa: SLF001 - of its own class, and made here
        twin.blocking = True
        return twin

    def due(self, seconds: float | None) -> float | None:
        """When a call that begins now is to end, by ``time.monotonic``: after what its caller gives it, and after the
        method's ``timeout`` at the latest; None for never.
        """
        cap = self.timeout
        if cap is not None and (seconds is None or cap < seconds):
            seconds = cap
        return None if seconds is None else time.monotonic() + seconds

    def run(self, payload: Payload, context: Context) -> Outcome:
        """Judge, decode, handle and encode one call. Never raises.

        Returns:
            The encoded response, packed or not, b"" for a one-way method; a ``CallError``; a future of the response (a
            deferred answer); or for a stream method its source, a ``Subscription`` or an iterator.
        """
        try:
            deadline = context.deadline
            if deadline is not None and time.monotonic() >= deadline:
                return _too_late()
            if self._requires is not None or context.identity is not None or context.metadata.authorization:
                self._judge(context)
            if len(payload) > self.max_request:
                return self._too_large(payload)
            try:
                request = self._decode(payload)
            except DecodeError as error:
                return failure("BAD_PAYLOAD", str(error))
            answer = self._handler(request, context)
            if self._unusual:
                return self.outcome(answer)
            if type(answer) is self._response:
                return self._encode(answer)
            if isinstance(answer, Future):
                return answer
            return self.encode(answer)
        except CallError as error:
            return self._checked(error)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises ends its call only, SystemExit too
            return self.incident(error)

    # Of a method whose items follow.

    def admit(self, context: Context) -> CallError | None:
        """Judge a call before anything of it is read. Never raises."""
        try:
            if context.deadline is not None and time.monotonic() >= context.deadline:
                return _too_late()
            self._judge(context)
        except CallError as error:
            return self._checked(error)
        except BaseException as error:  # noqa: BLE001 - whatever authenticating raises ends this call only
            return self.incident(error)
        return None

    def open(self, context: Context) -> "Sink[Any, Any] | CallError":
        """Make what takes the items of a call that was admitted; for a method with ``sinks``. Never raises."""
        try:
            if isinstance(self.method, UploadMethod) and self.method.collect is not None:
                return _Collector(self._handler, self.method, context)
            sink = self._handler(context)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises ends its call only
            return self.failure(error)
        wanted = "a Sink" if self.shape is Shape.UPLOAD else "both a Sink and a Subscription"
        if isinstance(sink, Sink) and (self.shape is Shape.UPLOAD or isinstance(sink, Subscription)):
            return sink
        return self.incident(
            TypeError(f"what makes the sinks of {self.method.name} made {type(sink).__name__}; it must be {wanted}")
        )

    def read(self, payload: Payload) -> Any:
        """One of the items that follow. One that is packed is not for the leader to read.

        Raises:
            CallError: it is no message of the method, or too large.
        """
        if len(payload) > self.max_request:
            raise self._too_large(payload)
        try:
            return self._decode(plain(payload))
        except DecodeError as error:
            raise failure("BAD_PAYLOAD", str(error)) from None

    def run_items(self, items: Iterator[Any], context: Context) -> Outcome:
        """Have a handler take the items that follow as they come, on the calling thread. Never raises."""
        try:
            return self.outcome(self._handler(items, context))
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises ends its call only
            return self.failure(error)

    def outcome(self, answer: object) -> Outcome:
        """What becomes of what a handler returned. Never raises."""
        if self.method.items_come_back:
            return self._source(answer)
        if self.shape is Shape.ONE_WAY:
            return b"" if answer is None else self._wrong_answer(answer, "return nothing")
        if isinstance(answer, Future):
            return answer
        return self.encode(answer)

    def _wrong_answer(self, answer: object, wanted: str) -> CallError:
        return self.incident(
            TypeError(f"the handler of {self.method.name} answered {type(answer).__name__}; it must {wanted}")
        )

    def _too_large(self, payload: Payload) -> CallError:
        what = "an item" if self.method.items_follow else "the request"
        return failure(
            "REQUEST_TOO_LARGE", f"{what} is {len(payload)} bytes; {self.method.name} takes at most {self.max_request}"
        )

    # What goes back.

    def encode(self, answer: object) -> "Payload | CallError":
        """Encode a response or an item, wherever it came from, and pack it where that was agreed on. Never raises."""
        if type(answer) is not self._response:
            return self._wrong_answer(answer, f"answer {self._response.__name__}")
        try:
            return self._encode(answer)
        except EncodeError as error:
            return self.incident(error)

    def encode_shared(self, item: object) -> "Payload | CallError":
        """Encode an item that other streams of the method may be given as well: once for all of them, and packed once
        for all that have agreed on the same algorithm. Never raises.
        """
        known = self._shared.get(id(item))
        if known is not None:  # held together with its item, so nothing else can have the number
            return known[1]
        payload = self.encode(item)
        if (type(payload) is bytes and len(payload) <= SHARED_BYTES) or (
            isinstance(payload, Packed) and len(payload.body) <= SHARED_BYTES
        ):
            if len(self._shared) >= SHARED_ITEMS:
                self._shared.clear()
            self._shared[id(item)] = (item, payload)
        return payload

    def failure(self, error: BaseException) -> CallError:
        """What the caller is told when a deferred answer or a stream ended in ``error``."""
        return self._checked(error) if isinstance(error, CallError) else self.incident(error)

    def incident(self, error: BaseException) -> CallError:
        """Keep an unexpected exception in the log and give the peer its number only: its text may hold secrets."""
        number = secrets.token_hex(4)
        log.error("incident %s in %s", number, self.method.name, exc_info=error)
        return failure("INTERNAL", f"incident {number}: the server failed; its log has the cause under this number")

    def _checked(self, error: CallError) -> CallError:
        if error.reason in self._reasons or not error.reason or error.reason in REASONS:
            return error if error.details is None else self._with_details(error)
        undeclared = DeclarationError(
            f"{self.method.name} aborted with the reason {error.reason}, which it does not declare; add it to reasons="
        )
        undeclared.__cause__ = error
        return self.incident(undeclared)

    def _with_details(self, error: CallError) -> CallError:
        """The same error with its details as they travel. Another object: it may be raised in several calls at once."""
        known = self._details.get(type(error.details))
        if known is None:
            undeclared = DeclarationError(
                f"{self.method.name} aborted with details of {type(error.details).__name__}, which it does not "
                "declare; add it to errors="
            )
            undeclared.__cause__ = error
            return self.incident(undeclared)
        name, encode = known
        try:
            payload = encode(error.details)
        except EncodeError as problem:
            return self.incident(problem)
        made = CallError(
            error.status,
            error.reason,
            error.message,
            retry=error.retry,
            retry_after_ms=error.retry_after_ms,
            details=error.details,
        )
        made.packed_details = PackedDetails(name, payload)
        return made

    def _judge(self, context: Context) -> None:
        if context.metadata.authorization:
            signed = None if self._authenticate is None else self._authenticate(context.metadata, context.peer)
            context.identity = signed
            if signed is not None:
                signed.held_by(context.holder)
        identity = context.identity
        if identity is not None and identity.revoked:
            identity = context.identity = None
        needed = self._requires
        if needed is None:
            return
        if identity is None:
            advice = (
                "the authorization metadata sent with it are not accepted here"
                if context.metadata.authorization
                else "sign in first, or send authorization metadata"
            )
            raise failure("SIGN_IN_REQUIRED", f"{self.method.name} needs a signed-in caller; {advice}")
        if needed not in identity.capabilities:
            raise failure("NOT_PERMITTED", f"{self.method.name} needs the capability {needed!r}")

    def _source(self, answer: object) -> "CallError | Subscription[Any] | Iterator[Any]":
        if isinstance(answer, Subscription):
            return answer
        if isinstance(answer, Iterable):
            return iter(answer)
        return self._wrong_answer(answer, "return an iterable or a Subscription")


def _packing(encode: Callable[[Any], bytes], algorithm: int) -> Callable[[Any], Payload]:
    """What encodes and then packs, where that is worth it."""
    return lambda answer: pack_payload(encode(answer), algorithm)


def _too_late() -> CallError:
    return failure("DEADLINE", "the deadline passed before the call was started", retry=Retry.NOT_PROCESSED)


class Table:
    """The opcodes that the other side of a connection may call: its methods of the service at its version, under its
    codec.

    Attributes:
        service: as given.
        version: of the service.
        entries: opcode -> method.
        unary: those of them that are called by a REQUEST without flags, which is what nearly every REQUEST is.
    """

    __slots__ = ("_side", "entries", "service", "unary", "version")

    def __init__(self, service: Service, version: int, entries: Mapping[int, Entry], side: By = "server") -> None:
        self.service = service
        self._side = side
        self.version = version
        self.entries = entries
        self.unary = {opcode: entry for opcode, entry in entries.items() if not entry.flags}

    def find(self, opcode: int, flags: int) -> Entry | None:
        """The method that a REQUEST with the flags of a shape calls; None when there is none."""
        entry = self.entries.get(opcode)
        return entry if entry is not None and entry.flags == flags else None

    def missing(self, opcode: int, flags: int = 0) -> CallError:
        """The answer for an opcode that ``entries`` lacks, and for one that is there under other flags.

        Args:
            opcode: of the REQUEST; the answer says which versions have it, if any does.
            flags: of the REQUEST.
        """
        entry = self.entries.get(opcode)
        if entry is not None:
            text = (
                f"{entry.method.name} is called by a REQUEST with flags {entry.flags:#04x}; this one has {flags:#04x}"
            )
            return failure("WRONG_SHAPE", text)
        method = self.service.by_opcode.get(opcode)
        if method is None:
            text = f"opcode 0x{opcode:04x} is not in {self.service.full_name}; `wireproto ops` lists those that are"
            return failure("UNKNOWN_OPCODE", text)
        if method.by == self._side:
            text = f"{method.name} is called by the {self._side}, and this is the {self._side}"
            return failure("UNKNOWN_OPCODE", text, retry=Retry.NOT_PROCESSED)
        if method in self.service.at(self.version).values():
            return failure("NO_HANDLER", f"this {self._side} has no handler for {method.name}")
        span = f"since version {method.since}" + (f" until version {method.until}" if method.until else "")
        text = f"{method.name} exists {span}; this connection speaks version {self.version}"
        return failure("UNKNOWN_OPCODE", text)


class Handlers:
    """The functions that answer the methods of one service.

    Args:
        service: the opcode table they answer.
    """

    def __init__(self, service: Service) -> None:
        if not isinstance(service, Service):
            raise DeclarationError(f"handlers are of a Service, not of {service!r}")
        self.service = service
        self._handlers: dict[int, Handler] = {}
        self._sinks: set[int] = set()

    @overload
    def register(
        self, method: Method[Req, Resp]
    ) -> Callable[[Callable[[Req, Context], Answer[Resp]]], Callable[[Req, Context], Answer[Resp]]]: ...

    @overload
    def register(
        self, method: StreamMethod[Req, Item]
    ) -> Callable[
        [Callable[[Req, Context], Iterable[Item] | Subscription[Item]]],
        Callable[[Req, Context], Iterable[Item] | Subscription[Item]],
    ]: ...

    @overload
    def register(self, method: UploadMethod[Item, Resp]) -> _UploadRegistering[Item, Resp]: ...

    @overload
    def register(
        self, method: DuplexMethod[Req, Item]
    ) -> Callable[
        [Callable[[Iterator[Req], Context], Iterable[Item] | Subscription[Item]]],
        Callable[[Iterator[Req], Context], Iterable[Item] | Subscription[Item]],
    ]: ...

    @overload
    def register(
        self, method: OneWayMethod[Req]
    ) -> Callable[[Callable[[Req, Context], None]], Callable[[Req, Context], None]]: ...

    def register(self, method: Operation[Any, Any]) -> Callable[[Handler], Handler]:
        """A decorator that makes a function ``(request, context)`` the handler of ``method``.

        A unary handler returns the response, or a ``concurrent.futures.Future`` of it; a stream handler returns an
        iterable of items or a ``Subscription``; the handler of a one-way method returns nothing. It runs on any worker
        thread, and several at once. A future is cancelled when its caller gives up, so whoever completes it calls
        ``set_running_or_notify_cancel`` first.

        The handler of an upload or a duplex method is given an iterator in place of the request, whose ``next`` waits
        for an item: it holds a worker for the whole call. One that must not is registered with ``sink``; an upload with
        ``collect`` is given a list, when all is there.

        Raises:
            DeclarationError: the service has no such method, the method has a handler already, or the function is a
                coroutine, which no worker would await, or the class of a ``Sink``, which ``sink`` registers.
        """
        return self._registering(method, "register")

    def sink(self, method: UploadMethod[Item, Resp] | DuplexMethod[Item, Resp]) -> Callable[[_Maker], _Maker]:
        """A decorator for what makes the ``Sink`` of each call of ``method``: a function ``(context)``, or a class.

        For a duplex method it makes an object that is a ``Subscription`` as well, which gives the answers.

        Raises:
            DeclarationError: as ``register``, or the method has no items that follow, or collects them.
        """
        if not isinstance(method, UploadMethod | DuplexMethod):
            raise DeclarationError(
                "write @handlers.sink(METHOD), with an UploadMethod or a DuplexMethod of the service"
            )
        if isinstance(method, UploadMethod) and method.collect is not None:
            raise DeclarationError(f"{method.name} collects its items; write @handlers.register({method.name})")
        registering = self._registering(method, "sink")

        def keep(maker: _Maker) -> _Maker:
            registering(maker)
            self._sinks.add(method.opcode)
            return maker

        return keep

    def _registering(self, method: Operation[Any, Any], how: str) -> Callable[[Handler], Handler]:
        if not isinstance(method, Operation):
            raise DeclarationError(f"write @handlers.{how}(METHOD), with a method of the service")
        if self.service.own(method) is None:
            raise DeclarationError(
                f"{method.name} is not a method of {self.service.full_name}; add it to the service's methods"
            )
        if method.opcode in self._handlers:
            raise DeclarationError(f"{self.service.full_name}.{method.name} has a handler already; register one only")

        def keep(handler: Handler) -> Handler:
            if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
                raise DeclarationError(
                    f"the handler of {method.name} is async; write a plain function, which may block, or return a "
                    "concurrent.futures.Future for an answer that comes later"
                )
            if how == "register" and isinstance(handler, type) and issubclass(handler, Sink):
                raise DeclarationError(
                    f"{handler.__name__} is a Sink; write @handlers.sink({method.name}), which makes one for each call"
                )
            self._handlers[method.opcode] = handler
            return handler

        return keep

    def missing(self, by: By = "client") -> list[Operation[Any, Any]]:
        """The methods of some version spoken that have no handler yet, in the order of the service; they are answered
        UNIMPLEMENTED.

        Args:
            by: the side that calls them.
        """
        spoken = [each for each in self.service.methods if any(map(each.in_version, self.service.versions))]
        return [method for method in spoken if method.by == by and method.opcode not in self._handlers]

    def check_side(self, by: By) -> None:
        """Hold the handlers to the methods that this side calls.

        Raises:
            ConfigError: one of them is of a method that the other side calls, so that it would never run.
        """
        for opcode in self._handlers:
            method = self.service.by_opcode[opcode]
            if method.by != by:
                place = "connect(handlers=...)" if by == "client" else "a Server"
                raise ConfigError(
                    f"{method.name} is called by the {method.by}, and its handler would never run here; give it in "
                    f"Handlers of their own to {place}"
                )

    def handler(self, method: Operation[Any, Any]) -> Handler | None:
        """The function registered for ``method``, for tests that call it directly; None when there is none."""
        return self._handlers.get(method.opcode)

    def as_of(self, version: int) -> "Handlers":
        """The same functions for the service as it was in ``version``: an older server, for a test.

        Raises:
            ConfigError: the service has no such version.
        """
        older = Handlers(self.service.as_of(version))
        known = older.service.by_opcode
        older._handlers = {opcode: handler for opcode, handler in self._handlers.items() if opcode in known}
        older._sinks = {opcode for opcode in self._sinks if opcode in known}
        return older

    def table(
        self,
        codec: Codec,
        version: int,
        limits: Limits,
        authenticate: Authenticate | None = None,
        *,
        by: By = "client",
        packing: int = 0,
    ) -> Table:
        """Compile what one side calls of the service for one codec and version.

        Args:
            codec, version, limits, authenticate: of the door.
            by: the side that calls.
            packing: the algorithm by which answers of methods with ``compress`` are packed; 0 for none.

        Raises:
            DeclarationError: the codec cannot carry a message of the service.
        """
        entries = {
            opcode: Entry(
                method,
                self._handlers[opcode],
                codec,
                version,
                limits,
                authenticate,
                package=self.service.package,
                sinks=opcode in self._sinks,
                packing=packing,
            )
            for opcode, method in self.service.called_by(by, version).items()
            if opcode in self._handlers
        }
        return Table(self.service, version, entries, "server" if by == "client" else "client")


def each_service(given: Handlers | Iterable[Handlers]) -> list[Handlers]:
    """What a door serves, as a list.

    Raises:
        ConfigError: it is something else, there is none, or a service is given twice.
    """
    every = list(given) if isinstance(given, Iterable) else [given]
    if not every:
        raise ConfigError("a server needs the handlers of at least one service")
    seen: set[str] = set()
    for handlers in every:
        if not isinstance(handlers, Handlers):
            raise ConfigError(f"a server serves Handlers, not {type(handlers).__name__}; write Handlers(service)")
        name = handlers.service.full_name
        if name in seen:
            raise ConfigError(f"{name} is given twice; register all its handlers in one Handlers")
        handlers.check_side("client")
        seen.add(name)
    return every
