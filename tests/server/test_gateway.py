"""The gateway's own behaviour: how calls begin and end over gRPC, what they may carry, and that nothing is left."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.server.peer import until
from tests.server.service import (
    BLOCK,
    COUNT,
    DEFER,
    ECHO,
    FAIL,
    FEED,
    SERVICE,
    SIGN_IN,
    WHO,
    BlockRequest,
    CountRequest,
    CountResponse,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    EchoResponse,
    FailRequest,
    FeedRequest,
    SignInRequest,
    Stage,
    WhoRequest,
    WhoResponse,
)
from wireproto.client.grpc import GrpcClient
from wireproto.client.grpc import connect as connect_grpc
from wireproto.dispatch import Handlers
from wireproto.errors import CallError, ConfigError
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Service, StreamMethod
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Retry, Status
from wireproto.wire.metadata import Metadata

PATIENCE = 20.0

Open = Callable[..., GrpcClient]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module", autouse=True)
def _grpc_awake() -> Iterator[None]:
    """gRPC has a few descriptors, and a thread for its asyncio, for the process while anything of it is used; they are
    nobody's leak.
    """
    handlers = Handlers(SERVICE)
    with GrpcGateway(handlers, port=0, engine="public") as gateway, connect_grpc(gateway.address, SERVICE) as client:
        client.ping(PATIENCE)
        yield


@pytest.fixture(params=["core", "public"])
def engine(request: pytest.FixtureRequest) -> str:
    """All that is promised holds behind either engine."""
    name: str = request.param
    return name


@pytest.fixture
def door(stage: Stage, engine: str) -> Iterator[Callable[..., Open]]:
    """Opens gateways over the stage's handlers; afterwards no thread and no descriptor of them may be left."""
    threads, before = set(threading.enumerate()), descriptors()
    gateways: list[GrpcGateway] = []
    clients: list[GrpcClient] = []

    def start(**arguments: Any) -> Open:
        gateway = GrpcGateway(
            stage.handlers, port=0, authenticate=stage.authenticate, **({"engine": engine} | arguments)
        )
        gateway.start()
        gateways.append(gateway)

        def connect(**options: Any) -> GrpcClient:
            clients.append(connect_grpc(gateway.address, SERVICE, **options))
            return clients[-1]

        vars(connect)["gateway"] = gateway
        return connect

    yield start
    stage.open_gates()
    for client in clients:
        client.close()
    for gateway in gateways:
        assert gateway.shutdown(5) == []
    stage.contexts.clear()  # they hold calls, and these gRPC's core, with the descriptors that it has for the process
    until(lambda: set(threading.enumerate()) <= threads, "no thread is left", 5)
    until(lambda: descriptors() <= before, "no descriptor is left", 5)


@pytest.fixture
def client(door: Callable[..., Open]) -> GrpcClient:
    return door()()


def gateway_of(opened: Open) -> GrpcGateway:
    made: GrpcGateway = vars(opened)["gateway"]
    return made


def stock(address: object) -> Any:
    """A channel as any gRPC client has one; untyped, because its types know no calls on bytes."""
    return grpc.insecure_channel(str(address))


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


# Calls


def test_a_handler_sees_the_same_context(stage: Stage, client: GrpcClient) -> None:
    """Peer, codec, version, method, metadata, deadline and identity reach the handler."""
    metadata = Metadata(
        traceparent="00-ab-cd-01",
        authorization="user:ann",
        idempotency_key=b"\0\xff",
        entries={"note": "tea \u2615", "plain": "x", "empty": "", "spaced": " x "},
    )
    future = client.start(BLOCK, BlockRequest(name="b"), timeout=PATIENCE, metadata=metadata)
    assert stage.inside("b").wait(PATIENCE)
    context = stage.contexts["b"]
    host, _, port = context.peer.rpartition(":")
    assert host == "127.0.0.1"
    assert port.isdigit()
    assert (context.codec, context.version, context.method) == ("protobuf", 1, BLOCK)
    remaining = context.remaining()
    assert remaining is not None
    assert PATIENCE - 5 < remaining < PATIENCE + 1  # gRPC rounds it, up
    seen = context.metadata
    assert seen.deadline_ms is not None
    assert 0 < seen.deadline_ms < (PATIENCE + 1) * 1000
    assert (seen.traceparent, seen.authorization, seen.idempotency_key, seen.entries) == (
        metadata.traceparent,
        metadata.authorization,
        metadata.idempotency_key,
        metadata.entries,
    )
    assert context.identity is not None
    assert context.identity.subject == "ann"
    assert not context.cancelled
    stage.gate("b").set()
    assert not future.result(PATIENCE).cancelled


