"""Passwords: what is accepted, how they are hashed, and the two threads that do it.

Argon2id takes 19 MiB and 16 ms by design, so that guessing is slow. So that hashing cannot be used to slow the server,
two threads do all of it, 32 more calls may wait for them, and every further one is refused at once.
"""

import logging
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from wireproto import CallError, Retry, Status
from wireproto_chat.service.common_passwords import is_common

__all__ = ["HashPool", "Passwords"]

log = logging.getLogger("wireproto_chat.passwords")

MIN_CHARACTERS = 12
MAX_CHARACTERS = 128
MAX_BYTES = 1024

WORKERS = 2
"""Threads that hash; each holds 19 MiB meanwhile and no interpreter lock."""

WAITING = 32
"""Calls that may wait for one of them: a quarter of a second of work."""

PATIENCE = 2.0
"""Seconds a call waits before it is refused after all."""


class Passwords:
    """The rules for passwords, and their hashes. Safe from any thread.

    Args:
        minimum: characters a new password must have.
        hasher: the parameters; OWASP's minimum for Argon2id (19 MiB, 2 passes, 1 lane) when not given.
    """

    def __init__(self, *, minimum: int = MIN_CHARACTERS, hasher: PasswordHasher | None = None) -> None:
        self.minimum = minimum
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        # What an unknown user's password is compared with, so that the answer takes as long as a wrong password's.
        self._nobody = self._hasher.hash("nobody has this password")

    def normalise(self, password: str) -> str:
        """The form that is hashed: every space an ASCII one, composed (NFC), as RFC 8265 has it.

        Raises:
            CallError: BAD_PASSWORD: too long to be anybody's.
        """
        # Measured before normalising, so that a long text is not worth sending.
        if len(password) <= MAX_BYTES:
            spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
            normal = unicodedata.normalize("NFC", spaced)
            if len(normal.encode()) <= MAX_BYTES and len(normal) <= MAX_CHARACTERS:
                return normal
        raise self._refusal()

    def checked(self, password: str) -> str:
        """The normal form of a password somebody wants to have.

        Raises:
            CallError: BAD_PASSWORD: too short, too long, with control characters, or one that is tried first.
        """
        normal = self.normalise(password)
        if len(normal) < self.minimum or any(unicodedata.category(char) == "Cc" for char in normal):
            raise self._refusal()
        if is_common(normal):
            raise CallError(
                Status.INVALID_ARGUMENT,
                "BAD_PASSWORD",
                "this password is among the first that are tried; take one of several words",
            )
        return normal

    def hash(self, normal: str) -> str:
        """The hash to store, with its salt and parameters. Takes 16 ms."""
        return self._hasher.hash(normal)

    def verify(self, stored: str | None, normal: str) -> bool:
        """Whether a stored hash is this password's; for None, no account, False after as long a time."""
        try:
            self._hasher.verify(self._nobody if stored is None else stored, normal)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as error:
            log.error("a stored password hash cannot be verified: %s", type(error).__name__)
            return False
        return stored is not None

    def is_old(self, stored: str) -> bool:
        """Whether a stored hash was made with other parameters than new ones are."""
        return self._hasher.check_needs_rehash(stored)

    def _refusal(self) -> CallError:
        return CallError(
            Status.INVALID_ARGUMENT,
            "BAD_PASSWORD",
            f"a password has {self.minimum} to {MAX_CHARACTERS} characters, at most {MAX_BYTES} bytes, "
            "and no control characters",
        )


class HashPool:
    """The threads that hash.

    Args:
        workers: threads.
        waiting: calls that may wait.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, workers: int = WORKERS, waiting: int = WAITING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._free = threading.BoundedSemaphore(workers + waiting)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="wireproto-chat-hash")

    def submit(self, answer: "Future[Any]", work: Callable[[], None]) -> None:
        """Have ``work`` run on a thread of the pool; it resolves ``answer`` or has it resolved. What it raises is set
        there.

        Raises:
            CallError: SERVER_BUSY, at once, when too many wait already.
        """
        if not self._free.acquire(blocking=False):
            raise _busy()
        queued = self._clock()

        def run() -> None:
            try:
                if not answer.set_running_or_notify_cancel():
                    return
                if self._clock() - queued > PATIENCE:
                    raise _busy()
                work()
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who waits for the answer
                answer.set_exception(error)
            finally:
                self._free.release()

        try:
            self._threads.submit(run)
        except RuntimeError:
            self._free.release()
            raise CallError(
                Status.UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down", retry=Retry.NOT_PROCESSED
            ) from None

    def close(self) -> None:
        """Finish the hashes under way, drop those that wait."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _busy() -> CallError:
    return CallError(
        Status.RESOURCE_EXHAUSTED,
        "SERVER_BUSY",
        "too many log-ins at once; try again shortly",
        retry=Retry.NOT_PROCESSED,
        retry_after_ms=1000,
    )
