"""The bytes of one connection: its descriptor, what the kernel did not take yet, and what the poller is asked for.

Bytes in, bytes out, under the session's lock, so that encryption can be put here and nowhere else. Every system call
on the descriptor is in this module, and each looks at ``closed`` first.
"""

import socket

from wireproto.limits import Limits
from wireproto.poller import READ, WRITE, Poller

__all__ = ["Transport"]

FIRST_READ = 448
"""Bytes asked of the kernel at first: what fits the interpreter's own allocator, 512 bytes with the object's head, is
cheaper to make and to shorten than what malloc gives. A read that is filled has the next ones ask for eight times as
many, up to a turn's worth."""


class Transport:
    """A non-blocking socket with an output buffer. Every method is called with the session's lock held.

    Attributes:
        fd: the descriptor, the poller's name for the connection.
        closed: the descriptor was given back; every method does nothing then.
        ended: the peer will send nothing more; reading interest is dropped for good.
        reading: the poller is asked for input.
        paused: output is above the high watermark, so reading rests until it is below the low one.
        failure: what the system said when it refused to read or write; "" while it has not.
        pending: bytes that the kernel did not take yet.
        taken: bytes that the kernel took later than at once, so far.
    """

    __slots__ = (
        "_limits",
        "_output",
        "_poller",
        "_read_size",
        "_registered",
        "_shut_down",
        "_socket",
        "closed",
        "ended",
        "failure",
        "fd",
        "paused",
        "pending",
        "reading",
        "taken",
    )

    def __init__(self, sock: socket.socket, poller: Poller, limits: Limits) -> None:
        self.fd = sock.fileno()
        self.closed = False
        self.ended = False
        self.reading = False
        self.paused = False
        self.pending = 0
        self.failure = ""
        self.taken = 0
        self._socket = sock
        self._poller = poller
        self._limits = limits
        self._read_size = min(FIRST_READ, limits.turn_bytes)
        self._output: bytearray | None = None
        self._registered = 0
        self._shut_down = False

    def register(self) -> None:
        self._registered = READ
        self._poller.add(self.fd, READ)
        self.reading = True

    def receive(self) -> bytes | None:
        """Read once: the bytes, ``b""`` at the end of the input, None when there is nothing or ``failure`` was set."""
        if self.closed:
            return None
        try:
            data = self._socket.recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self.failure = f"reading failed: {error.strerror}"
            return None
        if len(data) == self._read_size:
            self._read_size = min(8 * self._read_size, self._limits.turn_bytes)
        elif not data:
            self.ended = True
            self._interest()
        return data

    def send(self, data: bytes) -> bool:
        """Write ``data`` after what waits, without blocking; the rest waits for the descriptor to be writable.

        Returns:
            Whether nothing waited and the kernel took it all, as it does with nearly every answer.
        """
        if self.closed:
            return False
        output = self._output
        if output is not None:
            output += data
        elif not data:
            return True
        try:
            sent = self._socket.send(data if output is None else output)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.failure = f"writing failed: {error.strerror}"
            return False
        if output is None:
            if sent == len(data):
                return True
            self._output = bytearray(data[sent:])
        else:
            self.taken += sent
            del output[:sent]
            if not output:
                self._output = None
        waiting = self.pending = len(self._output) if self._output else 0
        if waiting > self._limits.high_watermark:
            self.paused = True
        elif waiting < self._limits.low_watermark:
            self.paused = False
        self._interest()
        return False

    def input_waits(self) -> bool:
        """Whether there is input at the kernel that nobody has read yet; the end of the input is none."""
        if self.closed or self.ended:
            return False
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def shut_down_writing(self) -> None:
        """Tell the peer that nothing more will come; only once nothing waits."""
        if self.closed or self._output or self._shut_down:
            return
        self._shut_down = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer is gone already: the next read says so

    def close(self) -> None:
        """Give the descriptor back. The poller forgets it first: nobody may find it once another connection has it."""
        if self.closed:
            return
        self.closed = True
        self.reading = False
        self._poller.remove(self.fd)
        self._socket.close()
        self._output = None
        self.pending = 0

    def forget(self) -> None:
        """Give the descriptor back in a child of the process whose connection it is, and do nothing to the connection.

        Without the lock, whose owner is not there any more.
        """
        self.closed = True
        self._socket.close()

    def _interest(self) -> None:
        """Compute the mask from the state, always, so that no path can leave a stale one."""
        mask = WRITE if self._output else 0
        if not self.ended and not self.paused:
            mask |= READ
        self.reading = mask & READ != 0
        if mask != self._registered:
            self._registered = mask
            self._poller.modify(self.fd, mask)
