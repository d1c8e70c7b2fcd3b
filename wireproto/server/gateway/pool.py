"""The gateway's threads. Two pools: one for unary calls, one for streams, so that neither takes the other's."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

__all__ = ["CountedPool"]

Work = tuple[Callable[..., Any], tuple[Any, ...], "_Ticket"]


class _Ticket:
    """What grpcio does with a future: it asks to be told, once, when the work is done."""

    __slots__ = ("_callback", "_pool", "done")

    def __init__(self, pool: "CountedPool") -> None:
        self._pool = pool
        self._callback: Callable[[Any], object] | None = None
        self.done = False

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        with self._pool.lock:
            if not self.done:
                self._callback = callback
                return
        callback(self)

    def finish(self) -> None:
        """Called once, by the thread that did the work."""
        pool = self._pool
        with pool.lock:
            self.done = True
            pool.active -= 1
        if self._callback is not None:
            self._callback(self)


class CountedPool(ThreadPoolExecutor):
    """Threads that run calls; a ``ThreadPoolExecutor`` because grpcio looks for one, with none of its machinery.

    That one's threads keep the interpreter from exiting while a handler blocks, and it cannot say how much it was
    given, which is what a cap needs. This one's are daemons with a bounded end, and without the futures nobody looks
    at a call is cheaper.

    Args:
        name: what its threads are called.
        threads: at most so many; they are started when they are needed.

    Attributes:
        active: calls handed over and not done, running or waiting.
        lock: guards ``active`` and the threads.
    """

    def __init__(self, name: str, threads: int) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.lock = threading.Lock()
        self.active = 0
        self._name = name
        self._most = threads
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._started: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a thread run ``fn(*args)``. Any thread; grpcio calls it from one."""
        ticket = _Ticket(self)
        self._work.put((fn, args, ticket))
        with self.lock:
            self.active += 1
            # Each thread that is not running something takes one; so one more is needed for each beyond those.
            if len(self._started) < min(self.active, self._most):
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._started)}", daemon=True)
                self._started.append(thread)
                thread.start()
        return ticket

    def stop(self, deadline: float) -> list[str]:
        """End the threads once their work is done; wait for them until ``deadline``, by ``time.monotonic``.

        Returns:
            The names of those that are still inside a handler.
        """
        with self.lock:
            started = list(self._started)
        for _ in started:
            self._work.put(None)
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in started if thread.is_alive()]

    def _run(self) -> None:
        take = self._work.get
        while True:
            work = take()
            if work is None:
                return
            fn, args, ticket = work
            try:
                fn(*args)
            finally:
                ticket.finish()
            # What the last call held is let go before the next one is waited for.
            del work, fn, args, ticket
