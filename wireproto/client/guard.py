"""Where a client cannot be used: in a signal handler that interrupted one, and in a child of its process.

A signal handler runs on the main thread, between any two steps of what it interrupts. If that is a method of a client,
the method may hold a lock, or be the one that receives for everybody, and it does not go on before the handler returns.
A handler that waited for a client then would wait for ever, whichever client it is: all of them share the keeper. So it
is refused, at once and in words. A finalizer that runs on the main thread in such a method is refused likewise.

The interpreter runs handlers behind a call, never between an assignment and ``try``, nor before the first statement of
``finally``, so that a handler that raises leaves no mark behind. ``Client.call`` has the same lines written out.

A child that ``os.fork`` made shares each connection with its parent, and the threads that served it are not there.
"""

import os
import threading
from _thread import get_ident
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from wireproto.errors import LocalProtocolError

__all__ = ["MAIN", "get_ident", "inside", "interrupted", "interrupting", "made_before_fork", "refuse_interrupter"]

P = ParamSpec("P")
R = TypeVar("R")


class _MainThread:
    """The thread that runs signal handlers. A mark for every thread, in a dict, cost a call three times as much.

    Attributes:
        ident: the thread's identifier.
        inside: whether it is in a method of a client. No code of the user runs there but handlers and finalizers.
    """

    __slots__ = ("ident", "inside")

    def __init__(self) -> None:
        self.ident = threading.main_thread().ident
        self.inside = False


MAIN = _MainThread()


def interrupted() -> LocalProtocolError:
    """What to raise for a call by the main thread while it is inside already."""
    return LocalProtocolError(
        "a signal handler or a finalizer interrupted a method of a client on this thread, so no client can be used "
        "before it returns: set a flag in it, or hand the work to another thread. Only close() works there"
    )


def interrupting() -> bool:
    """Whether the caller is a signal handler, or a finalizer, that interrupted a client."""
    return MAIN.inside and get_ident() == MAIN.ident


def refuse_interrupter() -> None:
    """Nothing, but where the caller has interrupted a client.

    Raises:
        LocalProtocolError: it has.
    """
    if interrupting():
        raise interrupted()


def inside(method: Callable[P, R]) -> Callable[P, R]:
    """``method``, refused with LocalProtocolError where its caller has interrupted a client, and marked else."""

    @wraps(method)
    def marked(*args: P.args, **kwargs: P.kwargs) -> R:
        if get_ident() != MAIN.ident:
            return method(*args, **kwargs)
        if MAIN.inside:
            raise interrupted()
        try:
            MAIN.inside = True
            return method(*args, **kwargs)
        finally:
            MAIN.inside = False

    return marked


def made_before_fork(what: str) -> LocalProtocolError:
    """What to raise in a child for ``what``, which is its parent's."""
    return LocalProtocolError(f"{what} before a fork belongs to the parent process: connect again in this one")


def _after_fork() -> None:
    MAIN.ident = get_ident()  # whichever thread forked


os.register_at_fork(after_in_child=_after_fork)
