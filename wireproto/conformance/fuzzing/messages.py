"""Random messages of any declared class, from a seeded generator: edges come often, bounds and versions hold."""

import enum
import math
import random
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

from wireproto.conformance.edges import EDGES, SPECIAL
from wireproto.schema import Bounds, FieldType, Message, Scalar, fields

__all__ = ["random_bytes", "random_message", "random_text", "random_value"]

M = TypeVar("M", bound=Message)

_INT64: Final = (-(2**63), 2**63 - 1)
_UINT64: Final = (0, 2**64 - 1)

_FLOATS: Final = [0.0, -0.0, 1.0, 1.5, 0.1, 1e16, 1e-5, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]

_FIRST_MOMENT: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST_MOMENT: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_SPAN: Final = (_LAST_MOMENT - _FIRST_MOMENT) // timedelta(microseconds=1)


def random_message(rng: random.Random, message_type: type[M], version: int | None = None, *, most: int = 6) -> M:
    """A message that every codec must carry in that version.

    Args:
        rng: where every choice comes from.
        message_type: the class.
        version: of the service, 1 to 255; fields that came later keep their defaults. None is the newest.
        most: elements of a list or map, and characters of a text, where bounds do not want more.
    """
    values: dict[str, Any] = {}
    for field in fields(message_type, version):
        # Codecs may treat the default in a way of its own: it must come often.
        if field.required or field.type.shape != "single" or rng.random() < 0.7:
            values[field.name] = random_value(rng, field.type, version, most=most)
    return message_type(**values)


def random_value(rng: random.Random, kind: FieldType, version: int | None = None, *, most: int = 6) -> Any:
    """A value of one field type, within its bounds; the arguments are those of `random_message`."""
    if kind.shape == "list":
        inner = min(most, 3)
        return [random_value(rng, kind.element, version, most=inner) for _ in range(_length(rng, kind.size, most))]
    if kind.key is not None:
        wanted = _length(rng, kind.size, most)
        key = FieldType("single", kind.key)
        found: dict[Any, Any] = {}
        while len(found) < wanted:
            found[random_value(rng, key)] = random_value(rng, kind.element, version, most=min(most, 3))
        return found
    if kind.optional and rng.random() < 0.3:
        return None
    return _single(rng, kind, version, most)


def _single(rng: random.Random, kind: FieldType, version: int | None, most: int) -> Any:
    match kind.scalar:
        case Scalar.BOOL:
            return rng.random() < 0.5
        case Scalar.INT:
            return _integer(rng, kind.bounds, *_INT64)
        case Scalar.UINT:
            return _integer(rng, kind.bounds, *_UINT64)
        case Scalar.FLOAT:
            return _real(rng, kind.bounds)
        case Scalar.STR:
            return random_text(rng, _length(rng, kind.bounds, most))
        case Scalar.BYTES:
            return random_bytes(rng, _length(rng, kind.bounds, most))
        case Scalar.DATETIME:
            offset = rng.choice((0, _SPAN, rng.randint(0, _SPAN)))
            return _FIRST_MOMENT + timedelta(microseconds=offset)
        case Scalar.ENUM:
            return rng.choice(list(cast(type[enum.IntEnum], kind.cls)))
        case Scalar.MESSAGE:
            return random_message(rng, cast(type[Message], kind.cls), version, most=min(most, 3))


def random_text(rng: random.Random, length: int) -> str:
    """That many characters: plain ones, special ones, or any scalar value."""
    way = rng.random()
    if way < 0.4:
        return "".join(rng.choices("abcXYZ012", k=length))
    if way < 0.8:
        return "".join(rng.choices(SPECIAL, k=length))
    # Every scalar value, by leaving out the 2048 surrogates.
    points = (rng.randrange(0x110000 - 0x800) for _ in range(length))
    return "".join(chr(point if point < 0xD800 else point + 0x800) for point in points)


def random_bytes(rng: random.Random, length: int) -> bytes:
    """That many bytes, none more likely than another."""
    return rng.randbytes(length)


def _length(rng: random.Random, bounds: Bounds | None, most: int) -> int:
    low = 0 if bounds is None else bounds.min_length or 0
    high = max(low, most)
    if bounds is not None and bounds.max_length is not None:
        high = min(high, bounds.max_length)
    return rng.randint(low, high)


def _integer(rng: random.Random, bounds: Bounds | None, low: int, high: int) -> int:
    if bounds is not None:
        low, high = int(low if bounds.ge is None else bounds.ge), int(high if bounds.le is None else bounds.le)
    if rng.random() < 0.5:
        # Often near zero or near an edge, whatever the width of the range.
        edge = rng.choice((rng.choice(EDGES), low, high, rng.randint(-3, 40)))
        if low <= edge <= high:
            return edge
    return rng.randint(low, high)


def _real(rng: random.Random, bounds: Bounds | None) -> float:
    if bounds is None or (bounds.ge is None and bounds.le is None):
        if rng.random() < 0.5:
            return rng.choice(_FLOATS)
        real: float = struct.unpack(">d", rng.randbytes(8))[0]
        return real
    # A bound may be an int that no float equals: the nearest float inside is the limit then.
    low = -1e308 if bounds.ge is None else float(bounds.ge)
    high = 1e308 if bounds.le is None else float(bounds.le)
    if bounds.ge is not None and low < bounds.ge:
        low = math.nextafter(low, math.inf)
    if bounds.le is not None and high > bounds.le:
        high = math.nextafter(high, -math.inf)
    return min(high, max(low, rng.choice((low, high, low + (high - low) * rng.random()))))
