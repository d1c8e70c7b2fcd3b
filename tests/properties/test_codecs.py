"""Messages nobody thought of: classes made at random, in every codec."""

import functools
import itertools
import json
from collections.abc import Callable
from datetime import datetime
from types import new_class
from typing import Any

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.codecs.everything import ALL, Color, Nothing
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Message, UInt64, compile_refusal, from_plain, to_plain
from wireproto.testing import messages, mutated

SCALARS: list[Any] = [bool, int, UInt64, float, str, bytes, datetime, Color, Nothing]

_list: Any = list
_dict: Any = dict
SHAPES: list[Callable[[Any], Any]] = [
    lambda scalar: scalar,
    lambda scalar: scalar | None,
    lambda scalar: _list[scalar],
    lambda scalar: _dict[str, scalar],
    lambda scalar: _dict[int, scalar],
]


numbers = itertools.count()


def declared(fields: dict[str, Any]) -> type[Message]:
    # No two classes of one message may have the same name.
    return new_class(
        f"Random{next(numbers)}",
        (Message,),
        {},
        lambda names: names.update(__annotations__=fields, __module__=__name__),
    )


@st.composite
def classes(draw: st.DrawFn, depth: int = 2) -> type[Message]:
    """A message class of up to six fields of any type, nested up to three levels deep."""
    fields: dict[str, Any] = {}
    for number in range(draw(st.integers(0, 6))):
        nest = depth > 0 and draw(st.integers(0, 4)) == 0
        scalar = draw(classes(depth - 1)) if nest else draw(st.sampled_from(SCALARS))
        fields[f"field_{number}"] = draw(st.sampled_from(SHAPES))(scalar)
    return declared(fields)


def plans(message_type: type[Message]) -> dict[str, Any]:
    return {codec.name: codec.plan(message_type, 1, Limits()) for codec in ALL}


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_any_message_round_trips_in_every_codec(data: st.DataObject) -> None:
    """Whatever is declared, all codecs carry it, and agree on what it is."""
    message_type = data.draw(classes())
    message = data.draw(messages(message_type))
    made = plans(message_type)
    canonical = {name: plan.encode(message) for name, plan in made.items()}
    for name, plan in made.items():
        found = plan.decode(canonical[name])
        assert {other: made[other].encode(found) for other in made} == canonical


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_any_bytes_give_a_message_or_decode_error(data: st.DataObject) -> None:
    """Whatever is declared, bytes that were tampered with are refused or mean the same in every codec."""
    message_type = data.draw(classes())
    made = plans(message_type)
    name = data.draw(st.sampled_from(sorted(made)))
    payload = data.draw(mutated(messages(message_type).map(made[name].encode)))
    try:
        found = made[name].decode(payload)
    except DecodeError:
        return
    for plan in made.values():
        assert made[name].encode(plan.decode(plan.encode(found))) == made[name].encode(found)


WRONG: list[Any] = [
    None,
    True,
    0,
    -1,
    1.0,
    0.5,
    2**53 + 1,
    2**63,
    2**64 - 1,
    "",
    "x",
    b"",
    b"x",
    [],
    [0],
    {},
    {"k": 0},
    {0: ""},
]


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """Plain data with one value, somewhere, replaced, lost or doubled."""
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        match draw(st.integers(0, 9)):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value[:at], value[at], *value[at:]]
            case _:
                return [*value[:at], draw(spoilt(value[at])), *value[at + 1 :]]
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(list(value)))
        if draw(st.integers(0, 2)):
            return {**value, key: draw(spoilt(value[key]))}
        return {**value, draw(st.sampled_from([0, "x", True, 1.5, b"k", 2**63])): value[key]}
    return draw(st.sampled_from(WRONG))


def as_json(plain: Any) -> bytes:
    """The example's JSON for any plain data, declared or not; keys of mixed types in the order they come."""
    if isinstance(plain, dict):
        keys = ",".join(as_json(key).decode() for key in plain)
        return f'{{"keys":[{keys}],"values":[{",".join(as_json(each).decode() for each in plain.values())}]}}'.encode()
    if isinstance(plain, list):
        return f"[{','.join(as_json(each).decode() for each in plain)}]".encode()
    if isinstance(plain, bytes):
        return f'{{"hex":"{plain.hex()}"}}'.encode()
    return json.dumps(plain).encode()


def verdict(read: Callable[[], Message]) -> Message | None:
    try:
        return read()
    except DecodeError:
        return None


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_codecs_refuse_the_same_values(data: st.DataObject) -> None:
    """Nearly a message, written by somebody else as MessagePack or JSON, gets the verdict of the schema."""
    message_type = data.draw(classes())
    plain = data.draw(spoilt(to_plain(data.draw(messages(message_type)))))

    def by_the_schema() -> Message:
        message = from_plain(message_type, plain)
        compile_refusal(message_type, None, request=True)(message, DecodeError)
        return message

    expected = verdict(by_the_schema)
    made = plans(message_type)
    for name, payload in (("msgpack", msgpack.packb(plain)), ("json", as_json(plain))):
        found = verdict(functools.partial(made[name].decode, payload))
        assert (found is None) == (expected is None), f"{name} does not agree about {plain}"
        assert found is None or made["pipe"].encode(found) == made["pipe"].encode(expected)
