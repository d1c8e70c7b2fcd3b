"""A service whose methods say ``compress``, of every shape, and one method that does not."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from wireproto import Context, Handlers, Message
from wireproto.handling import Sink, Subscription
from wireproto.schema import DuplexMethod, Method, OneWayMethod, Service, StreamMethod, UploadMethod


class Text(Message):
    """One text."""

    text: str


class Times(Message):
    """A text, and how often it is wanted."""

    text: str
    times: int


ECHO = Method(opcode=1, name="Echo", request=Text, response=Text, compress=True)
PLAIN = Method(opcode=2, name="Plain", request=Text, response=Text)
REPEAT = StreamMethod(opcode=3, name="Repeat", request=Times, response=Text, compress=True)
JOIN = UploadMethod(opcode=4, name="Join", request=Text, response=Text, compress=True)
SINK = UploadMethod(opcode=5, name="Sink", request=Text, response=Text, compress=True)
COLLECT = UploadMethod(opcode=6, name="Collect", request=Text, response=Text, compress=True, collect=100)
MIRROR = DuplexMethod(opcode=7, name="Mirror", request=Text, response=Text, compress=True)
POST = OneWayMethod(opcode=8, name="Post", request=Text, compress=True)
SMALL = Method(opcode=9, name="Small", request=Text, response=Text, compress=True, max_request=2000)
WATCH = StreamMethod(opcode=10, name="Watch", request=Times, response=Text, compress=True)
GROW = Method(opcode=11, name="Grow", request=Times, response=Text, compress=True)
LATER = Method(opcode=12, name="Later", request=Text, response=Text, compress=True)
SLOW = Method(opcode=13, name="Slow", request=Text, response=Text, compress=True)

SERVICE = Service(
    "packing.v1.PackingService",
    methods=[ECHO, PLAIN, REPEAT, JOIN, SINK, COLLECT, MIRROR, POST, SMALL, WATCH, GROW, LATER, SLOW],
)

TEXT = "a text that says the same again and again; " * 100


class Joining(Sink[Text, Text]):
    """Joins what it is given, and knows the threads on which it was given that."""

    def __init__(self, hall: "Hall") -> None:
        self._hall = hall
        self._texts: list[str] = []

    def receive(self, item: Text) -> None:
        self._hall.threads.append(threading.current_thread())
        self._texts.append(item.text)

    def finished(self) -> Text:
        return Text(text=f"{len(self._texts)} {sum(map(len, self._texts))}")


class Watching(Subscription[Text]):
    """Gives the items of the hall from the first on, and ends when the hall says so."""

    def __init__(self, hall: "Hall") -> None:
        self._hall = hall
        self._at = 0
        hall.watching.append(self)

    def take(self, n: int) -> list[Text]:
        items = self._hall.items[self._at : self._at + n]
        self._at += len(items)
        if not items and self._hall.closing:
            raise StopIteration
        return items


class Hall:
    """The handlers, and what they saw.

    Attributes:
        threads: on which the handlers of unary calls and the sinks ran.
        posted: texts of one-way calls.
        arrived: one-way calls have come.
        items: what subscriptions give.
    """

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.posted: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.items: list[Text] = []
        self.watching: list[Watching] = []
        self.closing = False
        self.gate = threading.Event()
        self.handlers = handlers = Handlers(SERVICE)

        @handlers.register(ECHO)
        @handlers.register(PLAIN)
        @handlers.register(SMALL)
        def echo(request: Text, context: Context) -> Text:
            self.threads.append(threading.current_thread())
            return request

        @handlers.register(SLOW)
        def slow(request: Text, context: Context) -> Text:
            self.gate.wait(20)
            return request

        @handlers.register(GROW)
        def grow(request: Times, context: Context) -> Text:
            return Text(text=request.text * request.times)

        @handlers.register(LATER)
        def later(request: Text, context: Context) -> Any:
            answer: Future[Text] = Future()
            threading.Thread(target=answer.set_result, args=(request,)).start()
            return answer

        @handlers.register(REPEAT)
        def repeat(request: Times, context: Context) -> Iterator[Text]:
            return (Text(text=request.text) for _ in range(request.times))

        @handlers.register(JOIN)
        def join(items: Iterator[Text], context: Context) -> Text:
            texts = [item.text for item in items]
            return Text(text="".join(texts))

        @handlers.sink(SINK)
        def sink(context: Context) -> Joining:
            return Joining(self)

        @handlers.register(COLLECT)
        def collect(items: list[Text], context: Context) -> Text:
            return Text(text="".join(item.text for item in items))

        @handlers.register(MIRROR)
        def mirror(items: Iterator[Text], context: Context) -> Iterator[Text]:
            return iter(items)

        @handlers.register(POST)
        def post(request: Text, context: Context) -> None:
            self.posted.append(request.text)
            self.arrived.release()

        @handlers.register(WATCH)
        def watch(request: Times, context: Context) -> Watching:
            return Watching(self)

    def close(self) -> None:
        """Let all subscriptions end."""
        self.closing = True
        for each in self.watching:
            each.wake()
