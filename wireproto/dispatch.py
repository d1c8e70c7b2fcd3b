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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from wireproto.codecs import Codec
from wireproto.errors import (
    CallError,
    ConfigError,
    DeclarationError,
    DecodeError,
    EncodeError,
    PackedDetails,
)
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.reasons import REASONS, failure
from wireproto.resuming import resuming
from wireproto.schema import (
    By,
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Service,
    Shape,
    StreamMethod,
    UploadMethod,
)
from wireproto.status import Retry
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Packed, Payload, pack_payload, plain

__all__ = [
    "Authenticate",
    "Entry",
    "Handlers",
    "Outcome",
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
    """One method as it is served under one codec and service version. Made once, run for every call.

    Attributes:
        alike: equal for entries that encode an item alike, so that each may send what another has encoded; None for one
            whose items are no other's.
    """

    alike: tuple[object, ...] | None

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
        "alike",
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
        self.alike = (method, codec, version, packing if self.packs else 0)
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
            if error.details is not None:
                return self._with_details(error)
            # One that came from another server, with details that could not be read here, takes nothing along.
            return error if error.packed_details is None else _repacked(error, None)
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
        return _repacked(error, PackedDetails(name, payload))

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


def _repacked(error: CallError, packed: PackedDetails | None) -> CallError:
    """The same error with these details as they travel, and without metadata."""
    made = CallError(
        error.status,
        error.reason,
        error.message,
        retry=error.retry,
        retry_after_ms=error.retry_after_ms,
        details=error.details,
    )
    made.packed_details = packed
    return made


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