def test_a_call_without_a_deadline_has_none(stage: Stage, client: GrpcClient) -> None:
    """No deadline is None, and not the far end of gRPC's calendar."""
    future = client.start(BLOCK, BlockRequest(name="b"))
    assert stage.inside("b").wait(PATIENCE)
    assert stage.contexts["b"].deadline is None
    assert stage.contexts["b"].metadata.deadline_ms is None
    stage.gate("b").set()
    future.result(PATIENCE)


def test_cancelling_reaches_the_handler(stage: Stage, client: GrpcClient) -> None:
    """A call that its caller gives up is cancelled in its context."""
    future = client.start(BLOCK, BlockRequest(name="b"))
    assert stage.inside("b").wait(PATIENCE)
    assert future.cancel()
    until(lambda: stage.contexts["b"].cancelled, "the context is cancelled", PATIENCE)


@pytest.mark.parametrize("how", ["undeclared", "exit", "type", "x"])
def test_no_text_of_an_exception_leaves(client: GrpcClient, how: str) -> None:
    """Whatever a handler breaks on, its caller is told an incident's number and nothing else."""
    error = refused(lambda: client.call(FAIL, FailRequest(how=how)))
    assert (error.status, error.reason, error.retry) == (Status.INTERNAL, "INTERNAL", Retry.MAYBE_PROCESSED)
    assert "secret" not in str(error)
    assert "incident" in str(error)


def test_an_abort_arrives_in_full(client: GrpcClient) -> None:
    """Status, reason, message, retry advice and pause of `Context.abort` are what the client raises."""
    error = refused(lambda: client.call(FAIL, FailRequest(how="declared")))
    assert (error.status, error.reason, error.message) == (Status.ABORTED, "DECLARED", "as told")
    assert (error.retry, error.retry_after_ms) == (Retry.NOT_PROCESSED, 7)


def test_signing_in_binds_nothing(client: GrpcClient) -> None:
    """`sign_in` does nothing over gRPC: the next call on the connection has no identity of its own."""
    client.call(SIGN_IN, SignInRequest(name="ann", capabilities=["user"]))
    assert refused(lambda: client.call(WHO, WhoRequest())).reason == "SIGN_IN_REQUIRED"
    client.authorization = "user:bob"
    assert client.call(WHO, WhoRequest()) == WhoResponse(name="bob")


def test_a_deferred_answer_is_waited_for(stage: Stage, client: GrpcClient) -> None:
    """A future of the response, of an error, or cancelled ends the call as over TCP."""
    first, second, third = (client.start(DEFER, DeferRequest(name=name)) for name in "abc")
    stage.future("a").set_result(DeferResponse(name="done"))
    stage.future("b").set_exception(CallError(Status.NOT_FOUND, "", "no"))
    stage.future("c").cancel()
    assert first.result(PATIENCE) == DeferResponse(name="done")
    assert refused(lambda: second.result(PATIENCE)).status is Status.NOT_FOUND
    assert refused(lambda: third.result(PATIENCE)).reason == "CANCELLED"


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_deferred_answer_nobody_waits_for_is_cancelled(stage: Stage, client: GrpcClient, how: str) -> None:
    """When the deadline passes or the caller cancels, so is the future, and its thread is free again."""
    future = client.start(DEFER, DeferRequest(name="d"), timeout=0.2 if how == "deadline" else None)
    deferred = stage.future("d")
    if how == "cancel":
        future.cancel()
    else:
        assert refused(lambda: future.result(PATIENCE)).reason == "DEADLINE"
    until(deferred.cancelled, "the deferred answer is cancelled", PATIENCE)


def test_a_context_knows_its_peer_when_the_call_is_over(stage: Stage, client: GrpcClient) -> None:
    """Where a call came from can be logged behind its end; grpcio forgets it at times."""
    future = client.start(BLOCK, BlockRequest(name="over"))
    assert stage.inside("over").wait(PATIENCE)
    context: Any = stage.contexts["over"]
    future.cancel()
    until(lambda: context.cancelled, "the call is over", PATIENCE)
    stage.gate("over").set()
    assert context.peer.startswith("127.0.0.1:")


