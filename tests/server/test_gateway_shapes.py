"""Uploads, duplex and one-way calls over gRPC, by grpcio's own clients, behind either engine."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from tests.server.peer import until
from tests.server.test_uploads import (
    ADD_UP,
    COLLECT,
    ECHO_ALL,
    ECHO_SINK,
    ITERATE,
    NOTE,
    PLAIN,
    UPLOADS,
    Chunk,
    Desk,
    Sum,
)
from wireproto.codecs import get
from wireproto.errors import CallError
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.protos.status import from_rpc_status
from wireproto.schema import Operation
from wireproto.server.gateway import GrpcGateway
from wireproto.server.gateway.shares import Shares
from wireproto.server.gateway.turns import Turns
from wireproto.status import Retry, Status
from wireproto.wire.metadata import Metadata

PATIENCE = 60.0
CODEC = get("protobuf")
packed = CODEC.plan(Chunk, 1, Limits(), request=True).encode
chunk_of: Callable[[bytes], Any] = CODEC.plan(Chunk, 1, Limits(), request=False).decode
sum_of: Callable[[bytes], Any] = CODEC.plan(Sum, 1, Limits(), request=False).decode
FORMS = pytest.mark.parametrize("method", [ADD_UP, ITERATE], ids=["sink", "iterator"])
BOTH_WAYS = pytest.mark.parametrize("method", [ECHO_ALL, ECHO_SINK], ids=["iterator", "sink"])
UNREADABLE = b"\x0a\x05"  # a field of five bytes without them


def path(method: Operation[Any, Any]) -> str:
    return f"/{UPLOADS.full_name}/{method.name}"


@pytest.fixture(params=["core", "public"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.gate.set()


Opening = Callable[..., Any]


@pytest.fixture
def gateways() -> Iterator[list[GrpcGateway]]:
    opened: list[GrpcGateway] = []
    yield opened
    for gateway in opened:
        assert gateway.shutdown(PATIENCE) == []


@pytest.fixture
def opening(desk: Desk, engine: Any, gateways: list[GrpcGateway]) -> Iterator[Opening]:
    """Serves the desk, and gives a channel of grpcio's to it."""
    channels: list[Any] = []

    def serve(authenticate: Any = None, **limits: Any) -> Any:
        gateway = GrpcGateway(desk.handlers, port=0, limits=Limits(**limits), engine=engine, authenticate=authenticate)
        gateway.start()
        gateways.append(gateway)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels.append(grpc.insecure_channel(str(gateway.address), options=options))
        return channels[-1]

    yield serve
    desk.gate.set()
    for channel in channels:
        channel.close()


