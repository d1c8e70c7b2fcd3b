"""A peer that obeys nothing: one socket, frames with any field wrong, and an exact account of how it ended.

It judges implementations of ``docs/wire.md``, ours among them, so it shares no rule with them: it checks nothing,
answers nothing, and keeps no state but the bytes it has not handed out. It plays either role.

    with RawPeer.connect(("127.0.0.1", 7411)) as peer:
        peer.send(PREAMBLE + frame(HELLO, pack_hello(codecs=[(2, "msgpack")])))
        assert peer.take(4, timeout=5) == PREAMBLE
        answer = peer.receive(timeout=5)        # a RawFrame, or how it ended: EOF, RESET, SILENCE

It takes neither pytest nor hypothesis. Not thread-safe, but one thread may send while another one receives.
"""

import enum
import socket
import struct
import time
from types import TracebackType
from typing import Self

from wireproto.conformance.page import HEADER, RawFrame, frame, pack_hello, pack_welcome, read_frame, read_header

__all__ = ["Ending", "RawFrame", "RawListener", "RawPeer", "frame", "pack_hello", "pack_welcome"]

_CHUNK = 65536


class Ending(enum.Enum):
    """Why there is no more to read, or to send."""

    EOF = "end of input"
    """The peer ended its output, and everything it had sent was read."""
    RESET = "reset"
    """The peer, or the system for it, dropped the connection."""
    SILENCE = "silence"
    """Nothing came, or nothing was taken, until the deadline; the connection is still there."""


class RawPeer:
    """One end of one connection.

    Args:
        sock: connected; the peer owns it from here on.

    Attributes:
        socket: for whatever is not here, such as its options. Its timeout is set by each call.
        received: bytes that came and were not handed out; after an ending, what was left of a frame.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received = bytearray()
        self._ending: Ending | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def connect(cls, address: tuple[str, int], timeout: float = 10.0) -> Self:
        """Connect to a server. Nothing is sent yet.

        Raises:
            OSError: nobody listens there; TimeoutError after ``timeout`` seconds.
        """
        return cls(socket.create_connection(address, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Sending.

    def send(self, *pieces: bytes, timeout: float = 10.0) -> Ending | None:
        """Send each piece with a system call of its own.

        Returns:
            None when the system took it all, RESET when the peer is gone, SILENCE when it took not all of it within
            ``timeout`` seconds. What the peer sent before can be read in any case.
        """
        deadline = time.monotonic() + timeout
        try:
            for piece in pieces:
                self.socket.settimeout(max(deadline - time.monotonic(), 1e-3))
                self.socket.sendall(piece)
        except TimeoutError:
            return Ending.SILENCE
        except OSError as error:
            if self.socket.fileno() < 0:
                raise ValueError("the connection was closed on this side") from error
            return Ending.RESET
        return None

    def end_output(self) -> None:
        """Say that nothing more will come, and go on reading."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer was faster; reading tells how

    def reset(self) -> None:
        """Drop the connection so that the peer sees a reset, not an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close it; the system makes a reset of it when there is unread input."""
        self.socket.close()

    # Receiving.

    def take(self, size: int, timeout: float = 10.0) -> bytes | Ending:
        """The next ``size`` bytes, whatever they are, or why they do not come within ``timeout`` seconds."""
        ending = self._fill(size, time.monotonic() + timeout)
        return ending or self._cut(size)

    def receive(self, timeout: float = 10.0) -> RawFrame | Ending:
        """The next whole frame, or why there is none within ``timeout`` seconds, however many of its bytes came.

        Take the preamble first. A frame is read by its lengths alone; when these contradict each other, the metadata
        are cut at the end of the frame, and a length below 12 leaves an empty frame behind the header.
        """
        deadline = time.monotonic() + timeout
        if ending := self._fill(HEADER.size, deadline):
            return ending
        size = max(HEADER.size, 4 + read_header(self.received).length)
        if ending := self._fill(size, deadline):
            return ending
        return read_frame(self._cut(size))

    def drain(self, timeout: float = 10.0) -> tuple[bytes, Ending]:
        """Everything that comes until the connection ends or ``timeout`` seconds have passed, and which it was."""
        deadline = time.monotonic() + timeout
        ending = None
        while not ending:
            ending = self._fill(len(self.received) + 1, deadline)
        return self._cut(len(self.received)), ending

    def _cut(self, size: int) -> bytes:
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def _fill(self, size: int, deadline: float) -> Ending | None:
        """Read until ``size`` bytes wait."""
        while len(self.received) < size:
            if self._ending:
                return self._ending
            self.socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                data = self.socket.recv(_CHUNK)
            except TimeoutError:
                return Ending.SILENCE
            except ConnectionError:
                self._ending = Ending.RESET
                continue
            if not data:
                self._ending = Ending.EOF
            self.received += data
        return None


class RawListener:
    """A port of this machine where raw peers are accepted, for playing the server.

    Args:
        host: loopback by default.
        port: 0 for any free one.

    Attributes:
        address: host and port.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = socket.create_server((host, port))
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def accept(self, timeout: float = 10.0) -> RawPeer | None:
        """The next client; None when there is none within ``timeout`` seconds."""
        self._socket.settimeout(timeout)
        try:
            sock, _ = self._socket.accept()
        except TimeoutError:
            return None
        return RawPeer(sock)

    def close(self) -> None:
        """Listen no longer; clients that wait are refused."""
        self._socket.close()
