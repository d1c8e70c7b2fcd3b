"""Streams: items, credit, their ends and their time limits."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, serving
from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, CountResponse, echo
from wireproto import CallError, ConnectionLost, DecodeError, Metadata, Retry, Status, Stream, connect
from wireproto.wire.answers import pack_answer
from wireproto.wire.events import CancelReceived, CreditReceived, FlaggedRequestReceived, RequestReceived
from wireproto.wire.frame import Credit


def items(peer: Peer, request: FlaggedRequestReceived, *numbers: int) -> None:
    """Send items, together."""
    for n in numbers:
        peer.connection.send_item(request.call_id, peer.payload(COUNT, CountResponse(n=n)))
    peer.flush()


def end(peer: Peer, request: FlaggedRequestReceived) -> None:
    peer.connection.send_end(request.call_id)
    peer.flush()


def counting(peer: Peer) -> None:
    """Count as far as the request says, as the credit allows."""
    peer.greet()
    request = peer.stream_request()
    n, upto = 0, peer.message(request).upto
    while n < upto:
        while n < upto and peer.connection.may_send_item(request.call_id):
            items(peer, request, n)
            n += 1
        if n < upto:
            peer.expect(CreditReceived)
    end(peer, request)
    peer.serve()


@pytest.mark.parametrize(("credit", "batch"), [(1, 1), (2, 1), (7, 3), (64, 32), (64, 500), (1000, 1)])
def test_a_stream_yields_all_items_in_order(credit: int, batch: int) -> None:
    """Whatever the credit and the batch, every item comes, once."""
    with serving(counting) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=200), credit=credit, batch=batch)
        assert [item.n for item in stream] == list(range(200))
        assert list(stream) == []
        assert client.call(ECHO, echo("x")).text == "x"


def test_what_the_end_says_is_there_when_the_stream_is_at_its_end() -> None:
    """Not before its items are handed out, though all of it has come together with the first one."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        peer.connection.set_metadata(request.call_id, pack_answer({"region": "eu"}))
        for number in range(3):
            peer.connection.send_item(request.call_id, peer.payload(COUNT, CountResponse(n=number)))
        peer.connection.send_end(request.call_id)
        peer.flush()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=3))
        for number in range(3):
            assert next(stream).n == number
            assert dict(stream.metadata) == {}
        assert list(stream) == []
        assert dict(stream.metadata) == {"region": "eu"}


def test_credit_goes_back_in_batches_of_items_taken() -> None:
    """An item counts as taken when the next is asked for, or when it is acknowledged, and not twice."""
    seen: list[Credit | None] = []
    step = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        assert isinstance(request.metadata, Metadata)
        seen.append(request.metadata.credit)
        items(peer, request, *range(6))
        for _ in range(3):
            seen.append(peer.expect(CreditReceived).more)
            step.release()
        end(peer, request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=6), credit=6, batch=2)
        assert next(stream).n == 0
        assert next(stream).n == 1
        assert not step.acquire(timeout=0.05), "one item is taken, the other one is still out"
        stream.acknowledge()
        assert step.acquire(timeout=PATIENCE)
        stream.acknowledge()
        assert next(stream).n == 2
        assert next(stream).n == 3
        assert next(stream).n == 4
        assert step.acquire(timeout=PATIENCE)
        assert not step.acquire(timeout=0.05)
        assert [item.n for item in stream] == [5]
    back = Credit(2, 2 * len(b"\x91\x00"))
    assert seen == [Credit(6, 1024 * 1024), back, back, back]


def test_a_batch_of_one_returns_each_item_at_once() -> None:
    """With ``batch=1`` the credit of an item goes back when it is acknowledged: an acknowledgement in all but name."""
    acknowledged = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        items(peer, request, 0, 1)
        for _ in range(2):
            assert peer.expect(CreditReceived).more.items == 1
            acknowledged.release()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=9), credit=2, batch=1)
        for _ in range(2):
            next(stream)
            assert not acknowledged.acquire(timeout=0.02)
            stream.acknowledge()
            assert acknowledged.acquire(timeout=PATIENCE)
        stream.close()


def test_closing_a_stream_cancels_it() -> None:
    """The server is told once, the rest is dropped, and the connection goes on."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        items(peer, request, 0, 1, 2)
        assert peer.expect(CancelReceived).call_id == request.call_id
        cancelled.set()
        peer.send_crossing_item(request, CountResponse(n=3))
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with client.stream(COUNT, CountRequest(upto=9)) as stream:
            assert next(stream).n == 0
        assert cancelled.wait(PATIENCE)
        stream.close()
        assert list(stream) == []
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1


@pytest.mark.parametrize("lead", [True, False])
def test_closing_from_another_thread_ends_the_iteration(lead: bool) -> None:
    """A consumer that waits, receiving by itself or parked behind another caller, sees the end of the stream."""
    waiting = threading.Event()
    calling = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        held = None
        if not lead:
            held = peer.request()
            calling.set()
        request = peer.stream_request()
        items(peer, request, 0)
        peer.expect(CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        if held is not None:
            peer.answer(held)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(2) as pool:
        call = None
        if not lead:
            call = pool.submit(client.call, ECHO, echo("held"))
            assert calling.wait(PATIENCE)
        stream = client.stream(COUNT, CountRequest(upto=9))

        def consume() -> list[int]:
            found = []
            for item in stream:
                found.append(item.n)
                waiting.set()
            return found

        consumer = pool.submit(consume)
        assert waiting.wait(PATIENCE)
        stream.close()
        assert consumer.result(PATIENCE) == [0]
        if call is not None:
            assert call.result(PATIENCE).text == "held"


def test_waiting_for_one_item_has_a_limit_of_its_own() -> None:
    """``next`` with a time limit leaves the stream as it is when none came."""
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        assert go.wait(PATIENCE)
        items(peer, request, 0)
        end(peer, request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=1))
        for timeout in (0, 0.03):
            with pytest.raises(TimeoutError, match="goes on"):
                stream.next(timeout)
        go.set()
        assert stream.next(PATIENCE).n == 0
        with pytest.raises(StopIteration):
            stream.next()


def test_a_stream_that_outlasts_its_time_is_cancelled() -> None:
    """The time limit of the stream counts from its beginning; what came in time is handed out."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        assert isinstance(request.metadata, Metadata)
        assert request.metadata.deadline_ms
        items(peer, request, 0)
        peer.expect(CancelReceived)
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=9), timeout=0.1)
        assert next(stream).n == 0
        with pytest.raises(CallError) as caught:
            next(stream)
        assert (caught.value.status, caught.value.reason) == (Status.DEADLINE_EXCEEDED, "DEADLINE")
        assert list(stream) == []
        assert client.call(ECHO, echo("x")).text == "x"


