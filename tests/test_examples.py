"""Every program in examples/ runs, and prints what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PRINTS = {"agents.py": "14\n['bob is up', 'bob has worked']\n", "calculator.py": "5\n", "json_codec.py": "5\n"}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(name: str) -> None:
    """An example runs by itself, without a warning, and prints its result."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout == PRINTS[name] if name in PRINTS else done.stdout
