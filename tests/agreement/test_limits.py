"""Every limit: what is advertised is what is enforced is what is written, just below it, at it, and just above it."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from tests.agreement import test_limits_of_items
from tests.codecs.everything import Lists, Maps, TextMaps
from tests.pages import table
from tests.server.peer import Peer, until
from tests.server.service import (
    BLOCK,
    DEFER,
    ECHO,
    FAIL,
    SERVICE,
    BlockRequest,
    DeferRequest,
    EchoRequest,
    FailRequest,
    Stage,
)
from tests.wire.peers import HELLO, drain, opened, raw, reasons
from wireproto import Backoff, Client, codecs, schema
from wireproto.conformance.raw import Ending, RawFrame, RawPeer, frame, pack_hello
from wireproto.errors import CallError, DecodeError, EncodeError, LocalProtocolError, PackedDetails
from wireproto.limits import HELLO_MAX_FRAME, MAX_FRAME_CEILING, Limits
from wireproto.server import Server
from wireproto.server.budget import Budget
from wireproto.server.session import Session
from wireproto.server.transport import FIRST_READ, Transport
from wireproto.status import Status
from wireproto.wire.answers import MAX_ANSWER, pack_answer
from wireproto.wire.connection import MAX_STRAY_ANSWERS, Connection, PayloadTooLarge, Role
from wireproto.wire.events import AnsweredBeside, ConnectionEnded, ErrorReceived, ResponseReceived
from wireproto.wire.frame import MAX_DETAILS, PREAMBLE, unpack, unpack_error
from wireproto.wire.handshake import Hello
from wireproto.wire.liveness import CHATTER_PER_FRAME, CHATTER_PER_SECOND, MAX_CHATTER, Liveness, Overdue

CODECS = ("pipe", "msgpack", "protobuf")
AROUND = (-1, 0, 1)
House = Callable[..., Server]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.open_gates()


@pytest.fixture
def house(stage: Stage) -> Iterator[House]:
    """Starts servers over the stage with some limits changed."""
    servers: list[Server] = []

    def start(*, workers: int = 4, **limits: Any) -> Server:
        server = Server(stage.handlers, codecs=CODECS, limits=Limits(**limits), workers=workers)
        server.start()
        servers.append(server)
        return server

    yield start
    stage.open_gates()
    for server in servers:
        server.shutdown(5)


def silent(server: Server) -> RawPeer:
    """Somebody who connected and says nothing."""
    return RawPeer.connect((server.address.host, server.address.port))


def welcomed(server: Server, **hello: Any) -> tuple[RawPeer, RawFrame]:
    """Somebody who said HELLO, and what it was answered."""
    peer = silent(server)
    peer.send(PREAMBLE + frame(1, pack_hello(service=SERVICE.full_name, **hello)))
    assert peer.take(4) == PREAMBLE
    answer = peer.receive()
    assert isinstance(answer, RawFrame)
    return peer, answer


def only_session(server: Server) -> Session:
    until(lambda: len(server.sessions) == 1, "the connection is accepted")
    (session,) = server.sessions.values()
    return session


# Sizes on the wire ------------------------------------------------------------------------------------------------


def echo_of(codec: str, length: int) -> bytes:
    """A request of exactly so many bytes."""
    plan = codecs.get(codec).plan(ECHO.request, 1, Limits(max_frame=MAX_FRAME_CEILING))
    for text in range(length, 0, -1):
        payload = plan.encode(EchoRequest(text="x" * text))
        if len(payload) == length:
            return payload
    raise AssertionError(f"no request has {length} bytes in {codec}")


@pytest.mark.parametrize("codec", CODECS)
def test_max_frame_of_the_server(house: House, codec: str) -> None:
    """The server tells max_frame, takes a length field up to it, and ends the connection at one more."""
    most = 6000
    server = house(max_frame=most)
    number = codecs.get(codec).id
    for off in AROUND:
        peer, answer = welcomed(server, codecs=[(number, codec)])
        assert int.from_bytes(answer.payload[2:6]) == most
        request = frame(3, echo_of(codec, most - 12 + off), codec=number, version=1, opcode=1, call_id=1)
        assert int.from_bytes(request[:4]) == most + off
        peer.send(request)
        reply = peer.receive()
        assert isinstance(reply, RawFrame)
        if off <= 0:
            assert reply.kind == 4
        else:
            assert (reply.kind, reply.call_id, unpack_error(reply.payload).reason) == (7, 0, "FRAME_TOO_LARGE")
        peer.close()
        # Whoever sends keeps to what was told, and refuses by itself what is longer.
        client = Connection(Role.CLIENT)
        client.send_hello(HELLO)
        client.receive_data(PREAMBLE + frame(2, answer.payload[:1] + b"\2" + answer.payload[2:]))
        drain(client)
        if off <= 0:
            assert client.send_request(1, bytes(most - 12 + off))
        else:
            with pytest.raises(PayloadTooLarge):
                client.send_request(1, bytes(most - 12 + off))


@pytest.mark.parametrize("codec", CODECS)
def test_max_frame_of_the_client(house: House, codec: str) -> None:
    """The client tells max_frame; an answer up to it comes, one byte more is RESPONSE_TOO_LARGE, and not sent."""
    most = 5000
    number = codecs.get(codec).id
    peer, _ = welcomed(house(), codecs=[(number, codec)], max_frame=most)
    plan = codecs.get(codec).plan(ECHO.request, 1, Limits())
    answer = codecs.get(codec).plan(ECHO.response, 1, Limits())
    overhead = len(answer.encode(ECHO.response(text="x" * 4900))) - 4900
    for call_id, off in enumerate(AROUND, 1):
        size = most - 12 + off - overhead
        request = plan.encode(EchoRequest(text="", size=size))
        peer.send(frame(3, request, codec=number, version=1, opcode=1, call_id=call_id))
        reply = peer.receive()
        assert isinstance(reply, RawFrame)
        if off <= 0:
            assert (reply.kind, len(reply.payload)) == (4, most - 12 + off)
        else:
            assert (reply.kind, unpack_error(reply.payload).reason) == (7, "RESPONSE_TOO_LARGE")
    peer.close()
    for off in AROUND:
        client = opened(Limits(max_frame=most)).client
        client.send_request(0x10, b"")
        client.receive_data(raw(4, bytes(most - 12 + off)))
        events = drain(client)
        assert isinstance(events[0], ResponseReceived if off <= 0 else ConnectionEnded)
        assert (client.error is None) is (off <= 0)


def test_frames_of_the_handshake(house: House) -> None:
    """HELLO may be 4096 long, not 4097; the same number is the least max_frame that either side may tell."""
    server = house()
    for off in AROUND:
        body = pack_hello(service=SERVICE.full_name)
        filler = HELLO_MAX_FRAME - 12 - len(body) - 4 + off
        body += (9).to_bytes(2) + filler.to_bytes(2) + bytes(filler)
        peer = silent(server)
        peer.send(PREAMBLE + frame(1, body))
        peer.take(4)
        answer = peer.receive()
        assert isinstance(answer, RawFrame)
        assert answer.kind == (2 if off <= 0 else 7)
        peer.close()
        peer, answer = welcomed(server, max_frame=HELLO_MAX_FRAME + off)
        assert answer.kind == (7 if off < 0 else 2)
        peer.close()
    with pytest.raises(LocalProtocolError):
        Hello(min_version=1, max_version=1, codecs=((1, "pipe"),), max_frame=HELLO_MAX_FRAME - 1).encode()
    with pytest.raises(ValueError, match="max_frame"):
        Limits(max_frame=HELLO_MAX_FRAME - 1)


def test_the_ceiling() -> None:
    """No side can be told to accept more than the ceiling."""
    Limits(max_frame=MAX_FRAME_CEILING - 1)
    Limits(max_frame=MAX_FRAME_CEILING)
    with pytest.raises(ValueError, match="max_frame"):
        Limits(max_frame=MAX_FRAME_CEILING + 1)


@pytest.mark.parametrize("most", [100, 0xFFFF])
def test_metadata(house: House, most: int) -> None:
    """A block up to max_metadata is read, and a longer one fails its call; 65,535 is what the header can say."""
    peer, _ = welcomed(house(max_metadata=most))
    for call_id, off in enumerate(AROUND, 1):
        if most + off > 0xFFFF:
            continue
        block = b"\6" + (most + off - 3).to_bytes(2) + b"\1a" + b"v" * (most + off - 5)
        request = frame(3, b"\x92\xa0\0", block, codec=2, version=1, opcode=1, call_id=call_id)
        peer.send(request)
        reply = peer.receive()
        assert isinstance(reply, RawFrame)
        assert reply.kind == (4 if off <= 0 else 7)
        assert off <= 0 or unpack_error(reply.payload).reason == "METADATA_TOO_LARGE"
    peer.close()
    with pytest.raises(ValueError, match="max_metadata"):
        Limits(max_metadata=0x10000)


@pytest.mark.parametrize("codec", CODECS)
def test_a_methods_own_limit(house: House, codec: str) -> None:
    """A payload up to max_request is decoded, and a longer one is REQUEST_TOO_LARGE."""
    assert FAIL.max_request == 1000
    number = codecs.get(codec).id
    peer, _ = welcomed(house(), codecs=[(number, codec)])
    plan = codecs.get(codec).plan(FAIL.request, 1, Limits())
    overhead = len(plan.encode(FailRequest(how="x" * 900))) - 900
    for call_id, off in enumerate(AROUND, 1):
        payload = plan.encode(FailRequest(how="x" * (1000 - overhead + off)))
        assert len(payload) == 1000 + off
        peer.send(frame(3, payload, codec=number, version=1, opcode=FAIL.opcode, call_id=call_id))
        reply = peer.receive()
        assert isinstance(reply, RawFrame)
        assert unpack_error(reply.payload).reason == ("INTERNAL" if off <= 0 else "REQUEST_TOO_LARGE")
    peer.close()


@pytest.mark.parametrize("codec", CODECS)
def test_elements(codec: str) -> None:
    """A list or map of max_elements is written and read; one more is neither, in both directions alike."""
    most = 5
    for request in (True, False):
        for off in AROUND:
            count = most + off
            for name, cls in (("words", TextMaps), ("signed", Lists), ("signed", Maps)):
                empty: dict[str, Any] = {field.name: {} if cls is not Lists else [] for field in schema.fields(cls)}
                full: Any = {TextMaps: dict.fromkeys(map(str, range(count)), ""), Lists: [0] * count}
                message = cls(**{**empty, name: full.get(cls, dict.fromkeys(range(count), 0))})
                free = codecs.get(codec).plan(type(message), 1, Limits(), request=request)
                held = codecs.get(codec).plan(type(message), 1, Limits(max_elements=most), request=request)
                payload = free.encode(message)
                if off <= 0:
                    assert held.encode(message) == payload
                    assert held.decode(payload) == message
                    continue
                with pytest.raises(EncodeError) as ours:
                    held.encode(message)
                with pytest.raises(DecodeError) as theirs:
                    held.decode(payload)
                for error in (ours.value, theirs.value):
                    assert error.path.partition("[")[0] == f"{type(message).__name__}.{name}"


# Numbers of things ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_calls_in_flight(house: House, stage: Stage, codec: str) -> None:
    """As many calls as WELCOME says are in flight together, the next is refused, and one that ends makes room."""
    most = 3
    number = codecs.get(codec).id
    peer, answer = welcomed(house(max_calls=most), codecs=[(number, codec)])
    assert int.from_bytes(answer.payload[6:10]) == most
    plan = codecs.get(codec).plan(DEFER.request, 1, Limits())

    def begin(call_id: int) -> None:
        payload = plan.encode(DeferRequest(name=str(call_id)))
        peer.send(frame(3, payload, codec=number, version=1, opcode=DEFER.opcode, call_id=call_id))

    for call_id in range(1, most + 2):
        begin(call_id)
    reply = peer.receive()
    assert isinstance(reply, RawFrame)
    assert (reply.call_id, unpack_error(reply.payload).reason) == (most + 1, "TOO_MANY_CALLS")
    stage.future("1").set_result(DEFER.response(name="1"))
    reply = peer.receive()
    assert isinstance(reply, RawFrame)
    assert (reply.kind, reply.call_id) == (4, 1)
    begin(most + 2)
    stage.future(str(most + 2)).set_result(DEFER.response(name=""))
    reply = peer.receive()
    assert isinstance(reply, RawFrame)
    assert (reply.kind, reply.call_id) == (4, most + 2)
    for call_id in range(2, most + 1):
        stage.future(str(call_id)).set_result(DEFER.response(name=""))
    peer.close()


def test_stray_answers() -> None:
    """A client drops sixteen answers to nothing, and ends the connection at the next."""
    for off in AROUND:
        client = opened().client
        client.receive_data(raw(4, call_id=9) * (MAX_STRAY_ANSWERS + off))
        assert reasons(client) == ([] if off <= 0 else ["STRAY_ANSWERS"])


@pytest.mark.parametrize("off", AROUND)
def test_chatter(off: int) -> None:
    """So many frames that mean nothing are read over at once, and more with time and with other frames."""
    server = opened().server
    liveness = Liveness(server, Limits(), 0.0, idle=9.0)
    for now, others, most in (
        (0.0, 0, MAX_CHATTER),
        (0.0, 2, 2 * CHATTER_PER_FRAME),
        (1.0, 0, CHATTER_PER_SECOND + off),
    ):
        server.receive_data(raw(10, bytes(8)) * others + raw(0xF0) * most)
        drain(server)
        assert liveness.overdue(now) is None
        liveness.look(now)
    assert liveness.overdue(1.0) is (Overdue.CHATTER if off > 0 else None)


RATES: list[tuple[Any, str, str, str]] = [
    ("cancels", "cancel_burst", "cancels_per_second", "TOO_MANY_CANCELS"),
    ("pings", "ping_burst", "pings_per_second", "TOO_MANY_PINGS"),
    ("errors", "errors_per_minute", "errors_per_minute", "TOO_MANY_ERRORS"),
]


@pytest.mark.parametrize(("what", "burst", "rate", "reason"), RATES, ids=[rate[0] for rate in RATES])
def test_rates(what: Any, burst: str, rate: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once there is the burst and no more; then one more for every while that the rate says."""
    now = 1000.0
    monkeypatch.setattr("wireproto.server.budget.time", SimpleNamespace(monotonic=lambda: now))
    limits = Limits()
    budget = Budget(limits)
    most = int(getattr(limits, burst))
    assert all(budget.take(what) for _ in range(most))
    assert not budget.take(what)
    while_one = (60 if what == "errors" else 1) / getattr(limits, rate)
    now += while_one * 0.99
    assert not budget.take(what)
    now += while_one * 0.02
    assert budget.take(what)
    assert not budget.take(what)


