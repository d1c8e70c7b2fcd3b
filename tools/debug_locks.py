"""Locks that know who holds them, for tests: a method that ends in ``_locked`` fails when its caller has no lock.

``Lock.locked()`` would pass when another thread holds the lock, which is the very mistake. So our modules get a
``DebugLock`` for each ``threading.Lock()``, and every method that ends in ``_locked`` looks whether the calling thread
owns the lock of its object. Nothing of it exists outside of tests, so the convention costs a program nothing.
"""

import functools
import sys
import threading
from collections.abc import Callable
from operator import attrgetter
from types import ModuleType, TracebackType
from typing import Any, Final

__all__ = ["PACKAGES", "DebugLock", "install", "judge_new_modules"]

PACKAGES: Final = ("wireproto.", "wireproto_")
"""Whose locks and methods these are: the framework's, and those of applications that are called after it."""

LOCKS: Final = {
    "BegunCall": "session.lock",
    "Call": "session.lock",
    "GrpcDuplex": "_coming",
    "Intake": "_session.lock",
    "Lasting": "_restoring",
    "Line": "_opening",
    "MailboxStream": "giving",
    "Pump": "_session.lock",
    "Server": "_counts_lock",
    "_ToIterator": "_session.lock",
    "_ToSink": "_session.lock",
}
"""Where the lock of a class is, if not in its own ``lock`` or ``_lock``."""

_real_lock = threading.Lock


class DebugLock:
    """A ``threading.Lock`` that knows its owner. As with that one, any thread may release it."""

    def __init__(self) -> None:
        self._lock = _real_lock()
        self._owner: int | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See ``threading.Lock.acquire``."""
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._owner = threading.get_ident()
        return taken

    def release(self) -> None:
        """See ``threading.Lock.release``."""
        self._owner = None
        self._lock.release()

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self._lock.locked()

    def owned(self) -> bool:
        """Whether the calling thread holds it."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _make_lock() -> Any:
    """What ``threading.Lock`` is while tests run: ours for our modules, the real one for everybody else."""
    # No frame may stay in a variable of ours: it would hold itself, and with it all that its callers have.
    caller = str(sys._getframe(1).f_globals.get("__name__", ""))  # noqa: SLF001 - only a frame knows its module
    return DebugLock() if caller.startswith(PACKAGES) else _real_lock()


def install() -> None:
    """Give our modules locks that know their owner, from now on."""
    threading.Lock = _make_lock  # type: ignore[assignment]


_judged: set[str] = set()


def judge_new_modules() -> None:
    """Have the ``_locked`` methods of those of our modules that were imported since the last time look for the lock."""
    for name in [name for name in sys.modules if name.startswith(PACKAGES) and name not in _judged]:
        _judged.add(name)
        module = sys.modules[name]
        if isinstance(module, ModuleType):
            for cls in [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name]:
                _judge(cls)


def _judge(cls: type) -> None:
    for name, function in list(vars(cls).items()):
        if name.endswith("_locked") and callable(function) and not getattr(function, "judged", False):
            setattr(cls, name, _judging(cls, function))


def _judging(cls: type, function: Callable[..., Any]) -> Callable[..., Any]:
    places = [LOCKS[cls.__name__]] if cls.__name__ in LOCKS else ["lock", "_lock"]

    @functools.wraps(function)
    def judged(self: Any, *arguments: Any, **settings: Any) -> Any:
        for place in places:
            try:
                lock = attrgetter(place)(self)
            except AttributeError:
                continue
            if isinstance(lock, DebugLock) and not lock.owned():
                raise AssertionError(f"{cls.__name__}.{function.__name__} was called without {place} held")
            break
        else:
            raise AssertionError(f"{cls.__name__} has no lock: say in {__name__}.LOCKS where it is")
        return function(self, *arguments, **settings)

    judged.judged = True  # type: ignore[attr-defined]
    return judged
