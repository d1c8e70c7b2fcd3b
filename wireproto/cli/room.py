"""Whether the system has room for what grpcio's core is about to start.

The core is not written in Python: without a thread or a descriptor that it wants, it ends the process with SIGABRT and
a line of its own. So a command looks first, while there still is somebody to say it in a sentence.
"""

import os
import threading
from typing import Final

__all__ = ["look_for_room"]

THREADS: Final = 16
"""Those of the core: 7 were counted in a server and 5 in a client, and a few more start while it runs and ends."""

DESCRIPTORS: Final = 16
"""... and 9 of these."""


def look_for_room(threads: int = 0) -> None:
    """Start as many threads and open as many descriptors as grpcio may want, and let go of all of them.

    Args:
        threads: of this program's own that are yet to be started.

    Raises:
        RuntimeError: one of the threads cannot be started.
        OSError: one of the descriptors cannot be had.
    """
    held: list[int] = []
    started: list[threading.Thread] = []
    enough = threading.Event()
    try:
        for _ in range(DESCRIPTORS):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(threads + THREADS):
            thread = threading.Thread(target=enough.wait, name="wireproto-room", daemon=True)
            thread.start()
            started.append(thread)
    finally:
        enough.set()
        for thread in started:
            thread.join()
        for descriptor in held:
            os.close(descriptor)
