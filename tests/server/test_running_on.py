"""Handlers that run on behind the end of their call: how many there may be, and whose end waits for one to be back."""

import socket
import threading
from collections.abc import Callable

import pytest

from tests.server.peer import Peer, until
from tests.server.service import (
    BLOCK,
    DEFER,
    ECHO,
    FEED,
    BlockRequest,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    FeedRequest,
    Stage,
)
from wireproto.answering.running_on import RunningOn
from wireproto.errors import CallError
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.server import Server
from wireproto.status import Retry
from wireproto.wire.connection import Connection
from wireproto.wire.events import NEED_DATA, ErrorReceived, ResponseReceived
from wireproto.wire.metadata import Metadata

CANCELLED = failure("CANCELLED", "for this test")
DEADLINE = failure("DEADLINE", "for this test")


def running(peer: Peer, stage: Stage, name: str, metadata: Metadata | None = None) -> int:
    """A call whose handler has begun, and waits."""
    call_id = peer.start(BLOCK, BlockRequest(name=name), metadata)
    peer.flush()
    assert stage.inside(name).wait(10)
    return call_id


def cancel(peer: Peer, stage: Stage, call_id: int, name: str) -> None:
    """Cancel it, and wait until the server has read that."""
    assert peer.connection.send_cancel(call_id)
    peer.flush()
    until(lambda: stage.contexts[name].cancelled, "CANCEL is read")


def echo(peer: Peer) -> None:
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"


def in_flight(server: Server) -> int:
    (session,) = server.sessions.values()
    connection = session.connection
    assert isinstance(connection, Connection)
    return connection.peer_calls


