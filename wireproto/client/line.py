"""The way to a server: one link at a time, opened again when it was lost."""

import threading
import time
from collections.abc import Sequence

from wireproto.address import Address
from wireproto.client.backoff import Backoff
from wireproto.client.binding import Dialect
from wireproto.client.keeper import the_keeper
from wireproto.client.link import Link
from wireproto.client.opening import open_link
from wireproto.codecs import Codec
from wireproto.errors import CallError, ConnectionLost, LocalProtocolError
from wireproto.limits import Limits
from wireproto.schema import Service
from wireproto.status import Retry
from wireproto.wire.connection import Connection, ConnectionMaker, Role
from wireproto.wire.handshake import Hello

__all__ = ["REPEATS", "Line", "repeatable"]

REPEATS = 2
"""How often a call is sent again by itself, if each time the server certainly did not look at it."""


class Line:
    """Where to connect, what to offer, and the link that is in use. Thread-safe.

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
        connections: ConnectionMaker | None = None,
    ) -> None:
        newest = service.version if version is None else version
        self.address = address
        self.service = service
        self._codecs = {codec.id: codec for codec in codecs}
        self._limits = limits
        self._timeout = timeout
        self._backoff = backoff
        self._make_connection: ConnectionMaker = Connection if connections is None else connections
        self._hello = Hello(
            min_version=1,
            max_version=newest,
            codecs=tuple((codec.id, codec.name) for codec in codecs),
            max_frame=limits.max_frame,
            max_calls=limits.max_calls,
            heartbeat_ms=round(limits.heartbeat * 1000),
            client_name=name,
            service=service.full_name,
            digests=service.digests(newest),
        )
        self._opening = threading.Lock()  # held by the one thread that connects
        self._failures = 0
        self._failure: CallError | None = None
        self._links: list[Link] = []  # the one in use is the last; before it those that only finish their calls
        self._judged: Link | None = None  # the last one that was lost and that the back-off has heard of
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    @property
    def dialect(self) -> Dialect | None:
        """What the latest link speaks; None before the first."""
        return self._links[-1].dialect if self._links else None

    def link(self, deadline: float | None) -> Link:
        """A link that takes calls, opened if need be.

        Raises:
            ConnectionLost: there is no connection to be had, or not before ``deadline``; NOT_PROCESSED.
            HandshakeError: the server refuses.
            LocalProtocolError: the line is closed.
        """
        links = self._links
        if links and links[-1].usable:
            return links[-1]
        failures = self._failures
        if not self._opening.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            raise _not_had("another thread is still connecting", 0.0)
        try:
            if self._closed.is_set():
                raise LocalProtocolError("this client is closed; connect again")
            if self._links and self._links[-1].usable:
                return self._links[-1]
            if self._failures != failures and self._failure is not None:
                # The attempt that was waited for failed. A queue of threads that each tried again, one after the
                # other, would wait for minutes.
                raise _again(self._failure)
            return self._open_locked(deadline)
        finally:
            self._opening.release()

    def _open_locked(self, deadline: float | None) -> Link:
        """Wait out the back-off and connect, with ``_opening`` held."""
        if self._links and self._judged is not self._links[-1]:
            self._judged = self._links[-1]
            if self._judged.useful:
                self._backoff.reset()
            else:
                self._backoff.failed()
        pause = self._backoff.remaining()
        if deadline is not None and time.monotonic() + pause >= deadline:
            raise _not_had(f"{self.address} is tried again in {pause:.1f} s", pause)
        if pause and self._closed.wait(pause):
            raise LocalProtocolError("this client is closed; connect again")
        limit = time.monotonic() + self._timeout
        try:
            link = open_link(
                self.address,
                self._make_connection(Role.CLIENT, self._limits),
                self._hello,
                self._limits,
                limit if deadline is None else min(deadline, limit),
                self._dialect,
            )
        except CallError as error:
            self._backoff.failed()
            if isinstance(error, ConnectionLost):
                error.retry_after_ms = round(self._backoff.remaining() * 1000)
            self._failures += 1
            self._failure = error
            raise
        self._failure = None
        # A new list: others read it without the lock.
        self._links = [each for each in self._links if each.busy] + [link]
        if self._closed.is_set():
            link.end("the client was closed")
            raise LocalProtocolError("this client is closed; connect again")
        return link

    def _dialect(self, codec_id: int, version: int) -> Dialect:
        return Dialect(self.service, self._codecs[codec_id], version, self._limits)

    def close(self, drain: float = 0.0) -> None:
        """Close the link; calls not answered ``drain`` seconds from now fail. From any thread; once."""
        self._closed.set()
        if drain:
            deadline = time.monotonic() + drain
            for link in self._links:
                link.finish(deadline)
        for link in self._links:
            link.end("the client was closed")
        the_keeper().join()

    def drop(self) -> bool:
        """Let go of a line that nobody closed, for a finalizer, so without a lock; whether there was one."""
        if self._closed.is_set() or not self._links:
            return False
        for link in self._links:
            link.hang_up()
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


def _again(failure: CallError) -> CallError:
    """The same error for another thread: a raised exception carries the traceback of one thread."""
    if isinstance(failure, ConnectionLost):
        return ConnectionLost(failure.message, retry=failure.retry, retry_after_ms=failure.retry_after_ms)
    return type(failure)(
        failure.status,
        failure.reason,
        failure.message,
        retry=failure.retry,
        retry_after_ms=failure.retry_after_ms,
    )
