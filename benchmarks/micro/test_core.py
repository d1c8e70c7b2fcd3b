"""The frame, the connection and the codecs, each by itself: `pytest benchmarks/micro`, with pytest-benchmark."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import codec_costs

from wireproto import codecs
from wireproto.limits import Limits
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import HelloReceived
from wireproto.wire.frame import Kind, pack, unpack
from wireproto.wire.handshake import Hello, Welcome

Benchmark = Callable[..., Any]
PAYLOAD = bytes(70)


def opened() -> tuple[Connection, Connection]:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.send_hello(
        Hello(min_version=1, max_version=1, codecs=((2, "msgpack"),), max_frame=1 << 20, service="a.v1.B")
    )
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), HelloReceived)
    server.send_welcome(Welcome(version=1, codec=2, max_frame=1 << 20, max_calls=256))
    client.receive_data(server.data_to_send())
    client.next_event()
    return client, server


def test_pack(benchmark: Benchmark) -> None:
    """A frame to bytes."""
    assert len(benchmark(pack, int(Kind.REQUEST), 2, 1, 1, 7, b"", PAYLOAD)) == 86


def test_unpack(benchmark: Benchmark) -> None:
    """Bytes to a frame."""
    assert benchmark(unpack, pack(Kind.REQUEST, 2, 1, 1, 7, b"", PAYLOAD)).payload == PAYLOAD


@pytest.mark.parametrize("depth", [1, 64])
def test_calls_through_both_connections(benchmark: Benchmark, depth: int) -> None:
    """So many requests sent, received, answered, and the answers received."""
    client, server = opened()

    def exchange() -> int:
        for _ in range(depth):
            client.send_request(1, PAYLOAD)
        server.receive_data(client.data_to_send())
        for event in server.next_events(depth):
            server.send_response(event.call_id, PAYLOAD)  # type: ignore[union-attr]
        client.receive_data(server.data_to_send())
        return len(client.next_events(depth))

    assert benchmark(exchange) == depth


@pytest.mark.parametrize("codec", codec_costs.CODECS)
@pytest.mark.parametrize("message", codec_costs.bench_messages(), ids=["request", "response"])
def test_encode(benchmark: Benchmark, codec: str, message: Any) -> None:
    """The bench message to a payload."""
    plan = codecs.get(codec).plan(type(message), 1, Limits())
    assert plan.decode(benchmark(plan.encode, message)) == message


@pytest.mark.parametrize("codec", codec_costs.CODECS)
@pytest.mark.parametrize("message", codec_costs.bench_messages(), ids=["request", "response"])
def test_decode(benchmark: Benchmark, codec: str, message: Any) -> None:
    """A payload to the bench message."""
    plan = codecs.get(codec).plan(type(message), 1, Limits())
    assert benchmark(plan.decode, plan.encode(message)) == message
