"""How connections end while something is still under way: large answers, late streams, failures after a half-close."""

import logging
import socket
import threading
from collections.abc import Callable

import pytest

from tests.server.peer import Peer, until, window
from tests.server.service import (
    BLOCK,
    COUNT,
    ECHO,
    FEED,
    SERVICE,
    BlockRequest,
    CountRequest,
    EchoRequest,
    Feed,
    FeedRequest,
    Stage,
)
from wireproto.answering import pace
from wireproto.conformance.raw import frame
from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.wire.events import (
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    GoAwayReceived,
    ItemReceived,
    ResponseReceived,
)
from wireproto.wire.frame import Kind
from wireproto.wire.metadata import Metadata

PATIENCE = 30.0
SMALL_OUTPUT = Limits(high_watermark=200_000, low_watermark=50_000)


def no_errors(caplog: pytest.LogCaptureFixture) -> None:
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def waiting_output(server: Server) -> int:
    return next(iter(server.sessions.values())).transport.pending


@pytest.mark.parametrize("last", ["half-close", "shutdown"])
def test_answers_that_wait_for_a_slow_reader_are_followed_by_the_end(
    last: str, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A connection that is ending is closed once its slow reader has taken everything, not at some time limit."""
    server = serve(limits=Limits(high_watermark=100_000_000, low_watermark=1))
    peer = connect(server)
    peer.socket.settimeout(5)
    for _ in range(12):
        peer.start(ECHO, EchoRequest(size=900_000))
    peer.flush()
    until(lambda: waiting_output(server) > 0, "the kernel takes no more")
    stopper = threading.Thread(target=server.shutdown)
    if last == "half-close":
        peer.socket.shutdown(socket.SHUT_WR)
        session = next(iter(server.sessions.values()))
        until(lambda: session.transport.ended, "the end of input is read")
    else:
        stopper.start()
    kinds = [type(peer.event()) for _ in range(12 + (last == "shutdown"))]
    assert kinds.count(ResponseReceived) == 12
    assert kinds.count(GoAwayReceived) == (last == "shutdown")
    assert peer.expect(ConnectionEnded).error is None
    peer.socket.close()
    until(lambda: not server.sessions, "the session is closed", 5)
    if last == "shutdown":
        stopper.join(5)
        assert not stopper.is_alive()


def test_a_failure_after_a_half_close_ends_what_is_in_flight(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """When the last of too many errors comes after the peer's end of input, calls in flight are dropped quietly."""
    server = serve(limits=Limits(errors_per_minute=3), workers=4)
    peer = connect(server)
    for name in ("first", "second"):
        peer.start(BLOCK, BlockRequest(name=name))
    peer.flush()
    assert stage.inside("first").wait(10)
    assert stage.inside("second").wait(10)
    for _ in range(5):
        peer.connection.send_request(BLOCK.opcode, b"\xc1")  # waits in the run queue behind the two
    peer.flush()
    peer.socket.shutdown(socket.SHUT_WR)
    session = next(iter(server.sessions.values()))
    until(lambda: session.transport.ended, "the end of input is read")
    stage.gate("first").set()
    error = peer.ended().error
    assert error is not None
    assert "TOO_MANY_ERRORS" in str(error)
    stage.gate("second").set()
    until(lambda: not server.sessions, "the session is closed", 5)
    no_errors(caplog)


class Late:
    """A stream handler that waits for a gate before it gives its feed."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.handlers = Handlers(SERVICE)

        @self.handlers.register(FEED)
        def feed(request: FeedRequest, context: Context) -> Feed:
            self.entered.set()
            assert self.gate.wait(30)
            return self.feed


@pytest.mark.parametrize(("last", "status"), [("half-close", Status.CANCELLED), ("shutdown", Status.UNAVAILABLE)])
def test_a_stream_that_begins_on_an_ending_connection_ends_at_once(
    last: str, status: Status, connect: Callable[..., Peer]
) -> None:
    """A handler that gives its stream after the half-close or GOAWAY does not keep the connection for ever."""
    late = Late()
    with Server(late.handlers, codecs=["msgpack"], workers=4) as server:
        peer = connect(server)
        peer.start(FEED, FeedRequest(name="late"), Metadata(credit=window(4)))
        peer.flush()
        assert late.entered.wait(10)
        session = next(iter(server.sessions.values()))
        stopper = threading.Thread(target=server.shutdown)
        if last == "half-close":
            peer.socket.shutdown(socket.SHUT_WR)
            until(lambda: session.transport.ended, "the end of input is read")
        else:
            stopper.start()
            peer.expect(GoAwayReceived)
        late.gate.set()
        error = peer.expect(ErrorReceived).error
        assert (error.status, error.retry) == (status, Retry.MAYBE_PROCESSED)
        assert late.feed.was_closed.wait(10)
        peer.expect(ConnectionEnded)
        peer.socket.close()
        until(lambda: not server.sessions, "the session is closed", 5)
        if last == "shutdown":
            stopper.join(5)
    assert len(late.feed.closed) == 1


def test_a_stream_that_has_an_end_goes_on_behind_goaway(
    serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """An iterator is asked for items by the credit that comes, up to its end, while the server waits for it."""
    server = serve()
    peer = connect(server)
    call_id = peer.start(COUNT, CountRequest(upto=5), Metadata(credit=window(1)))
    peer.flush()
    peer.expect(ItemReceived)
    stopper = threading.Thread(target=server.shutdown, args=(PATIENCE,))
    stopper.start()
    peer.expect(GoAwayReceived)
    for granted in (1, 1, 1, 2):  # the end is seen when one more item is asked for
        peer.connection.send_credit(call_id, granted, 1000)
        peer.flush()
        peer.expect(ItemReceived)
    peer.expect(EndReceived)
    stopper.join(PATIENCE)
    assert not stopper.is_alive()


def test_small_requests_for_large_answers_do_not_fill_the_memory(
    serve: Callable[..., Server], connect: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that were read already rest while their connection's output is above the watermark; all are answered.

    Those of a method that was slow are with the followers by then. On a busy machine any method is slow now and then.
    """
    monkeypatch.setattr(pace, "SLOW", 60.0)
    workers = 8
    server = serve(limits=SMALL_OUTPUT, workers=workers)
    peer = connect(server)
    count = 250  # within the calls in flight; 25 MB of answers, of which the kernel takes some 4
    for _ in range(count):
        peer.start(ECHO, EchoRequest(size=100_000))
    peer.flush()
    until(lambda: waiting_output(server) > 0, "the kernel takes no more")
    most = 0

    def settled(looks: list[int]) -> bool:
        nonlocal most
        looks.append(waiting_output(server))
        most = max(most, looks[-1])
        return len(looks) > 20 and len(set(looks[-20:])) == 1

    looks: list[int] = []
    until(lambda: settled(looks), "nothing moves")
    assert most < 200_000 + (workers + 2) * 100_000  # each worker may have been in a handler when the mark was reached
    for _ in range(count):
        peer.expect(ResponseReceived)
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


def test_a_call_that_expires_before_it_began_was_not_processed(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """The deadline of a call in the run queue says that it may be repeated; that of a running one does not."""
    peer = connect(serve(workers=2))
    running = peer.start(BLOCK, BlockRequest(name="first"), Metadata(deadline_ms=300))
    peer.flush()
    assert stage.inside("first").wait(10)
    queued = peer.start(BLOCK, BlockRequest(name="second"), Metadata(deadline_ms=20))
    errors = {event.call_id: event.error for event in (peer.expect(ErrorReceived) for _ in range(2))}
    assert {error.reason for error in errors.values()} == {"DEADLINE"}
    assert errors[queued].retry is Retry.NOT_PROCESSED
    assert errors[running].retry is Retry.MAYBE_PROCESSED
    stage.open_gates()
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"
    assert "second" not in stage.contexts


def test_a_frame_interrupted_by_our_own_pause_is_not_late(
    serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """The time in which the server itself did not read is not counted against the frame under way."""
    limits = Limits(high_watermark=200_000, low_watermark=50_000, frame_timeout=1.0)
    server = serve(limits=limits)
    peer = connect(server)
    for _ in range(60):
        peer.start(ECHO, EchoRequest(size=100_000))
    peer.start(ECHO, EchoRequest(text="cut"))
    data = peer.connection.data_to_send()
    peer.socket.sendall(data[:-2])
    session = next(iter(server.sessions.values()))
    until(lambda: session.transport.paused, "reading pauses")
    threading.Event().wait(1.2)
    for _ in range(60):
        peer.expect(ResponseReceived)
    threading.Event().wait(0.5)
    peer.socket.sendall(data[-2:])
    answers = [peer.expect(ResponseReceived)]
    assert peer.decode(ECHO, answers[-1].payload).text == "cut"


def test_a_subscription_that_takes_no_wake_ends_its_stream_only(
    connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """A source on which ``wake`` cannot be set is an incident of its call; it is closed, and the connection lives."""
    closed: list[str] = []

    class Sealed(Feed):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "wake":
                raise AttributeError("secret")
            super().__setattr__(name, value)

        def close(self, reason: str) -> None:
            closed.append(reason)

    handlers = Handlers(SERVICE)

    @handlers.register(FEED)
    def feed(request: FeedRequest, context: Context) -> Feed:
        return Sealed()

    with Server(handlers, codecs=["msgpack"]) as server:
        peer = connect(server)
        error = peer.fail(FEED, FeedRequest(name="x"), Metadata(credit=window(1)))
        assert error.status is Status.INTERNAL
        assert "secret" not in str(error)
        assert peer.fail(ECHO, EchoRequest()).reason == "NO_HANDLER"
    assert len(closed) == 1
    assert "please report" not in caplog.text


@pytest.mark.parametrize("before", ["no such method", "bad metadata", "a call"])
def test_requests_before_a_broken_frame_do_not_hide_the_reason(
    before: str, server: Server, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Of REQUESTs and a broken frame that are read at once, the client hears why the connection ended."""
    peer = connect(server)
    opcode = 0x7777 if before == "no such method" else ECHO.opcode
    metadata = b"\1" if before == "bad metadata" else b""
    first = frame(Kind.REQUEST, b"\x92\xa0\0", metadata, codec=2, version=1, opcode=opcode, call_id=1)
    peer.socket.sendall(first + frame(0x7F))
    end = peer.ended()
    assert end.error is not None
    assert end.error.reason == "UNKNOWN_KIND"
    until(lambda: not server.sessions, "the session is closed")
    no_errors(caplog)


def test_the_last_of_too_many_errors_ends_what_was_read_with_it(
    serve: Callable[..., Server], connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Of many bad REQUESTs that are read at once, one too many ends the connection, and those behind it are dropped."""
    server = serve(limits=Limits(errors_per_minute=3))
    peer = connect(server)
    bad = [frame(Kind.REQUEST, codec=2, version=1, opcode=0x7777, call_id=number) for number in range(1, 9)]
    good = frame(Kind.REQUEST, b"\x92\xa0\0", codec=2, version=1, opcode=ECHO.opcode, call_id=9)
    for _ in bad:
        peer.connection.send_request(0x7777, b"")
    peer.connection.data_to_send()  # the same REQUESTs go out below, all at once
    peer.socket.sendall(b"".join(bad) + good)
    assert [peer.expect(ErrorReceived).error.reason for _ in range(4)] == ["UNKNOWN_OPCODE"] * 4
    end = peer.ended()
    assert end.error is not None
    assert end.error.reason == "TOO_MANY_ERRORS"
    until(lambda: not server.sessions, "the session is closed")
    no_errors(caplog)
