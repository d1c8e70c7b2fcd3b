"""The client of a pair as its server sees it that calls it: ``Pair.agent``, and ``Context.client`` of its handlers.

Nothing moves by itself here either. A call is sent, and its answer taken, by the exchange that comes next: that of the
test, or of whichever method of the pair waits.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import msgspec

from wireproto.binding import Binding, Dialect
from wireproto.connected import ConnectedClient, ItemReceiver, ItemSource
from wireproto.errors import CallError, ConnectionLost, DecodeError, LocalProtocolError
from wireproto.futures import CallFuture
from wireproto.handling import Subscription
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.schema import DuplexMethod, Message, Method, OneWayMethod, Operation, StreamMethod, UploadMethod
from wireproto.status import Retry
from wireproto.testing.paired import next_of
from wireproto.wire.answers import NOTHING_BESIDE
from wireproto.wire.connection import Connection, State
from wireproto.wire.events import (
    AnsweredBeside,
    AnswerUnreadable,
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    ItemReceived,
    ResponseReceived,
)
from wireproto.wire.frame import U32_MAX, Credit
from wireproto.wire.framing import PayloadTooLarge
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata
from wireproto.wire.packing import plain

__all__ = ["PairedAgent"]

log = logging.getLogger("wireproto.testing")

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)


class AgentsPair(Protocol):
    """What the calls of a pair's server use of it."""

    server: Connection
    limits: Limits
    moving: bool

    def settle(self) -> None:
        """Exchange, and keep what came for the client's own calls.

        Raises:
            CallError, ProtocolError: the connection has ended.
        """

    def dialect(self) -> Dialect:
        """What the server speaks when it calls."""


