"""Calls that go together with HELLO: a round trip less, and what becomes of them when it is not welcome."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.fakes import PATIENCE, Peer, serving
from tests.client.service import ECHO, NEW, SERVICE, EchoRequest, EchoResponse, NewRequest, NewResponse, echo
from wireproto import (
    CallError,
    ConnectionLost,
    Context,
    Handlers,
    HandshakeError,
    Identity,
    Limits,
    Metadata,
    Method,
    Retry,
    Server,
    Service,
    Status,
    codecs,
    connect,
)
from wireproto.client import Backoff, Client, ClientState
from wireproto.testing.faults import Latency
from wireproto.testing.proxy import FaultProxy
from wireproto.wire.events import CancelReceived, ConnectionEnded, HelloReceived
from wireproto.wire.frame import PREAMBLE, Kind, pack
from wireproto.wire.handshake import Welcome

pytestmark = pytest.mark.plain


class Desk:
    """Handlers that remember how their calls came."""

    def __init__(self, service: Service = SERVICE) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.handlers = Handlers(service)

        @self.handlers.register(ECHO)
        def answer(request: EchoRequest, context: Context) -> EchoResponse:
            self.seen.append((request.text, context.codec, context.version))
            return EchoResponse(text=request.text)

        if NEW in service.methods:

            @self.handlers.register(NEW)
            def new(request: NewRequest, context: Context) -> NewResponse:
                return NewResponse()


def greeting(peer: Peer) -> HelloReceived:
    """HELLO, which is told once its early calls are there."""
    return peer.expect(HelloReceived)


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_the_first_call_goes_together_with_hello(codec: str) -> None:
    """Nothing is sent before it; its answer comes behind WELCOME, and the calls after it go as always."""
    sent: list[int] = []

    def script(peer: Peer) -> None:
        sent.append(peer.expect(HelloReceived).hello.early)
        peer.connection.send_welcome(welcomed(codec))
        request = peer.request()
        assert request.call_id == 1
        peer.connection.send_response(1, payload("first", codec))
        peer.flush()  # WELCOME and the answer at once
        second = peer.request()
        peer.connection.send_response(second.call_id, payload("second", codec))
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE, codec=codec, early=True) as client:
        assert client.state is ClientState.IDLE
        assert server.connections == 0
        assert client.call(ECHO, echo("a")).text == "first"
        assert client.call(ECHO, echo("b")).text == "second"
    assert sent[0] > 16


def welcomed(codec: str = "msgpack", **changes: Any) -> Welcome:
    return Welcome(version=2, codec=codecs.get(codec).id, max_frame=65_536, max_calls=4, **changes)


def payload(text: str, codec: str = "msgpack") -> bytes:
    return codecs.get(codec).plan(EchoResponse, 2, Limits(), request=False).encode(EchoResponse(text=text))


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_the_real_server_answers_it(codec: str) -> None:
    """With each codec, once, and with what the call says of itself."""
    desk = Desk()
    with Server(desk.handlers, port=0) as server, connect(server.address, SERVICE, codec=codec, early=True) as client:
        assert client.call(ECHO, echo("a"), timeout=PATIENCE, metadata={"k": "v"}).text == "a"
        assert client.call(ECHO, echo("b")).text == "b"
    assert desk.seen == [("a", codec, 2), ("b", codec, 2)]


@pytest.mark.parametrize(
    ("service", "served", "spoken"),
    [(SERVICE.as_of(1), ["msgpack"], ("msgpack", 1)), (SERVICE, ["pipe"], ("pipe", 2))],
    ids=["an older server", "another codec"],
)
def test_a_server_that_chooses_otherwise_is_sent_it_again(
    service: Service, served: list[str], spoken: tuple[str, int]
) -> None:
    """What it did not look at was not processed; the caller does not notice."""
    desk = Desk(service)
    with (
        Server(desk.handlers, port=0, codecs=served) as server,
        connect(server.address, SERVICE, codec=["msgpack", "pipe"], early=True) as client,
    ):
        assert client.call(ECHO, echo("a")).text == "a"
        assert client.call(ECHO, echo("b")).text == "b"
    assert desk.seen == [("a", *spoken), ("b", *spoken)]


def test_a_method_that_the_newest_version_lacks_goes_behind_welcome() -> None:
    """It cannot be written for that version; an older server may have it."""
    old = Method(opcode=1, name="Echo", request=EchoRequest, response=EchoResponse, until=1)
    both = Service("test.v1.AgingService", version=2, methods=[old])
    handlers = Handlers(both.as_of(1))
    handlers.register(old)(lambda request, context: EchoResponse(text=request.text))
    with Server(handlers, port=0) as server, connect(server.address, both, early=True) as client:
        assert client.call(old, echo("a")).text == "a"
    with (
        Server(Handlers(both), port=0) as server,
        connect(server.address, both, early=True) as client,
    ):
        assert refused(lambda: client.call(old, echo("a"))).reason == "UNKNOWN_OPCODE"


def test_what_does_not_fit_goes_behind_welcome() -> None:
    """HELLO and the call have 4096 bytes together."""
    desk = Desk()
    with Server(desk.handlers, port=0) as server, connect(server.address, SERVICE, early=True) as client:
        assert len(client.call(ECHO, echo("a" * 5000)).text) == 5000
    assert len(desk.seen) == 1


def test_a_credential_never_goes_early() -> None:
    """Nobody knows yet who the server is: neither the client's own credential, nor one of a call."""
    hellos: list[int] = []

    def script(peer: Peer) -> None:
        hellos.append(greeting(peer).hello.early)
        peer.connection.send_welcome(welcomed())
        peer.flush()
        request = peer.request()
        assert not isinstance(request.metadata, CallError)
        assert request.metadata.authorization == "secret"
        peer.connection.send_response(request.call_id, payload("ok"))
        peer.flush()
        peer.until_gone()

    with serving(script) as server:
        with connect(server.address, SERVICE, authorization="secret", early=True) as client:
            assert client.call(ECHO, echo()).text == "ok"
        with connect(server.address, SERVICE, early=True) as client:
            assert client.call(ECHO, echo(), metadata=Metadata(authorization="secret")).text == "ok"
    assert hellos == [0, 0]


