"""`wireproto call` of methods that take items, or answer nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, ROOT, environment, run
from tests.cli.services import remarks, tallies
from wireproto import Server, Status

SERVICE = ("--service", "tests.cli.services:TALLIES")
LINES = '{"number": 1}\n\n{"number": 2, "unit": "s"}\n{"number": 3}\n'


@pytest.fixture
def address() -> Iterator[str]:
    """Where the readings are taken; behind the test all handlers have returned."""
    with Server(tallies) as server:
        yield str(server.address)


def test_lines_of_stdin_are_items(address: str) -> None:
    """Each line of JSON is one, blank lines are none; the one answer is printed as that of any call."""
    for data in ((), ("-d", "@-")):
        done = run("call", address, "Tally", *data, *SERVICE, stdin=LINES)
        assert json.loads(done.stdout) == {"count": 3, "total": 6, "units": "ms"}, done.stderr
        assert (done.exit_code, done.stderr) == (0, "")


def test_items_can_be_given_with_the_command(address: str, tmp_path: Path) -> None:
    """As text, in a file, or one of them as words; where there are both, the words win in every item."""
    file = tmp_path / "readings.jsonl"
    file.write_text(LINES)
    for words, count, total, units in (
        (("-d", LINES), 3, 6, "ms"),
        (("-d", f"@{file}"), 3, 6, "ms"),
        (("number=7",), 1, 7, "m"),
        (("-d", LINES, "unit=h"), 3, 6, "h"),
        (("-d", ""), 0, 0, ""),
    ):
        done = run("call", address, "Tally", *words, *SERVICE, stdin="never read")
        assert json.loads(done.stdout) == {"count": count, "total": total, "units": units}, done.stderr


def test_answers_are_lines(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of a duplex call each item that comes back is printed, up to as many as are wanted."""
    lines = "".join(f'{{"number": {n}}}\n' for n in range(200))
    done = run("call", address, "Running", *SERVICE, stdin=lines)
    assert [json.loads(line)["count"] for line in done.stdout.splitlines()] == list(range(1, 201)), done.stderr
    done = run("call", address, "Running", "-n", "3", *SERVICE, stdin=lines)
    assert [json.loads(line)["total"] for line in done.stdout.splitlines()] == [0, 1, 3]
    assert done.exit_code == 0
    assert caplog.text == ""


def test_lines_come_through_a_pipe(address: str) -> None:
    """A process that writes them one by one has an answer to each."""
    with subprocess.Popen(
        [sys.executable, "-m", "wireproto.cli", "call", address, "Running", *SERVICE],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for n in range(40):
            process.stdin.write(f'{{"number": {n}}}\n')
            process.stdin.flush()
        process.stdin.close()
        answers = process.stdout.read().splitlines()
        assert process.wait(PATIENCE) == 0
    assert [json.loads(line)["count"] for line in answers] == list(range(1, 41))


@pytest.mark.parametrize(
    ("line", "said"), [("{", "line 2: not JSON"), ('{"number": "x"}', "line 2: "), ('{"nobody": 1}', "line 2: ")]
)
def test_a_line_that_is_no_item_ends_the_call(
    address: str, line: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a mistake of the command line, and the text says which line it is; the server has no complaint."""
    done = run("call", address, "Tally", *SERVICE, stdin=f'{{"number": 1}}\n{line}\n')
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert caplog.text == ""


def test_a_file_that_is_not_there_is_said_so(address: str, tmp_path: Path) -> None:
    """The call is given up, and the file is named."""
    done = run("call", address, "Tally", "-d", f"@{tmp_path / 'none'}", *SERVICE)
    assert done.exit_code == 1
    assert "none cannot be read: No such file or directory" in done.stderr


def test_a_one_way_call_prints_nothing() -> None:
    """It has reached the server when the command is over."""
    remarks.clear()
    with Server(tallies) as server:
        done = run("call", str(server.address), "Remark", "number=4", *SERVICE)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert remarks == [4]


def test_verbose_says_what_is_sent(address: str) -> None:
    """Each item has a line of its own."""
    done = run("call", address, "Tally", "-v", *SERVICE, stdin=LINES)
    assert done.stderr.count("> Tally opcode 0x0001, payload ") == 3
    assert "< Tally ended after" in done.stderr


def test_nobody_there_is_said_before_anything_is_read() -> None:
    """As with any call."""
    done = run("call", "127.0.0.1:1", "Tally", *SERVICE, stdin=LINES)
    assert done.exit_code == 10 + Status.UNAVAILABLE
