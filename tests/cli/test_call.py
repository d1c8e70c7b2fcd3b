"""`wireproto call`: requests from words and JSON, answers as JSON, errors as exit statuses."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, ROOT, environment, run
from tests.cli.services import namesakes, other
from tests.cli.services import shop as handlers
from wireproto import CallError, Server, Service, Status
from wireproto.control import DescribeResponse, describe
from wireproto.server import control

SERVICE = ("--service", "tests.cli.services:SHOP")
CONFORMING = ("--service", "wireproto.conformance.service:CONFORMANCE")


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The address of the shop, served."""
    with Server(handlers) as server:
        yield str(server.address)


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_an_answer_is_printed_as_json(shop: str, codec: str) -> None:
    """Words become the request, the answer one line of JSON, in every codec."""
    done = run("call", shop, "Paint", "name=wall", 'colours=["RED", 2]', "coats=2", *SERVICE, "--codec", codec)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == {"text": "wall:RED+BLUEx2", "digest": b"wall".hex(), "at": "2026-01-31T12:00:00Z"}
    assert done.exit_code == 0


def test_a_request_can_be_json(shop: str, tmp_path: Path) -> None:
    """-d takes JSON, a file, or stdin; words win over it."""
    file = tmp_path / "request.json"
    file.write_text('{"name": "file", "coats": 3}')
    for data, stdin in (('{"name": "text", "coats": 3}', ""), (f"@{file}", ""), ("@-", '{"name": "in", "coats": 3}')):
        done = run("call", shop, "Paint", "coats=4", "-d", data, *SERVICE, stdin=stdin)
        assert json.loads(done.stdout)["text"].endswith(":x4"), done.stderr


def test_metadata_reaches_the_handler(shop: str) -> None:
    """-H sends a key and a value beside the request."""
    done = run("call", shop, "Paint", "name=a", "-H", "who: me", *SERVICE)
    assert json.loads(done.stdout)["text"] == "a:x1me"


def test_a_stream_is_a_line_per_item(shop: str) -> None:
    """Each item of a stream is one line of JSON."""
    done = run("call", shop, "Count", "to=200", *SERVICE)
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == list(range(1, 201))
    assert done.exit_code == 0


def test_a_stream_can_be_left(shop: str) -> None:
    """-n ends a stream after so many items, though it would go on for ever."""
    done = run("call", shop, "Count", "to=3", "then=wait", "-n", "3", *SERVICE)
    assert len(done.stdout.splitlines()) == 3
    assert done.exit_code == 0


def test_a_stream_that_fails_keeps_what_it_printed(shop: str) -> None:
    """Items come first, then the error with its status."""
    done = run("call", shop, "Count", "to=2", "then=fail", *SERVICE)
    assert len(done.stdout.splitlines()) == 2
    assert "ABORTED STOPPED: that was all" in done.stderr
    assert done.exit_code == 10 + Status.ABORTED


def test_an_interrupted_stream_ends_quietly(shop: str) -> None:
    """SIGINT ends the command with 130 and no traceback."""
    with subprocess.Popen(
        [sys.executable, "-m", "wireproto.cli", "call", shop, "Count", "to=1", "then=wait", *SERVICE],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == '{"number": 1}\n'
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == ""


def test_a_reader_that_has_enough_ends_it(shop: str) -> None:
    """A closed pipe, as by head, is no error worth a word."""
    with subprocess.Popen(
        [sys.executable, "-m", "wireproto.cli", "call", shop, "Count", "to=100000", *SERVICE],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK], ids=lambda s: s.name)
def test_each_status_has_its_exit_status(shop: str, status: Status) -> None:
    """An error answer exits with 10 plus its number, and says what was answered on stderr only."""
    done = run("call", shop, "Fail", f"status={status.value}", *SERVICE)
    assert done.exit_code == 10 + status
    assert done.stdout == ""
    assert f"{status.name} TOLD_TO: you asked for it" in done.stderr


def test_retry_advice_is_shown(shop: str) -> None:
    """What the server knows about trying again stands below the error."""
    done = run("call", shop, "Fail", "status=14", "retry_after_ms=250", *SERVICE)
    assert "not processed: it is safe to try again in 250 ms" in done.stderr


