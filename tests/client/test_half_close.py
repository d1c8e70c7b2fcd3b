"""A client that has ended its output: it says nothing more, whatever comes, and still takes its answers."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, Script, serving
from tests.client.service import COUNT, ECHO, NOTE, SERVICE, CountRequest, CountResponse, echo
from tests.impatient import ImpatientConnection
from wireproto import CallError, Client, ConnectionLost, Retry, Status, connect
from wireproto.client.link import Link
from wireproto.client.reception import LOOK
from wireproto.wire.connection import State
from wireproto.wire.events import ConnectionEnded, FlaggedRequestReceived
from wireproto.wire.frame import TOP_BIT, Flag, Kind, pack, pack_goaway

pytestmark = pytest.mark.plain  # a peer that has read the end may only answer calls: no frame of no meaning


class HalfClosed:
    """A client whose output is over while one call and one stream are in flight.

    Attributes:
        client: closed with a drain, on a thread of its own.
        link: the one that drains.
        call, stream: begun before that.
        closing: the end of ``close``.
    """

    def __init__(self, client: Client, pool: ThreadPoolExecutor, ended: threading.Event) -> None:
        self.client = client
        self.call = client.start(ECHO, echo("x"))
        self.stream = client.stream(COUNT, CountRequest(upto=9), credit=4, batch=1)
        self.link = client._line.links[-1]
        self.closing = pool.submit(client.close, drain=PATIENCE)
        assert ended.wait(PATIENCE)


def half_closing(ended: threading.Event, rest: Callable[[Peer], bytes], go: threading.Event) -> Script:
    """Take a call and a stream with two items, read the end, say by hand what ``rest`` gives, and answer both."""

    def script(peer: Peer) -> None:
        peer.greet()
        call, stream = peer.request(), peer.stream_request()
        for n in (1, 2):
            peer.connection.send_item(stream.call_id, peer.payload(COUNT, CountResponse(n=n)))
        peer.flush()
        assert peer.expect(ConnectionEnded).error is None  # the end, and nothing between
        ended.set()
        assert go.wait(PATIENCE)
        with contextlib.suppress(ConnectionError):  # the client may be gone: see the test of calls that are given up
            peer.sock.sendall(rest(peer))
            peer.answer(call)
            peer.refuse(stream, CallError(Status.CANCELLED, "CANCELLED"))

    return script


def nothing(peer: Peer) -> bytes:
    return b""


def whatever_asks_for_an_answer(peer: Peer) -> bytes:
    """Frames that cross the end of the client's output, all of which an open one would answer."""
    codec, version = peer.connection.codec, peer.connection.version
    return b"".join(
        (
            pack(Kind.PING, 0, 0, 0, 0, b"", b"12345678"),
            pack(Kind.REQUEST, codec, version, 1, TOP_BIT | 1, b"", b"a call"),
            pack(Kind.REQUEST, codec, version, 1, TOP_BIT | 2, b"", b"a message", Flag.ONE_WAY),
            pack(Kind.REQUEST, codec, version, 1, TOP_BIT | 3, b"", b"", Flag.ITEMS_FOLLOW),
            pack(Kind.GOAWAY, 0, 0, 0, 0, b"", pack_goaway(2, CallError(Status.UNAVAILABLE, "SHUTTING_DOWN"))),
        )
    )


@pytest.mark.parametrize("rest", [nothing, whatever_asks_for_an_answer])
def test_what_comes_behind_the_end_of_our_output_is_taken_and_never_answered(rest: Callable[[Peer], bytes]) -> None:
    """The core knows that nothing may be sent: no PONG, no refusal; the answers come all the same."""
    ended, go = threading.Event(), threading.Event()
    with serving(half_closing(ended, rest, go)) as server, ThreadPoolExecutor(1) as pool:
        one = HalfClosed(connect(server.address, SERVICE), pool, ended)
        assert one.link._connection.state is State.HALF_CLOSED
        go.set()
        assert one.call.result(PATIENCE).text == "x"
        assert [one.stream.next(PATIENCE).n, one.stream.next(PATIENCE).n] == [1, 2]
        with pytest.raises(CallError, match="CANCELLED"):
            one.stream.next(PATIENCE)
        one.closing.result(PATIENCE)


