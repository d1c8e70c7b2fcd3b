"""A resumable stream, followed: opened again behind the last item received whenever it is lost.

It is written over the face that all clients share, so that TCP and gRPC follow alike. A stream by itself never does
this: who has to know what was missed has asked for ``follow``, whose items are of another type.
"""

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from wireproto.client.backoff import Backoff
from wireproto.client.calls import timed_out
from wireproto.client.face import ItemStream, as_metadata, deadline_after, not_of_kind, timeout_of
from wireproto.client.gap import Gap
from wireproto.errors import CallError, EncodeError
from wireproto.schema import Message, Operation, Position, Positions, StreamMethod
from wireproto.status import Retry, Status
from wireproto.uncopied import Uncopied
from wireproto.wire.metadata import Metadata

__all__ = ["REOPENINGS", "Following", "follow"]

Item = TypeVar("Item", bound=Message)

REOPENINGS: Final = 10
"""How often a stream is opened again without an item in between."""


class Following(Uncopied, Generic[Item]):
    """An iterator over the items of a resumable stream, and over each `Gap` in it. Made by ``Client.follow``.

    A lost connection, and an answer UNAVAILABLE, open the stream again behind the last item received: after a random
    pause that grows, within the time of the stream, and at most 10 times without an item in between. No item comes
    twice, and none is left out without a `Gap`, if the server keeps to what it declares.

    One thread at a time iterates. ``close`` may be called from any, and ends a pause at once.

    Iterating raises:
        CallError: the stream failed with another status than UNAVAILABLE; the last loss, when it was opened again 10
            times; DEADLINE when its time was up.
        DecodeError: an item means no message of its type.
        EncodeError: the position of an item has no bytes, or more than 64, so that nobody could go on behind it.
        LocalProtocolError: the client was closed.
    """

    def __init__(
        self,
        begin: Callable[[bytes, float | None], ItemStream[Item]],
        positions: Positions,
        after: bytes,
        deadline: float | None,
        backoff: Backoff,
    ) -> None:
        """For ``Client.follow`` only."""
        self._begin = begin
        self._positions = positions
        self._after = after  # of the last item, or what the call is to go on behind; b"" to begin
        self._last = after  # the same, but behind a gap
        self._deadline = deadline
        self._backoff = backoff
        self._reopened = 0
        self._losses = 0  # in a row, without an item
        self._begun = False  # something may be missed where it is opened again without a position
        self._asked = bool(after)  # the call that is open now brought a position, and no item has come behind it
        self._gap: Gap | None = None  # to be handed out next, once the stream is open again
        self._lost = False  # it is to be opened again
        self._due = 0.0  # when, by ``time.monotonic``; 0.0 for at once
        self._over = False
        self._dropped = 0  # of the calls that were lost
        self._closing = threading.Event()
        self._stream = begin(after, self._left())

    @property
    def position(self) -> Position | None:
        """That of the last item, to be kept and given as ``after`` to whoever goes on; None before the first one, and
        behind a gap.
        """
        return self._positions.read(self._after) if self._after else None

    @property
    def reopened(self) -> int:
        """How many times it was opened again."""
        return self._reopened

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item | Gap:
        return self.next()

    def next(self, timeout: float | None = None) -> Item | Gap:
        """The next item, or the gap before it.

        Args:
            timeout: seconds to wait for it, at least 0; None to wait as long as the stream may last. An attempt to
                connect is not cut short by it.

        Raises:
            TimeoutError: none came in time; the stream goes on.
            StopIteration: the stream is at its end, or closed.
        """
        patience = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            if self._lost:
                self._open_again(patience)
            elif self._gap is not None:
                gap, self._gap = self._gap, None
                return gap
            else:
                item = self._receive(patience)
                if item is not None:
                    return item
        raise StopIteration

    @property
    def dropped(self) -> int:
        """How many items the server has left out, all together, as it said: see ``Stream.dropped``."""
        return self._dropped + self._stream.dropped

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the server said beside the end of the stream, by name; empty before that, and for nothing."""
        return self._stream.metadata

    def acknowledge(self) -> None:
        """Count the item handed out last as taken, before the next one is asked for."""
        self._stream.acknowledge()

    def close(self) -> None:
        """Cancel the stream; nothing happens if it is over. A thread that waits for an item sees the end of it."""
        self._over = True
        self._closing.set()
        # Whoever opens it again looks at the event behind writing the stream, and we do it the other way round, so that
        # one of the two closes the new one.
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, patience: float | None) -> Item | None:
        """The next item of the call that is open; None when it was lost."""
        try:
            item = self._stream.next(None if patience is None else max(0.0, patience - time.monotonic()))
        except StopIteration:
            self._over = True
            raise
        except CallError as error:
            self._take_loss(error)
            return None
        try:
            self._after = self._last = self._positions.of(item)
        except EncodeError:
            self.close()
            raise
        self._begun = True
        self._asked = False
        self._losses = 0
        self._backoff.reset()
        return item

    def _take_loss(self, error: CallError) -> None:
        """The call has failed: see whether the stream goes on without it.

        Raises:
            CallError: it does not.
            StopIteration: it was closed meanwhile.
        """
        if self._over:
            raise StopIteration
        if error.reason == "POSITION_LOST" and self._asked:
            self._after = b""
            self._begun = True
            self._due = 0.0
        elif error.status is Status.UNAVAILABLE and self._losses < REOPENINGS:
            self._losses += 1
            self._backoff.failed()
            self._due = time.monotonic() + max(self._backoff.remaining(), error.retry_after_ms / 1000)
            if error.retry is not Retry.NOT_PROCESSED:
                self._begun = True
        else:
            self._over = True
            raise error
        self._lost = True

    def _open_again(self, patience: float | None) -> None:
        """Wait out the pause and begin the call that takes the place of the lost one.

        Raises:
            TimeoutError: the pause is longer than there is patience for.
            CallError: there is no time left, or the stream cannot be had again.
        """
        if self._due:
            self._pause(patience)
        if self._over:
            return
        left = self._left()  # its error is the stream's, not that of one more attempt
        try:
            stream = self._begin(self._after, left)
        except CallError as error:
            self._take_loss(error)
            return
        self._dropped += self._stream.dropped
        self._stream = stream
        if self._closing.is_set():
            stream.close()
            return
        self._reopened += 1
        self._lost = False
        self._asked = bool(self._after)
        if not self._after and self._begun:
            self._gap = Gap(self._positions.read(self._last) if self._last else None)

    def _pause(self, patience: float | None) -> None:
        """Wait until the next attempt is due; ``close`` ends it."""
        due = self._due
        if self._deadline is not None and due >= self._deadline:
            self._over = True
            raise timed_out("the time of the stream was up before it could be opened again", Retry.MAYBE_PROCESSED)
        until = due if patience is None else min(due, patience)
        self._closing.wait(max(0.0, until - time.monotonic()))
        if until < due and not self._over:
            raise TimeoutError("no item came in time; the stream goes on")

    def _left(self) -> float | None:
        """Seconds that the stream may still last.

        Raises:
            CallError: none are left.
        """
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._over = True
            raise timed_out("the time of the stream was up", Retry.MAYBE_PROCESSED)
        return left


def follow(
    stream: Callable[..., ItemStream[Item]],
    method: Operation[Any, Item],
    request: Message,
    after: Position | None,
    timeout: float | None,
    metadata: Metadata | Mapping[str, str] | None,
    wait: bool | None,
    backoff: Backoff,
    **credit: int | None,
) -> Following[Item]:
    """What ``follow`` of every client does.

    Args:
        stream: the client's method of that name.
        method, request, after, timeout, metadata, wait: as for ``Client.follow``.
        backoff: whose first and highest ceiling are those of the follower's own.
        credit: ``credit``, ``batch`` and ``window``, for ``stream``.

    Raises:
        TypeError: it is another kind of method.
        ValueError: it is not resumable, or a number is out of its range.
        EncodeError: ``after`` is no position of the method.
    """
    if type(method) is not StreamMethod:
        raise not_of_kind(method, StreamMethod)
    if method.resumable is None:
        raise ValueError(
            f"{method.name} cannot be followed, because its items have no positions; use client.stream, or declare it "
            "with resumable= and the name of a field of its items"
        )
    positions = Positions(method.response, method.resumable)
    deadline = deadline_after(timeout_of(method, timeout, metadata))

    def begin(after: bytes, left: float | None) -> ItemStream[Item]:
        nonlocal wait
        patient, wait = wait, False  # behind the first call, the pause between two attempts is the follower's
        given = metadata
        if after:
            given = msgspec.structs.replace(as_metadata({} if given is None else given), resume_after=after)
        return stream(method, request, timeout=left, metadata=given, wait=patient, **credit)

    written = b"" if after is None else positions.write(after)
    return Following(begin, positions, written, deadline, Backoff(backoff.first, backoff.most))
