"""What a failure of the database means: what a caller is told, and whether anything may be written after it."""

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from wireproto import CallError, LogLimit, Retry, Status

__all__ = [
    "Complaints",
    "closed",
    "damaged",
    "in_sqlites_words",
    "inherited",
    "is_fatal",
    "is_full",
    "store_error",
    "store_full",
]

_IO_ERROR = 10
_CORRUPT = 11
_FULL = 13
_NOT_A_DATABASE = 26
# What SQLite calls a write that the system refused for another reason than a full disk: a quota, a limit on file sizes.
_WRITE = 778
# ... a full disk, when it is the memory shared with readers that has to grow.
_SHM_SIZE = 4874


def _code(error: BaseException) -> int:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return int(getattr(origin, "sqlite_errorcode", 0) or 0)


def is_full(error: BaseException) -> bool:
    """Whether there was no room on the disk. SQLite has undone what it had begun."""
    code = _code(error)
    return code == _SHM_SIZE or code & 0xFF == _FULL


def is_fatal(error: BaseException) -> bool:
    """Whether the file must not be written any more: an I/O error, a failed fsync above all, or a corrupt page.

    A write that failed before its commit was synced is no such thing: it was undone, and the next may succeed.
    """
    code = _code(error)
    return code not in (_SHM_SIZE, _WRITE) and code & 0xFF in (_IO_ERROR, _CORRUPT, _NOT_A_DATABASE)


def in_sqlites_words(error: BaseException) -> str:
    """What SQLite says of an error. Where it quotes what is damaged, Python may be unable to read that."""
    return "a text in it is none" if isinstance(error, UnicodeDecodeError) else str(error)


def store_error(error: BaseException, *, reading: bool = False) -> BaseException:
    """What a caller is told about a failure of the store; an error that is not the store's is handed back."""
    if isinstance(error, UnicodeDecodeError):
        return damaged(in_sqlites_words(error))
    if not isinstance(error, DBAPIError):
        return error
    if is_full(error) and not reading:
        return store_full()
    if is_fatal(error):
        return _unavailable("the server's store failed; its log says why", Retry.MAYBE_PROCESSED)
    return _unavailable("the server's store cannot do that now, nothing was written; its log says why")


def store_full() -> CallError:
    """What a call is told that would need more room than the disk has, or than is left to it."""
    return CallError(
        Status.RESOURCE_EXHAUSTED,
        "STORE_FULL",
        "the server's disk is full, nothing was written; try again later",
        retry=Retry.NOT_PROCESSED,
        retry_after_ms=5000,
    )


def damaged(what: str) -> CallError:
    """What a call is told that would have to answer something which is not what was stored."""
    return CallError(Status.DATA_LOSS, "STORE_FAILED", f"the server's store is damaged: {what}")


def closed() -> CallError:
    """What a call is told that comes after the store was closed."""
    return _unavailable("the store is closed; the server is shutting down")


def inherited() -> CallError:
    """What a call is told in a child of the process that opened the store."""
    return _unavailable("the store was opened before a fork, by the parent process; open another one in this")


def _unavailable(text: str, retry: Retry = Retry.NOT_PROCESSED) -> CallError:
    return CallError(Status.UNAVAILABLE, "STORE_FAILED", text, retry=retry, retry_after_ms=1000)


class Complaints:
    """Logs failures of the store, as often as ``LogLimit`` admits: a disk that fails fails every call. Any thread.

    Args:
        log: where to.
        clock: monotonic seconds.
    """

    def __init__(self, log: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._limit = LogLimit(clock=clock)

    def note(self, what: str, error: DBAPIError | UnicodeDecodeError) -> None:
        """Log that ``what`` failed, unless it did so just now."""
        more = self._limit.admit((what, _code(error)))
        if more is not None:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            self._log.error("%s failed: %s%s", what, in_sqlites_words(cause), more)
