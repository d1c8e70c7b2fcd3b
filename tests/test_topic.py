"""A topic: one ring of items, a cursor for each subscriber, and what becomes of one that does not keep up."""

import gc
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wireproto import CallError, ConfigError, EncodeError, LocalProtocolError, Retry, Status, Topic, codecs
from wireproto.dispatch import Entry, Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Service, Slow, StreamMethod
from wireproto.topic import TopicSubscription
from wireproto.wire.metadata import Metadata


class WatchRequest(Message):
    pass


class Tick(Message, weakref=True):
    number: int
    mark: str = "x"


class Other(Message):
    number: int


def method(slow: Slow = "drop_oldest", resumable: str | None = None) -> StreamMethod[WatchRequest, Tick]:
    return StreamMethod(opcode=1, name="Watch", request=WatchRequest, response=Tick, slow=slow, resumable=resumable)


class Asking(Context):
    """A call that asks to go on behind a position."""

    def __init__(self, written: bytes) -> None:
        self.metadata = Metadata(resume_after=written)

    peer = codec = version = method = draining = property(lambda self: None)

    def set_metadata(self, name: str, value: str) -> None: ...

    def sign_in(self, identity: Any) -> None: ...

    def sign_out(self) -> None: ...


def numbers(items: Any) -> list[int]:
    return [each.number for each in items]


def published(topic: Topic[Tick], first: int, last: int) -> None:
    for number in range(first, last + 1):
        topic.publish(Tick(number=number, mark=f"m{number}"))


def test_each_subscriber_has_each_item_from_its_beginning_on() -> None:
    """In order, as many at a time as there is room for."""
    topic = Topic(method(), keep=10)
    early = topic.subscribe()
    published(topic, 1, 3)
    late = topic.subscribe()
    published(topic, 4, 6)
    assert (topic.published, topic.subscribers) == (6, 2)
    assert numbers(early.take(4)) == [1, 2, 3, 4]
    assert numbers(early.take(4)) == [5, 6]
    assert numbers(early.take(4)) == []
    assert numbers(late.take(64)) == [4, 5, 6]
    assert early.dropped == late.dropped == 0
    early.close("left")
    early.close("left")
    assert topic.subscribers == 1
    assert repr(topic) == "<Topic of Watch, 6 items, 1 subscribers>"


def test_the_oldest_are_dropped_and_counted() -> None:
    """The distance of the cursor is exact, and told with the next items."""
    topic = Topic(method(), keep=3)
    slow = topic.subscribe()
    published(topic, 1, 3)
    assert numbers(slow.take(1)) == [1]
    published(topic, 4, 9)
    assert numbers(slow.take(64)) == [7, 8, 9]
    assert slow.dropped == 5
    slow.dropped = 0
    published(topic, 10, 12)
    assert numbers(slow.take(64)) == [10, 11, 12]
    assert slow.dropped == 0


def test_what_had_no_room_is_taken_back_and_may_be_dropped() -> None:
    """It counts as dropped if it is too old by the time that there is room."""
    topic = Topic(method(), keep=3)
    slow = topic.subscribe()
    published(topic, 1, 3)
    taken = slow.take(3)
    assert slow.keep(taken[1:]) == ()
    published(topic, 4, 5)
    assert numbers(slow.take(2)) == [3, 4]
    assert slow.dropped == 1


def test_the_slow_are_ended_where_the_method_says_so() -> None:
    """Once, whether they are asked for more or stalled; the others do not notice."""
    topic = Topic(method("end"), keep=3)
    woken: list[str] = []
    streams = {name: topic.subscribe() for name in ("asked", "stalled", "quick")}
    for name, each in streams.items():
        each.wake = partial(woken.append, name)
        each.take(1)
    for number in range(1, 8):
        published(topic, number, number)
        assert numbers(streams["quick"].take(64)) == [number]
        assert numbers(streams["quick"].take(64)) == []
    assert woken.count("quick") == 7
    assert woken.count("asked") == woken.count("stalled") == 2  # once for the first item, and once for the end
    for look in (lambda: streams["asked"].take(1), streams["stalled"].stalled):
        with pytest.raises(CallError) as caught:
            look()
        told = caught.value
        assert (told.status, told.reason, told.retry) == (
            Status.RESOURCE_EXHAUSTED,
            "SLOW_CONSUMER",
            Retry.MAYBE_PROCESSED,
        )
    streams["quick"].stalled()


