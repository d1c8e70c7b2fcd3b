"""Server streams: credit, subscriptions, iterators, cancel, ends of every kind."""

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.server.peer import Peer, until, window
from tests.server.service import (
    COUNT,
    ECHO,
    FEED,
    SERVICE,
    CountRequest,
    CountResponse,
    EchoRequest,
    EchoResponse,
    Feed,
    FeedRequest,
    Stage,
)
from wireproto.dispatch import Handlers
from wireproto.handling import Context, Subscription
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.status import Status
from wireproto.wire.events import EndReceived, ErrorReceived, ItemReceived
from wireproto.wire.metadata import Metadata


def items(peer: Peer, n: int) -> list[int]:
    return [peer.decode(COUNT, peer.expect(ItemReceived).payload).n for _ in range(n)]


def texts(peer: Peer, n: int) -> list[str]:
    return [peer.decode(FEED, peer.expect(ItemReceived).payload).text for _ in range(n)]


def test_an_iterator_streams_within_its_credit(peer: Peer) -> None:
    """Items come in order, never more than were granted, and END comes after the last."""
    call_id = peer.start(COUNT, CountRequest(upto=5), Metadata(credit=window(2)))
    assert items(peer, 2) == [0, 1]
    assert peer.call(ECHO, EchoRequest(text="beside")).text == "beside"
    peer.connection.send_credit(call_id, 10, 0)
    assert items(peer, 3) == [2, 3, 4]
    assert peer.expect(EndReceived).call_id == call_id


def test_long_iterators_are_sent_whole(peer: Peer) -> None:
    """A stream of thousands arrives complete and in order, while other calls go on."""
    peer.start(COUNT, CountRequest(upto=5000), Metadata(credit=window(10_000)))
    assert items(peer, 5000) == list(range(5000))
    peer.expect(EndReceived)


def test_credit_zero_pulls_nothing(stage: Stage, peer: Peer) -> None:
    """At credit 0 nothing is sent until credit comes."""
    call_id = peer.start(FEED, FeedRequest(name="z"), Metadata(credit=window(0)))
    peer.flush()
    feed = stage.feed("z")
    feed.put("a", "b")
    assert peer.call(ECHO, EchoRequest(text="quiet")).text == "quiet"
    assert list(feed.items) == ["a", "b"]
    peer.connection.send_credit(call_id, 1, 0)
    assert texts(peer, 1) == ["a"]
    peer.connection.send_credit(call_id, 1, 0)
    assert texts(peer, 1) == ["b"]


def test_a_subscription_sends_what_comes_later(stage: Stage, peer: Peer) -> None:
    """Items put after the stream began, from any thread, are sent; END follows StopIteration; close comes once."""
    call_id = peer.start(FEED, FeedRequest(name="f"), Metadata(credit=window(100)))
    peer.flush()
    feed = stage.feed("f")
    feed.put("one")
    assert texts(peer, 1) == ["one"]
    threads = [threading.Thread(target=feed.put, args=(str(n),)) for n in range(20)]
    for thread in threads:
        thread.start()
    assert sorted(texts(peer, 20), key=int) == [str(n) for n in range(20)]
    for thread in threads:
        thread.join(10)
    feed.end()
    assert peer.expect(EndReceived).call_id == call_id
    assert feed.was_closed.wait(10)
    assert len(feed.closed) == 1


def test_the_last_items_and_the_end_take_one_wake(stage: Stage, peer: Peer) -> None:
    """A subscription that is over once its items are taken is asked again, though it gave fewer than it could."""
    peer.start(FEED, FeedRequest(name="last"), Metadata(credit=window(10)))
    peer.flush()
    feed = stage.feed("last")
    feed.items.extend("ab")
    feed.over = True
    feed.wake()
    for text in "ab":
        assert peer.decode(FEED, peer.expect(ItemReceived).payload).text == text
    peer.expect(EndReceived)


def test_no_wake_is_lost(stage: Stage, peer: Peer) -> None:
    """A feeder that races with the pump never leaves an item lying."""
    peer.start(FEED, FeedRequest(name="r"), Metadata(credit=window(1_000_000)))
    peer.flush()
    feed = stage.feed("r")

    def put() -> None:
        for n in range(5000):
            feed.put(str(n))

    feeder = threading.Thread(target=put)
    feeder.start()
    assert texts(peer, 5000) == [str(n) for n in range(5000)]
    feeder.join(10)


