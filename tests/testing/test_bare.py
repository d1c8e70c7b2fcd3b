"""The client that costs next to nothing speaks the protocol as the other one does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest

from tests.server.service import (
    COUNT,
    ECHO,
    FAIL,
    SERVICE,
    WHO,
    CountRequest,
    EchoRequest,
    FailRequest,
    Stage,
    WhoRequest,
)
from wireproto import CallError, ConnectionLost, HandshakeError, Metadata, Method, Retry, Server, Service, Status
from wireproto.conformance.page import CREDIT_KEY, credit_body, field, read_hello
from wireproto.conformance.raw import RawFrame, RawListener, frame, pack_welcome
from wireproto.testing import Answer, BareClient
from wireproto.wire.frame import PREAMBLE, TOP_BIT, Credit, Flag, Kind, pack_error


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.open_gates()


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    with Server(stage.handlers, authenticate=stage.authenticate) as server:
        yield server


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_it_calls_in_every_codec(server: Server, codec: str) -> None:
    """A call's bytes go out and the response's come back, one call after the other."""
    with BareClient(server.address, SERVICE, codec=codec) as client:
        decode = client.decoder(ECHO)
        for text in ("one", "two"):
            assert decode(client.call(ECHO, client.encode(ECHO, EchoRequest(text=text)))).text == text


def test_answers_are_told_apart(server: Server) -> None:
    """Several calls in flight are answered by id: responses, a stream's items and its end, and failures."""
    with BareClient(server.address, SERVICE) as client:
        echo = client.send(ECHO, client.encode(ECHO, EchoRequest(text="x")))
        count = client.send(COUNT, client.encode(COUNT, CountRequest(upto=3)), Metadata(credit=Credit(1, 1)))
        fail = client.send(FAIL, client.encode(FAIL, FailRequest(how="declared")))
        decode = client.decoder(COUNT)
        items: list[int] = []
        ended: dict[int, Answer] = {}
        while len(ended) < 3:
            for answer in client.take():
                if answer.last:
                    ended[answer.call_id] = answer
                else:
                    assert answer.call_id == count
                    items.append(decode(answer.payload).n)
                    if len(items) == 1:
                        client.grant(count, 5, 100)
    assert items == [0, 1, 2]
    assert ended[echo].error is None
    assert (ended[count].payload, ended[count].error) == (b"", None)
    error = ended[fail].error
    assert error is not None
    assert (error.reason, error.retry, error.retry_after_ms) == ("DECLARED", Retry.NOT_PROCESSED, 7)


def test_the_frames_it_sends_are_those_of_the_page() -> None:
    """A stream has its flag, CREDIT has items and bytes, and ids begin again with 1 behind the last one."""
    with RawListener() as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(BareClient, listener.address, SERVICE)
        peer = listener.accept()
        assert peer is not None
        peer.take(4)
        hello = peer.receive()
        assert isinstance(hello, RawFrame)
        assert read_hello(hello.payload).max_calls == 0
        peer.send(PREAMBLE + frame(Kind.WELCOME, pack_welcome(codec=2, version=SERVICE.version)))
        with dialled.result(10) as client:
            client.call_id = TOP_BIT - 2
            last = client.send(COUNT, b"request", Metadata(credit=Credit(3, 500)))
            client.grant(last, 2, 70)
            first = client.send(ECHO, b"")
            request, credit, unary = (peer.receive() for _ in range(3))
        assert (last, first) == (TOP_BIT - 1, 1)
        assert request == RawFrame(
            Kind.REQUEST, Flag.ITEMS_COME_BACK, 2, SERVICE.version, COUNT.opcode, last,
            field(CREDIT_KEY, credit_body(3, 500)), b"request",
        )  # fmt: skip
        assert credit == RawFrame(Kind.CREDIT, 0, 0, 0, COUNT.opcode, last, b"", credit_body(2, 70))
        assert unary == RawFrame(Kind.REQUEST, 0, 2, SERVICE.version, ECHO.opcode, first, b"", b"")
        peer.close()


def test_a_call_raises_what_it_failed_with(server: Server) -> None:
    """A refused call is the server's error, and the connection goes on; metadata carry who calls."""
    with BareClient(server.address, SERVICE) as client:
        who = client.encode(WHO, WhoRequest())
        with pytest.raises(CallError, match="UNAUTHENTICATED"):
            client.call(WHO, who)
        answer = client.call(WHO, who, Metadata(authorization="user:ann"))
        assert client.decoder(WHO)(answer).name == "ann"


