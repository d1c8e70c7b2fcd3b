"""No time-out goes by the wall clock: it jumps when somebody sets it, or when the network does."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "wireproto"

WALL = {
    "time": {"asctime", "clock_gettime", "ctime", "gmtime", "localtime", "strftime", "time", "time_ns"},
    "datetime": {"now", "today", "utcnow"},
    "date": {"today"},
    "uuid": {"uuid1"},
}
"""What tells the time of day, by the module or class that has it."""

MONOTONIC = {"monotonic", "perf_counter", "sleep", "process_time", "thread_time"}
"""What else of the module ``time`` there is a use for."""


def wall_clocks(source: str) -> Iterator[str]:
    """Where a module looks at the time of day, or imports what could."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in WALL.get(owner, set()):
                yield f"{node.lineno}: {owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            for name in node.names:
                if name.name not in MONOTONIC:
                    yield f"{node.lineno}: from time import {name.name}"


def test_the_framework_never_looks_at_the_time_of_day() -> None:
    """Every clock is monotonic, so a system's that is set a year ahead, or to 1970, ends nothing and holds nobody.

    But for one look, in one step with what it is compared with: gRPC's core tells a call's deadline as a time of day.
    """
    found = [
        f"{path.relative_to(PACKAGE)}: {where.partition(': ')[2]}"
        for path in PACKAGE.rglob("*.py")
        for where in wall_clocks(path.read_text("utf-8"))
    ]
    assert found == ["server/gateway/core.py: time.time"]


def test_a_look_at_the_time_of_day_is_found() -> None:
    """The search above sees each way to do it."""
    ways = ["time.time()", "datetime.datetime.now(UTC)", "datetime.now()", "from time import monotonic, time"]
    assert [next(wall_clocks(way), None) is not None for way in ways] == [True] * 4
    assert list(wall_clocks("from time import monotonic, sleep; time.monotonic(); datetime.fromtimestamp(0)")) == []
