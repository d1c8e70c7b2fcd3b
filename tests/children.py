"""Children that a test forks, and waits for with an end."""

import os
import signal
import time
from collections.abc import Callable

__all__ = ["FORKS", "in_child"]

FORKS = ("-W", "ignore:This process:DeprecationWarning")
"""For a Python that forks while threads run, of which CPython 3.12 and newer warn: that it does no harm is tried."""

PATIENCE = 20.0
"""Seconds after which a child that does not end is killed."""


def in_child(act: Callable[[], object]) -> int:
    """Fork and run ``act`` in the child; its exit status, or 99 if it does not end."""
    child = os.fork()
    if not child:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 99
    return os.waitstatus_to_exitcode(ended[1])