def test_cancelling_closes_the_source(stage: Stage, peer: Peer) -> None:
    """CANCEL of a stream closes its subscription or generator, and the connection goes on."""
    feeding = peer.start(FEED, FeedRequest(name="x"), Metadata(credit=window(5)))
    counting = peer.start(COUNT, CountRequest(upto=10), Metadata(credit=window(1)))
    assert items(peer, 1) == [0]
    feed = stage.feed("x")
    peer.connection.send_cancel(feeding)
    peer.connection.send_cancel(counting)
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"
    assert feed.was_closed.wait(10)
    assert stage.generators_closed.wait(10)


def test_a_lost_connection_closes_its_streams(stage: Stage, server: Server, connect: Callable[..., Peer]) -> None:
    """When the peer goes away, its streams' sources are closed."""
    peer = connect(server)
    peer.start(FEED, FeedRequest(name="gone"), Metadata(credit=window(5)))
    peer.flush()
    feed = stage.feed("gone")
    peer.socket.close()
    assert feed.was_closed.wait(10)
    feed.put("nobody")
    assert len(feed.closed) == 1


def test_a_stream_that_fails_ends_with_its_error(peer: Peer) -> None:
    """An abort inside an iterator is the stream's ERROR, after the items before it."""
    peer.start(COUNT, CountRequest(upto=2, fail=True), Metadata(credit=window(10)))
    assert items(peer, 2) == [0, 1]
    assert peer.expect(ErrorReceived).error.status is Status.ABORTED


def test_a_stream_ends_at_its_deadline(stage: Stage, peer: Peer) -> None:
    """A deadline on a stream ends it with DEADLINE_EXCEEDED and closes its source."""
    peer.start(FEED, FeedRequest(name="d"), Metadata(credit=window(10), deadline_ms=50))
    assert peer.expect(ErrorReceived).error.status is Status.DEADLINE_EXCEEDED
    assert stage.feed("d").was_closed.wait(10)


