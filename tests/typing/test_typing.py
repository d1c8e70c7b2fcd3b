"""Declarations, calls and handlers under mypy and pyright, both strict: what is inferred, and what is refused."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CASES = sorted((Path(__file__).parent / "cases").glob("*.py"))
MARK = re.compile(r"# error: ")

Complaint = tuple[str, int]


def marked() -> set[Complaint]:
    """The lines that say they must not pass."""
    return {
        (path.name, number)
        for path in CASES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if MARK.search(line)
    }


def mypy(scratch: Path) -> dict[Complaint, str]:
    """What mypy says about the cases, by line."""
    command = ["mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(scratch)]
    done = run([*command, "--output", "json", *map(str, CASES)])
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {
        (Path(each["file"]).name, int(each["line"])): str(each["message"])
        for each in said
        if each["severity"] == "error"
    }


def pyright(_: Path) -> dict[Complaint, str]:
    """What pyright says about the cases, by line."""
    try:
        version = run(["pyright", "--version"])
    except subprocess.TimeoutExpired:
        pytest.skip("pyright did not start within 100 s: it downloads its Node program when first run")
    if version.returncode != 0:
        pytest.skip(f"pyright cannot run, its Node program cannot be had: {version.stderr.strip()[-200:]}")
    # The cases say `pyright: strict` themselves: files named on the command line have no configuration.
    done = run(["pyright", "--pythonpath", sys.executable, "--pythonversion", "3.11", "--outputjson", *map(str, CASES)])
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(CASES)
    return {
        (Path(each["file"]).name, int(each["range"]["start"]["line"]) + 1): str(each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A checker, as a module of this interpreter, from the root of the project."""
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_exactly_the_marked_lines_are_refused(
    checker: Callable[[Path], dict[Complaint, str]], request: pytest.FixtureRequest
) -> None:
    """A checker accepts every line of the cases but those that are marked, and infers what they assert."""
    assert request.config.cache is not None
    said = checker(request.config.cache.mkdir(f"typing-{checker.__name__}"))
    expected = marked()
    assert {line: text for line, text in said.items() if line not in expected} == {}
    assert expected - said.keys() == set()


def test_the_cases_have_marks() -> None:
    """There is a file that passes whole, and one with many lines that must not."""
    assert {name for name, _ in marked()} == {"failing.py"}
    assert len(CASES) == 2
    assert len(marked()) > 20
