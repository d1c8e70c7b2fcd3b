"""A server stream: items go out only while there is credit and room, and no thread is held while nothing moves.

Credit is in items and in bytes, and an item takes all its bytes as long as there is one of them. Nobody knows how large
an item is before it is taken and encoded: so a source is asked for as many as fit by the size of the last one, and what
turns out to be too much is kept, in order.

One state per stream, under its session's lock: IDLE, SCHEDULED (somebody will pump), RUNNING (somebody pumps), AGAIN
(woken meanwhile: pump once more), ENDED. So no two threads pump one stream, no wake is lost, and the source is closed
exactly once, by whoever pumps it last.
"""

import enum
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from wireproto.answering.owners import Pumped
from wireproto.answering.pool import Worker
from wireproto.answering.refusals import half_closed, too_large
from wireproto.errors import CallError
from wireproto.handling import UNGUARDED, Subscription
from wireproto.status import Retry
from wireproto.topic import TopicSubscription
from wireproto.wire.connection import PayloadTooLarge
from wireproto.wire.frame import HEADER_SIZE
from wireproto.wire.packing import Payload

__all__ = ["Pump"]

TURN = 64
"""Items taken of one stream before others have their turn."""


class _State(enum.Enum):
    IDLE = enum.auto()
    SCHEDULED = enum.auto()
    RUNNING = enum.auto()
    AGAIN = enum.auto()
    ENDED = enum.auto()


# On CPython 3.11 a member looked up on its class costs a quarter of a microsecond.
_IDLE, _SCHEDULED, _RUNNING, _AGAIN, _ENDED = _State


