"""Topics behind every door: who keeps up, who does not, and who comes back."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.server.newsroom import ALERTS, NEWSROOM, PAPER, TICKS, ListenRequest, News, Newsroom, publish
from tests.server.peer import Peer, until, window
from wireproto import CallError, Client, Context, Gap, Handlers, Server, Subscription
from wireproto.client import Backoff, BlockingClient
from wireproto.client.grpc import GrpcClient
from wireproto.dispatch import Entry
from wireproto.server.gateway import GrpcGateway
from wireproto.testing import FaultProxy
from wireproto.wire.events import AnsweredBeside, EndReceived, ErrorReceived, ItemReceived
from wireproto.wire.metadata import Metadata

DOORS = ("pipe", "msgpack", "protobuf", "grpc")
PATIENCE = 20.0


@contextmanager
def served(room: Newsroom, door: str) -> Iterator[Any]:
    server: Any = GrpcGateway(room.handlers, port=0) if door == "grpc" else Server(room.handlers, workers=4)
    with server:
        yield server


def client_of(door: str, address: Any) -> BlockingClient:
    if door == "grpc":
        return GrpcClient(address, NEWSROOM, backoff=Backoff(0.1, 0.2))
    return Client(address, NEWSROOM, codec=door, backoff=Backoff(0.001, 0.002))


@pytest.mark.parametrize("door", DOORS)
def test_all_who_listen_are_given_each_item(door: str) -> None:
    """In order, and those of one codec the same bytes: an item is encoded once, however many listen."""
    room = Newsroom(keep=200)
    with served(room, door) as server, client_of(door, server.address) as client:
        streams = [client.stream(TICKS, ListenRequest(), timeout=PATIENCE) for _ in range(5)]
        until(lambda: room.ticks.subscribers == 5, "all listen")
        publish(room.ticks, 1, 150)
        for stream in streams:
            assert [next(stream).number for _ in range(150)] == list(range(1, 151))
        room.ticks.close()
        for stream in streams:
            assert list(stream) == []
        until(lambda: room.ticks.subscribers == 0, "nobody listens")


def test_an_item_is_encoded_once_for_each_codec_however_slow_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come for it late find the bytes, too, as long as the item is kept."""
    room = Newsroom(keep=300)
    encoded: list[object] = []
    encode = Entry.encode

    def counted(entry: Entry, answer: object) -> Any:
        encoded.append(answer)
        return encode(entry, answer)

    monkeypatch.setattr(Entry, "encode", counted)
    with (
        served(room, "msgpack") as server,
        client_of("msgpack", server.address) as one,
        client_of("pipe", server.address) as other,
    ):
        streams = [each.stream(TICKS, ListenRequest(), timeout=PATIENCE, credit=10) for each in (one, other) * 3]
        until(lambda: room.ticks.subscribers == 6, "all listen")
        publish(room.ticks, 1, 300)
        for stream in streams:
            assert [next(stream).number for _ in range(300)] == list(range(1, 301))
            stream.close()
    assert len(encoded) == 2 * 300


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_a_caller_without_credit_is_ended_where_the_method_says_so(codec: str) -> None:
    """The ERROR needs no credit; who keeps up goes on."""
    room = Newsroom(keep=4)
    with served(room, codec) as server, Peer(server, NEWSROOM, codec=codec) as peer:
        slow = peer.start(ALERTS, ListenRequest(), Metadata(credit=window(1)))
        peer.flush()
        until(lambda: room.alerts.subscribers == 1, "it listens")
        publish(room.alerts, 1, 1)
        assert peer.decode(ALERTS, peer.expect(ItemReceived).payload).number == 1
        publish(room.alerts, 2, 5)  # as many as are kept
        assert room.alerts.subscribers == 1
        publish(room.alerts, 6, 6)
        error = peer.expect(ErrorReceived)
        assert (error.call_id, error.error.reason) == (slow, "SLOW_CONSUMER")
        until(lambda: room.alerts.subscribers == 0, "it is gone")
        peer.start(ALERTS, ListenRequest(), Metadata(credit=window(10)))
        peer.flush()
        until(lambda: room.alerts.subscribers == 1, "it listens again")
        publish(room.alerts, 7, 7)
        assert peer.decode(ALERTS, peer.expect(ItemReceived).payload).number == 7


