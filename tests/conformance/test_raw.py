"""The raw peer: what it sends is what it was told, and what it reads is told apart exactly."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from wireproto.conformance.page import CreditBody, credit_fields
from wireproto.conformance.raw import Ending, RawFrame, RawListener, RawPeer, frame, pack_hello, pack_welcome
from wireproto.wire.frame import PREAMBLE, Credit, Kind, pack, unpack
from wireproto.wire.handshake import Hello, Welcome

SHORT = 0.05


@pytest.fixture
def ends() -> Iterator[tuple[RawPeer, RawPeer]]:
    """A client and the server it is connected to."""
    with RawListener() as listener, RawPeer.connect(listener.address) as client:
        server = listener.accept()
        assert server is not None
        with server:
            yield client, server


def test_a_right_frame_is_the_frame_of_the_core() -> None:
    """A frame with nothing wrong has the bytes that the framework itself writes."""
    assert frame(3, b"pay", b"meta", codec=2, version=1, opcode=0x10, call_id=7) == pack(
        3, 2, 1, 0x10, 7, b"meta", b"pay"
    )


def test_every_field_of_the_header_can_be_wrong() -> None:
    """Each number of the header is written as it is told, whatever it contradicts."""
    made = frame(
        255, b"p", codec=9, version=8, opcode=0xFFFF, call_id=1, flags=7, length=0xFFFF_FFFF, metadata_length=5
    )
    assert made.hex(" ") == "ff ff ff ff ff 07 09 08 ff ff 00 05 00 00 00 01 70"


def test_the_handshake_bodies_are_those_of_the_core() -> None:
    """HELLO and WELCOME with nothing wrong are what the framework writes, field by field."""
    hello = Hello(
        min_version=1,
        max_version=3,
        codecs=((2, "msgpack"), (1, "pipe")),
        max_frame=5000,
        max_calls=7,
        heartbeat_ms=9000,
        client_name="raw",
        service="a.v1.B",
        first_credit=Credit(16, 65_536),
        one_way_credit=3,
    )
    packed = pack_hello(
        versions=(1, 3),
        codecs=[(2, "msgpack"), (1, b"pipe")],
        max_frame=5000,
        max_calls=7,
        heartbeat_ms=9000,
        service="a.v1.B",
        fields=credit_fields(CreditBody(16, 65_536), 3),
    )
    assert packed == hello.encode()
    welcome = Welcome(version=1, codec=2, max_frame=5000, max_calls=7, heartbeat_ms=9000, server_name="raw")
    assert pack_welcome(max_frame=5000, max_calls=7, heartbeat_ms=9000) == welcome.encode()


def test_frames_are_read_across_any_pieces(ends: tuple[RawPeer, RawPeer]) -> None:
    """Bytes sent one by one are the preamble and frames they were cut from."""
    client, server = ends
    data = PREAMBLE + frame(Kind.PING, b"12345678") + frame(200, b"x" * 300, b"mm", call_id=5)
    assert client.send(*(data[n : n + 1] for n in range(len(data)))) is None
    assert server.take(4) == PREAMBLE
    assert server.receive() == RawFrame(*unpack(frame(Kind.PING, b"12345678")))
    assert server.receive() == RawFrame(200, 0, 0, 0, 0, 5, b"mm", b"x" * 300)


def test_a_frame_that_contradicts_itself_is_read(ends: tuple[RawPeer, RawPeer]) -> None:
    """Metadata beyond the frame are cut at its end, and a length too short leaves nothing."""
    client, server = ends
    client.send(frame(3, b"abc", metadata_length=100), frame(3, length=0), frame(4, b"z"))
    first, second, third = (server.receive() for _ in range(3))
    assert isinstance(first, RawFrame)
    assert (first.metadata, first.payload) == (b"abc", b"")
    assert isinstance(second, RawFrame)
    assert second.payload == b""
    assert isinstance(third, RawFrame)
    assert third.payload == b"z"


def test_silence_is_no_ending(ends: tuple[RawPeer, RawPeer]) -> None:
    """A frame that is not whole at the deadline is read whole by a later call."""
    client, server = ends
    whole = frame(Kind.PING, b"12345678")
    client.send(whole[:10])
    assert server.receive(SHORT) is Ending.SILENCE
    client.send(whole[10:])
    assert server.receive() == RawFrame(*unpack(whole))


def test_an_end_of_input_is_told_from_a_reset(ends: tuple[RawPeer, RawPeer]) -> None:
    """An orderly end is EOF, also within a frame, whose bytes are kept; the other end's reset is a reset."""
    client, server = ends
    client.send(frame(Kind.END, call_id=1), b"\x00\x00")
    client.end_output()
    assert isinstance(server.receive(), RawFrame)
    assert server.receive() is Ending.EOF
    assert server.receive() is Ending.EOF
    assert bytes(server.received) == b"\x00\x00"
    server.send(b"still")
    assert client.take(5) == b"still"
    server.reset()
    assert client.receive() is Ending.RESET


def test_what_came_before_a_reset_is_read(ends: tuple[RawPeer, RawPeer]) -> None:
    """Sending to a peer that is gone says RESET, and what it had sent can still be taken."""
    client, server = ends
    server.send(b"last words")
    assert client.take(4) == b"last"
    server.reset()
    while client.send(b"x") is None:
        pass
    data, ending = client.drain()
    assert data == b" words"
    assert ending in (Ending.RESET, Ending.EOF)  # the system told of the reset once already


def test_a_peer_that_takes_nothing_is_silence(ends: tuple[RawPeer, RawPeer]) -> None:
    """Sending more than the system keeps for a peer that does not read ends at the deadline."""
    client, _ = ends
    assert client.send(b"x" * 50_000_000, timeout=SHORT) is Ending.SILENCE


def test_draining_says_how_it_ended(ends: tuple[RawPeer, RawPeer]) -> None:
    """Everything up to the end is handed out, with the end."""
    client, server = ends
    assert server.drain(SHORT) == (b"", Ending.SILENCE)
    writer = threading.Thread(target=client.send, args=(b"y" * 200_000,))
    writer.start()
    first = server.take(100_000)
    writer.join(10)
    client.close()
    assert isinstance(first, bytes)
    rest, ending = server.drain()
    assert (len(first) + len(rest), ending) == (200_000, Ending.EOF)


def test_a_listener_without_clients_waits_no_longer_than_told() -> None:
    """Nobody within the timeout is None."""
    with RawListener() as listener:
        assert listener.accept(SHORT) is None


def test_a_closed_peer_cannot_be_used() -> None:
    """Sending on a connection that was closed here is an error of the test, not an ending."""
    with RawListener() as listener, RawPeer.connect(listener.address) as client:
        client.close()
        with pytest.raises(ValueError, match="on this side"):
            client.send(b"x")


def test_it_needs_no_test_framework() -> None:
    """The module loads neither pytest nor hypothesis."""
    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "import wireproto.conformance.raw as raw\n"
        "raw.frame(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