def test_one_that_takes_back_is_as_slow_as_it_is_then() -> None:
    """The bound below all cursors goes down with a cursor."""
    topic = Topic(method("end"), keep=2)
    woken: list[int] = []
    stream = topic.subscribe()
    stream.take(1)
    published(topic, 1, 2)
    taken = stream.take(2)
    topic._slowest = 2  # as a look at all of them would have found
    stream.keep(taken)
    stream.wake = lambda: woken.append(1)
    published(topic, 3, 3)
    assert woken
    with pytest.raises(CallError, match="SLOW_CONSUMER"):
        stream.stalled()


def test_a_stalled_subscriber_costs_a_publisher_nothing() -> None:
    """It is woken for the first item that it has not taken, and not again until it has come back."""
    topic = Topic(method(), keep=3)
    woken: list[int] = []
    stream = topic.subscribe()
    stream.wake = lambda: woken.append(1)
    assert numbers(stream.take(1)) == []
    assert numbers(stream.take(1)) == []  # asked again, it waits once
    published(topic, 1, 100)
    assert woken == [1]
    stream.stalled()
    assert numbers(stream.take(3)) == [98, 99, 100]
    published(topic, 101, 101)
    assert woken == [1]  # it has not said that it has all there is
    assert numbers(stream.take(3)) == [101]
    assert numbers(stream.take(3)) == []
    published(topic, 102, 102)
    assert woken == [1, 1]


def test_a_closed_topic_ends_its_streams_behind_what_is_kept() -> None:
    """Those that have all at once, also without credit; nothing more is published."""
    topic = Topic(method(), keep=3)
    woken: list[int] = []
    behind, done = topic.subscribe(), topic.subscribe()
    published(topic, 1, 2)
    assert numbers(done.take(2)) == [1, 2]
    for each in (behind, done):
        each.wake = lambda: woken.append(1)
    topic.close()
    topic.close()
    assert len(woken) == 4
    behind.stalled()
    with pytest.raises(StopIteration):
        done.stalled()
    assert numbers(behind.take(64)) == [1, 2]
    for each in (behind, done):
        with pytest.raises(StopIteration):
            each.take(1)
    with pytest.raises(LocalProtocolError, match="the topic of Watch is closed"):
        published(topic, 3, 3)


def test_who_comes_back_goes_on_behind_a_position_that_is_kept() -> None:
    """Also behind the item that was dropped last, for nothing is missing behind that."""
    topic = Topic(method(resumable="mark"), keep=3)
    topic.subscribe()
    published(topic, 1, 9)
    assert numbers(topic.subscribe(Asking(b"m9")).take(64)) == []
    assert numbers(topic.subscribe(Asking(b"m7")).take(64)) == [8, 9]
    assert numbers(topic.subscribe(Asking(b"m6")).take(64)) == [7, 8, 9]
    assert numbers(topic.subscribe(Asking(b"")).take(64)) == []
    for written in (b"m5", b"m10", b"?"):
        with pytest.raises(CallError, match="POSITION_LOST"):
            topic.subscribe(Asking(written))
    assert len(topic._places) == 4


def test_a_topic_without_positions_has_no_place_to_go_on() -> None:
    """A position is refused before its handler; here it means nothing."""
    topic = Topic(method(), keep=3)
    published(topic, 1, 2)
    assert numbers(topic.subscribe(Asking(b"1")).take(64)) == []


def test_positions_are_each_anothers() -> None:
    """One that is kept, or was dropped last, is not taken twice; an older one may be."""
    topic = Topic(method(resumable="mark"), keep=2)
    published(topic, 1, 3)
    for number in (1, 2, 3):
        with pytest.raises(ValueError, match="there is an item with this position"):
            topic.publish(Tick(number=9, mark=f"m{number}"))
    published(topic, 4, 4)
    topic.publish(Tick(number=5, mark="m1"))
    assert topic.published == 5
    with pytest.raises(EncodeError, match="1 to 64"):
        topic.publish(Tick(number=6, mark=""))


