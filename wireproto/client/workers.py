"""The threads that run the handlers of clients: a pool like a server's, which waits for nothing but its own work."""

import itertools
import os
import threading
import time
from _thread import start_new_thread
from collections.abc import Iterable
from typing import Any, Self

from wireproto.answering.call import Call
from wireproto.answering.pace import Pace
from wireproto.answering.pool import Pool, Worker
from wireproto.dispatch import Table
from wireproto.errors import ConfigError, LocalProtocolError
from wireproto.limits import Limits
from wireproto.poller import Poller
from wireproto.uncopied import Uncopied

__all__ = ["WORKERS", "Workers"]

WORKERS = 4
"""Threads of a client with handlers, if it is not told: one that leads, one in reserve for when that is stuck, and two
that run what blocks. A watchdog is beside them."""

_NEVER = 1e9
"""Seconds between two ticks, of which a client needs none: each deadline has an alarm."""

_LINGER = 1.0
"""Seconds that closing waits for threads that are inside a handler. They are daemons and keep no process alive."""


class Workers(Uncopied):
    """Threads that run the handlers of any number of clients; one watchdog is beside them. Thread-safe.

    A child process that was forked has none of them: a client that is made there is refused these, LocalProtocolError.

    A client that was given handlers and a number makes its own. Give one object to several clients that are to share
    their threads, and close it behind them.

    Args:
        size: threads, at least 2.
        queue: calls that may wait for a thread; further ones are refused, SERVER_BUSY. None for ``Limits.run_queue``.

    Raises:
        ConfigError: the size is below 2, or the threads cannot be started.
    """

    def __init__(self, size: int = WORKERS, *, queue: int | None = None) -> None:
        if size < 2:
            raise ConfigError(f"workers is {size}; handlers need at least 2 threads, one to lead and one to follow")
        self._process = os.getpid()
        self._paces: dict[int, list[Pace]] = {}  # by client
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._poller = Poller()
        self.pool = Pool(
            size=size,
            queue_limit=Limits().run_queue if queue is None else queue,
            poller=self._poller,
            on_events=_no_events,
            on_slow_turn=self._suspect,
            on_tick=_no_tick,
            on_stuck=_on_stuck,
            tick=_NEVER,
            name="wireproto-agent",
        )
        try:
            self.pool.start()
        except RuntimeError as error:
            self.close(0.0)
            raise ConfigError(f"{size} threads cannot be started: {error}; give fewer workers") from error

    def know(self, tables: Iterable[Table]) -> int:
        """Keep the pace of the methods of these tables from now on: a handler that is slow runs beside the others.

        Returns:
            What ``forget`` is to be given when the client is closed.

        Raises:
            LocalProtocolError: these workers were made before a fork, and their threads are the parent's.
        """
        if os.getpid() != self._process:
            raise LocalProtocolError(
                "these Workers were made before a fork, and their threads are the parent's: make others in this process"
            )
        paces = []
        for table in tables:
            for entry in table.entries.values():
                entry.pace = Pace(entry.blocking)
                entry.of_packed = entry.unpacking()
                entry.of_packed.pace = Pace(True)
                paces.append(entry.pace)
        number = next(self._numbers)
        self._paces[number] = paces
        return number

    def forget(self, number: int) -> None:
        """Keep the pace of those tables no longer. Without a lock, as finalizers want it."""
        self._paces.pop(number, None)

    def close(self, timeout: float = _LINGER) -> None:
        """End the threads. Idempotent, and from any thread, one of them included.

        Args:
            timeout: seconds to wait for those that are inside a handler.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if not self.pool.stop(time.monotonic() + timeout):
            self._poller.close()

    def drop(self) -> None:
        """End the threads some time soon, for finalizers: they may run while this very thread holds any lock."""
        start_new_thread(self.close, (0.0,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _suspect(self) -> None:
        for paces in list(self._paces.values()):  # copied in one step of the interpreter
            for pace in paces:
                pace.suspect()


def _no_events(worker: Worker, events: list[Any]) -> None:
    """There are no descriptors: who reads is the keeper, or a caller."""


def _no_tick(late: float) -> None:
    """There is nothing to look at."""


def _on_stuck(running: object) -> None:
    """The leader was deposed inside a handler: another thread goes on with the rest."""
    if isinstance(running, Call):
        running.session.take_over()
