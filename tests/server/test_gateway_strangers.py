"""What a stranger may hold of the gRPC door, a limit at a time; ``benchmarks/grpc_attacks.py`` tries them in number."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from tests.server.service import Stage
from wireproto.limits import Limits
from wireproto.server.gateway import GrpcGateway, public

PATIENCE = 20.0
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
    answer = channel.stream_unary("/test.v1.ServerService/Echo").future(waiting(silent), timeout=PATIENCE)
    error = refused(answer)
    silent.put(None)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the request was not whole after" in str(error.details())


def test_a_call_that_ends_without_a_message_is_told_so(channel: Any) -> None:
    """gRPC's documents have UNIMPLEMENTED for a message too few."""
    error = refused(channel.stream_unary("/test.v1.ServerService/Echo").future(iter(()), timeout=PATIENCE))
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
