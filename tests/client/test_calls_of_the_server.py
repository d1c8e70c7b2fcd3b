"""A client has no handlers: it says so in HELLO, and what a server begins all the same is refused."""

import contextlib
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.client.fakes import PATIENCE, Peer, serving
from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, EchoResponse, echo
from wireproto import ConnectionLost, Limits, Retry, connect
from wireproto.wire.events import ConnectionEnded, ErrorReceived
from wireproto.wire.frame import NO_CREDIT, TOP_BIT, Flag, Kind, pack


def refused(peer: Peer, call_id: int) -> None:
    """The next event, which must be the client's refusal."""
    event = peer.expect(ErrorReceived)
    assert event.call_id == call_id
    assert (event.error.reason, event.error.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)


def test_hello_takes_no_calls() -> None:
    """Neither a call nor a message: whatever the limits of this side say of calls in flight."""

    def script(peer: Peer) -> None:
        hello = peer.greet().hello
        assert hello is not None
        assert (hello.max_calls, hello.first_credit, hello.one_way_credit) == (0, NO_CREDIT, 0)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.call(ECHO, echo("x")).text == "x"


@pytest.mark.parametrize("who", ["nobody", "a caller", "a future", "a stream"])
@pytest.mark.parametrize("flags", [Flag.NONE, Flag.ITEMS_COME_BACK, Flag.ITEMS_FOLLOW])
def test_a_call_is_refused_whoever_receives(who: str, flags: Flag) -> None:
    """At once, or within the second in which the keeper looks; and the connection goes on."""
    ready, told = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        held = peer.request() if who in ("a caller", "a future") else None
        stream = peer.stream_request() if who == "a stream" else None
        assert ready.wait(PATIENCE)
        if flags:
            call_id = peer.connection.send_flagged_request(flags, ECHO.opcode, b"")
        else:
            call_id = peer.connection.send_request(ECHO.opcode, b"x")
        peer.flush()
        refused(peer, call_id)
        told.set()
        if held is not None:
            peer.answer(held)
        if stream is not None:
            peer.connection.send_end(stream.call_id)
            peer.flush()
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        waiting: Future[Any] | None = None
        if who == "a caller":
            waiting = pool.submit(client.call, ECHO, echo("held"))
        elif who == "a future":
            waiting = client.start(ECHO, echo("held"))
        elif who == "a stream":
            waiting = pool.submit(list, client.stream(COUNT, CountRequest(upto=0)))
        ready.set()
        assert told.wait(PATIENCE)
        if waiting is not None:
            waiting.result(PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1


def test_a_call_that_comes_together_with_an_answer_is_refused() -> None:
    """The answer is the caller's at once; the refusal goes although the caller has left."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.request()
        peer.connection.send_response(request.call_id, peer.payload(ECHO, EchoResponse(text="x")))
        call_id = peer.connection.send_request(ECHO.opcode, b"x")
        peer.flush()  # both with one send
        refused(peer, call_id)
        told.set()
        peer.until_gone()

    told = threading.Event()
    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert client.call(ECHO, echo("x")).text == "x"
        assert told.wait(PATIENCE)


def test_a_message_ends_the_connection() -> None:
    """A one-way call is never refused by itself: without credit for it the server has broken a rule."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        codec, version = peer.connection.codec, peer.connection.version
        peer.sock.sendall(pack(Kind.REQUEST, codec, version, 1, TOP_BIT | 1, b"", b"x", Flag.ONE_WAY))
        event = peer.expect(ConnectionEnded)
        assert event.error is not None
        assert event.error.reason == "CREDIT_EXCEEDED"

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(ConnectionLost, match="CREDIT_EXCEEDED") as caught:
            client.call(ECHO, echo("x"))
        assert caught.value.retry is Retry.MAYBE_PROCESSED


def asking(peer: Peer, kind: Kind, first: int, count: int) -> bytes:
    """So many PINGs, or calls from that one on, all of which are to be answered."""
    if kind is Kind.PING:
        return pack(Kind.PING, 0, 0, 0, 0, b"", bytes(8)) * count
    codec, version = peer.connection.codec, peer.connection.version
    return b"".join(
        pack(Kind.REQUEST, codec, version, 1, TOP_BIT | call_id, b"", b"") for call_id in range(first, first + count)
    )


@pytest.mark.parametrize("kind", [Kind.PING, Kind.REQUEST])
def test_a_server_that_asks_on_and_takes_no_answers_is_given_up(kind: Kind) -> None:
    """Before what waits for it fills the memory: long before the time for writing is up, which a trickle puts off."""
    narrow, gone = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.greet().request()
        assert narrow.wait(PATIENCE)
        with contextlib.suppress(ConnectionError):
            for first in range(1, 100_000, 1000):
                peer.sock.sendall(asking(peer, kind, first, 1000))
                if gone.is_set():
                    return
        assert gone.wait(PATIENCE)

    # Of PINGs it takes any number here: what waits for the server is too much in any case.
    limits = Limits(
        high_watermark=1000,
        low_watermark=1000,
        write_timeout=10 * PATIENCE,
        pings_per_second=1_000_000,
        ping_burst=1_000_000,
    )
    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        call = client.start(ECHO, echo("x"), timeout=PATIENCE)
        link = client._line.links[-1]
        link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        narrow.set()
        error = call.exception(2 * PATIENCE)
        gone.set()
        assert isinstance(error, ConnectionLost)
        assert "it asks for more than it takes answers" in str(error)
        assert len(link._output.waiting) < 2_000_000


def test_what_waits_because_of_calls_gives_no_server_up() -> None:
    """Requests beyond every limit wait, and PONGs now and then between them: all of it arrives in the end."""
    text, count = "x" * 300_000, 4

    def script(peer: Peer) -> None:
        peer.greet(max_calls=count)
        assert go.wait(PATIENCE)
        peer.sock.sendall(asking(peer, Kind.PING, 0, 20))
        peer.serve()

    go = threading.Event()
    limits = Limits(high_watermark=1000, low_watermark=1000)
    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        client._line.links[-1]._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        answers = [client.start(ECHO, echo(text)) for _ in range(count)]
        go.set()
        assert [answer.result(PATIENCE).text for answer in answers] == [text] * count
        assert server.connections == 1
