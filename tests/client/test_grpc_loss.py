"""What the client over gRPC says of a call that no server answered: whether it may have been processed."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from tests.client.service import ECHO, SERVICE, EchoRequest
from wireproto import Address, CallError, ConnectionLost, Retry, Status
from wireproto.client.grpc import GrpcClient

PATIENCE = 20.0
HEADERS, RST_STREAM, SETTINGS, PING = 1, 3, 4, 6
ACK = 1
REFUSED_STREAM = 7
"""Of RFC 9113, section 7: nothing was done with the request."""


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One of HTTP/2."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def answer(sock: socket.socket, code: int | None) -> None:
    """Speak just enough HTTP/2 to answer each request with RST_STREAM, or with the end of the connection."""
    with sock, sock.makefile("rb") as received:
        received.read(24)  # the preface
        sock.sendall(frame(SETTINGS))
        while len(head := received.read(9)) == 9:
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
            payload = received.read(int.from_bytes(head[:3]))
            if kind in (SETTINGS, PING) and not flags & ACK:
                sock.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == HEADERS and code is None:
                return
            elif kind == HEADERS:
                assert code is not None
                sock.sendall(frame(RST_STREAM, 0, stream, code.to_bytes(4)))


@contextmanager
def answering(code: int | None) -> Iterator[Address]:
    """A server that answers no call."""
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=answer, args=(sock, code)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept, args=(listener,))
        acceptor.start()
        yield Address("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("code", "retry"), [(REFUSED_STREAM, Retry.NOT_PROCESSED), (None, Retry.MAYBE_PROCESSED)], ids=["refused", "lost"]
)
def test_a_refused_request_is_told_apart_from_a_lost_one(code: int | None, retry: Retry) -> None:
    """REFUSED_STREAM says that the server did nothing; an end of the connection says nothing of the kind."""
    with answering(code) as address, GrpcClient(address, SERVICE) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.call(ECHO, EchoRequest(text="x"), timeout=PATIENCE)
        assert caught.value.status is Status.UNAVAILABLE
        assert caught.value.retry is retry


def test_where_nobody_listens_nothing_was_processed() -> None:
    """As over TCP: without a connection no call was processed, be it one of ours or that of ``open``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
    with GrpcClient(address, SERVICE) as client:
        for attempt in (lambda: client.call(ECHO, EchoRequest(text="x"), timeout=PATIENCE), client.open):
            with pytest.raises(ConnectionLost) as caught:
                attempt()
            assert caught.value.retry is Retry.NOT_PROCESSED
            assert caught.value.message.startswith(f"{address} cannot be reached: failed to connect")


class Foreign(grpc.GenericRpcHandler):
    """Of a server that is not ours: it refuses every call, with details that nobody can read."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.refuse)

    def refuse(self, request: bytes, context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        context.abort(grpc.StatusCode.INTERNAL, "it broke")


@pytest.fixture
def foreign() -> Iterator[Address]:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[Foreign()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Address("127.0.0.1", port)
        server.stop(None).wait(PATIENCE)


def test_details_that_cannot_be_read_are_left_out(foreign: Address) -> None:
    """What the server says else is the error of the call, and of the future."""
    with GrpcClient(foreign, SERVICE) as client:
        with pytest.raises(CallError, match="it broke") as caught:
            client.call(ECHO, EchoRequest(text="x"), timeout=PATIENCE)
        assert caught.value.status is Status.INTERNAL
        with pytest.raises(CallError, match="it broke"):
            client.start(ECHO, EchoRequest(text="x"), timeout=PATIENCE).result(PATIENCE)


def test_a_future_is_completed_whatever_happens(foreign: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours is its error: who waits for it is not kept waiting."""

    def fail(self: GrpcClient, error: object, binding: object = None) -> CallError:
        raise RuntimeError("a bug")

    monkeypatch.setattr(GrpcClient, "_failure", fail)
    with GrpcClient(foreign, SERVICE) as client, pytest.raises(RuntimeError, match="a bug"):
        client.start(ECHO, EchoRequest(text="x"), timeout=PATIENCE).result(PATIENCE)