class Feed:
    """Items for grpcio, which takes them on a thread of its own: what is put in, until it is finished."""

    def __init__(self, *items: Chunk) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.taken = 0
        self.put(*items)

    def put(self, *items: Chunk) -> None:
        for item in items:
            self._queue.put(packed(item))

    def put_bytes(self, payload: bytes) -> None:
        self._queue.put(payload)

    def finish(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (payload := self._queue.get()) is not None:
            self.taken += 1
            yield payload


@pytest.fixture
def feed() -> Iterator[Feed]:
    """One that has an end, whatever becomes of the test: grpcio's thread waits for it."""
    made = Feed()
    yield made
    made.finish()


def error_of(call: Callable[[], object]) -> CallError:
    """What the caller is told, with the details that the gateway sends."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return read_error(caught.value)


def read_error(error: Any) -> CallError:
    details = rpc_status.from_call(error)
    if details is None:
        return CallError(Status(error.code().value[0]), "", error.details() or "")
    return from_rpc_status(details)


def assert_alive(channel: Any) -> None:
    answer = channel.unary_unary(path(PLAIN))(packed(Chunk(number=1)), timeout=PATIENCE)
    assert sum_of(answer).total == 1


# Uploads


@FORMS
@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 5), (300, 10), (30, 100_000), (3, 900_000)])
def test_an_upload_of_any_size_arrives_whole(opening: Opening, method: Any, count: int, size: int) -> None:
    """However many items of whatever size: all are taken, and one answer comes."""
    channel = opening()
    numbers = [number % 400 for number in range(count)]
    items = (packed(Chunk(number=number, data=bytes(size))) for number in numbers)
    answer = sum_of(channel.stream_unary(path(method))(items, timeout=PATIENCE))
    assert answer == Sum(total=sum(numbers), size=count * size)
    assert_alive(channel)


def test_items_are_collected(opening: Opening) -> None:
    """With ``collect`` the handler has all items at once; one too many fails the call."""
    call = opening().stream_unary(path(COLLECT))
    for count in (0, 3):
        assert sum_of(call(iter([packed(Chunk(number=1))] * count), timeout=PATIENCE)) == Sum(total=count)
    error = error_of(lambda: call(iter([packed(Chunk())] * 4), timeout=PATIENCE))
    assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


def test_the_async_client_uploads(opening: Opening, gateways: list[GrpcGateway]) -> None:
    """grpc.aio's client is served alike: whole uploads, and one that is answered early."""
    opening()

    async def go() -> tuple[bytes, bytes]:
        async with grpc.aio.insecure_channel(str(gateways[0].address)) as channel:
            call: Any = channel.stream_unary(path(ITERATE))
            whole = await call((packed(Chunk(number=n)) for n in range(20)), timeout=PATIENCE)
            never = asyncio.Event()

            async def endless() -> AsyncIterator[bytes]:
                yield packed(Chunk(number=1_000))
                await never.wait()

            return whole, await call(endless(), timeout=PATIENCE)

    whole, early = asyncio.run(go())
    assert (sum_of(whole).total, sum_of(early).total) == (190, 1_000)


@FORMS
def test_an_early_answer(opening: Opening, desk: Desk, method: Any, feed: Feed) -> None:
    """The answer may come before the end of the items; it ends the call, and the connection goes on."""
    channel = opening()
    feed.put(Chunk(number=1_000))
    assert sum_of(channel.stream_unary(path(method))(iter(feed), timeout=PATIENCE)).total == 1_000
    assert_alive(channel)
    if method is ADD_UP:
        until(lambda: desk.ends == ["finished"], "the sink is told", PATIENCE)


@FORMS
def test_an_early_answer_to_whoever_sends_on(opening: Opening, method: Any) -> None:
    """Items that cross the answer are nobody's, however many they are."""
    channel = opening()

    def items() -> Iterator[bytes]:
        yield packed(Chunk(number=1_000))
        for _ in range(200):
            yield packed(Chunk(number=1, data=bytes(10_000)))

    for _ in range(3):
        assert sum_of(channel.stream_unary(path(method))(items(), timeout=PATIENCE)).total >= 1_000
    assert_alive(channel)


def test_a_sink_holds_back_its_caller_with_a_future(opening: Opening, desk: Desk, feed: Feed) -> None:
    """While the future of an item is not done nothing more is asked for: HTTP/2 holds the caller back."""
    channel = opening()
    feed.put(Chunk(number=500), *[Chunk(number=1, data=bytes(20_000))] * 40)
    upload = channel.stream_unary(path(ADD_UP)).future(iter(feed), timeout=PATIENCE)
    until(lambda: bool(desk.futures), "the sink waits", PATIENCE)
    for _ in range(3):
        assert_alive(channel)
    assert desk.taken == 1
    assert feed.taken < 10  # of 41: what fits into the windows of a stream is far less
    desk.futures[0].set_result(None)
    feed.finish()
    assert sum_of(upload.result(PATIENCE)) == Sum(total=540, size=800_000)


@FORMS
def test_cancelling_ends_the_items(opening: Opening, desk: Desk, method: Any, feed: Feed) -> None:
    """A cancelled upload is no complete one: the handler sees the cancel, each time."""
    channel = opening(cancel_burst=1000)
    for number in range(1, 21):
        own = Feed(Chunk(number=1))
        upload = channel.stream_unary(path(method)).future(iter(own), timeout=PATIENCE)
        until(lambda number=number: desk.taken == number, "the item is taken", PATIENCE)  # type: ignore[misc]
        upload.cancel()
        until(lambda number=number: len(desk.ends) == number, "the handler sees it", PATIENCE)  # type: ignore[misc]
        own.finish()
    assert desk.ends == ["CANCELLED"] * 20
    assert_alive(channel)


@FORMS
def test_a_deadline_ends_the_items(opening: Opening, desk: Desk, method: Any, feed: Feed) -> None:
    """Whether a sink or an iterator waits for items: the deadline ends it, and is not taken for the end of them."""
    channel = opening()
    feed.put(Chunk(number=1))
    error = error_of(lambda: channel.stream_unary(path(method))(iter(feed), timeout=1.0))
    assert error.status is Status.DEADLINE_EXCEEDED
    until(lambda: len(desk.ends) == (desk.taken > 0), "the handler is told, if it has begun", PATIENCE)
    assert set(desk.ends) <= {"DEADLINE", "CANCELLED"}  # whichever end is first


def test_a_handler_does_not_wait_for_ever(opening: Opening, feed: Feed) -> None:
    """A caller that sends nothing ends its call after ``item_timeout``."""
    channel = opening(item_timeout=0.2)
    feed.put(Chunk(number=1))
    error = error_of(lambda: channel.stream_unary(path(ITERATE))(iter(feed), timeout=PATIENCE))
    assert (error.status, error.reason, error.retry) == (
        Status.DEADLINE_EXCEEDED,
        "ITEM_TIMEOUT",
        Retry.MAYBE_PROCESSED,
    )


def test_a_sink_waits_as_long_as_its_caller(opening: Opening, desk: Desk) -> None:
    """It holds no thread, so that a pause costs nobody anything; nor is it taken for a message that stalls."""
    channel = opening(item_timeout=0.05, frame_timeout=0.05, frame_rate=10**9)
    feeds = [Feed(Chunk(number=1)) for _ in range(20)]
    uploads = [channel.stream_unary(path(ADD_UP)).future(iter(each), timeout=PATIENCE) for each in feeds]
    until(lambda: desk.taken == 20, "all are taken", PATIENCE)
    late = time.monotonic() + 0.6  # the door looks at its clocks four times a second
    until(lambda: time.monotonic() > late, "every clock there is would be up", PATIENCE)
    for each in feeds:
        each.finish()
    assert [sum_of(upload.result(PATIENCE)).total for upload in uploads] == [1] * 20


@pytest.mark.parametrize(("number", "reason"), [(-1, "TOO_BIG"), (666, "INTERNAL")])
def test_what_a_sink_raises_ends_its_call(opening: Opening, desk: Desk, number: int, reason: str, feed: Feed) -> None:
    """A CallError is the answer, anything else an incident; the sink is told, and the caller need not finish."""
    channel = opening()
    feed.put(Chunk(number=number))
    error = error_of(lambda: channel.stream_unary(path(ADD_UP))(iter(feed), timeout=PATIENCE))
    assert error.reason == reason
    assert "secret" not in error.message
    until(lambda: desk.ends == [reason], "the sink is told", PATIENCE)
    assert_alive(channel)


@FORMS
def test_an_item_that_cannot_be_read_ends_its_call(opening: Opening, desk: Desk, method: Any, feed: Feed) -> None:
    """A bad payload in the middle is BAD_PAYLOAD; the handler is told."""
    channel = opening()
    feed.put(Chunk(number=1))
    feed.put_bytes(UNREADABLE)
    error = error_of(lambda: channel.stream_unary(path(method))(iter(feed), timeout=PATIENCE))
    assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "BAD_PAYLOAD")
    until(lambda: desk.ends == ["BAD_PAYLOAD"], "the handler is told", PATIENCE)
    assert_alive(channel)


