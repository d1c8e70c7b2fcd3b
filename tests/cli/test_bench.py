"""`wireproto bench`: figures of a server, its own or another."""

import csv
import json
import os
import socket
import threading
from array import array
from collections.abc import Iterator

import pytest

from tests.cli.conftest import run, wireproto
from tests.cli.services import doorman, vault
from tests.cli.services import shop as handlers
from tests.client.fakes import Peer, serving
from tests.client.service import SAY, EchoResponse
from tests.client.service import SERVICE as FAKE_SERVICE
from tests.client.service import EchoRequest as EchoedRequest
from wireproto import ConnectionLost, Limits, Server, Status
from wireproto.cli.bench import HANDLERS, _CpuTime
from wireproto.cli.load import Asked, Load, Sample
from wireproto.codecs import get
from wireproto.control import CONTROL, ECHO, EchoRequest
from wireproto.server.gateway import GrpcGateway
from wireproto.wire.events import ConnectionEnded, CreditReceived, FlaggedRequestReceived
from wireproto.wire.frame import Credit

CODECS = ["pipe", "msgpack", "protobuf"]
SHOP = "tests.cli.services:SHOP"


def echo(size: int) -> Asked:
    """The framework's Echo of so many bytes."""
    return Asked(CONTROL, ECHO, EchoRequest(payload=bytes(size)))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server inside this process."""
    with Server(HANDLERS, limits=Limits(max_calls=8)) as running:
        yield running


@pytest.mark.slow
def test_a_server_of_its_own_is_measured_in_every_codec() -> None:
    """Without an address it starts one, prints a line per codec, shows the server's CPU time, and ends it."""
    done = wireproto("bench", "-c", "2", "-n", "40", "--json")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["codec"] for result in results] == CODECS
    for result in results:
        assert result["calls"] == 40
        assert result["server_cpu_us"] > 0
        assert 0 < result["p50_us"] <= result["p95_us"] <= result["p99_us"] <= result["max_us"]
        assert result["average_us"] <= result["max_us"]


def test_an_address_is_measured_from_outside(server: Server) -> None:
    """Of a server that is not its own it shows no CPU time; every call asked for is made, and its bytes counted."""
    done = run(
        "bench", str(server.address), "-c", "3", "-n", "50", "-P", "4", "--codec", "msgpack", "--size", "100", "--csv"
    )
    assert done.exit_code == 0, done.stderr
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert (row["codec"], row["calls"], row["server_cpu_us"]) == ("msgpack", "50", "")
    # Two headers, two arrays of one, two byte strings with heads of two bytes.
    assert float(row["bytes_per_call"]) == 2 * (16 + 1 + 2 + 100)


def test_the_cpu_time_of_a_process_that_is_named_is_shown(server: Server) -> None:
    """With --pid the CPU time of a server that is not bench's own is measured, too."""
    done = run(
        "bench", str(server.address), "-c", "1", "-n", "50", "--codec", "pipe", "--json", "--pid", str(os.getpid())
    )
    assert json.loads(done.stdout)["server_cpu_us"] > 0


def test_a_thread_that_ended_is_no_loss() -> None:
    """CPU time is the sum of the threads', or that of the process when those are not the same any more."""
    before = _CpuTime(1.0, {"1": 0.6, "2": 0.4})
    assert _CpuTime(1.5, {"1": 0.9, "2": 0.45}).since(before) == pytest.approx(0.35)
    assert _CpuTime(1.5, {"1": 0.9}).since(before) == 0.5
    assert _CpuTime(1.5, {}).since(_CpuTime(1.0, {})) == 0.5


def test_a_process_that_is_not_there_is_said_so(server: Server) -> None:
    """A --pid of nobody fails before any load, with what to give instead."""
    done = run("bench", str(server.address), "-n", "5", "--pid", str(2**22 + 1))
    assert done.exit_code == 1
    assert "give the number of one that runs on this machine" in done.stderr


def test_for_people_it_is_a_table(server: Server) -> None:
    """A heading and a line per codec, in columns, with a dash for what cannot be seen."""
    head, *rows = run("bench", str(server.address), "-c", "1", "-n", "5").stdout.splitlines()
    assert head.split()[:2] == ["codec", "calls/s"]
    assert [row.split()[0] for row in rows] == CODECS
    assert {row.split()[-2] for row in rows} == {"-"}
    assert len({len(line) for line in (head, *rows)}) == 1


