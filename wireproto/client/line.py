"""The way to a server: one link at a time, opened again when it was lost."""

import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Sequence

from wireproto.address import Address
from wireproto.binding import Dialect, own_method
from wireproto.client.agent import ServedHandlers
from wireproto.client.backoff import Backoff
from wireproto.client.calls import EarlyCall, FutureCall
from wireproto.client.guard import interrupting, made_before_fork
from wireproto.client.keeper import the_keeper
from wireproto.client.link import Link
from wireproto.client.opening import open_link
from wireproto.client.queue import CallQueue
from wireproto.client.state import ClientState, Listeners, StateListener
from wireproto.client.workers import WORKERS, Workers
from wireproto.codecs import Codec
from wireproto.control import CONTROL
from wireproto.dispatch import Handlers
from wireproto.errors import CallError, ConnectionLost, LocalProtocolError
from wireproto.limits import Limits
from wireproto.schema import Service
from wireproto.status import Retry
from wireproto.wire.connection import Connection, ConnectionMaker, Role
from wireproto.wire.frame import NO_CREDIT, Credit
from wireproto.wire.handshake import Hello

__all__ = ["REPEATS", "Line", "again", "repeatable"]

REPEATS = 2
"""How often a call is sent again by itself, if each time the server certainly did not look at it."""


