"""`make demo` runs, tells the same conversation over each codec, and takes one frame of each apart."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.slow
def test_the_demo_runs() -> None:
    """The demo ends with 0, having shown three conversations and three frames whose bytes add up."""
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.rstrip("\n").split("\n")
    assert last.startswith("The same conversation over pipe, msgpack, protobuf, in ")
    assert r"alice: \x1b[2Jthis clears no screen" in done.stdout
    assert "\x1b" not in done.stdout
    frames = re.findall(r"one frame of (\d+) bytes.*?\n((?: .*\n)+)", done.stdout)
    assert len(frames) == 3
    for length, table in frames:
        found = bytes.fromhex(" ".join(re.findall(r"^ {2}[ \d]{3}  ((?:[0-9a-f]{2} ?)+)", table, re.MULTILINE)))
        assert len(found) == int(length)
        assert int.from_bytes(found[:4], "big") == len(found) - 4
        assert found.endswith(b"lunch at 12?")
