"""One gRPC call: its context, and the two behaviours that grpcio runs, one for unary methods and one for streams.

Both take and give bytes. grpcio's serializers are not used, because it answers whatever one of them raises with
INTERNAL, where the dispatcher says INVALID_ARGUMENT and names the field.
"""

import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from wireproto.dispatch import Context, Entry, Identity, Subscription, Table
from wireproto.errors import CallError
from wireproto.limits import Limits
from wireproto.protos.status import to_rpc_status
from wireproto.reasons import failure
from wireproto.schema import Operation
from wireproto.server.gateway.metadata import read_headers
from wireproto.server.gateway.pool import CountedPool
from wireproto.server.refusals import cancelled, late, shutting_down, too_large
from wireproto.status import Retry, Status
from wireproto.wire.frame import HEADER_AFTER_LENGTH
from wireproto.wire.metadata import Metadata

__all__ = ["Door", "StreamBehavior", "UnaryBehavior", "fail"]

log = logging.getLogger("wireproto.gateway")

TURN = 64
"""Items taken of a subscription at once."""

_FOREVER = 366 * 86_400.0
"""Seconds; grpcio has no other word for a call without a deadline than one that is further away than this."""


class Door:
    """What all calls of a gateway share.

    Attributes:
        limits: the gateway's.
        largest: bytes that a payload may have in either direction.
        streams: the pool that stream calls run in.
        closing: the gateway drains; streams are to end.
    """

    def __init__(self, limits: Limits, streams: CountedPool) -> None:
        self.limits = limits
        self.largest = limits.max_frame - HEADER_AFTER_LENGTH  # what fits one door fits the other
        self.streams = streams
        self.closing = False
        self._lock = threading.Lock()
        self._waiting: set[threading.Event] = set()

    def enter(self, woken: threading.Event) -> None:
        """Have ``close`` set ``woken``."""
        with self._lock:
            self._waiting.add(woken)

    def leave(self, woken: threading.Event) -> None:
        with self._lock:
            self._waiting.discard(woken)

    def close(self) -> None:
        """Tell every stream to end."""
        with self._lock:
            self.closing = True
            waiting = list(self._waiting)
        for woken in waiting:
            woken.set()


class RpcCall(Context):
    """The context of one call. ``cancelled`` asks grpcio, so a call that nobody cancels pays nothing for it."""

    __slots__ = ("_entry", "_over", "_peer", "_version", "deadline", "identity", "metadata", "rpc")

    def __init__(
        self, rpc: grpc.ServicerContext, entry: Entry, version: int, metadata: Metadata, deadline: float | None
    ) -> None:
        self.rpc = rpc
        self.metadata = metadata
        self.identity: Identity | None = None
        self.deadline = deadline
        self._entry = entry
        self._version = version
        self._over = False
        self._peer = rpc.peer()  # now: grpcio may have forgotten it once the call is over

    @property
    def cancelled(self) -> bool:
        return self._over or not self.rpc.is_active() or self.remaining() == 0.0

    @cancelled.setter
    def cancelled(self, over: bool) -> None:
        self._over = over

    @property
    def peer(self) -> str:
        # "ipv4:127.0.0.1:53211" or "ipv6:%5B::1%5D:53211"
        return urllib.parse.unquote(self._peer.partition(":")[2])

    @property
    def codec(self) -> str:
        return "protobuf"

    @property
    def version(self) -> int:
        return self._version

    @property
    def method(self) -> Operation[Any, Any]:
        return self._entry.method

    def sign_in(self, identity: Identity) -> None:
        """Nothing: an HTTP/2 connection may be a proxy's, and carry the calls of many. Each call signs for itself."""

    def sign_out(self) -> None:
        """Nothing, as ``sign_in``."""