class Line:
    """Where to connect, what to offer, and the link that is in use. Thread-safe.

    A caller that finds no link opens one on its own thread; the others wait for the outcome. For the calls of the
    queue, which nobody waits for, a thread does that as long as there are any.

    Lock order: ``_opening``, a link's lock, ``_changes``, the queue's, the keeper's.

    Args:
        address: of the server.
        service: the service wanted.
        codecs: to offer, in order of preference.
        version: the newest version to offer; None for the service's.
        limits: of this side.
        name: of this client, for the server's log.
        timeout: seconds that connecting and the handshake may take together.
        backoff: when to try again after a loss.
        connections: makes the protocol's state of each connection; None for ``Connection``.
        handlers: of what the server may call; None if it may call nothing. A line with handlers opens a link
            whenever it has none, until it is closed.
        workers: who runs them.

    Attributes:
        links: the one in use is the last; before it those that only finish their calls. It is replaced and never
            changed, so that others may read it without a lock.
        queue: the calls that ``start`` began and that have no place yet.
        closed: whether ``close`` was called.

    Raises:
        ConfigError: the service has no such version.
    """

    def __init__(
        self,
        address: Address,
        service: Service,
        codecs: Sequence[Codec],
        *,
        version: int | None,
        limits: Limits,
        name: str,
        timeout: float,
        backoff: Backoff,
        packing: tuple[int, ...],
        connections: ConnectionMaker | None = None,
        handlers: Handlers | None = None,
        workers: Workers | int = WORKERS,
    ) -> None:
        newest = service.version if version is None else version
        self.address = address
        self.service = service
        self.closed = False
        self._codecs = {codec.id: codec for codec in codecs}
        self._limits = limits
        self._timeout = timeout
        self._backoff = backoff
        self._make_connection: ConnectionMaker = Connection if connections is None else connections
        self._hello = Hello(
            min_version=service.oldest,
            max_version=newest,
            codecs=tuple((codec.id, codec.name) for codec in codecs),
            max_frame=limits.max_frame,
            max_calls=limits.max_calls if handlers is not None else 0,
            heartbeat_ms=round(limits.heartbeat * 1000),
            client_name=name,
            service=service.full_name,
            digests=service.digests(newest),
            control=CONTROL.version,
            packing=packing,
            first_credit=Credit(limits.first_items, limits.first_bytes) if handlers is not None else NO_CREDIT,
            one_way_credit=limits.one_way_calls if handlers is not None else 0,
        )
        self._served = (
            None
            if handlers is None
            else ServedHandlers(handlers, service, codecs, range(service.oldest, newest + 1), limits, workers, packing)
        )
        self._offered: Dialect | None = None  # until the first early call
        self._keeper = the_keeper()  # of the process that this line belongs to
        self.queue = CallQueue(limits.start_queue, address, self._keeper)
        self._listeners = Listeners(self._keeper)
        self._opening = threading.Lock()  # held by the one thread that connects
        self.links: list[Link] = []
        # For whoever waits out a pause, and for the fields below and the back-off.
        self._changes = threading.Condition()
        self._connecting = False
        self._failures = 0  # attempts that failed
        self._failure: CallError | None = None  # of the last attempt, if that failed
        self._judged: Link | None = None  # the last one that was lost and that the back-off has heard of
        self._useless = 0  # links in a row that were lost before they were of any use
        self._opener = False  # a thread opens links for the queue

    @property
    def offered(self) -> Dialect:
        """What is spoken if a server chooses the newest version and the first codec, for which early calls are
        written."""
        if self._offered is None:
            hello = self._hello
            self._offered = self._dialect(hello.codecs[0][0], hello.max_version, 0, 1)  # before more is agreed on
        return self._offered

    @property
    def dialect(self) -> Dialect | None:
        """What the latest link speaks; None before the first."""
        return self.links[-1].dialect if self.links else None

    # States.

    @property
    def state(self) -> ClientState:
        """What a call meets that is made now."""
        if self.closed:
            return ClientState.CLOSED
        if self._usable() is not None:
            return ClientState.READY
        if self._connecting:
            return ClientState.CONNECTING
        failed = self._failure is not None or self._backoff.remaining() > 0
        return ClientState.BACKING_OFF if failed else ClientState.IDLE

    def _state_now(self) -> ClientState:
        return self.state

    def listen(self, listener: StateListener) -> Callable[[], None]:
        """Tell ``listener`` of each state from now on. Returns what takes the listener out."""
        return self._listeners.add(listener, self.state)

    def _link_changed(self) -> None:
        """A link takes no further calls. Its lock is held."""
        self._listeners.tell(self._state_now)
        if self.queue.calls or (self._served is not None and not self.closed):
            self._serve_queue()

    @property
    def ready(self) -> bool:
        """Whether there is a link that takes calls."""
        return self._usable() is not None

    def _usable(self) -> Link | None:
        links = self.links
        return links[-1] if links and links[-1].usable else None

    def _check(self) -> None:
        if the_keeper() is not self._keeper:
            raise made_before_fork("a client that was made")
        if self.closed:
            raise LocalProtocolError("this client is closed; connect again")

    # Links for callers.

    def link(self, deadline: float | None, wait: bool = False, early: EarlyCall | None = None) -> Link:
        """A link that takes calls, opened if need be.

        Args:
            deadline: point in time by ``time.monotonic``; None for none.
            wait: wait until there is one, however many attempts and pauses that takes. If not, one attempt decides,
                and a pause between two attempts is not waited for.
            early: a call to send together with HELLO, if a link is opened; see ``opening.open_connection``.

        Raises:
            ConnectionLost: there is no connection to be had, or not before ``deadline``; NOT_PROCESSED, but for an
                ``early`` call of which nobody knows.
            HandshakeError: the server refuses.
            LocalProtocolError: the line is closed, or another process's.
        """
        links = self.links
        if links and links[-1].usable:
            return links[-1]
        while True:
            self._check()
            if (link := self._usable()) is not None:
                return link
            failures = self._failures
            if not self._wait_out(deadline, wait):
                continue
            if not self._opening.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
                raise _not_had("another thread is still connecting", 0.0)
            try:
                if (link := self._usable()) is not None:
                    return link
                if self._failures == failures or self._failure is None:
                    return self._attempt_locked(deadline, early)
                # The attempt that was waited for failed. A queue of threads that each tried again, one after the
                # other, would wait for minutes.
                if not wait:
                    raise again(self._failure)
            except CallError as error:
                if early is not None and early.in_doubt:
                    raise in_doubt(error) from None
                if not wait or error.retry is not Retry.NOT_PROCESSED:
                    raise
            finally:
                self._opening.release()

    def open(self) -> None:
        """Have a link now, whatever the back-off says.

        Raises:
            ConnectionLost, HandshakeError, LocalProtocolError: as ``link``.
        """
        self._check()
        with self._opening:
            if self._usable() is None:
                self._attempt_locked(None)

    def _wait_out(self, deadline: float | None, wait: bool) -> bool:
        """Wait until the next attempt is due; False when something has changed before that.

        Raises:
            ConnectionLost: the pause is longer than there is time, or than is to be waited for.
        """
        with self._changes:
            if self.closed:
                return False
            pause = self._pause()
            if not pause:
                return True
            if not wait or (deadline is not None and time.monotonic() + pause >= deadline):
                raise self._paused(pause)
            return not self._changes.wait(pause)

    def _paused(self, pause: float) -> ConnectionLost:
        cause = "" if self._failure is None else f" ({self._failure.message})"
        return _not_had(f"{self.address} is tried again in {pause:.1f} s{cause}", pause)

    def _pause(self) -> float:
        """Seconds until the next attempt is due. With ``_changes`` held."""
        links = self.links
        if links and not links[-1].usable and self._judged is not links[-1]:
            self._judged = links[-1]
            if self._judged.useful:
                self._backoff.reset()
                self._useless = 0
            else:
                # The first one may have been bad luck, so whoever calls again at once is served. A server that
                # welcomes and hangs up is not asked again at full speed.
                self._useless += 1
                if self._useless > 1:
                    self._backoff.failed()
        return self._backoff.remaining()

    def _attempt_locked(self, deadline: float | None, early: EarlyCall | None = None) -> Link:
        """Connect, with ``_opening`` held."""
        self._check()
        with self._changes:
            self._pause()  # so that the back-off has heard of the link before
            self._connecting = True
        self._listeners.tell(self._state_now)
        limit = time.monotonic() + self._timeout
        try:
            link = open_link(
                self.address,
                self._make_connection(Role.CLIENT, self._limits),
                self._hello,
                self.service,
                self._limits,
                limit if deadline is None else min(deadline, limit),
                self._dialect,
                self.queue,
                self._link_changed,
                None if self._served is None else self._served.of,
                early,
            )
        except BaseException as error:
            with self._changes:
                self._connecting = False
                if isinstance(error, CallError):
                    self._failed(error)
                self._changes.notify_all()
            self._listeners.tell(self._state_now)
            raise
        with self._changes:
            self._connecting = False
            self._failure = None
            self.links = [each for each in self.links if each.busy] + [link]
            self._changes.notify_all()
        self._listeners.tell(self._state_now)
        if self.closed:
            link.end("the client was closed")
            raise LocalProtocolError("this client is closed; connect again")
        if self.queue.calls:
            link.pull()
        return link

    def _failed(self, error: CallError) -> None:
        """An attempt failed. With ``_changes`` held."""
        self._backoff.failed()
        if isinstance(error, ConnectionLost):
            error.retry_after_ms = round(self._backoff.remaining() * 1000)
        self._failures += 1
        self._failure = error

    def _dialect(self, codec_id: int, version: int, packing: int, control: int) -> Dialect:
        return Dialect(self.service, self._codecs[codec_id], version, self._limits, packing=packing, control=control)

    # Links for the queue.

    def start(self, call: FutureCall) -> None:
        """Send ``call`` now, or have it wait for a link or a place. Never blocks; what fails is the future's.

        Raises:
            LocalProtocolError: the line is closed, or another process's, or the method is not the service's.
        """
        links = self.links
        if links and links[-1].usable and links[-1].start(call):
            return
        self._check()
        own_method(self.service, call.method)
        if not call.wait and not self._connecting:
            with self._changes:
                pause = self._pause()
            if pause:
                call.fail(self._paused(pause))
                return
        if self.queue.put(call):
            self._serve_queue()

    def _serve_queue(self) -> None:
        """See that a thread opens a link for the calls of the queue, if they need one."""
        with self._changes:
            if self._opener:
                return
            self._opener = True
        try:
            threading.Thread(target=self._open_for_queue, name="wireproto-opener", daemon=True).start()
        except RuntimeError:
            self._opener = False
            self.queue.fail(lambda: _not_had("no thread can be started to open one", 0.0), patient=True)

    def _open_for_queue(self) -> None:
        """The thread: open links until no call waits for one."""
        try:
            while self._due_for_queue():
                self._open_once()
        except BaseException:
            # A bug of ours, which the thread's hook reports. The calls must not wait for ever because of it.
            self._opener = False
            self.queue.fail(lambda: _not_had("the client met an error of its own", 0.0), patient=True)
            raise
        if self.closed:
            self.queue.close(_closed)
        elif (link := self._usable()) is not None:
            link.pull()

    def _due_for_queue(self) -> bool:
        """Wait out the pause; False, and the thread is no longer there for anybody, when no link is needed."""
        with self._changes:
            while self._is_wanted() and self._usable() is None and not self.closed:
                pause = self._pause()
                if not pause:
                    return True
                self.queue.fail(lambda: self._paused(pause), patient=False)  # noqa: B023 - called at once
                self._changes.wait(pause)
            self._opener = False
            return False

    def _is_wanted(self) -> bool:
        """Whether a link is needed that no caller opens."""
        return bool(self.queue.calls) or self._served is not None

    def _open_once(self) -> None:
        failures = self._failures
        with self._opening:
            if self._usable() is not None:
                return
            try:
                if self._failures != failures and self._failure is not None:
                    raise again(self._failure)  # these calls, too, had waited for that attempt
                self._attempt_locked(None)
            except LocalProtocolError:
                pass  # closed: the loop sees it
            except CallError as error:
                failure = error
                self.queue.fail(lambda: again(failure), patient=error.retry is not Retry.NOT_PROCESSED)

    # Ends.

    def close(self, drain: float = 0.0) -> None:
        """Close the link; calls not answered ``drain`` seconds from now fail. From any thread; once."""
        self.closed = True
        if the_keeper() is not self._keeper:
            return  # its parent's: the keeper has let go of the links
        if interrupting():
            # In a signal handler. The thread below it may hold any of the locks, and may be the one that receives.
            start_new_thread(self._close, (drain,))
        else:
            self._close(drain)
            self._keeper.join()

    def _close(self, drain: float) -> None:
        with self._changes:
            self._changes.notify_all()
        if drain:
            deadline = time.monotonic() + drain
            for link in self.links:
                link.finish(deadline)
        for link in self.links:
            link.end("the client was closed")
        self.queue.close(_closed)
        if self._served is not None:
            self._served.close()
        self._listeners.tell(self._state_now)

    def drop(self) -> bool:
        """Let go of a line that nobody closed, for a finalizer, so without a lock; whether there was one."""
        if self.closed or the_keeper() is not self._keeper or not (self.links or self._served):
            return False
        self.closed = self._served is not None  # nobody is to open another link for its handlers
        for link in self.links:
            link.hang_up()
        if self._served is not None:
            self._served.drop()
        return True


