"""The receive buffer: whole frames are read out of it, whatever pieces the bytes came in.

While nothing waits, the bytes object handed over is kept as it is and read in place, so that a connection whose
frames arrive whole copies nothing but payloads. What waits beyond ``SMALL`` bytes is gathered in a bytearray.
Either way every byte is copied a bounded number of times, however it is cut.
"""

__all__ = ["SMALL", "Buffer"]

SMALL = 1024
"""Bytes: a rest up to this long is joined with what comes next; copying it once per piece is cheaper than a gather."""


class Buffer:
    """Bytes received and not yet consumed: ``data[at:]``.

    ``data`` and ``at`` are open to the parser, which reads headers in place and moves ``at`` past a frame.
    """

    __slots__ = ("at", "data")

    def __init__(self) -> None:
        self.data: bytes | bytearray = b""
        self.at = 0

    def __len__(self) -> int:
        return len(self.data) - self.at

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add what was received; ``data`` is kept as it is when nothing waits."""
        if type(data) is not bytes:
            data = bytes(data)  # whoever lends a bytearray will write into it again
        held, at = self.data, self.at
        rest = len(held) - at
        if not rest:
            self.data = data
        elif type(held) is bytearray:
            # Deleting a prefix moves a pointer; re-slicing would copy the rest each time.
            del held[:at]
            held += data
        elif rest <= SMALL:
            self.data = held[at:] + data if at else held + data
        else:
            gathered = bytearray(memoryview(held)[at:])
            gathered += data
            self.data = gathered
        self.at = 0

    def peek(self, count: int) -> bytes:
        """The first ``count`` bytes, or fewer if fewer wait; they stay."""
        with memoryview(self.data) as view:  # slicing a bytearray would copy twice
            return bytes(view[self.at : self.at + count])

    def take(self, count: int) -> bytes | None:
        """Consume and return ``count`` bytes; None while fewer wait."""
        if len(self) < count:
            return None
        taken = self.peek(count)
        self.at += count
        return taken

    def compact(self) -> None:
        """Let go of what was consumed. Called when a frame is incomplete: the rest may wait for long."""
        held, at = self.data, self.at
        if not at:
            return
        if at == len(held):
            self.data = b""
        elif type(held) is bytearray:
            del held[:at]
        elif len(held) - at <= SMALL:
            self.data = held[at:]
        else:
            self.data = bytearray(memoryview(held)[at:])
        self.at = 0

    def clear(self) -> int:
        """Drop everything and return how many bytes that were."""
        count = len(self)
        self.data = b""
        self.at = 0
        return count