def test_the_first_call_behind_a_loss_goes_early_too() -> None:
    """A lost connection is opened with the call that finds it lost."""
    hellos: list[int] = []

    def script(peer: Peer) -> None:
        hellos.append(greeting(peer).hello.early)
        peer.connection.send_welcome(welcomed())
        request = peer.request()
        peer.connection.send_response(request.call_id, payload("ok"))
        peer.flush()

    quick, pause = Backoff(0.001, 0.01), threading.Event()
    with serving(script) as server, connect(server.address, SERVICE, early=True, backoff=quick) as client:
        for _ in range(2):
            assert client.call(ECHO, echo(), wait=True).text == "ok"
            while client.state is ClientState.READY:
                pause.wait(0.001)  # the keeper reads the end after a moment of quiet
    assert len(hellos) == 2
    assert all(hellos)


def lose(peer: Peer) -> None:
    greeting(peer)


def lose_with_half_a_welcome(peer: Peer) -> None:
    greeting(peer)
    peer.sock.sendall(PREAMBLE + b"\0\0")


def welcome_wrongly(peer: Peer) -> None:
    greeting(peer)
    peer.sock.sendall(PREAMBLE + pack(Kind.WELCOME, 0, 0, 0, 0, b"", b"short"))
    peer.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("script", [lose, lose_with_half_a_welcome, welcome_wrongly])
def test_lost_without_welcome_nobody_knows(script: Callable[[Peer], None]) -> None:
    """It is not repeated, and whoever waits is told "maybe processed"; other calls hear what they always hear."""
    with serving(script) as server:
        client = connect(server.address, SERVICE, early=True)
        error = refused(lambda: client.call(ECHO, echo()))
        assert error.retry is Retry.MAYBE_PROCESSED
        assert server.connections == 1
        if script is not welcome_wrongly:
            assert isinstance(error, ConnectionLost)
            assert refused(lambda: client.call(NEW, NewRequest(), wait=False)).retry is Retry.NOT_PROCESSED
        client.close()


