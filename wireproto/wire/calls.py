"""The calls that one side of a connection begins: their ids, their states, their credit, and what may cross their end.

The states of a call are one table; every frame of a call is looked up in it, whoever sent it. A unary call that nobody
has cancelled needs no more than its opcode, so that only other calls have ``Halves``. Rules: ``docs/wire.md``.
"""

import enum
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple

from wireproto.wire.frame import NO_CREDIT, Credit, Flag, Kind
from wireproto.wire.state import Direction

__all__ = [
    "CIRCLE",
    "MAX_CROSSED",
    "REFILL",
    "STATES_OF_A_CALL",
    "CallPart",
    "CallState",
    "CallStep",
    "CallTable",
    "Calls",
    "Halves",
    "call_step",
]

CIRCLE = 1 << 31
"""The number of a call is 1 to ``CIRCLE`` - 1, after which comes 1 again; the top bit of an id is no part of it."""

MAX_CROSSED = 1_000
"""What the bucket of END, CREDIT and CANCEL that have crossed the end of their call holds."""

REFILL = 8
"""... and by how many each call that ends refills it. An honest peer leaves five at most behind the end of one call:
END, CANCEL, and three CREDITs, if it returns credit when half of the window is owed."""


class CallPart(enum.Enum):
    """What a side is to a call."""

    BEGAN = "B"
    ANSWERS = "A"

    def __init__(self, letter: str) -> None:
        self.row = 0 if letter == "B" else 1
        """Its place in a table of both."""


class CallState(enum.Enum):
    """How far a call has come, as one side sees it. A call before its REQUEST and one that is over have no entry."""

    BOTH_OPEN = "both open"
    """ITEMs of the request half may still be sent or received."""
    ANSWERING = "answering"
    """The request half is complete."""
    CANCELLED = "cancelled"
    """CANCEL was sent or received; the terminal frame is still to come."""
    OVER = "over"
    """The terminal frame was sent or received."""

    def __init__(self, text: str) -> None:
        self.column = ("both open", "answering", "cancelled", "over").index(text)
        """Its place in a table of all."""


class CallStep(NamedTuple):
    """That a frame may be sent or received.

    Attributes:
        then: the state that follows; None for the same one.
        only: a flag that the call's REQUEST must have had.
        never: a flag that it must not have had.

    Both are plain numbers, as the flags of a call are: an operation on members of an enumeration costs as much as all
    the rest of an ITEM.
    """

    then: CallState | None = None
    only: int = 0
    never: int = 0


CallTable = Mapping[tuple[CallPart, CallState, Direction], Mapping[int, CallStep]]
"""(what we are to the call, its state, direction) -> kind -> step."""

_STAYS = CallStep()
_IF_ITEMS_FOLLOW = CallStep(only=int(Flag.ITEMS_FOLLOW))
_IF_ITEMS_COME_BACK = CallStep(only=int(Flag.ITEMS_COME_BACK))
_TERMINAL: Final[dict[int, CallStep]] = {
    Kind.RESPONSE: CallStep(CallState.OVER, never=int(Flag.ITEMS_COME_BACK)),
    Kind.END: CallStep(CallState.OVER, only=int(Flag.ITEMS_COME_BACK)),
    Kind.ERROR: CallStep(CallState.OVER),
}