class PairedFuture(CallFuture[Any]):
    """The future of a call; ``cancel`` tells the client, with the next exchange."""

    def __init__(self, call: "BegunInPair") -> None:
        super().__init__()
        self._call = call

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the client said beside its answer, by name; empty before that is there."""
        return self._call.said if self.done() else NOTHING_BESIDE.metadata

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        self._call.give_up(failure("CANCELLED", "the call was cancelled"))
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The outcome; ``Pair.exchange`` brings it.

        Raises:
            LocalProtocolError: it is not there, and no time passes in which it could come.
        """
        self._call.refuse_waiting(self)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``result``."""
        self._call.refuse_waiting(self)
        return super().exception(0)


class BegunInPair:
    """One call of the server's.

    Attributes:
        call_id: 0 while it waits for a place.
        over: nothing more comes, and nothing more is sent.
        items: that came and were taken by nobody yet.
        said: what stood beside the answer.
    """

    def __init__(
        self,
        agent: "PairedAgent",
        method: Operation[Any, Any],
        payload: bytes,
        metadata: Metadata,
        source: Any,
        sink: ItemReceiver[Any] | None,
    ) -> None:
        self.call_id = 0
        self.over = False
        self.items: deque[bytes] = deque()
        self.said = NOTHING_BESIDE.metadata
        self.error: BaseException | None = None
        self.future = PairedFuture(self)
        self._agent = agent
        self._method = method
        self._binding: Binding[Any, Any] = agent.binding(method)
        self._payload = payload
        self._metadata = metadata
        self._source = source
        self._sink = sink
        self._held: bytes | None = None  # an item for which there is no credit, so that the end is seen without one
        self._awaited: tuple[Future[Any], int] | None = None  # what the sink gave for an item, and the bytes of that

    def refuse_waiting(self, future: Future[Any]) -> None:
        """Raises LocalProtocolError if the future is not done."""
        if not future.done():
            raise LocalProtocolError(
                f"{self._method.name} is not answered yet, and nothing moves while somebody waits: exchange() first, "
                "and in a handler return the future"
            )

    def send(self, connection: Connection) -> None:
        """Send the REQUEST."""
        method = self._method
        block = pack_metadata(self._metadata)
        try:
            if flags := method.shape.flags:
                credit = self._metadata.credit
                self.call_id = connection.send_flagged_request(
                    flags, method.opcode, self._payload, block, credit=credit
                )
            else:
                self.call_id = connection.send_request(method.opcode, self._payload, block)
        except PayloadTooLarge as error:
            self.end(failure("REQUEST_TOO_LARGE", f"the request cannot be sent: {error}"))

    # What came.

    def respond(self, payload: bytes) -> None:
        """The response, or what it says is no message."""
        try:
            response = self._binding.decode(payload)
        except DecodeError as error:
            self.end(error)
        else:
            self.end(None, response)

    def end(self, error: BaseException | None, response: Any = None) -> None:
        """Nothing more comes of the call: whoever takes its items has those first that are here."""
        if self.over:
            return
        self.over = True
        self.error = error
        source, self._source = self._source, None
        if isinstance(source, Subscription):
            source.close("the call is over" if error is None else str(_told(error)))
        elif source is not None and hasattr(source, "close"):
            source.close()
        if self._sink is None:
            self._tell(response)

    def give_up(self, error: BaseException) -> None:
        """Nobody on this side wants anything of the call any more."""
        if not self.over:
            self._agent.forget(self)
            self.items.clear()
            self._awaited = None
            self.end(error)

    def _tell(self, response: Any = None) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(response)

    # What moves with an exchange.

    def move(self, connection: Connection) -> bool:
        """Send what there is credit for, and give the sink what came; whether the call is still of interest."""
        if self._source is not None and self.call_id:
            try:
                self._send_items(connection)
            except Exception as error:  # noqa: BLE001 - what the application's source raises is its own call's
                self.give_up(error)
        if self._sink is not None:
            self._feed(connection, self._sink)
        return not self.over or self._sink is not None

    def _send_items(self, connection: Connection) -> None:
        while True:
            if self._held is None:
                items = next_of(self._source)
                if items is None:
                    self._source = None
                    connection.send_end(self.call_id)
                    return
                if not items:
                    return
                self._held = plain(self._agent.encoded(self._binding, self._method, items[0]))
            if not connection.may_send_item(self.call_id):
                return
            connection.send_item(self.call_id, self._held)
            self._held = None

    def _feed(self, connection: Connection, sink: ItemReceiver[Any]) -> None:
        try:
            if not self._hand_over(connection, sink) or not self.over:
                return
        except Exception as error:  # noqa: BLE001 - what the application's sink raises is its own call's
            self.items.clear()
            self._awaited = None
            if self.over:
                self.error = error
            else:
                self.give_up(error)
        self._sink = None  # it is told once
        try:
            if self.error is None:
                sink.finished()
            else:
                sink.failed(_told(self.error))
        except Exception as error:
            if self.error is not None:
                log.exception("the sink of %s failed when it was told that its call had", self._method.name)
            else:
                self.error = error
        self._tell()

    def _hand_over(self, connection: Connection, sink: ItemReceiver[Any]) -> bool:
        """Give the sink what came; whether it has taken all of it."""
        while self._awaited is not None or self.items:
            if self._awaited is None:
                payload = self.items.popleft()
                taken = sink.receive(self._binding.decode(payload))
                if taken is None:
                    self._return_credit(connection, len(payload))
                else:
                    self._awaited = (taken, len(payload))
            else:
                future, size = self._awaited
                if not future.done():
                    return False
                self._awaited = None
                future.result(0)
                self._return_credit(connection, size)
        return True

    def _return_credit(self, connection: Connection, size: int) -> None:
        """One item was taken."""
        if not self.over:
            connection.send_credit(self.call_id, 1, size)

    def taken(self, connection: Connection) -> Any:
        """The next item that came, for whoever iterates."""
        payload = self.items.popleft()
        self._return_credit(connection, len(payload))
        return self._binding.decode(payload)


class PairedItems(Iterator[Any]):
    """The items of a stream of the client's. Each ``next`` exchanges; it ends with those that are there."""

    def __init__(self, agent: "PairedAgent", call: BegunInPair) -> None:
        self._agent = agent
        self._call = call
        self._done = False

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the client said beside the end; empty before that."""
        return self._call.said if self._done else NOTHING_BESIDE.metadata

    def __next__(self) -> Any:
        call = self._call
        if self._done:
            raise StopIteration
        if not call.items and not call.over:
            self._agent.exchange("give a sink, which takes the items as they come")
        if call.items:
            try:
                return self._agent.take_from(call)
            except BaseException:
                self.close()
                raise
        error = call.error
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Cancel the call, if it is not over."""
        if not self._done:
            self._done = True
            if not self._call.over:
                self._call.future.cancel()