def test_lost_though_its_caller_would_wait_is_not_repeated() -> None:
    """``wait`` is about calls that were certainly not processed."""
    with serving(lose) as server, connect(server.address, SERVICE, early=True, wait=True) as client:
        assert refused(lambda: client.call(ECHO, echo())).retry is Retry.MAYBE_PROCESSED
        assert server.connections == 1


def test_nobody_there_is_not_in_doubt() -> None:
    """Without a connection nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    with connect(address, SERVICE, early=True) as client:
        error = refused(lambda: client.call(ECHO, echo()))
        assert isinstance(error, ConnectionLost)
        assert error.retry is Retry.NOT_PROCESSED


def test_a_refusal_is_certain() -> None:
    """A final ERROR in place of WELCOME says that nobody looked at the call."""
    with (
        Server(Desk().handlers, port=0, codecs=["pipe"]) as server,
        connect(server.address, SERVICE, codec="msgpack", early=True) as client,
    ):
        error = refused(lambda: client.call(ECHO, echo()))
        assert isinstance(error, HandshakeError)
        assert (error.reason, error.retry) == ("UNSUPPORTED_CODEC", Retry.NEVER)


def test_a_server_that_goes_while_greeting_says_so() -> None:
    """The call is repeated elsewhere, or later, for it was certainly not processed."""

    def script(peer: Peer) -> None:
        greeting(peer)
        peer.connection.refuse(CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "it goes", retry=Retry.NOT_PROCESSED))
        peer.flush()
        peer.sock.shutdown(socket.SHUT_WR)

    def well(peer: Peer) -> None:
        peer.greet().serve()

    quick = Backoff(0.001, 0.01)
    with serving(script, well) as server, connect(server.address, SERVICE, early=True, backoff=quick) as client:
        error = refused(lambda: client.call(ECHO, echo()))
        assert isinstance(error, ConnectionLost)
        assert error.retry is Retry.NOT_PROCESSED
        assert client.call(ECHO, echo("b"), wait=True).text == "b"


def test_another_contract_found_behind_it_leaves_it_in_doubt() -> None:
    """The server did not know the client's digests; it may have run the call by its own contract."""

    def script(peer: Peer) -> None:
        greeting(peer)
        peer.connection.send_welcome(welcomed(digests={1: 1}))
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE, early=True) as client:
        error = refused(lambda: client.call(ECHO, echo()))
        assert isinstance(error, HandshakeError)
        assert (error.reason, error.retry) == ("CONTRACT_MISMATCH", Retry.MAYBE_PROCESSED)


def test_too_many_calls_is_no_answer_to_it() -> None:
    """Before WELCOME nobody knows how many there may be, so it is sent again; a server cannot fail it with that."""

    def script(peer: Peer) -> None:
        greeting(peer)
        peer.connection.send_welcome(welcomed())
        peer.refuse(peer.request(), CallError(Status.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", "full"))
        request = peer.request()
        peer.connection.send_response(request.call_id, payload("ok"))
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE, early=True) as client:
        assert client.call(ECHO, echo()).text == "ok"


@pytest.mark.parametrize("reason", ["NO_SUCH", ""])
def test_its_errors_are_its_callers(reason: str) -> None:
    """What the server answers to it is what its caller gets, and the connection goes on."""

    def script(peer: Peer) -> None:
        greeting(peer)
        peer.connection.send_welcome(welcomed())
        peer.refuse(peer.request(), CallError(Status.NOT_FOUND, reason, "it is not here"))
        request = peer.request()
        peer.connection.send_response(request.call_id, payload("ok"))
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE, early=True) as client:
        error = refused(lambda: client.call(ECHO, echo()))
        assert (error.status, error.reason) == (Status.NOT_FOUND, reason)
        assert client.call(ECHO, echo()).text == "ok"
        assert server.connections == 1