class NapRequest(Message):
    pass


class NapResponse(Message):
    pass


NAP = Method(opcode=1, name="Nap", request=NapRequest, response=NapResponse, timeout=0.05)
OLD = Method(opcode=2, name="Old", request=EchoRequest, response=EchoResponse, until=1)
NEW = Method(opcode=3, name="New", request=FeedRequest, response=CountResponse, since=2)
NAPS = Service("test.naps.v1.NapService", version=2, methods=[NAP, OLD, NEW])


@pytest.fixture
def naps(engine: Any) -> Iterator[tuple[GrpcGateway, Handlers, threading.Event]]:
    """A service of two versions with a method that takes longer than it declares."""
    handlers, morning = Handlers(NAPS), threading.Event()

    @handlers.register(NAP)
    def nap(request: NapRequest, context: Context) -> NapResponse:
        while not context.cancelled:
            morning.wait(0.01)
        return NapResponse()

    @handlers.register(OLD)
    def old(request: EchoRequest, context: Context) -> EchoResponse:
        return EchoResponse(text=str(context.version))

    with GrpcGateway(handlers, port=0, engine=engine) as gateway:
        yield gateway, handlers, morning


def test_the_methods_own_deadline_holds(naps: tuple[GrpcGateway, Handlers, threading.Event]) -> None:
    """A method's declared timeout is a deadline also for callers that bring none, or a later one."""
    gateway, _, _ = naps
    channel = stock(gateway.address)
    with channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.naps.v1.NapService/Nap")(b"")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_header_asks_for_an_older_version(naps: tuple[GrpcGateway, Handlers, threading.Event]) -> None:
    """Calls run at the newest version, or at the one of `wireproto-version`; else the range is named."""
    gateway, _, _ = naps
    with connect_grpc(gateway.address, NAPS) as newest, connect_grpc(gateway.address, NAPS, version=1) as older:
        assert (newest.version, older.version) == (2, 1)
        assert older.call(OLD, EchoRequest()) == EchoResponse(text="1")
        assert refused(lambda: newest.call(OLD, EchoRequest())).reason == "UNKNOWN_OPCODE"  # before it is sent
        error = refused(lambda: newest.call(NEW, FeedRequest(name="")))
        assert (error.status, error.reason) == (Status.UNIMPLEMENTED, "NO_HANDLER")
    channel = stock(gateway.address)
    with channel:
        old = channel.unary_unary("/test.naps.v1.NapService/Old")
        for headers, code, text in [
            ([], grpc.StatusCode.UNIMPLEMENTED, "since version 1 until version 1"),
            ([("wireproto-version", "3")], grpc.StatusCode.FAILED_PRECONDITION, "the versions 1 to 2"),
            ([("wireproto-version", "0")], grpc.StatusCode.FAILED_PRECONDITION, "the versions 1 to 2"),
            ([("wireproto-version", "new")], grpc.StatusCode.INVALID_ARGUMENT, "wireproto-version"),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                old(b"", metadata=headers)
            assert caught.value.code() is code
            assert text in str(caught.value.details())


# Limits


def test_message_sizes_have_tcps_limits(door: Callable[..., Open]) -> None:
    """The largest payload that fits a TCP frame passes in either direction, and one byte more does not."""
    limits = Limits(max_frame=4096)
    client = door(limits=limits)(limits=Limits())
    most = 4096 - 12
    overhead = 3  # the tag and length of a text this long
    assert len(client.call(ECHO, EchoRequest(size=most - overhead)).text) == most - overhead
    error = refused(lambda: client.call(ECHO, EchoRequest(size=most - overhead + 1)))
    assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE")
    text = "x" * (most - overhead)
    assert client.call(ECHO, EchoRequest(text=text)).text == text
    assert refused(lambda: client.call(ECHO, EchoRequest(text=text + "x"))).status is Status.RESOURCE_EXHAUSTED
    error = refused(lambda: client.call(FAIL, FailRequest(how="x" * 998)))  # max_request of 1000, and no handler ran
    assert error.reason == "REQUEST_TOO_LARGE"


def test_metadata_has_tcps_limit(client: GrpcClient) -> None:
    """Metadata of as many bytes as a TCP request may carry passes, and one byte more does not."""
    room = Limits().max_metadata - len("note") - 4
    assert client.call(ECHO, EchoRequest(text="a"), metadata={"note": "x" * room}) == EchoResponse(text="a")
    error = refused(lambda: client.call(ECHO, EchoRequest(), metadata={"note": "x" * (room + 1)}))
    assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "METADATA_TOO_LARGE")


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "user:a"), ("authorization", "user:b")],
        [("authorization", "user:a"), ("authorization-bin", b"user:b")],
        [("idempotency-key", "k"), ("idempotency-key-bin", b"k")],
        [("idempotency-key-bin", b"k" * 65)],
        [("n" * 65, "x")],
        [("authorization-bin", "us\u00e9r:a".encode())],
    ],
)
def test_bad_metadata_is_refused(door: Callable[..., Open], headers: list[tuple[str, str | bytes]]) -> None:
    """Whatever the TCP door calls BAD_METADATA is called so here."""
    address = gateway_of(door()).address
    with stock(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.v1.ServerService/Echo")(b"", metadata=headers)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "metadata" in str(caught.value.details())


@pytest.mark.parametrize(
    ("headers", "entries"),
    [
        ([("tracestate", "a=1"), ("tracestate", "b=2")], {"tracestate": "a=1, b=2"}),
        ([("x-a", "1"), ("x-a", ""), ("x-a", "3")], {"x-a": "1, , 3"}),
        ([("x-a", "text"), ("x-a-bin", b"bytes")], {"x-a": "text", "x-a-bin": "bytes"}),
        ([("x-a-bin", b"bytes"), ("x-a", "text")], {"x-a": "text", "x-a-bin": "bytes"}),
        ([("x-a-bin", "t\u00e9".encode()), ("x-a-bin", b"2")], {"x-a": "t\u00e9, 2"}),
        ([("x-a-bin", b"\xff")], {}),
    ],
    ids=repr,
)
def test_what_stock_clients_send_is_taken(
    stage: Stage, door: Callable[..., Open], headers: list[tuple[str, str | bytes]], entries: dict[str, str]
) -> None:
    """A name in several lines is one list, and a name with `-bin` beside the same without are two."""
    address = gateway_of(door()).address
    with stock(address) as channel:
        call = channel.unary_unary("/test.v1.ServerService/Block").future(b"\n\x01b", metadata=headers)
        assert stage.inside("b").wait(PATIENCE)
        assert stage.contexts["b"].metadata.entries == entries
        stage.gate("b").set()
        call.result(PATIENCE)


def test_a_bad_payload_names_the_field(door: Callable[..., Open]) -> None:
    """Bytes that are no message are INVALID_ARGUMENT with the reason, not grpcio's INTERNAL."""
    address = gateway_of(door()).address
    with stock(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.v1.ServerService/Echo")(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "EchoRequest" in str(caught.value.details())


def test_calls_beyond_the_queue_are_refused(stage: Stage, door: Callable[..., Open]) -> None:
    """With every worker busy and the queue full a call is refused at once, not processed; room makes it pass."""
    client = door(workers=2, limits=Limits(run_queue=1))()
    busy = [client.start(BLOCK, BlockRequest(name="b")), client.start(BLOCK, BlockRequest(name="b"))]
    assert stage.inside("b").wait(PATIENCE)
    busy += [client.start(BLOCK, BlockRequest(name="b")) for _ in range(3)]
    until(lambda: sum(each.done() for each in busy) >= 3, "three are refused", PATIENCE)
    refusals = [each.exception() for each in busy if each.done()]
    for error in refusals:
        assert isinstance(error, CallError)
        assert (error.status, error.reason, error.retry) == (
            Status.RESOURCE_EXHAUSTED,
            "SERVER_BUSY",
            Retry.NOT_PROCESSED,
        )
    assert len(refusals) == 3
    stage.gate("b").set()
    until(lambda: all(each.done() for each in busy), "the others are answered", PATIENCE)
    assert client.call(ECHO, EchoRequest(text="a")).text == "a"


# Streams


def test_a_subscription_gives_what_is_put(stage: Stage, client: GrpcClient) -> None:
    """Items come as they are put, however many are taken; close comes once, at the end."""
    stream = client.stream(FEED, FeedRequest(name="f"), credit=3)
    feed = stage.feed("f")
    for number in range(200):
        feed.put(str(number))
        assert stream.next().text == str(number)
    feed.end()
    assert list(stream) == []
    assert feed.was_closed.wait(PATIENCE)
    assert feed.closed == ["ended"]


def test_a_streams_handler_is_told_what_its_caller_gave(engine: Literal["core", "public"]) -> None:
    """The client adds no header of its own to a stream, and what HTTP/2 grants is no metadata."""
    seen: list[Metadata] = []
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> list[CountResponse]:
        seen.append(context.metadata)
        return []

    with (
        GrpcGateway(handlers, port=0, engine=engine) as gateway,
        connect_grpc(gateway.address, SERVICE) as client,
    ):
        assert list(client.stream(COUNT, CountRequest(upto=0), credit=3, metadata={"x-a": "1"})) == []
    (metadata,) = seen
    assert metadata.entries == {"x-a": "1"}
    assert metadata.credit is None


def test_a_stock_client_that_cancels_closes_the_source(stage: Stage, door: Callable[..., Open]) -> None:
    """A stock client's stream needs no header of ours, and cancelling it closes the source, once."""
    address = gateway_of(door()).address
    with stock(address) as channel:
        call = channel.unary_stream("/test.v1.ServerService/Feed")(b"\n\x01f")
        feed = stage.feed("f")
        call.initial_metadata()
        call.cancel()
        assert feed.was_closed.wait(PATIENCE)
    assert len(feed.closed) == 1


@pytest.mark.parametrize("fail", [False, True])
def test_an_iterator_is_sent_in_order_and_closed(stage: Stage, client: GrpcClient, fail: bool) -> None:
    """A generator's items come in order, then its end or its error; it is closed."""
    stream = client.stream(COUNT, CountRequest(upto=150, fail=fail))
    seen: list[int] = []

    def drain() -> None:
        seen.extend(item.n for item in stream)

    if fail:
        assert refused(drain).status is Status.ABORTED
    else:
        drain()
    assert seen == list(range(150))
    assert stage.generators_closed.wait(PATIENCE)


def test_a_stream_has_a_deadline(stage: Stage, client: GrpcClient) -> None:
    """A stream whose time is up fails with DEADLINE, and its source is closed."""
    stream = client.stream(FEED, FeedRequest(name="f"), timeout=0.2)
    assert refused(stream.next).reason == "DEADLINE"
    assert stage.feed("f").was_closed.wait(PATIENCE)


def test_open_streams_hold_no_thread(stage: Stage, door: Callable[..., Open]) -> None:
    """Two hundred streams that have nothing to say leave two workers for the other calls."""
    client = door(workers=2)()
    threads = threading.active_count()
    streams = [client.stream(FEED, FeedRequest(name=f"f{number}")) for number in range(200)]
    feeds = [stage.feed(f"f{number}") for number in range(200)]
    assert threading.active_count() <= threads + 2  # the client's own
    assert client.call(ECHO, EchoRequest(text="a")).text == "a"
    for number, feed in enumerate(feeds):
        feed.put(str(number))
    assert [stream.next().text for stream in streams] == [str(number) for number in range(200)]


class TickRequest(Message):
    looks: bool


class TickResponse(Message):
    number: int


TICK = StreamMethod(opcode=1, name="Tick", request=TickRequest, response=TickResponse)
TICKS = Service("test.ticks.v1.TickService", methods=[TICK])


@pytest.mark.parametrize("looks", [True, False])
def test_an_iterator_sees_that_the_door_closes(engine: Any, looks: bool) -> None:
    """What iterates is told by `context.draining` and may end by itself; what does not look is ended in words."""
    handlers, pause = Handlers(TICKS), threading.Event()

    @handlers.register(TICK)
    def tick(request: TickRequest, context: Context) -> Iterator[TickResponse]:
        number = 0
        while not (request.looks and context.draining):
            yield TickResponse(number=number)
            number += 1
            pause.wait(0.01)

    with GrpcGateway(handlers, port=0, engine=engine) as gateway, connect_grpc(gateway.address, TICKS) as client:
        stream = client.stream(TICK, TickRequest(looks=looks))
        assert stream.next().number == 0
        ending = threading.Thread(target=gateway.shutdown, args=(PATIENCE if looks else 0.5,))
        ending.start()
        numbers: list[int] = []

        def rest() -> None:
            numbers.extend(item.number for item in stream)

        if looks:
            rest()
        else:
            error = refused(rest)
            assert (error.status, error.reason) == (Status.UNAVAILABLE, "SHUTTING_DOWN")
            assert error.retry is Retry.MAYBE_PROCESSED
        assert numbers == list(range(1, len(numbers) + 1))
        ending.join(PATIENCE)
        assert not ending.is_alive()


# The end


def test_shutting_down_ends_streams_and_finishes_calls(stage: Stage, door: Callable[..., Open]) -> None:
    """Streams end UNAVAILABLE, maybe processed, as over TCP; a call in flight is answered; all is given back."""
    opened = door()
    client, gateway = opened(), gateway_of(opened)
    stream = client.stream(FEED, FeedRequest(name="f"))
    feed = stage.feed("f")
    call = client.start(BLOCK, BlockRequest(name="b"))
    assert stage.inside("b").wait(PATIENCE)
    survivors: list[list[str]] = []
    ending = threading.Thread(target=lambda: survivors.append(gateway.shutdown(PATIENCE)))
    ending.start()
    error = refused(stream.next)
    assert (error.status, error.reason, error.retry) == (Status.UNAVAILABLE, "SHUTTING_DOWN", Retry.MAYBE_PROCESSED)
    assert feed.was_closed.wait(PATIENCE)
    stage.gate("b").set()
    assert call.result(PATIENCE).name == "b"
    ending.join(PATIENCE)
    assert survivors == [[]]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(gateway.address, timeout=PATIENCE)


def test_every_source_is_closed_however_short_the_end(stage: Stage, door: Callable[..., Open]) -> None:
    """A shutdown without any grace closes each source once, also those whose caller takes nothing."""
    opened = door()
    client = opened()
    streams = [client.stream(FEED, FeedRequest(name=f"f{number}")) for number in range(30)]
    feeds = [stage.feed(f"f{number}") for number in range(30)]
    for feed in feeds[::2]:
        feed.put(*("x" * 60_000 for _ in range(20)))
    assert gateway_of(opened).shutdown(0) == []
    assert [len(feed.closed) for feed in feeds] == [1] * 30
    assert len(streams) == 30


def test_a_handler_that_stays_is_named(stage: Stage, door: Callable[..., Open]) -> None:
    """After its time the shutdown cuts calls off and names the thread that is still inside one."""
    opened = door()
    client = opened()
    client.start(BLOCK, BlockRequest(name="b"))
    assert stage.inside("b").wait(PATIENCE)
    (survivor,) = gateway_of(opened).shutdown(0.1)
    assert survivor.startswith("wireproto-grpc-worker-")


def test_watchers_learn_of_the_end(door: Callable[..., Open]) -> None:
    """Health says SERVING for each service, NOT_FOUND for others, and NOT_SERVING to whoever watches, then ends."""
    gateway = gateway_of(door())
    with stock(gateway.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", SERVICE.full_name, "wirecontrol.v1.ControlService", "grpc.health.v1.Health"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
        assert next(watch).status == serving
        assert gateway.shutdown(PATIENCE) == []
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_arguments_are_checked(stage: Stage) -> None:
    """A wrong argument, and an address that cannot be had, are sentences."""
    with pytest.raises(ConfigError, match="at least 2"):
        GrpcGateway(stage.handlers, workers=1)
    with pytest.raises(ConfigError, match="at least one service"):
        GrpcGateway([])
    with pytest.raises(ConfigError, match="given twice"):
        GrpcGateway([stage.handlers, stage.handlers])
    with pytest.raises(ConfigError, match=r"not Service; write Handlers\(service\)"):
        GrpcGateway(stage.handlers.service)  # type: ignore[arg-type]
    gateway = GrpcGateway(stage.handlers)
    with pytest.raises(ConfigError, match="no address yet"):
        _ = gateway.address
    assert gateway.shutdown() == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is in use"):
            GrpcGateway(stage.handlers, port=port).start()


def test_two_gateways_never_share_a_port(door: Callable[..., Open], stage: Stage) -> None:
    """The second one is refused the port of the first, which gRPC by itself would allow."""
    with pytest.raises(ConfigError, match="is in use"):
        GrpcGateway(stage.handlers, port=gateway_of(door()).address.port).start()


@pytest.mark.parametrize("module", ["wireproto.server.gateway", "wireproto.client.grpc"])
def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    """Importing either end without grpcio is a ConfigError with the command that helps."""
    code = f"import sys; sys.modules['grpc'] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run: pip install 'wireproto[grpc]'")