def test_a_caller_without_credit_hears_the_end_of_a_topic() -> None:
    """END needs no credit, if the caller has all there was."""
    room = Newsroom()
    with served(room, "msgpack") as server, Peer(server, NEWSROOM) as peer:
        peer.start(TICKS, ListenRequest(), Metadata(credit=window(1)))
        peer.flush()
        until(lambda: room.ticks.subscribers == 1, "it listens")
        publish(room.ticks, 1, 1)
        peer.expect(ItemReceived)
        room.ticks.close()
        peer.expect(EndReceived)


def test_who_comes_back_with_credit_has_what_is_kept() -> None:
    """The oldest items are left out, and the rest comes in order."""
    room = Newsroom(keep=3)
    with served(room, "msgpack") as server, Peer(server, NEWSROOM) as peer:
        call_id = peer.start(TICKS, ListenRequest(), Metadata(credit=window(1)))
        peer.flush()
        until(lambda: room.ticks.subscribers == 1, "it listens")
        publish(room.ticks, 1, 1)
        assert peer.decode(TICKS, peer.expect(ItemReceived).payload).number == 1
        publish(room.ticks, 2, 100)
        peer.connection.send_credit(call_id, 10, 0)
        told = peer.expect(AnsweredBeside)
        assert isinstance(told.event, ItemReceived)
        assert (peer.decode(TICKS, told.event.payload).number, told.beside.dropped) == (98, 96)
        assert [peer.decode(TICKS, peer.expect(ItemReceived).payload).number for _ in range(2)] == [99, 100]


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_what_was_left_out_is_told_exactly(codec: str) -> None:
    """With the item behind it, as often as it happens; what a caller has and what it was told is all there was."""
    room = Newsroom(keep=3)
    with served(room, codec) as server, client_of(codec, server.address) as client:
        stream = client.stream(TICKS, ListenRequest(), timeout=PATIENCE, credit=1)
        until(lambda: room.ticks.subscribers == 1, "it listens")
        publish(room.ticks, 1, 1)
        assert (next(stream).number, stream.dropped) == (1, 0)
        publish(room.ticks, 2, 100)  # without credit, which goes back when the next item is asked for
        assert (next(stream).number, stream.dropped) == (98, 96)
        assert (next(stream).number, stream.dropped) == (99, 96)
        publish(room.ticks, 101, 105)
        assert (next(stream).number, stream.dropped) == (103, 99)
        room.ticks.close()
        assert [each.number for each in stream] == [104, 105]
        assert stream.dropped == 99


def test_what_was_left_out_is_summed_over_grpc() -> None:
    """It is told at the end, in the trailing metadata."""
    room = Newsroom(keep=3)
    last = 400
    with served(room, "grpc") as server, client_of("grpc", server.address) as client:
        stream = client.stream(TICKS, ListenRequest(), timeout=PATIENCE)
        until(lambda: room.ticks.subscribers == 1, "it listens")
        publish(room.ticks, 1, last, size=20_000)  # more than HTTP/2's windows take
        room.ticks.close()
        items = [each.number for each in stream]
    assert items == sorted(set(items))
    assert items[-3:] == [last - 2, last - 1, last]
    assert stream.dropped == last - len(items) > 0


def test_what_was_left_out_is_summed_over_the_calls_of_a_stream() -> None:
    """A stream that is followed has what all its calls were told."""
    room = Newsroom(keep=3)
    with (
        served(room, "msgpack") as server,
        FaultProxy(server.address) as proxy,
        client_of("msgpack", proxy.address) as client,
    ):
        with client.follow(PAPER, ListenRequest(), timeout=PATIENCE, credit=1) as items:
            for first in (1, 101):
                until(lambda: room.paper.subscribers == 1, "it listens")
                publish(room.paper, first, first)
                assert next(items) == News(number=first)
                publish(room.paper, first + 1, first + 50)
                assert next(items) == News(number=first + 48)
                assert items.dropped == (47 if first == 1 else 94)
                proxy.reset()
                until(lambda: room.paper.subscribers == 0, "it has gone")
                assert next(items) == News(number=first + 49)
                assert next(items) == News(number=first + 50)
        assert items.reopened == 2


class Counting(Subscription[News]):
    """Gives one item and ends, and says of either that so much was left out before."""

    def __init__(self, item: Any, end: Any, closed: threading.Event) -> None:
        self._counts = [end, item]
        self._closed = closed

    def take(self, n: int) -> list[News]:
        self.dropped = self._counts.pop()
        if not self._counts:
            raise StopIteration
        return [News(number=1)]

    def close(self, reason: str) -> None:
        self._closed.set()


