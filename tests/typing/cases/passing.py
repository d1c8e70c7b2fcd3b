"""What a type checker must accept, and infer. Never imported: only checked."""

# pyright: strict

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Annotated, assert_type

from wireproto import (
    Bounds,
    Client,
    Context,
    Duplex,
    DuplexMethod,
    Following,
    Gap,
    Handlers,
    Message,
    Method,
    OneWayMethod,
    Server,
    Service,
    Shape,
    Since,
    Sink,
    Stream,
    StreamMethod,
    Subscription,
    Topic,
    UInt64,
    UploadMethod,
    connect,
)
from wireproto.testing import pair


class Color(enum.IntEnum):
    RED = 1


class Point(Message):
    x: int
    y: int = 0


class Everything(Message, kw_only=True):
    flag: bool
    number: UInt64
    percent: Annotated[int, Bounds(ge=0, le=100)]
    real: float
    text: str
    raw: bytes
    stamp: datetime
    color: Color
    point: Point
    maybe: Point | None
    points: list[Point]
    places: dict[str, Point]
    # With kw_only, as in any msgspec class, fields without defaults may follow.
    items: list[int] = []
    required: int
    later: Annotated[bool, Since(2)] = False


class AddRequest(Message):
    left: int
    right: int


class AddResponse(Message):
    total: int


class WatchResponse(Message):
    point: Point


ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse, since=1)
WATCH = StreamMethod(opcode=0x11, name="Watch", request=AddRequest, response=WatchResponse)
SUM = UploadMethod(opcode=0x12, name="Sum", request=AddRequest, response=AddResponse, max_request=100)
COLLECT = UploadMethod(opcode=0x13, name="Collect", request=AddRequest, response=AddResponse, collect=10)
TRACE = DuplexMethod(opcode=0x14, name="Trace", request=AddRequest, response=WatchResponse)
NOTE = OneWayMethod(opcode=0x15, name="Note", request=AddRequest)
SERVICE = Service("example.v1.CalculatorService", version=1, methods=[ADD, WATCH, SUM, COLLECT, TRACE, NOTE])

assert_type(ADD, Method[AddRequest, AddResponse])
assert_type(WATCH, StreamMethod[AddRequest, WatchResponse])
assert_type(SUM, UploadMethod[AddRequest, AddResponse])
assert_type(COLLECT.collect, int | None)
assert_type(TRACE, DuplexMethod[AddRequest, WatchResponse])
assert_type(NOTE, OneWayMethod[AddRequest])
assert_type(ADD.response, type[AddResponse])
assert_type(SUM.request, type[AddRequest])
assert_type(ADD.shape, Shape)
assert_type(ADD.items_follow, bool)
assert_type(ADD.items_come_back, bool)


def fields(everything: Everything) -> None:
    assert_type(everything.flag, bool)
    assert_type(everything.number, int)
    assert_type(everything.percent, int)
    assert_type(everything.maybe, Point | None)
    assert_type(everything.points, list[Point])
    assert_type(everything.later, bool)
    assert_type(hash(everything), int)
    assert_type(Point(x=1), Point)


def calls(client: Client) -> None:
    request = AddRequest(left=2, right=3)
    assert_type(client.call(ADD, request), AddResponse)
    assert_type(client.call(ADD, request, timeout=1.0, metadata={"a": "b"}).total, int)
    begun: Future[AddResponse] = client.start(ADD, request)
    assert_type(begun.result(), AddResponse)
    assert_type(client.start(ADD, request).metadata, Mapping[str, str])
    responses: Iterator[AddResponse] = client.call_many(ADD, [request])
    assert_type(next(responses), AddResponse)
    assert_type(client.stream(WATCH, request), Stream[WatchResponse])
    assert_type(client.follow(WATCH, request, after=7), Following[WatchResponse])
    with client.follow(WATCH, request) as followed:
        for found in followed:
            assert_type(found, WatchResponse | Gap)
            if not isinstance(found, Gap):
                assert_type(found, WatchResponse)
    topic = Topic(WATCH, keep=8)
    assert_type(topic, Topic[WatchResponse])
    subscription: Subscription[WatchResponse] = topic.subscribe()
    subscription.close("never given")
    with client.stream(WATCH, request) as stream:
        assert_type(stream.next(1.0), WatchResponse)
        for item in stream:
            assert_type(item, WatchResponse)
    assert_type(client.upload(SUM, [request]), AddResponse)
    assert_type(client.upload(SUM, iter((request,)), timeout=1.0), AddResponse)
    assert_type(client.duplex(TRACE, [request]), Duplex[AddRequest, WatchResponse])
    with client.duplex(TRACE) as both:
        both.send(request, timeout=1.0)
        both.finish()
        assert_type(next(both), WatchResponse)
    client.post(NOTE, request)