def repeatable(error: BaseException, repeated: int) -> bool:
    """Whether a call that failed with ``error`` is sent again by itself, ``repeated`` times having gone before.

    Only if the connection was lost, or was being taken down, before the server looked at the call.
    """
    return (
        repeated < REPEATS
        and isinstance(error, CallError)
        and error.retry is Retry.NOT_PROCESSED
        and (isinstance(error, ConnectionLost) or error.reason == "SHUTTING_DOWN")
    )


def _not_had(problem: str, pause: float) -> ConnectionLost:
    return ConnectionLost(
        f"there is no connection: {problem}; the call was not processed",
        retry=Retry.NOT_PROCESSED,
        retry_after_ms=round(pause * 1000),
    )


def _closed() -> ConnectionLost:
    return ConnectionLost("the client was closed; the call was not processed", retry=Retry.NOT_PROCESSED)


def again(failure: CallError, retry: Retry | None = None) -> CallError:
    """The same error for another thread: a raised exception carries the traceback of one thread."""
    retry = failure.retry if retry is None else retry
    if isinstance(failure, ConnectionLost):
        return ConnectionLost(failure.message, retry=retry, retry_after_ms=failure.retry_after_ms)
    made = type(failure)(
        failure.status,
        failure.reason,
        failure.message,
        retry=retry,
        retry_after_ms=failure.retry_after_ms,
        details=failure.details,
    )
    if failure.metadata:
        made.metadata = failure.metadata
    return made


def in_doubt(failure: CallError) -> CallError:
    """The same error for the call that went together with HELLO and of which nothing was heard."""
    return again(failure, Retry.MAYBE_PROCESSED)