@pytest.mark.parametrize("item", [Other(number=1), None, "x"])
def test_only_items_of_the_method_are_published(item: Any) -> None:
    """Where they are published, and not where they are sent."""
    with pytest.raises(TypeError, match="Watch gives Tick, not"):
        Topic(method()).publish(item)


@pytest.mark.parametrize(
    "given",
    [method("pause"), Method(opcode=1, name="Once", request=WatchRequest, response=Tick), None],
    ids=["paused", "unary", "nothing"],
)
def test_a_topic_is_of_a_method_that_does_not_wait(given: Any) -> None:
    """A source that is asked waits for who listens; a topic does not."""
    with pytest.raises(ConfigError, match="slow='drop_oldest' or slow='end'"):
        Topic(given)


@pytest.mark.parametrize("keep", [0, -1, True, 1.5, "3"])
def test_one_item_at_least_is_kept(keep: Any) -> None:
    """And no half ones."""
    with pytest.raises(ConfigError, match="1 or more"):
        Topic(method(), keep=keep)


def entry_of(codec: str, watch: StreamMethod[WatchRequest, Tick] | None = None) -> Entry:
    watch = watch or method()
    handlers = Handlers(Service("test.v1.WatchService", methods=[watch]))
    handlers.register(watch)(lambda request, context: [])
    return handlers.table(codecs.get(codec), 1, Limits()).entries[1]


def test_an_item_is_encoded_once_for_each_codec() -> None:
    """However far apart its subscribers are, and for no longer than it is kept."""
    topic = Topic(method(), keep=100)
    pipe, msgpack = entry_of("pipe"), entry_of("msgpack")
    streams = [topic.subscribe() for _ in range(3)]
    encoders: list[Callable[[object], Any]] = [each.encoder(pipe) for each in streams]
    other = topic.subscribe()
    published(topic, 1, 100)
    found = [[encode(item) for item in stream.take(100)] for stream, encode in zip(streams, encoders, strict=True)]
    assert all(one is two is three for one, two, three in zip(*found, strict=True))
    assert found[0][0] == b"1|m1"
    assert other.encoder(msgpack)(other.take(1)[0]) != b"1|m1"


def test_entries_that_encode_alike_share_what_they_encode() -> None:
    """Those of several servers and clients, and that of packed requests: the bytes of an item are there once."""
    topic = Topic(watch := method(), keep=4)
    entries = [entry_of("pipe", watch) for _ in range(3)]
    entries.append(entries[0].unpacking())
    streams = [topic.subscribe() for _ in entries]
    published(topic, 1, 4)
    found = [
        [encode(item) for item in stream.take(4)]
        for stream, encode in zip(streams, (s.encoder(e) for s, e in zip(streams, entries, strict=True)), strict=True)
    ]
    assert all(len(set(map(id, each))) == 1 for each in zip(*found, strict=True))
    assert [len(slot.payloads) for slot in topic._ring if slot] == [1] * 4


def test_what_cannot_be_encoded_is_no_bytes_of_anybody() -> None:
    """The error is each stream's, and an item that is taken twice at once is encoded twice."""
    topic = Topic(method(), keep=4)
    entry = entry_of("pipe")
    stream = topic.subscribe()
    bad: Any = "no number"
    topic.publish(Tick(number=bad))
    twice = Tick(number=7)
    topic.publish(twice)
    topic.publish(twice)
    encode = stream.encoder(entry)
    first, *others = [encode(item) for item in stream.take(4)]
    assert isinstance(first, CallError)
    assert others == [b"7|x", b"7|x"]


