"""What slow listeners of a topic cost the others, and whether they are told exactly what they have missed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "topics.py"


def measured(folder: Path, *words: str) -> dict[str, Any]:
    """What the benchmark finds, in a process of its own."""
    file = folder / "found.json"
    subprocess.run([sys.executable, str(PROGRAM), "--json", str(file), *words], check=True, timeout=600)
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def judge(found: dict[str, Any]) -> None:
    """What holds whatever the machine does: each has, or was told of, all items, and no output is beyond its mark."""
    assert found["exact"]
    for run in found["runs"]:
        assert (run["dropped"] > 0) is (run["kind"] != "nobody"), run
        assert run["held"] <= run["may_hold"], run
    assert max(run["held"] for run in found["runs"] if run["kind"] == "not read") > 60_000


@pytest.mark.slow
def test_slow_listeners_are_told_exactly_what_they_have_missed(tmp_path: Path) -> None:
    """A tenth of 100 without credit, or unread: a sample, on a machine that is shared."""
    judge(measured(tmp_path, "--rounds", "1", "--subscribers", "100", "--pause", "0.01"))


@pytest.mark.long
def test_slow_listeners_cost_the_others_nothing(tmp_path: Path) -> None:
    """Of 1,000 listeners 100 grant no credit, or read nothing: the others' p99 stays within 1.5 times."""
    found = measured(tmp_path)
    judge(found)
    assert max(found["ratios"].values()) <= 1.5, found["ratios"]
