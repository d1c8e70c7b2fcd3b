"""Section 11: the ranges of values, and what a declaration narrows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.conformance.paged.declared import Field
from tests.conformance.paged.numbers import Failure, bad

__all__ = ["RANGES", "at", "judged"]

RANGES = {"int": (-(2**63), 2**63 - 1), "uint": (0, 2**64 - 1)}
MAX_ELEMENTS = 65536


@contextmanager
def at(message: str, field: Field) -> Iterator[None]:
    """What is wrong in here is said of that field."""
    try:
        yield
    except Failure as failure:
        raise bad(f"{message}.{field.name}: {failure.text}") from None


def judged(field: Field, value: Any) -> Any:
    """A value that was read, held to what the declaration narrows."""
    more = field.more
    if ("ge" in more and value < int(more["ge"])) or ("le" in more and value > int(more["le"])):
        raise bad("it is out of its bounds")
    if "max_length" in more and not more["min_length"] <= len(value) <= more["max_length"]:
        raise bad("it is out of its bounds")
    if isinstance(value, list | dict) and len(value) > more.get("max_size", MAX_ELEMENTS):
        raise bad("it is too long")
    return value
