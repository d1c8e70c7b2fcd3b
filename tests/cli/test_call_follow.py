"""`wireproto call --follow`: streams that are gone on with."""

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import run
from tests.client.resumed import Log
from wireproto import Server
from wireproto.testing import Cut, FaultProxy

SERVICE = ("--service", "tests.client.resumed:LOGS")


@pytest.fixture
def log() -> Log:
    """Items 1 to 6, of which the first three are forgotten."""
    return Log(6, forgotten=3)


@pytest.fixture
def address(log: Log) -> Iterator[str]:
    with Server(log.handlers()) as server:
        yield str(server.address)


@pytest.mark.parametrize("declared", [SERVICE, ()], ids=["declared", "described"])
def test_a_stream_begins_behind_a_position(address: str, declared: tuple[str, ...]) -> None:
    """Whether the service is known by its source or by what the server says of itself; bytes are hex."""
    done = run("call", address, "ReadNumbered", "upto=6", "--resume-after", "1", *declared)
    assert [json.loads(line)["cursor"] for line in done.stdout.splitlines()] == [2, 3], done.stderr
    assert done.stderr == ""
    done = run("call", address, "ReadMarked", "upto=6", "--resume-after", "ff0005", *declared)
    assert [json.loads(line)["cursor"] for line in done.stdout.splitlines()] == ["ff0006"], done.stderr


def test_a_gap_is_said_and_is_no_item(address: str) -> None:
    """On stderr, with the position before it; -n counts items."""
    done = run("call", address, "ReadNumbered", "upto=6", "--resume-after", "-1", "-n", "2", *SERVICE)
    assert [json.loads(line)["cursor"] for line in done.stdout.splitlines()] == [1, 2]
    assert done.stderr == "* items may be missing behind -1\n"


def test_a_lost_stream_goes_on(address: str, log: Log) -> None:
    """Each item is printed once, whatever becomes of the connection."""
    with FaultProxy(address, down=[Cut(600, count=2)]) as proxy:
        log.grow(60)
        done = run("call", str(proxy.address), "ReadNumbered", "upto=60", "--follow", *SERVICE)
    cursors = [json.loads(line)["cursor"] for line in done.stdout.splitlines()]
    assert cursors == list(range(1, 58)), done.stderr
    assert len(log.begun) > 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("ReadPlain", "upto=1", "--follow"), "ReadPlain cannot be followed"),
        (
            ("ReadNumbered", "upto=1", "--resume-after", "x"),
            "'x' is no position of ReadNumbered: Numbered.cursor: the position is no number of -2**63 to",
        ),
        (("ReadNumbered", "upto=1", "--resume-after", "9223372036854775808"), "is no number of -2**63 to 2**63 - 1"),
        (("ReadNumbered", "upto=1", "--resume-after", "1_000"), "is no number of"),
        (("ReadMarked", "upto=1", "--resume-after", "0"), "is written in hex, two digits for each byte"),
        (("ReadNamed", "upto=1", "--resume-after", ""), "1 to 64 bytes"),
    ],
)
def test_what_cannot_be_followed_is_said(address: str, words: tuple[str, ...], problem: str) -> None:
    """Before anything is sent."""
    done = run("call", address, *words, *SERVICE)
    assert done.exit_code == 2
    assert problem in done.stderr
