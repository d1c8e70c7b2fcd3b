"""Messages nobody thought of: classes made at random, in every codec."""

import itertools
from collections.abc import Callable
from datetime import datetime
from types import new_class
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.codecs.everything import ALL, Color, Nothing
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Message, UInt64
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