class _Behavior:
    """One method at the door, in every version of its service.

    Args:
        door: what is shared.
        opcode: of the method.
        tables: by version; the newest one serves calls that ask for none.
    """

    def __init__(self, door: Door, opcode: int, tables: Mapping[int, Table]) -> None:
        self._door = door
        self._most_metadata = door.limits.max_metadata
        self._largest = door.largest
        self._newest = max(tables)
        self._entries = {
            version: table.entries.get(opcode) or table.missing(opcode) for version, table in tables.items()
        }

    def _begin(self, rpc: grpc.ServicerContext) -> tuple[Entry, RpcCall]:
        """Read what came with the payload.

        Raises:
            CallError: it cannot be read, or asks for what there is not.
        """
        remaining = rpc.time_remaining()
        deadline_ms = int(remaining * 1000) if remaining < _FOREVER else None
        metadata, version = read_headers(rpc.invocation_metadata(), deadline_ms, self._most_metadata)
        if version is None:
            version = self._newest
        entry = self._entries.get(version)
        if type(entry) is not Entry:
            raise entry if isinstance(entry, CallError) else self._unsupported(version)
        return entry, RpcCall(rpc, entry, version, metadata, entry.due(remaining if remaining < _FOREVER else None))

    def _unsupported(self, version: int) -> CallError:
        return CallError(
            Status.FAILED_PRECONDITION,
            "UNSUPPORTED_VERSION",
            f"version {version} is not served; the versions {min(self._entries)} to {self._newest} are",
        )

    def _sized(self, payload: bytes) -> bytes:
        if len(payload) > self._largest:
            raise too_large(f"it has {len(payload)} bytes, and at most {self._largest} are accepted")
        return payload


class UnaryBehavior(_Behavior):
    """``behavior(request, context) -> response`` of one unary method; runs in the pool of unary calls."""

    def __call__(self, payload: bytes, rpc: grpc.ServicerContext) -> bytes:
        """Answer one call; grpcio's exception ends it otherwise."""
        try:
            entry, call = self._begin(rpc)
            outcome = entry.run(payload, call)
            if type(outcome) is not bytes:
                outcome = self._settled(entry, call, outcome)
            deadline = call.deadline
            if deadline is not None and time.monotonic() >= deadline:
                # Over TCP this was answered when the deadline passed; here it is answered when the handler is back.
                raise late()
            return self._sized(outcome)
        except Exception as error:  # noqa: BLE001 - grpcio would send its text to the caller
            fail(rpc, _told(error))

    def _settled(self, entry: Entry, call: RpcCall, outcome: object) -> bytes:
        """What the handler's outcome comes to, when it was not an answer yet."""
        if isinstance(outcome, Future):
            outcome = _awaited(entry, call, outcome)
        if isinstance(outcome, CallError):
            raise outcome
        if type(outcome) is not bytes:
            raise entry.incident(TypeError(f"{type(outcome).__name__} is no answer"))
        return outcome


