"""The command itself: help, wrong names, what is not installed."""

import importlib
import subprocess
import sys

import click
import pytest

from tests.cli.conftest import PATIENCE, ROOT, environment, run, wireproto
from wireproto import __version__
from wireproto.cli import root

HIDE = "import sys; sys.modules[{!r}] = None; sys.argv = ['wireproto', {}]; from wireproto.cli import main; main()"


def _without(module: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command where ``module`` is not installed."""
    code = HIDE.format(module, ", ".join(map(repr, words)))
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_help_lists_every_command() -> None:
    """--help names each command with its line, without importing any of them."""
    done = run("--help", COLUMNS="200")
    assert done.exit_code == 0
    for name, (_, line) in root._COMMANDS.items():
        assert f"{name} " in done.output
        assert line in done.output


@pytest.mark.parametrize("name", sorted(root._COMMANDS))
def test_every_command_has_help(name: str) -> None:
    """Each command is there, and its --help exits 0."""
    done = run(name, "--help")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: wireproto {name}")


def test_the_version_is_the_packages() -> None:
    """--version prints the version on stdout."""
    assert run("--version").stdout.startswith(f"wireproto {__version__} ")


def test_a_wrong_command_is_suggested() -> None:
    """A name that is none exits 2 and suggests the nearest."""
    done = run("sevre")
    assert done.exit_code == 2
    assert "Did you mean 'serve'?" in done.stderr


def test_without_click_it_says_what_to_install() -> None:
    """Without the extra `cli` the command is a sentence with the exact pip install."""
    done = _without("click", "--help")
    assert done.returncode == 1
    assert "pip install 'wireproto[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_module_of_ours_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is shown as one, not as advice to install something."""

    def broken(name: str) -> object:
        raise ModuleNotFoundError("No module named 'wireproto.gone'", name="wireproto.gone")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        root.load("wireproto.cli.serve")


def test_the_installed_script_is_the_command() -> None:
    """The entry point runs the same thing as python -m wireproto.cli, and as python -m wireproto."""
    assert wireproto("--version").stdout.startswith(f"wireproto {__version__} ")
    command = [sys.executable, "-m", "wireproto", "--version"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.startswith(f"wireproto {__version__} ")


def test_an_interrupt_while_a_command_is_imported_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command with 130 before it runs, too."""

    def interrupted(name: str) -> click.Command:
        raise KeyboardInterrupt

    monkeypatch.setattr(root, "load", interrupted)
    done = run("serve")
    assert (done.exit_code, done.output) == (130, "")


def test_output_that_cannot_be_written_is_said_so() -> None:
    """A full disk is one sentence and status 1."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "wireproto", "ops", "tests.cli.services:SHOP"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
        )
    assert done.returncode == 1
    assert done.stderr == "wireproto: the output cannot be written: No space left on device\n"


def test_a_closed_stdout_is_no_failure() -> None:
    """A command whose stdout is closed does what it was asked and prints nowhere."""
    command = ["sh", "-c", f'exec "{sys.executable}" -m wireproto ops --json tests.cli.services:SHOP <&- >&-']
    done = subprocess.run(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