def test_its_time_is_up_as_that_of_any_call() -> None:
    """The server is told, and the connection goes on; before WELCOME it is the time to connect that is up."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        greeting(peer)
        peer.connection.send_welcome(welcomed())
        peer.flush()
        peer.request()
        while not isinstance(event := peer.event(), ConnectionEnded):
            if isinstance(event, CancelReceived):
                cancelled.set()
            peer.flush()

    with serving(script) as server, connect(server.address, SERVICE, early=True) as client:
        assert refused(lambda: client.call(ECHO, echo(), timeout=0.2)).reason == "DEADLINE"
        assert cancelled.wait(PATIENCE)


def test_its_server_is_told_the_time_that_is_left() -> None:
    """Of the time for the call, what waiting for a server took is over when it goes along with HELLO."""
    told: list[float | None] = []
    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        told.append(context.remaining())
        return EchoResponse(text=request.text)

    with Server(handlers, port=0) as server:
        address = server.address
    server = Server(handlers, port=address.port)
    later = threading.Timer(0.3, server.start)
    quick = Backoff(0.001, 0.01)
    with connect(address, SERVICE, early=True, backoff=quick) as client:
        later.start()
        client.call(ECHO, EchoRequest(text="x"), timeout=PATIENCE, wait=True)
    later.join()
    assert server.shutdown(5) == []
    (left,) = told
    assert left is not None
    assert left <= PATIENCE - 0.3


def test_many_threads_that_find_no_connection_open_one() -> None:
    """One call goes early, the others wait for the connection; each is answered once."""
    desk = Desk()
    with Server(desk.handlers, port=0) as server, connect(server.address, SERVICE, early=True) as client:
        texts = [str(number) for number in range(16)]
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda text=text: found.append(client.call(ECHO, echo(text)).text))
            for text in texts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(found) == sorted(texts)
        assert len(server.sessions) == 1
    assert sorted(text for text, *_ in desk.seen) == sorted(texts)


def test_a_server_that_drains_while_greeting_refuses_in_words() -> None:
    """A connection that has sent HELLO, or a part of it, hears that the server goes; one that said nothing, too."""
    desk = Desk()
    server = Server(desk.handlers, port=0, limits=Limits(linger=5.0))
    server.start()
    address = (server.address.host, server.address.port)
    silent, partial = socket.create_connection(address, PATIENCE), socket.create_connection(address, PATIENCE)
    waiting = Client(server.address, SERVICE)._line._hello
    with silent, partial:
        partial.sendall(PREAMBLE + pack(Kind.HELLO, 0, 0, 0, 0, b"", waiting.encode())[:-3])
        pause = threading.Event()
        while len(server.sessions) < 2 or not any(
            each.connection.bytes_waiting for each in list(server.sessions.values())
        ):
            pause.wait(0.001)
        ending = threading.Thread(target=server.shutdown, args=(PATIENCE,))
        ending.start()
        for sock in (silent, partial):
            said = b""
            while data := sock.recv(4096):
                said += data
            assert said.startswith(PREAMBLE)
            assert b"SHUTTING_DOWN" in said
    ending.join(PATIENCE)
    assert not ending.is_alive()
    assert desk.seen == []


def test_a_round_trip_is_saved() -> None:
    """Over a way of 50 ms in each direction the answer is there a round trip sooner."""
    desk = Desk()
    way = Latency(0.05)
    waits: dict[bool, float] = {}
    with Server(desk.handlers, port=0) as server, FaultProxy(server.address, up=[way], down=[way]) as proxy:
        for early in (False, True):
            began = time.monotonic()
            with connect(proxy.address, SERVICE, early=early) as client:
                client.call(ECHO, echo("a"))
                waits[early] = time.monotonic() - began
    assert waits[False] >= 0.2
    assert 0.1 <= waits[True] < waits[False] - 0.05


def test_an_identity_of_the_connection_is_that_of_later_calls_only() -> None:
    """An early call has none, for nobody has signed in yet."""
    handlers = Handlers(SERVICE)
    seen: list[Identity | None] = []

    @handlers.register(ECHO)
    def answer(request: EchoRequest, context: Context) -> EchoResponse:
        seen.append(context.identity)
        context.sign_in(Identity("ann"))
        return EchoResponse(text="")

    with Server(handlers, port=0) as server, connect(server.address, SERVICE, early=True) as client:
        client.call(ECHO, echo())
        assert seen == [None]