handlers = Handlers(SERVICE)


@handlers.register(ADD)
def add(request: AddRequest, context: Context) -> AddResponse:
    return AddResponse(total=request.left + request.right)


@handlers.register(ADD)
def add_later(request: AddRequest, context: Context) -> Future[AddResponse]:
    return Future()


@handlers.register(WATCH)
def watch(request: AddRequest, context: Context) -> Iterator[WatchResponse]:
    yield WatchResponse(point=Point(x=request.left))


@handlers.register(WATCH)
def watch_by_subscription(request: AddRequest, context: Context) -> Subscription[WatchResponse]:
    return Subscription()


@handlers.register(SUM)
def sum_up(items: Iterator[AddRequest], context: Context) -> AddResponse:
    for item in items:
        assert_type(item, AddRequest)
    return AddResponse(total=1)


@handlers.register(SUM)
def sum_up_later(items: Iterable[AddRequest], context: Context) -> Future[AddResponse]:
    return Future()


@handlers.register(COLLECT)
def collect(items: list[AddRequest], context: Context) -> AddResponse:
    return AddResponse(total=len(items))


@handlers.register(TRACE)
def trace(items: Iterator[AddRequest], context: Context) -> Iterator[WatchResponse]:
    for item in items:
        yield WatchResponse(point=Point(x=item.left))


@handlers.register(NOTE)
def note(request: AddRequest, context: Context) -> None:
    assert_type(request.left, int)


@handlers.sink(SUM)
class Summing(Sink[AddRequest, AddResponse]):
    def __init__(self, context: Context) -> None:
        self.total = 0

    def receive(self, item: AddRequest) -> None:
        self.total += item.left

    def finished(self) -> AddResponse:
        return AddResponse(total=self.total)


@handlers.sink(TRACE)
class Tracing(Sink[AddRequest, WatchResponse], Subscription[WatchResponse]):
    def __init__(self, context: Context) -> None:
        self.found: list[WatchResponse] = []

    def receive(self, item: AddRequest) -> Future[None]:
        self.found.append(WatchResponse(point=Point(x=item.left)))
        self.wake()
        return Future()

    def finished(self) -> None:
        self.wake()

    def take(self, n: int) -> Sequence[WatchResponse]:
        return self.found[:n]


@handlers.sink(SUM)
def make_sink(context: Context) -> Summing:
    return Summing(context)


def pairs(request: AddRequest) -> None:
    link = pair(handlers)
    assert_type(link.call(ADD, request), AddResponse)
    assert_type(link.upload(SUM, [request]), AddResponse)
    assert_type(link.upload(COLLECT, iter([request])).total, int)
    assert_type(link.start(SUM), int)
    assert_type(link.start(NOTE, request), int)
    link.post(NOTE, request)
    link.send_item(1, TRACE, request)
    for item in link.stream(WATCH, request):
        assert_type(item, WatchResponse)
    for item in link.duplex(TRACE, (request, request)):
        assert_type(item, WatchResponse)


assert_type(Summing, type[Summing])
assert_type(make_sink(Context()).total, int)
assert_type(note(AddRequest(left=1, right=2), Context()), None)


with Server(handlers, port=0) as server, connect(server.address, SERVICE, codec="protobuf") as connected:
    assert_type(connected.call(ADD, AddRequest(left=2, right=3)).total, int)
