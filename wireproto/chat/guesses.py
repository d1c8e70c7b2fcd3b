"""Slowing down whoever guesses passwords.

Five log-ins for a name may fail from one network (/24 of IPv4, /64 of IPv6); after that each further one must wait, 1 s
at first, then twice as long each time, up to 15 minutes. So 18 passwords an hour can be tried there. It is counted in
the store, for names that do not exist too, so that a restart forgets nothing and the answer tells nothing. Elsewhere,
and by a token, the owner logs in undisturbed: nobody can lock somebody else out.
"""

import ipaddress
import math
import threading
from collections import Counter
from concurrent.futures import Future
from typing import Any

from wireproto.chat.expiry import GUESS_KEPT
from wireproto.chat.sessions import bad_credentials
from wireproto.chat.store import Store
from wireproto.chat.transaction import Transaction
from wireproto.chat.writer import Job
from wireproto.errors import CallError
from wireproto.status import Retry, Status

__all__ = ["Guesses", "network_of", "wait_after"]

FREE = 5
"""Failures that cost no time."""

LONGEST = 900
"""Seconds that the wait does not go beyond."""

Key = tuple[str, str]


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
        self._under_way: Counter[Key] = Counter()

    def begin(self, name: str, peer: str, answer: "Future[Any]") -> tuple[Key, bool]:
        """A password for ``name`` is about to be verified; until ``answer`` is done it is under way.

        Returns:
            What it is counted under, and whether failures are.

        Raises:
            CallError: THROTTLED; the answer says how long to wait.
        """
        key = (name, network_of(peer))
        with self._lock:
            under_way = self._under_way[key]
            row = self._store.one(self._store.sql.guesses_find, *key)
            failures, failed_at = (0, 0) if row is None else (row[0], row[1])
            since = self._store.now - failed_at
            if since >= GUESS_KEPT:
                failures = 0
            wait = wait_after(failures) * 1_000_000
            # A clock that was set back must not make the wait longer than it is.
            left = min(wait, wait - since)
            if under_way and failures + under_way >= FREE:
                left = max(left, 1_000_000)
            if left > 0:
                raise CallError(
                    Status.RESOURCE_EXHAUSTED,
                    "THROTTLED",
                    f"too many log-ins for this name have failed; wait {math.ceil(left / 1_000_000)} s, "
                    "or sign in by a token",
                    retry=Retry.NOT_PROCESSED,
                    retry_after_ms=math.ceil(left / 1000),
                )
            self._under_way[key] = under_way + 1
        answer.add_done_callback(lambda _: self._end(key))
        return key, row is not None

    def failed(self, key: Key, answer: "Future[Any]") -> None:
        """The password was wrong: count it, and then answer so."""
        self._store.submit(_Failed(key, answer))

    def _end(self, key: Key) -> None:
        with self._lock:
            self._under_way[key] -= 1
            if self._under_way[key] <= 0:
                del self._under_way[key]


class _Failed(Job[None]):
    """Counts a failure. The caller is answered once it is durable, and not before: or a crash would forget it."""

    __slots__ = ("_key",)

    def __init__(self, key: Key, answer: "Future[Any]") -> None:
        super().__init__(answer)
        self._key = key

    def apply(self, tx: Transaction) -> None:
        row = tx.one(tx.sql.guesses_find, *self._key)
        failures = 0 if row is None or tx.now - row[1] >= GUESS_KEPT else row[0]
        tx.run(tx.sql.guesses_note, *self._key, failures + 1, tx.now)

    def committed(self, result: None) -> None:
        raise bad_credentials()