@pytest.mark.parametrize(("what", "burst", "rate", "reason"), RATES, ids=[rate[0] for rate in RATES])
def test_rates_end_the_connection(house: House, what: str, burst: str, rate: str, reason: str) -> None:
    """The burst is served, and one more ends the connection with the reason of the document."""
    most = 4
    changed = {burst: most} if burst == rate else {burst: most, rate: 1e-3}
    peer, _ = welcomed(house(**changed))

    def one(number: int) -> bytes:
        if what == "pings":
            return frame(10, b"12345678")
        if what == "errors":
            return frame(3, codec=2, version=1, opcode=0x999, call_id=number)
        begin = frame(3, b"\x91\xa1" + b"%d" % number, codec=2, version=1, opcode=DEFER.opcode, call_id=number)
        return begin + frame(8, opcode=DEFER.opcode, call_id=number)

    for number in range(1, most + 1):
        peer.send(one(number))
        answer = peer.receive()
        assert isinstance(answer, RawFrame)
        assert answer.kind == (11 if what == "pings" else 7)
        assert answer.call_id == (0 if what == "pings" else number)
    peer.send(one(most + 1))
    answers = list(iter(peer.receive, Ending.EOF))
    last = answers[-1]
    assert isinstance(last, RawFrame)
    assert (last.call_id, unpack_error(last.payload).reason) == (0, reason)
    peer.close()


