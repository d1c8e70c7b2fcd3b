"""The output of a link: whole frames in, and out as far as the kernel takes them, never blocking."""

import contextlib
import socket
from collections import deque
from collections.abc import Iterable

from wireproto.client.calls import ClientCall

__all__ = ["Output"]

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Output:
    """What was handed over for sending and is not at the kernel yet. Used under the link's lock.

    It knows of each call whether its request left this process whole; one that did not cannot have been processed.

    Args:
        sock: connected.

    Attributes:
        waiting: bytes that the kernel did not take yet.
        taken: bytes that passed through ``waiting``.
        writable: False once a send failed for good. Nothing is sent then, and whatever is handed over stays.
        problem: why it failed; "" if it did not.
        finished: nothing more is to be sent; whatever is handed over from then on is dropped.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.waiting = bytearray()
        self.taken = 0
        self.writable = True
        self.problem = ""
        self.finished = False
        self._sock = sock
        self._unsent: deque[tuple[int, ClientCall]] = deque()  # where the request ends, as a value of ``taken``

    def send(self, data: bytes) -> int:
        """Send ``data``, which is whole frames, unless something waits already.

        Returns:
            How many bytes the kernel took. The rest must be handed to ``keep``.
        """
        if self.finished:
            return len(data)
        if self.waiting or not self.writable:
            return 0
        try:
            return self._sock.send(data, _FLAGS)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return 0

    def keep(self, data: bytes, sent: int, requests: Iterable[tuple[int, ClientCall]]) -> None:
        """Have the rest of ``data`` wait.

        Args:
            data: as it was given to ``send``.
            sent: what that returned.
            requests: where in ``data`` each call's request ends.
        """
        begin = self.taken + len(self.waiting) - sent
        self.waiting += memoryview(data)[sent:]
        self._unsent += [(begin + end, call) for end, call in requests if end > sent]

    def flush(self) -> None:
        """Send more of what waits."""
        if not self.waiting or not self.writable:
            return
        try:
            with memoryview(self.waiting) as view:
                sent = self._sock.send(view, _FLAGS)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        del self.waiting[:sent]
        self.taken += sent
        while self._unsent and self._unsent[0][0] <= self.taken:
            self._unsent.popleft()
        if self.finished and not self.waiting:
            self._shut_down()

    def finish(self) -> None:
        """Shut the writing side down behind what waits. What the peer sends is still read."""
        if not self.finished:
            self.finished = True
            if not self.waiting:
                self._shut_down()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):  # the peer is gone: reading says so
            self._sock.shutdown(socket.SHUT_WR)

    def unsent(self) -> set[ClientCall]:
        """The calls whose request is not whole at the kernel."""
        return {call for _, call in self._unsent}

    def _fail(self, error: OSError) -> None:
        self.writable = False
        self.problem = error.strerror or str(error)
        # The peer may have said why before it closed. What it sent is still read, up to the end of input that this
        # puts behind it, so that whoever reads is not kept waiting for more.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
