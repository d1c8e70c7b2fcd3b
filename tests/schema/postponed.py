"""Messages whose annotations are text until somebody reads them."""

from __future__ import annotations

import enum
from typing import Annotated

from wireproto.schema import Message, Since, UInt64


class Inner(Message):
    x: int


class Everything(Message):
    class Mood(enum.IntEnum):
        GOOD = 1

    # The field hides the builtin from nothing but itself.
    bool: bool
    list: list[int]
    inner: dict[str, Inner]
    mood: Mood | None
    number: UInt64
    later: Annotated[int, Since(2)] = 0


def inside_a_function() -> type[Message]:
    class Outer(Message):
        one: Inner
        many: list[Inner]

    return Outer


def beyond_reach() -> type[Message]:
    class Local(Message):
        x: int

    class Outer(Message):
        local: Local

    return Outer
