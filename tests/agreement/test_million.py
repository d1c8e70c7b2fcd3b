"""A million messages from codec to codec: the same message always, and the same bytes when it is back.

Hypothesis looks for the strange; this looks for the rare, with a generator that costs microseconds.
"""

import random
import struct
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tests.codecs.everything import EVERYTHING, GROWING
from tests.lending import LENDING
from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.limits import Limits
from wireproto.schema import Bounds, FieldType, Message, Scalar, Service, fields
from wireproto.testing.differential import expected, meaning, verdict
from wireproto.testing.foreign import WRITERS, loose
from wireproto.testing.spoilt import spoil

RING = ("pipe", "msgpack", "protobuf")
TEXTS = (
    "",
    "a",
    "|",
    "\\",
    "\\p",
    "a,b",
    "{k:v}",
    "[\\e]",
    "\n\r",
    "é",
    "😀",
    "\0",
    "\x7f",
    "\u2028",
    "\\N",
    "nan",
    "x" * 300,
)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
MICROSECONDS = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - FIRST) // timedelta(microseconds=1)


def length(rng: random.Random, bounds: Bounds | None, usual: int) -> int:
    low, high = (0, None) if bounds is None else (bounds.min_length or 0, bounds.max_length)
    return rng.randint(low, max(low, usual) if high is None else min(high, max(low, usual)))


def integer(rng: random.Random, low: int, high: int) -> int:
    if rng.random() < 0.5:
        near: int = rng.choice((0, 1, -1)) + rng.choice((1, -1)) * (1 << rng.randrange(65))
        if low <= near <= high:
            return near
    return rng.randint(low, high)


def real(rng: random.Random) -> float:
    if rng.random() < 0.5:
        return cast(float, struct.unpack(">d", rng.randbytes(8))[0])
    return rng.choice(
        (0.0, -0.0, 1.0, 0.1, 1e16, 1e-5, 5e-324, float("inf"), float("-inf"), float("nan"), rng.random())
    )


def single(rng: random.Random, kind: FieldType, version: int) -> Any:
    bounds = kind.bounds or Bounds()
    cls: Any = kind.cls
    match kind.scalar:
        case Scalar.BOOL:
            return rng.random() < 0.5
        case Scalar.INT | Scalar.UINT:
            low, high = (0, 2**64 - 1) if kind.scalar is Scalar.UINT else (-(2**63), 2**63 - 1)
            return integer(
                rng, low if bounds.ge is None else int(bounds.ge), high if bounds.le is None else int(bounds.le)
            )
        case Scalar.FLOAT:
            if bounds.ge is None and bounds.le is None:
                return real(rng)
            low_real = -1e9 if bounds.ge is None else float(bounds.ge) * (1 + 2**-52)
            return rng.uniform(low_real, max(low_real, 1e300) if bounds.le is None else float(bounds.le))
        case Scalar.STR:
            count = length(rng, bounds, 12)
            text = rng.choice(TEXTS) + "".join(map(chr, rng.choices(range(0xD800), k=count)))
            short = bounds.min_length or 0
            return text[: count if bounds.max_length is not None else len(text)].ljust(short, "x")
        case Scalar.BYTES:
            return rng.randbytes(length(rng, bounds, 12))
        case Scalar.DATETIME:
            return FIRST + timedelta(microseconds=rng.randint(0, MICROSECONDS))
        case Scalar.ENUM:
            return rng.choice(list(cls))
        case Scalar.MESSAGE:
            return message(rng, cls, version)


def value(rng: random.Random, kind: FieldType, version: int) -> Any:
    if kind.shape == "list":
        return [single(rng, kind.element, version) for _ in range(length(rng, kind.size, 3))]
    if kind.key is not None:
        keys = [single(rng, FieldType("single", kind.key), version) for _ in range(length(rng, kind.size, 3))]
        return {key: single(rng, kind.element, version) for key in keys}
    return None if kind.optional and rng.random() < 0.3 else single(rng, kind, version)


def message(rng: random.Random, cls: type[Message], version: int) -> Message:
    """A message of a class, as random as its types allow."""
    given = {
        each.name: value(rng, each.type, version)
        for each in fields(cls, version)
        if each.required or rng.random() < 0.8
    }
    return cls(**given)


def kinds(service: Service) -> Iterator[tuple[type[Message], int]]:
    for version in range(1, service.version + 1):
        for method in service.at(version).values():
            yield method.request, version
            yield method.response, version


def round_and_round(count: int, seed: int, progress: Callable[[int], None] | None = None) -> int:
    """Send messages around the ring of codecs, either way; now and then spoil one. Gives the number of verdicts."""
    rng = random.Random(seed)
    every = [each for service in (EVERYTHING, GROWING, LENDING) for each in kinds(service)]
    plans: dict[tuple[type[Message], int], dict[str, Plan[Any]]] = {
        (cls, version): {name: codecs.get(name).plan(cls, version, Limits(), request=False) for name in RING}
        for cls, version in every
    }
    judged = 0
    for number in range(count):
        cls, version = rng.choice(every)
        plan = plans[cls, version]
        sent = message(rng, cls, version)
        ring = RING if number % 2 else RING[::-1]
        first = payload = plan[ring[0]].encode(sent)
        for now, following in ((ring[0], ring[1]), (ring[1], ring[2]), (ring[2], ring[0])):
            payload = plan[following].encode(plan[now].decode(payload))
        assert payload == first, f"seed {seed}, message {number}: {sent!r}"
        if number % 20 == 0:
            tree = loose(sent, version)
            for name in RING:
                found = plan[name].decode(WRITERS[name](tree))
                assert meaning(loose(found, version)) == meaning(tree), f"seed {seed}, message {number}, {name}"
            for spoilt in spoil(sent, version, begin=rng.randrange(10), step=10):
                for name in RING:
                    got = verdict(spoilt, plan[name], WRITERS[name], version)
                    assert got in expected(spoilt, name), f"seed {seed}, message {number}: {name}: {spoilt} is {got}"
                    judged += 1
        if progress is not None and (number + 1) % 10_000 == 0:
            progress(number + 1)
    return judged


def test_thousands_of_messages_agree() -> None:
    """What goes once around the codecs is what it was, to the byte; what is spoilt gets one verdict."""
    assert round_and_round(2500, seed=1) > 500


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_million_messages_agree(capfd: pytest.CaptureFixture[str]) -> None:
    """The same a million times, with a line that says how far it is."""

    def show(done: int) -> None:
        with capfd.disabled():
            print(f"\r{done:,} messages", end="", file=sys.stderr, flush=True)

    assert round_and_round(1_000_000, seed=20, progress=show) > 100_000
