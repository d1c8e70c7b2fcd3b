"""Who cancels calls, or sends what cannot be understood, faster than may be. As over TCP, the connection is closed."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from wireproto.limits import Limits
from wireproto.server.budget import Budget
from wireproto.server.gateway.halves import network_of

__all__ = ["Conduct"]

MOST = 4096
"""Connections that are remembered."""

WARY = 10.0
"""Seconds in which a network of which a connection was closed is looked at more closely."""

CLOSELY = 10
"""How many times fewer a new connection of such a network may do at once."""

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
        self._networks: OrderedDict[str, float] = OrderedDict()
        self._closely = replace(
            limits,
            cancel_burst=max(1, limits.cancel_burst // CLOSELY),
            errors_per_minute=max(1, limits.errors_per_minute // CLOSELY),
        )

    def note(self, peer: str, what: Literal["cancels", "errors"]) -> None:
        """A connection, ``host:port``, has cancelled a call, or has sent one that cannot be understood."""
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = Budget(self._closely if self._wary(peer) else self._limits)
            if len(self._budgets) > MOST:
                self._budgets.popitem(last=False)
        if not budget.take(what) and not self.reckless(peer):
            self._reckless[peer] = self._networks[network_of(peer)] = time.monotonic()
            for each in (self._reckless, self._networks):
                if len(each) > MOST:
                    each.popitem(last=False)
            self._hang_up(peer, _WHY[what])

    def _wary(self, peer: str) -> bool:
        return time.monotonic() - self._networks.get(network_of(peer), -WARY) < WARY

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
