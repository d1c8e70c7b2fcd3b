"""Handlers of every method of a service that do what a test tells them, in the place of the service's own."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from wireproto.client import BlockingClient
from wireproto.codecs import Codec
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Subscription
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.schema import Message, Operation, Service, Shape
from wireproto.status import Status
from wireproto.testing.doors import GRPC, Running, running
from wireproto.testing.examples import simplest
from wireproto.testing.overheard import Heard, Overheard
from wireproto.wire.metadata import Metadata

__all__ = [
    "EVERYBODY",
    "NOBODY",
    "PATIENCE",
    "SECRET",
    "Feed",
    "Hang",
    "Stage",
    "StandIn",
    "ItemTaker",
    "answering",
    "failures",
    "raising",
    "saying",
]

Behaviour: TypeAlias = Callable[[Any, Context], Any]
"""What a handler does with a request; of a method whose items follow that is a list of all of them."""

EVERYBODY = "Bearer everybody"
"""A credential for all capabilities that the service asks for."""

NOBODY = "Bearer nobody"
"""A credential for none of them."""

SECRET = "4f1d-the-text-of-an-exception"
"""What nobody but a log may ever see."""

PATIENCE = 30.0
"""Seconds that what must happen may take on a machine that does other things, too."""


class StandIn:
    """The stand-in's handlers; one behaviour at a time is the same for all methods.

    Attributes:
        handlers: to serve.
        behave: what a handler does; set it before a call.
        contexts: of the calls that reached a handler since ``behave`` was set, in order.
        requests: what those asked.
    """

    def __init__(self, service: Service) -> None:
        self.handlers = Handlers(service)
        self.contexts: list[Context] = []
        self.requests: list[Any] = []
        self._behave: Behaviour = _nothing
        self._capabilities = {method.requires for method in service.methods if method.requires is not None}
        for method in service.methods:
            if method.by == "server":
                continue
            register: Any = self.handlers.register  # its overloads tell the shapes apart
            register(method)(self._handle_items if method.items_follow else self._handle)

    @property
    def behave(self) -> Behaviour:
        return self._behave

    @behave.setter
    def behave(self, behaviour: Behaviour) -> None:
        self._behave = behaviour
        self.contexts = []
        self.requests = []

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        """Knows EVERYBODY and NOBODY."""
        capabilities: Mapping[str, set[str]] = {EVERYBODY: self._capabilities, NOBODY: set()}
        known = capabilities.get(metadata.authorization)
        return None if known is None else Identity("test", known)

    def _handle(self, request: Any, context: Context) -> Any:
        self.contexts.append(context)
        self.requests.append(request)
        return self._behave(request, context)

    def _handle_items(self, items: Iterable[Message], context: Context) -> Any:
        if isinstance(self._behave, ItemTaker):
            return self._handle(items, context)
        return self._handle(list(items), context)  # one that is none ends the call before it is said to be there


def _nothing(request: Message, context: Context) -> Any:
    raise AssertionError("a stand-in was called before it was told what to do")


class Hang:
    """A behaviour that does not answer, holds no thread, and knows when it was begun and when it was let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, request: Message, context: Context) -> Any:
        self.begun.set()
        if context.method.items_come_back:
            return _Quiet(self.let_go)
        future: Future[Any] = Future()
        future.add_done_callback(lambda future: self.let_go.set())
        return future


class _Quiet(Subscription[Any]):
    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed

    def take(self, n: int) -> Sequence[Any]:
        return ()

    def close(self, reason: str) -> None:
        self._closed.set()


class Feed:
    """A behaviour that answers a stream with one item over and over, and counts what it was asked for.

    Attributes:
        given: items handed out so far.
    """

    def __init__(self, item: Message, count: int) -> None:
        self._item = item
        self._count = count
        self.given = 0

    def __call__(self, request: Message, context: Context) -> Iterator[Message]:
        for _ in range(self._count):
            self.given += 1
            yield self._item


class ItemTaker:
    """A behaviour that takes items one by one, and knows how that went.

    An upload is answered with ``right``, and so is each item of a duplex call, and their end.

    Attributes:
        begun: it was given an item.
        ended: it takes no more.
        count: items taken.
        complete: it was told that there are no more.

    Args:
        enough: the item behind which it takes no more; None to take all.
        error: what it raises then; None to answer.
        may_go_on: waited for behind the first item.
    """

    def __init__(
        self,
        right: Message,
        *,
        enough: int | None = None,
        error: CallError | None = None,
        may_go_on: threading.Event | None = None,
    ) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.count = 0
        self.complete = False
        self._right = right
        self._enough = enough
        self._error = error
        self._may_go_on = may_go_on

    def __call__(self, items: Iterable[Message], context: Context) -> Any:
        if context.method.items_come_back:
            return self._answers(items)
        for _ in self._taken(items):
            pass
        return self._right

    def _answers(self, items: Iterable[Message]) -> Iterator[Message]:
        for _ in self._taken(items):
            yield self._right
        if self.complete:
            yield self._right

    def _taken(self, items: Iterable[Message]) -> Iterator[Message]:
        try:
            for item in items:
                self.count += 1
                self.begun.set()
                if self._may_go_on is not None:
                    self._may_go_on.wait(PATIENCE)
                yield item
                if self.count == self._enough:
                    if self._error is not None:
                        raise self._error.with_traceback(None)
                    return
            self.complete = True
        finally:
            self.ended.set()


