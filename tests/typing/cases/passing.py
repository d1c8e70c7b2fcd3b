"""What a type checker must accept, and infer. Never imported: only checked."""

# pyright: strict

import enum
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime
from typing import Annotated, assert_type

from wireproto import (
    Bounds,
    Client,
    Context,
    Handlers,
    Message,
    Method,
    Server,
    Service,
    Since,
    Stream,
    StreamMethod,
    Subscription,
    UInt64,
    connect,
)


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
SERVICE = Service("example.v1.CalculatorService", version=1, methods=[ADD, WATCH])

assert_type(ADD, Method[AddRequest, AddResponse])
assert_type(WATCH, StreamMethod[AddRequest, WatchResponse])
assert_type(ADD.response, type[AddResponse])
assert_type(ADD.is_stream, bool)


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
    assert_type(client.start(ADD, request), Future[AddResponse])
    assert_type(client.call_many(ADD, [request]), Iterator[AddResponse])
    assert_type(client.stream(WATCH, request), Stream[WatchResponse])
    with client.stream(WATCH, request) as stream:
        assert_type(stream.next(1.0), WatchResponse)
        for item in stream:
            assert_type(item, WatchResponse)


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


with Server(handlers, port=0) as server, connect(server.address, SERVICE, codec="protobuf") as connected:
    assert_type(connected.call(ADD, AddRequest(left=2, right=3)).total, int)
