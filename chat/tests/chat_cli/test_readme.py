"""The chat's README: its program runs, its commands exist, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chat_cli.processes import PATIENCE, environment, wireproto

FOLDER = Path(__file__).parents[2]
README = (FOLDER / "README.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_the_program_prints_what_it_says(tmp_path: Path) -> None:
    """The program is whole, and prints the number that the README names."""
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (printed,) = re.findall(r"^It prints (.*)\.$", README, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == f"{printed}\n"


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_exist(line: str) -> None:
    """Each command that is shown has the options that it is shown with."""
    prompt, program, *words = shlex.split(line)
    assert prompt == "$"
    if program == "pip":
        assert words == ["install", "wireproto-chat[grpc]"]
    elif program == "wireproto-chat":
        assert wireproto("chat", *words, "--help").returncode == 0
    else:
        done = wireproto(*words[:1], "--help")
        assert done.returncode == 0
        assert all(word in done.stdout for word in words if word.startswith("--"))


def test_the_files_it_names_are_there() -> None:
    """No link of the README leads nowhere."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (FOLDER / target).exists(), target
