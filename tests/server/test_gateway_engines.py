"""Which engine serves, and what it does to who floods."""

import logging
import queue
import socket
import threading
import time
from typing import Any

import grpc
import pytest

from tests.client.service import ECHO, SERVICE, EchoRequest, EchoResponse
from tests.server.peer import until
from wireproto import Context, Handlers
from wireproto.answering.pool import Pool
from wireproto.client.grpc import connect
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.server.gateway import GrpcGateway
from wireproto.server.gateway.conduct import FORGIVEN, WARY, Conduct
from wireproto.server.gateway.hanging_up import hang_up

HANDLERS = Handlers(SERVICE)
HELD = threading.Event()
BEGUN: queue.SimpleQueue[None] = queue.SimpleQueue()


@HANDLERS.register(ECHO)
def answer(request: EchoRequest, context: Context) -> EchoResponse:
    if request.text == "held":
        BEGUN.put(None)
        while not context.cancelled and not HELD.wait(0.01):
            pass
    return EchoResponse(text=request.text)


def test_another_grpcio_is_served_by_public_names(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An upgrade stops nobody: the other engine serves, and a line says why."""
    monkeypatch.setattr(grpc, "__version__", "9.0.1")
    with (
        caplog.at_level(logging.WARNING, "wireproto.gateway"),
        GrpcGateway(HANDLERS, port=0) as gateway,
        connect(gateway.address, SERVICE) as client,
    ):
        assert client.call(ECHO, EchoRequest(text="a")).text == "a"
    (record,) = [each for each in caplog.records if each.name == "wireproto.gateway"]
    assert "served by its public interface" in record.getMessage()
    assert "grpcio 9.0.1 is none that the quick one was tried with" in record.getMessage()


def test_an_engine_that_cannot_run_is_refused_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names one is told why it is not had."""
    monkeypatch.setattr(grpc, "__version__", "9.0.1")
    with pytest.raises(ConfigError, match=r"'core' cannot run: grpcio 9\.0\.1 is none .*; give engine='auto'"):
        GrpcGateway(HANDLERS, port=0, engine="core").start()
    with pytest.raises(ConfigError, match="engine is 'quick'; give 'auto', 'core' or 'public'"):
        GrpcGateway(HANDLERS, port=0, engine="quick").start()  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["core", "public"])
def test_without_threads_it_does_not_start(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    """What the system refuses is a sentence, nothing is left, and it may be tried again."""

    def refuse(pool: Pool) -> None:
        raise RuntimeError("can't start new thread")

    gateway = GrpcGateway(HANDLERS, port=0, engine=engine)
    before = set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(Pool, "start", refuse)
        with pytest.raises(ConfigError, match="30 threads cannot be started: can't start new thread; give fewer work"):
            gateway.start()
    assert set(threading.enumerate()) <= before
    with gateway, connect(gateway.address, SERVICE) as client:
        assert client.call(ECHO, EchoRequest(text="a")).text == "a"


@pytest.mark.parametrize("engine", ["core", "public"])
def test_a_host_that_is_none_is_a_sentence_without_a_port(engine: Any) -> None:
    """Also where any port would do."""
    with pytest.raises(ConfigError, match=r"cannot listen on a\.\.b: that is no address or name of this machine"):
        GrpcGateway(HANDLERS, host="a..b", port=0, engine=engine).start()


@pytest.mark.parametrize("engine", ["core", "public"])
def test_who_cancels_without_an_end_is_hung_up_on(engine: Any) -> None:
    """As over TCP, the connection is closed; others go on, and so does a new one of the same caller."""
    HELD.clear()
    limits = Limits(cancel_burst=20, cancels_per_second=0.001)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        GrpcGateway(HANDLERS, port=0, limits=limits, engine=engine) as gateway,
        connect(gateway.address, SERVICE) as good,
        grpc.insecure_channel(str(gateway.address), options=options) as channel,
    ):
        held = good.start(ECHO, EchoRequest(text="held"))
        BEGUN.get(timeout=10)
        call: Any = channel.unary_unary("/test.v1.ClientService/Echo")
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        for _ in range(21):
            future = call.future(b"\n\x04held")
            BEGUN.get(timeout=10)
            future.cancel()
        until(lambda: grpc.ChannelConnectivity.IDLE in states[1:], "the connection is closed", 10)
        assert call(b"\n\x01x", timeout=10) == b"\n\x01x"
        HELD.set()
        assert held.result(10).text == "held"


def test_hanging_up_finds_the_connection_of_a_peer() -> None:
    """The accepted end is shut down, and no other connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        accepted = [listener.accept()[0] for _ in range(2)]
        host, number = ends[0].getsockname()
        assert hang_up({f"{host}:{number}"}, port) == 1
        assert ends[0].recv(1) == b""
        ends[1].settimeout(0.05)
        with pytest.raises(TimeoutError):
            ends[1].recv(1)
        for each in (*ends, *accepted):
            each.close()


def test_who_is_reckless_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the burst a connection is hung up on, once; later another one may have its port."""
    hung_up: list[tuple[str, str]] = []
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    limits = Limits(cancel_burst=3, cancels_per_second=0.001, errors_per_minute=3)
    conduct = Conduct(limits, lambda peer, why: hung_up.append((peer, why)))
    for _ in range(10):
        conduct.note("10.0.0.1:1", "cancels")
        conduct.note("10.0.0.1:2", "errors")
    assert hung_up == [
        ("10.0.0.1:1", "calls are cancelled faster than the server allows"),
        ("10.0.0.1:2", "too many calls that cannot be understood"),
    ]
    assert conduct.reckless("10.0.0.1:1")
    assert not conduct.reckless("10.0.0.1:3")
    now[0] += FORGIVEN
    assert not conduct.reckless("10.0.0.1:1")
    for _ in range(4):
        assert len(hung_up) == 2
        conduct.note("10.9.0.1:1", "cancels")
    assert len(hung_up) == 3


def test_a_network_that_was_hung_up_on_is_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes back by another connection may do a tenth at once, for a while; other networks notice nothing."""
    hung_up: list[str] = []
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    conduct = Conduct(Limits(cancel_burst=40, cancels_per_second=0.001), lambda peer, why: hung_up.append(peer))

    def cancels_of(peer: str) -> int:
        count = 0
        while peer not in hung_up:
            conduct.note(peer, "cancels")
            count += 1
        return count

    assert cancels_of("10.0.0.1:1") == 41
    assert cancels_of("10.0.0.2:2") == 5
    assert cancels_of("10.0.9.1:1") == 41
    now[0] += WARY
    assert cancels_of("10.0.0.1:3") == 41
