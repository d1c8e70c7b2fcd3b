"""The face that clients share: each has it whole, with the same parameters, and refuses the same arguments."""

import inspect
from collections.abc import Callable, Iterator

import pytest

from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, CountResponse, echo
from wireproto import Client, ConfigError, Message, Metadata, Stream
from wireproto.client import BlockingClient, ClientFace, ItemStream
from wireproto.client.face import as_metadata
from wireproto.client.grpc import GrpcClient, GrpcStream

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


def test_each_client_has_the_whole_face(client: BlockingClient) -> None:
    """``isinstance`` says so, and a client says who it is before it is connected."""
    assert isinstance(client, BlockingClient)
    assert isinstance(client, ClientFace)
    assert (str(client.address), client.service) == (NOWHERE, SERVICE)
    client.authorization = "secret"
    assert client.authorization == "secret"


@pytest.mark.parametrize("name", ["open", "close", "call", "start", "call_many", "stream", "ping"])
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


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_time_limit_is_above_zero(client: BlockingClient, timeout: float) -> None:
    """Whoever makes the call, and whichever way the limit is given, is told before anything is sent."""
    calls: list[Callable[[], object]] = [
        lambda: client.call(ECHO, echo(), timeout=timeout),
        lambda: client.start(ECHO, echo(), timeout=timeout),
        lambda: client.call_many(ECHO, [echo()], timeout=timeout),
        lambda: client.stream(COUNT, CountRequest(upto=1), timeout=timeout),
        lambda: client.ping(timeout),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="give seconds above 0"):
            call()
    with pytest.raises(ValueError, match="give seconds above 0"):
        client.call(ECHO, echo(), metadata=Metadata(deadline_ms=0))


@pytest.mark.parametrize(("credit", "batch"), [(0, 1), (2**32, 1), (-1, 1), (1, 0)])
def test_credit_and_batch_have_ranges(client: BlockingClient, credit: int, batch: int) -> None:
    """Credit is what four bytes hold, and one item at least makes a batch."""
    with pytest.raises(ValueError, match="give 1 to 4294967295, and at least 1"):
        client.stream(COUNT, CountRequest(upto=1), credit=credit, batch=batch)


def test_a_method_of_the_wrong_kind_is_refused_at_once(client: BlockingClient) -> None:
    """Also by ``call_many``, before its first response is asked for; the text says what to use."""
    for call in (client.call, client.start, client.call_many):
        with pytest.raises(TypeError, match="Count is a stream method"):
            call(COUNT, CountRequest(upto=1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Echo is no stream method"):
        client.stream(ECHO, echo())  # type: ignore[arg-type]
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
