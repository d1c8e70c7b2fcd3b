"""What a program under test writes to its stdout, line by line, and never a wait for more than its own end."""

import os
import selectors
import threading
from collections.abc import Callable

__all__ = ["LineReader"]

_CHUNK = 65536


class LineReader:
    """A thread that reads a pipe until its end, or until nobody wants it any more.

    The end of the program need not be the end of the pipe: a process that the program started may hold it open for as
    long as it likes.

    Args:
        pipe: the descriptor to read from; its owner closes it once ``stop`` has returned.
        told: called with each line, without its end, on the thread; what is no UTF-8 is escaped.
        name: of the thread.
        ended: called when the pipe has ended.
    """

    def __init__(self, pipe: int, told: Callable[[str], None], name: str, ended: Callable[[], None]) -> None:
        self._pipe = pipe
        self._told = told
        self._ended = ended
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not any(key.fd == self._wake_read for key, _ in selector.select()):
                data = os.read(self._pipe, _CHUNK)
                if not data:
                    if rest:
                        self._told(rest.decode("utf-8", "backslashreplace"))
                    self._ended()
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._told(line.decode("utf-8", "backslashreplace"))

    def stop(self) -> None:
        """End the thread; nothing is told behind that."""
        os.write(self._wake_write, b"!")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)