STATES_OF_A_CALL: Final[CallTable] = MappingProxyType(
    {
        (CallPart.BEGAN, CallState.BOTH_OPEN, Direction.SEND): {
            Kind.ITEM: _STAYS,
            Kind.END: CallStep(CallState.ANSWERING),
            Kind.CREDIT: _IF_ITEMS_COME_BACK,
            Kind.CANCEL: CallStep(CallState.CANCELLED),
        },
        (CallPart.BEGAN, CallState.BOTH_OPEN, Direction.RECEIVE): {
            Kind.CREDIT: _STAYS,
            Kind.ITEM: _IF_ITEMS_COME_BACK,
            **_TERMINAL,
        },
        (CallPart.BEGAN, CallState.ANSWERING, Direction.SEND): {
            Kind.CREDIT: _IF_ITEMS_COME_BACK,
            Kind.CANCEL: CallStep(CallState.CANCELLED),
        },
        (CallPart.BEGAN, CallState.ANSWERING, Direction.RECEIVE): {
            Kind.ITEM: _IF_ITEMS_COME_BACK,
            Kind.CREDIT: _IF_ITEMS_FOLLOW,  # it crossed END
            **_TERMINAL,
        },
        (CallPart.BEGAN, CallState.CANCELLED, Direction.RECEIVE): {
            Kind.ITEM: _IF_ITEMS_COME_BACK,
            Kind.CREDIT: _IF_ITEMS_FOLLOW,
            **_TERMINAL,
        },
        (CallPart.ANSWERS, CallState.BOTH_OPEN, Direction.SEND): {
            Kind.CREDIT: _STAYS,
            Kind.ITEM: _IF_ITEMS_COME_BACK,
            **_TERMINAL,
        },
        (CallPart.ANSWERS, CallState.BOTH_OPEN, Direction.RECEIVE): {
            Kind.ITEM: _STAYS,
            Kind.END: CallStep(CallState.ANSWERING),
            Kind.CREDIT: _IF_ITEMS_COME_BACK,
            Kind.CANCEL: CallStep(CallState.CANCELLED),
        },
        (CallPart.ANSWERS, CallState.ANSWERING, Direction.SEND): {Kind.ITEM: _IF_ITEMS_COME_BACK, **_TERMINAL},
        (CallPart.ANSWERS, CallState.ANSWERING, Direction.RECEIVE): {
            Kind.CREDIT: _IF_ITEMS_COME_BACK,
            Kind.CANCEL: CallStep(CallState.CANCELLED),
        },
        (CallPart.ANSWERS, CallState.CANCELLED, Direction.SEND): _TERMINAL,
    }
)
"""What may be sent and received of a call. What is not here is not sent; received it is WRONG_HALF."""


def _as_rows(direction: Direction) -> tuple[tuple[Mapping[int, CallStep], ...], ...]:
    """The table for one direction, by places: to look up a member of an enumeration takes a Python function to hash it,
    and a call's flow of items begins with four such look-ups.
    """
    return tuple(tuple(STATES_OF_A_CALL.get((part, state, direction), {}) for state in CallState) for part in CallPart)


_RECEIVE = Direction.RECEIVE  # on CPython 3.11 a member looked up on its class costs 50 ns
_SENT, _RECEIVED = _as_rows(Direction.SEND), _as_rows(_RECEIVE)


def call_step(part: CallPart, state: CallState, direction: Direction, kind: int, flags: int) -> CallStep | None:
    """What the table says of a frame of a call whose REQUEST had these flags; None when it is not allowed."""
    step = (_RECEIVED if direction is _RECEIVE else _SENT)[part.row][state.column].get(kind)
    if step is None or step.only & ~flags or step.never & flags:
        return None
    return step


class Halves:
    """The two halves of one call in flight: whether each goes on, and its credit.

    Attributes:
        part: what we are to the call.
        flags: of its REQUEST.
        state: how far it has come.
        era: how often the numbers of its side had begun anew when it began.
        sends_items: whether the table lets us send an ITEM.
        takes_items: whether it lets an ITEM come that somebody wants: none does of a call that was cancelled.
        items_to_send, bytes_to_send: credit of the half that we send.
        items_to_come, bytes_to_come: credit of the half that the peer sends.
        metadata: the block that what ends the call carries, if we answer it.
    """

    __slots__ = (
        "bytes_to_come",
        "bytes_to_send",
        "era",
        "flags",
        "items_to_come",
        "items_to_send",
        "metadata",
        "part",
        "sends_items",
        "state",
        "takes_items",
    )

    def __init__(
        self, part: CallPart, flags: int, era: int, to_send: Credit = NO_CREDIT, to_come: Credit = NO_CREDIT
    ) -> None:
        self.part = part
        self.flags = int(flags)  # an operation on an enumeration's member costs thousands of instructions
        self.era = era
        self.items_to_send, self.bytes_to_send = to_send
        self.items_to_come, self.bytes_to_come = to_come
        self.metadata = b""
        self.enter(CallState.BOTH_OPEN if flags & Flag.ITEMS_FOLLOW else CallState.ANSWERING)

    def step(self, direction: Direction, kind: int) -> CallStep | None:
        """What the table says of a frame now; None when it is not allowed."""
        return call_step(self.part, self.state, direction, kind, self.flags)

    def enter(self, state: CallState) -> None:
        """Be in that state from now on."""
        self.state = state
        self.sends_items = self.step(Direction.SEND, Kind.ITEM) is not None
        self.takes_items = state is not CallState.CANCELLED and self.step(Direction.RECEIVE, Kind.ITEM) is not None