def test_connections(house: House) -> None:
    """As many connections as allowed are served together; one more waits until one of them has gone."""
    server = house(max_connections=3)
    peers = [welcomed(server)[0] for _ in range(3)]
    waiting = silent(server)
    waiting.send(PREAMBLE + frame(1, pack_hello(service=SERVICE.full_name)))
    assert waiting.take(4, timeout=0.2) is Ending.SILENCE
    peers.pop().close()
    assert waiting.take(4) == PREAMBLE
    for peer in (*peers, waiting):
        peer.close()


def test_connections_of_one_address(house: House) -> None:
    """As many are admitted from one address as allowed, loopback without end."""
    server = house(max_connections_per_address=3)
    assert [server._admit("192.0.2.1") for _ in range(4)] == [True, True, True, False]
    assert server._admit("192.0.2.2")
    assert all(server._admit("127.0.0.1") for _ in range(10))
    with server._counts_lock:
        server._leave_locked("192.0.2.1")
    assert [server._admit("192.0.2.1") for _ in range(2)] == [True, False]


def test_connections_without_hello(house: House) -> None:
    """As many may be silent as allowed; of more, the oldest is closed."""
    server = house(max_handshaking=2, hello_timeout=600)
    first, second = silent(server), silent(server)
    until(lambda: len(server.sessions) == 2, "both are accepted")
    server._sweep(0.0)
    assert first.take(1, timeout=0.1) is Ending.SILENCE
    third = silent(server)
    assert first.take(1) is Ending.EOF
    assert [peer.take(1, timeout=0.1) for peer in (second, third)] == [Ending.SILENCE] * 2
    for peer in (first, second, third):
        peer.close()


