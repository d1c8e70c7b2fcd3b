"""Open streams and unary calls beside each other: what one costs the other, and the end of it all."""

import asyncio
import json
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests import outside
from tests.server.peer import until
from tests.server.service import ECHO, FEED, SERVICE, EchoRequest, FeedRequest, FeedResponse, Stage
from wireproto.client.grpc import GrpcClient, GrpcStream, connect
from wireproto.server.gateway import GrpcGateway

PATIENCE = 30.0
ECHO_PATH = "/test.v1.ServerService/Echo"
ECHO_REQUEST = b"\n\x01x"
LOCAL = [("grpc.use_local_subchannel_pool", 1)]


def door_threads() -> int:
    return sum(thread.name.startswith("wireproto-grpc-") for thread in threading.enumerate())


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_open_streams_do_not_slow_unary_calls(count: int) -> None:
    """With many streams open calls stay quick, the door has no more threads than before, and the end is bounded."""
    stage = Stage()
    gateway = GrpcGateway(stage.handlers, port=0, workers=4)
    gateway.start()
    threads = door_threads()
    clients: list[GrpcClient] = []
    try:
        # Several connections, because one has at most 256 calls in flight, on this door as on the other.
        clients = [connect(gateway.address, SERVICE) for _ in range(1 + count // 100)]
        streams: list[GrpcStream[FeedResponse]] = []
        for number in range(count):
            stream = clients[number % len(clients)].stream(FEED, FeedRequest(name=str(number)))
            streams.append(stream)
        until(lambda: len(stage.feeds) == count, "all streams are open", PATIENCE)
        caller = clients[0]
        waits = []
        for _ in range(1000):
            began = time.perf_counter()
            caller.call(ECHO, EchoRequest(text="a"))
            waits.append(time.perf_counter() - began)
        assert door_threads() == threads
        for number in range(0, count, 10):
            stage.feeds[str(number)].put("live")
        began = time.monotonic()
        assert gateway.shutdown(10) == []
        took = time.monotonic() - began
        assert all(len(feed.closed) == 1 for feed in stage.feeds.values())
        assert statistics.quantiles(waits, n=100)[98] < 0.020
        assert took < 8
    finally:
        for client in clients:
            client.close()
        gateway.shutdown(1)


MANY = 3000


@pytest.mark.parametrize("engine", ["core", "public"])
def test_thousands_of_calls_at_once_are_answered(engine: Any) -> None:
    """However many a stock client begins, it keeps to what the door takes, and the door to what it says."""
    stage = Stage()
    with GrpcGateway(stage.handlers, port=0, engine=engine) as gateway:
        with grpc.insecure_channel(str(gateway.address), options=LOCAL) as channel:
            call: Any = channel.unary_unary(ECHO_PATH)
            futures = [call.future(ECHO_REQUEST) for _ in range(MANY)]
            assert Counter(future.code() for future in futures) == {grpc.StatusCode.OK: MANY}

        async def all_at_once() -> list[bytes]:
            async with grpc.aio.insecure_channel(str(gateway.address), options=LOCAL) as channel:
                call: Any = channel.unary_unary(ECHO_PATH)
                answers: list[bytes] = await asyncio.gather(*(call(ECHO_REQUEST) for _ in range(MANY)))
                return answers

        assert len(asyncio.run(all_at_once())) == MANY


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Commands that make many calls at once, by the gRPC that they have: an HTTP/2 of its own each."""
    return {"grpc-js": outside.node("many.mjs"), "grpc-go": outside.go("many", tmp_path_factory.mktemp("go"))}


@pytest.mark.timeout(400)  # the first one builds grpc-go
@pytest.mark.parametrize("engine", ["core", "public"])
def test_thousands_of_calls_of_other_stacks_are_answered(engine: Any, stacks: dict[str, list[str]]) -> None:
    """The same of JavaScript and Go."""
    with GrpcGateway(Stage().handlers, port=0, engine=engine) as gateway:
        for name, command in stacks.items():
            told = outside.run(*command, str(gateway.address), ECHO_PATH, str(MANY), cwd=Path(__file__).parent)
            assert json.loads(told) == {"OK": MANY}, name


@pytest.mark.parametrize("engine", ["core", "public"])
@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.long)])
def test_each_caller_is_told_that_the_server_closes(engine: Any, times: int) -> None:
    """Sixteen callers who call all the time: each gets answers, and then SHUTTING_DOWN, and nothing else."""
    stage = Stage()
    told: Counter[tuple[str, bool]] = Counter()

    def calls(channel: grpc.Channel, answered: threading.Event) -> None:
        call: Any = channel.unary_unary(ECHO_PATH)
        while True:
            try:
                call(ECHO_REQUEST, timeout=PATIENCE)
            except grpc.RpcError as error:
                told[error.code().name, "shutting down" in (error.details() or "")] += 1
                return
            answered.set()

    for _ in range(times):
        answered = [threading.Event() for _ in range(16)]
        gateway = GrpcGateway(stage.handlers, port=0, engine=engine)
        gateway.start()
        channels = [grpc.insecure_channel(str(gateway.address), options=LOCAL) for _ in range(4)]
        callers = [
            threading.Thread(target=calls, args=(channels[number % 4], each)) for number, each in enumerate(answered)
        ]
        for caller in callers:
            caller.start()
        assert all(each.wait(PATIENCE) for each in answered)
        assert gateway.shutdown(PATIENCE) == []
        for caller in callers:
            caller.join(PATIENCE)
        for channel in channels:
            channel.close()
    assert told == {("UNAVAILABLE", True): 16 * times}
