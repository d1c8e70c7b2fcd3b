"""`wireproto fuzz`: what it prints, what it leaves behind, and whom it refuses to fuzz."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.cli.services import SHOP
from tests.conformance.fuzzing.faulty import FaultyServer
from wireproto import Handlers, Server, Service
from wireproto.cli import fuzz
from wireproto.conformance.fuzzing.live import Campaign, Finding
from wireproto.conformance.raw import RawListener


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that is right; its methods have no handlers, which is an outcome, too."""
    with Server(Handlers(SHOP)) as running:
        yield str(running.address)


def test_a_clean_server_is_said_so(server: str, tmp_path: Path) -> None:
    """By reflection alone: what was sent is counted, nothing is found, nothing is written, the status is 0."""
    done = run("fuzz", server, "-n", "150", "--seed", "1", "--findings", str(tmp_path), "--pid", str(os.getpid()))
    assert "no findings" in done.stdout, done.stdout
    assert "example.v1.ShopService in msgpack, seed 1" in done.stdout
    assert "150 connections" not in done.stdout  # there were probes besides
    assert "before: " in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert done.exit_code == 0


@pytest.fixture
def ended() -> Iterator[int]:
    """The number of a process that has ended, and of which nobody has asked how."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


def test_a_process_that_has_ended_is_said_so(server: str, ended: int) -> None:
    """--pid of a process that is not there any more ends with a sentence before anything is sent."""
    for pid, why in ((ended, errno.ESRCH), (2**22 + 1, errno.ENOENT)):
        done = run("fuzz", server, "-n", "5", "--pid", str(pid))
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"wireproto: process {pid} cannot be measured: {os.strerror(why)}\n"


def test_a_process_that_ends_meanwhile_is_a_finding(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is summed up all the same, and that the process is gone stands below it."""
    with subprocess.Popen(["sleep", "60"]) as process:

        class Deadly(Campaign):
            def run(self, connections: int | None = None, seconds: float | None = None) -> Iterator[Finding | None]:
                yield from super().run(connections, seconds)
                process.kill()
                process.wait()

        monkeypatch.setattr(fuzz, "Campaign", Deadly)
        done = run("fuzz", server, "-n", "40", "--pid", str(process.pid), "--json")
    summary = json.loads(done.stdout)
    assert done.exit_code == 1
    assert summary["problems"] == {f"process {process.pid} cannot be measured: {os.strerror(errno.ENOENT)}": 1}
    assert (summary["findings"], summary["cases"]["hello"] > 0) == (1, True)


def test_a_summary_can_be_json(server: str) -> None:
    """--json prints one object with all figures; --kind leaves out the other kinds."""
    done = run("fuzz", server, "-n", "40", "--seed", "2", "--codec", "pipe", "--kind", "hello", "--json")
    summary = json.loads(done.stdout)
    assert summary["cases"] == {"hello": 40}
    assert summary["findings"] == 0
    assert summary["probes_answered"] == 1
    assert summary["codec"] == "pipe"


def test_a_finding_is_written_down_and_shown_again(tmp_path: Path) -> None:
    """A fault ends in status 1 with a file, and --replay of the file tells whether it is still there."""
    words = ("--service", "tests.cli.services:SHOP", "--timeout", "20")
    with FaultyServer("invents reasons") as faulty:
        address = f"127.0.0.1:{faulty.address[1]}"
        done = run("fuzz", address, *words, "-n", "60", "--seed", "3", "--kind", "valid", "--findings", str(tmp_path))
        assert done.exit_code == 1
        assert "which it does not declare" in done.stdout
        files = sorted(tmp_path.iterdir())
        assert 1 <= len(files) <= 3  # of the same finding no more
        assert str(files[0]) in done.stdout
        again = run("fuzz", address, *words, "--replay", str(files[0]))
        assert again.exit_code == 1
        assert "it is still there" in again.stdout
    with FaultyServer() as mended:
        gone = run("fuzz", f"127.0.0.1:{mended.address[1]}", *words, "--replay", str(files[0]))
        assert gone.exit_code == 0
        assert "nothing is wrong with the answer any more" in gone.stdout


def test_other_machines_are_left_alone() -> None:
    """An address that is not this machine's is refused before anything is sent, unless it is said to be meant."""
    done = run("fuzz", "192.0.2.1:7411")
    assert done.exit_code == 2
    assert "say --allow-remote" in done.stderr


def test_a_server_that_describes_nothing_needs_a_service() -> None:
    """A server without reflection, or with several services, is answered by what to write."""
    two = [Handlers(SHOP), Handlers(Service("example.v1.OtherService", version=1, methods=[]))]
    with Server(two) as running:
        done = run("fuzz", str(running.address), "-n", "1")
        assert done.exit_code == 2
        assert "say with --service which one is meant" in done.stderr
        named = run("fuzz", str(running.address), "-n", "20", "--service", "example.v1.OtherService")
        assert named.exit_code == 0, named.output


def test_nobody_there_is_an_error_and_no_finding() -> None:
    """A port where nobody listens ends with a sentence."""
    with RawListener() as listener:
        address = f"127.0.0.1:{listener.address[1]}"
    done = run("fuzz", address, "-n", "1")
    assert done.exit_code != 0
    assert "cannot be reached" in done.stderr


def test_a_file_that_is_no_reproducer_is_refused(tmp_path: Path, server: str) -> None:
    """--replay of some other file says so."""
    path = tmp_path / "x.json"
    path.write_text("{}")
    done = run("fuzz", server, "--replay", str(path))
    assert done.exit_code == 2
    assert "is no reproducer" in done.stderr
