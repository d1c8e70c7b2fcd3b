"""The face that clients share: each has it whole, with the same parameters, and refuses the same arguments."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client.service import ADD_UP, CHAT, COUNT, ECHO, NOTE, SERVICE, CountRequest, CountResponse, echo
from wireproto import Client, ConfigError, Duplex, Message, Metadata, Stream
from wireproto.client import BlockingClient, ClientFace, ItemExchange, ItemStream
from wireproto.client.face import as_metadata, check_credit
from wireproto.client.grpc import GrpcClient, GrpcDuplex, GrpcStream
from wireproto.schema import Operation

NOWHERE = "127.0.0.1:1"


@pytest.fixture(params=[Client, GrpcClient])
def client(request: pytest.FixtureRequest) -> Iterator[BlockingClient]:
    """Each of the clients, not connected: what is refused here is refused before there is anybody to ask."""
    made: BlockingClient = request.param(NOWHERE, SERVICE)
    yield made
    made.close()


def faces(own: Client, other: GrpcClient, mine: Stream[Message], its: GrpcStream[Message]) -> None:
    """For the type checker, which compares every signature: never called."""
    _clients: tuple[BlockingClient, ...] = (own, other)
    _described: tuple[ClientFace, ...] = (own, other)
    _streams: tuple[ItemStream[Message], ...] = (mine, its)
    _items: ItemStream[CountResponse] = other.stream(COUNT, CountRequest(upto=1))
    _exchange: ItemExchange[CountRequest, CountResponse] = own.duplex(CHAT)
    _both: ItemExchange[CountRequest, CountResponse] = other.duplex(CHAT)


def test_each_client_has_the_whole_face(client: BlockingClient) -> None:
    """``isinstance`` says so, and a client says who it is before it is connected."""
    assert isinstance(client, BlockingClient)
    assert isinstance(client, ClientFace)
    assert (str(client.address), client.service) == (NOWHERE, SERVICE)
    client.authorization = "secret"
    assert client.authorization == "secret"


@pytest.mark.parametrize(
    "name", ["open", "close", "call", "start", "call_many", "stream", "upload", "duplex", "post", "ping"]
)
@pytest.mark.parametrize("kind", [Client, GrpcClient])
def test_a_method_of_the_face_has_the_same_parameters_everywhere(kind: type, name: str) -> None:
    """Names, kinds and defaults are those of the protocol, so that a keyword is never another one elsewhere."""

    def parameters(of: type) -> list[tuple[str, object, object]]:
        signature = inspect.signature(getattr(of, name))
        return [(each.name, each.kind, each.default) for each in signature.parameters.values()]

    assert parameters(kind) == parameters(BlockingClient)


@pytest.mark.parametrize("kind", [Stream, GrpcStream])
def test_a_stream_has_the_whole_face(kind: type) -> None:
    """Whatever a program asks of the items of a stream, both kinds have it."""
    names = {name for name in vars(ItemStream) if name[0] != "_"} | {"__iter__", "__next__", "__enter__", "__exit__"}
    assert names <= set(dir(kind))
    assert names > {"next", "acknowledge", "close"}


@pytest.mark.parametrize(("kind", "stream"), [(Duplex, Stream), (GrpcDuplex, GrpcStream)])
def test_a_duplex_call_has_the_whole_face(kind: type, stream: type) -> None:
    """Whatever a program asks of both halves of a call, both kinds have it."""
    names = {name for name in vars(ItemExchange) if name[0] != "_"}
    assert names == {"send", "finish"}
    assert names <= set(dir(kind))
    assert issubclass(kind, stream)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_time_limit_is_above_zero(client: BlockingClient, timeout: float) -> None:
    """Whoever makes the call, and whichever way the limit is given, is told before anything is sent."""
    calls: list[Callable[[], object]] = [
        lambda: client.call(ECHO, echo(), timeout=timeout),
        lambda: client.start(ECHO, echo(), timeout=timeout),
        lambda: client.call_many(ECHO, [echo()], timeout=timeout),
        lambda: client.stream(COUNT, CountRequest(upto=1), timeout=timeout),
        lambda: client.upload(ADD_UP, [CountRequest(upto=1)], timeout=timeout),
        lambda: client.duplex(CHAT, timeout=timeout),
        lambda: client.post(NOTE, echo(), timeout=timeout),
        lambda: client.ping(timeout),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="give seconds above 0"):
            call()
    with pytest.raises(ValueError, match="give seconds above 0"):
        client.call(ECHO, echo(), metadata=Metadata(deadline_ms=0))


@pytest.mark.parametrize("number", [0, -1, 2**32])
@pytest.mark.parametrize("name", ["credit", "window"])
def test_both_halves_of_credit_have_a_range(client: BlockingClient, name: str, number: int) -> None:
    """Either is what four bytes hold, and without one of them a stream would never begin."""
    numbers = {"credit": 1, "window": 1} | {name: number}
    with pytest.raises(ValueError, match=f"{name} is {number}; give 1 to 4294967295"):
        client.stream(COUNT, CountRequest(upto=1), credit=numbers["credit"], window=numbers["window"])
    with pytest.raises(ValueError, match=f"{name} is {number}; give 1 to 4294967295"):
        client.duplex(CHAT, credit=numbers["credit"], window=numbers["window"])


@pytest.mark.parametrize("batch", [0, -1])
def test_one_item_at_least_makes_a_batch(client: BlockingClient, batch: int) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(ValueError, match=f"batch is {batch}; give at least 1, or None"):
        client.stream(COUNT, CountRequest(upto=1), batch=batch)


@pytest.mark.parametrize(
    ("credit", "batch", "held"), [(64, None, 32), (5, None, 3), (1, None, 1), (64, 1, 1), (4, 9, 4), (2**32 - 1, 7, 7)]
)
def test_a_batch_is_half_of_the_credit_unless_it_is_given(credit: int, batch: int | None, held: int) -> None:
    """It is never more than the credit, of which all must come back some time."""
    assert check_credit(credit, batch, 1) == held


def test_a_method_of_the_wrong_kind_is_refused_at_once(client: BlockingClient) -> None:
    """Also by ``call_many``, before its first response is asked for; the text says what to use."""
    ways: dict[str, tuple[Operation[Any, Any], str]] = {
        "call": (ECHO, "a unary"),
        "start": (ECHO, "a unary"),
        "call_many": (ECHO, "a unary"),
        "stream": (COUNT, "a stream"),
        "upload": (ADD_UP, "an upload"),
        "duplex": (CHAT, "a duplex"),
        "post": (NOTE, "a one-way"),
    }
    for way, (own, _) in ways.items():
        for use, (method, kind) in ways.items():
            if method is own or use in ("start", "call_many"):
                continue
            with pytest.raises(TypeError, match=f"{method.name} is {kind} method; use client.{use}$"):
                getattr(client, way)(method, [])
    with pytest.raises(TypeError, match="give the object that the service was declared with"):
        client.call("Echo", echo())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Client, GrpcClient])
@pytest.mark.parametrize("version", [0, SERVICE.version + 1])
def test_a_version_that_is_not_declared_is_refused(kind: Callable[..., BlockingClient], version: int) -> None:
    """No client offers a version that its own table does not have."""
    with pytest.raises(ConfigError, match=f"has versions 1 to {SERVICE.version}, not {version}"):
        kind(NOWHERE, SERVICE, version=version)


def test_plain_entries_go_to_the_fields_that_have_their_names() -> None:
    """A mapping may say what ``Metadata`` has fields for; a ``Metadata`` stays what it is."""
    entries = {"traceparent": "00-a", "authorization": "b", "idempotency-key": "c", "other": "d"}
    assert as_metadata(entries) == Metadata(
        traceparent="00-a", authorization="b", idempotency_key=b"c", entries={"other": "d"}
    )
    assert len(entries) == 4, "the caller's own is left as it was"
    given = Metadata(deadline_ms=5)
    assert as_metadata(given) is given
