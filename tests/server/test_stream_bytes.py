"""Streams and bytes: the credit in them, what is kept when items turn out larger, and what one connection holds."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.server.peer import Peer, until
from tests.server.service import ECHO, FEED, SERVICE, EchoRequest, EchoResponse, FeedRequest, FeedResponse, Stage
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Subscription
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.server.transport import Transport
from wireproto.wire.events import EndReceived, ErrorReceived, ItemReceived
from wireproto.wire.frame import HEADER_SIZE, Credit
from wireproto.wire.metadata import Metadata

QUICK = 0.01
"""Seconds for which a server reads behind its last words, where the caller has not closed its side."""


def text_of(peer: Peer, event: ItemReceived) -> str:
    text = peer.decode(FEED, event.payload).text
    assert isinstance(text, str)
    return text


def start(peer: Peer, name: str, credit: Credit) -> int:
    call_id = peer.start(FEED, FeedRequest(name=name), Metadata(credit=credit))
    peer.flush()
    return call_id


def nothing_comes(peer: Peer) -> None:
    """Two calls are answered and nothing beside them; the leader looks at streams in between."""
    for text in ("quiet", "still quiet"):
        assert peer.call(ECHO, EchoRequest(text=text)).text == text


def both(*texts: str) -> Callable[[bool], Server]:
    """A server of one stream with these items, from a subscription or from an iterator."""

    class Whole(Subscription[FeedResponse]):
        """All that there is, as much as is asked for."""

        def __init__(self) -> None:
            self.at = 0

        def take(self, n: int) -> Sequence[FeedResponse]:
            taken = [FeedResponse(text=text) for text in texts[self.at : self.at + n]]
            if not taken:
                raise StopIteration
            self.at += len(taken)
            return taken

    def make(iterated: bool) -> Server:
        handlers = Handlers(SERVICE)

        @handlers.register(FEED)
        def feed(request: FeedRequest, context: Context) -> Iterator[FeedResponse] | Subscription[FeedResponse]:
            return (FeedResponse(text=text) for text in texts) if iterated else Whole()

        @handlers.register(ECHO)
        def echo(request: EchoRequest, context: Context) -> EchoResponse:
            return EchoResponse(text=request.text)

        return Server(handlers, codecs=["msgpack"], limits=Limits(linger=QUICK))

    return make


ITERATED = pytest.mark.parametrize("iterated", [False, True], ids=["subscription", "iterator"])


@ITERATED
def test_an_item_takes_all_its_bytes_of_the_credit(iterated: bool, connect: Callable[..., Peer]) -> None:
    """One goes out while there is one byte; then nothing, until there is one byte again."""
    with both("a" * 100, "b" * 100, "c" * 100, "d")(iterated) as server:
        peer = connect(server)
        call_id = start(peer, "f", Credit(10, 101))
        first = peer.expect(ItemReceived)
        size = len(first.payload)
        assert size == 103
        nothing_comes(peer)
        peer.connection.send_credit(call_id, 0, 3)  # 101 - 103 + 3 is 1
        assert text_of(peer, peer.expect(ItemReceived)) == "b" * 100
        nothing_comes(peer)
        peer.connection.send_credit(call_id, 5, 102)  # 1 - 103 + 102 is 0
        nothing_comes(peer)
        peer.connection.send_credit(call_id, 0, 200)
        assert text_of(peer, peer.expect(ItemReceived)) == "c" * 100
        assert text_of(peer, peer.expect(ItemReceived)) == "d"
        assert peer.expect(EndReceived).call_id == call_id


@ITERATED
@pytest.mark.parametrize("credit", [Credit(9, 0), Credit(0, 2**20)])
def test_either_number_alone_is_no_credit(iterated: bool, credit: Credit, connect: Callable[..., Peer]) -> None:
    """Items without bytes are none, nor are bytes without items."""
    with both("a")(iterated) as server:
        peer = connect(server)
        call_id = start(peer, "f", credit)
        nothing_comes(peer)
        peer.connection.send_credit(call_id, 0 if credit.items else 1, 0 if credit.bytes else 1)
        assert text_of(peer, peer.expect(ItemReceived)) == "a"
        peer.connection.send_credit(call_id, 1, 2**20)
        assert peer.expect(EndReceived).call_id == call_id


@ITERATED
def test_a_window_of_one_byte_brings_everything_item_by_item(iterated: bool, connect: Callable[..., Peer]) -> None:
    """Whoever grants what it has received makes no stream stall, however large the items are."""
    texts = [f"{number}" * (1 + 7919 * number % 5000) for number in range(40)]
    with both(*texts)(iterated) as server:
        peer = connect(server)
        call_id = start(peer, "f", Credit(1, 1))
        for text in texts:
            item = peer.expect(ItemReceived)
            assert text_of(peer, item) == text
            assert peer.connection.credit_out(call_id) == (0, 1 - len(item.payload))
            peer.connection.send_credit(call_id, 1, len(item.payload))
        peer.expect(EndReceived)


def test_what_was_taken_and_may_not_be_sent_comes_first(connect: Callable[..., Peer], stage: Stage) -> None:
    """Small items let the source be asked for many; when those are large they wait, in order, and none is lost."""
    texts = ["s"] * 3 + [f"{number}:" + "x" * 1000 for number in range(30)]
    with both(*texts, "end")(False) as server:
        peer = connect(server)
        call_id = start(peer, "f", Credit(100, 3100))
        got = [text_of(peer, peer.expect(ItemReceived)) for _ in range(3)]
        while len(got) < len(texts):
            if peer.connection.credit_out(call_id)[1] < 1:
                nothing_comes(peer)
                peer.connection.send_credit(call_id, 0, 2500)
            got.append(text_of(peer, peer.expect(ItemReceived)))
        assert got == texts
        peer.connection.send_credit(call_id, 0, 2500)
        assert text_of(peer, peer.expect(ItemReceived)) == "end"
        peer.expect(EndReceived)


class Damaged(Subscription[FeedResponse]):
    """Two small items, then three large ones of which the last cannot be encoded, all that are asked for at once."""

    def __init__(self) -> None:
        self.items: list[object] = [FeedResponse(text="a"), FeedResponse(text="b")]
        self.items += [FeedResponse(text="c" * 100), FeedResponse(text="d" * 100), EchoRequest(text="secret")]
        self.asked: list[int] = []

    def take(self, n: int) -> Sequence[FeedResponse]:
        self.asked.append(n)
        taken, self.items = self.items[:n], self.items[n:]
        return taken  # type: ignore[return-value]


@pytest.mark.parametrize("size", [50, 106, 10_000])
def test_an_item_that_is_no_item_ends_its_stream_behind_those_before_it(
    size: int, connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the credit is: all before it arrive, then one ERROR for one incident."""
    source = Damaged()
    handlers = Handlers(SERVICE)

    @handlers.register(FEED)
    def feed(request: FeedRequest, context: Context) -> Subscription[FeedResponse]:
        return source

    with Server(handlers, codecs=["msgpack"], limits=Limits(linger=QUICK)) as server, caplog.at_level(logging.ERROR):
        peer = connect(server)
        call_id = start(peer, "f", Credit(100, size))
        got = []
        while isinstance(event := peer.event(), ItemReceived):
            got.append(text_of(peer, event))
            if peer.connection.credit_out(call_id)[1] < 1:
                peer.connection.send_credit(call_id, 0, 110)
        assert isinstance(event, ErrorReceived)
        assert isinstance(event.error, CallError)
        assert event.error.reason == "INTERNAL"
        assert got == ["a", "b", "c" * 100, "d" * 100]
        assert caplog.text.count("incident") == 1
        assert source.asked[0] == 1
        assert source.asked[1] > 1