class Counter:
    """Handlers of one such stream."""

    def __init__(self, item: Any, end: Any) -> None:
        self.closed = threading.Event()
        self.handlers = Handlers(NEWSROOM)

        @self.handlers.register(TICKS)
        def count(request: ListenRequest, context: Context) -> Subscription[News]:
            return Counting(item, end, self.closed)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("counts", [(0, None), (-1, 0), (0, -1), ("2", 0), (0, "2")], ids=str)
def test_what_is_no_count_of_items_ends_its_stream(door: str, counts: tuple[Any, Any]) -> None:
    """INTERNAL, as whatever else is wrong with a source; its caller does not wait, and it is closed."""
    counter: Any = Counter(*counts)
    with served(counter, door) as server, client_of(door, server.address) as client:
        with pytest.raises(CallError, match="INTERNAL"):
            list(client.stream(TICKS, ListenRequest(), timeout=PATIENCE))
        assert counter.closed.wait(PATIENCE)


@pytest.mark.parametrize("door", DOORS)
def test_what_is_more_than_can_be_told_is_told_as_the_most(door: str) -> None:
    """2**32 - 1 items, through every door."""
    counter: Any = Counter(0, 1 << 40)
    with served(counter, door) as server, client_of(door, server.address) as client:
        stream = client.stream(TICKS, ListenRequest(), timeout=PATIENCE)
        assert len(list(stream)) == 1
        assert stream.dropped == (1 << 32) - 1


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
def test_a_caller_that_reads_nothing_is_ended(door: str) -> None:
    """Its output is full, or HTTP/2's windows are; the publisher does not wait for it, nor does who reads."""
    room = Newsroom(keep=64)
    with (
        served(room, door) as server,
        client_of(door, server.address) as client,
        client_of(door, server.address) as other,
    ):
        slow = client.stream(ALERTS, ListenRequest(), timeout=PATIENCE)
        quick = other.stream(ALERTS, ListenRequest(), timeout=PATIENCE)
        until(lambda: room.alerts.subscribers == 2, "both listen")
        number = 0
        deadline = time.monotonic() + PATIENCE
        while room.alerts.subscribers == 2:
            assert time.monotonic() < deadline
            number += 1
            publish(room.alerts, number, number, size=50_000)
            assert next(quick).number == number
        with pytest.raises(CallError, match="SLOW_CONSUMER"):
            list(slow)
        number += 1
        publish(room.alerts, number, number)
        assert next(quick).number == number


@pytest.mark.parametrize("door", DOORS)
def test_a_topic_is_followed_over_losses(door: str) -> None:
    """While items are published all the time and the connection is reset again and again: each item once."""
    room = Newsroom(keep=5000)
    last = 2000
    with served(room, door) as server, FaultProxy(server.address) as proxy, client_of(door, proxy.address) as client:
        items = client.follow(PAPER, ListenRequest(), timeout=3 * PATIENCE)
        until(lambda: room.paper.subscribers == 1, "it listens")
        publishing = threading.Thread(target=publish, args=(room.paper, 1, last))
        publishing.start()
        seen: list[Any] = []
        while not seen or seen[-1].number < last:
            seen.append(next(items))
            if len(seen) % 400 == 1:
                proxy.reset()
        publishing.join()
        assert items.reopened >= 3
        items.close()
    assert [each.number for each in seen] == list(range(1, last + 1))


@pytest.mark.parametrize("door", ["msgpack", "grpc"])
def test_a_topic_that_has_dropped_the_position_says_so(door: str) -> None:
    """Behind what is kept there is a gap, and the stream goes on with what comes."""
    room = Newsroom(keep=3)
    publish(room.paper, 1, 10)
    with served(room, door) as server, client_of(door, server.address) as client:
        with client.follow(PAPER, ListenRequest(), after=7, timeout=PATIENCE) as items:
            assert [next(items), next(items), next(items)] == [News(number=n) for n in (8, 9, 10)]
        until(lambda: room.paper.subscribers == 0, "it has gone")
        with client.follow(PAPER, ListenRequest(), after=6, timeout=PATIENCE) as items:
            assert next(items) == Gap(6)
            until(lambda: room.paper.subscribers == 1, "it listens")
            publish(room.paper, 11, 11)
            assert next(items) == News(number=11)
