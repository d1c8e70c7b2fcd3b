"""How a command that serves is asked to end: by the first signal kindly, by the second one as any program is."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["asked_to_end", "die_of_signals"]

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def asked_to_end(tell: Callable[[int], object]) -> Iterator[None]:
    """Have the number of the first SIGTERM or SIGINT told; in the end signals do what they did before.

    Whoever invokes a command in a process of its own must find its signals as they were: a child that it forks inherits
    them, and would not end by SIGTERM.

    Args:
        tell: called in the main thread, whatever that does just then. ``put`` of a SimpleQueue may interrupt its own
            ``get`` in the same thread, where an Event would deadlock.
    """

    def handle(number: int, frame: object) -> None:
        die_of_signals()
        tell(number)

    before = [(each, signal.getsignal(each)) for each in ENDING]
    for each in ENDING:
        signal.signal(each, handle)
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def die_of_signals() -> None:
    """From now on a signal ends the process."""
    for each in ENDING:
        signal.signal(each, signal.SIG_DFL)
