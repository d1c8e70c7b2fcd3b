"""docs/services.md: its blocks are one program, which prints what the page says, and its commands are commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from wireproto.cli import root
from wireproto.schema import DuplexMethod, Method, OneWayMethod, StreamMethod, UploadMethod

PAGE = (Path(__file__).parent.parent / "docs" / "services.md").read_text("utf-8")
PROGRAM = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^\$ wireproto (.*)$", PAGE, re.MULTILINE)


def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    """Behind each print stands what it shows."""
    (tmp_path / "depot.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "depot.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    shown = re.findall(r"^ *print\(.*\)  # (.*)$", PROGRAM, re.MULTILINE)
    assert done.stdout.splitlines() == shown, done.stderr
    assert "Traceback" not in done.stderr  # a client that leaves in the middle of a stream may be logged as a reset
    assert len(shown) == PROGRAM.count("print(") == 8


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_parse(line: str) -> None:
    """Each command shown has the options it is shown with."""
    name, *words = shlex.split(line)
    command = root.wireproto.get_command(click.Context(root.wireproto), name)
    assert command is not None
    assert isinstance(command.make_context(name, words), click.Context)


def test_every_argument_of_a_method_is_in_the_table() -> None:
    """Whatever a method may be declared with is named, and nothing else."""
    kinds = (Method, StreamMethod, UploadMethod, DuplexMethod, OneWayMethod)
    arguments = {name for kind in kinds for name in kind.__init__.__annotations__} - {"return"}
    table = PAGE.partition("| argument | of | |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)=", row.split("|")[1])}
    assert named | {"opcode", "name", "request", "response"} == arguments


def test_the_links_lead_somewhere() -> None:
    """No link of the page leads nowhere."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (Path(__file__).parent.parent / "docs" / target).exists(), target
