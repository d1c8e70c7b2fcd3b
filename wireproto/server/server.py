"""The threaded server: it listens, accepts, admits, and shuts down. Sessions and workers do the rest."""

import contextlib
import errno
import itertools
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from wireproto.address import Address, is_loopback
from wireproto.answering.call import Call
from wireproto.answering.pace import Pace
from wireproto.answering.pool import Pool, Worker
from wireproto.binding import Dialect
from wireproto.codecs import Codec, select
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Authenticate, Handlers, Table, each_service
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.log_limit import LogLimit
from wireproto.poller import READ, Poller
from wireproto.schema import Service
from wireproto.server.control import control_handlers
from wireproto.server.life import Life, while_awake
from wireproto.server.listening import listen, wanted
from wireproto.server.poller import LookingPoller
from wireproto.server.session import Session
from wireproto.uncopied import Uncopied
from wireproto.wire.connection import Connection, ConnectionMaker, Role
from wireproto.wire.handshake import Hello, Offer, Welcome, find_offer, negotiate
from wireproto.wire.packing import numbers_of

__all__ = ["Server"]

log = logging.getLogger("wireproto.server")

ACCEPTS = 64
"""Connections accepted in one turn, so that a flood of them does not keep the others waiting."""

BACK_OFF = 0.1
"""Seconds without accepting after the system ran out of descriptors or memory."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server(Uncopied):
    """Serves handlers over TCP, in every codec asked for, on a fixed number of threads.

    Args:
        handlers: the handlers of one service, or of several: the client names the service it wants.
        host: the address to listen on; loopback unless told otherwise, for there is no encryption yet.
        port: 0 for a free one.
        codecs: names or ``Codec`` objects that clients may choose from; None for all that are installed.
        limits: what the server accepts.
        workers: threads that run handlers, at least 2. With the watchdog and the main thread, 30 make a process of 32.
        authenticate: ``f(metadata, peer) -> Identity | None`` for calls that carry ``authorization``.
        name: what the server calls itself in the handshake.
        compression: the algorithms, of ``zlib`` and ``zstd``, with which clients may pack requests, and with one of
            which the answers of methods with ``compress`` are packed: the client's favourite. () for none.
        connections: makes the protocol's state of each session; None for ``Connection``. For tests, such as
            ``wireproto.testing.greasing(seed)``.
        on_client: called with each client once it is connected, on a worker; maybe behind its first calls, and not if
            it has left before there was a worker. The server may call it from then on, and
            ``ConnectedClient.on_close`` says when no more.

    A server is started once and shut down once, by the process that made it. Shutting it down or dropping it in a child
    of that process changes nothing for the parent.

    Attributes:
        hint: a sentence for HTTP clients that meet this port, such as where gRPC is spoken; may be set at any time.

    Raises:
        ConfigError: an argument is wrong.
        DeclarationError: a codec cannot carry a message of a service.
    """

    def __init__(
        self,
        handlers: Handlers | Sequence[Handlers],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        codecs: "Sequence[str | Codec] | None" = None,
        limits: Limits | None = None,
        workers: int = 30,
        authenticate: Authenticate | None = None,
        name: str = "wireproto",
        compression: Sequence[str] = ("zlib",),
        connections: ConnectionMaker | None = None,
        on_client: Callable[[ConnectedClient], None] | None = None,
    ) -> None:
        self._wanted = wanted(host, port)
        if workers < 2:
            raise ConfigError(f"workers is {workers}; a server needs at least 2, one to lead and one to follow")
        self.limits = Limits() if limits is None else limits
        self.name = name
        self.sessions: dict[int, Session] = {}
        self.hint = ""
        self._make_connection: ConnectionMaker = Connection if connections is None else connections
        self._codecs = select(codecs)
        self._packing = numbers_of(compression)
        self._offers: dict[str, Offer] = {}
        self._control: dict[str, Offer] = {}
        self._on_client = on_client
        self._dialects: dict[tuple[Table, str, int], Dialect] = {}
        self._tables: dict[tuple[str, int, int, int, int], Table] = {}
        self._prepare(each_service(handlers), authenticate)
        self._address: Address | None = None
        self._listener: socket.socket | None = None
        self._listening = False
        self._accept_again: float | None = None
        self._reserve = -1
        self._counts_lock = threading.Lock()
        self._connections = 0
        self._per_address: Counter[str] = Counter()
        self._log_limit = LogLimit()
        self._drained = threading.Event()
        self._life = Life("server", self._forget)
        self._workers = workers
        self.poller: Poller = LookingPoller()
        self.pool = Pool(
            size=workers,
            queue_limit=self.limits.run_queue,
            poller=self.poller,
            on_events=self._on_events,
            on_slow_turn=self._suspect,
            on_tick=self._sweep,
            on_stuck=self._on_stuck,
        )

    def _prepare(self, every: list[Handlers], authenticate: Authenticate | None) -> None:
        """Compile each service for each codec and version now, so that no connection waits for it and errors come
        early.
        """
        names = {codec.id: codec.name for codec in self._codecs}
        for handlers in every:
            service = handlers.service
            for method in handlers.missing():
                log.warning("%s.%s has no handler and is answered UNIMPLEMENTED", service.full_name, method.name)
            self._offers[service.full_name] = _offer(service, names)
        control = control_handlers([handlers.service for handlers in every], self.name, lambda: not self._life.ended)
        own = control.service
        self._control[own.full_name] = _offer(own, names)
        self._control_version = own.version
        for codec, control_version in itertools.product(self._codecs, own.versions):
            framework = control.table(codec, control_version, self.limits, authenticate)
            for version in own.versions:
                # Whoever asks for it as a service has it in the version of that.
                same = version == control_version
                table = framework if same else control.table(codec, version, self.limits, authenticate)
                self._tables[own.full_name, codec.id, version, 0, control_version] = table
            for handlers in every:
                service = handlers.service
                for version in service.versions:
                    table = handlers.table(codec, version, self.limits, authenticate)
                    entries = {**table.entries, **framework.entries}
                    self._tables[service.full_name, codec.id, version, 0, control_version] = Table(
                        service, version, entries
                    )
                    for packing in self._packing:
                        table = handlers.table(codec, version, self.limits, authenticate, packing=packing)
                        # Whatever does not pack is the same whether or not something was agreed on.
                        packs = {opcode: entry for opcode, entry in table.entries.items() if entry.packs}
                        if packs:
                            key = service.full_name, codec.id, version, packing, control_version
                            self._tables[key] = Table(service, version, {**entries, **packs})
        for table in self._tables.values():
            for entry in table.entries.values():
                if entry.pace is None:  # the framework's methods are in every table
                    entry.pace = Pace(entry.blocking)
                    if self._packing:
                        entry.of_packed = entry.unpacking()
                        entry.of_packed.pace = Pace(True)

    # ------------------------------------------------------------------ life

    @property
    def address(self) -> Address:
        """Where the server listens; ``str`` of it is ``host:port``.

        Raises:
            ConfigError: it was not started yet.
        """
        if self._address is None:
            raise ConfigError("the server has no address yet; call start(), or use it in a with statement")
        return self._address

    @property
    def codecs(self) -> list[str]:
        """The names of the codecs that clients may choose from."""
        return [codec.name for codec in self._codecs]

    def start(self) -> None:
        """Listen, and serve on threads of its own.

        Raises:
            ConfigError: the address cannot be listened on, the system has no more threads, or the server was started or
                shut down already; the text says which. A server that runs goes on.
        """
        self._life.begin()
        try:
            self._listener = self._listen()
        except BaseException:
            self._life.not_begun()
            raise
        self._address = Address(*self._listener.getsockname()[:2])
        self._reserve = _spare_descriptor()
        with self._counts_lock:
            self._listen_locked(True)
        try:
            self._life.begun()
            self.pool.start()
        except BaseException as error:
            self.shutdown(0.0)
            if isinstance(error, RuntimeError):
                raise ConfigError(
                    f"{self._workers} threads cannot be started: {error}; give fewer workers, or allow more threads"
                ) from error
            raise

    def _listen(self) -> socket.socket:
        listener = listen(self._wanted, self.limits.backlog)
        listener.setblocking(False)
        # Accepted connections inherit these on Linux, which saves a system call each per connection.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
        return listener

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until ``shutdown`` has ended, at most ``timeout`` seconds; whether it has."""
        return self._life.wait(timeout)

    def shutdown(self, timeout: float = 10.0) -> list[str]:
        """Stop accepting, say GOAWAY, finish the calls in flight, close, and end the threads. From any thread but a
        worker, and from a signal handler.

        A further call waits for the first one, and then for the threads that were left. A server that was not started
        is never to be. In a child of the process that made the server nothing happens.

        Args:
            timeout: seconds, in which the process runs, for the calls in flight; what is not finished then is cut off.

        Returns:
            The names of threads that are still inside a handler; they are daemons and do not keep the process alive.
        """
        deadline = time.monotonic() + timeout
        if self._life.inherited:
            return []
        if self._life.end():
            try:
                return self._end(timeout)
            except BaseException:
                self._life.interrupted()
                raise
        return self._leave(deadline) if self._life.wait(timeout) else []

    def _end(self, timeout: float) -> list[str]:
        deadline = time.monotonic() + timeout
        with self._counts_lock:
            self._listen_locked(False)
        if self._listener is not None:
            self._listener.close()
        for session in list(self.sessions.values()):
            session.drain()
        if self.sessions:
            while_awake(self._drained.wait, timeout)
        for session in list(self.sessions.values()):
            session.cut("it did not finish before the server's shutdown")
        # A second more for handlers to notice: their answers have nowhere to go, so it is only for a clean end.
        survivors = self._leave(max(deadline, time.monotonic()) + 1.0)
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        self._life.over()
        return survivors

    def _leave(self, deadline: float) -> list[str]:
        """End the threads; once none is left, nobody polls any more."""
        survivors = self.pool.stop(deadline)
        if not survivors:
            self.poller.close()
        return survivors

    def _forget(self) -> None:
        """Close the descriptors in a child of this process, which shares with it what is behind them.

        Nothing is written, shut down or taken out of the poller: all of it would happen to the parent. No lock is
        taken, for whichever thread held it is not there any more.
        """
        if self._listener is not None:
            self._listener.close()
        for session in self.sessions.values():
            session.transport.forget()
        self.sessions.clear()
        self.poller.forget()
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    # ------------------------------------------------------------------ the leader's

    def _on_events(self, worker: Worker, events: list[tuple[int, int]]) -> None:
        sessions = self.sessions
        pool = self.pool
        for fd, mask in events:
            session = sessions.get(fd)
            if session is not None:
                try:
                    session.on_event(worker, mask)
                except Exception:
                    # Level-triggered, it would be repeated for ever.
                    worker.running = None
                    log.exception("a session failed outside a handler and is closed; please report this")
                    session.close("the server failed")
                if pool.leader is not worker:
                    return  # level-triggered: the next leader is told of the rest again
            elif self._listener is not None and fd == self._listener.fileno():
                self._accept(self._listener)

    def _suspect(self) -> None:
        """A turn was slow: have what ran since the last such turn timed by itself, the next time it runs."""
        for table in self._tables.values():
            for entry in table.entries.values():
                entry.pace.suspect()

    def _on_stuck(self, running: object) -> None:
        """A leader was deposed inside a handler: send what it had answered, and go on with the rest of its batch."""
        if isinstance(running, Call):
            running.session.take_over()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            if not self._listening:
                return  # the last one was the last that may be
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(listener, error)
                return
            host, port = address[:2]
            if not self._admit(host):
                sock.close()
                continue
            try:
                sock.setblocking(False)
                session = Session(self, sock, host, port)
                session.open()
                if self._life.ended:
                    session.close("")  # it came between the last look at the sessions and the end of the listener
            except OSError as error:
                # The peer was gone already, or epoll is out of memory.
                with self._counts_lock:
                    self._leave_locked(host)
                sock.close()
                self.note(host, "accept", f"a connection could not be opened: {error}")

    def _admit(self, host: str) -> bool:
        with self._counts_lock:
            if not is_loopback(host) and self._per_address[host] >= self.limits.max_connections_per_address:
                self.note(host, "address", "too many connections from one address; refused")
                return False
            self._per_address[host] += 1
            self._connections += 1
            if self._connections >= self.limits.max_connections:
                self._listen_locked(False)
            return True

    def _leave_locked(self, host: str) -> None:
        self._connections -= 1
        self._per_address[host] -= 1
        if not self._per_address[host]:
            del self._per_address[host]
        self._resume_locked()

    def _resume_locked(self) -> None:
        """Accept again, unless something is still against it."""
        full = self._connections >= self.limits.max_connections
        if self._accept_again is None and not self._life.ended and not full:
            self._listen_locked(True)

    def _listen_locked(self, on: bool) -> None:
        if self._listener is None or on == self._listening:
            return
        self._listening = on
        if on:
            self.poller.add(self._listener.fileno(), READ)
        else:
            self.poller.remove(self._listener.fileno())

    def _exhausted(self, listener: socket.socket, error: OSError) -> None:
        """Out of descriptors: give the reserve up to accept and close one, so that its peer knows, then rest a little.

        Without the rest the listener stays readable and the leader spins.
        """
        self.note("", "exhausted", f"cannot accept: {error.strerror}; raise the limit of open files")
        if self._reserve >= 0:
            os.close(self._reserve)
            with contextlib.suppress(OSError):
                listener.accept()[0].close()
            self._reserve = _spare_descriptor()
        with self._counts_lock:
            self._listen_locked(False)
            self._accept_again = time.monotonic() + BACK_OFF

    # ------------------------------------------------------------------ the watchdog's

    def _sweep(self, late: float) -> None:
        now = time.monotonic()
        if self._accept_again is not None and now >= self._accept_again:
            with self._counts_lock:
                self._accept_again = None
                if self._reserve < 0:
                    self._reserve = _spare_descriptor()
                self._resume_locked()
        sessions = list(self.sessions.values())
        handshaking = []
        for session in sessions:
            session.sweep(now, late)
            if session.handshaking:
                handshaking.append(session)
        excess = len(handshaking) - self.limits.max_handshaking
        if excess > 0:
            handshaking.sort(key=lambda session: session.started)
            for session in handshaking[:excess]:
                session.close("too many connections without a HELLO; the oldest goes first")

    # ------------------------------------------------------------------ for sessions

    def connection(self) -> Connection:
        """The protocol's state of one more session."""
        return self._make_connection(Role.SERVER, self.limits, hint=self.hint)

    def welcome(self, hello: Hello) -> tuple[Welcome, Table, str]:
        """Agree with a client: what to answer, the opcodes it may call, and the codec's name.

        Raises:
            HandshakeError: there is nothing to agree on.
        """
        # A client that knows no service asks for the framework's own; it does not count among those hosted.
        offers = self._control if hello.service in self._control else self._offers
        welcome = negotiate(hello, offers, self.limits, self.name, control=self._control_version, packing=self._packing)
        offer = find_offer(hello, offers)
        spoken = offer.service, welcome.codec, welcome.version
        control = welcome.control
        table = self._tables.get((*spoken, welcome.algorithm, control)) or self._tables[(*spoken, 0, control)]
        return welcome, table, offer.codecs[welcome.codec]

    def greeted(self, session: Session) -> None:
        """A client was welcomed; called with the session's lock held."""
        if self._on_client is not None:
            self.pool.submit(_Greeting(session, self._on_client), always=True)

    def dialect(self, table: Table, codec: str, packing: int) -> Dialect:
        """What a connection speaks, for calls of this server."""
        dialect = self._dialects.get((table, codec, packing))
        if dialect is None:
            chosen = next(each for each in self._codecs if each.name == codec)
            made = Dialect(table.service, chosen, table.version, self.limits, by="server", packing=packing)
            dialect = self._dialects.setdefault((table, codec, packing), made)
        return dialect

    def forget(self, session: Session) -> None:
        """A session gives its descriptor back; called with its lock held."""
        self.sessions.pop(session.transport.fd, None)
        with self._counts_lock:
            self._leave_locked(session.address)
        if self._life.ended and not self.sessions:
            self._drained.set()

    def note(self, host: str, subject: str, text: str) -> None:
        """Log a fault of a peer, as often for each address and subject as ``LogLimit`` admits.

        Posted, because its callers hold a lock.
        """
        self.pool.post(lambda worker: self._write(host, subject, text))

    def _write(self, host: str, subject: str, text: str) -> None:
        more = self._log_limit.admit((host, subject))
        if more is not None:
            # ascii: a peer's bytes may be quoted, and a log line must stay one line.
            log.warning("%s: %s%s", host or "server", ascii(text[:256])[1:-1], more)


class _Greeting:
    """Tells the application of a client."""

    def __init__(self, session: Session, tell: Callable[[ConnectedClient], None]) -> None:
        self._session = session
        self._tell = tell

    def run_blocking(self) -> None:
        """On a follower; what the application raises is logged."""
        if self._session.closed:
            return  # it did not stay so long: where the application is slow, those who come and go are not to queue up
        try:
            self._tell(self._session.client)
        except BaseException:  # SystemExit too, as of a handler
            log.exception("on_client failed for %s", self._session.peer)


def _offer(service: Service, codecs: Mapping[int, str]) -> Offer:
    return Offer(service.full_name, service.version, codecs, service.digests, service.oldest)


def _spare_descriptor() -> int:
    """One to give up when there are no others; -1 when there are none now."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
