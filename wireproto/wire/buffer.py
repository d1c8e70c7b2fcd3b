"""The receive buffer: whole frames are read out of it, whatever pieces the bytes came in.

What waits is, by the type of ``data``,

- ``bytes``: while nothing waits, the object handed over is kept as it is and read in place, so that a connection
  whose frames arrive whole copies nothing but payloads;
- ``BytesIO``: the pieces of a frame that is not whole. Once it is, ``join`` makes them ``bytes`` without a copy, so
  that at most two copies exist at once: the frame and its payload. A bytearray would keep its room to grow beside them;
- ``bytearray``: more came before all whole frames were read. Its front is deleted in place, which only moves a pointer:
  as bytes, what waits would be copied for each piece.

Each byte is copied a bounded number of times, however it is cut, and room is made only for what came, whatever length
a frame declares.
"""

from io import BytesIO

__all__ = ["SMALL", "Buffer"]

SMALL = 1024
"""Bytes: a rest up to this long is joined with what comes next; copying it once per piece is cheaper than a gather."""


class Buffer:
    """Bytes received and not yet consumed: ``data[at:]``.

    ``data`` and ``at`` are open to the parser, which reads headers in place and moves ``at`` past a frame. It calls
    ``join`` before, unless ``data`` is ``bytes``.
    """

    __slots__ = ("at", "data")

    def __init__(self) -> None:
        self.data: bytes | bytearray | BytesIO = b""
        self.at = 0  # 0 in a BytesIO

    def __len__(self) -> int:
        data = self.data
        return data.tell() if isinstance(data, BytesIO) else len(data) - self.at

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add what was received; ``data`` is kept as it is when nothing waits."""
        held, at = self.data, self.at
        if isinstance(held, BytesIO):
            held.write(data)
            return
        if type(data) is not bytes:
            data = bytes(data)  # whoever lends a bytearray will write into it again
        rest = len(held) - at
        if not rest:
            self.data = data
        elif isinstance(held, bytearray):
            del held[:at]
            held += data
        elif rest <= SMALL:
            self.data = held[at:] + data if at else held + data
        elif at:
            # Frames were read and the parser has not asked for more: there may be whole ones yet.
            gathered = bytearray(memoryview(held)[at:])
            gathered += data
            self.data = gathered
        else:
            self.data = _gather(held)
            self.data.write(data)
        self.at = 0

    def join(self) -> bytes | bytearray:
        """Return ``data`` in one piece. Not to be called for each that comes: the next begins a gather, with a copy."""
        held = self.data
        if isinstance(held, BytesIO):
            held = self.data = held.getvalue()  # its own buffer, cut to size
        return held

    def peek(self, count: int) -> bytes:
        """The first ``count`` bytes, or fewer if fewer wait; they stay."""
        held = self.data
        # Through a view: slicing a bytearray would copy twice.
        with held.getbuffer() if isinstance(held, BytesIO) else memoryview(held) as view:
            return bytes(view[self.at : self.at + count])

    def take(self, count: int) -> bytes | None:
        """Consume and return ``count`` bytes; None while fewer wait."""
        if len(self) < count:
            return None
        self.join()
        taken = self.peek(count)
        self.at += count
        return taken

    def compact(self) -> None:
        """Let go of what was consumed. Called when a frame is incomplete: the rest may wait for long."""
        held = self.data
        if isinstance(held, BytesIO) or not (self.at or isinstance(held, bytearray)):
            return
        rest = len(self)
        self.data = self.peek(rest) if rest <= SMALL else _gather(memoryview(held)[self.at :])
        self.at = 0

    def clear(self) -> int:
        """Drop everything and return how many bytes that were."""
        count = len(self)
        self.data = b""
        self.at = 0
        return count


def _gather(data: bytes | memoryview) -> BytesIO:
    gathered = BytesIO()  # not BytesIO(data): that would write over it from the start
    gathered.write(data)
    return gathered
