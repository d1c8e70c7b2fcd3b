"""One server with all the ways a handler can behave, fresh for each test, and the check that nothing is left."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.server.peer import Peer, until
from tests.server.service import SERVICE, Stage
from tests.testing.greasing import grease_everything
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.wire.connection import ConnectionMaker


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.open_gates()


@pytest.fixture
def serve(stage: Stage) -> Iterator[Callable[..., Server]]:
    """Start servers over the stage's handlers; afterwards nothing of them may be left."""
    threads = set(threading.enumerate())
    descriptors = len(os.listdir("/proc/self/fd"))
    servers: list[Server] = []

    def start(*, limits: Limits | None = None, workers: int = 8, connections: ConnectionMaker | None = None) -> Server:
        server = Server(
            stage.handlers,
            codecs=["msgpack"],
            limits=limits,
            workers=workers,
            authenticate=stage.authenticate,
            connections=connections,
        )
        server.start()
        servers.append(server)
        return server

    yield start
    stage.open_gates()
    for server in servers:
        assert server.shutdown(5) == []
    until(lambda: set(threading.enumerate()) <= threads, "no thread is left", 5)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "no descriptor is left", 5)


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def connect() -> Iterator[Callable[..., Peer]]:
    """Connect peers that are closed before the server is."""
    peers: list[Peer] = []

    def make(server: Server, *, hello: bool = True) -> Peer:
        peer = Peer(server, SERVICE, hello=hello)
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        peer.socket.close()


@pytest.fixture
def peer(server: Server, connect: Callable[..., Peer]) -> Peer:
    return connect(server)


@pytest.fixture(autouse=True)
def _greased(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers say what nobody knows beside what they mean, unless a test is about what exactly they say."""
    # Not versions: older clients and newer servers meet here, and digests are compared.
    if request.node.get_closest_marker("plain") is None:
        grease_everything(monkeypatch, request.node.name, versions=False)