@FORMS
def test_a_lost_connection_ends_the_items(opening: Opening, desk: Desk, method: Any, feed: Feed) -> None:
    """The sink or iterator of a connection that is gone is told so, and does not take it for the end."""
    channel = opening()
    feed.put(Chunk(number=1))
    upload = channel.stream_unary(path(method)).future(iter(feed), timeout=PATIENCE)
    until(lambda: desk.taken == 1, "the item is taken", PATIENCE)
    channel.close()
    until(lambda: desk.ends == ["CANCELLED"], "it is told", PATIENCE)
    assert upload.exception(PATIENCE) is not None or upload.cancelled()


def test_an_upload_is_judged_before_it_is_read(desk: Desk, engine: Any, gateways: list[GrpcGateway]) -> None:
    """Who may not call is told so while the caller has sent nothing yet; so is who asks for another version."""

    def authenticate(metadata: Metadata, peer: str) -> Identity | None:
        raise CallError(Status.PERMISSION_DENIED, "", "nobody may")

    gateways.append(GrpcGateway(desk.handlers, port=0, engine=engine, authenticate=authenticate))
    gateways[0].start()
    with grpc.insecure_channel(str(gateways[0].address)) as channel:
        untyped: Any = channel
        for headers, status in (
            ([("authorization", "x")], Status.PERMISSION_DENIED),
            ([("wireproto-version", "9")], Status.FAILED_PRECONDITION),
        ):
            for method in (ADD_UP, ITERATE):
                silent = Feed()
                call = untyped.stream_unary(path(method)).future(iter(silent), timeout=PATIENCE, metadata=headers)
                assert read_error(call.exception(PATIENCE)).status is status
                silent.finish()
    assert desk.taken == 0


