"""A topic: items for whoever listens now, of which no slow listener holds up the others or fills the memory.

There is one ring of the items published last, and each subscriber is a cursor into it. So what a topic holds does not
depend on how many listen or how slow they are, and publishing costs nothing for those who cannot take an item now: a
subscriber is woken once, and then not before it has come back for more. Its connection's credit, or the room in its
output, wakes it by itself.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from wireproto.dispatch import Entry
from wireproto.errors import CallError, ConfigError, LocalProtocolError
from wireproto.handling import Context, Subscription
from wireproto.reasons import failure
from wireproto.resuming import position_lost
from wireproto.schema import Message, Positions, StreamMethod
from wireproto.uncopied import Uncopied
from wireproto.wire.packing import Payload

__all__ = ["Topic", "TopicSubscription"]

Item = TypeVar("Item", bound=Message)


class _Slot:
    """An item, its position, and its bytes for each codec and version that it was sent in."""

    __slots__ = ("item", "payloads", "position")

    def __init__(self, item: Message, position: bytes) -> None:
        self.item = item
        self.position = position
        self.payloads: dict[tuple[object, ...], Payload] = {}  # by ``Entry.alike``


class Topic(Uncopied, Generic[Item]):
    """Gives each item that is published to all who are subscribed. Thread-safe.

        TICKS = StreamMethod(opcode=1, name="Ticks", request=TicksRequest, response=Tick, slow="drop_oldest")
        ticks = Topic(TICKS, keep=1000)

        @handlers.register(TICKS)
        def listen(request, context):
            return ticks.subscribe(context)

        ticks.publish(Tick(...))

    What becomes of a subscriber that falls further behind than the ``keep`` items that are kept is said by the method's
    ``slow``: of ``drop_oldest`` it goes on with the oldest item kept, and its caller is told with that item how many
    were left out; of ``end`` its stream fails: RESOURCE_EXHAUSTED, SLOW_CONSUMER.

    If the method is ``resumable``, its items bring their positions, each another one, and who asks to go on behind one
    of those that are kept does so without a gap, also behind the one that was dropped last. Behind any other it is
    POSITION_LOST.

    Args:
        method: whose items are published; any number of topics may be of one method.
        keep: items kept, 1 or more. Each is held once, with its bytes in each codec and version that somebody listens
            in.

    Raises:
        ConfigError: the method is no stream, or its ``slow`` is ``pause``: a topic asks nobody to wait.
    """

    def __init__(self, method: StreamMethod[Any, Item], *, keep: int = 1024) -> None:
        given: object = method
        if not isinstance(given, StreamMethod) or method.slow == "pause":
            raise ConfigError(
                f"a topic is of a StreamMethod with slow='drop_oldest' or slow='end', and {given!r} is none: whoever "
                "publishes does not wait for those who listen"
            )
        if type(keep) is not int or keep < 1:
            raise ConfigError(f"keep is {keep!r}; give the number of items to keep, 1 or more")
        self.method = method
        self.keep = keep
        self._positions = None if method.resumable is None else Positions(method.response, method.resumable)
        self._ends = method.slow == "end"
        # A leaf: nothing else is taken while it is held, and nobody is woken.
        self._lock = threading.Lock()
        self._ring: list[_Slot | None] = [None] * keep
        self._next = 0  # the number of the next item
        self._places: dict[bytes, int] = {}  # of each position kept the number of the item, and of the one before them
        self._edge = b""  # that one
        # In order, so that all are woken in turn. Weakly, because a handler that subscribes may fail before it has
        # returned the stream, which nobody closes then.
        self._subscribers: WeakKeyDictionary[TopicSubscription[Item], None] = WeakKeyDictionary()
        self._waiting: dict[TopicSubscription[Item], None] = {}  # those that have all there is
        self._slowest = 0  # no cursor is below it; only looked at where the slow are ended
        self._closed = False

    def __repr__(self) -> str:
        return f"<Topic of {self.method.name}, {self._next} items, {len(self._subscribers)} subscribers>"

    @property
    def subscribers(self) -> int:
        """How many streams are open."""
        return len(self._subscribers)

    @property
    def published(self) -> int:
        """How many items were published."""
        return self._next

    def publish(self, item: Item) -> None:
        """Give ``item`` to all subscribers. Never waits for any of them.

        It must not be changed any more, which only one with a list or a dict in it can be.

        Raises:
            TypeError: it is no item of the method.
            EncodeError: it has no position that can be written, in a resumable topic.
            ValueError: an item that is kept, or the one that was dropped last, has this position.
            LocalProtocolError: the topic is closed.
        """
        method = self.method
        if type(item) is not method.response:
            raise TypeError(f"{method.name} gives {method.response.__name__}, not {type(item).__name__}")
        position = b"" if self._positions is None else self._positions.of(item)
        slot = _Slot(item, position)
        behind: list[TopicSubscription[Item]] = []
        with self._lock:
            if self._closed:
                raise LocalProtocolError(f"the topic of {method.name} is closed; nobody would be given the item")
            number = self._next
            place = number % self.keep
            if position:
                self._keep_position_locked(position, number, self._ring[place])
            self._ring[place] = slot
            self._next = number + 1
            woken, self._waiting = self._waiting, {}
            if self._ends and self._oldest_locked() > self._slowest:
                behind = self._behind_locked()
        for each in woken:
            each.wake()
        for each in behind:
            each.wake()

    def subscribe(self, context: Context | None = None) -> "TopicSubscription[Item]":
        """A stream of what is published from now on, for a handler to return.

        Args:
            context: of the call. With it, whoever asks to go on behind a position is given what was published since;
                whether this caller may see that is for the handler to look at before.

        Raises:
            CallError: POSITION_LOST: the topic does not have that position any more, or never had it.
        """
        after = context.metadata.resume_after if context is not None and self._positions is not None else b""
        with self._lock:
            if not after:
                cursor = self._next
            else:
                place = self._places.get(after)
                if place is None:
                    raise position_lost(f"{self.method.name} does not have this position; begin it without one")
                cursor = place + 1
            subscription = TopicSubscription(self, cursor)
            self._subscribers[subscription] = None
            if cursor < self._slowest:
                self._slowest = cursor
        return subscription

    def close(self) -> None:
        """Publish nothing any more: each stream ends when it has given what is kept. From any thread."""
        with self._lock:
            self._closed = True
            subscribers = tuple(self._subscribers)
            self._waiting = {}
        for each in subscribers:
            each.wake()

    # For the subscriptions.

    def _oldest_locked(self) -> int:
        """The number of the oldest item that is kept, or of the next one if there is none."""
        return max(0, self._next - self.keep)

    def _keep_position_locked(self, position: bytes, number: int, replaced: _Slot | None) -> None:
        if position in self._places:
            raise ValueError(f"{self.method.name}: there is an item with this position; each has another one")
        if replaced is not None:
            # Behind the item that is dropped now there is no gap yet, so its position is known until the next one goes.
            self._places.pop(self._edge, None)
            self._edge = replaced.position
        self._places[position] = number

    def _behind_locked(self) -> list["TopicSubscription[Item]"]:
        """Those whose next item is not kept any more, each once."""
        oldest = self._oldest_locked()
        found = []
        slowest = self._next
        for each in self._subscribers:
            if each.late:
                continue
            if each.cursor < oldest:
                each.late = True
                found.append(each)
            elif each.cursor < slowest:
                slowest = each.cursor
        self._slowest = slowest
        return found

    def take(self, subscriber: "TopicSubscription[Item]", most: int) -> list[_Slot]:
        """For the subscription: what comes next, at most so many."""
        with self._lock:
            oldest = self._oldest_locked()
            cursor = subscriber.cursor
            if cursor < oldest:
                if self._ends:
                    raise _slow(self)
                subscriber.dropped += oldest - cursor
                cursor = oldest
            end = min(self._next, cursor + most)
            if cursor == end:
                if self._closed:
                    raise StopIteration
                self._waiting[subscriber] = None
            subscriber.cursor = end
            ring, keep = self._ring, self.keep
            return [slot for number in range(cursor, end) if (slot := ring[number % keep]) is not None]

    def put_back(self, subscriber: "TopicSubscription[Item]", count: int) -> None:
        """For the subscription: so many of what was taken last had no room."""
        with self._lock:
            subscriber.cursor -= count
            if subscriber.cursor < self._slowest:
                self._slowest = subscriber.cursor

    def look(self, subscriber: "TopicSubscription[Item]") -> None:
        """For the subscription: raise what its stream has come to, though it can be given nothing now."""
        with self._lock:
            if self._ends and subscriber.cursor < self._oldest_locked():
                raise _slow(self)
            if self._closed and subscriber.cursor == self._next:
                raise StopIteration

    def leave(self, subscriber: "TopicSubscription[Item]") -> None:
        """For the subscription: its stream is over."""
        with self._lock:
            self._subscribers.pop(subscriber, None)
            self._waiting.pop(subscriber, None)


class TopicSubscription(Subscription[Item]):
    """One stream of a topic: a cursor. Made by ``Topic.subscribe``.

    Attributes:
        cursor: the number of the item that comes next. Of the topic's lock.
        dropped: items left out ahead of those taken last, of which the caller was not told.
        late: it was found behind what is kept, in a topic that ends the slow.
    """

    def __init__(self, topic: Topic[Item], cursor: int) -> None:
        """For ``Topic.subscribe`` only."""
        self.cursor = cursor
        self.dropped = 0
        self.late = False
        self._topic = topic
        self._taken: dict[int, _Slot] = {}

    def take(self, n: int) -> Sequence[Item]:
        slots = self._topic.take(self, n)
        self._taken = {id(slot.item): slot for slot in slots}
        items: list[Any] = [slot.item for slot in slots]
        return items

    def keep(self, items: Sequence[Item]) -> Sequence[Item]:
        """Take all of them back: by the time that there is room, they may be too old."""
        self._taken = {}
        self._topic.put_back(self, len(items))
        return ()

    def stalled(self) -> None:
        self._topic.look(self)

    def close(self, reason: str) -> None:
        self._taken = {}
        self._topic.leave(self)

    def encoder(self, entry: Entry) -> Callable[[object], "Payload | CallError"]:
        """For the server: what makes bytes of the items taken last, once for all subscribers of a codec and version."""

        alike = entry.alike

        def encode(item: object) -> Payload | CallError:
            # Let go of here, so that a subscriber that takes nothing more keeps nothing. One item that was published
            # twice and is taken twice at once is encoded anew.
            slot = self._taken.pop(id(item), None)
            if slot is None or alike is None:
                return entry.encode(item)
            payload = slot.payloads.get(alike)
            if payload is None:
                encoded = entry.encode(item)
                if isinstance(encoded, CallError):
                    return encoded
                payload = slot.payloads.setdefault(alike, encoded)
            return payload

        return encode


def _slow(topic: Topic[Any]) -> CallError:
    return failure(
        "SLOW_CONSUMER",
        f"the items of {topic.method.name} were not taken in time: more than {topic.keep} wait; begin again, and take "
        "them as they come",
    )
