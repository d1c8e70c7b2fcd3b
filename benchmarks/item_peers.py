"""What ``items.py`` measures items beside: servers of grpcio, connect-py and a bare socket, and their clients.

All of them carry bytes as they are, without a codec: the cheapest that they can.
"""

import os
import queue
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from typing import Any

import grpc
import uvicorn
from connectrpc.client import ConnectClientSync
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint

__all__ = ["LARGE", "Connect", "Grpc", "ask_bare", "bare", "connect_server", "grpc_server"]

LARGE = 65_536
"""Bytes of an item of the bulk, and of what a bare socket is given at once."""


def grpc_server(places: "Queue[tuple[int, int]]") -> None:
    """A grpcio server of bytes, until it is terminated."""

    def down(request: bytes, context: Any) -> Iterator[bytes]:
        count, size = map(int, request.split())
        item = bytes(size)
        for _ in range(count):
            yield item

    methods: dict[str, Any] = {
        "down": grpc.unary_stream_rpc_method_handler(down),
        "up": grpc.stream_unary_rpc_method_handler(lambda items, context: b"%d" % sum(1 for _ in items)),
        "both": grpc.stream_stream_rpc_method_handler(lambda items, context: iter(items)),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("items", methods),))
    places.put((server.add_insecure_port("127.0.0.1:0"), os.getpid()))
    server.start()
    server.wait_for_termination()


def bare(places: "Queue[tuple[int, int]]") -> None:
    """Sends or takes as many bytes as it is asked for, until it is terminated."""
    listener = socket.create_server(("127.0.0.1", 0))
    places.put((listener.getsockname()[1], os.getpid()))
    buffer, item = bytearray(4 * LARGE), bytes(LARGE)
    while True:
        peer, _ = listener.accept()
        with peer:
            way, left = peer.recv(64).split()
            rest = int(left)
            peer.sendall(b"!")
            while rest > 0:
                if way == b"down":
                    peer.sendall(item)
                    rest -= LARGE
                else:
                    rest -= peer.recv_into(buffer)
            peer.sendall(b".")


def ask_bare(port: int, way: str, size: int) -> None:
    """Move so many bytes through the bare server."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(f"{way} {size}".encode())
        peer.recv(1)
        buffer, item = bytearray(4 * LARGE), bytes(LARGE)
        while size > 0:
            if way == "up":
                peer.sendall(item)
                size -= LARGE
            else:
                size -= peer.recv_into(buffer)
        peer.recv(1)


class Grpc:
    """A client of the grpcio server."""

    def __init__(self, port: int) -> None:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._down: Any = channel.unary_stream("/items/down")
        self._up: Any = channel.stream_unary("/items/up")
        self._both: Any = channel.stream_stream("/items/both")

    def down(self, count: int, size: int) -> None:
        """Take so many items."""
        for _ in self._down(b"%d %d" % (count, size)):
            pass

    def up(self, count: int, item: bytes) -> None:
        """Send so many items."""
        self._up(iter([item] * count))

    def ping_pong(self, count: int, item: bytes) -> None:
        """Send an item when the one before has come back."""
        items: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        answers = self._both(iter(items.get, None))
        for _ in range(count):
            items.put(item)
            next(answers)
        items.put(None)


class _Raw:
    """connect-py's codec of bytes as they are."""

    def name(self) -> str:
        return "raw"

    def encode(self, message: bytes) -> bytes:
        return message

    def decode(self, data: bytes | bytearray, message_class: type[bytes]) -> bytes:
        return bytes(data)


def _method(name: str, shape: StreamType) -> MethodInfo[bytes, bytes]:
    return MethodInfo(
        name=name,
        service_name="items",
        input=bytes,
        output=bytes,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=shape,
    )


_DOWN = _method("down", StreamType.SERVER_STREAM)
_UP = _method("up", StreamType.CLIENT_STREAM)


class _Application(ConnectASGIApplication[None]):
    path = "/items"


def connect_server(places: "Queue[tuple[int, int]]") -> None:
    """A connect-py server of bytes on uvicorn, until it is terminated."""

    async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, size = map(int, request.split())
        item = bytes(size)
        for _ in range(count):
            yield item

    async def up(items: AsyncIterator[bytes], context: Any) -> bytes:
        count = 0
        async for _ in items:
            count += 1
        return b"%d" % count

    endpoints = {
        "/items/down": Endpoint.server_stream(_DOWN, down),
        "/items/up": Endpoint.client_stream(_UP, up),
    }
    application = _Application(service=None, endpoints=lambda _: endpoints, codecs=[_Raw()], compressions=[])
    listener = socket.create_server(("127.0.0.1", 0))
    places.put((listener.getsockname()[1], os.getpid()))
    uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off")).run(sockets=[listener])


class Connect:
    """A client of the connect-py server."""

    def __init__(self, port: int) -> None:
        self._client = ConnectClientSync(f"http://127.0.0.1:{port}", codec=_Raw(), send_compression=None)

    def down(self, count: int, size: int) -> None:
        """Take so many items."""
        for _ in self._client.execute_server_stream(request=b"%d %d" % (count, size), method=_DOWN):
            pass

    def up(self, count: int, item: bytes) -> None:
        """Send so many items."""
        self._client.execute_client_stream(request=iter([item] * count), method=_UP)