class PairedAgent(ConnectedClient):
    """The client, to its server. For one thread, as all of the pair is.

    ``call`` and iterating exchange until the answer is here. In a handler they are refused, as on a real server; what
    ``start``, ``stream`` with a sink, ``upload`` and ``duplex`` with one begin is sent by the exchange that runs it.
    No time passes, so that a timeout only is what the client is told.
    """

    __slots__ = ("_begun", "_callbacks", "_ending", "_gone", "_pair", "_waiting")

    def __init__(self, pair: AgentsPair) -> None:
        self._pair = pair
        self._begun: dict[int, BegunInPair] = {}
        self._waiting: deque[BegunInPair] = deque()
        self._ending: list[BegunInPair] = []  # over, and their sinks were not told yet
        self._gone = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def peer(self) -> str:
        return "pair:0"

    @property
    def version(self) -> int:
        return self._pair.server.version

    @property
    def codec(self) -> str:
        return self._pair.dialect().codec.name

    @property
    def answers(self) -> int:
        return self._pair.server.their_max_calls

    @property
    def connected(self) -> bool:
        return not self._gone and not self._pair.server.goaway_received

    def on_close(self, callback: Callable[[], object]) -> None:
        if self._gone:
            callback()
        else:
            self._callbacks.append(callback)

    def start(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> CallFuture[Resp]:
        return self._begin(Method, method, timeout, metadata, request=request).future

    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp:
        self._refuse_handlers("use start, and return its future or add a callback to it")
        future: CallFuture[Resp] = self.start(method, request, timeout=timeout, metadata=metadata)
        if not future.done():
            self.exchange("")
        try:
            return future.result()
        except LocalProtocolError:
            future.cancel()
            raise

    def post(self, method: OneWayMethod[Req], request: Req, *, metadata: Metadata | None = None) -> None:
        binding = self._of_kind(OneWayMethod, method)
        payload = plain(self.encoded(binding, method, request))
        if (problem := self._problem()) is not None:
            raise problem
        server = self._pair.server
        if server.one_way_credit < 1:
            raise failure("TOO_MANY_CALLS", "the client takes no more one-way calls now; none was sent")
        server.send_flagged_request(method.shape.flags, method.opcode, payload, pack_metadata(metadata or EMPTY))

    def stream(  # type: ignore[override] # the overloads are the base's
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        sink: ItemReceiver[Item] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item] | Future[None]:
        return self._with_items(StreamMethod, method, timeout, metadata, sink, request=request)

    def upload(
        self,
        method: UploadMethod[Item, Resp],
        items: "Iterable[Item] | ItemSource[Item]",
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> CallFuture[Resp]:
        return self._begin(UploadMethod, method, timeout, metadata, source=_source(items)).future

    def duplex(  # type: ignore[override] # as above
        self,
        method: DuplexMethod[Req, Item],
        items: "Iterable[Req] | ItemSource[Req]",
        sink: ItemReceiver[Item] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item] | Future[None]:
        return self._with_items(DuplexMethod, method, timeout, metadata, sink, source=_source(items))

    # Beginning.

    def _with_items(
        self,
        kind: type,
        method: Operation[Any, Any],
        timeout: float | None,
        metadata: Metadata | None,
        sink: ItemReceiver[Any] | None,
        *,
        request: Message | None = None,
        source: Any = None,
    ) -> Iterator[Any] | Future[None]:
        if sink is None:
            self._refuse_handlers("give a sink, which takes the items as they come")
        call = self._begin(kind, method, timeout, metadata, request=request, source=source, sink=sink)
        return PairedItems(self, call) if sink is None else call.future

    def _begin(
        self,
        kind: type,
        method: Operation[Any, Any],
        timeout: float | None,
        metadata: Metadata | None,
        *,
        request: Message | None = None,
        source: Any = None,
        sink: ItemReceiver[Any] | None = None,
    ) -> BegunInPair:
        binding = self._of_kind(kind, method)
        seconds = method.timeout if timeout is None else timeout
        if seconds is None or not seconds > 0:
            raise ValueError(
                f"timeout is {timeout!r}; give {method.name} seconds above 0, or declare it with a timeout: a client "
                "that never answers must not hold a call for ever"
            )
        payload = b"" if request is None else plain(self.encoded(binding, method, request))
        limits = self._pair.limits
        beside = msgspec.structs.replace(
            metadata or EMPTY,
            deadline_ms=max(1, min(math.ceil(seconds * 1000), U32_MAX)),
            credit=Credit(limits.first_items, limits.first_bytes) if method.items_come_back else None,
        )
        call = BegunInPair(self, method, payload, beside, source, sink)
        if (problem := self._problem()) is not None:
            call.end(problem)
            self._finish(call)
        elif self._waiting or not self._has_place():
            if len(self._waiting) >= limits.start_queue:
                text = f"{limits.start_queue} calls wait for a place at this client already (Limits.start_queue)"
                call.end(failure("TOO_MANY_CALLS", text))
                self._finish(call)
            else:
                self._waiting.append(call)
        else:
            self._send(call)
        return call

    def _send(self, call: BegunInPair) -> None:
        call.send(self._pair.server)
        if call.over:
            self._finish(call)
        else:
            self._begun[call.call_id] = call

    def _has_place(self) -> bool:
        server = self._pair.server
        return server.own_calls < server.their_max_calls

    def _problem(self) -> CallError | None:
        """Why no call can begin now; None if one can."""
        server = self._pair.server
        if self._gone or server.state is not State.OPEN:
            return ConnectionLost("the client has left; the call was not processed", retry=Retry.NOT_PROCESSED)
        if not server.their_max_calls:
            text = "this client answers no calls: the pair was made without agent="
            return failure("NO_HANDLER", text, retry=Retry.NOT_PROCESSED)
        if server.goaway_received:
            return failure("SHUTTING_DOWN", "the client is going away, and takes no more calls")
        return None

    def _of_kind(self, kind: type, method: Operation[Any, Any]) -> Binding[Any, Any]:
        if type(method) is not kind:
            raise TypeError(f"{method!r:.100} is no {kind.__name__}; each kind of method has a method of its own here")
        return self.binding(method)

    def _refuse_handlers(self, what: str) -> None:
        if self._pair.moving:
            raise LocalProtocolError(f"a handler cannot wait for a client, which may never answer: {what}")

    # What calls and the pair use.

    def binding(self, method: Operation[Any, Any]) -> Binding[Any, Any]:
        """See ``Dialect.bind``."""
        return self._pair.dialect().bind(method)

    def encoded(self, binding: Binding[Any, Any], method: Operation[Any, Any], message: Any) -> Any:
        """A request, or an item to be sent.

        Raises:
            TypeError, EncodeError: it is none of the method's.
        """
        if type(message) is not method.request:
            raise TypeError(f"{method.name} is sent {method.request.__name__}, not {type(message).__name__}")
        return binding.encode(message)

    def exchange(self, instead: str) -> None:
        """Move everything; not in a handler, which is told what to do instead."""
        self._refuse_handlers(instead)
        self._pair.settle()

    def take_from(self, call: BegunInPair) -> Any:
        """The next item of a call."""
        return call.taken(self._pair.server)

    def forget(self, call: BegunInPair) -> None:
        """Nobody wants a call any more: the client is told."""
        if call.call_id:
            self._begun.pop(call.call_id, None)
            self._pair.server.send_cancel(call.call_id)
        else:
            self._waiting.remove(call)
        self._ending.append(call)  # its sink is to be told

    def take(self, event: Event) -> None:
        """What the server's connection reports of calls that it began; all else is read over."""
        if isinstance(event, AnsweredBeside):
            inner = event.event
            if isinstance(inner, ErrorReceived):
                inner.error.metadata = event.beside.metadata
                self._pair.dialect().read_details(event.opcode, inner.error)
            elif (call := self._begun.get(inner.call_id)) is not None:
                call.said = event.beside.metadata
            event = inner
        if isinstance(event, ConnectionEnded):
            self._lose()
        elif isinstance(event, GoAwayReceived):
            self._go_away(event)
        elif isinstance(event, ItemReceived):
            if (call := self._begun.get(event.call_id)) is not None:
                call.items.append(plain(event.payload))
        elif isinstance(event, AnswerUnreadable):
            if (call := self._begun.get(event.call_id)) is not None:
                call.give_up(event.error)
        elif isinstance(event, ResponseReceived):
            if (call := self._begun.pop(event.call_id, None)) is not None:
                call.respond(plain(event.payload))
        elif isinstance(event, EndReceived):
            self._end(event.call_id, None)
        elif isinstance(event, ErrorReceived):
            self._end(event.call_id, event.error)

    def move(self) -> None:
        """Let each call go on as far as it can, and send those that wait, as far as there are places."""
        while self._waiting and self._has_place() and self._problem() is None:
            self._send(self._waiting.popleft())
        for call in list(self._begun.values()):
            call.move(self._pair.server)
        self._ending = [call for call in self._ending if call.move(self._pair.server)]

    def _end(self, call_id: int, error: CallError | None) -> None:
        call = self._begun.pop(call_id, None)
        if call is not None:
            call.end(error)
            self._finish(call)

    def _finish(self, call: BegunInPair) -> None:
        """Give the sink of a call that is over what is left; one that takes its time is asked again with each move."""
        if call.move(self._pair.server):
            self._ending.append(call)

    def _go_away(self, event: GoAwayReceived) -> None:
        for call in list(self._begun.values()):
            if self._pair.server.lies_behind(call.call_id, event.last_call_id):
                self._end(call.call_id, event.error)
        self._fail_waiting(failure("SHUTTING_DOWN", "the client is going away, and takes no more calls"))

    def _lose(self) -> None:
        self._gone = True
        for call_id in list(self._begun):
            text = "the client has left; the call may have been processed"
            self._end(call_id, ConnectionLost(text, retry=Retry.MAYBE_PROCESSED))
        text = "the client has left; the call was not processed"
        self._fail_waiting(ConnectionLost(text, retry=Retry.NOT_PROCESSED))
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _fail_waiting(self, error: CallError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.end(error)
            self._finish(call)


def _source(items: Any) -> Any:
    """What is asked for items, one at a time."""
    return items if isinstance(items, Subscription) else iter(items)


def _told(error: BaseException) -> CallError:
    """What a sink is told of what has ended its call."""
    return error if isinstance(error, CallError) else failure("CANCELLED", f"the call was given up: {error}")
