"""Calls whose answers go to futures."""

import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import ECHO, OTHER, SERVICE, SMALL, EchoResponse, NewRequest, SmallRequest, echo
from wireproto import (
    CallError,
    Client,
    ConnectionLost,
    DecodeError,
    EncodeError,
    Limits,
    LocalProtocolError,
    Retry,
    connect,
)
from wireproto.client.reception import QUIET
from wireproto.wire.events import CancelReceived


def test_futures_are_completed_while_nobody_waits() -> None:
    """The keeper reads for them: callbacks run although no thread calls or waits."""
    done = threading.Semaphore(0)
    threads = set()

    def completed(future: "Future[EchoResponse]") -> None:
        threads.add(threading.current_thread().name)
        done.release()

    def script(peer: Peer) -> None:
        peer.greet()
        for request in reversed([peer.request() for _ in range(10)]):
            peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        futures = [client.start(ECHO, echo(str(n))) for n in range(10)]
        for future in futures:
            future.add_done_callback(completed)
        for _ in futures:
            assert done.acquire(timeout=PATIENCE)
        assert [future.result(0).text for future in futures] == [str(n) for n in range(10)]
    assert threads <= {"wireproto-keeper", threading.current_thread().name}


def test_futures_and_calls_mix() -> None:
    """A caller that receives takes the answers of futures along; the keeper completes them."""

    def script(peer: Peer) -> None:
        peer.greet()
        for _ in range(50):
            for request in [peer.request() for _ in range(4)]:
                peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        for turn in range(50):
            futures = [client.start(ECHO, echo(f"{turn}.{n}")) for n in range(3)]
            assert client.call(ECHO, echo(f"{turn}")).text == f"{turn}"
            assert [future.result(PATIENCE).text for future in futures] == [f"{turn}.{n}" for n in range(3)]


def test_futures_are_read_for_at_once() -> None:
    """A future that begins after a call, with nobody waiting, does not wait for the link to fall quiet."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        began = time.monotonic()
        for n in range(30):
            client.call(ECHO, echo("x"))
            assert client.start(ECHO, echo(str(n))).result(PATIENCE).text == str(n)
        assert time.monotonic() - began < 30 * QUIET / 2


@pytest.mark.parametrize("led", [False, True])
def test_requests_of_futures_leave_though_nobody_waits_to_write(led: bool) -> None:
    """What the kernel did not take is written on by the keeper, also while a caller that expects nothing receives."""
    count = 12
    go = threading.Event()
    calling = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        held = peer.request() if led else None
        calling.set()
        assert go.wait(PATIENCE)
        for request in [peer.request() for _ in range(count)]:
            peer.answer(request, "got it")
        if held is not None:
            peer.answer(held)
        peer.until_gone()

    limits = Limits(high_watermark=64 * 1024 * 1024)
    with (
        serving(script) as server,
        connect(server.address, SERVICE, limits=limits) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(client.call, ECHO, echo("held")) if led else None
        if led:
            assert calling.wait(PATIENCE)
        futures = [client.start(ECHO, echo("x" * 900_000)) for _ in range(count)]
        go.set()
        assert [future.result(PATIENCE).text for future in futures] == ["got it"] * count
        if call is not None:
            assert call.result(PATIENCE).text == "held"


def test_a_callback_may_call() -> None:
    """A callback that calls on the same client gets its answer: whoever runs it is not in the way."""
    answers: list[str] = []
    done = threading.Event()

    with serving(echoing) as server, connect(server.address, SERVICE) as client:

        def again(future: "Future[EchoResponse]") -> None:
            answers.append(client.call(ECHO, echo(future.result().text + " again")).text)
            done.set()

        client.start(ECHO, echo("x")).add_done_callback(again)
        assert done.wait(PATIENCE)
    assert answers == ["x again"]


def test_cancelling_a_future_tells_the_server() -> None:
    """CANCEL goes out, waiters are released, the late answer is dropped, and the connection goes on."""
    cancelled = threading.Event()
    received = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.request()
        received.set()
        assert peer.expect(CancelReceived).call_id == request.call_id
        cancelled.set()
        peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        future = client.start(ECHO, echo("x"))
        assert received.wait(PATIENCE)
        assert future.cancel()
        assert future.cancel(), "once cancelled it stays so"
        assert cancelled.wait(PATIENCE)
        assert wait([future], PATIENCE).done == {future}
        with pytest.raises(CancelledError):
            future.result(0)
        assert client.call(ECHO, echo("y")).text == "y"
        answered = client.start(ECHO, echo("z"))
        assert answered.result(PATIENCE).text == "z"
        assert not answered.cancel()


def test_futures_cancelled_while_they_are_answered_end_one_way() -> None:
    """Cancelling races with answers: each future is cancelled or has its own answer, and nothing breaks."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        cancelled = 0
        for turn in range(60):
            futures = [client.start(ECHO, echo(f"{turn}.{n}")) for n in range(3)]
            won = [future.cancel() for future in futures]
            assert wait(futures, PATIENCE).not_done == set()
            for n, (future, gone) in enumerate(zip(futures, won, strict=True)):
                assert future.cancelled() == gone
                if not gone:
                    assert future.result(0).text == f"{turn}.{n}"
            cancelled += sum(won)
        assert server.connections == 1
        assert client.call(ECHO, echo("x")).text == "x"


