"""Slowing down whoever guesses passwords.

Five log-ins for a name may fail from one network (/24 of IPv4, /64 of IPv6); after that each further one must wait, 1 s
at first, then twice as long each time, up to 15 minutes. So 18 passwords an hour can be tried there. Besides, at most
100 an hour may fail for one name, whatever the networks, and from one network, whatever the names. It is counted in the
store, for names that do not exist too, so that a restart forgets nothing and the answer tells nothing.

Only failures are counted, and a token is never held up: who is signed in somewhere cannot be locked out. All names from
the machine itself are not counted together: what comes from there is a proxy or a tunnel, and so everybody. A count
that is not what was stored is forgotten: it would hold somebody up for ever.
"""

import ipaddress
import math
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from wireproto import CallError, Retry, Status
from wireproto_chat.service.sessions import bad_credentials
from wireproto_chat.store.expiry import GUESS_KEPT
from wireproto_chat.store.store import Store
from wireproto_chat.store.sums import unsound
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = ["Guesses", "is_own", "network_of", "wait_after"]

FREE = 5
"""Failures that cost no time."""

LONGEST = 900
"""Seconds that the wait does not go beyond."""

HOURLY = 50
"""Failures of one name, or from one network, that are forgotten in an hour; as many again may come at once, which makes
100 in the worst hour."""

INTERVAL = 3_600_000_000 // HOURLY
"""Microseconds in which one of them is."""

GuessKey = tuple[str, str]
"""A name and a network; one of them is empty where all are counted together."""


def network_of(peer: str) -> str:
    """The network that ``peer``, ``host:port``, counts as: one person may have all addresses of it."""
    host = peer.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return peer[:64]  # no network address, perhaps a socket in the file system
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    length = 24 if address.version == 4 else 64
    return str(ipaddress.ip_network((address, length), strict=False))


_OWN = network_of("[::1]:1")


def is_own(network: str) -> bool:
    """Whether a network is this machine."""
    return network.startswith("127.") or network == _OWN


def wait_after(failures: int) -> int:
    """Seconds between the last of so many failures and the next try."""
    return 0 if failures < FREE else min(LONGEST, 2 ** min(failures - FREE, 10))


class Guesses:
    """The log-ins that failed. Safe from any thread.

    Args:
        store: where they are counted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        # Being verified right now. They count as failures meanwhile, or many at once would all be tried.
        self._under_way: Counter[GuessKey] = Counter()

    def begin(self, name: str, peer: str, answer: "Future[Any]") -> tuple[GuessKey, bool]:
        """A password for ``name`` is about to be verified; until ``answer`` is done it is under way.

        Returns:
            What it is counted under, and whether failures are.

        Raises:
            CallError: THROTTLED; the answer says how long to wait.
        """
        key = (name, network_of(peer))
        with self._lock:
            row = self._find_locked(key)
            left = max(self._wait_locked(key, row), *(self._wait_together_locked(each) for each in _together(key)))
            if left > 0:
                raise CallError(
                    Status.RESOURCE_EXHAUSTED,
                    "THROTTLED",
                    f"too many log-ins have failed; wait {math.ceil(left / 1_000_000)} s, or sign in by a token",
                    retry=Retry.NOT_PROCESSED,
                    retry_after_ms=math.ceil(left / 1000),
                )
            counted = (key, *_together(key))
            self._under_way.update(counted)
        answer.add_done_callback(lambda _: self._end(counted))
        return key, row is not None

    def failed(self, key: GuessKey, answer: "Future[Any]") -> None:
        """The password was wrong: count it, and then answer so."""
        self._store.submit(_Failed(key, answer))

    def _wait_locked(self, key: GuessKey, row: "Sequence[Any] | None") -> int:
        """Microseconds for which this name may not be tried from this network."""
        failures, failed_age = (0, 0) if row is None else (row[2], row[3])
        since = self._store.clocks.age - failed_age
        if since >= GUESS_KEPT:
            failures = 0
        left = wait_after(failures) * 1_000_000 - since
        under_way = self._under_way[key]
        return max(left, 1_000_000) if under_way and failures + under_way >= FREE else left

    def _wait_together_locked(self, key: GuessKey) -> int:
        """Microseconds until one more of what is counted together may fail."""
        row = self._find_locked(key)
        forgotten = 0 if row is None else max(0, row[3] - self._store.clocks.age)
        return forgotten + (self._under_way[key] + 1 - HOURLY) * INTERVAL

    def _find_locked(self, key: GuessKey) -> "Sequence[Any] | None":
        query = self._store.sql.guesses_find
        return next((row for row in self._store.raw(query, *key) if unsound(query, row) is None), None)

    def _end(self, keys: Iterable[GuessKey]) -> None:
        with self._lock:
            for key in keys:
                self._under_way[key] -= 1
                if self._under_way[key] <= 0:
                    del self._under_way[key]


def _together(key: GuessKey) -> list[GuessKey]:
    """What a try counts under besides: its name from everywhere, and all names from its network."""
    name, network = key
    return [(name, "")] if is_own(network) else [(name, ""), ("", network)]


class _Failed(WriteJob[None]):
    """Counts a failure. The caller is answered once it is durable, and not before: or a crash would forget it."""

    __slots__ = ("_key",)

    def __init__(self, key: GuessKey, answer: "Future[Any]") -> None:
        super().__init__(answer)
        self._key = key

    def apply(self, tx: Transaction) -> None:
        row = self._find(tx, self._key)
        failures = 0 if row is None or tx.age - row[3] >= GUESS_KEPT else row[2]
        tx.note_guesses(*self._key, failures + 1, tx.age)
        for key in _together(self._key):
            # Here ``failed_age`` is when the last of them is forgotten, which says how many are left.
            row = self._find(tx, key)
            forgotten = max(tx.age, 0 if row is None else row[3])
            tx.note_guesses(*key, 1, forgotten + INTERVAL)
        # Some of these waits are a second long, so none is to be longer after a crash.
        tx.note_age()

    def _find(self, tx: Transaction, key: GuessKey) -> "Sequence[Any] | None":
        return next(iter(tx.sound(tx.sql.guesses_find, *key)), None)

    def committed(self, result: None) -> None:
        raise bad_credentials()
