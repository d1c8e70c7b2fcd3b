"""Servers and clients of different releases of one service, over both doors: which version they speak, or why none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wireproto import (
    CallError,
    Client,
    ConfigError,
    Context,
    Handlers,
    HandshakeError,
    Message,
    Method,
    Retry,
    Server,
    Service,
    Status,
    connect,
)
from wireproto.client import grpc
from wireproto.server.gateway import GrpcGateway
from wireproto.testing.bare import BareClient
from wireproto.testing.wire import pair

NAME = "test.releases.v1.ReleaseService"


class AskRequest(Message):
    text: str


class AskResponse(Message):
    version: int


class OtherResponse(Message):
    version: str


ASK = Method(opcode=1, name="Ask", request=AskRequest, response=AskResponse)
GONE = Method(opcode=2, name="Gone", request=AskRequest, response=AskResponse, until=2)


def release(newest: int, oldest: int = 1, *methods: Method[Any, Any]) -> Service:
    return Service(NAME, version=newest, oldest=oldest, methods=methods or [ASK])


@contextmanager
def served(door: str, service: Service) -> Iterator[Any]:
    """Where a server or a gateway of that release listens."""
    handlers = Handlers(service)
    if service.own(ASK) is not None:

        @handlers.register(ASK)
        def ask(request: AskRequest, context: Context) -> AskResponse:
            return AskResponse(version=context.version)

    if door == "tcp":
        with Server(handlers) as server:
            yield server.address
    else:
        with GrpcGateway(handlers, port=0) as gateway:
            yield gateway.address


CONNECT: dict[str, Callable[..., Any]] = {"tcp": connect, "grpc": grpc.connect}
each_door = pytest.mark.parametrize("door", CONNECT)


@each_door
@pytest.mark.parametrize(
    ("server", "client", "chosen"),
    [
        ((5, 3), (5, 3), 5),
        ((5, 3), (4, 1), 4),
        ((5, 3), (3, 3), 3),
        ((5, 3), (9, 5), 5),
        ((5, 3), (9, 1), 5),
        ((2, 1), (5, 2), 2),
    ],
)
def test_the_newest_version_that_both_speak_is_spoken(
    door: str, server: tuple[int, int], client: tuple[int, int], chosen: int
) -> None:
    """Of the versions of either side the newest common one is chosen, and calls are written in it."""
    with served(door, release(*server)) as address, CONNECT[door](address, release(*client)) as connected:
        assert connected.version == chosen
        assert connected.call(ASK, AskRequest(text="")).version == chosen


@each_door
@pytest.mark.parametrize(
    ("server", "client", "text"),
    [
        ((5, 3), (2, 1), "served in versions 3 to 5; the client speaks 1 to 2"),
        ((2, 1), (5, 3), "served in versions 1 to 2; the client speaks 3 to 5"),
        ((5, 5), (4, 4), "served in versions 5 to 5; the client speaks 4 to 4"),
    ],
)
def test_without_a_common_version_there_is_no_connection(
    door: str, server: tuple[int, int], client: tuple[int, int], text: str
) -> None:
    """A side whose newest version is below the other's oldest is refused, and both ranges are told."""
    with served(door, release(*server)) as address, pytest.raises(HandshakeError, match=text) as caught:
        CONNECT[door](address, release(*client))
    error = caught.value
    assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "UNSUPPORTED_VERSION")
    assert error.retry is Retry.NEVER
    assert str(address) in error.message


@each_door
def test_a_method_that_no_version_has_is_told_apart(door: str, caplog: pytest.LogCaptureFixture) -> None:
    """A row that stays so that its opcode is not used again needs no handler, and a call of it is told when it was."""
    service = release(5, 3, ASK, GONE)
    assert Handlers(service).missing() == [ASK]
    with served(door, service) as address, CONNECT[door](address, service) as client:
        assert "Gone" not in caplog.text
        with pytest.raises(CallError, match="until version 2") as caught:
            client.call(GONE, AskRequest(text=""))
        assert (caught.value.status, caught.value.reason) == (Status.UNIMPLEMENTED, "UNKNOWN_OPCODE")


# The contract is compared by both sides.

CHANGED = Method(opcode=1, name="Ask", request=AskRequest, response=OtherResponse)


def bare(address: Any, service: Service) -> BareClient:
    return BareClient(address, service, version=2)


@pytest.mark.parametrize("join", [connect, bare])
def test_a_newer_client_finds_by_itself_that_the_contracts_differ(join: Callable[..., Any]) -> None:
    """The version chosen is not the client's newest, so its HELLO has no digests of it; it compares the server's."""
    with served("tcp", release(2)) as address, pytest.raises(HandshakeError) as caught:
        join(address, release(3, 1, CHANGED))
    error = caught.value
    assert (error.status, error.reason, error.retry) == (Status.FAILED_PRECONDITION, "CONTRACT_MISMATCH", Retry.NEVER)
    assert f"{NAME} version 2 is declared differently on the two sides; opcodes that differ: 0x0001" in error.message
    assert str(address) in error.message


def test_either_side_finds_the_same() -> None:
    """The words are the server's where the version chosen is the client's newest, and the client's where it is not."""
    said = set()
    for newest in (2, 3):
        with served("tcp", release(2)) as address, pytest.raises(HandshakeError) as caught:
            connect(address, release(newest, 1, CHANGED))
        said.add((caught.value.status, caught.value.reason, caught.value.message.partition(": ")[2]))
    assert len(said) == 1


def test_an_opcode_that_one_side_lacks_is_no_obstacle() -> None:
    """A newer client with a method more, and one that lacks a method, are both served."""
    more = Method(opcode=7, name="More", request=AskRequest, response=AskResponse)
    with served("tcp", release(2, 1, ASK, GONE)) as address:
        for service in (release(3, 1, ASK, more), release(2, 1, ASK)):
            with connect(address, service) as client:
                assert client.call(ASK, AskRequest(text="")).version == 2


def test_without_a_socket_the_same_is_found() -> None:
    """Two connections back to back refuse each other as a client and a server do."""
    with pytest.raises(HandshakeError, match="CONTRACT_MISMATCH"):
        pair(release(2), service=release(3, 1, CHANGED))
    with pytest.raises(HandshakeError, match="served in versions 3 to 5"):
        pair(release(5, 3), service=release(2))
    assert pair(release(5, 3), service=release(4)).version == 4


def test_the_version_that_is_asked_for_is_one_of_the_services() -> None:
    """A client cannot be told to speak a version below its service's oldest."""
    with pytest.raises(ConfigError, match="has versions 3 to 5, not 2"):
        Client(("127.0.0.1", 1), release(5, 3), version=2)
