"""What answers say beside their payload, and the details of errors: alike behind every door and in every shape."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.copies import WAYS
from tests.server.peer import until
from wireproto.client import Client
from wireproto.dispatch import Handlers
from wireproto.errors import CallError, EncodeError, PackedDetails
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.schema import DuplexMethod, Message, Method, OneWayMethod, Service, StreamMethod, UploadMethod
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.testing import pair, running
from wireproto.testing.doors import Running
from wireproto.wire.metadata import Metadata


class OrderRequest(Message):
    how: str = ""
    said: dict[str, str] = {}
    size: int = 0


class OrderResponse(Message):
    number: int


class OutOfStock(Message):
    article: str
    left: int = 0
    text: str = ""


class TooExpensive(Message):
    cents: int


DETAILS = (OutOfStock, TooExpensive)
ORDER = Method(opcode=1, name="Order", request=OrderRequest, response=OrderResponse, errors=DETAILS, reasons=["EMPTY"])
LIST = StreamMethod(opcode=2, name="List", request=OrderRequest, response=OrderResponse, errors=DETAILS)
SEND = UploadMethod(opcode=3, name="Send", request=OrderRequest, response=OrderResponse, errors=DETAILS)
TALK = DuplexMethod(opcode=4, name="Talk", request=OrderRequest, response=OrderResponse, errors=DETAILS)
POST = OneWayMethod(opcode=5, name="Post", request=OrderRequest)
LATER = Method(opcode=6, name="Later", request=OrderRequest, response=OrderResponse, errors=DETAILS, blocking=True)
FEED = StreamMethod(opcode=7, name="Feed", request=OrderRequest, response=OrderResponse)
SHOP = Service("shop.v1.OrderService", methods=[ORDER, LIST, SEND, TALK, POST, LATER, FEED])


class Dropping(Subscription[OrderResponse]):
    """Gives 1, then 5 behind three that it left out, and ends behind two more."""

    def __init__(self, how: str) -> None:
        self._turn = 0
        self._how = how

    def take(self, n: int) -> Sequence[OrderResponse]:
        self._turn += 1
        if self._turn == 1:
            return [OrderResponse(number=1)]
        if self._turn == 2:
            self.dropped = 3
            return [OrderResponse(number=5)]
        if self._how == "wait":
            return []
        self.dropped = 2
        if self._how == "fail":
            raise CallError(Status.ABORTED)
        raise StopIteration


class Counted(Sink[OrderRequest, OrderResponse]):
    def __init__(self, context: Context) -> None:
        self._context = context
        self._last = OrderRequest()

    def receive(self, item: OrderRequest) -> None:
        self._last = item

    def finished(self) -> OrderResponse:
        return do(self._last, self._context)


def do(request: OrderRequest, context: Context) -> OrderResponse:
    """Say what is asked for, and answer or fail as is asked for."""
    for name, value in request.said.items():
        context.set_metadata(name, value)
    if request.how == "stock":
        details = OutOfStock(article="a|é", left=7, text="t" * request.size)
        context.abort(Status.FAILED_PRECONDITION, "EMPTY" if context.method is ORDER else "", "none", details=details)
    if request.how == "price":
        context.abort(Status.ABORTED, details=TooExpensive(cents=1), metadata={"more": "yes"})
    if request.how == "long":
        context.abort(Status.ABORTED, "", "é" * 1024, details=OutOfStock(article="", text="t" * request.size))
    if request.how == "plain":
        context.abort(Status.NOT_FOUND, "", "nothing there", retry=Retry.NOT_PROCESSED, retry_after_ms=5)
    if request.how == "undeclared":
        raise CallError(Status.ABORTED, details=OrderRequest())
    if request.how == "wrong":
        raise CallError(Status.ABORTED, details=TooExpensive(cents="x"))  # type: ignore[arg-type]
    return OrderResponse(number=request.size)


def shop(posted: list[OrderRequest] | None = None) -> Handlers:
    handlers = Handlers(SHOP)
    handlers.register(ORDER)(do)

    @handlers.register(LIST)
    def listed(request: OrderRequest, context: Context) -> Iterator[OrderResponse]:
        yield OrderResponse(number=1)
        yield do(request, context)

    handlers.sink(SEND)(Counted)

    @handlers.register(TALK)
    def talk(items: Iterator[OrderRequest], context: Context) -> Iterator[OrderResponse]:
        for item in items:
            yield do(item, context)

    @handlers.register(POST)
    def post(request: OrderRequest, context: Context) -> None:
        for name, value in request.said.items():
            context.set_metadata(name, value)
        if posted is not None:
            posted.append(request)

    @handlers.register(LATER)
    def later(request: OrderRequest, context: Context) -> Future[OrderResponse]:
        future: Future[OrderResponse] = Future()

        def complete() -> None:
            try:
                future.set_result(do(request, context))
            except CallError as error:
                future.set_exception(error)

        thread = threading.Thread(target=complete)
        thread.start()
        return future

    @handlers.register(FEED)
    def feed(request: OrderRequest, context: Context) -> Subscription[OrderResponse]:
        return Dropping(request.how)

    return handlers


@pytest.fixture(scope="module")
def doors() -> Iterator[Running]:
    with running(shop(), limits=Limits(hello_timeout=60, frame_timeout=60, write_timeout=60)) as found:
        yield found


def check_error(error: CallError) -> None:
    """It is copied whole, and shows nothing of its details."""
    for way in WAYS.values():
        twin = way(error)
        assert (twin.details, dict(twin.metadata)) == (error.details, dict(error.metadata))
    assert error.details is None or str(error.details) not in f"{error} {error!r}"


SHAPES = ["unary", "later", "future", "many", "stream", "upload", "duplex"]


def outcome(client: Any, shape: str, request: OrderRequest) -> tuple[object, ...]:
    """What a call of that shape gives: its messages, what was said beside them, and how it failed."""
    items: list[int] = []
    said: Any = {}
    try:
        if shape in ("unary", "later"):
            answer = client.call_with_metadata(ORDER if shape == "unary" else LATER, request, timeout=60)
            items, said = [answer.message.number], answer.metadata
        elif shape == "future":
            future = client.start(ORDER, request, timeout=60)
            items, said = [future.result(60).number], future.metadata
        elif shape == "many":
            answers = client.call_many(ORDER, [request, request], timeout=60)
            items, said = [each.number for each in answers], answers.metadata
        elif shape == "upload":
            answer = client.upload_with_metadata(SEND, [OrderRequest(), request], timeout=60)
            items, said = [answer.message.number], answer.metadata
        else:
            stream = client.stream(LIST, request, timeout=60)
            if shape == "duplex":
                stream.close()
                stream = client.duplex(TALK, [OrderRequest(), request], timeout=60)
            with stream:
                assert (dict(stream.metadata), stream.dropped) == ({}, 0)
                for item in stream:
                    items.append(item.number)
                said = stream.metadata
    except CallError as error:
        check_error(error)
        message = "" if error.status is Status.INTERNAL else error.message
        told = (error.status, error.reason, message, error.retry, error.retry_after_ms)
        return items, told, error.details, dict(error.metadata)
    return items, dict(said)


NAMES = st.one_of(st.from_regex(r"[a-z0-9._]{1,9}", fullmatch=True), st.just("traceparent"))
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
REQUESTS = st.builds(
    OrderRequest,
    how=st.sampled_from(["", "stock", "price", "plain", "undeclared", "wrong"]),
    said=st.dictionaries(NAMES, VALUES, max_size=3).map(
        lambda said: {name: "00-1" if name == "traceparent" else value for name, value in said.items() if name != "te"}
    ),
    size=st.integers(0, 3000),
)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SHAPES), REQUESTS)
def test_all_doors_answer_alike(doors: Running, shape: str, request: OrderRequest) -> None:
    """Responses, metadata, errors and their details are the same in every codec and over gRPC."""
    found = {door: outcome(client, shape, request) for door, client in doors.items()}
    first = next(iter(found.values()))
    assert all(each == first for each in found.values()), found


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_metadata_and_details(doors: Running, shape: str) -> None:
    """What the handler says arrives with an answer and with an error, and the details as the message that they are."""
    said = {"region": "eu", "who": "Zoë", "traceparent": "00-ab"}
    for door, client in doors.items():
        *_, metadata = outcome(client, shape, OrderRequest(said=said, size=3))
        assert metadata == said, door
        *_, details, metadata = outcome(client, shape, OrderRequest(how="stock", said=said))
        assert (details, metadata) == (OutOfStock(article="a|é", left=7), said), door
        *_, details, metadata = outcome(client, shape, OrderRequest(how="price", said=said))
        assert (details, metadata) == (TooExpensive(cents=1), said | {"more": "yes"}), door
        *_, details, metadata = outcome(client, shape, OrderRequest(how="plain"))
        assert (details, metadata) == (None, {}), door


def test_details_that_are_too_long_are_left_out(doors: Running) -> None:
    """By themselves, or together with what is said: the error is what it is without them."""
    for door, client in doors.items():
        for size, said, there in ((3500, 0, True), (4100, 0, False), (3500, 3000, True), (3500, 3700, False)):
            request = OrderRequest(how="stock", size=size, said={"a": "x" * said} if said else {})
            with pytest.raises(CallError) as caught:
                client.call(ORDER, request)
            assert caught.value.reason == "EMPTY"
            assert (caught.value.details is not None) == there, (door, size, said)
            assert caught.value.metadata.get("a", "") == "x" * said


@pytest.mark.parametrize("how", ["undeclared", "wrong"])
def test_details_that_cannot_be_sent_are_an_incident(doors: Running, how: str) -> None:
    """A message that the method does not declare, or that cannot be encoded, is a fault of the handler's."""
    for client in doors.values():
        with pytest.raises(CallError) as caught:
            client.call(ORDER, OrderRequest(how=how))
        assert (caught.value.status, caught.value.details) == (Status.INTERNAL, None)


