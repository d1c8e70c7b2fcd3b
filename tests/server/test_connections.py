"""Connections over real sockets: refusals, deadlines, half-closes, limits, churn, shutdown."""

import contextlib
import errno
import logging
import os
import re
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.impatient import ImpatientConnection
from tests.server.peer import Peer, until, window
from tests.server.service import (
    BLOCK,
    COUNT,
    DEFER,
    ECHO,
    FEED,
    SERVICE,
    BlockRequest,
    CountRequest,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    FeedRequest,
    Stage,
)
from wireproto.conformance.raw import Ending, RawFrame, RawPeer, frame
from wireproto.errors import CallError, ConfigError, HandshakeError
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.server.gateway import GrpcGateway
from wireproto.server.poller import LookingPoller
from wireproto.status import Retry, Status
from wireproto.testing import grease
from wireproto.wire.events import ConnectionEnded, ErrorReceived, GoAwayReceived, PingReceived, ResponseReceived
from wireproto.wire.frame import Kind
from wireproto.wire.liveness import MAX_CHATTER
from wireproto.wire.metadata import Metadata


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"TLS client"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH client"),
        (b"\xf5WP\x09", b"UNSUPPORTED_MAJOR"),
        (b"\x00\x01\x02\x03\x04\x05", b""),
    ],
)
def test_strangers_are_told_what_this_port_speaks(
    first: bytes, text: bytes, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """First bytes that are no client's get an answer, a log line, and the end."""
    with RawPeer.connect(server.address) as stranger:
        stranger.send(first)
        answer, ending = stranger.drain()
        assert text in answer
        assert ending is Ending.EOF
    until(lambda: "127.0.0.1" in caplog.text, "the log has a line")


def test_an_http_client_is_told_where_to_go(server: Server) -> None:
    """The server's hint is in the answer to whoever speaks HTTP to it."""
    server.hint = "gRPC is spoken on 127.0.0.1:50051."
    with RawPeer.connect(server.address) as stranger:
        stranger.send(b"GET / HTTP/1.1\r\n\r\n")
        answer, _ = stranger.drain()
        assert b"gRPC is spoken on 127.0.0.1:50051." in answer


def test_log_lines_about_one_peer_are_sampled(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Many strangers from one address make one line, and stay one line each whatever they sent."""
    for _ in range(20):
        with RawPeer.connect(server.address) as stranger:
            stranger.send(b"x\n\x1b[31mRED\n")
            stranger.drain()
    until(lambda: not server.sessions, "the strangers are gone")
    lines = [record.getMessage() for record in caplog.records if record.name == "wireproto.server"]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "\x1b" not in lines[0]


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        ({"min_version": 2, "max_version": 3}, "UNSUPPORTED_VERSION", "1 to 1"),
        ({"codecs": ((1, "pipe"),)}, "UNSUPPORTED_CODEC", "msgpack"),
        ({"service": "other.v1.OtherService"}, "UNKNOWN_SERVICE", SERVICE.full_name),
        ({"digests": {ECHO.opcode: 12345}}, "CONTRACT_MISMATCH", "0x0001"),
    ],
)
def test_refused_handshakes_list_what_is_supported(
    change: dict[str, object], reason: str, text: str, server: Server, connect: Callable[..., Peer]
) -> None:
    """A HELLO with nothing in common is answered by a final ERROR that says what the server has."""
    peer = connect(server, hello=False)
    hello = peer.hello()
    values = {name: getattr(hello, name) for name in hello.__struct_fields__} | change
    peer.connection.send_hello(type(hello)(**values))
    error = peer.ended().error
    assert isinstance(error, HandshakeError)
    assert error.reason == reason
    assert text in error.message


def test_a_bad_header_ends_the_connection_with_a_reason(peer: Peer) -> None:
    """After a header that breaks a rule the peer reads a final ERROR, also while it goes on sending."""
    peer.socket.sendall(frame(Kind.REQUEST, flags=2, codec=2, version=1, opcode=1, call_id=1) + b"\0" * 100_000)
    error = peer.ended().error
    assert isinstance(error, CallError)
    assert error.reason == "RESERVED_FLAGS"


def test_a_frame_too_large_is_refused_from_its_header(peer: Peer) -> None:
    """A length above the limit ends the connection before the body is sent."""
    peer.socket.sendall(b"\x7f\xff\xff\xff")
    error = peer.ended().error
    assert isinstance(error, CallError)
    assert error.reason == "FRAME_TOO_LARGE"


def test_half_close_is_answered(stage: Stage, peer: Peer) -> None:
    """A peer that shuts down its writing side still gets the answers in flight, then the end."""
    first = peer.start(DEFER, DeferRequest(name="h"))
    second = peer.start(ECHO, EchoRequest(text="e"))
    peer.flush()
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.expect(ResponseReceived).call_id == second
    stage.future("h").set_result(DeferResponse(name="h"))
    assert peer.expect(ResponseReceived).call_id == first
    assert peer.expect(ConnectionEnded).error is None


def test_the_last_answer_after_a_half_close_is_followed_by_the_end(
    stage: Stage, server: Server, connect: Callable[..., Peer]
) -> None:
    """A connection whose input has ended is closed by whatever writes its last answer, a handler's own included."""
    for number in range(5):
        peer = connect(server)
        call_id = peer.start(BLOCK, BlockRequest(name=f"{number}"))
        peer.flush()
        assert stage.inside(f"{number}").wait(10)
        peer.socket.shutdown(socket.SHUT_WR)
        (session,) = server.sessions.values()
        until(lambda session=session: session.transport.ended, "the end of the input is read")  # type: ignore[misc]
        stage.gate(f"{number}").set()
        assert peer.expect(ResponseReceived).call_id == call_id
        assert peer.expect(ConnectionEnded).error is None
        until(lambda: not server.sessions, "the connection is closed")


def test_half_close_ends_streams(stage: Stage, peer: Peer) -> None:
    """A stream ends CANCELLED when its peer can grant no more credit."""
    peer.start(FEED, FeedRequest(name="h"), Metadata(credit=window(4)))
    peer.flush()
    feed = stage.feed("h")
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.expect(ErrorReceived).error.status is Status.CANCELLED
    assert feed.was_closed.wait(10)
    peer.expect(ConnectionEnded)


def test_a_reset_in_the_middle_of_a_frame_is_no_news(
    server: Server, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """RST mid-frame closes the session without a traceback; others go on."""
    peer, other = connect(server), connect(server)
    peer.socket.sendall(frame(Kind.REQUEST, length=500, codec=2, version=1, opcode=1, call_id=1))
    peer.raw.reset()
    until(lambda: len(server.sessions) == 1, "the session is closed")
    assert other.call(ECHO, EchoRequest(text="on")).text == "on"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_hello_has_a_deadline(serve: Callable[..., Server]) -> None:
    """A connection that sends no HELLO in time is told so and closed."""
    server = serve(limits=Limits(hello_timeout=0.05))
    with RawPeer.connect(server.address) as peer:
        answer, ending = peer.drain()
        assert b"HELLO_TIMEOUT" in answer
        assert ending is Ending.EOF


def test_a_dripped_frame_has_a_deadline(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """A frame begun and not finished in time ends the connection, however often a byte comes."""
    peer = connect(serve(limits=Limits(frame_timeout=0.2, frame_rate=1_000_000)))
    peer.socket.sendall(frame(Kind.REQUEST, length=500, codec=2, version=1, opcode=1, call_id=1))
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            try:
                peer.socket.sendall(b"x")
            except OSError:
                return

    dripper = threading.Thread(target=drip)
    dripper.start()
    error = peer.ended().error
    stop.set()
    dripper.join(10)
    assert isinstance(error, CallError)
    assert error.reason == "FRAME_TIMEOUT"


def test_a_peer_that_takes_nothing_is_closed(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """Output that makes no progress for the write timeout closes the connection."""
    server = serve(limits=Limits(write_timeout=0.3, max_calls=100))
    peer = connect(server)
    for _ in range(50):
        peer.start(ECHO, EchoRequest(size=500_000))
    peer.flush()
    until(lambda: not server.sessions, "the session is closed")


def test_pipelining_without_reading_does_not_grow_the_server(
    serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A peer that only sends is paused at the watermark, and answered completely once it reads."""
    server = serve(limits=Limits(high_watermark=200_000, low_watermark=50_000))
    peer = connect(server)
    sent = 0
    peer.socket.setblocking(False)
    idle = 0
    while idle < 50:
        if peer.connection.calls_in_flight < 250:
            peer.start(ECHO, EchoRequest(size=40_000))
            sent += 1
        data = peer.connection.data_to_send()
        try:
            peer.socket.send(data) if data else None
            idle += 0 if data else 1
        except BlockingIOError:
            idle += 1
    session = next(iter(server.sessions.values()))
    assert session.transport.pending < 200_000 + 64 * 41_000
    peer.socket.settimeout(20)
    for _ in range(sent):
        peer.expect(ResponseReceived)


def test_heartbeats_are_sent_in_silence(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """After the agreed silence the server sends a PING; a PONG keeps the connection."""
    peer = connect(serve(limits=Limits(heartbeat=1.0), connections=ImpatientConnection))
    for _ in range(2):
        peer.expect(PingReceived)
    assert peer.call(ECHO, EchoRequest(text="alive")).text == "alive"


def test_a_silent_connection_is_closed(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """A peer that never answers a PING is closed after three heartbeats; without any, after the idle timeout."""
    lively = serve(limits=Limits(heartbeat=1.0), connections=ImpatientConnection)
    calm = serve(limits=Limits(heartbeat=0, idle_timeout=0.3))
    connect(lively)
    connect(calm)
    until(lambda: not lively.sessions and not calm.sessions, "both sessions are closed")


def test_a_ping_flood_ends_the_connection(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """PINGs beyond the burst end the connection with a reason."""
    peer = connect(serve(limits=Limits(ping_burst=5, pings_per_second=1)))
    for _ in range(10):
        peer.connection.send_ping(b"12345678")
    error = peer.ended().error
    assert isinstance(error, CallError)
    assert error.reason == "TOO_MANY_PINGS"


@pytest.mark.parametrize("each", [frame(0xF0), frame(Kind.PONG, b"unasked!")], ids=["unknown", "PONG"])
def test_chatter_ends_the_connection(each: bytes, serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """Frames that mean nothing are read over up to a limit, beside which calls go on; too many end the connection."""
    peer = connect(serve())
    peer.socket.sendall(each * MAX_CHATTER)
    assert peer.call(ECHO, EchoRequest(text="alive")).text == "alive"
    peer.socket.sendall(each * MAX_CHATTER)
    error = peer.ended().error
    assert isinstance(error, CallError)
    assert (error.reason, error.status) == ("TOO_MANY_FRAMES", Status.RESOURCE_EXHAUSTED)


def test_a_cancel_flood_ends_the_connection(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """Starting and cancelling beyond the burst ends the connection with a reason."""
    peer = connect(serve(limits=Limits(cancel_burst=5, cancels_per_second=1)))
    for n in range(10):
        peer.connection.send_cancel(peer.start(DEFER, DeferRequest(name=str(n))))
    error = peer.ended().error
    assert isinstance(error, CallError)
    assert error.reason == "TOO_MANY_CANCELS"


def test_the_connection_limit_pauses_accepting(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """At the limit new connections wait in the backlog, and are served when one ends."""
    server = serve(limits=Limits(max_connections=2))
    first, second = connect(server), connect(server)
    waiting = connect(server, hello=False)
    waiting.connection.send_hello(waiting.hello())
    waiting.flush()
    waiting.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waiting.event()
    assert second.call(ECHO, EchoRequest(text="full")).text == "full"
    first.socket.close()
    waiting.socket.settimeout(20)
    waiting.event()
    assert waiting.call(ECHO, EchoRequest(text="in")).text == "in"


def test_out_of_descriptors_the_server_rests_and_recovers(
    server: Server, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """At EMFILE a connected client is served, the server does not spin, and accepts again once descriptors are back."""
    peer = connect(server)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket() for _ in range(4)]
    used = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        for sock in waiting:
            sock.connect(server.address)
        until(lambda: "cannot accept" in caplog.text, "the log says so")
        assert peer.call(ECHO, EchoRequest(text="still")).text == "still"
        before = resource.getrusage(resource.RUSAGE_SELF)
        threading.Event().wait(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in waiting:
            sock.close()
    assert connect(server).call(ECHO, EchoRequest(text="again")).text == "again"


def test_a_thousand_connections_on_32_threads(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """A thousand connected clients are all answered, and cost no thread each."""
    before = threading.active_count()
    server = serve(workers=32)
    peers = [connect(server) for _ in range(1000)]
    for n, peer in enumerate(peers):
        peer.start(ECHO, EchoRequest(text=str(n)))
        peer.flush()
    for n, peer in enumerate(peers):
        assert peer.decode(ECHO, peer.expect(ResponseReceived).payload).text == str(n)
    assert threading.active_count() - before <= 33  # the workers and their watchdog


@pytest.mark.parametrize(
    "count", [pytest.param(4000, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.long)]
)
def test_churn_loses_no_innocent_connection(count: int, server: Server) -> None:
    """Connections opened and closed at full speed by many threads: each innocent one is answered, rude ones or not."""
    failures: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            for n in range(count // 8):
                with Peer(server, SERVICE) as peer:
                    if n % 3 == 1:
                        peer.start(ECHO, EchoRequest(text="unread", size=1000))
                        peer.flush()
                        continue
                    assert peer.call(ECHO, EchoRequest(text=f"{number}.{n}")).text == f"{number}.{n}"
                    if n % 3 == 2:
                        peer.raw.reset()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3600)
    assert failures == []
    until(lambda: not server.sessions, "all sessions are closed")


def test_shutdown_finishes_what_is_in_flight(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """GOAWAY names the last call, later ones are refused unprocessed, calls in flight are answered, streams end."""
    server = serve()
    peer = connect(server)
    feeding = peer.start(FEED, FeedRequest(name="s"), Metadata(credit=window(4)))
    blocked = peer.start(BLOCK, BlockRequest(name="s"))
    peer.flush()
    assert stage.inside("s").wait(10)
    result: list[list[str]] = []
    stopper = threading.Thread(target=lambda: result.append(server.shutdown(10)))
    stopper.start()
    going = peer.expect(GoAwayReceived)
    assert going.last_call_id == blocked
    ended = peer.expect(ErrorReceived)
    assert (ended.call_id, ended.error.status) == (feeding, Status.UNAVAILABLE)
    assert ended.error.retry is Retry.MAYBE_PROCESSED
    assert stage.feed("s").was_closed.wait(10)
    assert peer.connection.goaway_received
    # A request that crosses GOAWAY; the core would not let us send one now.
    peer.raw.send(frame(Kind.REQUEST, codec=2, version=1, opcode=ECHO.opcode, call_id=blocked + 1))

    def next_known() -> RawFrame | Ending:
        while isinstance(found := peer.raw.receive(), RawFrame) and found.kind in grease.KINDS:
            pass
        return found

    refused = next_known()
    assert isinstance(refused, RawFrame)
    assert b"SHUTTING_DOWN" in refused.payload
    stage.gate("s").set()
    answer = next_known()
    assert isinstance(answer, RawFrame)
    assert answer.kind == Kind.RESPONSE
    assert next_known() is Ending.EOF
    stopper.join(20)
    assert result == [[]]


def test_shutdown_is_bounded(stage: Stage, connect: Callable[..., Peer]) -> None:
    """A handler that does not return is cut off at the time limit and named."""
    server = Server(stage.handlers, codecs=["msgpack"], workers=4)
    server.start()
    peer = connect(server)
    peer.start(BLOCK, BlockRequest(name="never"))
    peer.flush()
    assert stage.inside("never").wait(10)
    survivors = server.shutdown(0.2)
    assert len(survivors) == 1
    assert re.fullmatch(r"wireproto-worker-\d", survivors[0])
    stage.gate("never").set()
    until(lambda: not any(thread.name == survivors[0] for thread in threading.enumerate()), "the worker has left")
    assert server.shutdown(1) == []


def test_two_servers_on_one_port_are_told_apart(server: Server, stage: Stage) -> None:
    """An address in use is a ConfigError that says so."""
    second = Server(stage.handlers, codecs=["msgpack"], port=server.address.port)
    with pytest.raises(ConfigError, match="is in use"):
        second.start()
    assert second.shutdown(0) == []


def test_a_host_that_does_not_exist_is_said_so(stage: Stage) -> None:
    """A name that leads nowhere is a ConfigError that names it."""
    lost = Server(stage.handlers, codecs=["msgpack"], host="nowhere.invalid")
    with pytest.raises(ConfigError, match=r"nowhere\.invalid: that is no address or name of this machine"):
        lost.start()
    assert lost.shutdown(0) == []


NO_PLACES: list[tuple[object, object, str]] = [
    (b"127.0.0.1", 0, r"host is b'127.0.0.1'; give a str"),
    (None, 0, "host is None; give a str"),
    ("", 0, "host is ''; give '127.0.0.1' for this machine alone"),
    ("127.0.0.1", "0", "port is '0'; give 0 for a free one"),
    ("127.0.0.1", -1, "port is -1; give 0 for a free one"),
    ("127.0.0.1", 65536, "port is 65536; give 0 for a free one"),
    ("a..b", 7411, r"cannot listen on a\.\.b: that is no address or name"),
    ("\ud800", 7411, r"cannot listen on \\ud800: that is no address or name"),
    ("a\0b", 7411, r"cannot listen on a\\x00b: that is no address or name"),
]


@pytest.mark.parametrize(("host", "port", "text"), NO_PLACES, ids=repr)
@pytest.mark.parametrize("door", [Server, GrpcGateway])
def test_a_place_that_is_none_is_said_so(
    stage: Stage, door: "type[Server | GrpcGateway]", host: Any, port: Any, text: str
) -> None:
    """Both doors answer what is no host or no port with the same sentence."""
    with pytest.raises(ConfigError, match=text):
        door(stage.handlers, host=host, port=port).start()


def test_settings_that_make_no_sense_are_refused(stage: Stage) -> None:
    """Too few workers, no codec, unknown codecs, no handlers and doubled services are ConfigErrors."""
    with pytest.raises(ConfigError, match=r"not Service; write Handlers\(service\)"):
        Server(stage.handlers.service)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="workers"):
        Server(stage.handlers, workers=1)
    with pytest.raises(ConfigError, match="codec"):
        Server(stage.handlers, codecs=[])
    with pytest.raises(ConfigError, match="msgpack"):
        Server(stage.handlers, codecs=["msgpak"])
    with pytest.raises(ConfigError, match="twice"):
        Server([stage.handlers, stage.handlers], codecs=["msgpack"])
    with pytest.raises(ConfigError, match="at least one service"):
        Server([])


@pytest.mark.plain
def test_idle_connections_are_small(serve: Callable[..., Server]) -> None:
    """An idle session and its connection cost a server at most 4 KiB."""
    server = serve()
    process = psutil.Process()

    def idle() -> socket.socket:
        """Connected, and called once; of the client's half only the socket is kept."""
        peer = Peer(server, SERVICE)
        peer.call(ECHO, EchoRequest(text="x"))
        return peer.socket

    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(idle())
        before = process.memory_info().rss
        for _ in range(400):
            stack.enter_context(idle())
        each = (process.memory_info().rss - before) / 400
        assert each < 4096


def test_retry_advice_of_a_busy_server_is_safe(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A refusal for load says "not processed", and indeed no handler ran."""
    peer = connect(serve(limits=Limits(max_calls=1)))
    peer.start(BLOCK, BlockRequest(name="one"))
    peer.flush()
    assert stage.inside("one").wait(10)
    error = peer.fail(BLOCK, BlockRequest(name="two"))
    assert (error.reason, error.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)
    stage.gate("one").set()
    peer.expect(ResponseReceived)
    assert "two" not in stage.contexts


def test_a_stream_beside_many_calls(peer: Peer) -> None:
    """A long stream and pipelined calls share a connection without starving each other."""
    peer.start(COUNT, CountRequest(upto=500), Metadata(credit=window(1000)))
    ids = {peer.start(ECHO, EchoRequest(text=str(n))) for n in range(100)}
    while ids:
        event = peer.event()
        if isinstance(event, ResponseReceived):
            ids.discard(event.call_id)


def test_the_connection_limit_holds_against_a_burst(
    serve: Callable[..., Server], connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that wait together are not accepted beyond the limit in one turn."""
    server = serve(limits=Limits(max_connections=3), workers=2)
    with server._counts_lock:
        server._listen_locked(False)
    waiting = [connect(server, hello=False) for _ in range(12)]
    with server._counts_lock:
        server._listen_locked(True)
    until(lambda: len(server.sessions) >= 3, "the first are accepted")
    peer = waiting[0]
    peer.connection.send_hello(peer.hello())
    peer.event()
    assert peer.call(ECHO, EchoRequest(text="in")).text == "in"
    assert len(server.sessions) == 3


class _FullPoller(LookingPoller):
    """A poller that has no memory left for one descriptor."""

    __slots__ = ()

    def add(self, fd: int, mask: int) -> None:
        self.__class__ = LookingPoller  # type: ignore[assignment]
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_connection_that_cannot_be_watched_leaves_nothing(
    server: Server, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """When epoll takes no more, the new connection is closed and forgotten, and the next one is served."""
    server.poller.__class__ = _FullPoller
    refused = connect(server, hello=False)
    assert refused.socket.recv(1) == b""
    assert not server.sessions
    assert connect(server).call(ECHO, EchoRequest(text="next")).text == "next"
    assert server._connections == 1
    until(lambda: "could not be opened" in caplog.text, "the log says so")


def test_out_of_descriptors_without_a_reserve(
    server: Server, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """When even the reserve is lost the server rests all the same, and closes cleanly."""
    peer = connect(server)
    os.close(server._reserve)
    server._reserve = -1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        waiting.connect(server.address)
        until(lambda: "cannot accept" in caplog.text, "the log says so")
        assert peer.call(ECHO, EchoRequest(text="still")).text == "still"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.close()
    assert connect(server).call(ECHO, EchoRequest(text="again")).text == "again"
    assert "please report" not in caplog.text
