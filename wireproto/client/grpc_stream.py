"""The items of a stream over gRPC, as they are asked for."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from wireproto.binding import Binding
from wireproto.client.face import deadline_after
from wireproto.client.grpc_again import Attempts
from wireproto.client.grpc_answers import read_trailers
from wireproto.client.guard import inside
from wireproto.errors import CallError, DecodeError
from wireproto.schema import Message
from wireproto.uncopied import Uncopied
from wireproto.wire.answers import NOTHING_BESIDE

__all__ = ["GrpcStream"]

Item = TypeVar("Item", bound=Message)


class GrpcStream(Uncopied, Generic[Item]):
    """An iterator over the items of a stream call, made by ``GrpcClient.stream``; the face of ``Stream``."""

    def __init__(
        self,
        begin: Callable[[], Any],
        binding: "Binding[Any, Item]",
        failure: Callable[[Any], CallError],
        attempts: Attempts,
    ) -> None:
        """For ``GrpcClient.stream`` only."""
        self._begin = begin
        self._binding = binding
        self._failure = failure
        self._beside = NOTHING_BESIDE
        self._attempts = attempts
        self._received = False
        self._closed = False
        self._over = True  # for the finalizer: nothing is to be cancelled as long as ``begin`` may fail
        self._pulled: Future[bytes] | None = None  # an item that was asked for and is not here yet
        self._start()
        self._over = False

    def _start(self) -> None:
        """Make the call, for the first time or again."""
        self._rpc = self._begin()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        return self.next()

    @inside
    def next(self, timeout: float | None = None) -> Item:
        """The next item.

        Args:
            timeout: seconds to wait for it, at least 0; None to wait as long as the stream may last.

        Raises:
            TimeoutError: none came in time; the stream goes on.
            StopIteration: the stream is at its end, or closed.
            CallError, DecodeError: as for ``Stream``.
        """
        until = deadline_after(timeout)
        while (item := self._take(until)) is None:
            pass
        return item

    def _take(self, until: float | None) -> Item | None:
        """The next item; None when the call was made again because the server never looked at it."""
        if self._over:
            raise StopIteration
        try:
            payload = self._pull(None if until is None else max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise TimeoutError("no item came in time; the stream goes on") from None
        except StopIteration:
            self._over = True
            self._beside = read_trailers(self._rpc)
            raise
        except grpc.RpcError as error:
            ended, self._over = self._over, True
            if ended:
                raise StopIteration from None
            failed = self._failure(error)
            if self._received or not self._attempts.again(failed, error) or not self._may_begin_again():
                self._beside = read_trailers(error)
                raise failed from None
            self._start()
            self._over = False
            if self._closed:  # meanwhile, by another thread
                self._close()
                raise StopIteration from None
            return None
        self._received = True
        try:
            return self._binding.decode(payload)
        except DecodeError:
            self._close()
            raise

    @property
    def dropped(self) -> int:
        """How many items the server has left out, all together; told at the end of the stream, 0 before that."""
        return self._beside.dropped

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the server said beside the end of the stream, by name; empty before that, and for nothing."""
        return self._beside.metadata

    def _may_begin_again(self) -> bool:
        """Whether another call is the same call, for all that this side has done."""
        return True

    def wait_until_open(self) -> None:
        """Wait until the server has begun the stream, or refused it, which the first item asked for will tell."""
        try:
            self._rpc.initial_metadata()
        except grpc.RpcError:
            return

    def acknowledge(self) -> None:
        """Nothing: over gRPC no credit is returned. What acknowledges is the service's own affair."""

    @inside
    def close(self) -> None:
        """Cancel the stream; nothing happens if it is over. A thread that waits for an item sees the end of it."""
        self._close()

    def _close(self) -> None:
        self._closed = self._over = True
        self._rpc.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # grpcio cancels a call that nobody has, but a thread that waits for an item has it.
        if not self._over:
            self._rpc.cancel()

    def _pull(self, timeout: float | None) -> bytes:
        """The next payload. grpcio has no time limit for that, so with one a thread asks, and is asked in turn."""
        pulled = self._pulled
        if pulled is None:
            if timeout is None:
                payload: bytes = next(self._rpc)
                return payload
            pulled = self._pulling()
        # Not ``result`` at once: what a signal handler raises in the wait must leave the item where it can be had.
        error = pulled.exception(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        if error is None:
            payload = pulled.result()
            self._pulled = None
            return payload
        self._pulled = None
        if isinstance(error, _End):
            raise StopIteration
        raise error

    def _pulling(self, news: Callable[[Any], None] | None = None) -> "Future[bytes]":
        """The next payload, which a thread waits for, and calls ``news`` when it is there."""
        pulled = self._pulled
        if pulled is None:
            pulled = Future()
            if news is not None:
                pulled.add_done_callback(news)
            thread = threading.Thread(target=_fetch, args=(self._rpc, pulled), name="wireproto-grpc-item", daemon=True)
            self._pulled = pulled
            try:
                thread.start()
            except BaseException:  # there are no more threads, or a signal handler raised: it may run all the same
                if pulled.cancel():
                    self._pulled = None
                raise
        return pulled


def _fetch(rpc: Any, pulled: "Future[bytes]") -> None:
    """Wait for the next payload. Without the stream, which a caller may let go of meanwhile."""
    if not pulled.set_running_or_notify_cancel():
        return
    try:
        payload = next(rpc)
    except StopIteration:
        pulled.set_exception(_End())
    except BaseException as error:  # noqa: BLE001 - it is the caller's, who would wait for ever
        pulled.set_exception(error)
    else:
        pulled.set_result(payload)


class _End(Exception):
    """The end of a stream, on its way between two threads: a future does not carry StopIteration well."""