def test_nothing_is_sent_behind_the_end_of_our_output() -> None:
    """Credit that is due, a stream that is closed, a call that is cancelled or whose time is up, a PING: none goes."""
    ended, go = threading.Event(), threading.Event()
    with serving(half_closing(ended, nothing, go)) as server, ThreadPoolExecutor(1) as pool:
        one = HalfClosed(connect(server.address, SERVICE), pool, ended)
        assert one.stream.next(PATIENCE).n == 1
        one.stream.acknowledge()
        one.stream.close()
        with pytest.raises(ConnectionLost, match="the client is done") as caught:
            one.link.ping(None)
        assert caught.value.retry is Retry.NOT_PROCESSED
        assert not one.link._connection.bytes_pending
        assert one.link._output.waiting == b""
        go.set()
        assert one.call.result(PATIENCE).text == "x"
        one.closing.result(PATIENCE)


def test_a_call_that_is_given_up_behind_the_end_of_our_output_is_the_last_of_the_link() -> None:
    """The server cannot be told; nobody waits for it any more, so the connection is closed."""
    ended, go = threading.Event(), threading.Event()
    with serving(half_closing(ended, nothing, go)) as server, ThreadPoolExecutor(1) as pool:
        one = HalfClosed(connect(server.address, SERVICE), pool, ended)
        one.stream.close()
        assert one.call.cancel()
        one.closing.result(PATIENCE)
        go.set()


def test_one_way_calls_are_waited_for_up_to_the_end_of_the_server() -> None:
    """Nothing answers them: a client that closed with nothing in flight could take them back, if input was unread."""
    go = threading.Event()
    taken: list[FlaggedRequestReceived] = []

    def script(peer: Peer) -> None:
        peer.greet(one_way=3)
        assert go.wait(PATIENCE)
        while not isinstance(event := peer.event(), ConnectionEnded):
            if isinstance(event, FlaggedRequestReceived):
                taken.append(event)
            peer.flush()
        assert event.error is None

    with serving(script) as server, ThreadPoolExecutor(1) as pool:
        client = connect(server.address, SERVICE)
        for text in "abc":
            client.post(NOTE, echo(text))
        closing = pool.submit(client.close, drain=PATIENCE)
        with pytest.raises(TimeoutError):
            closing.result(0.05)
        go.set()
        closing.result(PATIENCE / 2)
    assert [request.opcode for request in taken] == [NOTE.opcode] * 3


def test_two_threads_may_close_at_once() -> None:
    """The output is ended once, and both return when the server has answered."""
    ended, go = threading.Event(), threading.Event()
    with serving(half_closing(ended, nothing, go)) as server, ThreadPoolExecutor(2) as pool:
        one = HalfClosed(connect(server.address, SERVICE), pool, ended)
        finishing = pool.submit(one.link.finish, one.link._clock() + PATIENCE)
        with pytest.raises(TimeoutError):
            finishing.result(0.05)
        go.set()
        assert one.call.result(PATIENCE).text == "x"
        finishing.result(PATIENCE / 2)
        one.closing.result(PATIENCE / 2)


def test_a_silent_server_is_not_asked_and_not_looked_at_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that is due when nothing may be sent is left out, and does not keep the keeper busy."""
    looks = 0
    tend = Link.tend

    def counted(self: Link) -> None:
        nonlocal looks
        looks += 1
        tend(self)

    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(heartbeat_ms=1000)
        call = peer.request()
        while not isinstance(peer.event(), ConnectionEnded):
            peer.flush()
        assert not answered.wait(12 * 0.1)  # long enough for many heartbeats of an impatient connection
        peer.answer(call)

    with serving(script) as server, connect(server.address, SERVICE, connections=ImpatientConnection) as client:
        call = client.start(ECHO, echo("x"))
        monkeypatch.setattr(Link, "tend", counted)
        call.add_done_callback(lambda _: answered.set())
        client.close(drain=PATIENCE)
        assert call.result(PATIENCE).text == "x"
        assert looks <= 3 + PATIENCE / LOOK