def test_a_future_times_out_while_nobody_waits() -> None:
    """The keeper ends it at its time, and the server is told."""
    cancelled = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.request()
        peer.expect(CancelReceived)
        cancelled.set()
        peer.answer(request, "late")
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        future = client.start(SMALL, SmallRequest(text="x"))  # 0.05 s, as the method declares
        assert cancelled.wait(PATIENCE)
        error = future.exception(PATIENCE)
        assert isinstance(error, CallError)
        assert (error.reason, error.retry) == ("DEADLINE", Retry.MAYBE_PROCESSED)
        assert client.call(ECHO, echo("y")).text == "y"


def test_many_futures_time_out_each_at_its_time() -> None:
    """A later future with a shorter limit does not wait for an earlier one with a longer."""

    def script(peer: Peer) -> None:
        peer.greet().until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        slow = client.start(ECHO, echo("slow"), timeout=60)
        quick = [client.start(ECHO, echo("quick"), timeout=0.01 * n) for n in (5, 3, 1)]
        for future in quick:
            assert "DEADLINE" in str(future.exception(PATIENCE))
        assert not slow.done()
        assert slow.cancel()


def test_what_cannot_be_sent_is_the_futures_error() -> None:
    """Whatever is wrong with a request is in the future, connected or not; what is wrong with the call is raised."""
    with serving(echoing) as server, Client(server.address, SERVICE) as client:
        for _ in range(2):  # not connected, then connected
            assert isinstance(client.start(ECHO, echo("\ud800")).exception(PATIENCE), EncodeError)
            assert "REQUEST_TOO_LARGE" in str(client.start(SMALL, SmallRequest(text="x" * 200)).exception(PATIENCE))
            with pytest.raises(LocalProtocolError, match="no method of"):
                client.start(OTHER, NewRequest())
            assert client.start(ECHO, echo("y")).result(PATIENCE).text == "y"


def test_failures_reach_the_future() -> None:
    """A response that means nothing and a lost connection are exceptions of the future, never raised elsewhere."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.connection.send_response(peer.request().call_id, b"\xff")
        peer.flush()
        peer.request()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        assert isinstance(client.start(ECHO, echo("x")).exception(PATIENCE), DecodeError)
        assert isinstance(client.start(ECHO, echo("x")).exception(PATIENCE), ConnectionLost)


def test_futures_of_a_closed_client_fail() -> None:
    """``close`` leaves no future pending."""

    def script(peer: Peer) -> None:
        peer.greet().until_gone()

    with serving(script) as server:
        with connect(server.address, SERVICE) as client:
            futures = [client.start(ECHO, echo("x")) for _ in range(5)]
        for future in futures:
            assert "was closed" in str(future.exception(PATIENCE))
