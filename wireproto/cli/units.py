"""Times and sizes on a command line, as people write them: ``20ms``, ``1.5s``, ``64KiB``."""

import re
from typing import Any, Final

import click

__all__ = ["SECONDS", "SIZE", "TIMEOUT"]

WEEK: Final = 7 * 86_400.0
"""Seconds that a time may be at the most: far less than what a clock or a poll of the system takes."""


class _Seconds(click.ParamType[float]):
    """``20ms``, ``1.5s``, ``2m`` or plain seconds, a week at the most.

    Args:
        zero: whether it may be no time at all.
    """

    name = "time"
    units: Final = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

    def __init__(self, *, zero: bool) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([a-z]*)", str(value))
        if found is None or found[2] not in self.units:
            self.fail(f"{value!r} is no time; write 20ms, 1.5s or 2m", param, ctx)
        seconds = float(found[1]) * self.units[found[2]]
        if seconds > WEEK:
            self.fail(f"{value!r} is too long; a week, 168h, is the most", param, ctx)
        if not (seconds or self._zero):
            self.fail(f"{value!r} is no time at all; give one above 0", param, ctx)
        return seconds


class _Size(click.ParamType[int]):
    """``64KiB``, ``1MiB`` or plain bytes."""

    name = "size"
    units: Final = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 1_000_000, "mib": 1024 * 1024}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,15}) ?([a-z]*)(?:/s)?", str(value).lower())
        if found is None or found[2] not in self.units:
            self.fail(f"{value!r} is no size; write 512, 64KiB or 1MiB", param, ctx)
        return int(found[1]) * self.units[found[2]]


SECONDS: Final = _Seconds(zero=True)
TIMEOUT: Final = _Seconds(zero=False)
SIZE: Final = _Size()
