"""`wireproto serve`: the ready line, the signals and the refusals."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.conftest import PATIENCE, ROOT, Serve, environment, run, wireproto
from tests.cli.services import PAINT, SECRET, VAULT, WAIT, PaintRequest, SecretRequest, WaitRequest, WaitResponse
from tests.cli.services import SHOP as SHOP_SERVICE
from wireproto import CallError, Handlers, Retry, Status, connect
from wireproto.cli import serve as serve_command
from wireproto.client.grpc import connect as connect_grpc
from wireproto.conformance.page import PACKING_FIELD, PREAMBLE, read_welcome, tlv
from wireproto.conformance.raw import RawFrame, RawPeer, frame, pack_hello
from wireproto.wire.frame import Kind

SHOP = "tests.cli.services:shop"


def test_it_says_when_it_is_ready_and_stops_when_told(serve: Serve) -> None:
    """One line on stdout names address and codecs; SIGTERM ends it with status 0."""
    serving = serve(SHOP)
    host, _, port = serving.address.rpartition(":")
    assert host == "127.0.0.1"
    assert serving.ready["codecs"] == "pipe,msgpack,protobuf"
    with socket.create_connection((host, int(port)), timeout=PATIENCE):
        pass
    serving.process.send_signal(signal.SIGTERM)
    out, log = serving.process.communicate(timeout=PATIENCE)
    assert serving.process.returncode == 0
    assert out == ""
    assert "stopped" in log


def test_an_interrupt_stops_it_as_well(serve: Serve) -> None:
    """SIGINT, which Ctrl-C sends, drains too, without a traceback."""
    serving = serve(SHOP)
    serving.process.send_signal(signal.SIGINT)
    _, log = serving.process.communicate(timeout=PATIENCE)
    assert serving.process.returncode == 0
    assert "Traceback" not in log


def test_only_the_codecs_asked_for_are_served(serve: Serve) -> None:
    """--codec repeats, and WIREPROTO_SERVE_CODEC says the same."""
    assert serve(SHOP, "--codec", "protobuf", "--codec", "pipe").ready["codecs"] == "protobuf,pipe"
    assert serve(SHOP, WIREPROTO_SERVE_CODEC="msgpack pipe").ready["codecs"] == "msgpack,pipe"


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ((), 1),
        (("--compression", "zstd"), 2),
        (("--compression", "zstd", "--compression", "zlib"), 1),
        (("--compression", "none"), 0),
    ],
)
def test_payloads_are_packed_as_it_is_asked_to(serve: Serve, options: tuple[str, ...], chosen: int) -> None:
    """--compression repeats; the client's favourite is chosen, and zlib is allowed by default."""
    host, port = serve(SHOP, *options).ready["tcp"].rsplit(":", 1)
    with RawPeer.connect((host, int(port))) as peer:
        hello = pack_hello(fields=tlv(PACKING_FIELD, bytes([1, 2])))
        peer.send(PREAMBLE + frame(Kind.HELLO, hello))
        assert peer.take(4, PATIENCE) == PREAMBLE
        answer = peer.receive(PATIENCE)
        assert isinstance(answer, RawFrame)
        assert sum(read_welcome(answer.payload).packing) == chosen


def test_several_services_are_hosted_together(serve: Serve) -> None:
    """Each MODULE:HANDLERS is served; a method without a handler is mentioned in the log."""
    serving = serve(SHOP, "tests.cli.services:other")
    serving.process.terminate()
    _, log = serving.process.communicate(timeout=PATIENCE)
    assert "OtherService.Other has no handler" in log