def test_a_call_counts_until_its_terminal_frame_and_no_longer(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """Handlers that run on take no place: as many calls as ever may be in flight beside them."""
    peer = connect(serve(limits=Limits(max_calls=2)))
    for name in ("a", "b"):
        cancel(peer, stage, running(peer, stage, name), name)
    echo(peer)
    assert len(peer.over) == 2
    ids = {running(peer, stage, name) for name in ("c", "d")}
    assert peer.fail(ECHO, EchoRequest()).reason == "TOO_MANY_CALLS"
    stage.open_gates()
    assert {peer.expect(ResponseReceived).call_id for _ in range(2)} == ids


def test_the_end_of_one_more_waits_until_a_handler_is_back(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """With as many handlers running on as calls may be in flight, a cancelled call keeps its place, in their order."""
    server = serve(limits=Limits(max_calls=2))
    peer = connect(server)
    for name in ("a", "b"):
        cancel(peer, stage, running(peer, stage, name), name)
    third = running(peer, stage, "c")
    cancel(peer, stage, third, "c")
    echo(peer)
    assert third not in peer.over
    fourth = running(peer, stage, "d")
    cancel(peer, stage, fourth, "d")
    assert peer.fail(ECHO, EchoRequest()).reason == "TOO_MANY_CALLS"
    assert in_flight(server) == 2
    stage.gate("a").set()
    until(lambda: in_flight(server) == 1, "the next one ends")
    echo(peer)
    assert peer.over[2:] == [third]
    stage.gate("b").set()
    until(lambda: in_flight(server) == 0, "the last one ends")
    echo(peer)
    assert peer.over[2:] == [third, fourth]


def test_a_call_whose_end_waits_ends_when_its_own_handler_is_back(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """It ends with the error that waits, whatever its handler answers; the others run on, and still count."""
    server = serve(limits=Limits(max_calls=1))
    peer = connect(server)
    first = running(peer, stage, "a")
    cancel(peer, stage, first, "a")
    echo(peer)
    own = running(peer, stage, "own", Metadata(deadline_ms=50))
    until(lambda: stage.contexts["own"].cancelled, "its deadline is up")
    assert peer.fail(ECHO, EchoRequest()).reason == "TOO_MANY_CALLS"
    stage.gate("own").set()
    ended = peer.expect(ErrorReceived)
    assert (ended.call_id, ended.error.reason, ended.error.retry) == (own, "DEADLINE", Retry.MAYBE_PROCESSED)
    again = running(peer, stage, "again")
    cancel(peer, stage, again, "again")
    assert in_flight(server) == 1  # "a" runs on
    assert peer.over == [first]
    stage.gate("a").set()
    until(lambda: in_flight(server) == 0, "it ends")


def test_a_call_whose_end_waits_is_ended_once(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """CANCEL behind a deadline whose ERROR waits changes nothing: that ERROR is the terminal frame."""
    server = serve(limits=Limits(max_calls=1))
    peer = connect(server)
    cancel(peer, stage, running(peer, stage, "a"), "a")
    late = running(peer, stage, "late", Metadata(deadline_ms=50))
    until(lambda: stage.contexts["late"].cancelled, "its deadline is up")
    assert peer.connection.send_cancel(late)
    peer.flush()
    stage.gate("a").set()
    until(lambda: in_flight(server) == 0, "it ends")
    echo(peer)
    assert peer.over[1:] == [late]


def test_one_that_is_still_queued_ends_at_once_and_leaves_the_queue(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """What has not begun is not processed, takes no place anywhere, and does not wait for those that run on."""
    server = serve(limits=Limits(max_calls=1, run_queue=1), workers=2)
    peer = connect(server)
    cancel(peer, stage, running(peer, stage, "a"), "a")
    until(lambda: in_flight(server) == 0, "it is over, and runs on")
    for number in range(20):
        error = peer.fail(BLOCK, BlockRequest(name=f"{number}"), Metadata(deadline_ms=10))
        assert (error.reason, error.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
    assert set(stage.contexts) == {"a"}
    stage.open_gates()
    echo(peer)


def test_a_deferred_answer_counts_until_its_future_is_done(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A future that cannot be cancelled any more is work that runs on."""
    server = serve(limits=Limits(max_calls=1))
    peer = connect(server)
    first = peer.start(DEFER, DeferRequest(name="f"))
    peer.flush()
    future = stage.future("f")
    assert future.set_running_or_notify_cancel()
    assert peer.connection.send_cancel(first)
    echo(peer)
    second = running(peer, stage, "b")
    cancel(peer, stage, second, "b")
    assert in_flight(server) == 1
    future.set_result(DeferResponse(name="f"))
    until(lambda: in_flight(server) == 0, "the future is done, so the next one ends")
    echo(peer)
    assert peer.over == [first, second]


def test_the_end_of_the_grace_waits_for_nobody(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """Every call is ended in words when the server's time is over: those that wait, too, with what waits."""
    server = serve(limits=Limits(max_calls=2))
    peer = connect(server)
    for name in ("a", "b"):
        cancel(peer, stage, running(peer, stage, name), name)
    late = running(peer, stage, "late", Metadata(deadline_ms=50))
    until(lambda: stage.contexts["late"].cancelled, "its deadline is up")
    last = running(peer, stage, "last")
    (session,) = server.sessions.values()
    session.cut("the time is over")
    ended = {event.call_id: event.error.reason for event in (peer.expect(ErrorReceived) for _ in range(2))}
    assert ended == {late: "DEADLINE", last: "SHUTTING_DOWN"}
    assert peer.ended().error is None


def test_a_half_close_ends_streams_though_handlers_run_on(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A stream's handler is back, so its end waits for nobody; a call whose end waits keeps the connection."""
    server = serve(limits=Limits(max_calls=2))
    peer = connect(server)
    for name in ("a", "b"):
        cancel(peer, stage, running(peer, stage, name), name)
    stream = peer.start(FEED, FeedRequest(name="s"))
    late = running(peer, stage, "late", Metadata(deadline_ms=50))
    stage.feed("s")
    until(lambda: stage.contexts["late"].cancelled, "its deadline is up")
    peer.socket.shutdown(socket.SHUT_WR)
    ended = peer.expect(ErrorReceived)
    assert (ended.call_id, ended.error.reason) == (stream, "CANCELLED")
    stage.gate("a").set()
    ended = peer.expect(ErrorReceived)
    assert (ended.call_id, ended.error.reason) == (late, "DEADLINE")
    assert peer.ended().error is None
    until(lambda: not server.sessions, "the connection is closed")


def test_a_lost_connection_forgets_who_waits(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers that come back behind the end of their connection find nobody to answer."""
    server = serve(limits=Limits(max_calls=1))
    peer = connect(server)
    cancel(peer, stage, running(peer, stage, "a"), "a")
    cancel(peer, stage, running(peer, stage, "b"), "b")
    peer.raw.reset()
    until(lambda: not server.sessions, "the session is closed")
    stage.open_gates()
    until(lambda: len(server.pool._parked) >= 7, "the workers are back")
    assert "please report" not in caplog.text


def test_a_client_that_counts_terminal_frames_is_never_refused(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """Calls that are cancelled, late, answered and deferred, always as many in flight as are allowed."""
    most = 4
    server = serve(limits=Limits(max_calls=most, cancel_burst=10_000), workers=6)
    peer = connect(server)
    refused: list[CallError] = []
    returned = threading.Event()

    def let_go() -> None:
        """Handlers come back now and then, on a thread of their own."""
        while not returned.wait(0.01):
            for name in list(stage.entered):
                stage.gate(name).set()

    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        for number in range(400):
            while peer.connection.own_calls >= most:
                take(peer, refused)
            metadata = Metadata(deadline_ms=1 + number % 7) if number % 3 == 0 else None
            if number % 2:
                call_id = peer.start(BLOCK, BlockRequest(name=f"{number}"), metadata)
            else:
                call_id = peer.start(ECHO, EchoRequest(text=f"{number}"), metadata)
            if number % 5 < 3:
                peer.flush()
                peer.connection.send_cancel(call_id)
        while peer.connection.own_calls:
            take(peer, refused)
    finally:
        returned.set()
        thread.join(20)
    assert [error.reason for error in refused if error.reason not in ("DEADLINE", "SERVER_BUSY")] == []


def take(peer: Peer, refused: list[CallError]) -> None:
    """Read until a call is over."""
    before = peer.connection.own_calls
    while peer.connection.own_calls == before:
        event = peer.connection.next_event()
        if isinstance(event, ErrorReceived):
            refused.append(event.error)
        elif event is NEED_DATA:
            peer.flush()
            peer.connection.receive_data(peer.socket.recv(65536))


def test_counting() -> None:
    """The rule by itself: who ends at once, who waits, and for whom."""
    handlers: RunningOn[str] = RunningOn(2)
    assert handlers.may_end("a", CANCELLED)
    assert handlers.may_end("b", CANCELLED)
    assert not handlers.may_end("c", DEADLINE)
    assert not handlers.may_end("d", CANCELLED)
    assert handlers.back("d") == ("d", CANCELLED)
    assert handlers.back("a") == ("c", DEADLINE)
    assert handlers.back("b") is None
    assert handlers.may_end("e", CANCELLED)
    assert not handlers.may_end("f", DEADLINE)
    assert handlers.let_all_end() == [("f", DEADLINE)]
    assert handlers.may_end("g", CANCELLED)
    assert [handlers.back(call) for call in "cefg"] == [None] * 4