def test_a_timeout_ends_the_call(shop: str) -> None:
    """--timeout is the deadline of the call; a handler that sleeps on does not keep the caller."""
    done = run("call", shop, "Wait", "seconds=20", "--timeout", "0.5", *SERVICE)
    assert done.exit_code == 10 + Status.DEADLINE_EXCEEDED


def test_nobody_there_is_said_so() -> None:
    """A server that cannot be reached is UNAVAILABLE, with the address."""
    done = run("call", "127.0.0.1:1", "Paint", "name=a", *SERVICE)
    assert done.exit_code == 10 + Status.UNAVAILABLE
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_frameworks_methods_are_everywhere(shop: str) -> None:
    """Check, Describe and Echo can be called on a connection of any service."""
    done = run("call", shop, "Check", *SERVICE)
    assert json.loads(done.stdout)["health"] == "SERVING"
    done = run("call", shop, "Echo", "payload=00ff", *SERVICE)
    assert json.loads(done.stdout) == {"payload": "00ff"}
    done = run("call", shop, "Describe", *SERVICE)
    assert [each["full_name"] for each in json.loads(done.stdout)["services"]] == ["example.v1.ShopService"]


@pytest.mark.parametrize("service", [(), ("--service", "tests.cli.services:NAMESAKES")], ids=["asked", "declared"])
@pytest.mark.parametrize("method", ["Echo", "Check", "Describe"])
def test_a_services_own_method_wins(method: str, service: tuple[str, ...]) -> None:
    """A method that is called like one of the framework's is the service's; the other has its service in front."""
    with Server(namesakes) as server:
        address = str(server.address)
        for name in (method, f"NamesakeService.{method}", f"example.v1.NamesakeService/{method}"):
            done = run("call", address, name, "word=x", *service)
            assert done.stdout == '{"word": "our own, x"}\n', done.stderr
        for name in (f"ControlService.{method}", f"wirecontrol.v1.ControlService/{method}"):
            done = run("call", address, name, *service)
            assert done.exit_code == 0, done.stderr
            assert "word" not in json.loads(done.stdout)


def test_a_method_is_named_with_its_service() -> None:
    """Where two services have a method of one name, Service.Method says which, with a dot or a slash."""
    with Server([handlers, other]) as server:
        address = str(server.address)
        done = run("call", address, "Paint", "name=a")
        assert "write one of example.v1.ShopService/Paint, example.v1.OtherService/Paint" in done.stderr
        for name in ("ShopService.Paint", "ShopService/Paint", "example.v1.ShopService.Paint"):
            assert json.loads(run("call", address, name, "name=a").stdout)["text"] == "a:x1"
        for name in ("ShopService.Pain", "Nobody.Paint", "XPaint", ".Paint", "Shop.Paint"):
            done = run("call", address, name, "name=a")
            assert (done.exit_code, "have no method" in done.stderr) == (2, True), done.output


