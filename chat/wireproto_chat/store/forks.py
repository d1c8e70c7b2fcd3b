"""What becomes of an open store in a child that ``os.fork`` made: it is the parent's, and the child leaves it alone.

SQLite must not even close a connection there. A transaction that was under way in the parent would be undone in the
child, in the memory that both share, and the last connection to close would fold the parent's log in. So the child's
copies of the connections are kept for ever, until its end and through it. What the child may do is close the lock
file's descriptor: else the store would stay in use for as long as the child lives.
"""

import ctypes
import os
import weakref
from typing import Protocol

__all__ = ["Heirloom", "keep_for_ever", "own"]


class Heirloom(Protocol):
    """Something that belongs to the process that made it."""

    def leave_to_parent(self) -> None:
        """Called in a child, on its only thread. No lock may be taken: its owner may not exist here."""


_owned: "weakref.WeakSet[Heirloom]" = weakref.WeakSet()


def own(thing: Heirloom) -> None:
    """Have a thing told when it finds itself in a child."""
    _owned.add(thing)


def keep_for_ever(thing: object) -> None:
    """Never free an object, not even when the interpreter ends, which clears all that it can reach."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork() -> None:
    for thing in list(_owned):
        thing.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
