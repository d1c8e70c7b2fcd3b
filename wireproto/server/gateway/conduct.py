"""Who cancels calls, or sends what cannot be understood, faster than may be. As over TCP, the connection is closed."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from wireproto.limits import Limits
from wireproto.server.budget import Budget

__all__ = ["Conduct"]

MOST = 4096
"""Connections that are remembered."""

FORGIVEN = 1.0
"""Seconds after which a connection that was closed is forgotten: another one may have its port then."""


class Conduct:
    """What each connection does too often. Any thread: of what two threads note at once, one may be lost.

    Args:
        limits: how many, and how fast.
        hang_up: ends the connection of a peer, and says why.
    """

    def __init__(self, limits: Limits, hang_up: Callable[[str, str], None]) -> None:
        self._limits = limits
        self._hang_up = hang_up
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self._reckless: OrderedDict[str, float] = OrderedDict()

    def note(self, peer: str, what: Literal["cancels", "errors"]) -> None:
        """A connection, ``host:port``, has cancelled a call, or has sent one that cannot be understood."""
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = Budget(self._limits)
            if len(self._budgets) > MOST:
                self._budgets.popitem(last=False)
        if not budget.take(what) and not self.reckless(peer):
            self._reckless[peer] = time.monotonic()
            if len(self._reckless) > MOST:
                self._reckless.popitem(last=False)
            self._hang_up(peer, _WHY[what])

    def reckless(self, peer: str) -> bool:
        """Whether its connection was closed for that: what is still read of it is dropped."""
        if not self._reckless:
            return False
        closed = self._reckless.get(peer)
        if closed is None:
            return False
        if time.monotonic() - closed < FORGIVEN:
            return True
        self._reckless.pop(peer, None)
        self._budgets.pop(peer, None)
        return False


_WHY = {
    "cancels": "calls are cancelled faster than the server allows",
    "errors": "too many calls that cannot be understood",
}
