"""``call_many``: order, the window, and never a deadlock."""

import gc
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, Script, echoing, serving
from tests.client.service import ECHO, NEW, SERVICE, EchoRequest, EchoResponse, NewRequest, echo
from wireproto import CallError, ConnectionLost, DecodeError, EncodeError, Retry, Status, connect
from wireproto.client import Backoff
from wireproto.wire.events import NEED_DATA, CancelReceived, ConnectionEnded, RequestReceived


def narrow(answer: int) -> Script:
    """A script that answers each request with so many bytes, and reads nothing while its output is full."""

    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131_072)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        peer.greet(max_calls=256)
        payload = peer.payload(ECHO, EchoResponse(text="y" * answer))
        connection = peer.connection
        while data := peer.sock.recv(65_536):
            connection.receive_data(data)
            while (event := connection.next_event()) is not NEED_DATA:
                assert isinstance(event, RequestReceived)
                connection.send_response(event.call_id, payload)
            peer.flush()  # blocks until the client reads

    return script


def test_responses_come_in_the_order_of_the_requests() -> None:
    """However the server answers."""

    def script(peer: Peer) -> None:
        peer.greet(max_calls=10)
        for _ in range(10):
            for request in reversed([peer.request() for _ in range(10)]):
                peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        requests = [echo(str(n)) for n in range(100)]
        assert [response.text for response in client.call_many(ECHO, requests)] == [str(n) for n in range(100)]


