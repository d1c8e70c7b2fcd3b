"""What a stock client of gRPC has of the details of an error, and of what stands beside answers."""

import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from tests.integration.test_answers import FEED, LIST, ORDER, SHOP, OrderRequest, shop
from wireproto import codecs
from wireproto.errors import CallError
from wireproto.limits import Limits
from wireproto.server.gateway import GrpcGateway
from wireproto.server.gateway.trailers import tell
from wireproto.status import Status

PATIENCE = 30.0


@pytest.fixture(scope="module", params=["core", "public"])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """A channel to the gateway of the shop, with either engine."""
    with (
        GrpcGateway(shop(), port=0, engine=request.param) as gateway,
        grpc.insecure_channel(str(gateway.address)) as made,
    ):
        yield made


def ask(channel: Any, method: Any, request: OrderRequest) -> Any:
    """A call on bytes; of a stream its iterator, else the call itself."""
    payload = codecs.get("protobuf").plan(OrderRequest, 1, Limits(), request=True).encode(request)
    path = f"/{SHOP.full_name}/{method.name}"
    if method.items_come_back:
        return channel.unary_stream(path)(payload, timeout=PATIENCE)
    _, call = channel.unary_unary(path).with_call(payload, timeout=PATIENCE)
    return call


def trailers(call: Any) -> dict[str, Any]:
    return {each.key: each.value for each in call.trailing_metadata()}


def on_the_wire(value: str | bytes) -> str:
    """A header as it travels to every client but those of gRPC's core: bytes are base64."""
    return value if isinstance(value, str) else b64encode(value).rstrip(b"=").decode()


def test_details_are_a_message_that_reflection_knows(channel: grpc.Channel) -> None:
    """They are an Any of the message's type beside ErrorInfo; a client without a .proto reads them by reflection."""
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, ORDER, OrderRequest(how="stock", said={"region": "eu"}))
    status = rpc_status.from_call(caught.value)
    info, details = status.details
    assert info.TypeName() == "google.rpc.ErrorInfo"
    assert details.type_url == "type.googleapis.com/shop.v1.OutOfStock"
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    message: Any = GetMessageClass(pool.FindMessageTypeByName("shop.v1.OutOfStock"))()
    assert details.Unpack(message)
    assert (message.article, message.left) == ("a|é", 7)
    assert trailers(caught.value)["region"] == "eu"


def test_metadata_are_trailers(channel: grpc.Channel) -> None:
    """What is printable ASCII as it is, and the rest as bytes under a name that ends in -bin."""
    said = {"region": "eu", "who": "Zoë", "traceparent": "00-ab"}
    found = {"region": "eu", "who-bin": "Zoë".encode(), "traceparent": "00-ab"}
    assert trailers(ask(channel, ORDER, OrderRequest(said=said))) == found
    stream = ask(channel, LIST, OrderRequest(said=said))
    assert len(list(stream)) == 2
    assert trailers(stream) == found


def test_items_that_were_left_out_are_counted_at_the_end(channel: grpc.Channel) -> None:
    """A message over gRPC has nothing beside it: a trailer says how many there were in all."""
    stream = ask(channel, FEED, OrderRequest())
    assert len(list(stream)) == 2
    assert trailers(stream) == {"wireproto-dropped": "5"}


@pytest.mark.parametrize("text", ["m" * 2048, "é" * 1024], ids=["ascii", "other"])
def test_trailers_stay_within_what_clients_take(channel: grpc.Channel, text: str) -> None:
    """The message is cut for the details and for what is said, and the details are left out before that is."""
    for size, said in (
        (3900, {}),
        (3000, {"a": "x" * 4000}),
        (0, {f"n{each}": "x" for each in range(130)}),
        (3000, {"a": "é" * 1200}),
        (0, {"a": "é" * 1900}),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, ORDER, OrderRequest(how="long", size=size, said={**said, "text": text[:500]}))
        assert caught.value.code() is grpc.StatusCode.ABORTED
        found = trailers(caught.value)
        counted = sum(len(name) + len(on_the_wire(value)) + 32 for name, value in found.items())
        assert counted + len("grpc-message") + len(quote(caught.value.details() or "")) + 32 < 8192
        for name, value in said.items():
            assert value in (found.get(name), found.get(f"{name}-bin", b"").decode())


def test_no_more_of_a_message_is_kept_than_is_sent() -> None:
    """Errors that are alike are spelt out once, and a long message of one is not kept for that."""
    message = "é" * 100_000
    known = sys.getrefcount(message)
    told = tell(CallError(Status.ABORTED, "", message), {})
    assert told.message == "é" * 512
    assert sys.getrefcount(message) == known