def test_a_stream_longer_than_its_credit_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credit is for 2**32 - 1 items and bytes: of that and of less all items come, of every stream in flight."""
    monkeypatch.setattr("wireproto.cli.load.FULL", Credit(5, 100))
    monkeypatch.setattr("wireproto.cli.load.REFILL_AFTER", 50)
    refilled = 0

    def script(peer: Peer) -> None:
        nonlocal refilled
        peer.greet()
        payload = peer.payload(SAY, EchoResponse(text="x" * 40))
        left: dict[int, int] = {}
        while not isinstance(event := peer.event(), ConnectionEnded):
            if isinstance(event, FlaggedRequestReceived):
                left[event.call_id] = 30
            refilled += isinstance(event, CreditReceived)
            for call_id in list(left):
                while left[call_id] and peer.connection.may_send_item(call_id):
                    peer.connection.send_item(call_id, payload)
                    left[call_id] -= 1
                if not left[call_id]:
                    peer.connection.send_end(call_id)
                    del left[call_id]
            peer.flush()

    asked = Asked(FAKE_SERVICE, SAY, EchoedRequest(text=""))
    with serving(script) as server:
        load = Load(server.address, get("msgpack"), asked, connections=1, pipeline=2)
        try:
            sample = load.run(4, None)
        finally:
            load.close()
    assert sample.calls == 4
    assert refilled >= 4 * (30 // 3 - 1)  # of what is 43 bytes long, three go for 100


def test_seconds_end_it(server: Server) -> None:
    """With -z it goes on for that long."""
    done = run("bench", str(server.address), "-c", "1", "-z", "0.2", "--codec", "pipe", "--json")
    assert json.loads(done.stdout)["seconds"] >= 0.2


def test_a_codec_the_server_lacks_is_left_out() -> None:
    """With all codecs, those that the server does not speak are named on stderr; asked for by name, it fails."""
    with Server(HANDLERS, codecs=["pipe"]) as server:
        done = run("bench", str(server.address), "-c", "1", "-n", "5", "--json")
        assert [json.loads(line)["codec"] for line in done.stdout.splitlines()] == ["pipe"]
        assert "msgpack: left out" in done.stderr
        assert run("bench", str(server.address), "-n", "5", "--codec", "msgpack").exit_code != 0


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["-n", "1", "-z", "1"], "give one of them"),
        (["--csv", "--json"], "give one of them"),
        (["--pid", "x"], "not a valid integer"),
        (["Tell", "--service", "wireproto.conformance.service:CONFORMANCE"], "Tell is called by the server"),
        (["-P", "9", "-n", "9"], "give a smaller -P"),
        (["--size", "2000000", "-n", "9"], "give a smaller --size"),
        (["--codec", "msgpak", "-n", "9"], "msgpack"),
        (["left=2"], "name the METHOD before it"),
        (["Echo", "--size", "5"], "--size is of Echo without a METHOD"),
        (["-d", "{}"], "go with a METHOD"),
        (["--service", SHOP], "go with a METHOD"),
        (["--handlers", "tests.cli.services:shop"], "leave out HOST:PORT, or them"),
        (["--grpc", "--codec", "pipe"], "gRPC has protobuf alone"),
        (["Ehco"], "did you mean Echo?"),
        (["Echo", "payload=0"], "EchoRequest.payload takes a string of hex digits"),
        (["Echo", "-H", "novalue"], "'novalue' is not KEY:VALUE"),
    ],
)
def test_wrong_words_are_explained(server: Server, words: list[str], advice: str) -> None:
    """What cannot be measured is refused with status 2 and says what to write instead."""
    done = run("bench", str(server.address), *words)
    assert done.exit_code == 2
    assert advice in done.stderr


def test_a_process_without_an_address_is_refused() -> None:
    """Which server a --pid is of must be said."""
    done = run("bench", "--pid", "1", "-n", "5")
    assert done.exit_code == 2
    assert "goes with HOST:PORT" in done.stderr


def test_nobody_there_is_told() -> None:
    """An address without a server fails with the status of UNAVAILABLE."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    done = run("bench", address, "-n", "5")
    assert done.exit_code == 24
    assert address in done.stderr


def test_a_server_that_goes_away_ends_it(server: Server) -> None:
    """A shutdown under way is reported as a lost connection and does not hang."""
    load = Load(server.address, get("msgpack"), echo(10), connections=2, pipeline=1)
    begun = threading.Event()
    stopping = threading.Thread(target=lambda: begun.wait(60) and server.shutdown())
    stopping.start()
    try:
        with pytest.raises(ConnectionLost, match=str(server.address)):
            load.run(None, 60, lambda share: begun.set())
    finally:
        load.close()
        stopping.join(60)


