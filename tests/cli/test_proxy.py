"""`wireproto proxy`: faults by option, lines about what happens, and a clean end."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from calculator import ADD, CALCULATOR, AddRequest, handlers

from tests.cli.conftest import PATIENCE, ROOT, environment, run
from wireproto import Address, ConnectionLost, Server, connect

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(handlers) as made:
        yield made


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """Starts proxies in front of the calculator; those that the test left running are ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "wireproto.cli", "proxy", "127.0.0.1:0", str(server.address), *words],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


def lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    yield from iter(process.stdout.readline, "")


def test_a_cut_is_told_and_an_interrupt_ends_it(start: Start) -> None:
    """Each connection and fault is a line; SIGINT ends it with status 0 and the sums on stderr."""
    process = start("--cut-at", "250", "--direction", "down", "--seed", "7")
    told = lines(process)
    ready = dict(word.split("=") for word in next(told).split()[1:])
    assert (ready["faults"], ready["seed"]) == ("cut", "7")
    with connect(ready["listen"], CALCULATOR, codec="pipe") as client:
        answers = client.call_many(ADD, [AddRequest(left=2, right=3)] * 100)
        with pytest.raises(ConnectionLost):
            list(answers)
    opened, fault, closed = (next(told).split() for _ in range(3))
    assert (opened[1], opened[2]) == ("#1", "open")
    assert fault[1:7] == ["#1", "fault", "down", "cut", "at", "byte"]
    assert fault[7] == "250"
    assert closed[2] == "close"
    assert "down 250 B" in " ".join(closed)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert err.startswith("1 connection, ")
    assert err.endswith(" 250 bytes down, faults: cut 1\n")
    assert "Traceback" not in out + err


def test_json_lines_are_for_programs(start: Start) -> None:
    """With --json each line is an object; the last one has the sums."""
    process = start("--json", "--slice", "5", "--latency", "1ms", "--skip", "1", "--count", "1")
    told = (json.loads(line) for line in lines(process))
    ready = next(told)
    assert (ready["kind"], ready["faults"]) == ("ready", ["latency", "slicer"])
    for _ in range(3):
        with connect(ready["listen"], CALCULATOR) as client:
            assert client.call(ADD, AddRequest(left=2, right=3)).total == 5
        assert next(told)["kind"] == "open"
        closed = next(told)
        assert (closed["kind"], closed["detail"]) == ("close", "both sides ended")
        assert closed["up"] > 100
    process.terminate()
    (end,) = told
    assert (end["kind"], end["connections"], end["open"]) == ("end", 3, 0)
    assert end["faults"] == {"latency": 2, "slicer": 2}, "one connection, both directions"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_whoever_reads_may_have_had_enough(start: Start) -> None:
    """When its output leads nowhere any more it ends, without a complaint."""
    process = start()
    assert process.stdout is not None
    listen = dict(word.split("=") for word in process.stdout.readline().split()[1:])["listen"]
    process.stdout.close()
    host, port = Address.parse(listen)
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.connect_ex((host, port))  # it may end so soon that this is already told
        assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stdout = None


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--jitter", "5ms"], "--jitter changes a latency; give --latency, too"),
        (["--stall-for", "5s"], "--stall-for says how long; give --stall-at, too"),
        (["--latency", "fast"], "'fast' is no time; write 20ms"),
        (["--bandwidth", "0"], "Bandwidth.rate is 0"),
        (["--slice", "1 furlong"], "is no size; write 512, 64KiB or 1MiB"),
        (["--flip-bit", "-1"], "-1 is not in the range"),
        (["--direction", "sideways"], "'sideways' is not one of"),
    ],
)
def test_senseless_options_are_refused(words: list[str], answer: str) -> None:
    """Options that make no sense are refused with what to write, before anything listens."""
    done = run("proxy", ":0", ":1", *words)
    assert done.exit_code == 2
    assert answer in done.output


def test_an_address_in_use_is_refused(server: Server) -> None:
    """It says what cannot be listened on."""
    done = run("proxy", str(server.address), ":1")
    assert done.exit_code == 2
    assert f"cannot listen on {server.address}: Address already in use" in done.output