def test_calls_whose_items_follow_are_counted(opening: Opening, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network has so many at a time, because gRPC does not tell who is idle from whose message is half."""
    monkeypatch.setattr("wireproto.server.gateway.fed._MOST", 2)
    channel = opening()
    feeds = [Feed(Chunk(number=1)) for _ in range(3)]
    call = channel.stream_unary(path(ADD_UP))
    kept = [call.future(iter(each), timeout=PATIENCE) for each in feeds[:2]]
    until(lambda: desk.taken == 2, "two are under way", PATIENCE)
    error = error_of(lambda: call(iter(feeds[2]), timeout=PATIENCE))
    assert (error.status, error.reason, error.retry) == (
        Status.RESOURCE_EXHAUSTED,
        "SERVER_BUSY",
        Retry.NOT_PROCESSED,
    )
    for each in feeds:
        each.finish()
    assert [sum_of(each.result(PATIENCE)).total for each in kept] == [1, 1]
    until(lambda: not refuses(call, iter([packed(Chunk())])), "there is room again", PATIENCE)


def test_closing_waits_for_uploads_and_one_way_calls(
    opening: Opening, desk: Desk, gateways: list[GrpcGateway], feed: Feed
) -> None:
    """What is under way when the gateway closes is finished within its time."""
    channel = opening()
    feed.put(Chunk(number=1))
    upload = channel.stream_unary(path(ITERATE)).future(iter(feed), timeout=PATIENCE)
    until(lambda: desk.taken == 1, "the item is taken", PATIENCE)
    channel.unary_unary(path(NOTE))(packed(Chunk(number=500)), timeout=PATIENCE)
    closing = threading.Thread(target=lambda: gateways[0].shutdown(PATIENCE))
    closing.start()
    until(lambda: refuses(channel.unary_unary(path(PLAIN)), packed(Chunk())), "it closes", PATIENCE)
    feed.put(Chunk(number=2))
    feed.finish()
    assert sum_of(upload.result(PATIENCE)).total == 3
    assert closing.is_alive()
    desk.gate.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert desk.notes == [500]


def refuses(call: Any, sent: Any) -> bool:
    try:
        call(sent, timeout=PATIENCE)
    except grpc.RpcError:
        return True
    return False


# Duplex calls


@BOTH_WAYS
def test_a_duplex_call_goes_both_ways(opening: Opening, desk: Desk, method: Any, feed: Feed) -> None:
    """Each item comes back before the next one goes out; the end of the caller's half ends the other."""
    factor = 2 if method is ECHO_ALL else 1
    rpc = opening().stream_stream(path(method))(iter(feed), timeout=PATIENCE)
    for number in range(100):
        feed.put(Chunk(number=number, data=bytes(number)))
        assert chunk_of(next(rpc)) == Chunk(number=number * factor, data=bytes(number))
    feed.finish()
    assert list(rpc) == []
    if method is ECHO_SINK:
        until(lambda: sorted(desk.ends) == ["closed", "finished"], "both of its ends are told, once", PATIENCE)


@BOTH_WAYS
def test_a_duplex_call_of_many_items(opening: Opening, method: Any) -> None:
    """All at once: nothing is lost, and the order is kept."""
    items = [packed(Chunk(number=number, data=bytes(3_000))) for number in range(300)]
    back = [chunk_of(each).number for each in opening().stream_stream(path(method))(iter(items), timeout=PATIENCE)]
    factor = 2 if method is ECHO_ALL else 1
    assert back == [number * factor for number in range(300)]


@BOTH_WAYS
def test_a_duplex_call_is_cancelled(opening: Opening, desk: Desk, method: Any) -> None:
    """Both halves end, and a sink is told ``failed``, never ``finished``."""
    channel = opening()
    for number in range(10):
        own = Feed(Chunk(number=1))
        rpc = channel.stream_stream(path(method))(iter(own), timeout=PATIENCE)
        assert chunk_of(next(rpc)).number
        rpc.cancel()
        if method is ECHO_SINK:
            until(lambda number=number: len(desk.ends) == 2 * number + 2, "it is told", PATIENCE)  # type: ignore[misc]
        own.finish()
    if method is ECHO_SINK:
        assert sorted(desk.ends) == ["CANCELLED"] * 10 + ["closed"] * 10
    assert_alive(channel)


def test_an_item_of_a_duplex_call_that_cannot_be_read(opening: Opening, desk: Desk, feed: Feed) -> None:
    """It ends both halves with BAD_PAYLOAD, behind the answers that were given before."""
    for method in (ECHO_ALL, ECHO_SINK):
        rpc = opening().stream_stream(path(method))(iter([packed(Chunk(number=3)), UNREADABLE]), timeout=PATIENCE)
        back: list[int] = []

        def drain(rpc: Any = rpc, back: list[int] = back) -> None:
            for each in rpc:
                back.append(chunk_of(each).number)

        assert error_of(drain).reason == "BAD_PAYLOAD"
        assert back in ([], [3], [6])
    until(lambda: sorted(desk.ends) == ["BAD_PAYLOAD", "closed"], "the sink is told", PATIENCE)


def test_the_async_client_converses(opening: Opening, gateways: list[GrpcGateway]) -> None:
    """grpc.aio's client writes and reads one after the other, and ends its half by itself."""
    opening()

    async def go() -> list[int]:
        async with grpc.aio.insecure_channel(str(gateways[0].address)) as channel:
            rpc: Any = channel.stream_stream(path(ECHO_SINK))(timeout=PATIENCE)
            back = []
            for number in range(20):
                await rpc.write(packed(Chunk(number=number)))
                back.append(chunk_of(await rpc.read()).number)
            await rpc.done_writing()
            assert await rpc.read() is grpc.aio.EOF
            return back

    assert asyncio.run(go()) == list(range(20))


# One-way calls


def test_one_way_calls_are_answered_when_they_are_accepted(opening: Opening, desk: Desk) -> None:
    """The answer is Empty and does not wait for the handler; failures behind it are the log's."""
    channel = opening()
    call = channel.unary_unary(path(NOTE))
    assert call(packed(Chunk(number=500)), timeout=PATIENCE) == b""
    for number in range(50):
        assert call(packed(Chunk(number=number)), timeout=PATIENCE) == b""
    until(lambda: sorted(desk.notes) == list(range(50)), "the others have run", PATIENCE)
    desk.gate.set()
    until(lambda: 500 in desk.notes, "and the first one", PATIENCE)


def test_failures_of_one_way_calls_are_logged(opening: Opening, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is told: neither of what a handler raises, nor that the request cannot be read."""
    channel = opening()
    call = channel.unary_unary(path(NOTE))
    with caplog.at_level(logging.WARNING, "wireproto.gateway"):
        assert call(packed(Chunk(number=-1)), timeout=PATIENCE) == b""
        until(lambda: "a one-way call failed" in caplog.text, "it is logged", PATIENCE)
    assert call(UNREADABLE, timeout=PATIENCE) == b""
    assert_alive(channel)
    assert desk.notes == []


def test_one_way_calls_wait_for_their_turn(opening: Opening, desk: Desk) -> None:
    """A connection has as many at a time as on the other door; the others wait, first come, first served."""
    channel = opening(one_way_calls=2)
    call = channel.unary_unary(path(NOTE))
    for _ in range(2):
        assert call(packed(Chunk(number=500)), timeout=PATIENCE) == b""
    waiting = []
    for number in range(5):
        waiting.append(call.future(packed(Chunk(number=number)), timeout=PATIENCE))
        assert_alive(channel)  # so that it came before the next one
    assert not any(each.done() for each in waiting)
    assert desk.notes == []
    desk.gate.set()
    assert [each.result(PATIENCE) for each in waiting] == [b""] * 5
    until(lambda: len(desk.notes) == 7, "they have run", PATIENCE)
    assert sorted(desk.notes) == [0, 1, 2, 3, 4, 500, 500]


def test_one_way_calls_wait_up_to_their_deadline(opening: Opening, desk: Desk, gateways: list[GrpcGateway]) -> None:
    """One whose time is up, or whose caller leaves, has no turn any more: it never runs, and keeps nobody from his."""
    channel = opening(one_way_calls=1)
    call = channel.unary_unary(path(NOTE))
    assert call(packed(Chunk(number=500)), timeout=PATIENCE) == b""
    error = error_of(lambda: call(packed(Chunk(number=1)), timeout=0.3))
    assert error.status is Status.DEADLINE_EXCEEDED
    left = call.future(packed(Chunk(number=2)), timeout=PATIENCE)
    patient = call.future(packed(Chunk(number=3)), timeout=PATIENCE)
    assert_alive(channel)
    left.cancel()
    door = gateways[0]._door
    assert door is not None
    turns = door.one_way
    until(lambda: sum(map(len, turns._waiting.values())) == 1, "the server knows that one has left", PATIENCE)
    desk.gate.set()
    assert patient.result(PATIENCE) == b""
    until(lambda: sorted(desk.notes) == [3, 500], "the patient one has run", PATIENCE)
    assert call(packed(Chunk(number=4)), timeout=PATIENCE) == b""
    until(lambda: sorted(desk.notes) == [3, 4, 500], "there is room again", PATIENCE)


def test_one_way_calls_that_wait_when_the_gateway_closes_are_told(
    opening: Opening, desk: Desk, gateways: list[GrpcGateway]
) -> None:
    """Those that have no turn within its time are refused: not processed."""
    channel = opening(one_way_calls=1)
    call = channel.unary_unary(path(NOTE))
    assert call(packed(Chunk(number=500)), timeout=PATIENCE) == b""
    waiting = call.future(packed(Chunk(number=1)), timeout=PATIENCE)
    assert_alive(channel)
    closing = threading.Thread(target=lambda: gateways[0].shutdown(0.5))
    closing.start()
    error = error_of(lambda: waiting.result(PATIENCE))
    assert (error.status, error.reason, error.retry) == (Status.UNAVAILABLE, "SHUTTING_DOWN", Retry.NOT_PROCESSED)
    desk.gate.set()
    closing.join(PATIENCE)
    until(lambda: desk.notes == [500], "the other one ends", PATIENCE)


def test_turns_are_taken_in_order() -> None:
    """Who leaves gives its place to the one that has waited longest and still wants it; others' places are others'."""

    class Waits:
        def __init__(self, name: str, wants: bool = True) -> None:
            self.name = name
            self.wants = wants

        def take_turn(self) -> bool:
            told.append(self.name)
            return self.wants

    told: list[str] = []
    turns = Turns(1)
    waiting = [Waits("b"), Waits("c", wants=False), Waits("d"), Waits("e")]
    assert turns.enter("x", Waits("a"))
    assert [turns.enter("x", each) for each in waiting] == [False] * 4
    assert turns.enter("y", Waits("other"))
    turns.withdraw("x", waiting[0])
    turns.withdraw("x", waiting[0])
    turns.leave("x")
    assert told == ["c", "d"]
    turns.leave("x")
    turns.leave("x")
    assert told == ["c", "d", "e"]
    assert turns.enter("x", Waits("f"))
    assert not turns.enter("y", Waits("g"))


def test_reflection_tells_the_shapes(opening: Opening) -> None:
    """Which half is a stream, and that a one-way call answers Empty: what a tool needs to call each."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(opening()))
    methods = pool.FindServiceByName(UPLOADS.full_name).methods
    assert {each.name: (each.client_streaming, each.server_streaming) for each in methods} == {
        "AddUp": (True, False),
        "Iterate": (True, False),
        "Collect": (True, False),
        "EchoAll": (True, True),
        "EchoSink": (True, True),
        "Note": (False, False),
        "Plain": (False, False),
    }
    (note,) = [each for each in methods if each.name == "Note"]
    assert note.output_type.full_name == "google.protobuf.Empty"


def test_shares_are_counted_by_whoever_has_them() -> None:
    """One who has too many does not keep others out, and what is given back may be had again."""
    shares = Shares(2)
    assert [shares.enter("a") for _ in range(3)] == [True, True, False]
    assert shares.enter("b")
    shares.leave("a")
    assert shares.enter("a")
    assert not shares.enter("a")
