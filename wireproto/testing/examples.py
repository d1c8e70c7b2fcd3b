"""How suites draw examples, and when two messages mean the same."""

import functools
import struct
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

import msgspec
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from wireproto import schema
from wireproto.schema import Message
from wireproto.testing.generators import messages

__all__ = ["Unanswered", "for_all", "meaning", "simplest", "widened"]

M = TypeVar("M", bound=Message)


class Unanswered(AssertionError):
    """Something did not come in time. To look for a smaller example of it would take as long for each."""


class _SearchOver(BaseException):
    """Ends the search of Hypothesis, which goes on after any ``Exception``."""

    def __init__(self, failure: Unanswered) -> None:
        self.failure = failure


def for_all(
    strategy: st.SearchStrategy[Any],
    holds: Callable[[Any], None],
    *,
    max_examples: int | None = None,
    remembers: bool = False,
) -> None:
    """Run ``holds`` over examples.

    Hypothesis decorates functions and is not happy about one method shared by many parameters and classes. An
    ``Unanswered`` ends it at once, and is raised as it is.

    Args:
        strategy: what to draw.
        holds: raises where an example does not hold.
        max_examples: None for as many as the Hypothesis profile in force says.
        remembers: what is tested has a state, so an example need not fail again: then the first failure is raised,
            without Hypothesis's doubts about it.
    """
    first: list[tuple[Any, Exception]] = []

    @settings(
        deadline=None,
        max_examples=max_examples or settings().max_examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(strategy)
    def run(example: Any) -> None:
        try:
            holds(example)
        except Unanswered as error:
            raise _SearchOver(error) from None
        except Exception as error:
            if remembers and not first:
                first.append((example, error))
            raise

    try:
        run()
    except _SearchOver as stop:
        raise stop.failure from None
    except FlakyFailure:
        if not first:
            raise
        example, error = first[0]
        error.add_note(
            f"for {example!r}; it did not fail when it was tried again: the handlers remember what was before"
        )
        raise error from None


def simplest(message_type: type[M], version: int) -> M:
    """The smallest message of a class, where it does not matter which one."""
    return cast(M, _simplest(message_type, version))


@functools.cache
def _simplest(message_type: Any, version: int) -> Message:
    quiet = settings(database=None, derandomize=True, phases=[Phase.generate, Phase.shrink], max_examples=20)
    found: Message = find(messages(message_type, version), lambda message: True, settings=quiet)
    return found


def widened(message_type: type[Message], version: int) -> st.SearchStrategy[Message]:
    """Messages whose fields that came after ``version`` have any value, while what is nested in older ones fits it."""
    older = [field.name for field in schema.fields(message_type, version)]

    def merge(pair: tuple[Message, Message]) -> Message:
        return msgspec.structs.replace(pair[0], **{name: getattr(pair[1], name) for name in older})

    return st.tuples(messages(message_type), messages(message_type, version)).map(merge)


def meaning(message: Message, version: int, varying: Collection[str] = ()) -> object:
    """What two messages have in common if and only if they are the same, NaN and -0.0 included.

    Args:
        message: a message.
        version: of its service; fields that came later do not count.
        varying: names of fields, at any depth, that do not count either.
    """
    return [
        each.name if each.name in varying else _comparable(getattr(message, each.name), version, varying)
        for each in schema.fields(type(message), version)
    ]


def _comparable(value: Any, version: int, varying: Collection[str]) -> Any:
    if isinstance(value, Message):
        return meaning(value, version, varying)
    if isinstance(value, list):
        return [_comparable(each, version, varying) for each in value]
    if isinstance(value, dict):
        return [(key, _comparable(value[key], version, varying)) for key in sorted(value)]
    if isinstance(value, float):
        return "nan" if value != value else struct.pack(">d", value)
    return value