def _awaited(entry: Entry, call: RpcCall, future: "Future[Any]") -> "bytes | CallError":
    """Wait for a deferred answer, the deadline, or the end of the call. The thread waits with it, which gRPC's
    synchronous server demands of a unary call.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if call.rpc.add_callback(done.set):
        done.wait(call.remaining())
    if not future.done():
        future.cancel()
        return late() if call.remaining() == 0.0 else cancelled()
    if future.cancelled():
        return cancelled()
    error = future.exception()
    return entry.encode(future.result()) if error is None else entry.failure(error)


class StreamBehavior(_Behavior):
    """``behavior(request, context, send)`` of one stream method; runs in the pool of streams, from begin to end.

    It is of the kind that grpcio calls non-blocking, where the behaviour sends the items: so it sees what has become
    of the call between two of them, and closes the source exactly once, whatever happens.
    """

    experimental_non_blocking = True

    def __init__(self, door: Door, opcode: int, tables: Mapping[int, Table]) -> None:
        super().__init__(door, opcode, tables)
        self.experimental_thread_pool = door.streams

    def __call__(self, payload: bytes, rpc: grpc.ServicerContext, send: Callable[[bytes | None], None]) -> None:
        """Send the items of one call, then its end; grpcio's exception ends it otherwise."""
        try:
            entry, call = self._begin(rpc)
            outcome = entry.run(payload, call)
            if isinstance(outcome, CallError):
                raise outcome
            if isinstance(outcome, Subscription):
                self._subscribe(entry, call, outcome, send)
            elif isinstance(outcome, Iterator):
                self._iterate(entry, call, outcome, send)
            else:
                raise entry.incident(TypeError(f"{type(outcome).__name__} is no stream"))
        except Exception as error:  # noqa: BLE001 - grpcio would send its text to the caller
            fail(rpc, _told(error))
        send(None)

    def _subscribe(
        self, entry: Entry, call: RpcCall, source: Subscription[Any], send: Callable[[bytes | None], None]
    ) -> None:
        """Send what the subscription has, and wait for its wake, the deadline, the end of the call or the gateway's.

        HTTP/2's flow control is all the credit there is: ``send`` returns when an item was written. It acknowledges
        nothing, so the source is told the initial credit and never of more.
        """
        woken = threading.Event()
        why = "ended"
        source.wake = woken.set
        self._door.enter(woken)
        try:
            going = call.rpc.add_callback(woken.set)
            if going:
                _say_open(call)
            while going:
                woken.clear()  # before take, so that no wake is lost
                self._go_on(call)
                payloads: list[bytes] = []
                failure = None
                try:
                    with source.giving:
                        items = source.take(TURN)
                        if len(items) > TURN:
                            raise ValueError(
                                f"{type(source).__name__}.take({TURN}) gave {len(items)} items; give at most that"
                            )
                        for item in items:
                            payloads.append(self._encoded(entry, item))
                except CallError as error:
                    failure = error  # of one item: those before it are sent
                for payload in payloads:
                    self._send(call, payload, send)
                if failure is not None:
                    raise failure
                if not payloads:
                    woken.wait(call.remaining())
            raise cancelled()
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001 - whatever a source raises ends its stream only
            failure = entry.failure(error)
            why = str(failure)
            raise failure from None
        finally:
            self._door.leave(woken)
            _close(entry, lambda: source.close(why))

    def _iterate(
        self, entry: Entry, call: RpcCall, source: Iterator[Any], send: Callable[[bytes | None], None]
    ) -> None:
        try:
            while True:
                self._go_on(call)
                self._send(call, self._encoded(entry, next(source)), send)
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001 - whatever an iterator raises ends its stream only
            raise entry.failure(error) from None
        finally:
            if isinstance(source, Generator):
                _close(entry, source.close)

    def _go_on(self, call: RpcCall) -> None:
        """Raise the reason why the stream is to end, if there is one."""
        if not call.rpc.is_active():
            raise cancelled()
        if call.remaining() == 0.0:
            raise late()
        if self._door.closing:
            raise shutting_down(Retry.MAYBE_PROCESSED)  # its handler has begun, as on the other door

    def _encoded(self, entry: Entry, item: object) -> bytes:
        payload = entry.encode(item)
        if isinstance(payload, CallError):
            raise payload
        return self._sized(payload)

    def _send(self, call: RpcCall, payload: bytes, send: Callable[[bytes | None], None]) -> None:
        send(payload)
        if not call.rpc.is_active():
            raise cancelled()


def fail(rpc: grpc.ServicerContext, error: CallError) -> NoReturn:
    """End a call with an error that stock clients can read in full."""
    rpc.abort_with_status(rpc_status.to_status(to_rpc_status(error)))
    raise AssertionError("abort_with_status raises")


def _told(error: Exception) -> CallError:
    """``error`` if it was meant for the caller; else it is a fault of the gateway's own, and stays in the log."""
    if isinstance(error, CallError):
        return error
    log.error("a call could not be served", exc_info=error)
    return failure("INTERNAL", "the server failed; its log has the cause")


def _say_open(call: RpcCall) -> None:
    """Send the headers now and not with the first item, so that the caller can know that the source is there."""
    try:
        call.rpc.send_initial_metadata(())
    except grpc.RpcError:
        raise cancelled() from None


def _close(entry: Entry, close: Callable[[], object]) -> None:
    try:
        close()
    except BaseException as error:  # noqa: BLE001 - the stream is over: only the log is left
        entry.incident(error)