def test_health_is_asked_of_a_server_that_describes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose description cannot be had, or is empty, still answers Check; other methods are a sentence."""

    def broken(service: Service) -> None:
        raise CallError(Status.INTERNAL, "INTERNAL", "no description today")

    with Server(handlers) as server:
        monkeypatch.setattr(control, "describe", broken)
        assert json.loads(run("call", str(server.address), "Check").stdout)["health"] == "SERVING"
        done = run("call", str(server.address), "Paint", "name=a")
        assert (done.exit_code, "no description today" in done.stderr) == (10 + Status.INTERNAL, True), done.output
        monkeypatch.setattr(
            control, "DescribeResponse", lambda server, services: DescribeResponse(server="", services=[])
        )
        monkeypatch.setattr(control, "describe", describe)
        assert json.loads(run("call", str(server.address), "Check").stdout)["health"] == "SERVING"
        done = run("call", str(server.address), "Paint", "name=a")
        assert (done.exit_code, "has no method 'Paint'" in done.stderr) == (2, True), done.output


def test_verbose_shows_what_is_sent(shop: str) -> None:
    """-v says on stderr what was agreed, the payload's bytes and how long it took; stdout stays data."""
    done = run("call", shop, "Paint", "name=abc", "--codec", "pipe", "-v", *SERVICE)
    assert "codec pipe" in done.stderr
    assert b"abc|[]|1".hex(" ") in done.stderr
    assert " ms" in done.stderr
    assert list(json.loads(done.stdout)) == ["text", "digest", "at"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["127.0.0.1", "Paint", "name=a", *SERVICE], "write HOST:PORT"),
        (["127.0.0.1:1", "Pain", *SERVICE], "has no method 'Pain'; did you mean Paint?"),
        (["127.0.0.1:1", "Elephant", *SERVICE], "there are Paint, Count, Fail, Wait"),
        (["127.0.0.1:1", "Paint", *SERVICE], "PaintRequest.name must be given"),
        (["127.0.0.1:1", "Paint", "nme=a", *SERVICE], "did you mean name?"),
        (["127.0.0.1:1", "Paint", "name=a", "coats=many", *SERVICE], "PaintRequest.coats takes an integer"),
        (["127.0.0.1:1", "Paint", "-d", "{", *SERVICE], "not JSON"),
        (["127.0.0.1:1", "Paint", "-d", "[]", *SERVICE], "PaintRequest takes an object"),
        (["127.0.0.1:1", "Paint", "name=a", "-H", "novalue", *SERVICE], "'novalue' is not KEY:VALUE"),
        (["127.0.0.1:1", "Paint", "name=a", "--codec", "pip", *SERVICE], "did you mean 'pipe'?"),
        (["127.0.0.1:1", "Paint", "name=a", "--timeout", "0", *SERVICE], "--timeout"),
        (["127.0.0.1:1", "Paint", "name=a", "--service", "tests.cli.services:shop"], "not Service"),
        (["127.0.0.1:1", "Tell", *CONFORMING], "Tell is called by the server; a client answers it and cannot call it"),
        (["127.0.0.1:1", "ConformanceService.Tell", *CONFORMING], "Tell is called by the server"),
        (["127.0.0.1:1", "Tel", *CONFORMING], "there are Mirror"),
    ],
)
def test_a_wrong_command_line_is_explained(words: list[str], complaint: str) -> None:
    """What is asked wrongly ends with status 2 and a sentence, before anything is connected."""
    done = run("call", *words)
    assert complaint in done.stderr
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """-d @FILE without the file is status 1, with its name."""
    done = run("call", "127.0.0.1:1", "Paint", "-d", f"@{tmp_path}/none.json", *SERVICE)
    assert done.exit_code == 1
    assert "none.json" in done.stderr


def test_letters_that_the_output_lacks_are_escaped(shop: str) -> None:
    """JSON stays JSON where stdout is not UTF-8."""
    words = ("call", shop, "Paint", "name=Zo\u00eb \u2603 \U0001f600", *SERVICE)
    command = [sys.executable, "-m", "wireproto", *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(PYTHONIOENCODING="latin-1"),
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert json.loads(done.stdout.decode("ascii"))["text"].startswith("Zo\u00eb \u2603 \U0001f600")


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
@pytest.mark.parametrize("words", [("Paint", "name=wall"), ("Count", "to=5"), ("Check",), ("Count", "then=fail")])
def test_grease_changes_nothing(shop: str, words: tuple[str, ...], codec: str) -> None:
    """--grease says what nobody knows on each connection, and the answers are those without it."""
    for service in (SERVICE, ()):
        plain = run("call", shop, *words, *service, "--codec", codec)
        for seed in ("1", "2"):
            greased = run("call", shop, *words, *service, "--codec", codec, "--grease", "--seed", seed)
            assert (greased.stdout, greased.exit_code) == (plain.stdout, plain.exit_code)
        assert run("call", shop, *words, *service, "--codec", codec, "--grease").stdout == plain.stdout


def test_a_greased_call_can_be_had_again(shop: str) -> None:
    """-v shows the seed, which says the same things again; without --grease it means nothing."""
    done = run("call", shop, "Paint", "name=wall", *SERVICE, "--grease", "-v")
    assert re.search(r"greased with --seed \d+$", done.stderr, re.MULTILINE), done.stderr
    done = run("call", shop, "Check", "--seed", "1")
    assert done.exit_code == 2
    assert "--grease" in done.stderr
