"""The quick engine: a loop of our own over gRPC's core. All that is not public of grpcio is named in this file.

A call costs less CPU than with grpcio's synchronous server, because it has no thread, no lock of grpcio's and no state
of its in Python; ``docs/gateway.md`` has the figures. What is used is ``cygrpc``, the layer under both of grpcio's
servers. So ``problem`` looks whether it is as it was in the versions that the tests ran on; elsewhere the engine of
public names serves.

Who owns what. gRPC's core writes into the operations of a batch when the batch is through, and frees what they hold:
an operation that is in two batches is freed twice. So every operation is made in the arguments of the one ``_batch``
that takes it, and nobody else has it. A ``Call`` is held by its batches and by its wire; the wire is held by the
door's call, until that is over.
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from typing import Any, Final
from urllib.parse import unquote

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from wireproto.address import Address
from wireproto.answering.pool import Worker
from wireproto.errors import CallError, ConfigError
from wireproto.server.gateway.seam import Begin, CallEvents, Headers
from wireproto.server.gateway.trailers import tell, trailers

__all__ = ["TRIED", "CoreEngine", "problem"]

TRIED: Final = frozenset({"1.82", "1.83", "1.84", "1.85"})
"""Versions of grpcio that the suites have run on; the attacks were on the last of them."""

_FOREVER: Final = 366 * 86_400.0
"""Seconds; a call without a deadline has one that is further away than this."""

_SETTLE: Final = 1.0
"""Seconds that gRPC's core gets to end what it was told to."""

_OK: Final = cygrpc.StatusCode.ok

_MORE: Final = 1
"""gRPC's ``GRPC_WRITE_BUFFER_HINT``: up to 64 KiB of a stream may wait for the message that follows at once."""


def problem() -> str:
    """Why this grpcio is none for this engine; empty when it is one.

    Whatever of its private surface is used here is tried, short of a call.
    """
    version = ".".join(grpc.__version__.split(".")[:2])
    if version not in TRIED:
        return f"grpcio {grpc.__version__} is none that the quick one was tried with"
    try:
        queue = cygrpc.CompletionQueue()
        server = cygrpc.Server(((b"grpc.so_reuseport", 0),), False)
        server.register_completion_queue(queue)
        if cygrpc.WriteFlag.buffer_hint != _MORE:
            return "a flag of this grpcio is another"
        if queue.poll(0.0).tag is not None:
            return "an empty queue of this grpcio has an event"
        for owner, names in _SURFACE.items():
            for name in names:
                getattr(owner, name)
        cygrpc.ReceiveCloseOnServerOperation(0).cancelled  # noqa: B018 - whether it is there
        cygrpc.ReceiveMessageOperation(0).message  # noqa: B018
        cygrpc.SendInitialMetadataOperation(None, 0)
        cygrpc.SendMessageOperation(b"", 0)
        cygrpc.SendStatusFromServerOperation((("a-bin", b""),), _OK, b"", 0)
    except (AttributeError, TypeError, ValueError) as error:
        return f"grpcio {grpc.__version__} is not as the quick one knows it ({error})"
    return ""


_SURFACE: Final = {
    cygrpc.Server: ("add_http2_port", "cancel_all_calls", "request_call", "shutdown", "start"),
    cygrpc.CompletionQueue: ("poll", "shutdown"),
    cygrpc.Call: ("cancel", "peer", "start_server_batch"),
}


