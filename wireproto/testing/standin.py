"""Handlers of every method of a service that do what a test tells them, in the place of the service's own."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from wireproto.dispatch import Context, Handlers, Identity, Subscription
from wireproto.metadata import Metadata
from wireproto.schema import Message, Service

__all__ = ["EVERYBODY", "NOBODY", "Feed", "Hang", "StandIn"]

Behaviour: TypeAlias = Callable[[Message, Context], Any]

EVERYBODY = "Bearer everybody"
"""A credential for all capabilities that the service asks for."""

NOBODY = "Bearer nobody"
"""A credential for none of them."""

PATIENCE = 30.0
"""Seconds that what must happen may take on a machine that does other things, too."""


class StandIn:
    """The stand-in's handlers; one behaviour at a time is the same for all methods.

    Attributes:
        handlers: to serve.
        behave: what a handler does; set it before a call.
        contexts: of the calls that reached a handler since ``behave`` was set, in order.
    """

    def __init__(self, service: Service) -> None:
        self.handlers = Handlers(service)
        self.contexts: list[Context] = []
        self._behave: Behaviour = _nothing
        self._capabilities = {method.requires for method in service.methods if method.requires is not None}
        for method in service.methods:
            register: Any = self.handlers.register  # its overloads tell unary methods from streams
            register(method)(self._handle)

    @property
    def behave(self) -> Behaviour:
        return self._behave

    @behave.setter
    def behave(self, behaviour: Behaviour) -> None:
        self._behave = behaviour
        self.contexts = []

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        """Knows EVERYBODY and NOBODY."""
        capabilities: Mapping[str, set[str]] = {EVERYBODY: self._capabilities, NOBODY: set()}
        known = capabilities.get(metadata.authorization)
        return None if known is None else Identity("test", known)

    def _handle(self, request: Message, context: Context) -> Any:
        self.contexts.append(context)
        return self._behave(request, context)


def _nothing(request: Message, context: Context) -> Any:
    raise AssertionError("a stand-in was called before it was told what to do")


class Hang:
    """A behaviour that does not answer, holds no thread, and knows when it was begun and when it was let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, request: Message, context: Context) -> Any:
        self.begun.set()
        if context.method.is_stream:
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
