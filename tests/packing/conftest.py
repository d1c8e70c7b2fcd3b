"""A server and its handlers for each test."""

from collections.abc import Callable, Iterator

import pytest

from tests.packing.service import Hall
from wireproto import Limits, Server
from wireproto.wire.connection import Connection
from wireproto.wire.frame import Flag, Frame


@pytest.fixture
def hall() -> Hall:
    return Hall()


@pytest.fixture
def serve(hall: Hall) -> Iterator[Callable[..., Server]]:
    """Start servers over the hall's handlers."""
    servers: list[Server] = []

    def start(*, compression: tuple[str, ...] = ("zlib", "zstd"), limits: Limits | None = None) -> Server:
        server = Server(hall.handlers, compression=compression, limits=limits, workers=6)
        servers.append(server)
        server.start()
        return server

    yield start
    hall.close()
    for server in servers:
        assert server.shutdown(10) == []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """Who has read a message of which kind, and whether it was packed, on either side of every connection."""
    frames: list[tuple[str, str, bool]] = []
    receive = Connection._receive

    def look(self: Connection, frame: Frame) -> object:
        frames.append((self.role.value, frame.kind, bool(frame.flags & Flag.PACKED)))  # type: ignore[arg-type]
        return receive(self, frame)

    monkeypatch.setattr(Connection, "_receive", look)
    return frames
