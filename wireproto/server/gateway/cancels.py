"""Who cancels calls faster than may be. As over TCP, the connection is closed."""

from collections import OrderedDict
from collections.abc import Callable

from wireproto.limits import Limits
from wireproto.server.budget import Budget

__all__ = ["Cancels"]

MOST = 4096
"""Connections that are remembered."""


class Cancels:
    """The cancels of each connection. Any thread; what two threads write at once may be lost, which is one cancel.

    Args:
        limits: how many, and how fast.
        hang_up: ends the connection of a peer.
    """

    def __init__(self, limits: Limits, hang_up: Callable[[str], None]) -> None:
        self._limits = limits
        self._hang_up = hang_up
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self._reckless: OrderedDict[str, None] = OrderedDict()

    def note(self, peer: str) -> None:
        """A connection, ``host:port``, has cancelled a call."""
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = Budget(self._limits)
            if len(self._budgets) > MOST:
                self._budgets.popitem(last=False)
        if not budget.take("cancels") and peer not in self._reckless:
            self._reckless[peer] = None
            if len(self._reckless) > MOST:
                self._reckless.popitem(last=False)
            self._hang_up(peer)

    def reckless(self, peer: str) -> bool:
        """Whether its connection was closed for that: what is still read of it is dropped."""
        return peer in self._reckless
