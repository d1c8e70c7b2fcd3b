"""A TCP proxy that does what networks do to connections: late, slow, in pieces, cut, reset, wrong and silent.

One thread serves all its connections. The rules are in ``faults.py``; this is the sockets and the clock.
"""

import contextlib
import errno
import heapq
import math
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal, Self, TypeAlias

from wireproto.address import Address
from wireproto.errors import ConfigError
from wireproto.testing.faults import Fault, FaultStage, Piece

__all__ = ["FaultProxy", "ProxyEvent", "ProxyStats"]

Direction: TypeAlias = Literal["up", "down"]

CHUNK = 65_536
BUFFERED = 256 * 1024
"""Bytes of one direction that wait in the proxy; beyond them it does not read."""
LINGER = 1.0
"""Seconds after a cut in which what still comes is read and dropped: closing at once would reset the connection."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@dataclass(frozen=True)
class ProxyEvent:
    """Something that happened to a connection.

    Attributes:
        seconds: since the proxy was started.
        connection: its number, from 1.
        kind: "open"; "refused" when there is nobody upstream; "fault"; "close".
        direction: "up", "down", or "" when it is of the connection.
        detail: for people.
        up: bytes that were passed to the server so far.
        down: ... and to the client.
    """

    seconds: float
    connection: int
    kind: Literal["open", "refused", "fault", "close"]
    direction: Direction | Literal[""]
    detail: str
    up: int
    down: int


@dataclass(frozen=True)
class ProxyStats:
    """What a proxy has done so far.

    Attributes:
        connections: that were made.
        open: of these, those that are there now.
        up: bytes passed to the server.
        down: bytes passed to clients.
        faults: how often each fault did something to a connection, by its name; latency, bandwidth and slicer count
            once for each connection and direction.
    """

    connections: int = 0
    open: int = 0
    up: int = 0
    down: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class FaultProxy:
    """A proxy in front of ``upstream``, with faults.

        with FaultProxy(server.address, down=[Latency(0.02), Cut(1234)], seed=7) as proxy:
            client = connect(proxy.address, CALCULATOR)

    Faults of a direction work one after the other, in their order. The same seed gives the same faults at the same
    bytes. Use it as a context manager, or ``start`` and ``close`` it; from any thread.

    Args:
        upstream: the server: ``HOST:PORT`` or a pair.
        up: faults on the way to the server.
        down: faults on the way to the client.
        listen: where clients connect; port 0 for a free one.
        seed: for what is drawn.
        observe: called with each ``ProxyEvent``, on the proxy's thread; it must not block.

    Attributes:
        up, down: may be set while it runs; connections made from then on have the new ones.
    """

    def __init__(
        self,
        upstream: str | tuple[str, int] | Address,
        *,
        up: Sequence[Fault] = (),
        down: Sequence[Fault] = (),
        listen: str | tuple[str, int] | Address = "127.0.0.1:0",
        seed: int = 0,
        observe: Callable[[ProxyEvent], None] | None = None,
    ) -> None:
        self.up: Sequence[Fault] = up
        self.down: Sequence[Fault] = down
        self._upstream = Address.parse(upstream)
        self._wanted = Address.parse(listen)
        self._seed = seed
        self._observe = observe
        self._address: Address | None = None
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._wake = -1
        self._closing = False
        self._failure: BaseException | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._connections: dict[int, _Connection] = {}
        self._timers: list[tuple[float, int]] = []
        self._lock = threading.Lock()  # of the stats: the thread writes them, anybody reads
        self._stats = ProxyStats()
        self._began = 0.0

    # Any thread.

    @property
    def address(self) -> Address:
        """Where clients connect.

        Raises:
            ConfigError: it was not started yet.
        """
        if self._address is None:
            raise ConfigError("the proxy has no address yet; call start(), or use it in a with statement")
        return self._address

    @property
    def stats(self) -> ProxyStats:
        """A snapshot."""
        with self._lock:
            return replace(self._stats, faults=Counter(self._stats.faults))

    def start(self) -> None:
        """Listen, and serve on a thread of its own.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        host, port = self._wanted
        try:
            listener = socket.create_server((host, port), family=_family(host))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
            raise ConfigError(f"cannot listen on {self._wanted}: {reason}") from error
        listener.setblocking(False)
        thread = threading.Thread(target=self._run, name="wireproto-proxy", daemon=True)
        try:
            self._listener = listener
            self._address = Address(*listener.getsockname()[:2])
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
            self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
            self._began = time.monotonic()
            thread.start()
        except (OSError, RuntimeError):  # no descriptor or no thread is to be had
            listener.close()
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
            raise
        self._thread = thread

    def close(self, timeout: float = 5.0) -> None:
        """End all connections, with a reset, and stop.

        Raises:
            TimeoutError: the thread is still there after ``timeout`` seconds: ``observe`` blocks.
        """
        thread = self._thread
        if thread is None:
            return

        def stop() -> None:
            self._closing = True

        self._post(stop)
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError(f"the proxy's thread is still there after {timeout:g} s; does observe block?")
        self._thread = None
        with self._lock:
            os.close(self._wake)
            self._wake = -1
        if self._failure is not None:
            raise self._failure

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the proxy has ended, at most ``timeout`` seconds; whether it has. Call ``close`` all the same."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def reset(self) -> None:
        """Reset every connection there is now. New ones are served as before."""

        def reset() -> None:
            for connection in list(self._connections.values()):
                connection.end("reset", "reset by the test")

        self._post(reset)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        with self._lock:  # or the descriptor might be somebody else's by now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # The proxy's thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - raised by close(), on the thread of whoever uses the proxy
            self._failure = error
        finally:
            for connection in list(self._connections.values()):
                connection.end("reset", "the proxy was closed")
            self._selector.close()
            if self._listener is not None:
                self._listener.close()

    def _turn(self) -> None:
        timeout: float | None = None
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for key, mask in self._selector.select(timeout):
            key.data(mask)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, number = heapq.heappop(self._timers)
            connection = self._connections.get(number)
            if connection is not None:
                connection.pump(now)

    def _woken(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._commands:
            self._commands.popleft()()

    def _accept(self, mask: int) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        with self._lock:
            number = self._stats.connections + 1
            self._stats = replace(self._stats, connections=number, open=self._stats.open + 1)
        server = socket.socket(_family(self._upstream.host), socket.SOCK_STREAM)
        connection = _Connection(self, number, client, server, self._flow("up", number), self._flow("down", number))
        self._connections[number] = connection
        connection.connect(self._upstream)

    def _flow(self, direction: Direction, number: int) -> "_Flow":
        stages = []
        for index, fault in enumerate(self.up if direction == "up" else self.down):
            if fault.applies_to(number):
                stages.append(fault.stage(random.Random(f"{self._seed} {number} {direction} {index}")))
                if fault.name in ("latency", "bandwidth", "slicer"):
                    self.count(fault.name)
        return _Flow(direction, stages)

    # For connections.

    def wake_at(self, due: float, number: int) -> None:
        if due < math.inf:
            heapq.heappush(self._timers, (due, number))

    def watch(self, sock: socket.socket, mask: int, callback: Callable[[int], None]) -> None:
        """Change what of a socket is waited for. Without interest it is taken out: a hang-up would be told for ever."""
        try:
            known = self._selector.get_key(sock).events
        except KeyError:
            known = 0
        if mask == known:
            return
        if not known:
            self._selector.register(sock, mask, callback)
        elif not mask:
            self._selector.unregister(sock)
        else:
            self._selector.modify(sock, mask, callback)

    def forget(self, number: int) -> None:
        del self._connections[number]
        with self._lock:
            self._stats = replace(self._stats, open=self._stats.open - 1)

    def send(self, sock: socket.socket, data: bytes | memoryview, direction: Direction) -> int:
        """Send what the kernel takes, and count it under the same lock: whoever received a byte finds it counted."""
        with self._lock:
            sent = sock.send(data, socket.MSG_NOSIGNAL)
            stats = self._stats
            up, down = (sent, 0) if direction == "up" else (0, sent)
            self._stats = replace(stats, up=stats.up + up, down=stats.down + down)
        return sent

    def count(self, fault: str) -> None:
        with self._lock:
            self._stats.faults[fault] += 1

    def tell(self, event: ProxyEvent) -> None:
        if self._observe is None:
            return
        try:
            self._observe(event)
        except BaseException as error:  # noqa: BLE001 - raised by close()
            self._failure = error
            self._observe = None
            self._closing = True

    def seconds(self) -> float:
        return time.monotonic() - self._began


class _Flow:
    """One direction of a connection: what was read and is not written yet.

    Attributes:
        waiting: pieces, in order of their time.
        held: bytes in them.
        written: bytes written.
        ended: nothing more is read: the sender has ended its output.
        shut: that end was passed on.
        blocked: the system takes no more now.
        armed: when a timer is to go off for it; ``-inf`` for none.
    """

    def __init__(self, direction: Direction, stages: Sequence[FaultStage]) -> None:
        self.direction = direction
        self.stages = stages
        self.waiting: deque[Piece] = deque()
        self.held = 0
        self.written = 0
        self.ended = False
        self.shut = False
        self.blocked = False
        self.armed = -math.inf

    def begin(self, now: float) -> None:
        for index, stage in enumerate(self.stages):
            for piece in stage.begin(now):
                self._through(piece, index + 1)

    def feed(self, piece: Piece) -> None:
        self._through(piece, 0)

    def _through(self, piece: Piece, start: int) -> None:
        pieces: Iterator[Piece] = iter((piece,))
        for stage in self.stages[start:]:
            pieces = _fed(stage, pieces)
        for each in pieces:
            self.waiting.append(each)
            self.held += len(each.data)


def _fed(stage: FaultStage, pieces: Iterator[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        yield from stage.feed(piece)


class _Connection:
    """A client, a server, and the two flows between them."""

    def __init__(
        self, proxy: FaultProxy, number: int, client: socket.socket, server: socket.socket, up: _Flow, down: _Flow
    ) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._server = server
        self._up = up
        self._down = down
        self._connected = False
        self._cut = False
        self._closed = False
        self._drop_until = math.inf
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, upstream: Address) -> None:
        error = self._server.connect_ex(tuple(upstream))
        if error not in (0, errno.EINPROGRESS):
            self._refuse(error)
            return
        self._proxy.watch(self._server, selectors.EVENT_WRITE, self._on_connected)

    def _on_connected(self, mask: int) -> None:
        error = self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._refuse(error)
            return
        self._connected = True
        self._tell("open", "", f"{_peer(self._client)} to {_peer(self._server)}")
        now = time.monotonic()
        self._up.begin(now)
        self._down.begin(now)
        self.pump(now)

    def _refuse(self, error: int) -> None:
        self._tell("refused", "", f"nobody upstream: {os.strerror(error)}")
        self._close(reset=True)

    def _on_client(self, mask: int) -> None:
        self._on_socket(mask, self._client, self._up)

    def _on_server(self, mask: int) -> None:
        self._on_socket(mask, self._server, self._down)

    def _on_socket(self, mask: int, sock: socket.socket, source: _Flow) -> None:
        if self._closed:
            return  # by the other socket's event, in the same turn
        if mask & selectors.EVENT_WRITE:
            (self._down if source is self._up else self._up).blocked = False
        now = time.monotonic()
        if mask & selectors.EVENT_READ:
            try:
                data = sock.recv(CHUNK)
            except BlockingIOError:
                pass
            except OSError as error:
                self.end("reset", f"the {'client' if source is self._up else 'server'} went: {error.strerror}")
                return
            else:
                if not data:
                    source.ended = True
                if not self._cut:
                    source.feed(Piece(now, data) if data else Piece(now, end="eof"))
        self.pump(now)

    def pump(self, now: float) -> None:
        """Write what is due, and wait for what is not."""
        if self._closed or not self._connected:
            return
        if self._cut:
            if now >= self._drop_until or (self._up.ended and self._down.ended):
                self._close(reset=False)
                return
        else:
            for flow, sock in ((self._up, self._server), (self._down, self._client)):
                if not self._write(flow, sock, now):
                    return
            if self._up.shut and self._down.shut:
                self._tell("close", "", "both sides ended")
                self._close(reset=False)
                return
        self._watch()

    def _write(self, flow: _Flow, sock: socket.socket, now: float) -> bool:
        """Write what is due in one direction; False when the connection is over."""
        while flow.waiting and not flow.blocked:
            piece = flow.waiting[0]
            if piece.due > now:
                if piece.due != flow.armed:
                    flow.armed = piece.due
                    self._proxy.wake_at(piece.due, self._number)
                break
            if piece.fault:
                self._proxy.count(piece.fault.partition(" ")[0])
                self._tell("fault", flow.direction, piece.fault)
                piece = flow.waiting[0] = piece._replace(fault="")
            if piece.data:
                try:
                    sent = self._proxy.send(sock, piece.data, flow.direction)
                except BlockingIOError:
                    flow.blocked = True
                    break
                except OSError as error:
                    self.end("reset", f"the {'server' if sock is self._server else 'client'} went: {error.strerror}")
                    return False
                flow.written += sent
                flow.held -= sent
                if sent < len(piece.data):
                    flow.waiting[0] = piece._replace(data=piece.data[sent:])
                    continue
            flow.waiting.popleft()
            if piece.end in ("cut", "reset"):
                self.end(piece.end, piece.end)
                return False
            if piece.end == "eof":
                flow.shut = True
                _shut(sock)
        return True

    def _watch(self) -> None:
        for sock, source, sink, callback in (
            (self._client, self._up, self._down, self._on_client),
            (self._server, self._down, self._up, self._on_server),
        ):
            reads = not source.ended and (self._cut or source.held < BUFFERED)
            mask = selectors.EVENT_READ if reads else 0
            self._proxy.watch(sock, mask | (selectors.EVENT_WRITE if sink.blocked and not self._cut else 0), callback)

    def end(self, how: str, why: str) -> None:
        """End the connection: "cut" with an end of output to both sides, "reset" with a reset."""
        if self._closed:
            return
        if not self._cut:
            self._tell("close", "", why)
        if how != "cut":
            self._close(reset=True)
            return
        self._cut = True
        for sock in (self._client, self._server):
            _shut(sock)
        self._drop_until = time.monotonic() + LINGER
        self._proxy.wake_at(self._drop_until, self._number)
        self._watch()

    def _close(self, *, reset: bool) -> None:
        self._closed = True
        for sock in (self._client, self._server):
            self._proxy.watch(sock, 0, self._on_client)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        self._proxy.forget(self._number)

    def _tell(
        self, kind: Literal["open", "refused", "fault", "close"], direction: Direction | Literal[""], detail: str
    ) -> None:
        proxy = self._proxy
        proxy.tell(
            ProxyEvent(proxy.seconds(), self._number, kind, direction, detail, self._up.written, self._down.written)
        )


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer was quicker
        sock.shutdown(socket.SHUT_WR)


def _peer(sock: socket.socket) -> str:
    try:
        return str(Address(*sock.getpeername()[:2]))
    except OSError:
        return "somebody who has gone"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