class Pump:
    """Pumps one call's source into its connection.

    Args:
        call: the call the stream answers.
        source: a ``Subscription``, pumped by the leader, or an iterator, pumped by a follower because ``next`` may
            block.
    """

    __slots__ = (
        "_call",
        "_dropped",
        "_encode",
        "_iterator",
        "_kept",
        "_last",
        "_leads",
        "_session",
        "_state",
        "_subscription",
        "_untouched",
        "_wakes",
        "_why",
    )

    def __init__(self, call: Pumped, source: "Subscription[Any] | Iterator[Any]") -> None:
        self._call = call
        self._session = call.session
        self._state = _IDLE
        self._why = "ended"
        self._wakes = False  # whether the subscription knows whom to wake
        self._kept: Sequence[Any] = ()  # items taken of the source and not sent, which the source does not want back
        self._last = 0  # the size of the last item; 0 before the first
        self._dropped = 0  # items that the source has left out, of which the caller was not told yet
        self._subscription: Subscription[Any] | None = None
        self._iterator: Iterator[Any] | None = None
        if isinstance(source, Subscription):
            self._subscription = source
            self._encode = (
                source.encoder(call.entry) if isinstance(source, TopicSubscription) else call.entry.encode_shared
            )
        else:
            self._iterator = source
        self._untouched = self._subscription is None
        self._leads = not (self._untouched or call.entry.packs)  # a turn neither waits nor packs

    @property
    def subscribed(self) -> bool:
        """Whether the source is a ``Subscription``, which has no end of its own."""
        return self._subscription is not None

    # ------------------------------------------------------------------ any thread

    def wake(self) -> None:
        """There may be something to send."""
        # When somebody is about to pump, nothing is to be done: that state is left before the source is asked.
        if self._state is not _SCHEDULED:
            with self._session.lock:
                self.wake_locked()

    def wake_locked(self) -> None:
        if self._state is _IDLE:
            self._schedule()
        elif self._state is _RUNNING:
            self._state = _AGAIN

    def end_locked(self, why: str) -> None:
        """Nothing is sent any more; the source is closed as soon as nobody runs it."""
        state = self._state
        if state is _ENDED:
            return
        self._why = why
        pool = self._session.pool
        if self._untouched:
            # Nothing of an iterator has run, so closing it runs nothing, either. It waits for no worker: calls that are
            # over before their turn would pile up where others hold the workers.
            if state is _IDLE or pool.withdraw_pull(self, self._session.peer):
                pool.post(self._close_untouched)
        elif state is _IDLE:
            self._schedule()  # to close it; in the other states a pump is coming or under way
        self._state = _ENDED

    # ------------------------------------------------------------------ workers

    def run_blocking(self) -> None:
        """Pump on a follower; called by the pool."""
        try:
            self._pump()
        finally:
            self._session.pool.pull_ended(self._session.peer)

    def _schedule(self) -> None:
        self._state = _SCHEDULED
        pool = self._session.pool
        if self._leads and self._call.entry.pace.quick:
            pool.post(self._pump)
        else:
            pool.submit_pull(self, self._session.peer)

    def _close_untouched(self, worker: Worker) -> None:
        self._close()

    def _pump(self, worker: Worker | None = None) -> None:
        call, session = self._call, self._session
        items = size = 0
        with session.lock:
            self._untouched = False
            ended = self._state is _ENDED
            if not ended:
                self._state = _RUNNING
                if not call.answered:
                    items, size = session.connection.credit(call.call_id)
                    if size > (room := session.room_locked()):
                        size = room
        if not ended:
            try:
                if self._subscription is None:
                    rests = self._send_iterated()
                else:
                    rests = self._send_taken(self._subscription, items, size)
            except StopIteration:
                self._finish(None)
            except BaseException as error:  # noqa: BLE001 - whatever a source raises ends its stream only
                self._finish(call.entry.failure(error))
            else:
                if rests:
                    return
        self._close()

    def _send_locked(self, payload: Payload) -> bool:
        """Queue an item; False when the call is over.

        Raises:
            CallError: it is larger than the peer accepts.
        """
        if self._call.answered:
            return False
        try:
            if self._dropped:
                self._session.connection.send_item_behind(self._call.call_id, payload, self._dropped)
                self._dropped = 0
            else:
                self._session.connection.send_item(self._call.call_id, payload)
        except PayloadTooLarge as error:
            raise too_large(error) from error
        return True

    def _rest_locked(self, more: bool) -> bool:
        """After a turn: go to the back when there is more, so that a busy stream does not keep the others waiting; else
        idle. False when the stream was ended meanwhile.
        """
        if self._state is _ENDED:
            return False
        if more or self._state is _AGAIN:
            self._schedule()
        else:
            self._state = _IDLE
        return True

    # Of a subscription.

    def _send_taken(self, source: Subscription[Any], items: int, size: int) -> bool:
        """Send what the subscription has, up to so many items, while their bytes are within ``size``; the last one may
        go over. False when the stream was ended meanwhile.
        """
        session = self._session
        if not self._wakes:
            # Here, and not where the pump is made: what a source raises is an incident of its call only in a turn.
            source.wake = self.wake
            self._wakes = True
        if items < 1 or size < 1:
            source.stalled()
            with session.lock:
                return self._rest_locked(False)
        if source.giving is UNGUARDED:  # to enter it all the same costs 2,900 of 77,000 instructions
            rests = self._give(source, items, size)
        else:
            with source.giving:
                rests = self._give(source, items, size)
        if rests is not None:
            return rests
        with session.lock:
            return self._rest_locked(True)

    def _give(self, source: Subscription[Any], items: int, size: int) -> bool | None:
        """Take items and send those that fit. None if some are left; else False when the stream was ended meanwhile."""
        session = self._session
        taken = self._kept or self._take(source, items, size)
        payloads, failure = self._encoded(taken, size)
        with session.lock:
            sent = self._send_payloads_locked(payloads)
            if sent:
                session.flush_locked()
            if sent == len(taken):
                self._kept = ()
                # Only an empty answer means that there is nothing yet: behind the last items may be the end.
                return self._rest_locked(sent > 0)
        if failure is not None and sent == len(payloads):
            raise failure
        self._kept = tuple(source.keep(taken[sent:]))
        return None

    def _take(self, source: Subscription[Any], most: int, size: int) -> Sequence[Any]:
        """Items of the source: as many as fit by the size of the last one. Of the first one the size is not known, and
        it may be as large as a frame: then one is enough.
        """
        last = self._last
        fit = size // last or 1 if last else 1
        if fit < most:
            most = fit
        if most > TURN:
            most = TURN
        start = time.perf_counter()
        items = source.take(most)
        if source.dropped:
            self._note_dropped(source)
        self._call.entry.pace.note(time.perf_counter() - start)
        if len(items) > most:
            raise ValueError(f"{type(source).__name__}.take({most}) gave {len(items)} items; give at most {most}")
        return items

    def _note_dropped(self, source: Subscription[Any]) -> None:
        """The source has left items out: the next one that is sent, or the end, tells the caller.

        Raises:
            ValueError: it says so by what is no number of items.
        """
        dropped, source.dropped = source.dropped, 0
        if type(dropped) is not int or dropped < 0:
            raise ValueError(f"{type(source).__name__}.dropped is {dropped!r}; give a number of items, 0 or more")
        self._dropped += dropped

    def _encoded(self, items: Sequence[Any], size: int) -> tuple[list[Payload], CallError | None]:
        """The first of the items as bytes, as far as they fit, and what is wrong with the one behind them."""
        encode = self._encode
        payloads: list[Payload] = []
        for item in items:
            if size < 1:
                break
            payload = encode(item)
            if type(payload) is not bytes and isinstance(payload, CallError):
                return payloads, payload
            payloads.append(payload)
            last = self._last = len(payload)
            size -= last
        return payloads, None

    def _send_payloads_locked(self, payloads: list[Payload]) -> int:
        """Queue items for which there is credit, as far as others have left room in the output: how many there were."""
        session, sent = self._session, 0
        room = session.room_locked()
        for payload in payloads:
            if (room < 1 and not (room := session.room_locked())) or not self._send_locked(payload):
                break
            sent += 1
            room -= HEADER_SIZE + len(payload)
        return sent

    # Of an iterator.

    def _send_iterated(self) -> bool:
        """Pull up to a turn's worth of the iterator; False when the stream was ended meanwhile."""
        more = self._pull_some()
        with self._session.lock:
            return self._rest_locked(more)

    def _pull_some(self) -> bool:
        """Pull and send, item by item; whether there may be more."""
        iterator, session, entry = self._iterator, self._session, self._call.entry
        if iterator is None:
            raise StopIteration
        for _ in range(TURN):
            with session.lock:
                if self._call.answered:
                    return False
                items, size = session.connection.credit(self._call.call_id)
                spent = items < 1 or size < 1
                if not session.half_closed if spent else not session.room_locked():
                    return False
            if spent:
                self._end_without_credit(iterator)
            item = self._kept[0] if self._kept else next(iterator)
            payload = _sendable(entry.encode(item))
            with session.lock:
                # Others may have filled the output meanwhile, and nobody else has had the credit.
                if not session.room_locked():
                    self._kept = (item,)
                    return False
                self._kept = ()
                if not self._send_locked(payload):
                    return False
            # The leader flushes beside us: an item never waits for the next one, and quick ones share a write.
            session.flush_soon()
        return True

    def _end_without_credit(self, iterator: Iterator[Any]) -> None:
        """No credit comes any more: ask once whether the stream is at its end.

        Raises:
            StopIteration: it is.
            CallError: it is not.
        """
        if not self._kept:
            next(iterator)
        raise half_closed(Retry.MAYBE_PROCESSED)

    def _finish(self, error: CallError | None) -> None:
        if self._subscription is not None:
            try:
                self._note_dropped(self._subscription)
            except BaseException as problem:  # noqa: BLE001 - what is the matter with a source is told as any other
                error = error or self._call.entry.failure(problem)
        with self._session.lock:
            if self._state is _ENDED:
                return
            self._state = _ENDED
            self._why = "ended" if error is None else str(error)
            self._session.end_stream_locked(self._call, error, self._dropped)

    def _close(self) -> None:
        source = self._subscription
        try:
            if source is not None:
                source.close(self._why)
            elif isinstance(self._iterator, Generator):
                self._iterator.close()
        except BaseException as error:  # noqa: BLE001 - the stream is over: only the log is left
            self._call.entry.incident(error)


def _sendable(encoded: Payload | CallError) -> Payload:
    if isinstance(encoded, CallError):
        raise encoded
    return encoded
