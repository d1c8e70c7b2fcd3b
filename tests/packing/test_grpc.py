"""Over gRPC ``compress`` changes nothing, and gRPC's own compression changes no outcome."""

from typing import Any

import grpc
import pytest

from tests.packing.service import COLLECT, ECHO, GROW, MIRROR, REPEAT, SERVICE, TEXT, Hall, Text, Times
from wireproto import CallError, Limits, codecs
from wireproto.client import grpc as wire_grpc
from wireproto.server.gateway import GrpcGateway
from wireproto.server.gateway.engines import EngineName

LIMITS = Limits(max_frame=65_536)


def written(text: str) -> bytes:
    return codecs.get("protobuf").plan(Text, 1, Limits(), request=True).encode(Text(text=text))


@pytest.mark.parametrize("engine", ["core", "public"])
@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Deflate, grpc.Compression.Gzip]
)
def test_a_compressed_message_counts_as_what_it_stands_for(
    hall: Hall, engine: EngineName, compression: grpc.Compression
) -> None:
    """The longest request passes and one byte more does not, packed by gRPC or not; a bomb is refused alike."""
    gateway = GrpcGateway(hall.handlers, port=0, limits=LIMITS, engine=engine)
    gateway.start()
    try:
        with grpc.insecure_channel(str(gateway.address), compression=compression) as channel:
            echo: Any = channel.unary_unary(f"/{SERVICE.full_name}/Echo")
            most = 65_536 - 12
            frame = most - len(written("x" * (most - 100))) + (most - 100)
            longest = written("x" * frame)
            assert len(longest) == most
            assert echo(longest, timeout=20) == longest
            for size in (frame + 1, 32 << 20):
                with pytest.raises(grpc.RpcError) as caught:
                    echo(written("x" * size), timeout=20)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert echo(longest, timeout=20) == longest
    finally:
        assert gateway.shutdown(5) == []


@pytest.mark.parametrize("engine", ["core", "public"])
def test_methods_that_compress_answer_alike(hall: Hall, engine: EngineName) -> None:
    """Every shape of a method with ``compress`` does over gRPC what it does over TCP, the limit of an answer too."""
    gateway = GrpcGateway(hall.handlers, port=0, limits=LIMITS, engine=engine)
    gateway.start()
    try:
        with wire_grpc.connect(str(gateway.address), SERVICE) as client:
            text = Text(text=TEXT)
            assert client.call(ECHO, text) == text
            assert list(client.stream(REPEAT, Times(text=TEXT, times=3))) == [text] * 3
            assert client.upload(COLLECT, [text] * 3).text == TEXT * 3
            assert list(client.duplex(MIRROR, [text] * 3)) == [text] * 3
            with pytest.raises(CallError) as caught:
                client.call(GROW, Times(text="x", times=65_536))
            assert caught.value.reason == "RESPONSE_TOO_LARGE"
    finally:
        assert gateway.shutdown(5) == []
