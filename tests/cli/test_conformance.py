"""`wireproto conformance`: what is selected, what is reported, and the exit status."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import run, wireproto
from tests.conformance.conftest import QUICK
from wireproto.conformance.service import CONFORMANCE, authenticate, make_handlers
from wireproto.dispatch import Handlers
from wireproto.server import Server


@pytest.fixture
def address() -> Iterator[str]:
    with Server(make_handlers(), port=0, authenticate=authenticate, limits=QUICK) as server:
        yield str(server.address)


@pytest.fixture
def broken() -> Iterator[str]:
    """A server of the conformance service without a handler."""
    with Server(Handlers(CONFORMANCE), port=0, limits=QUICK) as server:
        yield str(server.address)


def test_a_right_server_is_reported_by_section(address: str) -> None:
    """Each section has a line, the last line sums up, and the status is 0."""
    done = run("conformance", address, "--section", "1", "--section", "13")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["1", "13"]
    assert lines[-1].startswith("30 cases, 78 runs: 78 passed, 0 failed in")
    assert done.stderr == ""


def test_a_case_is_selected_by_its_number(address: str) -> None:
    """--case takes the number with the letter and without, --codec and --version leave out runs."""
    done = run(
        "conformance", address, "--case", "2.08", "--case", "s2.09", "--codec", "pipe", "--version", "2", "--json"
    )
    report = json.loads(done.stdout)
    assert [case["id"] for case in report["results"]] == ["s2.08", "s2.09"]
    assert [(each["codec"], each["version"]) for case in report["results"] for each in case["runs"]] == [
        ("pipe", 2)
    ] * 2
    assert (report["conforms"], report["passed"], report["failed"]) == (True, 2, 0)


def test_a_deviation_is_explained(broken: str) -> None:
    """A case that fails says the rule and what was seen, and the status is 1."""
    done = run("conformance", broken, "--case", "9.13")
    assert done.exit_code == 1
    assert "Each of the sixteen statuses reaches the client with its reason." in done.stdout
    assert "failed with NO_HANDLER and not AS_ASKED" in done.stdout


def test_known_deviations_are_run_and_expected(broken: str, tmp_path: Path) -> None:
    """What is listed may fail, in the codec listed only; what is listed and passes is said."""
    known = tmp_path / "known.txt"
    known.write_text("# of 2026\ns9.13/pipe  # it has no Fail\n\ns9.13/msgpack/1\ns13.07\n")
    done = run("conformance", broken, "--case", "9.13", "--case", "13.07", "--known", str(known), "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (report["known_to_fail"], report["failed"]) == (4, 5)
    assert report["known_that_pass"] == ["s13.07"]
    known.write_text("s9.13")
    done = run("conformance", broken, "--case", "9.13", "--known", str(known))
    assert done.exit_code == 0
    assert "0 failed, 9 known to fail" in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "name the server to judge"),
        (("--server",), "takes the command"),
        (("127.0.0.1:1",), "cannot be reached"),
        (("127.0.0.1:1", "--case", "99.01"), "no case 99.01"),
        (("127.0.0.1:1", "--section", "15"), "section 15 has no case"),
        (("--server", "--", "/nowhere/at/all"), "cannot be started"),
        (("--server", "--", sys.executable, "-c", "raise SystemExit('no port')"), "no port"),
    ],
)
def test_what_cannot_be_judged_is_said(words: tuple[str, ...], text: str) -> None:
    """Wrong usage, and a server that is not there, are a sentence and status 2."""
    done = run("conformance", *words)
    assert done.exit_code == 2
    assert text in done.stderr


def test_a_wrong_line_in_the_list_of_known_deviations(address: str, tmp_path: Path) -> None:
    """A name that no case has is refused with its line."""
    known = tmp_path / "known.txt"
    known.write_text("s1.01\ns1.99\n")
    done = run("conformance", address, "--case", "1.01", "--known", str(known))
    assert done.exit_code == 2
    assert "line 2" in done.stderr


def test_the_cases_are_listed() -> None:
    """--list prints a line for each case: its id, what it is repeated over, what it needs, and its rule."""
    rows = [line.split("\t") for line in run("conformance", "--list").stdout.splitlines()]
    assert len(rows) >= 150
    assert {len(row) for row in rows} == {4}
    assert ["s2.08", "every codec and version", "any server", "A length of 11 is FRAME_TOO_SHORT."] in rows


@pytest.mark.slow
def test_a_server_is_started_and_ended() -> None:
    """--server starts the command, which serves the conformance service here, and judges its end, too."""
    own = (sys.executable, "-m", "wireproto.cli", "conformance", "--serve", "--port", "0")
    done = wireproto("conformance", "--case", "1.01", "--case", "4.72", "--case", "4.73", "--server", "--", *own)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 cases, 3 runs: 3 passed" in done.stdout


@pytest.mark.slow
def test_a_client_is_judged() -> None:
    """--client starts the command, tells it what to do, and reports as for a server."""
    own = (sys.executable, "-m", "wireproto.conformance.adapter")
    done = wireproto("conformance", "--section", "1", "--codec", "pipe", "--client", "--", *own)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 cases, 7 runs: 7 passed" in done.stdout


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ('print(\'{"unsupported": "streams"}\')', "does not implement it: streams"),
        ("print('hello')", "no JSON object"),
        ("print('{}')", "it did not connect, and its line has none of results, connect_error and unsupported"),
        ("print('{\"results\": []}')", "it did not connect, and said {'results': []}"),
        ("raise SystemExit(1)", "has ended"),
    ],
)
def test_what_a_client_says_instead_is_reported(program: str, text: str) -> None:
    """A program that implements less, and one that is none, are told apart, in the report and by the status."""
    done = run(
        "conformance",
        "--case",
        "4.40",
        "--codec",
        "pipe",
        "--client",
        "--",
        sys.executable,
        "-c",
        f"input(); {program}",
    )
    assert text in done.stdout
    assert done.exit_code == (2 if "unsupported" in program else 1)