def test_nobody_need_read_the_ready_line() -> None:
    """A closed stdout does not keep the server from serving, or from ending well."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "wireproto", "serve", SHOP, "--port", "0"],
        cwd=ROOT,
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    with process:
        assert process.stderr is not None
        assert "serving example.v1.ShopService" in process.stderr.readline()
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert "Exception" not in log


def test_grpc_is_the_second_door(serve: Serve) -> None:
    """The ready line names the gateway, which answers; --no-grpc leaves it out; SIGTERM drains both."""
    serving = serve(SHOP)
    with connect_grpc(serving.ready["grpc"], SHOP_SERVICE, timeout=PATIENCE) as client:
        assert client.call(PAINT, PaintRequest(name="gate")).digest
        serving.process.terminate()
        assert serving.process.wait(PATIENCE) == 0
    assert "grpc" not in serve(SHOP, "--no-grpc").ready


def test_without_its_packages_grpc_is_left_out() -> None:
    """One line on stderr says how to have gRPC, and the server serves without it."""
    code = "import sys; sys.modules['grpc'] = None; from wireproto.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", SHOP, "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert ready.startswith("ready tcp=")
    assert "grpc=" not in ready
    assert log.count("pip install 'wireproto[grpc]'") == 1


def test_a_second_server_on_the_default_port_goes_without_grpc(taken_port: int) -> None:
    """A port for gRPC that nobody asked for and that is in use is a line on stderr, and the server serves."""
    code = (
        "from wireproto.cli import serve; from wireproto.cli import main\n"
        f"next(each for each in serve.command.params if each.name == 'grpc_port').default = {taken_port}\n"
        "main()"
    )
    variables = environment()
    del variables["WIREPROTO_SERVE_GRPC_PORT"]
    command = [sys.executable, "-c", code, "serve", SHOP, "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert ready.startswith("ready tcp=")
    assert "grpc=" not in ready
    for words in (f"127.0.0.1:{taken_port}", "--grpc-port", "--no-grpc"):
        assert log.count(words) == 1


def test_a_grpc_port_in_use_is_said_so(taken_port: int) -> None:
    """The error names both ways out, and the other door is not left open."""
    done = wireproto("serve", SHOP, "--port", "0", "--grpc-port", str(taken_port))
    assert done.returncode == 1
    assert done.stdout == ""
    for words in (f"127.0.0.1:{taken_port}", "--grpc-port", "--no-grpc"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_said_so(taken_port: int) -> None:
    """The error names the address and what to do; the exit status is 1."""
    done = wireproto("serve", SHOP, "--port", str(taken_port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"127.0.0.1:{taken_port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["tests.cli.services:shopp"], "did you mean tests.cli.services:shop?"),
        (["tests.cli.services:SHOP"], "is of type Service, not Handlers"),
        (["tests.cli.service:shop"], "there is no module 'tests.cli.service'; did you mean tests.cli.services?"),
        ([SHOP, "--codec", "msgpak"], "did you mean 'msgpack'?"),
        ([SHOP, "--compression", "gzip"], "'gzip' is not one of 'zlib', 'zstd', 'none'"),
        ([SHOP, "--compression", "none", "--compression", "zlib"], "--compression none leaves no room for another one"),
        ([SHOP, "--codec", "pipe", "--port", "65536"], "65536 is not in the range"),
        ([SHOP, "--workers", "1"], "1 is not in the range"),
        ([SHOP, "--prot", "1"], "No such option"),
        ([SHOP, "--host", "0.0.0.0"], "--allow-plaintext"),
        ([SHOP, "--host", "example.org"], "--allow-plaintext"),
        ([SHOP, SHOP], "is given twice"),
    ],
)
def test_a_wrong_command_line_is_explained(words: list[str], complaint: str) -> None:
    """Whatever is asked wrongly ends with status 2 and a sentence, before anything listens."""
    done = run("serve", *words)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_network_address_needs_the_flag(serve: Serve) -> None:
    """With --allow-plaintext the server listens where it is told."""
    assert serve(SHOP, "--host", "0.0.0.0", "--allow-plaintext").address.startswith("0.0.0.0:")


def test_a_second_signal_ends_it_at_once(serve: Serve) -> None:
    """While calls in flight are waited for, another signal does what it does to any program."""
    serving = serve(SHOP)
    with connect(serving.address, SHOP_SERVICE, timeout=PATIENCE) as client:
        future = client.start(WAIT, WaitRequest(seconds=600.0))
        client.call(PAINT, PaintRequest(name="later"))  # the server has read the first one, too
        serving.process.terminate()
        assert serving.process.stderr is not None
        while "SIGTERM" not in serving.process.stderr.readline():
            pass
        serving.process.terminate()
        assert serving.process.wait(PATIENCE) == -signal.SIGTERM
        with pytest.raises(CallError):
            future.result(PATIENCE)


def test_calls_in_flight_are_finished(serve: Serve) -> None:
    """A call that runs when SIGTERM comes is answered before the server ends with status 0."""
    serving = serve(SHOP)
    with connect(serving.address, SHOP_SERVICE, timeout=PATIENCE) as client:
        future = client.start(WAIT, WaitRequest(seconds=0.5))
        client.call(PAINT, PaintRequest(name="later"))
        serving.process.terminate()
        assert future.result(PATIENCE) == WaitResponse()
    assert serving.process.wait(PATIENCE) == 0


def test_a_term_under_load_loses_no_answer(serve: Serve) -> None:
    """SIGTERM amid busy clients: each call is answered or refused as not processed, and the server ends with status
    0.
    """
    serving = serve(SHOP)
    busy = threading.Barrier(9)
    answered: list[int] = []
    errors: list[CallError] = []

    def work() -> None:
        with connect(serving.address, SHOP_SERVICE, timeout=PATIENCE) as client:
            made = 0
            try:
                while True:
                    client.call(PAINT, PaintRequest(name="x"), timeout=PATIENCE)
                    made += 1
                    if made == 20:
                        busy.wait(PATIENCE)
            except CallError as error:
                answered.append(made)
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    busy.wait(PATIENCE)
    serving.process.terminate()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert serving.process.wait(PATIENCE) == 0
    assert all(made >= 20 for made in answered)
    assert {error.status for error in errors} == {Status.UNAVAILABLE}
    assert {error.retry for error in errors} == {Retry.NOT_PROCESSED}


def test_a_function_of_yours_authenticates(serve: Serve) -> None:
    """--authenticate names who is asked about a call's authorization, behind both doors."""
    serving = serve("tests.cli.services:vault", "--authenticate", "tests.cli.services:doorman")
    with connect(serving.address, VAULT, authorization="Bearer open", timeout=PATIENCE) as client:
        assert client.call(SECRET, SecretRequest()).caller == "ann"
        client.authorization = "Bearer shut"
        with pytest.raises(CallError, match="UNAUTHENTICATED"):
            client.call(SECRET, SecretRequest())
    with connect_grpc(serving.ready["grpc"], VAULT, authorization="Bearer open", timeout=PATIENCE) as door:
        assert door.call(SECRET, SecretRequest()).caller == "ann"


@pytest.mark.parametrize("wanted", [None, "INFO"])
def test_what_grpcs_core_writes_by_itself_is_turned_off(monkeypatch: pytest.MonkeyPatch, wanted: str | None) -> None:
    """It may quote what a stranger sent. Whoever wants to see it says so in the environment."""
    if wanted is None:
        monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    else:
        monkeypatch.setenv("GRPC_VERBOSITY", wanted)
    served: Any = SimpleNamespace(handlers=Handlers(SHOP_SERVICE), authenticate=None)
    assert serve_command._gateway(served, "127.0.0.1", 0, 2, "x", asked=True) is not None
    assert os.environ["GRPC_VERBOSITY"] == (wanted or "NONE")