def test_a_slow_reader_pauses_its_stream_only(
    stage: Stage, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A peer that does not read stops its own stream at the watermark; others are served; it gets everything later."""
    server = serve(limits=Limits(high_watermark=100_000, low_watermark=20_000))
    slow, quick = connect(server), connect(server)
    slow.start(FEED, FeedRequest(name="slow"), Metadata(credit=window(1_000_000)))
    slow.flush()
    feed = stage.feed("slow")
    total = 2000
    feed.put(*(f"{n}:" + "x" * 10_000 for n in range(total)))
    looks: list[int] = []
    until(lambda: _settled(feed, looks), "the stream pauses")
    assert len(feed.items) > 0
    assert quick.call(ECHO, EchoRequest(text="quick")).text == "quick"
    got = [text.partition(":")[0] for text in texts(slow, total)]
    assert got == [str(n) for n in range(total)]


def _settled(feed: Feed, looks: list[int]) -> bool:
    """Whether the number of items left stayed the same for a number of looks."""
    looks.append(len(feed.items))
    return len(looks) > 20 and len(set(looks[-20:])) == 1


class _Odd(Subscription[CountResponse]):
    """A subscription that misbehaves."""

    def __init__(self, how: str) -> None:
        self.how = how

    def take(self, n: int) -> list[CountResponse]:
        if self.how == "many":
            return [CountResponse(n=0)] * (n + 1)
        if self.how == "type":
            return [CountRequest(upto=1)]  # type: ignore[list-item]
        raise ValueError("secret")

    def close(self, reason: str) -> None:
        if self.how == "close":
            raise ValueError("secret")


class _Giving(Subscription[CountResponse]):
    """One item, which cannot be encoded; notes what it is asked, in order."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.giving = self

    def __enter__(self) -> None:
        self.notes.append("enter")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.notes.append(f"exit after {type(error).__name__}")

    def take(self, n: int) -> list[CountResponse]:
        self.notes.append("take")
        return [CountRequest(upto=1)]  # type: ignore[list-item]


def test_a_subscription_is_told_when_what_it_gave_is_encoded(connect: Callable[..., Peer]) -> None:
    """Its own context is entered before take, and left only when encoding has done, or failed."""
    handlers = Handlers(SERVICE)
    source = _Giving()

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Subscription[CountResponse]:
        return source

    with Server(handlers, codecs=["msgpack"]) as server:
        error = connect(server).fail(COUNT, CountRequest(upto=1), Metadata(credit=window(4)))
        assert error.status is Status.INTERNAL
    assert source.notes == ["enter", "take", "exit after CallError"]


@pytest.mark.parametrize("how", ["many", "type", "raise", "close", "none"])
def test_sources_that_misbehave_end_their_stream_only(
    how: str, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Too many items, wrong types, exceptions: INTERNAL with an incident, and the connection lives."""
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse] | Subscription[CountResponse]:
        return 3 if how == "none" else _Odd(how)  # type: ignore[return-value]

    with Server(handlers, codecs=["msgpack"]) as server:
        peer = connect(server)
        error = peer.fail(COUNT, CountRequest(upto=1), Metadata(credit=window(4)))
        assert error.status is Status.INTERNAL
        assert "secret" not in str(error)
        assert peer.fail(ECHO, EchoRequest()).reason == "NO_HANDLER"


def test_blocking_iterators_leave_half_the_pool_free(connect: Callable[..., Peer]) -> None:
    """Iterators that block inside ``next`` are capped, so unary calls still find a worker; the rest follow later."""
    gate = threading.Event()
    entered = threading.Semaphore(0)
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
        entered.release()
        assert gate.wait(30)
        yield CountResponse(n=request.upto)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        return EchoResponse(text=request.text)

    with Server(handlers, codecs=["msgpack"], workers=8) as server:
        peer = connect(server)
        for n in range(10):
            peer.start(COUNT, CountRequest(upto=n), Metadata(credit=window(10)))
        peer.flush()
        for _ in range(4):
            assert entered.acquire(timeout=10)
        assert not entered.acquire(timeout=0.1)
        assert peer.call(ECHO, EchoRequest(text="free")).text == "free"
        gate.set()
        seen: list[type] = []
        while len(seen) < 20:
            event = peer.event()
            seen.append(type(event))
        assert seen.count(ItemReceived) == 10
        assert seen.count(EndReceived) == 10


def test_one_connection_has_half_of_the_workers_that_iterate_while_another_waits(connect: Callable[..., Peer]) -> None:
    """Alone it may have them all. Once another one waits, that one is served first, until it has its own share;
    and whoever has its share is served all the same where nobody else waits."""
    # Which of the streams of one connection comes first is not said: a leader that is deposed among them changes that.
    gates = {number: threading.Event() for number in range(20)}
    entered: queue.Queue[int] = queue.Queue()
    running: set[int] = set()
    handlers = Handlers(SERVICE)

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
        entered.put(request.upto)
        assert gates[request.upto].wait(30)
        yield CountResponse(n=request.upto)

    def begin(peer: Peer, *numbers: int) -> None:
        for number in numbers:
            peer.start(COUNT, CountRequest(upto=number), Metadata(credit=window(10)))
        peer.flush()

    def who_is_next(of_greedy: bool, streams: int = 1) -> None:
        for _ in range(streams):
            number = entered.get(timeout=10)
            assert (number < 10) == of_greedy
            running.add(number)

    def end(of_greedy: bool, streams: int = 1) -> None:
        for number in [each for each in running if (each < 10) == of_greedy][:streams]:
            running.remove(number)
            gates[number].set()

    with Server(handlers, codecs=["msgpack"], workers=8) as server:

        def all_wait(streams: int) -> None:
            until(lambda: sum(map(len, list(server.pool._pulls.values()))) == streams, "all of them wait")

        greedy, other = connect(server), connect(server)
        begin(greedy, *range(10))
        who_is_next(True, 4)
        all_wait(6)
        begin(other, 10, 11, 12)
        all_wait(9)
        end(True)
        who_is_next(False)
        end(True)
        who_is_next(False)
        end(True)  # each has two now, one of which ends: its owner has less than its share
        who_is_next(True)
        end(False)
        who_is_next(False)
        end(False, 2)
        who_is_next(True, 2)
        for gate in gates.values():
            gate.set()
        who_is_next(True, 3)
        until(lambda: not server.pool._pullers and not server.pool._pulling, "nobody pulls any more")


def test_a_stream_that_filled_the_output_goes_on_when_it_is_written_at_once(
    serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A stream that paused for output which the kernel then takes in one piece is not forgotten."""
    peer = connect(serve(limits=Limits(high_watermark=200, low_watermark=100)))
    for _ in range(20):
        peer.start(COUNT, CountRequest(upto=500), Metadata(credit=window(1000)))
        assert items(peer, 500) == list(range(500))
        peer.expect(EndReceived)


def test_credit_that_comes_before_the_stream_began_counts(stage: Stage, peer: Peer) -> None:
    """CREDIT right behind its REQUEST, in one write, is as good as that of the REQUEST."""
    call_id = peer.start(FEED, FeedRequest(name="early"), Metadata(credit=window(1)))
    peer.connection.send_credit(call_id, 2, 0)
    peer.flush()
    feed = stage.feed("early")
    feed.put("a", "b", "c", "d")
    assert texts(peer, 3) == ["a", "b", "c"]
