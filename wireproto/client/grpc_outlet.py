"""Where grpcio takes the items from that a call sends, and an upload, which is that and one response."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

from wireproto.wire.frame import Credit

__all__ = ["ONE", "Outlet"]

ONE: Final = Credit(1, 1)
"""What may be sent when grpcio asks: one item, of whatever size."""


class Outlet:
    """An iterator for grpcio, which asks for an item on a thread of its own when it has sent the one before.

    Whoever has the items waits for that, and gives one: so they are asked for on the thread of the client's caller, and
    only when they may be sent.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._payload: bytes | None = None
        self._wanted = False  # grpcio waits for an item
        self._complete = False
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """The next item; called by grpcio."""
        with self._news:
            self._wanted = True
            self._news.notify_all()
            while self._payload is None and not self._complete and not self._over:
                self._news.wait()
            self._wanted = False
            payload, self._payload = self._payload, None
            if payload is None or self._over:
                raise StopIteration
            return payload

    def attach(self, rpc: Any) -> None:
        """Be over when grpcio's call is."""
        if not rpc.add_callback(self.end):
            self.end()

    @property
    def over(self) -> bool:
        """Whether the call is over, so that nothing more is sent."""
        return self._over

    def wait(self, until: float | None = None, or_else: Callable[[], bool] | None = None) -> bool:
        """Wait until an item may be given; False when the call is over, or the time is up.

        Args:
            until: point in time by ``time.monotonic``; None for none.
            or_else: what else ends the wait, once ``poke`` was called. With it the end of the call does not.
        """
        with self._news:
            while not (or_else is not None and or_else()):
                if self._over:
                    if or_else is None:
                        return False
                elif self._wanted and self._payload is None:
                    return True
                rest = None if until is None else until - time.monotonic()
                if rest is not None and rest <= 0:
                    return False
                self._news.wait(None if rest is None else min(rest, threading.TIMEOUT_MAX))
            return False

    def give(self, payload: bytes) -> None:
        """Send an item, for which was waited."""
        with self._news:
            self._payload = payload
            self._news.notify_all()

    def finish(self) -> None:
        """There are no more items than those given."""
        with self._news:
            self._complete = True
            self._news.notify_all()

    def end(self) -> None:
        """The call is over; called by grpcio."""
        with self._news:
            self._over = True
            self._news.notify_all()

    def poke(self, of: object = None) -> None:
        """Have whoever waits look at what else ends the wait."""
        with self._news:
            self._news.notify_all()
