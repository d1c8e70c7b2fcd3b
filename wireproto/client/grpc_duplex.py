"""Both halves of a duplex call over gRPC: items sent, and the items that come back as they are asked for."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

from wireproto.binding import Binding
from wireproto.client.face import deadline_after
from wireproto.client.grpc_outlet import ONE, Outlet
from wireproto.client.grpc_stream import GrpcStream
from wireproto.client.guard import inside
from wireproto.client.source import Source
from wireproto.errors import CallError, LocalProtocolError
from wireproto.schema import Message
from wireproto.wire.packing import Payload, plain

__all__ = ["GrpcDuplex"]

Req = TypeVar("Req", bound=Message)
Item = TypeVar("Item", bound=Message)


class GrpcDuplex(GrpcStream[Item], Generic[Req, Item]):
    """An iterator over the items that come back of a duplex call, made by ``GrpcClient.duplex``; as ``Duplex`` is one.

    Who sends and who iterates is as there. What differs: HTTP/2 does not say whether both halves are full, so that
    ``send`` waits where that of ``Duplex`` raises ``BothFull``; and no call is begun again.
    """

    def __init__(
        self,
        rpc: Any,
        binding: "Binding[Any, Item]",
        failure: Callable[[Any], CallError],
        outlet: Outlet,
        source: Source[Req] | None,
    ) -> None:
        """For ``GrpcClient.duplex`` only."""
        super().__init__(rpc, binding, failure)
        self._outlet = outlet
        self._source = source
        self._finished = False
        self._closed = False
        self._sending = threading.Lock()

    @inside
    def send(self, item: Req, timeout: float | None = None) -> None:
        """Send one item, of a call that was not given its items. It waits until the one before is on its way.

        Args:
            item: its message.
            timeout: seconds to wait, at least 0; None to wait as long as the call may last.

        Raises:
            TimeoutError: it could not be sent in time; the call goes on.
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
            if not self._outlet.wait(until):
                if self._outlet.over or self._over:
                    raise self._why_over()
                raise TimeoutError("the item could not be sent in time; the call goes on")
            self._outlet.give(plain(payload))

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
        source = self._source
        if source is None:
            return super().next(timeout)
        until = deadline_after(timeout)
        tried = False
        while not source.ended:
            if self._comes(until, tried):
                break
            try:
                # The caller's own code, outside of every method of the client.
                payloads = source.pull(ONE, self._binding.encode)
                self._give(payloads, source.ended)
            except BaseException:
                self.close()
                raise
            tried = True
        return super().next(None if until is None else max(0.0, until - time.monotonic()))

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

    def _close(self) -> None:
        self._closed = True
        super()._close()

    def _check_sends(self) -> None:
        if self._source is not None:
            raise LocalProtocolError("this call was given its items, which are sent as it is iterated over")

    def _why_over(self) -> Exception:
        if not self._closed and self._rpc.code() is not grpc.StatusCode.OK:
            return self._failure(self._rpc)
        return LocalProtocolError("this call is over: nothing more can be sent in it")