class CompletionPoller:
    """What the leader waits on: the completion queue, which gives one event at a time; see ``pool.Waits``.

    A batch of no operations is through at once, and its event wakes whoever waits. It needs a call, any call: the last
    one that has come, and before the first has come there is nobody to be woken for.

    Attributes:
        bell: the last call that has come.
        drained: the queue is shut, and whatever was in it was given.
    """

    def __init__(self) -> None:
        self.queue = cygrpc.CompletionQueue()
        self.bell: Any = None
        self._lock = threading.Lock()
        self._shut = False
        self._put_back: deque[Any] = deque()
        self._woken = threading.Event()
        self.drained = threading.Event()

    def poll(self, timeout: float) -> list[Any]:
        """See ``pool.Waits``."""
        if self._put_back:
            return [self._put_back.popleft()]
        if self.drained.is_set():
            self._woken.wait(None if timeout < 0 else timeout)
            self._woken.clear()
            return []
        event = self.queue.poll(None if timeout < 0 else 0.0)  # the leader waits for ever or not at all
        if event.completion_type == cygrpc.CompletionType.queue_shutdown:
            self.drained.set()
        return [] if event.tag is None else [event]

    def put_back(self, events: list[Any]) -> None:
        """See ``pool.Waits``: the queue gives each event once. Whoever polls now is woken behind this."""
        self._put_back.extend(events)

    def wake(self) -> None:
        """See ``pool.Waits``."""
        with self._lock:
            if not self._shut and self.bell is not None:
                self.bell.start_server_batch((), _rung)
                return
        self._woken.set()

    def shut(self) -> None:
        """Nothing new comes any more: give the queue up, once what is in it was given."""
        with self._lock:
            if self._shut:
                return
            self._shut = True
            self.bell = None
            self.queue.shutdown()


class CoreWire:
    """One call; see ``seam.Wire``."""

    __slots__ = ("_call", "_due", "_opened", "_over", "_reading", "_watched", "headers", "path", "peer", "taker")

    def __init__(self, event: Any) -> None:
        call = self._call = event.call
        details = event.call_details
        self.path: str = _text(details.method)
        self.headers: Headers = event.invocation_metadata
        self.peer = _peer(call.peer())
        # A time of day, of which the core has just made it: whatever that one does later, the time that is left stays.
        left = details.deadline - time.time()
        self._due = None if left > _FOREVER else time.monotonic() + left
        self._opened = False
        self._watched = False
        self._over = False
        self._reading = False
        self.taker: CallEvents | None = None

    def begin(self, begin: Begin) -> None:
        """Hand the call to the door."""
        self.taker = begin(self)

    def remaining(self) -> float | None:
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def receive(self) -> None:
        assert not self._reading  # of two reads the core would fill in one, and nobody knows which
        self._reading = True
        _batch(self._call, self._received, cygrpc.ReceiveMessageOperation(0))

    def watch(self) -> None:
        if not self._watched:
            self._watched = True
            _batch(self._call, self._closed, cygrpc.ReceiveCloseOnServerOperation(0))

    def open(self) -> None:
        if not self._opened:
            self._opened = True
            _batch(self._call, _rung, cygrpc.SendInitialMetadataOperation(None, 0))

    def send(self, payload: bytes, more: bool) -> None:
        flags = _MORE if more else 0
        if self._opened:
            _batch(self._call, self._sent, cygrpc.SendMessageOperation(payload, flags))
        else:
            self._opened = True
            _batch(
                self._call,
                self._sent,
                cygrpc.SendInitialMetadataOperation(None, 0),
                cygrpc.SendMessageOperation(payload, flags),
            )

    def answer(self, payload: bytes, said: Mapping[str, str]) -> None:
        """Answer, and where nobody waits for the caller's end ask for it in the same batch: one event and not two."""
        beside = trailers(said) if said else None
        if self._watched:
            _batch(
                self._call,
                _rung,
                cygrpc.SendInitialMetadataOperation(None, 0),
                cygrpc.SendMessageOperation(payload, 0),
                cygrpc.SendStatusFromServerOperation(beside, _OK, b"", 0),
            )
        else:
            self._watched = True
            _batch(
                self._call,
                self._closed,
                cygrpc.SendInitialMetadataOperation(None, 0),
                cygrpc.SendMessageOperation(payload, 0),
                cygrpc.SendStatusFromServerOperation(beside, _OK, b"", 0),
                cygrpc.ReceiveCloseOnServerOperation(0),
            )

    def end(self, error: CallError | None, said: Mapping[str, str]) -> None:
        self.watch()  # apart: in one batch with the refusal of a message that was not read it is not through
        code, message, beside = (_OK, "", trailers(said) or None) if error is None else tell(error, said)
        text = message.encode()
        if self._opened:
            _batch(self._call, _rung, cygrpc.SendStatusFromServerOperation(beside, code, text, 0))
        else:
            self._opened = True
            _batch(
                self._call,
                _rung,
                cygrpc.SendInitialMetadataOperation(None, 0),
                cygrpc.SendStatusFromServerOperation(beside, code, text, 0),
            )

    def reset(self, error: CallError) -> None:
        told = tell(error, {})
        self._call.cancel(told.code, told.message.encode())

    # ------------------------------------------------------------------ tags: called with the event, by the leader

    def _received(self, worker: Worker, event: Any) -> None:
        assert self.taker is not None
        self._reading = False
        payload = event.batch_operations[0].message()
        if payload is not None:
            self.taker.on_message(worker, payload)
        elif self._watched:
            self._reading = True  # and stays it: there is nothing behind this
            _batch(self._call, self._received_none, cygrpc.ReceiveMessageOperation(0))
        else:
            self.taker.on_complete()

    def _received_none(self, worker: Worker, event: Any) -> None:
        """The core has no message where the caller has ended its half, and where the call has failed, and says so alike
        before it tells of the end of the latter. It carries out what it is asked for in order: when it has none for the
        second time, a call that had failed the first time is over.
        """
        assert self.taker is not None
        if not self._over:
            self.taker.on_complete()

    def _sent(self, worker: Worker, event: Any) -> None:
        assert self.taker is not None
        self.taker.on_sent()

    def _closed(self, worker: Worker, event: Any) -> None:
        assert self.taker is not None
        self._over = True
        self.taker.on_over()


