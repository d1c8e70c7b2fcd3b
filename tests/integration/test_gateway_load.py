"""Open streams and unary calls beside each other: what one costs the other, and the end of it all."""

import statistics
import threading
import time

import pytest

from tests.server.peer import until
from tests.server.service import ECHO, FEED, SERVICE, EchoRequest, FeedRequest, FeedResponse, Stage
from wireproto.client.grpc import GrpcClient, GrpcStream, connect
from wireproto.server.gateway import GrpcGateway

PATIENCE = 30.0


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
