"""A contract as source text, and what became of it when somebody edited that."""

import itertools
import sys
from collections.abc import Mapping
from types import ModuleType

from wireproto.schema import Service

BASE = """
import enum
from datetime import UTC, datetime
from typing import Annotated

from wireproto import (
    Bounds, DuplexMethod, Message, Method, OneWayMethod, Service, Since, StreamMethod, UInt64, UploadMethod
)

class Colour(enum.IntEnum):
    RED = 1
    GREEN = 2
    BLUE = 3

class Point(Message):
    x: int
    y: int

class AskRequest(Message, kw_only=True):
    text: str
    count: int
    amount: UInt64
    small: Annotated[int, Bounds(ge=0, le=100)]
    ratio: float
    sure: bool
    raw: bytes
    at: datetime
    colour: Colour
    point: Point
    maybe: int | None = None
    size: int = 10
    names: list[str] = []
    scores: dict[str, int] = {}
    title: Annotated[str, Bounds(max_length=20)] = ""
    extra: Annotated[bool, Since(2, ignorable=True)] = False

class AskResponse(Message):
    found: int
    best: Colour
    where: Point | None = None
    rank: Annotated[int, Bounds(ge=0, le=10)] = 0
    more: Annotated[str, Since(2)] = ""

class WatchRequest(Message):
    after: int = 0

class Change(Message):
    sequence: int
    colour: Colour

class DropRequest(Message):
    key: str

class DropResponse(Message):
    pass

ASK = Method(
    opcode=0, name="Ask", request=AskRequest, response=AskResponse, requires="reader", reasons=("GONE", "SHY"),
    timeout=5.0, max_request=5000,
)
WATCH = StreamMethod(opcode=1, name="Watch", request=WatchRequest, response=Change, idempotent=True)
DROP = Method(opcode=2, name="Drop", request=DropRequest, response=DropResponse, since=2)
SERVICE = Service("example.v1.AskService", version=2, methods=[ASK, WATCH, DROP])
"""

_numbers = itertools.count()


def build(text: str) -> Service:
    """The service that a text declares."""
    module = ModuleType(f"edited_contract_{next(_numbers)}")
    # Annotations are looked up in the module of their class.
    sys.modules[module.__name__] = module
    exec(compile(text, module.__name__, "exec"), vars(module))
    service = module.SERVICE
    assert isinstance(service, Service)
    return service


def edited(changes: Mapping[str, str]) -> str:
    """The base with pieces of it replaced; each must be there once."""
    text = BASE
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text
