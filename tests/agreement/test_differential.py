"""All codecs judge alike: every fault at every place, the list of differences, and the suite that users run."""

import enum
import functools
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.codecs.everything import (
    GROWING,
    Bounded,
    Branch,
    Color,
    Defaults,
    Grown,
    Leaf,
    Lists,
    Maps,
    Nothing,
    Optionals,
    Singles,
    TextMaps,
    Three,
    Twig,
)
from tests.lending import LENDING
from tests.pages import table
from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.limits import Limits
from wireproto.schema import Message
from wireproto.testing import DifferentialSuite
from wireproto.testing.differential import DIFFERENCES, UNWRITABLE, Difference, difference, expected, meaning, verdict
from wireproto.testing.foreign import WRITERS, loose
from wireproto.testing.spoilt import Spoilt, spoil

CODECS = ("pipe", "msgpack", "protobuf")
NOON = datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=UTC)
LEAF = Leaf(name="a|b,", count=-3, flags=[True, False], color=Color.BLUE)
BRANCH = Branch(
    ratio=2.5,
    at=NOON,
    leaf=LEAF,
    leaves=[LEAF, Leaf(name="")],
    by_name={"k": LEAF},
    raw=b"\0\xff",
    note="n",
    nothing=Nothing(),
)
TWIG = Twig(name="t", later="l")


class Marks(enum.IntEnum):
    """Numbers that bytes of other types happen to have, so that they are taken for members."""

    ONE = 1
    EIGHT = 8
    DIGIT_EIGHT = ord("8")
    CAPITAL_M = 77
    CAPITAL_N = 78
    LETTER_X = ord("x")
    TILDE = ord("~")


class Marked(Message):
    """Those, by themselves and in a list."""

    mark: Marks
    marks: list[Marks]


MESSAGES: list[Message] = [
    Marked(mark=Marks.EIGHT, marks=[Marks.EIGHT]),
    Singles(
        truth=False,
        signed=-5,
        unsigned=2**63,
        real=0.5,
        text="t|\n(x)",
        raw=b"\1",
        at=NOON,
        color=Color.VIOLET,
        branch=BRANCH,
        nothing=Nothing(),
    ),
    Defaults(),
    Optionals(),
    Optionals(truth=False, signed=1, unsigned=2, real=-0.0, text="", raw=b"", at=NOON, color=Color.RED, branch=BRANCH),
    Lists(
        truths=[False],
        signed=[1, -1],
        unsigned=[3],
        reals=[0.5, 1.0],
        texts=["a", ""],
        raws=[b"", b"x"],
        times=[NOON],
        colors=[Color.RED],
        branches=[BRANCH],
        nothings=[Nothing()],
    ),
    Maps(
        truths={"a": False},
        signed={1: 2, 2: 1},
        unsigned={"": 2},
        reals={-1: 0.5},
        texts={"k": "v"},
        raws={0: b""},
        times={"t": NOON},
        colors={3: Color.RED},
        branches={"b": BRANCH},
        leaves={0: LEAF},
    ),
    Bounded(
        byte=5,
        below=-3,
        large=2**63,
        share=0.5,
        above=2.0**60,
        name="n",
        key=b"1234",
        names=["a"],
        counts={"a": 1},
        maybe=10,
    ),
    Three(sender="a", text="b", number=1),
    TextMaps(words={"a": "b"}),
    Grown(first="f", twig=TWIG, twigs=[TWIG], leaves=[LEAF], third=BRANCH),
    Nothing(),
]
"""Between them they have every type in every place."""


def plan(name: str, message: Message) -> Plan[Any]:
    return codecs.get(name).plan(type(message), GROWING.version, Limits())


@functools.cache
def judged(number: int) -> list[tuple[Spoilt, dict[str, str]]]:
    """Every fault of one of the messages, and what each codec says to it; two tests look at that."""
    message = MESSAGES[number]
    return [
        (fault, {name: verdict(fault, plan(name, message), WRITERS[name]) for name in CODECS})
        for fault in spoil(message)
    ]


@pytest.mark.parametrize("number", range(len(MESSAGES)), ids=lambda number: type(MESSAGES[number]).__name__)
def test_every_fault_at_every_place_gets_one_verdict(number: int) -> None:
    """Each codec refuses it, naming the field, or reads the message that the list of differences says."""
    wrong = [
        f"{name}: {fault} is {found[name]}, not {' or '.join(expected(fault, name))}"
        for fault, found in judged(number)
        for name in CODECS
        if found[name] not in expected(fault, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_difference_shows() -> None:
    """What is listed is so: each kind of fault and each type of a row is judged differently by some codec."""
    shown: dict[Difference, set[str]] = defaultdict(set)
    for number in range(len(MESSAGES)):
        for fault, found in judged(number):
            row = difference(fault)
            said = {each for each in found.values() if each != UNWRITABLE}
            if row is not None and (len(said) > 1 or UNWRITABLE in found.values()):
                shown[row] |= {fault.written, fault.declared, fault.where}
    for row in DIFFERENCES:
        listed = {*row.written, *row.declared, *row.where}
        assert row in shown, f"all codecs judge alike: {row}"
        assert listed <= shown[row], f"all codecs judge {listed - shown[row]} alike in {row}"


def test_the_document_has_the_differences() -> None:
    """The table of the document is the list, row by row."""
    rows = table("written", "for", "where")
    listed = [tuple(() if each == "any" else tuple(each.split(", ")) for each in row[:3]) for row in rows]
    assert listed == [(row.written, row.declared, row.where) for row in DIFFERENCES]
    assert [tuple(row[3:]) for row in rows] == [(row.pipe, row.msgpack, row.protobuf) for row in DIFFERENCES]


def test_no_fault_is_in_two_rows() -> None:
    """Which row holds for a fault does not depend on their order."""
    for message in MESSAGES:
        for fault in spoil(message):
            places = (fault.written, fault.declared, fault.where)
            rows = [
                row
                for row in DIFFERENCES
                if all(
                    not listed or mine in listed
                    for mine, listed in zip(places, (row.written, row.declared, row.where), strict=True)
                )
            ]
            assert len(rows) < 2, f"{fault}: {rows}"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("name", CODECS)
def test_what_somebody_else_writes_is_read(name: str, message: Message) -> None:
    """The message without a fault, from the same encoders, is the message."""
    tree = loose(message)
    assert meaning(loose(plan(name, message).decode(WRITERS[name](tree)))) == meaning(tree)


def test_a_codec_that_judges_otherwise_is_found() -> None:
    """A codec that takes what the others refuse, or names another field, gets a verdict that is not expected."""
    message = Three(sender="a", text="b", number=1)
    found = {
        name
        for fault in spoil(message)
        for name in ("pipe", "msgpack")
        # What one format is expected to say is asked of the other.
        if verdict(fault, plan(name, message), WRITERS[name]) not in expected(fault, "pipe")
    }
    assert found == {"msgpack"}


class TestGrowing(DifferentialSuite):
    """Random messages of a service that grew, nested and in containers."""

    service = GROWING


class TestLibrary(DifferentialSuite):
    """Those of a whole application."""

    service = LENDING
