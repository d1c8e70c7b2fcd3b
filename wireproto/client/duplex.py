"""Both halves of a duplex call: items sent, and the items that come back as they are asked for."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from wireproto.binding import Binding
from wireproto.client.calls import DuplexCall
from wireproto.client.guard import inside
from wireproto.client.line import again
from wireproto.client.link import Link
from wireproto.client.source import Source
from wireproto.client.stream import Stream
from wireproto.errors import CallError, LocalProtocolError
from wireproto.schema import Message
from wireproto.wire.frame import Credit
from wireproto.wire.packing import Payload

__all__ = ["Duplex"]

Req = TypeVar("Req", bound=Message)
Item = TypeVar("Item", bound=Message)


class Duplex(Stream[Item], Generic[Req, Item]):
    """An iterator over the items that come back of a duplex call, made by ``Client.duplex``; it is a ``Stream``.

    If the call was given its items, the thread that iterates sends them while nothing has come to be handed out; what
    their iterable raises cancels the call and is raised by the iterator. Else ``send`` does, up to ``finish``.

    One thread at a time iterates, and one at a time sends, the same or another one. ``close`` may be called from any.
    There is no thread behind it. A call is begun again by itself, on another connection, only if it was given its items
    and none was asked for, or they are a list or a tuple, and nothing has come back.
    """

    def __init__(
        self,
        begin: Callable[[], tuple[Link, Binding[Any, Item], DuplexCall]],
        source: Source[Req] | None,
        batch: int,
        window: int,
        deadline: float | None,
    ) -> None:
        """For ``Client.duplex`` only."""
        self._source = source
        self._complete = False  # END was sent, of a call without a source
        self._reader: threading.Thread | None = None  # who asked for an item last
        self._sending = threading.Lock()
        super().__init__(begin, batch, window, deadline)

    @inside
    def send(self, item: Req, timeout: float | None = None) -> None:
        """Send one item, of a call that was not given its items. It waits until the server takes it.

        Args:
            item: its message.
            timeout: seconds to wait, at least 0; None to wait as long as the call may last.

        Raises:
            TimeoutError: it could not be sent in time; the call goes on.
            BothFull: it cannot be sent before answers are read, all that the server may send being here, and nobody
                reads them: no other thread that is alive has asked for an item last. The call goes on.
            CallError: the call has failed, as the iterator says, too; or the item is larger than the server or the
                method takes, and then the call goes on.
            EncodeError: the item cannot be written; the call goes on.
            LocalProtocolError: ``finish`` or ``close`` was called, or the server has ended the call, or it was given
                its items.
        """
        patience = None if timeout is None else time.monotonic() + timeout
        with self._sending:
            self._check_sends()
            if self._complete:
                raise LocalProtocolError("finish was called: nothing more can be sent in this call")
            call, link = self._call, self._link
            payload = self._binding.encode(item)
            assert isinstance(call, DuplexCall)
            assert call.sender is not None
            while not self._over and not call.over:
                if link.wait_for_sending(call, call.sender, self._until(patience), self._nobody_reads):
                    if link.send_items(call, (payload,), False):
                        return
                elif not call.over:
                    self._not_sent(call, patience)
            raise self._why_over(call)

    @inside
    def finish(self) -> None:
        """Say that no more items are sent. Nothing happens if that was said, or if the call is over.

        Raises:
            LocalProtocolError: the call was given its items.
        """
        with self._sending:
            self._check_sends()
            if not self._complete:
                self._complete = True
                call = self._call
                assert isinstance(call, DuplexCall)
                self._link.send_items(call, (), True)

    def _check_sends(self) -> None:
        if self._source is not None:
            raise LocalProtocolError("this call was given its items, which are sent as it is iterated over")

    def _nobody_reads(self) -> bool:
        reader = self._reader
        return reader is None or reader is threading.current_thread() or not reader.is_alive()

    def _not_sent(self, call: DuplexCall, patience: float | None) -> None:
        """The time was up: that of the call, or the caller's patience."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._link.expire(call)
        elif patience is not None:
            raise TimeoutError("the item could not be sent in time; the call goes on")

    def _why_over(self, call: DuplexCall) -> Exception:
        if isinstance(call.error, CallError):
            return again(call.error)  # the iterator raises the error itself, in its own thread
        if call.error is not None:
            return call.error
        return LocalProtocolError("this call is over: nothing more can be sent in it")

    def _next(self, patience: float | None) -> Item:
        source = self._source
        if source is None:
            self._reader = threading.current_thread()
            return super()._next(patience)
        tried = False
        while True:
            found = self._move(source, patience, tried)
            if not isinstance(found, Credit):
                return found
            try:
                # The caller's own code, outside of every method of the client.
                payloads = source.pull(found, self._binding.encode)
                self._give(payloads, source.ended)
            except BaseException:
                self.close()
                raise
            tried = True

    @inside
    def _move(self, source: Source[Req], patience: float | None, tried: bool) -> Item | Credit:
        """The next item that comes back, or what may be sent while there is none.

        Args:
            source: of what is sent.
            patience: point in time by ``time.monotonic``; None for none.
            tried: something was sent since the item was asked for: now its time may be up.
        """
        self._acknowledge()
        while True:
            call = self._call
            assert isinstance(call, DuplexCall)
            if call.items and not self._over:
                return self._hand_out(call)
            if self._over or call.over:
                self._finish(call)
                continue
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._link.expire(call)
                continue
            until = self._until(patience)
            if source.ended:
                self._link.wait_for_item(call, until)
            elif not tried or until is None or time.monotonic() < until:
                room = self._link.wait_for_either(call, until)
                if room.items:
                    return room
            if not call.items and not call.over:
                self._time_is_up(call, patience)

    @inside
    def _give(self, payloads: list[Payload], last: bool) -> None:
        call = self._call
        assert isinstance(call, DuplexCall)
        self._link.send_items(call, payloads, last)

    def _may_begin_again(self) -> bool:
        return self._source is not None and self._source.begin_again()
