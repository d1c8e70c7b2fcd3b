"""Both halves of a duplex call over gRPC: items sent, and the items that come back as they are asked for."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import grpc

from wireproto.binding import Binding
from wireproto.client.face import deadline_after
from wireproto.client.grpc_again import Attempts
from wireproto.client.grpc_outlet import ONE, Outlet
from wireproto.client.grpc_stream import GrpcStream
from wireproto.client.guard import inside
from wireproto.client.source import Source
from wireproto.errors import BothFull, CallError, LocalProtocolError
from wireproto.schema import Message
from wireproto.wire.frame import Credit
from wireproto.wire.packing import Payload, plain

__all__ = ["GrpcDuplex"]

Req = TypeVar("Req", bound=Message)
Item = TypeVar("Item", bound=Message)

LOOK: Final = 0.05
"""Seconds after which an item that cannot be sent yet has ``send`` look whether anybody reads what comes back: nobody
is told when a thread ends. Each item that comes while nobody has asked for it costs a thread of its own."""


class GrpcDuplex(GrpcStream[Item], Generic[Req, Item]):
    """An iterator over the items that come back of a duplex call, made by ``GrpcClient.duplex``; as ``Duplex`` is one.

    Who sends and who iterates is as there. While ``send`` waits and nobody iterates, it has the items that come back
    wait here, up to the credit of the call: HTTP/2 does not say whether the server can send, so that what can be known
    is that this side has no room for more.
    """

    def __init__(
        self,
        begin: Callable[[], tuple[Any, Outlet]],
        binding: "Binding[Any, Item]",
        failure: Callable[[Any], CallError],
        attempts: Attempts,
        source: Source[Req] | None,
        credit: Credit,
    ) -> None:
        """For ``GrpcClient.duplex`` only."""
        self._source = source
        self._credit = credit
        self._finished = False
        self._sending = threading.Lock()
        self._reader: threading.Thread | None = None  # who asked for an item last
        self._coming = threading.Lock()  # held while it changes what was asked for, or what waits here
        self._ahead: deque[bytes] = deque()  # items that came while nobody had asked for one
        self._ahead_bytes = 0
        super().__init__(begin, binding, failure, attempts)

    def _start(self) -> None:
        self._outlet: Outlet
        self._rpc, self._outlet = self._begin()

    @inside
    def send(self, item: Req, timeout: float | None = None) -> None:
        """Send one item, of a call that was not given its items. It waits until the one before is on its way.

        Args:
            item: its message.
            timeout: seconds to wait, at least 0; None to wait as long as the call may last.

        Raises:
            TimeoutError: it could not be sent in time; the call goes on.
            BothFull: it cannot be sent before answers are read, as many being here as the credit of the call, and
                nobody reads them: no other thread that is alive has asked for an item last. The call goes on.
            CallError: the call has failed, as the iterator says, too; or the item is larger than the method takes, and
                then the call goes on.
            EncodeError: the item cannot be written; the call goes on.
            LocalProtocolError: ``finish`` or ``close`` was called, or the server has ended the call, or it was given
                its items.
        """
        until = deadline_after(timeout)
        with self._sending:
            self._check_sends()
            if self._finished:
                raise LocalProtocolError("finish was called: nothing more can be sent in this call")
            payload = self._binding.encode(item)
            while not self._wait_to_send(until):
                if self._outlet.over or self._over:
                    raise self._why_over()
                self._look_ahead()
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError("the item could not be sent in time; the call goes on")
            self._outlet.give(plain(payload))

    def _wait_to_send(self, until: float | None) -> bool:
        """Wait a moment until the next item may be given; False when it is time to look again."""
        look = time.monotonic() + LOOK
        comes = self._pulled is not None and not self._has_come()
        return self._outlet.wait(look if until is None else min(look, until), self._has_come if comes else None)

    def _nobody_reads(self) -> bool:
        reader = self._reader
        return reader is None or reader is threading.current_thread() or not reader.is_alive()

    def _look_ahead(self) -> None:
        """If nobody reads, have one more item come, beside those that are here.

        Raises:
            BothFull: there is no room for one, and none to send either.
        """
        with self._coming:
            self._keep_locked()
            if not self._nobody_reads() or self._has_come():  # what is not kept is the end, for who iterates
                return
            if len(self._ahead) < self._credit.items and self._ahead_bytes < self._credit.bytes:
                self._pulling(self._outlet.poke)
            elif not self._outlet.wait(0.0) and not self._outlet.over:
                raise BothFull(
                    f"the server takes no more items, and all answers that may wait here ({len(self._ahead)}) are "
                    "unread: read some before you send more"
                )

    def _has_come(self) -> bool:
        pulled = self._pulled
        return pulled is not None and pulled.done()

    def _keep_locked(self) -> None:
        """Put an item that has come to those that wait here."""
        pulled = self._pulled
        if pulled is not None and pulled.done() and not pulled.cancelled() and pulled.exception() is None:
            self._pulled = None
            self._ahead.append(pulled.result())
            self._ahead_bytes += len(self._ahead[-1])

    @inside
    def finish(self) -> None:
        """Say that no more items are sent. Nothing happens if that was said, or if the call is over.

        Raises:
            LocalProtocolError: the call was given its items.
        """
        with self._sending:
            self._check_sends()
            self._finished = True
            self._outlet.finish()

    def next(self, timeout: float | None = None) -> Item:
        """The next item; see ``Duplex``. If the call was given its items, some are sent while none has come."""
        until = deadline_after(timeout)
        source = self._source
        while True:
            if source is not None:
                self._send_until_one_comes(source, until)
            item = self._received_by(until)
            if item is not None:
                return item

    @inside
    def _received_by(self, until: float | None) -> Item | None:
        return self._take(until)

    def _send_until_one_comes(self, source: Source[Req], until: float | None) -> None:
        tried = False
        while not source.ended and not self._comes(until, tried):
            try:
                # The caller's own code, outside of every method of the client.
                payloads = source.pull(ONE, self._binding.encode)
                self._give(payloads, source.ended)
            except BaseException:
                self.close()
                raise
            tried = True

    def _pull(self, timeout: float | None) -> bytes:
        """One that waits here, or the next one that comes."""
        until = deadline_after(timeout)
        while True:
            with self._coming:
                self._reader = threading.current_thread()
                self._keep_locked()
                if self._ahead:
                    payload = self._ahead.popleft()
                    self._ahead_bytes -= len(payload)
                    return payload
                pulled = self._pulled
                if pulled is not None and pulled.done():
                    # It has come just now, or is the end. Still with the lock: whoever sends would put an item to those
                    # that wait here, and this thread would wait for the one behind it.
                    return super()._pull(timeout)
                if pulled is None and timeout is not None:
                    pulled = self._pulling()
            if pulled is None:
                return super()._pull(timeout)  # nobody else asks, now that this thread reads
            pulled.exception(None if until is None else max(0.0, min(until - time.monotonic(), threading.TIMEOUT_MAX)))

    def _may_begin_again(self) -> bool:
        return self._source is not None and self._source.begin_again()

    @inside
    def _comes(self, until: float | None, tried: bool) -> bool:
        """Wait until there is an item to be had, or the end: true; or until one may be sent: false.

        Args:
            until: point in time by ``time.monotonic``; None for none.
            tried: something was sent since the item was asked for: now its time may be up, and it is to be had or not.
        """
        if self._over:
            return True
        pulled = self._pulled
        if pulled is None:
            pulled = self._pulling(self._outlet.poke)
        if tried and until is not None and time.monotonic() >= until:
            return True
        return not self._outlet.wait(until, pulled.done)

    @inside
    def _give(self, payloads: list[Payload], last: bool) -> None:
        for payload in payloads:
            self._outlet.give(plain(payload))
        if last:
            self._outlet.finish()

    def _check_sends(self) -> None:
        if self._source is not None:
            raise LocalProtocolError("this call was given its items, which are sent as it is iterated over")

    def _why_over(self) -> Exception:
        if not self._closed and self._rpc.code() is not grpc.StatusCode.OK:
            return self._failure(self._rpc)
        return LocalProtocolError("this call is over: nothing more can be sent in it")
