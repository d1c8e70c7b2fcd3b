"""What the judging client and the judging server share: reading frames, holding them to the rules, and the end."""

import time

from wireproto.conformance import wire
from wireproto.conformance.case import Deviation
from wireproto.conformance.raw import Ending, RawPeer, frame
from wireproto.limits import Limits
from wireproto.wire.frame import PREAMBLE, Frame, Kind

__all__ = ["LIMITS", "OF_CALLS", "OF_MESSAGES", "PATIENCE", "Side"]

PATIENCE = 10.0
"""Seconds in which what must happen at once has to happen: on a machine that others use, too."""

LIMITS = Limits(max_frame=16 * 1024 * 1024)
"""For reading what is judged; its own limits are its affair."""

OF_MESSAGES = (Kind.REQUEST, Kind.RESPONSE, Kind.ITEM)
OF_CALLS = (*OF_MESSAGES, Kind.END, Kind.ERROR, Kind.CANCEL, Kind.CREDIT)


class Side:
    """The judge's end of a connection. Subclasses say what holds for the frames of the other end.

    Args:
        peer: its socket.
        who: is judged: "server" or "client".
        patience: seconds in which what must happen at once has to happen.
    """

    def __init__(self, peer: RawPeer, who: str, patience: float) -> None:
        self.peer = peer
        self._who = who
        self._patience = patience
        self._preamble_read = False

    def check(self, found: Frame) -> None:
        """Hold a frame to what every frame of an open connection must be.

        Raises:
            Deviation: it is not.
        """
        raise NotImplementedError

    def send(self, *pieces: bytes) -> None:
        """Send as it is. A peer that is gone is found out by reading."""
        if self.peer.send(*pieces, timeout=self._patience) is Ending.SILENCE:
            raise Deviation(f"the {self._who} reads no further")

    def read(self, timeout: float | None = None) -> Frame:
        """The next frame, held to the rules. PINGs are answered, and not returned."""
        found = self.first(timeout)
        if isinstance(found, Ending):
            raise Deviation(f"a frame was due, and there was {found.value}")
        return found

    def first(self, timeout: float | None = None) -> Frame | Ending:
        """The next frame, or why there is none; see ``read``."""
        timeout = self._patience if timeout is None else timeout
        deadline = time.monotonic() + timeout
        if not self._preamble_read:
            first = self.peer.take(len(PREAMBLE), timeout)
            if isinstance(first, Ending):
                return first
            if first != PREAMBLE:
                raise Deviation(f"the {self._who}'s first bytes are {first.hex(' ')}, not its preamble")
            self._preamble_read = True
        while True:
            found = self.peer.receive(max(deadline - time.monotonic(), 0.001))
            if isinstance(found, Ending):
                return found
            self.check(found)
            if found.kind != Kind.PING:
                return found
            self.send(frame(Kind.PONG, found.payload))

    def expect(self, kind: int, call_id: int = 0, timeout: float | None = None) -> Frame:
        """The next frame, which must be that one."""
        found = self.read(timeout)
        if (found.kind, found.call_id) != (kind, call_id):
            due = f"{Kind(kind).name} of call {call_id}" if call_id else Kind(kind).name
            raise Deviation(f"{due} was due, and {wire.shown(found)} came")
        return found

    def greeting(self, kind: Kind) -> bytes:
        """The next frame must be a HELLO or WELCOME: its body."""
        found = self.expect(kind)
        _bare(found, kind.name)
        return found.payload

    def ping(self, data: bytes = b"conforms") -> None:
        """PING must be answered by PONG, next."""
        self.send(frame(Kind.PING, data))
        found = self.expect(Kind.PONG)
        if found.payload != data:
            raise Deviation(f"PONG has {found.payload.hex(' ')}; PING had {data.hex(' ')}")

    def judge_end(self, found: Frame, reason: str) -> wire.ErrorBody:
        """A final ERROR must have ``reason``, and the connection must end in order behind it."""
        _bare(found, "a final ERROR")
        error = wire.read_error(found.payload)
        if error.reason != reason:
            raise Deviation(
                f"the final ERROR has {error.reason or 'no reason'}, and {reason} was due; it says {error.message!r}"
            )
        status = wire.END_REASONS.get(reason, wire.INVALID_ARGUMENT)
        if error.status != status:
            raise Deviation(f"{reason} has status {error.status}; it must be {status}")
        self.closes(f"the final ERROR with {reason}")
        return error

    def closes(self, after: str) -> None:
        """Nothing more may come, and the connection must be closed in order."""
        found = self.first()
        if isinstance(found, Frame):
            raise Deviation(f"after {after} came {wire.shown(found)}")
        if self.peer.received:
            raise Deviation(f"after {after} came a part of a frame: {bytes(self.peer.received[:16]).hex(' ')}")
        if found is not Ending.EOF:
            raise Deviation(f"after {after} there was {found.value} and not an end of input")


def _bare(found: Frame, what: str) -> None:
    if (found.flags, found.codec, found.version, found.opcode, found.call_id, found.metadata) != (0, 0, 0, 0, 0, b""):
        raise Deviation(f"the header of {what} has more than its length and kind: {found[:6]}")
