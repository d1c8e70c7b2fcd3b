"""make: what it says when it cannot work, and that it does nothing twice."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


def _make(*words: str) -> "subprocess.CompletedProcess[str]":
    # The tests may run below a make of their own, whose flags are not this one's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *words], cwd=ROOT, env=kept, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def venv_tool() -> ModuleType:
    """tools/venv.py as a module."""
    spec = importlib.util.spec_from_file_location("venv_tool", ROOT / "tools" / "venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pyproject.toml, and another one in a part of it, as the working directory."""
    (tmp_path / "part").mkdir()
    for folder in (tmp_path, tmp_path / "part"):
        (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_the_tasks() -> None:
    """make alone lists every task with its line, and does nothing else."""
    done = _make()
    assert done.returncode == 0
    for task in ("setup", "serve", "demo", "test", "check", "gate", "format", "generate", "wheel", "clean"):
        assert f"  make {task} " in done.stdout


def test_a_python_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """A PYTHON that cannot be found ends with a sentence that says how to name another."""
    done = _make("setup", "PYTHON=no-such-python", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "no-such-python was not found. Install Python 3.11 or newer" in done.stderr


def test_an_old_python_is_said_so(venv_tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 ends with its version and how to name another."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    monkeypatch.setattr(sys, "argv", ["venv.py", ".venv", ".venv/.installed", ".[dev]"])
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, and .* is 3\.10\. Name another one"):
        venv_tool.main()


def test_an_environment_that_works_is_taken_as_it_is(
    venv_tool: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment made elsewhere is installed into, not made anew; the second time nothing is done."""
    folder = project / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    commands: list[list[str]] = []
    monkeypatch.setattr(venv_tool, "run", commands.append)
    monkeypatch.setattr(sys, "argv", ["venv.py", "venv", "venv/.installed", ".[dev]", "./part"])
    venv_tool.main()
    assert [command[1:4] for command in commands] == [["-m", "pip", "install"]]
    venv_tool.main()
    assert len(commands) == 1


def test_a_changed_project_is_installed_again(
    venv_tool: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp stands for the file of each project, its place and the extras; all are installed in one call."""
    commands: list[list[str]] = []
    monkeypatch.setattr(venv_tool, "run", commands.append)
    monkeypatch.setattr(venv_tool, "make_venv", lambda venv: "python")
    for changed, text, extras in (
        (".", "first", "dev"),
        (".", "second", "dev"),
        ("part", "second", "dev"),
        ("part", "second", "cli"),
        ("part", "second", "cli"),
    ):
        (project / changed / "pyproject.toml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["venv.py", "venv", "stamp", f".[{extras}]", "./part"])
        venv_tool.main()
    assert [command[5:] for command in commands] == [
        ["--editable", f".[{extras}]", "--editable", "./part"] for extras in ("dev", "dev", "dev", "cli")
    ]


def test_a_broken_environment_is_made_anew(
    venv_tool: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment whose Python is gone is replaced."""
    folder = project / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to("/no/such/python")
    commands: list[list[str]] = []
    monkeypatch.setattr(venv_tool, "run", commands.append)
    assert venv_tool.make_venv("venv") == "venv/bin/python"
    assert commands == [[sys.executable, "-m", "venv", "--clear", "venv"]]


def test_pythons_that_are_not_there_are_named_in_one_line() -> None:
    """The tests of other Pythons say which they could not find, and fail for none of them."""
    words = [sys.executable, "tools/pythons.py", ".venv", "no-such-python", sys.executable, "python2.7", "--", "-q"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1].startswith("not there, so not tested: no-such-python")
