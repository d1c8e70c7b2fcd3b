"""The strategies make what is declared, and the wrong values are wrong."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from tests.codecs.everything import (
    EVERYTHING,
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
from tests.shapes import SHAPES
from wireproto.errors import EncodeError
from wireproto.schema import Empty, Field, Message, compile_refusal, fields, message_types
from wireproto.testing import messages, mutated, strategies, values, wrong_values

# Any example will do; making it smaller would take most of the time.
QUICK = settings(max_examples=20_000, database=None, phases=[Phase.generate])
CLASSES: list[type[Message]] = [
    Bounded,
    Branch,
    Defaults,
    Grown,
    Leaf,
    Lists,
    Maps,
    Nothing,
    Optionals,
    Singles,
    Three,
    Twig,
]
FIELDS = [pytest.param(cls, field, id=field.path) for cls in CLASSES for field in fields(cls)]


def test_a_service_has_a_strategy_for_each_message() -> None:
    """Nested classes are there; those that a version lacks are not."""
    assert set(strategies(EVERYTHING)) == set(CLASSES) - {Grown, Twig}
    assert set(strategies(GROWING, 1)) == {Grown, Twig, Three, TextMaps}
    assert set(strategies(GROWING)) == {Grown, Twig, Leaf, Branch, Nothing}
    # What a one-way method does not answer is none of its messages.
    assert (
        set(strategies(SHAPES)) == set(message_types(SHAPES)) == {each for m in SHAPES.methods for each in m.messages}
    )
    assert Empty not in strategies(SHAPES)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("version", [1, None])
def test_what_is_made_is_declared(cls: type[Message], version: int | None) -> None:
    """Every message passes the check of its version, which knows types and bounds, without one being thrown away."""
    refuse = compile_refusal(cls, version, request=True)

    @given(messages(cls, version))
    def run(message: Message) -> None:
        refuse(message, EncodeError)

    run()


REACHED: list[tuple[type[Message], Any]] = [
    (Bounded, lambda message: message.byte == 0),
    (Bounded, lambda message: message.byte == 255),
    (Bounded, lambda message: message.below == -(2**63)),
    (Bounded, lambda message: message.large == 2**64 - 1),
    (Bounded, lambda message: message.share == 1.0),
    (Bounded, lambda message: message.above == math.inf),
    (Bounded, lambda message: len(message.name) == 8),
    (Bounded, lambda message: len(message.names) == 3),
    (Bounded, lambda message: message.maybe == 10),
    (Bounded, lambda message: message.maybe is None),
    (Singles, lambda message: message.signed == 2**63 - 1),
    (Singles, lambda message: math.isnan(message.real)),
    (Branch, lambda message: str(message.ratio) == "-0.0"),
    (Three, lambda message: "|" in message.text and "\\" in message.text),
    (Singles, lambda message: message.color is Color.VIOLET),
    (Defaults, lambda message: message.seven == -7),
    (Defaults, lambda message: message.seven == 0),
    (Lists, lambda message: len(message.branches) == 3),
    (Maps, lambda message: "" in message.truths),
    (Grown, lambda message: message.third is not None and message.third.leaf is not None),
]


@pytest.mark.parametrize(("cls", "condition"), REACHED)
def test_edges_are_reached(cls: type[Message], condition: Any) -> None:
    """The values that break things come up: nearly always within a few thousand examples."""
    find(messages(cls), condition, settings=QUICK)


def test_older_versions_leave_newer_fields_alone() -> None:
    """Messages of version 1 have the defaults in what came later."""

    @given(messages(Grown, 1))
    def run(message: Grown) -> None:
        assert (message.second, message.hint, message.leaves, message.third) == (5, False, [], None)
        assert message.twig.later == ""

    run()


@pytest.mark.parametrize(("cls", "field"), FIELDS)
def test_wrong_values_are_wrong(cls: type[Message], field: Field) -> None:
    """Each is refused by the check, for that field and no other."""
    right = find(messages(cls), lambda message: True, settings=QUICK)
    refuse = compile_refusal(cls, None, request=True)
    wrong = wrong_values(field.type)
    assert wrong
    for value in wrong:
        with pytest.raises(EncodeError) as caught:
            refuse(msgspec.structs.replace(right, **{field.name: value}), EncodeError)
        assert caught.value.path.startswith(field.path), value


def test_wrong_values_include_the_near_misses() -> None:
    """A bool for an int, one beyond a bound, and a container one too long are among them."""
    by_name = {field.name: wrong_values(field.type) for field in fields(Bounded)}
    assert 256 in by_name["byte"]
    assert -1 in by_name["byte"]
    assert any(value is True for value in by_name["byte"])
    assert math.nextafter(1.0, math.inf) in by_name["share"]
    assert "" in by_name["name"]
    assert b"xxx" in by_name["key"]
    assert [] in by_name["names"]
    assert ["xxx"] in by_name["names"]


def test_values_of_one_field() -> None:
    """A single field's values can be had, too."""
    maybe = fields(Bounded)[-1]
    assert find(values(maybe.type), lambda value: value is not None, settings=QUICK) == 10


def test_mutated_bytes_differ_and_stay_near() -> None:
    """Mutation changes a payload, shortens it, lengthens it, and puts in what parsers trip over."""
    payload = b"ann|hello|3"
    near = mutated(st.just(payload))
    find(near, lambda data: len(data) == len(payload) and data != payload, settings=QUICK)
    find(near, lambda data: len(data) < len(payload), settings=QUICK)
    find(near, lambda data: b"\\N" in data, settings=QUICK)
    find(near, lambda data: payload in data and data != payload, settings=QUICK)