def answering(right: Message) -> Behaviour:
    """Answers as the shape of the called method wants it: with one message, with one item, or with nothing."""

    def answering(request: Any, context: Context) -> Any:
        method = context.method
        if method.items_come_back:
            return [right]
        return None if method.shape is Shape.ONE_WAY else right

    return answering


def raising(error: Exception) -> Behaviour:
    def raising(request: Message, context: Context) -> Any:
        raise error.with_traceback(None)

    return raising


def saying(said: Mapping[str, str], then: Behaviour) -> Behaviour:
    """Says this beside whatever the other behaviour comes to."""

    def saying(request: Any, context: Context) -> Any:
        for name, value in said.items():
            context.set_metadata(name, value)
        return then(request, context)

    return saying


def failures(method: Operation[Any, Any], right: Message) -> list[Behaviour]:
    """Every way in which a handler can go wrong."""

    def an_exception(request: Message, context: Context) -> Any:
        raise ValueError(SECRET)

    def an_exit(request: Message, context: Context) -> Any:
        raise SystemExit(SECRET)

    def an_undeclared_reason(request: Message, context: Context) -> Any:
        context.abort(Status.ABORTED, "SURPRISE_OF_THE_SUITE", SECRET)

    def an_answer_of_another_type(request: Message, context: Context) -> Any:
        return SECRET if not method.items_come_back else [SECRET]

    def a_failed_future(request: Message, context: Context) -> Any:
        future: Future[Any] = Future()
        future.set_exception(ValueError(SECRET))
        return future

    def an_exception_behind_an_item(request: Message, context: Context) -> Any:
        yield right
        raise ValueError(SECRET)

    own = an_exception_behind_an_item if method.items_come_back else a_failed_future
    return [an_exception, an_exit, an_undeclared_reason, an_answer_of_another_type, own]


class Stage:
    """Servers of stand-ins, one for each version, and clients of them.

    Attributes:
        heard: what became of the calls there.
        limits: of servers and clients.
        remaining: seconds that the calls had left which ``answer`` answered.
    """

    def __init__(self, service: Service, doors: dict[str, Codec], limits: Limits, stack: contextlib.ExitStack) -> None:
        self._standin = StandIn(service)
        self._service = service
        self._doors = doors
        self._stack = stack
        self._running: dict[int, Running] = {}
        self._clients: dict[tuple[str, int, int], BlockingClient] = {}
        self.remaining: list[float | None] = []
        self.heard = Heard()
        self.limits = limits

    @property
    def contexts(self) -> list[Context]:
        """Of the calls that reached a stand-in since it was told what to do."""
        return self._standin.contexts

    @property
    def behave(self) -> Behaviour:
        """What the stand-ins do."""
        return self._standin.behave

    @behave.setter
    def behave(self, behaviour: Behaviour) -> None:
        self._standin.behave = behaviour

    def answer(self, method: Operation[Any, Any], answer: Message | None = None) -> None:
        """Have calls answered, streams with one item, and note the time they have left."""
        give = answering(simplest(method.response, self._service.version) if answer is None else answer)
        self.remaining = remaining = []

        def behave(request: Any, context: Context) -> Any:
            remaining.append(context.remaining())
            return give(request, context)

        self.behave = behave

    def take(
        self,
        method: Operation[Any, Any],
        *,
        enough: int | None = None,
        error: CallError | None = None,
        may_go_on: threading.Event | None = None,
    ) -> ItemTaker:
        """Have the items of a call taken one by one; see ``ItemTaker``."""
        right = simplest(method.response, self._service.version)
        self.behave = taker = ItemTaker(right, enough=enough, error=error, may_go_on=may_go_on)
        return taker

    def client(self, door: str, version: int, server: int = 0) -> BlockingClient:
        """A client that declares one version, of a server of another; the newest unless told otherwise."""
        served = server or self._service.version
        doors = self._running.get(served)
        if doors is None:
            doors = self._running[served] = self._stack.enter_context(
                running(
                    Overheard(self._standin.handlers.as_of(served), self.heard),
                    codecs=[codec for name, codec in self._doors.items() if name != GRPC] or None,
                    grpc=GRPC in self._doors,
                    authenticate=self._standin.authenticate,
                    limits=self.limits,
                )
            )
        client = self._clients.get((door, version, served))
        if client is None:
            client = self._clients[door, version, served] = doors.connect(door, self._service.as_of(version))
            client.authorization = EVERYBODY
        return client
