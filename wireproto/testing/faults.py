"""Faults of a network, each as a rule that turns the pieces of one direction of a connection into others.

No socket and no clock: a piece says when it is due. What a fault does to bytes depends on their place in the stream and
on the seed, never on how they happened to arrive; so a test that fails can be had again.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

__all__ = ["Bandwidth", "Cut", "Fault", "Flip", "Latency", "Piece", "Reset", "Slicer", "FaultStage", "Stall"]

_TICKS = 50
"""Pieces a second that a narrow line hands on, so that its bytes come steadily and not in one lump."""


class Piece(NamedTuple):
    """What is to be written, and when.

    Attributes:
        due: point in time, seconds.
        data: bytes; empty for what only ends something.
        end: "" for none; "eof" when the sender has ended its output; "cut" and "reset" to end the connection so.
        fault: what was done: the fault's name, and words for people; "" when that is nothing to speak of.
    """

    due: float
    data: bytes = b""
    end: str = ""
    fault: str = ""


class FaultStage:
    """A fault at work in one direction of one connection. Pieces come and go in order."""

    def begin(self, now: float) -> Iterator[Piece]:
        """What happens before the first byte."""
        return iter(())

    def feed(self, piece: Piece) -> Iterator[Piece]:
        """What becomes of a piece."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A rule. Its subclasses have what it does as further fields.

    Attributes:
        skip: connections that are left alone before the first that it applies to.
        count: connections that it applies to then; None for all.

    Raises:
        ValueError: a number is out of its range.
    """

    name: ClassVar[str]

    skip: int = 0
    count: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 0:
                raise ValueError(f"{type(self).__name__}.{field.name} is {value!r}; give 0 or more")

    def applies_to(self, connection: int) -> bool:
        """Whether it touches the connection of that number; the first one is 1."""
        past = connection - 1 - self.skip
        return past >= 0 and (self.count is None or past < self.count)

    def stage(self, chance: random.Random) -> FaultStage:
        """The fault at work. ``chance`` is the connection's, the direction's and the fault's own."""
        raise NotImplementedError


@dataclass(frozen=True)
class Latency(Fault):
    """Every piece comes later.

    Attributes:
        seconds: by how much.
        jitter: at most so much more or less, drawn for each piece; order is kept.
    """

    name = "latency"

    seconds: float
    jitter: float = 0.0

    def stage(self, chance: random.Random) -> FaultStage:
        return _Latency(self, chance)


class _Latency(FaultStage):
    def __init__(self, fault: Latency, chance: random.Random) -> None:
        self._fault = fault
        self._chance = chance
        self._last = -math.inf

    def feed(self, piece: Piece) -> Iterator[Piece]:
        fault = self._fault
        late = fault.seconds + (self._chance.uniform(-fault.jitter, fault.jitter) if fault.jitter else 0.0)
        self._last = max(self._last, piece.due + max(0.0, late))
        yield piece._replace(due=self._last)


@dataclass(frozen=True)
class Bandwidth(Fault):
    """A narrow line.

    Attributes:
        rate: bytes a second, above 0.
    """

    name = "bandwidth"

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0:
            raise ValueError(f"Bandwidth.rate is {self.rate!r}; give bytes a second, above 0")

    def stage(self, chance: random.Random) -> FaultStage:
        return _Bandwidth(self)


class _Bandwidth(FaultStage):
    def __init__(self, fault: Bandwidth) -> None:
        self._rate = fault.rate
        self._most = max(1, int(fault.rate / _TICKS))
        self._free = -math.inf  # when the line has taken all that came before

    def feed(self, piece: Piece) -> Iterator[Piece]:
        for at in range(0, len(piece.data), self._most):
            part = piece.data[at : at + self._most]
            self._free = max(self._free, piece.due) + len(part) / self._rate
            yield Piece(self._free, part, fault=piece.fault if at == 0 else "")
        if not piece.data or piece.end:
            yield piece._replace(due=max(self._free, piece.due), data=b"", fault="" if piece.data else piece.fault)


@dataclass(frozen=True)
class Slicer(Fault):
    """Bytes come in small pieces.

    Attributes:
        size: bytes of each, at least 1.
        variation: at most so many more or less, drawn for each piece.
        delay: seconds between two of them. With 0 the receiving system may join what it has not handed out yet.
    """

    name = "slicer"

    size: int
    variation: int = 0
    delay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size - self.variation < 1:
            raise ValueError(f"Slicer.size is {self.size} and variation {self.variation}; pieces have at least 1 byte")

    def stage(self, chance: random.Random) -> FaultStage:
        return _Slicer(self, chance)