def test_what_cannot_be_said_is_told_to_the_handler(doors: Running) -> None:
    """On every door alike, before anything is sent."""
    for client in doors.values():
        for said in ({"grpc-x": "1"}, {"A": "1"}, {"a": "x" * 7200}):
            with pytest.raises(CallError) as caught:
                client.call(ORDER, OrderRequest(said=said))
            assert caught.value.status is Status.INTERNAL


def test_a_one_way_call_says_nothing() -> None:
    """Its handler may say what it likes: nobody hears of it."""
    posted: list[OrderRequest] = []
    with running(shop(posted)) as doors:
        for number, client in enumerate(doors.values(), 1):
            client.post(POST, OrderRequest(said={"a": "b"}))
            until(lambda number=number: len(posted) == number, "the call ran")  # type: ignore[misc]
            assert client.call(ORDER, OrderRequest(size=2)).number == 2


def test_a_stream_says_what_it_left_out(doors: Running) -> None:
    """With the item behind it over TCP, and with the end on all doors."""
    for door, client in doors.items():
        with client.stream(FEED, OrderRequest()) as stream:
            assert (next(stream).number, stream.dropped) == (1, 0)
            assert (next(stream).number, stream.dropped) == (5, 0 if door == "grpc" else 3)
            with pytest.raises(StopIteration):
                next(stream)
            assert stream.dropped == 5, door
        with client.stream(FEED, OrderRequest(how="fail")) as stream, pytest.raises(CallError):
            list(stream)