class CoreEngine:
    """See ``seam.Engine``.

    Args:
        where: the address to listen on, which is free or has port 0.
        options: channel arguments of grpcio.
    """

    name = "core"

    def __init__(self, where: Address, options: list[tuple[str, int]]) -> None:
        self._where = where
        self.poller = CompletionPoller()
        self._server = cygrpc.Server(tuple((name.encode(), value) for name, value in options), False)
        self._server.register_completion_queue(self.poller.queue)
        self._begin: Begin | None = None
        self._listening = False
        self._started = False

    def on_events(self, worker: Worker, events: list[Any]) -> None:
        """See ``seam.Engine``."""
        for event in events:
            event.tag(worker, event)

    def listen(self, begin: Begin, one_answer: Container[str], hang_up: Callable[[str], None]) -> int:
        """See ``seam.Engine``."""
        self._begin = begin
        try:
            port: int = self._server.add_http2_port(str(self._where).encode())
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {self._where}: {error}") from error
        if port == 0:
            raise ConfigError(f"cannot listen on {self._where}")
        return port

    def start(self) -> None:
        """See ``seam.Engine``."""
        self._started = self._listening = True
        self._server.start()
        self._ask()

    def _ask(self) -> None:
        queue = self.poller.queue
        self._server.request_call(queue, queue, self._called)

    def _called(self, worker: Worker, event: Any) -> None:
        if not event.success or event.call is None:  # the server is shutting down
            return
        assert self._begin is not None
        if self._listening:
            self._ask()
        wire = CoreWire(event)
        self.poller.bell = event.call
        wire.begin(self._begin)

    def drain(self) -> None:
        """See ``seam.Engine``."""
        if self._listening:
            self._listening = False
            self._server.shutdown(self.poller.queue, self._down)

    def stop(self, deadline: float) -> None:
        """See ``seam.Engine``."""
        if not self._started:
            self.poller.shut()
            return
        self.drain()
        if not self.poller.drained.wait(max(0.0, deadline - time.monotonic())):
            self._server.cancel_all_calls()
            self.poller.drained.wait(_SETTLE)

    def _down(self, worker: Worker, event: Any) -> None:
        self.poller.shut()

    def close(self) -> None:
        """See ``seam.Engine``."""


def _rung(worker: Worker, event: Any) -> None:
    """The tag of what nobody waits for."""


def _batch(call: Any, tag: Any, *operations: Any) -> None:
    """Have gRPC's core carry out operations that were made for this, and call ``tag`` when all of them are through."""
    call.start_server_batch(operations, tag)


@functools.lru_cache(4096)
def _peer(value: bytes | str) -> str:
    """What gRPC has as ``ipv6:%5B::1%5D:443``."""
    return unquote(_text(value)).partition(":")[2]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