def test_an_error_comes_after_the_items_before_it() -> None:
    """A stream that fails in the middle hands out what it sent, then raises, then is at its end."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        items(peer, request, 0, 1)
        peer.refuse(request, CallError(Status.ABORTED, "ENOUGH", "counted enough"))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=9))
        assert [next(stream).n, next(stream).n] == [0, 1]
        with pytest.raises(CallError, match="ENOUGH: counted enough"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_an_item_that_means_nothing_ends_the_stream() -> None:
    """It is a DecodeError of the consumer, and the server is told to stop."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        peer.connection.send_item(request.call_id, b"\xff")
        peer.flush()
        peer.expect(CancelReceived)
        cancelled.set()
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=9))
        with pytest.raises(DecodeError):
            next(stream)
        assert cancelled.wait(PATIENCE)
        assert list(stream) == []
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_lost_stream_hands_out_what_came_and_then_says_so() -> None:
    """ConnectionLost comes after the items, with the advice of a call that was sent."""

    def script(peer: Peer) -> None:
        peer.greet()
        items(peer, peer.stream_request(), 0, 1)

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=9))
        assert [next(stream).n, next(stream).n] == [0, 1]
        with pytest.raises(ConnectionLost, match="closed the connection") as caught:
            next(stream)
        assert caught.value.retry is Retry.MAYBE_PROCESSED


def test_a_stream_that_was_not_looked_at_begins_again() -> None:
    """A GOAWAY that leaves a stream out sends it to another connection by itself, if no item came before."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.stream_request()
        peer.go_away(0)
        peer.until_gone()

    with serving(script, counting) as server, connect(server.address, SERVICE) as client:
        assert [item.n for item in client.stream(COUNT, CountRequest(upto=3))] == [0, 1, 2]
        assert server.connections == 2


def test_streams_and_calls_share_a_connection() -> None:
    """Five consumers and a caller, each in a thread: all get theirs, whoever receives."""

    def script(peer: Peer) -> None:
        peer.greet()
        streams = [peer.stream_request() for _ in range(5)]
        for n in range(60):
            for request in streams:
                if not peer.connection.may_send_item(request.call_id):
                    while not isinstance(event := peer.event(), CreditReceived) or event.call_id != request.call_id:
                        if isinstance(event, RequestReceived):
                            peer.answer(event)
                items(peer, request, n)
        for request in streams:
            end(peer, request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(6) as pool:
        streams = [client.stream(COUNT, CountRequest(upto=60), credit=8, batch=4) for _ in range(5)]

        def consume(stream: Stream[CountResponse]) -> list[int]:
            return [item.n for item in stream]

        consumers = [pool.submit(consume, stream) for stream in streams]
        calls = [pool.submit(client.call, ECHO, echo(str(n))) for n in range(50)]
        for consumer in consumers:
            assert consumer.result(PATIENCE) == list(range(60))
        assert [call.result(PATIENCE).text for call in calls] == [str(n) for n in range(50)]


def test_items_wait_for_a_slow_consumer_without_a_thread() -> None:
    """While the consumer is busy the keeper reads on; more than the credit never comes."""
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        items(peer, request, *range(5))
        assert not peer.connection.may_send_item(request.call_id)
        sent.set()
        # The client reads although nobody waits: it answers a PING.
        peer.connection.send_ping(b"12345678")
        peer.flush()
        peer.sock.settimeout(PATIENCE)
        while peer.connection.frames_received < 3:
            data = peer.sock.recv(65_536)
            peer.connection.receive_data(data)
            peer.connection.next_event()
        end(peer, request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        threads = threading.active_count()
        stream = client.stream(COUNT, CountRequest(upto=9), credit=5, batch=5)
        assert sent.wait(PATIENCE)
        assert threading.active_count() <= threads
        assert [item.n for item in stream] == [0, 1, 2, 3, 4]


def test_a_dropped_stream_is_cancelled() -> None:
    """A stream that nobody holds any more is not left open on the server."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.stream_request()
        items(peer, request, 0)
        peer.expect(CancelReceived)
        cancelled.set()
        peer.refuse(request, CallError(Status.CANCELLED, "CANCELLED"))
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=9))
        assert next(stream).n == 0
        del stream
        gc.collect()
        assert cancelled.wait(PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"
