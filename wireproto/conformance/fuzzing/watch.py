"""What a process holds, from Linux's /proc, so that a server that leaks is seen without a look into it."""

import errno
import os
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Resources", "drift", "resources"]

_MEMORY_SLACK: Final = 8 * 2**20
"""Bytes: arenas and caches that fill up late are no leak."""


class Resources(NamedTuple):
    """Of one process at one moment.

    Attributes:
        threads: their number.
        descriptors: open ones.
        memory: resident bytes.
    """

    threads: int
    descriptors: int
    memory: int


def resources(pid: int) -> Resources:
    """Look at a process.

    Raises:
        OSError: it is not there or has ended, is somebody else's, or the system has no /proc.
    """
    folder = Path("/proc") / str(pid)
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text("ascii", "replace").splitlines())
    if "VmRSS" not in fields:  # it has ended, and nobody has asked yet how
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    memory = int(fields["VmRSS"].split()[0]) * 1024
    return Resources(int(fields["Threads"]), len(os.listdir(folder / "fd")), memory)


def drift(before: Resources, after: Resources) -> list[str]:
    """What a process has more of than before, in sentences; memory by an eighth and 8 MiB at least."""
    found = []
    if after.threads > before.threads:
        found.append(f"the server has {after.threads} threads and had {before.threads}")
    if after.descriptors > before.descriptors:
        found.append(f"the server has {after.descriptors} descriptors and had {before.descriptors}")
    if after.memory > before.memory + max(_MEMORY_SLACK, before.memory // 8):
        found.append(
            f"the server has {after.memory / 2**20:.1f} MiB of memory and had {before.memory / 2**20:.1f}, "
            "more than caches explain"
        )
    return found
