"""What the sides of the model send each other, and the ways in which a side ends a connection."""

import enum
from typing import ClassVar, Final, NamedTuple

from wireproto.wire.frame import Flag, Kind
from wireproto.wire.state import END_OF_INPUT, FINAL


class CallShape(enum.Enum):
    """The five shapes of a call, each the flags of its REQUEST."""

    UNARY = Flag.NONE
    STREAM = Flag.ITEMS_COME_BACK
    UPLOAD = Flag.ITEMS_FOLLOW
    DUPLEX = Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK
    ONE_WAY = Flag.ONE_WAY


class Amount(NamedTuple):
    """Credit as a frame carries it."""

    items: int = 0
    bytes: int = 0


NO_CREDIT: Final = Amount()


class ModelFrame(NamedTuple):
    """One frame.

    Attributes:
        kind: a ``Kind``, ``FINAL`` for an ERROR that ends the connection, ``END_OF_INPUT`` for the end of the output.
        call_id: with the top bit; 0 for a frame about the connection.
        flags: of a REQUEST.
        number: the payload of a REQUEST or an ITEM: no other one of the run has it.
        size: bytes of an ITEM's payload.
        credit: of a CREDIT, and of the answer half in a REQUEST.
        reason: of an ERROR. A REQUEST that is to be refused carries the reason of its refusal in the place of whatever
            would be wrong with it.
        last: the last call that a GOAWAY names.
    """

    kind: int
    call_id: int = 0
    flags: Flag = Flag.NONE
    number: int = 0
    size: int = 0
    credit: Amount = NO_CREDIT
    reason: str = ""
    last: int = 0

    def __repr__(self) -> str:
        """The name of the kind, and whatever differs from its default."""
        name = {FINAL: "final ERROR", END_OF_INPUT: "end of input"}.get(self.kind) or Kind(self.kind).name
        fields = [f"{key}={value!r}" for key, value in self._asdict().items() if value != self._field_defaults.get(key)]
        return f"{name}({', '.join(fields[1:])})"


class ConnectionEnds(Exception):
    """A side ends the connection for what it received. Two sides that keep the rules never meet it."""

    reason: ClassVar[str]


class WrongCallId(ConnectionEnds):
    """A REQUEST names a call that is not ahead of the last one, is in flight, or is not its sender's to begin."""

    reason = "CALL_ID"


class WrongHalf(ConnectionEnds):
    """The state of the call has no place for the frame."""

    reason = "WRONG_HALF"


class CreditExceeded(ConnectionEnds):
    """An ITEM or a one-way REQUEST came without credit, or more ITEMs crossed the end of calls than could have."""

    reason = "CREDIT_EXCEEDED"


class CreditOverflow(ConnectionEnds):
    """Credit grew past what its field holds."""

    reason = "CREDIT_OVERFLOW"


class TooManyFrames(ConnectionEnds):
    """More END, CREDIT and CANCEL came of calls that are over than the bucket holds."""

    reason = "TOO_MANY_FRAMES"


class StrayAnswers(ConnectionEnds):
    """Answers came to calls that are not in flight."""

    reason = "STRAY_ANSWERS"