def test_a_server_that_pings_is_answered() -> None:
    """PING is answered while answers are taken, so the connection outlives its idle time; its end is told."""
    with RawListener() as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(BareClient, listener.address, SERVICE)
        peer = listener.accept()
        assert peer is not None
        peer.take(4)
        peer.receive()
        welcome = frame(Kind.WELCOME, pack_welcome(codec=2, version=SERVICE.version))
        early, later = frame(Kind.PING, b"earliest"), frame(Kind.PING, b"12345678")
        peer.send(PREAMBLE + welcome + early[:9], early[9:])
        client = dialled.result(10)
        taken = pool.submit(lambda: [client.take() for _ in repeat(None)])
        peer.send(later[:9], later[9:])
        for said in (b"earliest", b"12345678"):
            assert peer.receive() == (Kind.PONG, 0, 0, 0, 0, 0, b"", said)
        peer.send(frame(Kind.ERROR, pack_error(CallError(Status.UNAVAILABLE, "GONE", "good bye"))))
        with pytest.raises(ConnectionLost, match=r"the server ended the connection: .*good bye"):
            taken.result(10)
        peer.close()
        with pytest.raises(ConnectionLost, match="has closed"):
            client.take()
        client.close()


def test_a_handshake_that_fails_says_why(server: Server) -> None:
    """What the server refuses is its sentence; what is no server, or goes away, is said so."""
    other = Service(
        "test.v1.NobodyHasItService",
        version=1,
        methods=[Method(opcode=1, name="Echo", request=ECHO.request, response=ECHO.response)],
    )
    with pytest.raises(HandshakeError, match="NobodyHasItService"):
        BareClient(server.address, other)
    for first, sentence in (
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"", "it closed the connection without WELCOME"),
    ):
        with RawListener() as listener, ThreadPoolExecutor(1) as pool:
            dialled = pool.submit(BareClient, listener.address, SERVICE)
            peer = listener.accept()
            assert peer is not None
            peer.take(4)
            peer.receive()
            peer.send(first)
            peer.end_output()
            with pytest.raises(CallError, match=sentence):
                dialled.result(10)
            peer.close()


def test_silence_ends_the_handshake() -> None:
    """A server that says nothing is given up after the time-out, and the socket closed."""
    with RawListener() as listener, pytest.raises(ConnectionLost, match="no WELCOME in time"):
        BareClient(listener.address, SERVICE, timeout=0.05)


def test_half_a_frame_behind_the_welcome_is_not_waited_for_for_ever() -> None:
    """The time-out of the handshake holds for what the server sends right behind it."""
    with RawListener() as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(BareClient, listener.address, SERVICE, timeout=0.5)
        peer = listener.accept()
        assert peer is not None
        welcome = frame(Kind.WELCOME, pack_welcome(codec=2, version=SERVICE.version))
        peer.send(PREAMBLE + welcome + frame(Kind.PING, bytes(8))[:9])
        with pytest.raises(ConnectionLost, match="did not come whole in time"):
            dialled.result(10)
        peer.close()


def test_a_silent_server_is_not_waited_for_for_ever(server: Server) -> None:
    """Reading ends after the time that the client allows for silence, and can be tried again; so does sending."""
    with BareClient(server.address, SERVICE, silence=0.2) as client:
        with pytest.raises(TimeoutError, match=r"nothing has come from the server for 0\.2 s"):
            client.take()
        assert client.decoder(ECHO)(client.call(ECHO, client.encode(ECHO, EchoRequest(text="x")))).text == "x"
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.take()


def test_a_server_that_takes_nothing_is_not_waited_for_for_ever() -> None:
    """Sending ends after that time, too, once the system keeps no more for a peer that does not read."""
    with RawListener() as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(BareClient, listener.address, SERVICE, silence=0.2)
        peer = listener.accept()
        assert peer is not None
        peer.send(PREAMBLE + frame(Kind.WELCOME, pack_welcome(codec=2, version=SERVICE.version)))
        with dialled.result(10) as client, pytest.raises(TimeoutError, match="has taken nothing"):
            client.send(ECHO, bytes(50_000_000))
        peer.close()


def test_its_limit_is_offered(server: Server) -> None:
    """The server keeps to the longest frame that the client takes."""
    with BareClient(server.address, SERVICE, max_frame=4096) as client:
        payload = client.encode(ECHO, EchoRequest(text="x" * 5000))
        with pytest.raises(CallError, match="RESPONSE_TOO_LARGE"):
            client.call(ECHO, payload)