class Crossing:
    """What may still come of calls that are over, because it has crossed their end on the wire.

    Args:
        most: what the bucket of END, CREDIT and CANCEL holds.
    """

    __slots__ = ("_bucket", "_bytes", "_ended", "_items", "_most")

    def __init__(self, most: int) -> None:
        self._items = 0
        self._bytes = 0
        self._most = most
        self._bucket = most
        self._ended = 0

    def let_items(self, items: int, size: int, overrun: int) -> None:
        """A call is over before its END or CANCEL was read: what its caller may have sent by then will be dropped.

        Args:
            items: left of the credit of its request half.
            size: bytes left of it.
            overrun: bytes by which one ITEM may go over them.
        """
        self._items += items
        if items > 0 and size > 0:
            self._bytes += size + overrun

    def item(self, size: int) -> bool:
        """An ITEM came to a call that is over; False when it cannot have crossed the end of one."""
        self._items -= 1
        self._bytes -= size
        return self._items >= 0 and self._bytes >= 0

    def frame(self, ended: int) -> bool:
        """An END, CREDIT or CANCEL came to a call that is over; False when there were too many.

        Args:
            ended: calls that have ended in the life of the connection.
        """
        # The bucket is refilled here, by all the calls that have ended since the last time: so they cost nothing.
        self._bucket = min(self._most, self._bucket + REFILL * (ended - self._ended)) - 1
        self._ended = ended
        return self._bucket >= 0


_NO_HALVES: Final[dict[int, Halves]] = {}
"""What all ``Calls`` have until one of them has a call that is not plain: most connections never do."""


@cache
def _bounds(top_bit: int, circle: int) -> tuple[int, int]:
    """The id behind the last one, and the first one that is too far ahead: the same objects for all connections."""
    return top_bit + circle, top_bit + circle // 2


