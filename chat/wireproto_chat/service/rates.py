"""How often the calls that cost much may be made: so many at once, and then so many a minute.

Counted in memory: a restart forgets it. Log-ins by password and new accounts are counted by the network they come from
(but not those from the machine itself, which is where a proxy is), lists and broadcasts by account.
"""

import math
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from wireproto import CallError, Retry, Status
from wireproto_chat.opcodes import BROADCAST, CREATE_ACCOUNT, LOG_IN, WILD_CARD
from wireproto_chat.store.clocks import steady

__all__ = ["RATES", "Rate", "Rates"]

KNOWN = 10_000
"""Callers remembered; beyond it those who may make all their calls at once again are forgotten, then the oldest."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of calls.

    Attributes:
        burst: calls that may come at once.
        per_minute: calls a minute from then on.
    """

    burst: int
    per_minute: float


RATES: Mapping[str, Rate] = {
    LOG_IN.name: Rate(60, 60),
    CREATE_ACCOUNT.name: Rate(20, 2),
    # A hundred pages of 100: one look at a large server, after which all names take hours to harvest.
    WILD_CARD.name: Rate(100, 10),
    BROADCAST.name: Rate(10, 6),
}
"""By method. A method that is not named is not limited."""


class Rates:
    """Who has made how many of these calls. Any thread.

    Args:
        rates: the limits, by a method's name.
        clock: seconds that only ever grow.
    """

    def __init__(self, rates: Mapping[str, Rate] = RATES, *, clock: Callable[[], float] = steady) -> None:
        self._rates = dict(rates)
        self._clock = clock
        self._lock = threading.Lock()
        # When a caller may make a whole burst again; that says how many calls are left until then.
        self._whole: dict[tuple[str, Hashable], float] = {}

    def count(self, method: str, caller: Hashable) -> None:
        """Count one call.

        Raises:
            CallError: TOO_OFTEN; the answer says how long to wait. It was not counted.
        """
        rate = self._rates.get(method)
        if rate is None:
            return
        now = self._clock()
        interval = 60 / rate.per_minute
        key = method, caller
        with self._lock:
            whole = max(now, self._whole.get(key, now)) + interval
            wait = whole - now - rate.burst * interval
            # A hair of grace: who waits as long as told is not told to wait again by a rounding.
            if wait > 1e-6:
                raise CallError(
                    Status.RESOURCE_EXHAUSTED,
                    "TOO_OFTEN",
                    f"{method} is called too often: {rate.burst} at once, then {rate.per_minute:g} a minute; "
                    f"wait {math.ceil(wait)} s",
                    retry=Retry.NOT_PROCESSED,
                    retry_after_ms=math.ceil(wait * 1000),
                )
            self._whole[key] = whole
            if len(self._whole) > KNOWN:
                self._forget_locked(now)

    def _forget_locked(self, now: float) -> None:
        self._whole = {key: whole for key, whole in self._whole.items() if whole > now}
        while len(self._whole) > KNOWN * 9 // 10:
            del self._whole[next(iter(self._whole))]