def test_a_stream_that_is_ended_from_outside_says_what_it_left_out() -> None:
    """As much as went out before the end: over gRPC the trailers of the error say it."""
    ann = Identity("ann")
    with running(shop(), authenticate=lambda metadata, peer: ann) as doors:
        streams = {
            door: client.stream(FEED, OrderRequest(how="wait"), metadata=Metadata(authorization="ann"))
            for door, client in doors.items()
        }
        for stream in streams.values():
            assert [next(stream).number, next(stream).number] == [1, 5]
        ann.revoke()
        for door, stream in streams.items():
            with pytest.raises(CallError) as caught:
                next(stream)
            assert (caught.value.reason, stream.dropped) == ("SIGN_IN_REQUIRED", 3), door


@pytest.mark.parametrize("how", ["return", "raise", "stream"])
def test_an_error_passed_on_takes_no_details_along(how: str) -> None:
    """Neither details of another server's that could not be read here, which may be secret, nor what it said."""
    error = CallError(Status.ABORTED, "", "passed on")
    error.packed_details = PackedDetails("other.v1.Secret", b"\x0a\x06secret")
    error.metadata = {"secret": "yes"}
    handlers = Handlers(SHOP)

    @handlers.register(LATER)
    def later(request: OrderRequest, context: Context) -> "Future[OrderResponse]":
        if how == "raise":
            raise error
        future: Future[OrderResponse] = Future()
        future.set_exception(error)
        return future

    @handlers.register(LIST)
    def listed(request: OrderRequest, context: Context) -> Iterator[OrderResponse]:
        yield OrderResponse(number=1)
        raise error

    with running(handlers) as doors:
        for door, client in doors.items():
            with pytest.raises(CallError) as caught:
                _ = list(client.stream(LIST, OrderRequest())) if how == "stream" else client.call(LATER, OrderRequest())
            found = caught.value
            assert (found.status, found.message) == (Status.ABORTED, "passed on"), door
            assert (found.details, found.packed_details, dict(found.metadata)) == (None, None, {}), door
    assert error.packed_details is not None  # it is whoever's it was