def test_calls_in_the_run_queue(house: House, stage: Stage) -> None:
    """As many calls wait for a worker as the queue holds, and the next one is refused."""
    for waiting in (1, 2, 3):
        server = house(run_queue=waiting)
        with Peer(server, SERVICE) as peer:
            for _ in range(20):
                peer.call(ECHO, EchoRequest())
            # Of four workers one leads and one stays free for that.
            calls = [peer.start(BLOCK, BlockRequest(name="q")) for _ in range(2 + waiting + 1)]
            assert peer.expect(ErrorReceived).error.reason == "SERVER_BUSY"
            stage.gate("q").set()
            assert len({peer.expect(ResponseReceived).call_id for _ in calls[1:]}) == 2 + waiting
        stage.gate("q").clear()
        server.shutdown(5)


@pytest.mark.parametrize("off", AROUND)
def test_calls_of_one_turn(house: House, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    """A turn takes as many calls as allowed, and the rest has another turn."""
    turns: list[int] = []
    run = Session._run_batch

    def counted(session: Session, worker: Any) -> None:
        turns.append(len(session._batch or ()))
        run(session, worker)

    server = house(turn_calls=3)
    with Peer(server, SERVICE) as peer:
        monkeypatch.setattr(Session, "_run_batch", counted)
        for _ in range(3 + off):
            peer.start(ECHO, EchoRequest())
        for _ in range(3 + off):
            peer.expect(ResponseReceived)
    assert turns[:2] == ([3, 1] if off > 0 else [3 + off])


def test_the_backlog(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked to hold as many connections as the limit says."""
    asked: list[int] = []
    create = socket.create_server

    def noted(*arguments: Any, backlog: int, **options: Any) -> socket.socket:
        asked.append(backlog)
        return create(*arguments, backlog=backlog, **options)

    monkeypatch.setattr(socket, "create_server", noted)
    with Server(stage.handlers, codecs=["msgpack"], limits=Limits(backlog=7), workers=2):
        assert asked == [7]


# Bytes of one connection ------------------------------------------------------------------------------------------


class Kernel:
    """A socket that takes as many bytes as it is told, and gives what is asked for."""

    def __init__(self) -> None:
        self.takes = 0
        self.asked: list[int] = []

    def fileno(self) -> int:
        return 7

    def send(self, data: bytes) -> int:
        if not self.takes:
            raise BlockingIOError
        return min(self.takes, len(data))

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        return bytes(size)


def transport(limits: Limits) -> tuple[Any, Transport]:
    kernel: Any = Kernel()
    poller: Any = SimpleNamespace(add=lambda *_: None, modify=lambda *_: None)
    return kernel, Transport(kernel, poller, limits)


def test_the_watermarks() -> None:
    """Reading pauses when more than the high mark waits, and goes on when less than the low mark does."""
    kernel, output = transport(Limits(high_watermark=1000, low_watermark=500))
    for size, paused in ((999, False), (1, False), (1, True)):
        output.send(bytes(size))
        assert output.paused is paused, output.pending
    for taken, paused in ((500, True), (1, True), (1, False)):
        kernel.takes = taken
        output.send(b"")
        assert output.paused is paused, output.pending
    with pytest.raises(ValueError, match="low_watermark"):
        Limits(high_watermark=10, low_watermark=11)
    Limits(high_watermark=10, low_watermark=10)


def test_bytes_of_one_turn() -> None:
    """A connection that sends much is read ever more bytes at a time, up to as many as allowed."""
    kernel, source = transport(Limits(turn_bytes=20_000))
    for _ in range(4):
        source.receive()
    assert kernel.asked == [FIRST_READ, 8 * FIRST_READ, 20_000, 20_000]
    kernel, source = transport(Limits(turn_bytes=100))
    for _ in range(2):
        source.receive()
    assert kernel.asked == [100, 100]


# Times. A session is swept at the moments that matter, so nobody waits. --------------------------------------------

LONG = {
    "hello_timeout": 600.0,
    "frame_timeout": 600.0,
    "write_timeout": 600.0,
    "heartbeat": 600.0,
    "idle_timeout": 1800.0,
}


def ended_with(peer: RawPeer) -> str:
    """The reason of the final ERROR, "" when there is none; the connection ends."""
    told, ending = peer.drain()
    assert ending in (Ending.EOF, Ending.RESET)
    told = told.removeprefix(PREAMBLE)
    return unpack_error(unpack(told).payload).reason if told else ""


def test_time_for_hello(house: House) -> None:
    """At hello_timeout the connection is still waited for, and after it told HELLO_TIMEOUT."""
    server = house(**LONG)
    with silent(server) as peer:
        session = only_session(server)
        session.sweep(session.started + 599.999)
        assert peer.take(1, timeout=0.1) is Ending.SILENCE
        session.sweep(session.started + 600.001)
        assert ended_with(peer) == "HELLO_TIMEOUT"


def test_time_for_a_frame(house: House) -> None:
    """A frame has frame_timeout, and on top of it its length divided by frame_rate."""
    server = house(**LONG, frame_rate=100)
    peer, _ = welcomed(server)
    with peer:
        session = only_session(server)
        peer.send(frame(3, bytes(84), codec=2, version=1, opcode=1, call_id=1)[:20])
        until(lambda: session.connection.partial_length is not None, "the frame is begun")
        session.sweep(begun := time.monotonic() + 1)  # later than any look of the server's own
        session._liveness._frame_since = begun
        allowed = begun + 600 + 1  # 100 bytes at 100 bytes a second
        session._liveness._heard_at = allowed  # so that no PING is due
        session.sweep(allowed - 0.001)
        assert session.connection.error is None
        session.sweep(allowed + 0.001)
        assert ended_with(peer) == "FRAME_TIMEOUT"


def test_time_to_take_output(house: House) -> None:
    """Output of which nothing is taken for write_timeout ends the connection, and not before."""
    server = house(**LONG)
    peer, _ = welcomed(server)
    with peer:
        session = only_session(server)
        session.transport.pending = 1  # and nothing that the kernel could take
        session.sweep(now := time.monotonic() + 1)
        session._liveness._unwritten_since = now
        session.sweep(now + 599.999)
        assert not session.transport.closed
        session.sweep(now + 600.001)
        assert session.transport.closed


def test_the_heartbeat(house: House) -> None:
    """After the silence that WELCOME tells, and not before, there is a PING; after three times that the end."""
    server = house(**{**LONG, "heartbeat": 500.0})
    peer, answer = welcomed(server, heartbeat_ms=400_000)
    with peer:
        assert int.from_bytes(answer.payload[10:14]) == 400_000
        session = only_session(server)
        session.sweep(heard := time.monotonic())
        session._liveness._heard_at = heard  # the server may have swept already
        session.sweep(heard + 399.999)  # sums of such numbers are rounded
        assert peer.take(1, timeout=0.1) is Ending.SILENCE
        session.sweep(heard + 400.001)
        ping = peer.receive()
        assert isinstance(ping, RawFrame)
        assert ping.kind == 10
        session.sweep(heard + 1199.999)
        assert not session.transport.closed
        session.sweep(heard + 1200.002)
        assert session.transport.closed


def test_silence_without_a_heartbeat(house: House) -> None:
    """Where neither side wants a heartbeat, none is asked, and at idle_timeout the server closes."""
    server = house(**{**LONG, "heartbeat": 0})
    peer, answer = welcomed(server, heartbeat_ms=0)
    with peer:
        assert int.from_bytes(answer.payload[10:14]) == 0
        session = only_session(server)
        session.sweep(heard := time.monotonic())
        session._liveness._heard_at = heard
        session.sweep(heard + 1799.999)
        assert peer.take(1, timeout=0.1) is Ending.SILENCE
        assert not session.transport.closed
        session.sweep(heard + 1800.001)
        assert session.transport.closed


@pytest.mark.parametrize("wrong", [0.001, 0.999, -1.0, float("nan"), True])
def test_a_heartbeat_that_no_peer_would_accept(wrong: float) -> None:
    """Limits has a heartbeat of a second or more, or none."""
    with pytest.raises(ValueError, match=r"Limits\.heartbeat is"):
        Limits(heartbeat=wrong)
    assert (Limits(heartbeat=0).heartbeat, Limits(heartbeat=1.0).heartbeat) == (0, 1.0)


def test_lingering(house: House) -> None:
    """Behind a final ERROR input is read and dropped, up to linger_bytes and for the time of linger."""
    server = house(linger=600, linger_bytes=1000)
    for off in AROUND:
        peer, _ = welcomed(server)
        with peer:
            session = only_session(server)
            peer.send(frame(99))
            assert isinstance(peer.receive(), RawFrame)
            peer.send(bytes(1000 + off))
            until(lambda s=session, n=1000 + off: s.connection.discarded >= n or s.transport.closed, "all is read")  # type: ignore[misc]
            assert session.transport.closed is (off > 0)
        until(lambda: not server.sessions, "the connection is gone")
    peer, _ = welcomed(server)
    with peer:
        session = only_session(server)
        peer.send(frame(99))
        until(lambda: session._linger_until is not None, "the end is begun")
        assert session._linger_until is not None
        session.sweep(session._linger_until - 0.001)
        assert not session.transport.closed
        session.sweep(session._linger_until)
        assert session.transport.closed


def test_the_queue_of_started_calls() -> None:
    """A call that ``start`` begins waits while fewer than the limit do; the next one fails at once."""
    most = 3
    backoff = Backoff(600, 600, chance=lambda: 1.0)
    backoff.failed()
    with Client("127.0.0.1:1", SERVICE, limits=Limits(start_queue=most), backoff=backoff, wait=True) as client:
        done = [client.start(ECHO, EchoRequest(text="x")).done() for _ in range(most + 1)]
    assert done == [False] * most + [True]


# All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", AROUND)
def test_what_stands_beside_an_answer(off: int) -> None:
    """Details of an error go along up to their limit, with metadata up to that of both; above they are left out."""
    name = len(NAMED)
    for said, size in ((0, MAX_DETAILS - 1 - name), (4000, MAX_ANSWER - 4007 - 4 - name)):
        pair = opened()
        call_id = pair.client.send_request(16, b"")
        pair.deliver(pair.client)
        if said:
            pair.server.set_metadata(call_id, pack_answer({"abc": "x" * (said)}))
        error = CallError(Status.ABORTED)
        error.packed_details = PackedDetails(NAMED, bytes(size + off))
        pair.server.send_error(call_id, error)
        (found,) = pair.deliver(pair.server)
        assert isinstance(found, AnsweredBeside | ErrorReceived)
        told = found.event if isinstance(found, AnsweredBeside) else found
        assert isinstance(told, ErrorReceived)
        assert (told.error.packed_details is not None) == (off <= 0)
    with pytest.raises(LocalProtocolError) if off > 0 else contextlib.nullcontext():
        pair = opened()
        pair.client.send_request(16, b"")
        pair.deliver(pair.client)
        pair.server.set_metadata(1, bytes(MAX_ANSWER + off))


NAMED = "example.v1.Details"

SHOWN: dict[str, tuple[str, ...]] = {
    "test_max_frame_of_the_server": ("max_frame",),
    "test_frames_of_the_handshake": ("HELLO_MAX_FRAME",),
    "test_the_ceiling": ("MAX_FRAME_CEILING",),
    "test_metadata": ("max_metadata",),
    "test_what_stands_beside_an_answer": ("MAX_ANSWER", "MAX_DETAILS"),
    "test_elements": ("max_elements",),
    "test_calls_in_flight": ("max_calls",),
    "test_stray_answers": ("MAX_STRAY_ANSWERS",),
    "test_rates": ("cancel_burst", "cancels_per_second", "ping_burst", "pings_per_second", "errors_per_minute"),
    "test_connections": ("max_connections",),
    "test_connections_of_one_address": ("max_connections_per_address",),
    "test_connections_without_hello": ("max_handshaking",),
    "test_calls_in_the_run_queue": ("run_queue",),
    "test_the_queue_of_started_calls": ("start_queue",),
    "test_calls_of_one_turn": ("turn_calls",),
    "test_the_backlog": ("backlog",),
    "test_the_watermarks": ("high_watermark", "low_watermark"),
    "test_bytes_of_one_turn": ("turn_bytes",),
    "test_time_for_hello": ("hello_timeout",),
    "test_time_for_a_frame": ("frame_timeout", "frame_rate"),
    "test_time_to_take_output": ("write_timeout",),
    "test_the_heartbeat": ("heartbeat",),
    "test_silence_without_a_heartbeat": ("idle_timeout",),
    "test_a_heartbeat_that_no_peer_would_accept": ("MIN_HEARTBEAT",),
    "test_lingering": ("linger", "linger_bytes"),
    "test_the_first_credit": ("first_items", "first_bytes"),
    "test_the_whole_window": ("window_items", "window_bytes"),
    "test_the_windows_of_one_connection": ("max_held",),
    "test_the_wait_for_an_item": ("item_timeout",),
    "test_one_way_calls": ("one_way_calls",),
    "test_what_crosses_the_end_of_calls": ("MAX_CROSSED", "REFILL"),
    "test_chatter": ("MAX_CHATTER", "CHATTER_PER_SECOND", "CHATTER_PER_FRAME"),
}


def test_every_limit_is_shown() -> None:
    """Each setting, and each limit of the document's table, has a test of its edge, here or in the file of items."""
    shown = [name for names in SHOWN.values() for name in names]
    assert all(callable(globals().get(test) or getattr(test_limits_of_items, test)) for test in SHOWN)
    assert len(shown) == len(set(shown))
    settings = {field.name for field in fields(Limits)}
    assert set(shown) == settings | {row[0] for row in table("limit", "value")}