class _Slicer(FaultStage):
    def __init__(self, fault: Slicer, chance: random.Random) -> None:
        self._fault = fault
        self._chance = chance
        self._left = self._draw()  # of the slice that was begun
        self._next = -math.inf

    def _draw(self) -> int:
        size, variation = self._fault.size, self._fault.variation
        return self._chance.randint(size - variation, size + variation) if variation else size

    def feed(self, piece: Piece) -> Iterator[Piece]:
        data = piece.data
        at = 0
        while at < len(data):
            part = data[at : at + self._left]
            due = max(piece.due, self._next)
            yield Piece(due, part, fault=piece.fault if at == 0 else "")
            at += len(part)
            self._left -= len(part)
            if not self._left:
                self._left = self._draw()
                self._next = due + self._fault.delay
        if not data or piece.end:
            yield piece._replace(due=max(piece.due, self._next), data=b"", fault="" if data else piece.fault)


@dataclass(frozen=True)
class Cut(Fault):
    """The connection ends, in both directions, behind a number of bytes: an end of input, wherever that falls.

    Attributes:
        at: bytes that still pass in the direction the fault is put in; 0 ends it before the first.
    """

    name = "cut"

    at: int

    def stage(self, chance: random.Random) -> FaultStage:
        return _Ending(self.at, "cut")


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset, in both directions, behind a number of bytes.

    ``Reset(0, skip=3)`` resets every connection after the third as soon as it is there.

    Attributes:
        at: as for `Cut`.
    """

    name = "reset"

    at: int = 0

    def stage(self, chance: random.Random) -> FaultStage:
        return _Ending(self.at, "reset")


class _Ending(FaultStage):
    def __init__(self, at: int, how: str) -> None:
        self._at = at
        self._left = at
        self._how = how
        self._over = False

    def begin(self, now: float) -> Iterator[Piece]:
        if not self._left:
            yield self._end(now)

    def feed(self, piece: Piece) -> Iterator[Piece]:
        if self._over:
            return
        if len(piece.data) < self._left or not piece.data:
            self._left -= len(piece.data)
            yield piece
            return
        yield piece._replace(data=piece.data[: self._left], end="")
        yield self._end(piece.due)

    def _end(self, due: float) -> Piece:
        self._over = True
        return Piece(due, end=self._how, fault=f"{self._how} at byte {self._at}")


@dataclass(frozen=True)
class Flip(Fault):
    """One bit comes wrong.

    Attributes:
        bit: which, counted from 0, the highest of each byte first.
    """

    name = "flip"

    bit: int

    def stage(self, chance: random.Random) -> FaultStage:
        return _Flip(self.bit)


class _Flip(FaultStage):
    def __init__(self, bit: int) -> None:
        self._bit = bit
        self._left, self._mask = bit // 8, 0x80 >> bit % 8

    def feed(self, piece: Piece) -> Iterator[Piece]:
        if 0 <= self._left < len(piece.data):
            data = bytearray(piece.data)
            data[self._left] ^= self._mask
            piece = piece._replace(data=bytes(data), fault=f"flip of bit {self._bit}")
        self._left -= len(piece.data)
        yield piece


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing passes for a while, and then all of it; the connection stays.

    Attributes:
        at: bytes that pass before; 0 for none.
        seconds: how long, from the byte that has to wait; ``math.inf`` until the connection is closed.
    """

    name = "stall"

    at: int = 0
    seconds: float = math.inf

    def stage(self, chance: random.Random) -> FaultStage:
        return _Stall(self)


class _Stall(FaultStage):
    def __init__(self, fault: Stall) -> None:
        self._fault = fault
        self._left = fault.at
        self._until = -math.inf
        self._begun = False

    def feed(self, piece: Piece) -> Iterator[Piece]:
        passing = piece.data[: self._left] if not self._begun else b""
        waiting = piece.data[len(passing) :]
        self._left -= len(passing)
        if passing and (waiting or not piece.end):
            yield piece._replace(data=passing, end="")
            if not waiting:
                return
            piece = piece._replace(data=waiting, fault="")
        if not self._begun and not self._left:
            self._begun = True
            self._until = piece.due + self._fault.seconds
            long = "without end" if self._until == math.inf else f"of {self._fault.seconds:g} s"
            # Told when it begins, not when it is over.
            yield Piece(piece.due, fault=f"stall {long} at byte {self._fault.at}")
        yield piece._replace(due=max(piece.due, self._until))
