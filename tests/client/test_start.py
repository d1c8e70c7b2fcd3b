"""``start`` never blocks: calls wait in a queue for a connection or a place, and what goes wrong is in the future."""

import statistics
import threading
import time
from concurrent.futures import CancelledError, wait
from itertools import count

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import ECHO, SERVICE, echo
from wireproto import CallError, Client, ConnectionLost, Limits, LocalProtocolError, Retry, connect
from wireproto.client import Backoff

NOWHERE = "127.0.0.1:1"
PROMPT = 100e-6
"""Seconds that a ``start`` may take at the median while there is no server."""


@pytest.mark.parametrize("patient", [False, True])
def test_ten_thousand_starts_while_the_server_is_away_return_at_once(patient: bool) -> None:
    """Each returns within 100 us at the median, and every future ends: by an attempt, its time, or a full queue."""
    took = []
    with Client(NOWHERE, SERVICE, backoff=Backoff(0.05, 0.1)) as client:
        futures = []
        for _ in range(10_000):
            began = time.perf_counter()
            futures.append(client.start(ECHO, echo("x"), timeout=2.0, wait=patient))
            took.append(time.perf_counter() - began)
        assert wait(futures, PATIENCE).not_done == set()
    errors = [future.exception() for future in futures]
    assert all(isinstance(error, CallError) and error.retry is Retry.NOT_PROCESSED for error in errors)
    reasons = {error.reason for error in errors if isinstance(error, CallError)}
    assert reasons == ({"TOO_MANY_CALLS", "DEADLINE"} if patient else reasons - {"DEADLINE"})
    assert statistics.median(took) < PROMPT


def test_a_start_that_waits_is_sent_when_the_server_comes() -> None:
    """With ``wait`` it outlives failed attempts; without, the first one decides."""
    with serving(echoing) as server:
        address = server.address
        server.stop_listening()
        with Client(address, SERVICE, backoff=Backoff(0.01, 0.02)) as client:
            patient = [client.start(ECHO, echo(str(n)), wait=True) for n in range(10)]
            assert isinstance(client.start(ECHO, echo("x")).exception(PATIENCE), ConnectionLost)
            assert not any(future.done() for future in patient)
            client.close()
        assert {type(future.exception(PATIENCE)) for future in patient} == {ConnectionLost}
    with serving(echoing) as server, Client(server.address, SERVICE, wait=True) as client:
        assert [client.start(ECHO, echo(str(n))).result(PATIENCE).text for n in range(3)] == ["0", "1", "2"]


def test_calls_that_wait_go_over_the_next_connection() -> None:
    """Those that found no place on a connection that was lost are sent over the next one, each once, in order."""
    seen: list[str] = []
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=2)
        peer.request()
        peer.request()
        assert go.wait(PATIENCE)

    def recording(peer: Peer) -> None:
        peer.greet(max_calls=2)
        for _ in range(8):
            request = peer.request()
            seen.append(peer.message(request).text)
            peer.answer(request)
        peer.until_gone()

    with (
        serving(script, recording) as server,
        connect(server.address, SERVICE, wait=True, backoff=Backoff(0.01, 0.02)) as client,
    ):
        futures = [client.start(ECHO, echo(str(n))) for n in range(10)]
        go.set()
        lost = [future.exception(PATIENCE) for future in futures[:2]]
        assert all(isinstance(error, ConnectionLost) and error.retry is Retry.MAYBE_PROCESSED for error in lost)
        assert [future.result(PATIENCE).text for future in futures[2:]] == [str(n) for n in range(2, 10)]
    assert seen == [str(n) for n in range(2, 10)]


def test_threads_and_queued_calls_have_places_in_turn() -> None:
    """Whoever began to wait first has the next place, a thread that calls or a future."""
    order: list[str] = []
    first = threading.Event()
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1)
        for _ in range(5):
            request = peer.request()
            order.append(peer.message(request).text)
            first.set()
            assert go.wait(PATIENCE)
            peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        futures = [client.start(ECHO, echo("future 0"))]
        assert first.wait(PATIENCE)
        link = client._line.link(None)
        threads = []
        for n in (1, 2):
            futures.append(client.start(ECHO, echo(f"future {n}")))
            thread = threading.Thread(target=client.call, args=(ECHO, echo(f"thread {n}")))
            threads.append(thread)
            thread.start()
            while len(link._places.threads) < n:
                assert thread.is_alive()
        go.set()
        assert wait(futures, PATIENCE).not_done == set()
        for thread in threads:
            thread.join(PATIENCE)
    assert order == ["future 0", "future 1", "thread 1", "future 2", "thread 2"]


