"""The client over gRPC in forks, signal handlers and outages: the promises of the other client hold for it, too."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import wait

import pytest

from tests import children
from tests.client.fakes import PATIENCE
from tests.client.service import (
    ECHO,
    OTHER,
    SAY,
    SERVICE,
    SMALL,
    EchoRequest,
    EchoResponse,
    NewRequest,
    SmallRequest,
    echo,
)
from tests.client.test_signals import handling
from tests.client.test_state import Heard
from wireproto import (
    CallError,
    ClientState,
    ConnectionLost,
    Context,
    EncodeError,
    Handlers,
    Limits,
    LocalProtocolError,
    Retry,
)
from wireproto.client import Backoff
from wireproto.client.grpc import GrpcClient, connect
from wireproto.server.gateway import GrpcGateway

HANDLERS = Handlers(SERVICE)
RELEASE = threading.Event()


@HANDLERS.register(ECHO)
def answer(request: EchoRequest, context: Context) -> EchoResponse:
    """Echo, once the test lets go of what it holds."""
    if request.text.startswith("held"):
        assert RELEASE.wait(PATIENCE)
    return EchoResponse(text=request.text)


@HANDLERS.register(SAY)
def entries(request: EchoRequest, context: Context) -> Iterator[EchoResponse]:
    """The entries that came with the call, each an item."""
    for name, value in context.metadata.entries.items():
        yield EchoResponse(text=f"{name}={value}")


@pytest.fixture
def gateway() -> Iterator[GrpcGateway]:
    RELEASE.clear()
    with GrpcGateway(HANDLERS, port=0) as gateway:
        yield gateway
        RELEASE.set()


def test_what_cannot_be_sent_is_the_futures_error(gateway: GrpcGateway) -> None:
    """As with the other client: the request's fault is in the future, a wrong call is raised."""
    with connect(gateway.address, SERVICE) as client:
        assert isinstance(client.start(ECHO, echo("\ud800")).exception(PATIENCE), EncodeError)
        assert "REQUEST_TOO_LARGE" in str(client.start(SMALL, SmallRequest(text="x" * 200)).exception(PATIENCE))
        with pytest.raises(LocalProtocolError, match="no method of"):
            client.start(OTHER, NewRequest())


def test_a_stream_says_nothing_of_credit(gateway: GrpcGateway) -> None:
    """HTTP/2 has the say in how far a server sends ahead; what the handler finds is what the caller gave."""
    with connect(gateway.address, SERVICE) as client:
        stream = client.stream(SAY, echo(), metadata={"shown": "yes"}, credit=7, batch=2, window=1)
        assert [item.text for item in stream] == ["shown=yes"]


def test_started_calls_are_bounded(gateway: GrpcGateway) -> None:
    """Beyond what may be in flight and what may wait a future fails at once, "not processed"."""
    limits = Limits(max_calls=2, start_queue=3)
    with connect(gateway.address, SERVICE, limits=limits) as client:
        held = [client.start(ECHO, echo(f"held {n}")) for n in range(5)]
        error = client.start(ECHO, echo("x")).exception(0)
        assert isinstance(error, CallError)
        assert (error.reason, error.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)
        RELEASE.set()
        assert wait(held, PATIENCE).not_done == set()
        assert client.start(ECHO, echo("y")).result(PATIENCE).text == "y"


def test_waiting_for_a_server_and_not(gateway: GrpcGateway) -> None:
    """Without ``wait`` a call fails at once in the pause; with it, it is answered when the server is there."""
    address = gateway.address
    gateway.shutdown(0)
    heard = Heard()
    with GrpcClient(address, SERVICE, backoff=Backoff(0.1, 0.2)) as client:
        client.listen(heard)
        with pytest.raises(ConnectionLost) as caught:
            client.call(ECHO, echo("x"))
        assert caught.value.retry is Retry.NOT_PROCESSED
        heard.until(ClientState.BACKING_OFF)
        patient = client.start(ECHO, echo("patient"), wait=True)
        with GrpcGateway(HANDLERS, port=address.port):
            assert patient.result(PATIENCE).text == "patient"
            assert client.call(ECHO, echo("y"), wait=True).text == "y"
            heard.until(ClientState.READY)  # grpcio tells the states on a thread of its own, which may be behind
    heard.until(ClientState.CLOSED)


def test_open_tries_now_whatever_the_pause(gateway: GrpcGateway) -> None:
    """After a failed attempt ``open`` connects at once to a server that is back."""
    address = gateway.address
    gateway.shutdown(0)
    with GrpcClient(address, SERVICE, backoff=Backoff(60, 60)) as client:
        with pytest.raises(ConnectionLost):
            client.open()
        with GrpcGateway(HANDLERS, port=address.port):
            client.open()
            assert client.call(ECHO, echo("x")).text == "x"


@pytest.mark.timeout(100, method="thread")  # the other way wants SIGALRM for itself
def test_thousands_of_signals_at_any_moment(gateway: GrpcGateway) -> None:
    """A handler's call or future is answered or refused in words, at whatever step of which call it comes."""
    answered, refused = [0], [0]

    def handler() -> None:
        try:
            if (answered[0] + refused[0]) % 2:
                client.call(ECHO, echo("from a handler"))
            else:
                client.start(ECHO, echo("from a handler")).result()
            answered[0] += 1
        except LocalProtocolError:
            refused[0] += 1
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1e-3))

    with connect(gateway.address, SERVICE) as client, handling(handler):
        handler()
        while answered[0] + refused[0] < 2000:
            assert client.call(ECHO, echo("x"), timeout=PATIENCE).text == "x"
            assert client.start(ECHO, echo("y")).result(PATIENCE).text == "y"
        assert refused[0]


def test_close_in_a_handler_ends_what_it_interrupted(gateway: GrpcGateway) -> None:
    """The handler returns at once, and whoever waited learns that the client was closed."""
    client = connect(gateway.address, SERVICE)
    main = threading.get_ident()
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1))
    with handling(client.close, signal.SIGUSR1):
        timer.start()
        with pytest.raises((CallError, LocalProtocolError), match="closed"):
            client.call(ECHO, echo("held"))
        timer.join(PATIENCE)
    assert client.state is ClientState.CLOSED


PROGRAM = """
import os, sys
from tests.client.service import ECHO, SERVICE, echo
from wireproto import LocalProtocolError
from wireproto.client.grpc import connect
client = connect(sys.argv[1], SERVICE)
refused = 0
for n in range(100):
    future = client.start(ECHO, echo(str(n)))
    child = os.fork()
    if not child:
        if n % 3 == 0:
            client.close()
        elif n % 3 == 1:
            try:
                client.call(ECHO, echo("x"))
            except LocalProtocolError as error:
                os._exit(0 if "before a fork" in str(error) else 3)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert future.result(10).text == str(n)
    assert client.call(ECHO, echo("y"), timeout=10).text == "y"
client.close()
"""


def test_forks_lose_nothing(gateway: GrpcGateway) -> None:
    """Children close it, call on it, or do nothing; the parent's calls go on. There is no gateway in that process."""
    ran = subprocess.run(
        [sys.executable, *children.FORKS, "-c", PROGRAM, str(gateway.address)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