def test_metadata_may_be_too_much_for_the_client() -> None:
    """A client with small frames is told that the answer cannot be sent, of one message as of a stream."""
    with (
        Server(shop(), workers=2) as server,
        Client(server.address, SHOP, limits=Limits(max_frame=4096)) as client,
    ):
        request = OrderRequest(said={"a": "x" * 4090})
        for call in (lambda: client.call(ORDER, request), lambda: list(client.stream(LIST, request))):
            with pytest.raises(CallError) as caught:
                call()
            assert caught.value.reason == "RESPONSE_TOO_LARGE"


def test_a_context_is_held_to_the_rules_at_once() -> None:
    """The handler itself sees what is wrong with what it says, where it says it."""
    seen: list[EncodeError] = []
    handlers = Handlers(SHOP)

    @handlers.register(ORDER)
    def order(request: OrderRequest, context: Context) -> OrderResponse:
        try:
            context.set_metadata("te", "x")
        except EncodeError as error:
            seen.append(error)
        context.set_metadata("a", "1")
        context.set_metadata("a", "2")
        return OrderResponse(number=1)

    with running(handlers) as doors:
        for client in doors.values():
            assert dict(client.call_with_metadata(ORDER, OrderRequest()).metadata) == {"a": "2"}
    assert len(seen) == 4


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_a_pair_answers_as_a_server_does(codec: str) -> None:
    """Without a socket, errors have their details and what was said beside them, in unary calls and streams."""
    wire = pair(shop(), codec=codec)
    assert wire.call(ORDER, OrderRequest(said={"a": "b"}, size=4)).number == 4
    for call in (
        lambda request: wire.call(ORDER, request),
        lambda request: list(wire.stream(LIST, request)),
        lambda request: wire.upload(SEND, [request]),
        lambda request: list(wire.duplex(TALK, [request])),
    ):
        with pytest.raises(CallError) as caught:
            call(OrderRequest(how="price", said={"a": "b"}))
        assert caught.value.details == TooExpensive(cents=1)
        assert dict(caught.value.metadata) == {"a": "b", "more": "yes"}
    assert [item.number for item in wire.stream(FEED, OrderRequest())] == [1, 5]


class Text(Message):
    text: str


LONG = Text(text="again and again, " * 200)
TELL = Method(opcode=1, name="Tell", request=Text, response=Text, compress=True)
TELLING = StreamMethod(opcode=2, name="Telling", request=Text, response=Text, compress=True)
HEAR = UploadMethod(opcode=3, name="Hear", request=Text, response=Text, compress=True, collect=3)
LONG_TALES = Service("shop.v1.TaleService", methods=[TELL, TELLING, HEAR])


class Tales(Subscription[Text]):
    """Two long tales, the second one behind four that it left out."""

    def __init__(self) -> None:
        self._turn = 0

    def take(self, n: int) -> Sequence[Text]:
        self._turn += 1
        if self._turn > 2:
            raise StopIteration
        self.dropped = 4 if self._turn == 2 else 0
        return [LONG]


def test_packed_answers_say_something_beside_themselves() -> None:
    """An answer or an item may be packed and have something beside it, on all doors."""
    handlers = Handlers(LONG_TALES)

    @handlers.register(TELL)
    def tell(request: Text, context: Context) -> Text:
        context.set_metadata("region", "eu")
        return LONG

    @handlers.register(TELLING)
    def telling(request: Text, context: Context) -> Subscription[Text]:
        context.set_metadata("region", "eu")
        return Tales()

    @handlers.register(HEAR)
    def hear(items: list[Text], context: Context) -> Text:
        context.set_metadata("region", "eu")
        return items[0]

    said = {"region": "eu"}
    with running(handlers) as doors:
        for door, client in doors.items():
            assert client.call_with_metadata(TELL, LONG) == (LONG, said)
            assert client.upload_with_metadata(HEAR, [LONG, LONG]) == (LONG, said)
            future: Any = client.start(TELL, LONG)
            assert (future.result(60), dict(future.metadata)) == (LONG, said)
            answers: Any = client.call_many(TELL, [LONG, LONG])
            assert (list(answers), dict(answers.metadata)) == ([LONG, LONG], said)
            with client.stream(TELLING, LONG) as stream:
                assert list(stream) == [LONG, LONG]
                assert (dict(stream.metadata), stream.dropped) == (said, 4), door