def test_a_queue_that_is_full_fails_the_next_call_at_once() -> None:
    """Beyond ``Limits.start_queue`` a future fails before ``start`` returns, and says what to do."""
    with serving(lambda peer: peer.greet(max_calls=1).until_gone()) as server:
        with connect(server.address, SERVICE, limits=Limits(start_queue=3)) as client:
            futures = [client.start(ECHO, echo("x")) for _ in range(4)]
            refused = client.start(ECHO, echo("x"))
            assert refused.done()
            error = refused.exception(0)
            assert isinstance(error, CallError)
            assert (error.reason, error.retry) == ("TOO_MANY_CALLS", Retry.NOT_PROCESSED)
            assert "start_queue" in error.message
            assert not any(future.done() for future in futures)
            assert futures[2].cancel()
            again = client.start(ECHO, echo("x"))
            assert not again.done()
        assert all("closed" in str(future.exception(PATIENCE)) for future in (*futures[:2], futures[3], again))


def test_a_queued_call_can_be_cancelled_and_times_out() -> None:
    """It leaves the queue, and the server never hears of it."""
    go = threading.Event()
    texts: list[str] = []

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1)
        for _ in range(2):
            request = peer.request()
            texts.append(peer.message(request).text)
            assert go.wait(PATIENCE)
            peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        first = client.start(ECHO, echo("first"))
        cancelled = client.start(ECHO, echo("cancelled"))
        late = client.start(ECHO, echo("late"), timeout=0.05)
        last = client.start(ECHO, echo("last"))
        assert cancelled.cancel()
        error = late.exception(PATIENCE)
        assert isinstance(error, CallError)
        assert (error.reason, error.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
        go.set()
        assert [each.result(PATIENCE).text for each in (first, last)] == ["first", "last"]
        with pytest.raises(CancelledError):
            cancelled.result(0)
    assert texts == ["first", "last"]


def test_cancelling_races_with_the_place_that_comes_free() -> None:
    """Each future is cancelled or has its own answer, whether it waited, was sent, or was just being sent."""
    with (
        serving(lambda peer: peer.greet(max_calls=2).serve()) as server,
        connect(server.address, SERVICE, limits=Limits(max_calls=2)) as client,
    ):
        for turn in range(100):
            futures = [client.start(ECHO, echo(f"{turn}.{n}")) for n in range(6)]
            won = [future.cancel() for future in futures[1::2]]
            assert wait(futures, PATIENCE).not_done == set()
            assert [future.cancelled() for future in futures[1::2]] == won
            for n, future in enumerate(futures):
                if not future.cancelled():
                    assert future.result(0).text == f"{turn}.{n}"
        assert server.connections == 1


def test_open_tries_now_whatever_the_pause() -> None:
    """The server is back: ``open`` does not wait for the back-off, and calls that wait go over its connection."""
    with serving(echoing) as server:
        backoff = Backoff(600, 600, chance=lambda: 1.0)
        with Client(server.address, SERVICE, backoff=backoff) as client:
            backoff.failed()
            patient = client.start(ECHO, echo("patient"), wait=True)
            refused = client.start(ECHO, echo("x")).exception(PATIENCE)
            assert isinstance(refused, ConnectionLost)
            assert refused.retry_after_ms > 500_000
            with pytest.raises(ConnectionLost, match="tried again in"):
                client.call(ECHO, echo("x"))
            client.open()
            assert client.call(ECHO, echo("y")).text == "y"
            assert patient.result(PATIENCE).text == "patient"


def test_a_call_made_while_connecting_shares_the_attempt() -> None:
    """One connection serves what was started before, during and after the attempt."""
    with serving(echoing) as server, Client(server.address, SERVICE) as client:
        numbers = count()
        futures = [client.start(ECHO, echo(str(next(numbers)))) for _ in range(50)]
        assert [future.result(PATIENCE).text for future in futures] == [str(n) for n in range(50)]
        assert server.connections == 1


def test_a_closed_client_starts_nothing() -> None:
    """``start`` raises, and what waited fails."""
    client = Client(NOWHERE, SERVICE, backoff=Backoff(600, 600))
    waiting = client.start(ECHO, echo("x"), wait=True)
    client.close()
    error = waiting.exception(PATIENCE)
    assert isinstance(error, ConnectionLost)
    assert error.retry is Retry.NOT_PROCESSED
    with pytest.raises(LocalProtocolError, match="closed"):
        client.start(ECHO, echo("x"))
