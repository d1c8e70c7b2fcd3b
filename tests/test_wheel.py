"""The built wheel and source archive, each in an empty environment: what a user gets."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
"""Seconds for building and installing, which may download the dependencies."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _run(*command: str | Path, cwd: Path) -> str:
    # No path of this project: what is imported is what was installed.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, built from the sources here, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    # Without isolation, for hatchling is in the environment of the tests: nothing is downloaded.
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel."""
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def command(request: pytest.FixtureRequest, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `wireproto` in an environment with the framework and its extra `cli`, and no application."""
    (found,) = built.glob(request.param)
    folder = tmp_path_factory.mktemp("command") / "venv"
    venv.create(folder, with_pip=True)
    _run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"{found}[cli]", cwd=folder)
    return folder / "bin" / "wireproto"


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, its dependencies and nothing else: no extra."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=True)
    _run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return folder


def test_the_wheel_has_every_module_and_its_marker(wheel: Path) -> None:
    """Each tracked source of the package is in the wheel, py.typed too, and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wireproto").rglob("*.py")}
    assert sources <= names
    assert "wireproto/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"wireproto", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


def test_the_example_runs(empty: Path) -> None:
    """The ten-line service runs where only the wheel is installed."""
    example = ROOT / "examples" / "calculator.py"
    assert _run(empty / "bin" / "python", example, cwd=empty) == "5\n"


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_every_codec_loads(empty: Path, codec: str) -> None:
    """The three codecs need no extra."""
    code = f"from wireproto import codecs; print(codecs.get({codec!r}).name)"
    assert _run(empty / "bin" / "python", "-c", code, cwd=empty) == f"{codec}\n"


def test_the_command_says_what_it_lacks(empty: Path) -> None:
    """Without the extra `cli` the installed command is there and says what to install."""
    done = subprocess.run(
        [empty / "bin" / "wireproto", "--version"],
        cwd=empty,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'wireproto[cli]'" in done.stderr


@pytest.mark.parametrize(("name", "argument"), [("serve", "MODULE:HANDLERS"), ("ops", "MODULE:SERVICE")])
def test_without_an_application_it_says_what_to_install(command: Path, name: str, argument: str) -> None:
    """`wireproto serve` without handlers, where nothing else is installed, names both ways out."""
    done = subprocess.run([command, name], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"name your own, wireproto {name} {argument}, or install one: pip install wireproto-chat" in done.stderr


def test_the_source_archive_is_the_frameworks_alone(built: Path, tmp_path: Path) -> None:
    """The chat, with its own archive, is not in the framework's, whose Makefile knows what to do without it."""
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "serve", "test", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, cwd=unpacked, env=kept, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "./chat" not in done.stdout
    assert any(name.endswith("/wireproto/py.typed") for name in names)
    assert not [name for name in names if "wireproto_chat" in name]
