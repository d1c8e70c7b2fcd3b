"""Whether a door was started and has ended: each happens once, whichever threads ask for it."""

import os
import threading
import time
import weakref
from collections.abc import Callable

from wireproto.errors import ConfigError

__all__ = ["Life", "while_awake"]

LOOK = 1.0
"""Seconds for which a wait sleeps at once. The handler of a signal that comes when a thread is on its way into a lock
runs when the lock is left, so it runs within this, and not at the end of everything."""

SLICE = 0.1
"""Seconds for which ``while_awake`` waits at once. Of the time that the process sleeps it counts twice that at most."""

_START, _END = "start", "end"
_NOBODY = 0


def while_awake(wait: Callable[[float], bool], timeout: float) -> bool:
    """Wait until ``wait``, which is given seconds, says so, or for ``timeout`` seconds in which this process ran.

    A process that was stopped, or whose machine was suspended, does not take what it slept for time that others had.
    """
    left = timeout
    while left > 0:
        most = min(left, SLICE)
        began = time.monotonic()
        if wait(most):
            return True
        left -= min(time.monotonic() - began, 2 * most)
    return wait(0.0)


class Life:
    """What a door asks before it starts and before it ends. Any thread, and a signal handler on any of them.

    A handler may come between any two steps of the thread it runs on, so there is no lock that both would want. Who may
    start, and who may end, is whoever enters itself in a dict first, which is one step.

    A door belongs to the process that made it. In a child made by ``os.fork`` it has ended, and nothing is carried out:
    the connections are the parent's.

    Args:
        name: what the door is called in a sentence, such as ``server``.
        forget: closes the door's descriptors in a child, takes no lock, and says nothing to anybody. None if they are
            not the door's own.

    Attributes:
        started: the door serves, or did.
        ended: the end was asked for.
        inherited: this process is a child of the one whose door it is.
    """

    __slots__ = ("__weakref__", "_claims", "_forget", "_gate", "_name", "ended", "inherited", "started")

    def __init__(self, name: str, forget: Callable[[], None] | None = None) -> None:
        self._name = name
        self._forget = forget
        self.inherited = False
        self._claims: dict[str, tuple[int, object]] = {}  # what was claimed, by which thread while it is at it
        self._gate = threading.Lock()
        self._gate.acquire()
        self.started = False
        self.ended = False
        _lives.add(self)

    def begin(self) -> None:
        """Be the one who starts the door; followed by ``begun``, or by ``not_begun`` when it could not be.

        Raises:
            ConfigError: it was started already, or has ended.
        """
        if self.inherited:
            raise ConfigError(
                f"the {self._name} was made before a fork, by the parent process; make another one in this"
            )
        ours = self._claim(_START)
        if self.ended:
            if ours:
                self.over()
            raise self._over()
        if not ours:
            raise ConfigError(
                f"the {self._name} was started already, and goes on; to listen elsewhere as well, make another one"
            )

    def not_begun(self) -> None:
        """It could not be started, and may be tried again."""
        self._claims.pop(_START)
        if self.ended and self._claim(_START):
            self.over()

    def begun(self) -> None:
        """The door serves.

        Raises:
            ConfigError: its end was asked for meanwhile, and is now for whoever calls this.
        """
        self.started = True
        self._done(_START)
        # Whoever ends it writes ``ended`` and then reads ``started``, so one of the two sees the other.
        if self.ended:
            raise self._over()

    def end(self) -> bool:
        """Ask for the end: whether the caller is the one who carries it out, which ``over`` says in the end.

        False when another does or has, and when the door never served: whoever is starting it then carries it out.
        """
        self.ended = True
        if self.inherited:
            return False
        if self.started:
            return self._claim(_END)
        if self._claim(_START):
            self.over()  # and nobody starts it any more
        return False

    def interrupted(self) -> None:
        """The end was not carried out: an exception came, such as KeyboardInterrupt. Whoever asks next does."""
        self._claims.pop(_END)

    def over(self) -> None:
        """The end was carried out."""
        self._done(_START)
        self._done(_END)
        self._gate.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end to be carried out, at most ``timeout`` seconds; whether it is.

        A signal handler on the very thread that starts the door, or carries its end out, is not kept waiting, for that
        would be for ever.
        """
        if self.inherited:
            return True
        if any(owner == threading.get_ident() for owner, _ in tuple(self._claims.values())):
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = LOOK if deadline is None else min(LOOK, max(0.0, deadline - time.monotonic()))
            if self._gate.acquire(timeout=rest):
                self._gate.release()
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _claim(self, what: str) -> bool:
        claim = (threading.get_ident(), object())
        return self._claims.setdefault(what, claim) is claim

    def _done(self, what: str) -> None:
        self._claims[what] = (_NOBODY, None)

    def _over(self) -> ConfigError:
        return ConfigError(f"the {self._name} was shut down and serves no more; make another one")

    def _leave_to_parent(self) -> None:
        self.inherited = self.ended = True
        if self._forget is not None:
            self._forget()


_lives: weakref.WeakSet[Life] = weakref.WeakSet()


def _after_fork() -> None:
    for life in list(_lives):
        life._leave_to_parent()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
