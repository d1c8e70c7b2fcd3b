"""What a stranger may hold of the gRPC door, a limit at a time; ``benchmarks/grpc_attacks.py`` tries them in number."""

import logging
import queue
import runpy
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from tests.server.peer import until
from tests.server.service import Stage
from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.log_limit import LogLimit
from wireproto.schema import Message, Method, Service
from wireproto.server.gateway import GrpcGateway, hanging_up, health, log_lines, public
from wireproto.server.gateway.halves import network_of
from wireproto.server.gateway.hanging_up import hang_up

PATIENCE = 20.0
ATTACKS = Path(__file__).parents[2] / "benchmarks" / "grpc_attacks.py"
ECHO_PATH = "/test.v1.ServerService/Echo"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture(params=["core", "public"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def channel(stage: Stage, engine: Any) -> Iterator[Any]:
    """A stock one, to a door whose clocks are short; untyped, because its types know no calls on bytes."""
    limits = Limits(frame_timeout=0.3, frame_rate=1 << 30, write_timeout=0.3)
    with GrpcGateway(stage.handlers, port=0, engine=engine, limits=limits) as gateway:
        with grpc.insecure_channel(str(gateway.address)) as made:
            yield made
        stage.open_gates()


def waiting(questions: "queue.SimpleQueue[bytes | None]") -> Iterator[bytes]:
    """What is put into a queue, until that is nothing."""
    return iter(questions.get, None)


def refused(answer: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        answer.result(PATIENCE)
    return caught.value


def test_a_call_without_a_message_is_ended_by_a_clock(channel: Any) -> None:
    """The headers of a call, and nothing behind them."""
    silent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answer = channel.stream_unary(ECHO_PATH).future(waiting(silent), timeout=PATIENCE)
    error = refused(answer)
    silent.put(None)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the request was not whole after" in str(error.details())


def test_a_call_that_ends_without_a_message_is_told_so(channel: Any) -> None:
    """gRPC's documents have UNIMPLEMENTED for a message too few."""
    error = refused(channel.stream_unary(ECHO_PATH).future(iter(()), timeout=PATIENCE))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "sent no message" in str(error.details())


def test_a_stream_of_which_nothing_is_taken_is_ended_by_a_clock(stage: Stage, channel: Any, engine: str) -> None:
    """The source is closed; the caller, who reads in the end, finds less than there was and the end."""
    grpc.channel_ready_future(channel).result(PATIENCE)
    gone = threading.Event()

    def look(state: grpc.ChannelConnectivity) -> None:
        if state is not grpc.ChannelConnectivity.READY:
            gone.set()

    channel.subscribe(look)
    stream = channel.unary_stream("/test.v1.ServerService/Feed")(b"\n\x01f", timeout=2 * PATIENCE)
    feed = stage.feed("f")
    feed.put(*["x" * 60_000] * 500)
    assert feed.was_closed.wait(PATIENCE)
    if engine == "public":  # no public name resets a call: its connection is hung up on
        assert gone.wait(PATIENCE)
    taken: list[bytes] = []
    with pytest.raises(grpc.RpcError) as caught:
        taken.extend(stream)
    assert len(taken) < 500
    codes = {"core": grpc.StatusCode.DEADLINE_EXCEEDED, "public": grpc.StatusCode.UNAVAILABLE}
    assert caught.value.code() is codes[engine]


def test_who_reads_in_the_end_is_told_why(stage: Stage, channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind what has waited there is an end, whichever way it came."""
    monkeypatch.setattr(public, "_PARTING", PATIENCE)
    stream = channel.unary_stream("/test.v1.ServerService/Feed")(b"\n\x01f", timeout=2 * PATIENCE)
    feed = stage.feed("f")
    feed.put(*["x" * 60_000] * 500)
    assert feed.was_closed.wait(PATIENCE)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_asker_who_asks_nothing_is_ended_by_a_clock(channel: Any) -> None:
    """Reflection answers, and waits for the next question as long as a call waits for its message."""
    questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    stream = channel.stream_stream(REFLECTION)(waiting(questions), timeout=PATIENCE)
    questions.put(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    listed = reflection_pb2.ServerReflectionResponse.FromString(next(stream))
    assert "test.v1.ServerService" in [each.name for each in listed.list_services_response.service]
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    questions.put(None)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("symbol", ["test.v1.ServerService.Echo", "google.rpc.Status", "google.rpc.ErrorInfo"])
def test_reflection_knows_methods_and_details(channel: Any, symbol: str) -> None:
    """A method by its own name, and what the details of an error are made of."""
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol).SerializeToString()
    (answer,) = channel.stream_stream(REFLECTION)(iter([question]), timeout=PATIENCE)
    read = reflection_pb2.ServerReflectionResponse.FromString(answer)
    assert read.WhichOneof("message_response") == "file_descriptor_response"
    assert read.file_descriptor_response.file_descriptor_proto


def test_reflection_refuses_what_is_no_question(channel: Any) -> None:
    """Bytes that are no request end the asker's own call, in words."""
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(REFLECTION)(iter([b"\xff\xff"]), timeout=PATIENCE))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ServerReflectionRequest" in str(caught.value.details())


@pytest.mark.parametrize(
    ("path", "request_bytes"),
    [("/test.v1.ServerService/None", b""), (ECHO_PATH, b"\xff\xff")],
    ids=["unknown", "unreadable"],
)
def test_who_sends_what_cannot_be_understood_is_hung_up_on(
    stage: Stage, engine: Any, path: str, request_bytes: bytes
) -> None:
    """As on the TCP door: so many may be wrong in a minute, and no more."""
    with GrpcGateway(stage.handlers, port=0, engine=engine, limits=Limits(errors_per_minute=20)) as gateway:
        with grpc.insecure_channel(str(gateway.address)) as channel:
            call: Any = channel.unary_unary(path)
            told: Counter[str] = Counter()
            while told["UNAVAILABLE"] == 0:
                with pytest.raises(grpc.RpcError) as caught:
                    call(request_bytes, timeout=10)
                told[caught.value.code().name] += 1
                assert sum(told.values()) < 1000
            assert sum(told.values()) >= 20
        with grpc.insecure_channel(str(gateway.address), options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            other: Any = channel.unary_unary(ECHO_PATH)
            assert other(b"\n\x01x", timeout=10) == b"\n\x01x"


@pytest.mark.parametrize(
    "path", ["/test.v1.ServerService/None", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
)
def test_resets_are_counted_on_every_path(
    stage: Stage, engine: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who begins calls and resets them is hung up on, whatever the calls were for."""
    limits = Limits(cancel_burst=20, cancels_per_second=0.001, errors_per_minute=20)
    with (
        GrpcGateway(stage.handlers, port=0, engine=engine, limits=limits) as gateway,
        grpc.insecure_channel(str(gateway.address)) as channel,
    ):
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        grpc.channel_ready_future(channel).result(10)
        call: Any = channel.stream_stream(path)
        hold = threading.Event()

        def one_question() -> Iterator[bytes]:
            yield reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
            hold.wait()

        for _ in range(200):
            if states[-1] is not grpc.ChannelConnectivity.READY:
                break
            stream = call(one_question())
            with suppress(grpc.RpcError):  # of what there is not
                next(stream)
            stream.cancel()
        hold.set()
        # A busy machine tells grpcio's watcher nothing of a state that lasted for a moment; the door says what it does.
        until(
            lambda: grpc.ChannelConnectivity.IDLE in states[1:] or "hung up" in caplog.text,
            "the connection is closed",
            10,
        )


def test_calls_whose_time_is_up_are_no_cancels(stage: Stage, engine: Any) -> None:
    """Deadlines that pass at the caller end its calls there, and its connection stays."""
    limits = Limits(cancel_burst=5, cancels_per_second=0.001)
    with (
        GrpcGateway(stage.handlers, port=0, engine=engine, limits=limits) as gateway,
        grpc.insecure_channel(str(gateway.address)) as channel,
    ):
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        defer: Any = channel.unary_unary("/test.v1.ServerService/Defer")
        late = [defer.future(b"\n\x01d", timeout=0.5) for _ in range(40)]
        assert {each.code() for each in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        echo: Any = channel.unary_unary(ECHO_PATH)
        assert echo(b"\n\x01x", timeout=10) == b"\n\x01x"
        assert grpc.ChannelConnectivity.IDLE not in states[1:]
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states


def test_a_peer_of_ipv6_has_its_address(stage: Stage, engine: Any) -> None:
    """grpcio quotes it as in a URL; a handler, the shares of networks and hanging up want it as it is."""
    with GrpcGateway(stage.handlers, host="::1", port=0, engine=engine) as gateway:
        with grpc.insecure_channel(str(gateway.address)) as channel:
            call: Any = channel.unary_unary("/test.v1.ServerService/Block")
            future = call.future(b"\n\x01b", timeout=10)
            assert stage.inside("b").wait(10)
            peer = stage.contexts["b"].peer
            assert peer.startswith("[::1]:")
            assert network_of(peer) == "::/64"
            stage.gate("b").set()
            future.result(10)
            assert hang_up({peer}, gateway.address.port) == 1
        stage.contexts.clear()


def test_no_log_line_quotes_a_stranger(
    stage: Stage, engine: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpcio logs a header that it cannot decode, each time and whole; what is left of that is one line without it."""
    monkeypatch.setattr(log_lines._UNQUOTING, "_limit", LogLimit())
    attacks = runpy.run_path(str(ATTACKS))
    frame, block, length = attacks["frame"], attacks["block"], attacks["_length"]
    name, value = b"authorization", b"Bearer SECRET\xff\xfe"
    header = b"\0" + length(len(name)) + name + length(len(value)) + value
    with GrpcGateway(stage.handlers, port=0, engine=engine) as gateway, caplog.at_level(logging.DEBUG):
        attacker = attacks["Attacker"](gateway.address.port)
        for _ in range(3):
            attacker.stream += 2
            headers = frame(attacks["HEADERS"], attacks["END_HEADERS"], attacker.stream, block(ECHO_PATH) + header)
            message = attacks["message"](b"\n\x01x")
            attacker.send(headers + frame(attacks["DATA"], attacks["END_STREAM"], attacker.stream, message))
        until(lambda: any(each.name.startswith("grpc") for each in caplog.records), "grpcio has logged", PATIENCE)
        with grpc.insecure_channel(str(gateway.address)) as channel:
            call: Any = channel.unary_unary(ECHO_PATH)
            assert call(b"\n\x01x", timeout=PATIENCE) == b"\n\x01x"
        attacker.socket.close()
    assert "SECRET" not in caplog.text
    lines = [each for each in caplog.records if each.name == "grpc._cython.cygrpc" and each.levelno >= logging.ERROR]
    assert 1 <= len(lines) < 3, caplog.text  # of three calls; two places at most log such a thing
    assert "left out" in lines[0].getMessage()


def test_watchers_have_a_share_of_each_network(stage: Stage, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many may watch the health, from one network; one that goes makes room for another."""
    monkeypatch.setattr(health, "WATCHERS", 3)
    with (
        GrpcGateway(stage.handlers, port=0, engine=engine) as gateway,
        grpc.insecure_channel(str(gateway.address)) as channel,
    ):
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watching = [watch(b"", timeout=PATIENCE) for _ in range(3)]
        assert [next(each) for each in watching] == [b"\x08\x01"] * 3
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(b"", timeout=PATIENCE))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watching.pop().cancel()

        def there_is_room() -> bool:
            with suppress(grpc.RpcError):
                return bool(next(watch(b"", timeout=PATIENCE)))
            return False

        until(there_is_room, "there is room again", PATIENCE)


class BigRequest(Message):
    pass


class BigResponse(Message):
    text: str


BIG = Method(opcode=1, name="Big", request=BigRequest, response=BigResponse)
LARGE = Service("test.large.v1.LargeService", methods=[BIG])


def test_who_takes_no_answer_is_given_no_further_one(engine: Any) -> None:
    """Beyond the watermark of a connection none of its calls runs; all do once it reads, and others all the time."""
    handlers, ran = Handlers(LARGE), Counter[str]()

    @handlers.register(BIG)
    def big(request: BigRequest, context: Context) -> BigResponse:
        ran[context.peer] += 1
        return BigResponse(text="x" * 500_000)

    path = "/test.large.v1.LargeService/Big"
    attacks = runpy.run_path(str(ATTACKS))
    frame = attacks["frame"]
    with GrpcGateway(handlers, port=0, engine=engine) as gateway:
        attacker = attacks["Attacker"](gateway.address.port, window=0)
        me = "{}:{}".format(*attacker.socket.getsockname())
        for _ in range(60):
            attacker.send(
                frame(attacks["DATA"], attacks["END_STREAM"], attacker.headers(path), attacks["message"](b""))
            )
        with grpc.insecure_channel(str(gateway.address)) as channel:
            call: Any = channel.unary_unary(path)
            for _ in range(20):
                assert len(call(b"", timeout=PATIENCE)) > 500_000
        until(lambda: ran[me] >= 3, "the watermark is reached", PATIENCE)
        assert ran[me] < 20
        window = struct.pack(">HI", attacks["INITIAL_WINDOW_SIZE"], 1 << 20)
        attacker.send(frame(attacks["SETTINGS"], 0, 0, window))
        attacker.send(frame(attacks["WINDOW_UPDATE"], 0, 0, struct.pack(">I", 1 << 30)))

        def all_ran() -> bool:
            attacker.drop()
            return ran[me] == 60

        until(all_ran, "all have run", PATIENCE)
        attacker.socket.close()


def test_who_says_nothing_keeps_nobody_out(stage: Stage, engine: Any) -> None:
    """Of silent connections the oldest go when they are too many, long before a clock would end them."""
    limits = Limits(max_connections=20, max_handshaking=4, hello_timeout=600.0)
    attacks = runpy.run_path(str(ATTACKS))
    with GrpcGateway(stage.handlers, port=0, engine=engine, limits=limits) as gateway, ExitStack() as stack:
        silent = [attacks["Attacker"](gateway.address.port, greet=False) for _ in range(30)]
        for each in silent:
            stack.enter_context(each.socket)

        def all_but_four_are_gone() -> bool:
            for each in silent:
                each.drop()
            return [each.ended for each in silent].count(True) == 26

        until(all_but_four_are_gone, "those that are too many are hung up on", PATIENCE)
        channel = stack.enter_context(grpc.insecure_channel(str(gateway.address)))
        call: Any = channel.unary_unary(ECHO_PATH)
        assert call(b"\n\x01x", timeout=PATIENCE) == b"\n\x01x"


def test_an_address_has_a_share_of_the_connections(stage: Stage, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of an address that has too many are hung up on, whatever they do; those it has had before stay."""
    monkeypatch.setattr(hanging_up, "is_loopback", lambda host: False)
    limits = Limits(max_connections_per_address=3, max_handshaking=1000)
    attacks = runpy.run_path(str(ATTACKS))
    with GrpcGateway(stage.handlers, port=0, engine=engine, limits=limits) as gateway:
        attackers = [attacks["Attacker"](gateway.address.port) for _ in range(3)]
        for each in attackers:
            each.headers("/grpc.health.v1.Health/Watch")
        until(lambda: len(hanging_up.connected(gateway.address.port)) == 3, "three are connected", PATIENCE)
        more = [attacks["Attacker"](gateway.address.port) for _ in range(2)]

        def gone() -> bool:
            for each in (*attackers, *more):
                each.drop()
            return all(each.ended for each in more)

        until(gone, "the newest are hung up on", PATIENCE)
        assert not any(each.ended for each in attackers)
        for each in (*attackers, *more):
            each.socket.close()
