"""Behind a client's end of its output: unary calls are answered, streams go on as far as they have credit."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.server.peer import Peer, until, window
from tests.server.service import (
    BLOCK,
    COUNT,
    ECHO,
    SERVICE,
    BlockRequest,
    BlockResponse,
    CountRequest,
    CountResponse,
    EchoRequest,
    Stage,
)
from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.wire.events import ConnectionEnded, EndReceived, ErrorReceived, ItemReceived, ResponseReceived
from wireproto.wire.frame import Credit
from wireproto.wire.metadata import Metadata


def half_close(peer: Peer) -> None:
    """Say nothing more, behind what is queued."""
    peer.connection.end_output()
    peer.flush()
    peer.socket.shutdown(socket.SHUT_WR)


def items(peer: Peer, count: int) -> list[int]:
    return [peer.decode(COUNT, peer.expect(ItemReceived).payload).n for _ in range(count)]


def start(peer: Peer, upto: int, credit: Credit, *, fail: bool = False) -> int:
    return peer.start(COUNT, CountRequest(upto=upto, fail=fail), Metadata(credit=credit))


def test_a_stream_whose_credit_reaches_to_its_end_ends_well(peer: Peer, server: Server) -> None:
    """At credit 0 it is asked once whether it is at its end."""
    call_id = start(peer, 3, window(3))
    assert items(peer, 3) == [0, 1, 2]
    assert peer.call(ECHO, EchoRequest(text="it waits for credit")).text == "it waits for credit"
    half_close(peer)
    assert peer.expect(EndReceived).call_id == call_id
    assert peer.expect(ConnectionEnded).error is None
    until(lambda: not server.sessions, "the connection is closed")


def test_a_stream_with_more_than_its_credit_is_cancelled_behind_it(peer: Peer, stage: Stage) -> None:
    """It goes on down to credit 0; what it has beyond that nobody can be sent."""
    start(peer, 4, window(3))
    half_close(peer)
    assert items(peer, 3) == [0, 1, 2]
    error = peer.expect(ErrorReceived).error
    assert (error.status, error.reason, error.retry) == (Status.CANCELLED, "CANCELLED", Retry.MAYBE_PROCESSED)
    assert stage.generators_closed.wait(10)
    assert peer.expect(ConnectionEnded).error is None


def test_credit_in_bytes_is_credit(peer: Peer) -> None:
    """Items without bytes are none."""
    start(peer, 9, Credit(9, 1))
    half_close(peer)
    assert items(peer, 1) == [0]
    assert peer.expect(ErrorReceived).error.status is Status.CANCELLED


def test_a_stream_that_fails_at_credit_0_says_so(peer: Peer) -> None:
    """What it answers when it is asked is its own error."""
    start(peer, 2, window(2), fail=True)
    half_close(peer)
    assert items(peer, 2) == [0, 1]
    assert peer.expect(ErrorReceived).error.status is Status.ABORTED


def test_credit_that_came_before_the_end_counts(peer: Peer) -> None:
    """CREDIT in the same write as the end of the output is as good as any."""
    for _ in range(3):
        call_id = start(peer, 500, window(1))
        peer.connection.send_credit(call_id, 499, 0)
    half_close(peer)
    got = []
    for _ in range(1503):
        event = peer.event()
        assert isinstance(event, ItemReceived | EndReceived)
        if isinstance(event, ItemReceived):
            got.append(peer.decode(COUNT, event.payload).n)
    assert sorted(got) == sorted(3 * list(range(500)))
    assert peer.expect(ConnectionEnded).error is None


def test_a_stream_goes_on_behind_the_half_close(stage: Stage, connect: Callable[..., Peer]) -> None:
    """Its source may block and go on later, beside calls that are answered."""
    gate = threading.Event()
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
        for n in range(request.upto):
            if n == 1:
                assert gate.wait(30)
            yield CountResponse(n=n)

    @handlers.register(BLOCK)
    def block(request: BlockRequest, context: Context) -> BlockResponse:
        assert gate.wait(30)
        return BlockResponse(name=request.name, cancelled=context.cancelled)

    with Server(handlers, codecs=["msgpack"]) as server:
        peer = connect(server)
        start(peer, 5, window(100))
        assert items(peer, 1) == [0]
        blocked = peer.start(BLOCK, BlockRequest(name="b"))
        half_close(peer)
        (session,) = server.sessions.values()
        until(lambda: session.half_closed, "the end of the input is read")
        gate.set()
        events = [peer.event() for _ in range(6)]
        (answer,) = (event for event in events if isinstance(event, ResponseReceived))
        assert answer.call_id == blocked
        assert not peer.decode(BLOCK, answer.payload).cancelled
        rest = [peer.decode(COUNT, event.payload).n for event in events if isinstance(event, ItemReceived)]
        assert rest == [1, 2, 3, 4]
        assert sum(isinstance(event, EndReceived) for event in events) == 1
        assert peer.expect(ConnectionEnded).error is None


def test_a_stream_without_credit_that_begins_behind_the_half_close_is_asked(peer: Peer) -> None:
    """It is asked for its end and not for an item, and ends."""
    call_id = peer.start(COUNT, CountRequest(upto=0))
    other = peer.start(COUNT, CountRequest(upto=1))
    half_close(peer)
    events = [peer.event() for _ in range(2)]
    kinds = {event.call_id: type(event) for event in events if isinstance(event, EndReceived | ErrorReceived)}
    assert kinds == {call_id: EndReceived, other: ErrorReceived}
    assert peer.expect(ConnectionEnded).error is None


@pytest.mark.plain
def test_all_is_over_within_the_idle_time(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """Nobody may be there any more: what still runs is ended, and the connection closed."""
    server = serve(limits=Limits(idle_timeout=0.5, heartbeat=0, max_calls=2))
    peer = connect(server)
    ids = set()
    for name in ("a", "b"):
        cancelled = peer.start(BLOCK, BlockRequest(name=name))
        peer.flush()
        assert stage.inside(name).wait(10)
        peer.connection.send_cancel(cancelled)
    for name in ("c", "d"):  # their ends would wait for those that run on
        ids.add(peer.start(BLOCK, BlockRequest(name=name)))
        peer.flush()
        assert stage.inside(name).wait(10)
    half_close(peer)
    ended = [peer.expect(ErrorReceived) for _ in range(2)]
    assert {event.call_id for event in ended} == ids
    assert {event.error.reason for event in ended} == {"CANCELLED"}
    assert peer.expect(ConnectionEnded).error is None
    until(lambda: not server.sessions, "the connection is closed")
    stage.open_gates()
