"""Connecting: refusals, strangers, silence."""

import socket
import threading
import time
from queue import SimpleQueue

import pytest

from tests.client.fakes import PATIENCE, FakeServer, Peer, serving
from tests.client.service import ECHO, SERVICE, echo
from wireproto import (
    Address,
    CallError,
    Client,
    ConfigError,
    ConnectionLost,
    Handlers,
    HandshakeError,
    Limits,
    Retry,
    Server,
    Service,
    Status,
    connect,
)
from wireproto.client import Backoff, grpc
from wireproto.control import CHECK, CheckRequest
from wireproto.server.gateway import GrpcGateway
from wireproto.wire.events import HelloReceived
from wireproto.wire.frame import PREAMBLE
from wireproto.wire.handshake import Hello, Welcome


@pytest.mark.plain
def test_what_the_client_offers() -> None:
    """HELLO names the service, its versions with the digests, the codecs and this side's limits."""
    offers: SimpleQueue[Hello | None] = SimpleQueue()

    def script(peer: Peer) -> None:
        peer.greet()
        offers.put(peer.hello)
        peer.until_gone()

    limits = Limits(max_frame=50_000, heartbeat=7)
    with serving(script) as server:
        # Each peer is a thread of its own: what the first was offered is taken before there is a second one.
        connect(str(server.address), SERVICE, codec="pipe", limits=limits, name="test/1").close()
        first = offers.get(timeout=PATIENCE)
        connect((server.address.host, server.address.port), SERVICE, version=1).close()
        second = offers.get(timeout=PATIENCE)
    assert first is not None
    assert (first.min_version, first.max_version, first.service) == (1, 2, SERVICE.full_name)
    assert (first.codecs, first.max_frame, first.heartbeat_ms) == (((1, "pipe"),), 50_000, 7000)
    assert (first.client_name, first.digests) == ("test/1", SERVICE.digests(2))
    assert second is not None
    assert (second.max_version, second.digests) == (1, SERVICE.digests(1))
    assert second.client_name.startswith("wireproto/")


def test_a_refusal_carries_the_servers_words() -> None:
    """Status, reason and text of the final ERROR, with the address in front."""

    def script(peer: Peer) -> None:
        assert isinstance(peer.event(), HelloReceived)
        peer.connection.refuse(
            CallError(Status.FAILED_PRECONDITION, "UNSUPPORTED_VERSION", "served in versions 3 to 4", retry_after_ms=9)
        )
        peer.flush()

    with serving(script) as server, pytest.raises(HandshakeError, match="served in versions 3 to 4") as caught:
        connect(server.address, SERVICE)
    error = caught.value
    assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "UNSUPPORTED_VERSION")
    assert (error.retry, error.retry_after_ms) == (Retry.NEVER, 9)
    assert str(server.address) in error.message


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "FOREIGN_PROTOCOL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "FOREIGN_PROTOCOL"),
        (b"+OK redis\r\n", "FOREIGN_PROTOCOL"),
        (PREAMBLE[:3] + b"\x09", "UNSUPPORTED_MAJOR"),
        (PREAMBLE + bytes(64), "FRAME_TOO_SHORT"),
    ],
)
def test_a_stranger_is_recognised(first: bytes, reason: str) -> None:
    """A peer that is no wireproto server is named as such; nothing hangs."""

    def script(peer: Peer) -> None:
        peer.sock.sendall(first)
        peer.sock.recv(65_536)

    with serving(script) as server, pytest.raises(HandshakeError, match="does not speak this protocol") as caught:
        connect(server.address, SERVICE)
    assert (caught.value.reason, caught.value.retry) == (reason, Retry.NEVER)


def test_the_wrong_door_of_a_server_is_named_with_the_right_one() -> None:
    """Either client at the other's port is told which port or client is wanted, and that trying again is no use."""
    handlers = Handlers(Service("test.v1.NobodyService", version=1, methods=[]))
    with Server(handlers) as server, GrpcGateway(handlers, port=0) as gateway:
        with pytest.raises(HandshakeError, match=r"give the server's TCP port") as caught:
            connect(gateway.address, handlers.service)
        assert (caught.value.reason, caught.value.retry) == ("FOREIGN_PROTOCOL", Retry.NEVER)
        with pytest.raises(HandshakeError, match=r"--grpc-port") as caught:
            grpc.connect(server.address, handlers.service)
        assert (caught.value.reason, caught.value.retry) == ("FOREIGN_PROTOCOL", Retry.NEVER)
        with grpc.GrpcClient(server.address, handlers.service) as client:
            with pytest.raises(HandshakeError, match=r"--grpc-port") as caught:
                client.call(CHECK, CheckRequest())
            assert caught.value.retry is Retry.NEVER


