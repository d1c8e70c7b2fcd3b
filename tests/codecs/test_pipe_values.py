"""One value by itself in pipe text is what stands in the field of a message that has nothing else."""

import enum
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from wireproto import codecs
from wireproto.codecs.pipe_values import read_value, write_value
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Field, Message, UInt64, fields
from wireproto.schema.values import problem_with


class Fruit(enum.IntEnum):
    APPLE = 1
    PEAR = 70


class Leaf(Message):
    name: str = ""


class Flag(Message):
    value: bool


class Integer(Message):
    value: int


class Unsigned(Message):
    value: UInt64


class Real(Message):
    value: float


class Text(Message):
    value: str


class Octets(Message):
    value: bytes


class Moment(Message):
    value: datetime


class Chosen(Message):
    value: Fruit


class MaybeText(Message):
    value: str | None = None


class MaybeReal(Message):
    value: float | None = None


class MaybeLeaf(Message):
    value: Leaf | None = None


class Texts(Message):
    value: list[str] = []


class Leaves(Message):
    value: list[Leaf] = []


class Counts(Message):
    value: dict[str, int] = {}


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text("\\|\n\rNpex2c,:()[]{}")
VALUES: dict[type[Message], st.SearchStrategy[Any]] = {
    Flag: st.booleans(),
    Integer: st.integers(-(2**63), 2**63 - 1),
    Unsigned: st.integers(0, 2**64 - 1),
    Real: st.floats(),
    Text: TEXTS,
    Octets: st.binary(),
    Moment: st.datetimes(timezones=st.just(UTC)),
    Chosen: st.sampled_from(Fruit),
    MaybeText: TEXTS | st.none(),
    MaybeReal: st.floats() | st.none(),
    MaybeLeaf: st.none(),
    Texts: st.just([]),
    Leaves: st.just([]),
    Counts: st.just({}),
}


def only_field(message_type: type[Message]) -> Field:
    (found,) = fields(message_type)
    return found


def plan(message_type: type[Message]) -> codecs.Plan[Any]:
    return codecs.get("pipe").plan(message_type, 1, Limits())


def attempt(read: Callable[[], Any]) -> Any:
    """What is read, or why not."""
    try:
        return read()
    except DecodeError as error:
        return error


@given(st.sampled_from(list(VALUES)).flatmap(lambda cls: st.tuples(st.just(cls), VALUES[cls])))
def test_a_value_is_written_as_in_a_message(drawn: tuple[type[Message], Any]) -> None:
    """The text is the payload of a message with that field alone, and is read as the message's value is."""
    message_type, value = drawn
    kind, make = only_field(message_type).type, message_type
    text = write_value(value, kind)
    assert text.encode() == plan(message_type).encode(make(value=value))
    again = read_value(text, kind)
    assert type(again) is type(value)
    assert write_value(again, kind) == text


@given(st.sampled_from(list(VALUES)), st.text() | st.text("\\|\n\rNpe01-.:[]{}TZaf"))
@example(Text, "a|b")
@example(Text, "a\nb")
@example(Text, "\\N")
@example(MaybeText, "\\N")
@example(Moment, "1970-01-01T00:00:00Z")
@example(Chosen, "2")
@example(Texts, "[a]")
@example(Leaves, "[()]")
@example(MaybeLeaf, "(a)")
def test_a_text_is_read_or_refused_as_in_a_message(message_type: type[Message], text: str) -> None:
    """What a message refuses is refused, or out of its range; of lists, maps and messages only none and the empty ones
    are read."""
    kind = only_field(message_type).type
    whole = attempt(lambda: plan(message_type).decode(text.encode()).value)
    found = attempt(lambda: read_value(text, kind))
    if isinstance(whole, DecodeError):
        assert isinstance(found, DecodeError) or problem_with(found, kind)
    elif isinstance(whole, Leaf) or (isinstance(whole, list | dict) and whole):
        assert isinstance(found, DecodeError)
        assert "is no empty" in found.problem
    else:
        assert write_value(found, kind) == write_value(whole, kind)