def test_no_requests_make_no_responses() -> None:
    """Nothing is sent, and nothing waited for."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        assert list(client.call_many(ECHO, [])) == []


@pytest.mark.parametrize(("asked", "answered"), [(0, 10_240), (30_000, 100_000)])
def test_a_server_that_does_not_read_while_it_writes_is_no_deadlock(asked: int, answered: int) -> None:
    """With more under way in both directions than the kernel holds, the client reads whenever it cannot write."""
    with serving(narrow(answered)) as server, connect(server.address, SERVICE) as client:
        count = 0
        for response in client.call_many(ECHO, (echo("x" * asked) for _ in range(600))):
            assert len(response.text) == answered
            count += 1
        assert count == 600


@pytest.mark.slow
def test_a_hundred_thousand_calls_with_large_answers() -> None:
    """The figure that is promised: 100,000 requests with answers of 10 KiB."""
    with serving(narrow(10_240)) as server, connect(server.address, SERVICE) as client:
        assert sum(1 for _ in client.call_many(ECHO, (echo() for _ in range(100_000)))) == 100_000


def test_large_requests_do_not_pile_up() -> None:
    """A slice of requests ends at its bytes: requests of 100 KB are not all in memory at once."""
    read = 0

    def requests() -> Iterator[EchoRequest]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield echo("x" * 100_000)

    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, requests())
        assert len(next(responses).text) == 100_000
        assert read < 30
        assert sum(1 for _ in responses) == 99


def test_requests_are_read_lazily_within_the_window() -> None:
    """At most the negotiated number of requests is between being read and having its response handed out."""
    read = 0
    most = 0

    def requests() -> Iterator[EchoRequest]:
        nonlocal read
        for n in range(200):
            read += 1
            yield echo(str(n))

    def script(peer: Peer) -> None:
        nonlocal most
        peer.greet(max_calls=16)
        while not isinstance(event := peer.event(), ConnectionEnded):
            most = max(most, peer.connection.calls_in_flight)
            assert isinstance(event, RequestReceived)
            peer.answer(event)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, requests())
        assert read == 0
        for taken, response in enumerate(responses):
            assert response.text == str(taken)
            assert read - taken <= 16
    assert most <= 16


def test_a_failing_call_raises_in_its_place_and_cancels_the_rest() -> None:
    """What was answered before is handed out first; what is in flight after it is given up."""
    cancelled = []
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=8)
        requests = [peer.request() for _ in range(8)]
        peer.refuse(requests[2], CallError(Status.ABORTED, "NO", "not this one"))
        peer.answer(requests[1])
        peer.answer(requests[0])
        for _ in range(5):
            cancelled.append(peer.expect(CancelReceived).call_id)
        done.set()
        for request in requests[3:]:
            peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, (echo(str(n)) for n in range(100)))
        assert [next(responses).text, next(responses).text] == ["0", "1"]
        with pytest.raises(CallError, match="not this one"):
            next(responses)
        assert done.wait(PATIENCE)
        assert cancelled == [4, 5, 6, 7, 8]
        assert list(responses) == []
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1


def test_giving_up_many_calls_stays_within_the_servers_patience() -> None:
    """Cancelling 256 calls at once would look like a flood: what is over the budget is left to be answered."""
    cancels = 0
    told = threading.Event()

    def script(peer: Peer) -> None:
        nonlocal cancels
        peer.greet(max_calls=256)
        requests = [peer.request() for _ in range(256)]
        peer.refuse(requests[0], CallError(Status.ABORTED, "NO"))
        while not isinstance(event := peer.event(), RequestReceived):
            assert isinstance(event, CancelReceived)
            cancels += 1
        told.set()
        for request in requests[1:]:
            peer.answer(request)
        peer.answer(event)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="NO"):
            next(client.call_many(ECHO, (echo(str(n)) for n in range(1000))))
        with ThreadPoolExecutor(1) as pool:
            # A place is free: the failed call's own.
            assert pool.submit(client.call, ECHO, echo("x")).result(PATIENCE).text == "x"
        assert told.wait(PATIENCE)
        assert 50 < cancels <= 100
        assert client.call(ECHO, echo("y")).text == "y"
        assert server.connections == 1


def test_a_request_that_cannot_be_written_raises_in_its_place() -> None:
    """So does one that cannot be read; the responses before it come first."""

    def requests() -> Iterator[EchoRequest]:
        yield echo("0")
        yield echo("1")
        raise LookupError("no more where that came from")

    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, [echo("0"), echo("\ud800"), echo("2")])
        assert next(responses).text == "0"
        with pytest.raises(EncodeError):
            next(responses)
        assert list(responses) == []
        responses = client.call_many(ECHO, requests())
        assert [next(responses).text, next(responses).text] == ["0", "1"]
        with pytest.raises(LookupError, match="no more"):
            next(responses)
        responses = client.call_many(ECHO, [echo("0"), echo("x" * 2_000_000), echo("2")])
        assert next(responses).text == "0"
        with pytest.raises(CallError, match="REQUEST_TOO_LARGE"):
            next(responses)
        assert list(responses) == []
        assert client.call(ECHO, echo("x")).text == "x"


def test_an_answer_that_means_nothing_raises_in_its_place() -> None:
    """DecodeError for the one, and the rest is given up."""

    def script(peer: Peer) -> None:
        peer.greet()
        requests = [peer.request() for _ in range(3)]
        peer.answer(requests[0])
        peer.connection.send_response(requests[1].call_id, b"\xff")
        peer.answer(requests[2])
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, [echo("0"), echo("1"), echo("2")])
        assert next(responses).text == "0"
        with pytest.raises(DecodeError):
            next(responses)
        assert list(responses) == []


def test_each_call_has_its_own_time() -> None:
    """The time limit counts for each call from its sending; the one that is late raises in its place."""

    def script(peer: Peer) -> None:
        peer.greet()
        requests = [peer.request() for _ in range(3)]
        peer.answer(requests[0])
        peer.answer(requests[2])
        peer.expect(CancelReceived)
        peer.answer(requests[1])
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, [echo("0"), echo("1"), echo("2")], timeout=0.1)
        assert next(responses).text == "0"
        with pytest.raises(CallError, match="DEADLINE"):
            next(responses)
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_method_the_version_lacks_raises_with_the_first_response() -> None:
    """Nothing is sent."""

    def script(peer: Peer) -> None:
        peer.greet(version=1).until_gone()
        assert peer.connection.last_call_id == 0

    with serving(script) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(NEW, [NewRequest()])
        with pytest.raises(CallError, match="since version 2"):
            next(responses)


def test_goaway_in_the_middle_loses_nothing() -> None:
    """Accepted calls are answered, the others go to the next connection, and the order holds."""

    def script(peer: Peer) -> None:
        peer.greet(max_calls=8)
        requests = [peer.request() for _ in range(8)]
        peer.go_away(requests[3].call_id)
        for request in requests[:4]:
            peer.answer(request)
        peer.until_gone()

    with serving(script, echoing) as server, connect(server.address, SERVICE, backoff=Backoff(0.01, 0.02)) as client:
        responses = client.call_many(ECHO, (echo(str(n)) for n in range(50)))
        assert [response.text for response in responses] == [str(n) for n in range(50)]
        assert server.connections == 2


def test_a_lost_connection_raises_in_its_place() -> None:
    """A call that may have been processed is not repeated."""

    def script(peer: Peer) -> None:
        peer.greet(max_calls=8)
        requests = [peer.request() for _ in range(8)]
        peer.answer(requests[0])

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, (echo(str(n)) for n in range(50)))
        assert next(responses).text == "0"
        with pytest.raises(ConnectionLost) as caught:
            next(responses)
        assert caught.value.retry is Retry.MAYBE_PROCESSED
        assert list(responses) == []


def test_many_and_single_calls_share_the_places() -> None:
    """Two iterators and four callers on a connection that takes three calls at a time: nobody starves."""

    def script(peer: Peer) -> None:
        peer.greet(max_calls=3).serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(6) as pool:

        def many(thread: int) -> None:
            texts = [f"{thread}.{n}" for n in range(100)]
            assert [each.text for each in client.call_many(ECHO, map(echo, texts))] == texts

        def single(thread: int) -> None:
            for n in range(60):
                assert client.call(ECHO, echo(f"{thread}.{n}")).text == f"{thread}.{n}"

        tasks = [pool.submit(many, n) for n in range(2)] + [pool.submit(single, n) for n in range(4)]
        for task in tasks:
            task.result(PATIENCE)
        assert server.connections == 1


def test_a_dropped_iterator_gives_up_its_calls() -> None:
    """Without ``close`` the calls in flight are cancelled by and by."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=2)
        first, second = peer.request(), peer.request()
        peer.answer(first)
        assert peer.expect(CancelReceived).call_id == second.call_id
        cancelled.set()
        peer.answer(second)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        responses = client.call_many(ECHO, [echo("0"), echo("1")])
        assert next(responses).text == "0"
        del responses
        gc.collect()
        assert cancelled.wait(PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"
