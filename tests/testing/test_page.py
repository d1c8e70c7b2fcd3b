"""docs/testing.md: its programs are one test file that passes, and its commands are commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import wireproto.testing
from wireproto.cli import root

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAM = "\n".join(text for language, text in BLOCKS if language == "python")
FEW = """
from hypothesis import settings
settings.register_profile("few", max_examples=10, deadline=None, database=None)
settings.load_profile("few")
"""
COMMANDS = re.findall(r"^\$ wireproto (.*)$", PAGE, re.MULTILINE)


@pytest.mark.slow
def test_the_programs_pass(tmp_path: Path) -> None:
    """All the page's programs, in one file beside the calculator, are tests that pass."""
    (tmp_path / "calculator.py").write_text((ROOT / "examples" / "calculator.py").read_text("utf-8"))
    (tmp_path / "test_page.py").write_text(PROGRAM)
    words = ["-W", "error", "-m", "pytest", "-v", "-p", "no:cacheprovider", "-o", "addopts=", "test_page.py"]
    (tmp_path / "conftest.py").write_text(FEW)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = re.findall(r"^def (test_\w+)|^class (Test\w+)", PROGRAM, re.MULTILINE)
    for name in filter(None, (word for pair in named for word in pair)):
        assert f"::{name}" in done.stdout, name
    for door in ("pipe", "msgpack", "protobuf", "grpc"):
        assert f"TestCalculatorServer::test_generated_requests_are_answered[Add-v1-{door}] PASSED" in done.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_exist(line: str) -> None:
    """Each command on the page parses with the options it is shown with."""
    name, *words = shlex.split(line)
    command = root.wireproto.get_command(click.Context(root.wireproto), name)
    assert command is not None
    command.make_context(name, words)


def test_the_names_exist() -> None:
    """What the page says to import from the kit is there."""
    named = re.findall(r"^from wireproto\.testing import (.*)$", PROGRAM, re.MULTILINE)
    for name in ", ".join(named).split(", "):
        assert name in wireproto.testing.__all__