class Calls:
    """The calls that one of the two sides begins, as either of them sees them.

    Args:
        part: what we are to them.
        top_bit: set in their ids: ``TOP_BIT`` if the server begins them, else 0.
        circle: how many numbers there are, 0 among them; ``CIRCLE`` but in tests.
        most_crossed: what the bucket holds; ``MAX_CROSSED`` but in tests.

    Attributes:
        top_bit: as given.
        opcodes: call id -> opcode, of those in flight.
        halves: call id -> state, of those in flight that are not plain: with flags, cancelled, or older than the time
            when the numbers last began anew.
        last: the id of the latest REQUEST; ``top_bit`` alone before the first.
        stop: ids from here on are not these calls'.
        ahead: a REQUEST's id is in order if it is above ``last`` and below this. Ids further on may be, see ``takes``.
        begun: how many REQUESTs ``begin`` was told of.
        max_calls: how many the side that answers accepts in flight.
        first: the credit that each request half begins with.
        one_way: how many one-way calls may still be begun.
    """

    __slots__ = (
        "_circle",
        "_crossing",
        "_era",
        "_most_crossed",
        "_part",
        "ahead",
        "begun",
        "first",
        "halves",
        "last",
        "max_calls",
        "one_way",
        "opcodes",
        "stop",
        "top_bit",
    )

    def __init__(self, part: CallPart, top_bit: int, circle: int = CIRCLE, most_crossed: int = MAX_CROSSED) -> None:
        self._part = part
        self.opcodes: dict[int, int] = {}
        self.halves = _NO_HALVES
        self.last = top_bit
        self.stop, self.ahead = _bounds(top_bit, circle)
        self.begun = 0
        self.max_calls = 0
        self.first = NO_CREDIT
        self.one_way = 0
        self.top_bit = top_bit
        self._circle = circle
        self._era = 0
        self._most_crossed = most_crossed
        self._crossing: Crossing | None = None  # until something crosses: an idle connection is to be small

    # Ids.

    def takes(self, call_id: int) -> bool:
        """Whether a REQUEST may have this id: it lies ahead of the last one, by less than half the circle."""
        if not self.top_bit < call_id < self.stop:
            return False
        return 0 < (call_id - self.last) % self._circle < self._circle // 2

    def begin(self, call_id: int) -> None:
        """A REQUEST has this id, which ``takes`` allowed."""
        if call_id < self.last:
            self._begin_anew()
        self.begun += 1
        self.last = call_id
        self.ahead = min(call_id + self._circle // 2, self.stop)

    def next_id(self) -> int:
        """The id of the next REQUEST: the first one ahead that is not in flight; 0 when there is none."""
        call_id = self.last
        while True:
            call_id += 1
            if call_id >= self.stop:
                call_id = self.top_bit + 1
            if not self.takes(call_id):
                return 0
            if call_id not in self.opcodes:
                return call_id

    def _begin_anew(self) -> None:
        """Remember which calls are older than the numbers that begin again: they may be very old."""
        for call_id in self.opcodes:
            if call_id not in self.halves:
                self.keep(call_id, self.state_of(call_id))
        self._era += 1

    def lies_behind(self, call_id: int, last: int) -> bool:
        """Whether a call in flight began after the one that GOAWAY named, or after none if ``last`` is 0.

        Told by the order in which they began, which the numbers alone do not say: a stream may be older than they are.
        """
        named = last & (self._circle - 1)
        named_era = self._era if named <= self.last - self.top_bit else self._era - 1
        halves = self.halves.get(call_id)
        return (self._era if halves is None else halves.era, call_id - self.top_bit) > (named_era, named)

    def accepted(self, max_calls: int, first: Credit, one_way: int) -> None:
        """What the side that answers has said in the handshake."""
        self.max_calls = max_calls
        self.first = first
        self.one_way = one_way

    def welcome(self) -> None:
        """Calls that began before the handshake was answered have their first credit now."""
        for halves in self.halves.values():
            if halves.flags & Flag.ITEMS_FOLLOW:
                halves.items_to_send, halves.bytes_to_send = self.first

    def lose(self) -> None:
        """All calls are over without a terminal frame."""
        self.opcodes.clear()
        self.halves.clear()

    def open(self, call_id: int, opcode: int, flags: int, to_send: Credit, to_come: Credit) -> None:
        """A call with flags is in flight."""
        self.opcodes[call_id] = opcode
        self.keep(call_id, Halves(self._part, flags, self._era, to_send, to_come))

    def state_of(self, call_id: int) -> Halves:
        """The state of a call in flight; that of a plain one is kept only once it is in ``halves``."""
        return self.halves.get(call_id) or Halves(self._part, Flag.NONE, self._era)

    def keep(self, call_id: int, halves: Halves) -> None:
        """A call in flight is plain no more."""
        if self.halves is _NO_HALVES:
            self.halves = {}
        self.halves[call_id] = halves

    # The end of calls, and what crosses it.

    def forget(self, call_id: int) -> None:
        """A call is over."""
        del self.opcodes[call_id]
        self.halves.pop(call_id, None)

    def let_cross(self, items: int, size: int, max_frame: int) -> None:
        """A call is over before its END or CANCEL was read; see ``Crossing.let_items``."""
        self._crosses().let_items(items, size, max_frame)

    def item_crosses(self, size: int) -> bool:
        """An ITEM came to a call that is over; see ``Crossing.item``."""
        return self._crosses().item(size)

    def frame_crosses(self, begun: int) -> bool:
        """An END, CREDIT or CANCEL came to a call that is over; see ``Crossing.frame``.

        Args:
            begun: REQUESTs that were received in the life of the connection.
        """
        return self._crosses().frame(begun - len(self.opcodes))

    def _crosses(self) -> Crossing:
        if self._crossing is None:
            self._crossing = Crossing(self._most_crossed)
        return self._crossing
