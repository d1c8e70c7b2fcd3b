"""What users install: the wheels and source archives of both distributions, each in an empty environment."""

import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import wireproto_chat
from wireproto import __version__

ROOT = Path(__file__).parents[3]
PATIENCE = 300.0
"""Seconds for building and installing, which downloads dependencies."""

installs = [pytest.mark.slow, pytest.mark.timeout(900)]


class Built(NamedTuple):
    """What `python -m build` makes of a folder: the source archive, and the wheel that it makes of that."""

    sdist: Path
    wheel: Path


def command(*words: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    # No path of this project: what is imported is what was installed.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "WIREPROTO_"))}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=kept, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def must(*words: str | Path, cwd: Path) -> str:
    done = command(*words, cwd=cwd)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def build(source: Path, folder: Path) -> Built:
    # Without isolation, for hatchling is in the environment of the tests: nothing is downloaded.
    must(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def framework(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("framework"))


@pytest.fixture(scope="module")
def chat_distribution(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT / "chat", tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module", params=["sdist", "wheel"])
def installed(
    request: pytest.FixtureRequest,
    framework: Built,
    chat_distribution: Built,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The `bin` of an environment with both distributions, from wheels or from source archives, in one call of pip."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=True)
    parts = [getattr(built, request.param) for built in (framework, chat_distribution)]
    must(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *parts, cwd=folder)
    return folder / "bin"


def test_the_versions_agree() -> None:
    """Both distributions are of one release, and the chat asks for that of the framework."""
    assert wireproto_chat.__version__ == __version__
    text = (ROOT / "chat" / "pyproject.toml").read_text("utf-8")
    (wanted,) = re.findall(r'"wireproto\[cli\]~=([0-9.]+)"', text)
    assert wanted == __version__


def test_the_chat_has_no_settings_of_tools() -> None:
    """A table of a tool in the chat's pyproject.toml would replace the repository's, silently."""
    text = (ROOT / "chat" / "pyproject.toml").read_text("utf-8")
    assert {name.split(".")[0] for name in re.findall(r"^\[tool\.([^\]]+)\]", text, re.MULTILINE)} == {"hatch"}


class TestDistributions:
    """Built, installed into an empty environment, and run."""

    pytestmark = installs

    def test_the_wheel_has_every_module_and_its_data(self, chat_distribution: Built) -> None:
        """Each source of the package is in the wheel, with py.typed and the banned passwords, and no tests."""
        with zipfile.ZipFile(chat_distribution.wheel) as archive:
            names = set(archive.namelist())
        folder = ROOT / "chat" / "wireproto_chat"
        sources = {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py")}
        assert sources <= names
        assert {"wireproto_chat/py.typed", "wireproto_chat/service/common_passwords.txt"} <= names
        tops = {name.split("/")[0] for name in names}
        assert tops == {"wireproto_chat", chat_distribution.wheel.name.rsplit("-", 3)[0] + ".dist-info"}

    def test_the_chat_is_served_and_talked_to(self, installed: Path, tmp_path: Path) -> None:
        """`wireproto serve` serves the chat, and `wireproto-chat`, a command of its own, talks to it."""
        process = subprocess.Popen(
            [installed / "wireproto", "serve", "--port", "0", "--store", tmp_path / "chat.db"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            ready = dict(word.split("=", 1) for word in process.stdout.readline().split()[1:])
            assert ready["store"] == str(tmp_path / "chat.db")
            lines = "1|ann|correct horse battery\n0|ann|correct horse battery\n3|ann|hello\nquit\n"
            done = subprocess.run(
                [installed / "wireproto-chat", ready["tcp"]],
                cwd=tmp_path,
                input=lines,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "hello" in done.stdout
        finally:
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, log
        assert "no gRPC" in log  # the extra is not installed, and the line says how to have it

    def test_the_commands_are_listed(self, installed: Path, tmp_path: Path) -> None:
        """`wireproto --help` has the chat's commands, and `wireproto ops` prints the chat's table."""
        listed = must(installed / "wireproto", "--help", cwd=tmp_path)
        assert "Talk to other people on a chat server." in listed
        assert "Upgrade, check or back up the chat's database." in listed
        assert "SendMessage" in must(installed / "wireproto", "ops", cwd=tmp_path)
        assert must(installed / "python", "-m", "wireproto_chat", "--help", cwd=tmp_path).startswith(
            "Usage: wireproto-chat "
        )