def test_nothing_is_held_beyond_what_is_kept() -> None:
    """Neither by the ring nor by a subscriber that has stopped to take."""
    topic = Topic(method(), keep=2)
    stream = topic.subscribe()
    encode = stream.encoder(entry_of("pipe"))
    tick = Tick(number=1)
    gone = weakref.ref(tick)
    topic.publish(tick)
    del tick
    for item in stream.take(1):
        encode(item)
    del item
    published(topic, 2, 3)
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("slow", ["drop_oldest", "end"])
def test_a_stream_that_was_never_returned_is_forgotten(slow: Slow) -> None:
    """Of a handler that subscribes and then fails nothing stays, and the others are given what comes."""
    topic = Topic(method(slow), keep=2)
    stream = topic.subscribe()
    for _ in range(3):
        topic.subscribe()
    gc.collect()
    assert topic.subscribers == 1
    published(topic, 1, 2)
    assert numbers(stream.take(9)) == [1, 2]
    published(topic, 3, 4)
    topic.close()
    assert numbers(stream.take(9)) == [3, 4]


def test_publishers_and_subscribers_may_be_many() -> None:
    """Threads that publish beside one that takes: each item is given or counted, once."""
    topic = Topic(method(), keep=50)
    stream = topic.subscribe()
    each, threads = 500, 4
    publishers = [
        threading.Thread(target=published, args=(topic, 1000 * at, 1000 * at + each - 1)) for at in range(threads)
    ]
    taken = 0
    for thread in publishers:
        thread.start()
    while any(thread.is_alive() for thread in publishers):
        taken += len(stream.take(7))
    for thread in publishers:
        thread.join()
    while items := stream.take(64):
        taken += len(items)
    assert taken + stream.dropped == each * threads == topic.published


class Listening(RuleBasedStateMachine):
    """Any order of publishing, taking, taking back, coming and going, beside a plain list of all that there was."""

    @initialize(keep=st.integers(1, 5), slow=st.sampled_from(["drop_oldest", "end"]))
    def begin(self, keep: int, slow: Slow) -> None:
        self.keep = keep
        self.slow = slow
        self.topic = Topic(method(slow, "number"), keep=keep)
        self.streams: list[tuple[TopicSubscription[Tick], list[int]]] = []  # each with the next number that it is due
        self.woken: set[int] = set()
        self.idle: set[int] = set()
        self.next = 1

    def joined(self, stream: TopicSubscription[Tick], due: int) -> None:
        at = len(self.streams)
        stream.wake = lambda: self.woken.add(at)
        self.streams.append((stream, [due]))

    @rule()
    def subscribe(self) -> None:
        self.joined(self.topic.subscribe(), self.next)

    @precondition(lambda self: self.next > 1)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(1, self.next - 1))
        if after >= self.next - 1 - self.keep:
            self.joined(self.topic.subscribe(Asking(b"%d" % after)), after + 1)
        else:
            with pytest.raises(CallError, match="POSITION_LOST"):
                self.topic.subscribe(Asking(b"%d" % after))

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        self.woken.clear()
        for _ in range(count):
            self.topic.publish(Tick(number=self.next))
            self.next += 1
        assert self.idle <= self.woken
        self.idle -= self.woken

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), most=st.integers(1, 6), back=st.integers(0, 6))
    def take(self, data: st.DataObject, most: int, back: int) -> None:
        at = data.draw(st.integers(0, len(self.streams) - 1))
        stream, due = self.streams[at]
        oldest = max(1, self.next - self.keep)
        if self.slow == "end" and due[0] < oldest:
            for look in (stream.stalled, lambda: stream.take(most)):
                with pytest.raises(CallError, match="SLOW_CONSUMER"):
                    look()
            return
        stream.stalled()
        items = stream.take(most)
        begins = max(due[0], oldest)
        assert stream.dropped == begins - due[0]
        stream.dropped = 0
        assert numbers(items) == list(range(begins, min(self.next, begins + most)))
        back = min(back, len(items))
        if back:
            stream.keep(items[len(items) - back :])
        due[0] = begins + len(items) - back
        if not items:
            self.idle.add(at)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "topic"):
            assert len(self.topic._places) <= self.keep + 1
            assert len(self.topic._ring) == self.keep


TestListening = Listening.TestCase
TestListening.settings = settings(deadline=None)