@pytest.mark.parametrize("first", [PREAMBLE[:1], PREAMBLE, PREAMBLE + bytes(3) + b"\x29\x02"])
def test_a_welcome_that_is_cut_is_a_lost_connection(first: bytes) -> None:
    """A server that goes in the middle of its WELCOME speaks the protocol: it went, and nothing was processed."""

    def script(peer: Peer) -> None:
        peer.sock.recv(65_536)
        peer.sock.sendall(first)

    with serving(script) as server, pytest.raises(ConnectionLost, match="without WELCOME") as caught:
        connect(server.address, SERVICE)
    assert caught.value.retry is Retry.NOT_PROCESSED


def test_a_server_that_hangs_up_or_says_nothing() -> None:
    """Both are lost connections in which nothing was processed; silence ends with the time limit."""
    done = threading.Event()

    def hang_up(peer: Peer) -> None:
        peer.event()

    def silent(peer: Peer) -> None:
        assert done.wait(PATIENCE)

    with serving(hang_up) as server, pytest.raises(ConnectionLost, match="without WELCOME") as caught:
        connect(server.address, SERVICE)
    assert caught.value.retry is Retry.NOT_PROCESSED
    with serving(silent) as server:
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="no WELCOME in time"):
            connect(server.address, SERVICE, timeout=0.1)
        with pytest.raises(ConnectionLost, match="no WELCOME in time"):
            connect(server.address, SERVICE, limits=Limits(hello_timeout=0.1))
        client = Client(server.address, SERVICE)
        with pytest.raises(ConnectionLost, match="no WELCOME in time"):
            client.call(ECHO, echo("x"), timeout=0.1)
        client.close()
        assert time.monotonic() - began < 5
        done.set()


def test_a_welcome_in_single_bytes() -> None:
    """However slowly the bytes of the handshake come, they are put together."""

    def script(peer: Peer) -> None:
        event = peer.event()
        assert isinstance(event, HelloReceived)
        peer.hello = event.hello
        peer.connection.send_welcome(Welcome(version=2, codec=2, max_frame=4096, max_calls=9))
        for byte in peer.connection.data_to_send():
            peer.sock.sendall(bytes([byte]))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.call(ECHO, echo("x")).text == "x"


def test_what_comes_with_welcome_is_not_lost() -> None:
    """A GOAWAY in the same segment as WELCOME counts before the first call."""

    def script(peer: Peer) -> None:
        event = peer.event()
        assert isinstance(event, HelloReceived)
        peer.connection.send_welcome(Welcome(version=2, codec=2, max_frame=4096, max_calls=9))
        peer.connection.send_goaway(CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "going down"))
        peer.flush()
        peer.until_gone()
        assert peer.connection.last_call_id == 0

    def well(peer: Peer) -> None:
        peer.greet().serve()

    with serving(script, well) as server, connect(server.address, SERVICE, backoff=Backoff(0.01, 0.01)) as client:
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 2


def test_nobody_there() -> None:
    """A refused connection and a name without an address are told apart; the advice is NOT_PROCESSED."""
    server = FakeServer([])
    server.stop()
    with pytest.raises(ConnectionLost, match="refused") as caught:
        connect(server.address, SERVICE)
    assert caught.value.retry is Retry.NOT_PROCESSED
    with pytest.raises(ConnectionLost, match="cannot be resolved"):
        connect(Address("host.invalid", 7411), SERVICE)


def test_a_backlog_that_is_full_ends_with_the_time_limit() -> None:
    """A host that does not answer costs no more than the time limit."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), pytest.raises(ConnectionLost, match="in time"):
            connect(address, SERVICE, timeout=0.2)


def test_arguments_are_checked_before_connecting() -> None:
    """An address, a codec or a version that is none is a ConfigError."""
    with pytest.raises(ConfigError, match="HOST:PORT"):
        connect("nowhere", SERVICE)
    with pytest.raises(ConfigError, match="no codec 'morse'"):
        connect("127.0.0.1:1", SERVICE, codec="morse")
    with pytest.raises(ConfigError, match="versions 1 to 2"):
        connect("127.0.0.1:1", SERVICE, version=9)
    with pytest.raises(ConfigError, match="the Service it calls, not str"):
        connect("127.0.0.1:1", "example.v1.EchoService")  # type: ignore[arg-type]