LARGE = 900_000
MARK = 1_000_000


class Endless(Subscription[FeedResponse]):
    """So many small items, and then any number of large ones, once they may go. Counts what it gave."""

    def __init__(self, small: int, go: threading.Event) -> None:
        self.small = small
        self.go = go
        self.given = 0

    def one(self) -> FeedResponse:
        self.given += 1
        return FeedResponse(text="s" if self.given <= self.small else "x" * LARGE)

    def take(self, n: int) -> Sequence[FeedResponse]:
        return [self.one() for _ in range(n)] if self.go.is_set() else []

    def __iter__(self) -> Iterator[FeedResponse]:
        assert self.go.wait(30)
        while True:
            yield self.one()


@ITERATED
@pytest.mark.parametrize("small", [0, 5], ids=["large from the first", "small before"])
@pytest.mark.parametrize("streams", [1, 3])
def test_an_unread_connection_holds_no_more_than_the_mark_and_one_frame(
    streams: int,
    small: int,
    iterated: bool,
    connect: Callable[..., Peer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of streams with much credit whose caller reads nothing: what waits for the kernel, measured at every write."""
    held = [0]
    send = Transport.send

    def measured(transport: Transport, data: bytes) -> bool:
        held.append(transport.pending + len(data))
        return send(transport, data)

    monkeypatch.setattr(Transport, "send", measured)
    go = threading.Event()
    sources: list[Endless] = []
    handlers = Handlers(SERVICE)

    @handlers.register(FEED)
    def feed(request: FeedRequest, context: Context) -> Iterator[FeedResponse] | Subscription[FeedResponse]:
        sources.append(Endless(small, go))
        return iter(sources[-1]) if iterated else sources[-1]

    with Server(handlers, codecs=["msgpack"], limits=Limits(high_watermark=MARK, low_watermark=MARK // 4)) as server:
        peer = connect(server)
        for number in range(streams):
            start(peer, f"{number}", Credit(10_000, 2**31))
        until(lambda: len(sources) == streams, "all streams are there")  # a full output would keep the server from it
        go.set()
        for source in sources:
            source.wake()
        looks: list[int] = []

        def settled() -> bool:
            looks.append(sum(source.given for source in sources))
            return len(looks) > 30 and len(set(looks[-30:])) == 1 and looks[-1] > 0

        until(settled, "the streams pause")
        assert max(held) > MARK - LARGE  # it was full, or nothing was measured
        assert max(held) <= MARK + HEADER_SIZE + LARGE + 10
        got = [peer.expect(ItemReceived) for _ in range(20 * streams)]  # and they go on once it reads
        assert sum(len(item.payload) > LARGE for item in got) >= 15 * streams
        peer.socket.close()


def test_a_source_is_asked_for_as_many_as_fit(connect: Callable[..., Peer]) -> None:
    """By the size of the last one, under the mark and within the credit; for one at first, and for one at least."""

    class Sized(Endless):
        def __init__(self) -> None:
            super().__init__(0, threading.Event())
            self.go.set()
            self.asked: list[int] = []

        def take(self, n: int) -> Sequence[FeedResponse]:
            self.asked.append(n)
            return super().take(min(n, 300 - self.given))

        def one(self) -> FeedResponse:
            self.given += 1
            return FeedResponse(text="x" * 10_000)

    sources: list[Sized] = []
    handlers = Handlers(SERVICE)

    @handlers.register(FEED)
    def feed(request: FeedRequest, context: Context) -> Subscription[FeedResponse]:
        sources.append(Sized())
        return sources[-1]

    limits = Limits(high_watermark=100_000, low_watermark=10_000, linger=QUICK)
    with Server(handlers, codecs=["msgpack"], limits=limits) as server:
        peer = connect(server)
        start(peer, "f", Credit(10_000, 2**31))
        for _ in range(300):
            peer.expect(ItemReceived)
        assert sources[0].asked[0] == 1
        assert max(sources[0].asked) == 100_001 // 10_003
        start(peer, "g", Credit(100, 35_000))
        for _ in range(4):
            peer.expect(ItemReceived)
        assert sources[1].asked == [1, 2, 1]


def test_credit_never_lets_more_out_than_was_granted(stage: Stage, peer: Peer) -> None:
    """The receiver's own count agrees item by item: its connection would end with CREDIT_EXCEEDED."""
    call_id = start(peer, "f", Credit(7, 40))
    feed = stage.feed("f")
    feed.put(*("y" * (number % 13) for number in range(400)))
    for number in range(400):
        item = peer.expect(ItemReceived)
        assert text_of(peer, item) == "y" * (number % 13)
        peer.connection.send_credit(call_id, 1, len(item.payload))
    feed.end()
    peer.expect(EndReceived)