def test_large_messages_do_not_block_each_other(server: Server) -> None:
    """More than the kernel takes at once is written as it takes it, while answers are read."""
    load = Load(server.address, get("msgpack"), echo(900_000), connections=2, pipeline=4)
    try:
        sample = load.run(24, None)
    finally:
        load.close()
    assert sample.calls == 24
    assert sample.bytes_sent == sample.bytes_received
    assert (sample.bytes_sent or 0) > 24 * 900_000


def test_percentiles_are_of_the_nearest_rank() -> None:
    """The smallest time that at least so many calls did not exceed."""
    sample = Sample(4, 1.0, array("d", [1, 2, 3, 4]), 0, 0, 0.0)
    assert [sample.percentile(share) for share in (0.25, 0.5, 0.51, 0.99, 1.0)] == [1, 2, 3, 4, 4]


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[str, str]]:
    """The addresses of both doors of the shop and of a vault."""
    hosted = [handlers, vault]
    with Server(hosted, authenticate=doorman) as running, GrpcGateway(hosted, authenticate=doorman, port=0) as gateway:
        yield str(running.address), str(gateway.address)


@pytest.mark.parametrize("source", [(), ("--service", SHOP)], ids=["asked", "declared"])
@pytest.mark.parametrize("door", [0, 1], ids=["tcp", "grpc"])
def test_any_method_is_measured_on_either_door(shop: tuple[str, str], door: int, source: tuple[str, ...]) -> None:
    """A method with its request, from the server's description or a declaration: as many calls as were asked for."""
    words = ["bench", shop[door], "ShopService.Paint", "name=wall", "-d", '{"coats": 2}', *source, *["--grpc"] * door]
    done = run(*words, "-c", "2", "-P", "2", "-n", "30", "--json")
    assert done.exit_code == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["codec"] for result in results] == (["grpc"] if door else CODECS)
    for result in results:
        assert result["calls"] == 30
        assert 0 < result["p50_us"] <= result["p95_us"] <= result["max_us"]
        assert (result["bytes_per_call"] is None) == bool(door)


def test_metadata_goes_with_each_call(shop: tuple[str, str]) -> None:
    """-H makes a call that wants a credential one that is answered; without it the first refusal ends the load."""
    for address, door in zip(shop, ((), ("--grpc",)), strict=True):
        words = ("bench", address, "Secret", "-c", "1", "-n", "3", "--json", *door)
        assert run(*words, "-H", "authorization: Bearer open").exit_code == 0
        done = run(*words)
        assert done.exit_code == 10 + Status.UNAUTHENTICATED, done.output


def test_a_stream_is_one_call(shop: tuple[str, str]) -> None:
    """A stream is over when it ends; its items are counted by their bytes, and over gRPC it is refused in words."""
    few, many = (
        json.loads(run("bench", shop[0], "Count", f"to={items}", "-n", "6", "--codec", "msgpack", "--json").stdout)
        for items in (1, 500)
    )
    assert (few["calls"], many["calls"]) == (6, 6)
    assert many["bytes_per_call"] > few["bytes_per_call"] + 499 * 17
    done = run("bench", shop[1], "Count", "to=1", "--grpc")
    assert (done.exit_code, "measures over TCP only" in done.stderr) == (2, True)


def test_a_request_that_is_refused_ends_it(shop: tuple[str, str]) -> None:
    """The first call that fails ends the load, with its status, on both doors."""
    for address, door in zip(shop, ((), ("--grpc",)), strict=True):
        done = run("bench", address, "Fail", "status=5", "-n", "5", *door)
        assert done.exit_code == 15, done.output
        assert "NOT_FOUND TOLD_TO: you asked for it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("door", [(), ("--grpc",)], ids=["tcp", "grpc"])
def test_handlers_are_measured_in_a_server_of_its_own(door: tuple[str, ...]) -> None:
    """--handlers are served for as long as they are measured, on the door that is wanted."""
    words = ("bench", "--handlers", "tests.cli.services:shop", "Paint", "name=a", "-n", "20", "-c", "2", "--json")
    done = wireproto(*words, *(door or ("--codec", "pipe")))
    assert done.returncode == 0, done.stderr
    (result,) = map(json.loads, done.stdout.splitlines())
    # To 10 ms only, where threads were made meanwhile.
    assert (result["calls"], result["server_cpu_us"] >= 0) == (20, True)
