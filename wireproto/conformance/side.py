"""What the judging client and the judging server share: reading frames, holding them to the rules, and the end."""

import time

from wireproto.conformance import page
from wireproto.conformance.case import Deviation
from wireproto.conformance.raw import Ending, RawPeer
from wireproto.limits import Limits

__all__ = ["LIMITS", "PATIENCE", "Side"]

PATIENCE = 10.0
"""Seconds in which what must happen at once has to happen: on a machine that others use, too."""

LONGEST = 120.0
"""Seconds that a connection of one case may take: a peer that sends for ever would never be through otherwise."""

LIMITS = Limits(max_frame=16 * 1024 * 1024)
"""For reading what is judged; its own limits are its affair."""


class Side:
    """The judge's end of a connection. Subclasses say what holds for the frames of the other end.

    Args:
        peer: its socket.
        who: is judged: "server" or "client".
        patience: seconds in which what must happen at once has to happen.

    Attributes:
        packing: the algorithm that was agreed on; 0 for none.
        max_frame: what this side has said of itself.
        packed: kinds of the frames that came packed.
    """

    packing = 0
    max_frame = 1024 * 1024

    def __init__(self, peer: RawPeer, who: str, patience: float) -> None:
        self.packed: list[int] = []
        self.peer = peer
        self._who = who
        self._patience = patience
        self._latest = time.monotonic() + LONGEST
        self._preamble_read = False

    def check(self, found: page.RawFrame) -> None:
        """Hold a frame to what every frame of an open connection must be.

        Raises:
            Deviation: it is not.
        """
        raise NotImplementedError

    def send(self, *pieces: bytes) -> None:
        """Send as it is. A peer that is gone is found out by reading."""
        if self.peer.send(*pieces, timeout=self._patience) is Ending.SILENCE:
            raise Deviation(f"the {self._who} reads no further")

    def read(self, timeout: float | None = None) -> page.RawFrame:
        """The next frame, held to the rules. PINGs are answered, and not returned."""
        found = self.first(timeout)
        if isinstance(found, Ending):
            raise Deviation(f"a frame was due, and there was {found.value}")
        return found

    def first(self, timeout: float | None = None) -> page.RawFrame | Ending:
        """The next frame, or why there is none; see ``read``. A peer that sends nothing but PINGs is silent."""
        timeout = self._patience if timeout is None else timeout
        deadline = time.monotonic() + timeout
        if time.monotonic() > self._latest:
            raise Deviation(f"the {self._who} went on sending for {LONGEST:g} s")
        if not self._preamble_read:
            first = self.peer.take(len(page.PREAMBLE), timeout)
            if isinstance(first, Ending):
                return first
            if first != page.PREAMBLE:
                raise Deviation(f"the {self._who}'s first bytes are {first.hex(' ')}, not its preamble")
            self._preamble_read = True
        while True:
            found = self.peer.receive(max(deadline - time.monotonic(), 0.001))
            if isinstance(found, Ending):
                return found
            found = self._unpacked(found)
            self.check(found)
            if found.kind != page.PING:
                return found
            self.send(page.frame(page.PONG, found.payload))
            if time.monotonic() > deadline:
                return Ending.SILENCE

    def _unpacked(self, found: page.RawFrame) -> page.RawFrame:
        """A frame as if it had travelled unpacked: that is what all other rules are about."""
        if not (self.packing and found.flags & page.PACKED and found.kind in page.OF_MESSAGES):
            return found
        payload = page.read_packed(found.payload)
        length = page.AFTER_LENGTH + len(found.metadata) + len(payload)
        if length > self.max_frame:
            raise Deviation(f"{page.shown(found)} stands for a frame of {length} bytes; {self.max_frame} are accepted")
        self.packed.append(found.kind)
        return found._replace(flags=found.flags & ~page.PACKED, payload=payload)

    def expect(self, kind: int, call_id: int = 0, timeout: float | None = None) -> page.RawFrame:
        """The next frame, which must be that one."""
        found = self.read(timeout)
        if (found.kind, found.call_id) != (kind, call_id):
            due = page.KIND_NAMES[kind] + (f" of call {call_id}" if call_id else "")
            raise Deviation(f"{due} was due, and {page.shown(found)} came")
        return found

    def greeting(self, kind: int) -> bytes:
        """The next frame must be a HELLO or WELCOME: its body."""
        found = self.expect(kind)
        _bare(found, page.KIND_NAMES[kind])
        return found.payload

    def ping(self, data: bytes = b"conforms") -> None:
        """PING must be answered by PONG, next."""
        self.send(page.frame(page.PING, data))
        found = self.expect(page.PONG)
        if found.payload != data:
            raise Deviation(f"PONG has {found.payload.hex(' ')}; PING had {data.hex(' ')}")

    def judge_end(self, found: page.RawFrame, reason: str) -> page.ErrorBody:
        """A final ERROR must have ``reason``, and the connection must end in order behind it."""
        _bare(found, "a final ERROR")
        error = page.read_error(found.payload)
        if error.details is not None:
            raise Deviation("the final ERROR has details, which errors of calls alone have")
        if error.reason != reason:
            raise Deviation(
                f"the final ERROR has {error.reason or 'no reason'}, and {reason} was due; it says {error.message!r}"
            )
        status = page.FINAL_REASONS[reason]
        if error.status != status:
            raise Deviation(f"{reason} has status {error.status}; it must be {status}")
        self.closes(f"the final ERROR with {reason}")
        return error

    def closes(self, after: str) -> None:
        """Nothing more may come, and the connection must be closed in order."""
        found = self.first()
        if isinstance(found, page.RawFrame):
            raise Deviation(f"after {after} came {page.shown(found)}")
        if self.peer.received:
            raise Deviation(f"after {after} came a part of a frame: {bytes(self.peer.received[:16]).hex(' ')}")
        if found is not Ending.EOF:
            raise Deviation(f"after {after} there was {found.value} and not an end of input")


def _bare(found: page.RawFrame, what: str) -> None:
    if (found.flags, found.codec, found.version, found.opcode, found.call_id, found.metadata) != (0, 0, 0, 0, 0, b""):
        raise Deviation(f"the header of {what} has more than its length and kind: {found[:6]}")
