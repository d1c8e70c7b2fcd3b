"""The items of a stream, as they are asked for."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from wireproto.binding import Binding, unpacked
from wireproto.client.calls import ItemBehind, StreamCall
from wireproto.client.guard import inside
from wireproto.client.line import repeatable
from wireproto.client.link import Link
from wireproto.errors import CallError, DecodeError
from wireproto.schema import Message
from wireproto.uncopied import Uncopied
from wireproto.wire.answers import NOTHING_BESIDE

__all__ = ["Stream"]

Item = TypeVar("Item", bound=Message)


class Stream(Uncopied, Generic[Item]):
    """An iterator over the items of a stream call, made by ``Client.stream``.

    The server sends ahead as many items, and bytes of them, as it has credit for; they wait here, without a thread. An
    item counts as taken when the next one is asked for, or on ``acknowledge``. Credit goes back in batches of items
    taken, or once they make up half of the window of bytes, whichever comes first.

    One thread at a time iterates. ``close`` may be called from any.

    Iterating raises:
        CallError: the stream failed: the server's own error, ConnectionLost, or DEADLINE when its time was up. Items
            received before are handed out first.
        DecodeError: an item means no message of its type; the stream is cancelled. CallError, DATA_LOSS, if an item is
            packed wrongly.
    """

    def __init__(
        self,
        begin: Callable[[], tuple[Link, Binding[Any, Item], StreamCall]],
        batch: int,
        window: int,
        deadline: float | None,
    ) -> None:
        """For ``Client.stream`` only."""
        self._begin = begin
        self._batch = batch
        self._window = window
        self._deadline = deadline
        self._repeated = 0
        self._received = False
        self._untaken: int | None = None  # the bytes of an item that is out and not taken yet
        self._dropped = 0
        self._owed_items = 0  # taken, and not returned as credit yet
        self._owed_bytes = 0
        self._over = True  # for the finalizer: nothing is to be given up as long as ``begin`` may fail
        self._link, self._binding, self._call = begin()
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        return self._next(None)

    def next(self, timeout: float | None = None) -> Item:
        """The next item.

        Args:
            timeout: seconds to wait for it, at least 0; None to wait as long as the stream may last.

        Raises:
            TimeoutError: none came in time; the stream goes on.
            StopIteration: the stream is at its end, or closed.
        """
        return self._next(None if timeout is None else time.monotonic() + timeout)

    @property
    def dropped(self) -> int:
        """How many items the server has left out, all together: ahead of the item handed out last, and at the end of
        the stream behind it as well.
        """
        return self._dropped

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the server said beside the end of the stream, by name; empty before that, and for nothing."""
        return self._call.beside.metadata if self._over else NOTHING_BESIDE.metadata

    @inside
    def acknowledge(self) -> None:
        """Count the item handed out last as taken, before the next one is asked for."""
        self._acknowledge()

    def _acknowledge(self) -> None:
        size = self._untaken
        if size is None:
            return
        self._untaken = None
        self._owed_items += 1
        self._owed_bytes += size
        # What stays owed is less than a batch and less than half of the window. So once all items are taken, the server
        # has credit for one more, however large each of them is.
        if (self._owed_items >= self._batch or self._owed_bytes * 2 >= self._window) and not self._over:
            items, self._owed_items = self._owed_items, 0
            size, self._owed_bytes = self._owed_bytes, 0
            self._link.credit(self._call, items, size)

    @inside
    def close(self) -> None:
        """Cancel the stream; nothing happens if it is over. A thread that waits for an item sees the end of it."""
        self._close()

    def _close(self) -> None:
        self._over = True
        self._link.cancel(self._call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Finalizers may run anywhere, so this one takes no lock.
        if not self._over:
            self._link.abandon(self._call)

    @inside
    def _next(self, patience: float | None) -> Item:
        self._acknowledge()
        while True:
            call = self._call
            if call.items and not self._over:
                return self._hand_out(call)
            if self._over or call.over:
                self._finish(call)
                continue
            if not self._link.wait_for_item(call, self._until(patience)) and not call.items:
                self._time_is_up(call, patience)

    def _hand_out(self, call: StreamCall) -> Item:
        payload = call.items.popleft()
        self._received = True
        if isinstance(payload, ItemBehind):
            self._dropped += payload.dropped
            payload = payload.payload
        self._untaken = len(payload)
        try:
            return self._binding.decode(payload if type(payload) is bytes else unpacked(payload))
        except (DecodeError, CallError):
            self._close()
            raise

    def _until(self, patience: float | None) -> float | None:
        """When to wait no longer: the end of the caller's patience, or that of the time for the whole call."""
        deadline = self._deadline
        if patience is not None and (deadline is None or patience < deadline):
            return patience
        return deadline

    def _time_is_up(self, call: StreamCall, patience: float | None) -> None:
        """Nothing came in time: end the call if it has no more time, else say so if that was all the patience."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._link.expire(call)
        elif patience is not None and time.monotonic() >= patience:
            raise TimeoutError("no item came in time; the stream goes on")

    def _finish(self, call: StreamCall) -> None:
        """The stream is over: raise why, or begin it again if the server never looked at it."""
        if self._over:
            raise StopIteration
        error = call.error
        if error is not None and not self._received and repeatable(error, self._repeated) and self._may_begin_again():
            self._repeated += 1
            self._link, self._binding, self._call = self._begin()
            return
        self._over = True
        self._dropped += call.beside.dropped
        if error is None:
            raise StopIteration
        raise error

    def _may_begin_again(self) -> bool:
        """Whether another call is the same call, for all that this side has done."""
        return True
