"""What becomes of calls when the connection does not last, and how it is opened again."""

import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, CountResponse, echo
from wireproto import CallError, Client, ConnectionLost, Limits, LocalProtocolError, Retry, Status, connect
from wireproto.client import Backoff
from wireproto.client.link import Link
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import CancelReceived
from wireproto.wire.frame import pack


def quick() -> Backoff:
    """Back-off that a test has the time for."""
    return Backoff(0.01, 0.02)


def reset(peer: Peer) -> None:
    """End a connection as a crash does, with RST."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()


@pytest.mark.parametrize("how", ["closed", "reset", "cut", "final error", "nonsense"])
def test_a_loss_fails_every_call_in_flight(how: str) -> None:
    """Whether it leads or waits, each caller learns that its call may have been processed, and why."""

    def script(peer: Peer) -> None:
        peer.greet()
        requests = [peer.request() for _ in range(4)]
        if how == "reset":
            reset(peer)
        elif how == "cut":
            peer.sock.sendall(peer.half(requests[0], "x")[0])
        elif how == "final error":
            peer.connection.refuse(CallError(Status.RESOURCE_EXHAUSTED, "FLOOD", "too much of it"))
            peer.flush()
        elif how == "nonsense":
            peer.sock.sendall(pack(99, 0, 0, 0, 0, b"", b""))
            peer.until_gone()

    why = {
        "closed": "closed the connection",
        "reset": "reset by peer",
        "cut": r"was cut \(.*TRUNCATED_FRAME",
        "final error": "FLOOD: too much of it",
        "nonsense": r"broke the protocol \(.*UNKNOWN_KIND",
    }[how]
    with serving(script, echoing) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.call, ECHO, echo(str(n))) for n in range(3)]
        calls.append(client.start(ECHO, echo("3")))
        for call in calls:
            with pytest.raises(ConnectionLost, match=why) as caught:
                call.result(PATIENCE)
            assert caught.value.retry is Retry.MAYBE_PROCESSED
            assert caught.value.status is Status.UNAVAILABLE
        assert client.call(ECHO, echo("again")).text == "again"
        assert server.connections == 2


def test_a_final_error_is_read_although_sending_fails() -> None:
    """A server that ends the connection says why, and that is what the next caller is told, if it comes to that."""
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        peer.connection.refuse(CallError(Status.RESOURCE_EXHAUSTED, "FLOOD", "too much of it"))
        peer.flush()
        reset(peer)
        ended.set()

    with serving(script, echoing) as server, connect(server.address, SERVICE, backoff=quick()) as client:
        with pytest.raises(ConnectionLost, match=r"FLOOD|reset"):
            client.call(ECHO, echo("x"))
        assert ended.wait(PATIENCE)
        assert client.call(ECHO, echo("y")).text == "y"


def test_goaway_lets_accepted_calls_finish_and_repeats_the_others() -> None:
    """Calls after the last accepted one go to a new connection by themselves; the accepted one is answered."""
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        first = peer.request()
        sent.set()
        for _ in range(3):
            peer.request()
        peer.go_away(first.call_id)
        peer.answer(first)
        peer.until_gone()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(4) as pool:
        first = pool.submit(client.call, ECHO, echo("first"))
        assert sent.wait(PATIENCE)
        others = [pool.submit(client.call, ECHO, echo(str(n))) for n in range(3)]
        assert first.result(PATIENCE).text == "first"
        assert [each.result(PATIENCE).text for each in others] == ["0", "1", "2"]
        assert server.connections == 2


def test_a_call_that_crosses_goaway_is_repeated() -> None:
    """The ERROR of a server that is shutting down, "not processed", sends the call to another connection."""

    def script(peer: Peer) -> None:
        peer.greet()
        error = CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "going down", retry=Retry.NOT_PROCESSED)
        request = peer.request()
        peer.go_away(0)
        peer.connection.send_error(request.call_id, error)
        peer.flush()
        peer.until_gone()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 2


def test_goaway_is_read_by_the_order_in_which_calls_began() -> None:
    """Numbers begin anew: a call behind the one named may have a smaller number, and so has a stream that is older."""
    old = Connection(Role.CLIENT)._ours.stop - 3  # two numbers are left before they begin anew

    def script(peer: Peer) -> None:
        peer.greet()
        stream = peer.stream_request()
        opened.set()
        peer.connection._theirs.begin(old)
        requests = [peer.request() for _ in range(4)]
        assert [request.call_id - old for request in requests[:2]] == [1, 2]
        assert [request.call_id - stream.call_id for request in requests[2:]] == [1, 2]
        peer.go_away(requests[1].call_id)
        for request in requests[:2]:
            peer.answer(request)
        peer.connection.send_item(stream.call_id, peer.payload(COUNT, CountResponse(n=7)))
        peer.connection.send_end(stream.call_id)
        peer.flush()
        peer.until_gone()

    opened = threading.Event()
    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=0))
        assert opened.wait(PATIENCE)
        client._line.links[-1]._connection._ours.begin(old)
        answers = [client.start(ECHO, echo(str(n))) for n in range(4)]
        assert [answer.result(PATIENCE).text for answer in answers[:2]] == ["0", "1"]
        for answer in answers[2:]:
            with pytest.raises(ConnectionLost, match="going down") as caught:
                answer.result(PATIENCE)
            assert caught.value.retry is Retry.NOT_PROCESSED
        assert [item.n for item in stream] == [7]


def test_other_refusals_are_not_repeated() -> None:
    """A busy server is not asked again by itself, though it says that it did not look at the call."""

    def script(peer: Peer) -> None:
        peer.greet()
        error = CallError(Status.RESOURCE_EXHAUSTED, "SERVER_BUSY", "later", retry=Retry.NOT_PROCESSED)
        peer.refuse(peer.request(), error)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError, match="SERVER_BUSY"):
            client.call(ECHO, echo("x"))
        assert server.connections == 1


def test_repeating_is_bounded() -> None:
    """Servers that all go away are asked three times, and the error carries the advice of the last."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        peer.go_away(0)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE, backoff=quick()) as client:
        with pytest.raises(ConnectionLost, match="going down") as caught:
            client.call(ECHO, echo("x"))
        assert (caught.value.retry, caught.value.retry_after_ms) == (Retry.NOT_PROCESSED, 30)
        assert server.connections == 3


def test_goaway_is_seen_while_nobody_calls() -> None:
    """The keeper reads it: the next call goes to a new connection at once, and the old one is closed."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.go_away(0)
        peer.until_gone()
        gone.set()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        assert gone.wait(PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 2


def test_a_stream_survives_goaway_of_its_connection() -> None:
    """A draining connection serves its streams on, while calls go to the new one."""
    told = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        stream = peer.stream_request()
        peer.go_away(stream.call_id)
        assert told.wait(PATIENCE)
        peer.connection.send_end(stream.call_id)
        peer.flush()
        peer.until_gone()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        stream = client.stream(COUNT, CountRequest(upto=0))
        with pytest.raises(TimeoutError):
            stream.next(0.05)
        assert client.call(ECHO, echo("x")).text == "x"
        told.set()
        assert list(stream) == []
        assert server.connections == 2


def test_a_request_that_did_not_leave_was_not_processed() -> None:
    """What the kernel never took was certainly not processed; what it took may have been."""
    full = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        assert full.wait(PATIENCE)  # reads nothing: the client's output fills up
        reset(peer)

    limits = Limits(high_watermark=64 * 1024 * 1024)
    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        text = "x" * 900_000
        started = [client.start(ECHO, echo(text)) for _ in range(20)]
        server.stop_listening()
        full.set()
        advice = []
        for each in started:
            error = each.exception(PATIENCE)
            assert isinstance(error, ConnectionLost)
            advice.append(error.retry)
        assert advice == sorted(advice, reverse=True), "first those that left, then those that did not"
        assert set(advice) == {Retry.MAYBE_PROCESSED, Retry.NOT_PROCESSED}


def test_output_is_bounded() -> None:
    """Above the high watermark calls and futures wait for room as they wait for a place, within their time limits."""
    full = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        assert full.wait(PATIENCE)
        peer.serve()

    limits = Limits()
    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        text = "x" * 900_000
        futures = [client.start(ECHO, echo(text), timeout=PATIENCE) for _ in range(50)]
        output = client._line.link(None)._output
        assert len(output.waiting) < limits.high_watermark + 1_000_000
        with pytest.raises(CallError, match="no place") as caught:
            client.call(ECHO, echo(text), timeout=0.2)
        assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
        short = client.start(ECHO, echo(text), timeout=0.05).exception(PATIENCE)
        assert isinstance(short, CallError)
        assert (short.reason, short.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(client.call, ECHO, echo("late"))
            full.set()
            assert late.result(PATIENCE).text == "late"
        assert {len(future.result(PATIENCE).text) for future in futures} == {len(text)}


def test_a_server_that_takes_nothing_is_given_up() -> None:
    """Output that stands still for the write time-out ends the connection, never to go on in the middle of a frame."""
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        server.stop_listening()
        assert closed.wait(PATIENCE)

    with serving(script) as server, connect(server.address, SERVICE, limits=Limits(write_timeout=0.3)) as client:
        text = "x" * 900_000
        errors = [each.exception(PATIENCE) for each in [client.start(ECHO, echo(text)) for _ in range(30)]]
        closed.set()
        told = [error for error in errors if "took nothing" in str(error)]
        assert told
        assert all(isinstance(error, ConnectionLost) for error in errors)
        # Those that waited for room go on to another connection, which there is none of.
        assert all("refused" in str(error) or "tried again" in str(error) for error in errors[len(told) :])


def test_closing_from_another_thread_fails_the_calls() -> None:
    """``close`` wakes the thread that receives and those that wait; nothing can be called afterwards."""
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        for _ in range(3):
            peer.request()
        sent.set()
        peer.until_gone()

    with serving(script) as server, ThreadPoolExecutor(3) as pool:
        client = connect(server.address, SERVICE)
        calls = [pool.submit(client.call, ECHO, echo(str(n))) for n in range(3)]
        assert sent.wait(PATIENCE)
        client.close()
        for call in calls:
            with pytest.raises(ConnectionLost, match="the client was closed"):
                call.result(PATIENCE)
        with pytest.raises(LocalProtocolError, match="closed"):
            client.call(ECHO, echo("x"))
        client.close()
        assert server.connections == 1


def test_a_server_that_is_gone_is_tried_again_later() -> None:
    """Each call makes one attempt, no sooner than the back-off allows; the error says when."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.request())

    with serving(script) as server:
        client = connect(server.address, SERVICE, backoff=Backoff(0.05, 60, chance=lambda: 1.0))
        with client:
            assert client.call(ECHO, echo("x")).text == "x"
            server.stop_listening()
            with pytest.raises(ConnectionLost) as caught:
                client.call(ECHO, echo("y"))
            while caught.value.retry is Retry.MAYBE_PROCESSED:  # it crossed the end of the connection
                with pytest.raises(ConnectionLost) as caught:
                    client.call(ECHO, echo("y"))
            assert "refused" in str(caught.value)
            assert 0 < caught.value.retry_after_ms <= 50
            for timeout in (None, PATIENCE):
                with pytest.raises(ConnectionLost, match="tried again in") as caught:
                    client.call(ECHO, echo("y"), timeout=timeout)
                assert caught.value.retry is Retry.NOT_PROCESSED
                assert 0 < caught.value.retry_after_ms <= 50
            began = time.monotonic()
            with pytest.raises(ConnectionLost, match="tried again in") as caught:
                client.call(ECHO, echo("y"), timeout=0.4, wait=True)
            # Attempts at 0.05, 0.15 and 0.35 s; the next one, at 0.75 s, would be too late, so it is not waited for.
            assert 0.3 < time.monotonic() - began < 0.7
            assert caught.value.retry is Retry.NOT_PROCESSED


def test_closing_ends_the_wait_for_another_attempt() -> None:
    """A thread that waits out the back-off sees that the client is closed."""

    def script(peer: Peer) -> None:
        peer.greet()

    with serving(script) as server, ThreadPoolExecutor(1) as pool:
        client = connect(server.address, SERVICE, backoff=Backoff(600, 600, chance=lambda: 1.0))
        server.stop_listening()
        waiting = threading.Event()

        def calls() -> None:
            while True:
                try:
                    client.call(ECHO, echo("x"), timeout=0.05)
                except ConnectionLost as error:
                    if error.retry_after_ms > 1000:
                        break
            waiting.set()
            client.call(ECHO, echo("x"), wait=True)

        waiter = pool.submit(calls)
        assert waiting.wait(PATIENCE)
        client.close()
        with pytest.raises(LocalProtocolError, match="closed"):
            waiter.result(PATIENCE)


def test_threads_that_wait_for_a_connection_share_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the one thread that connects fails, those that waited for it do not try again one after the other."""
    attempts: list[None] = []
    waiting = threading.Semaphore(0)
    connecting, go = threading.Event(), threading.Event()

    def fail(*given: object) -> Link:
        attempts.append(None)
        connecting.set()
        assert go.wait(PATIENCE)
        raise ConnectionLost("nobody there", retry=Retry.NOT_PROCESSED)

    monkeypatch.setattr("wireproto.client.line.open_link", fail)
    with Client("127.0.0.1:1", SERVICE) as client, ThreadPoolExecutor(9) as pool:
        first = pool.submit(client.call, ECHO, echo("y"))
        assert connecting.wait(PATIENCE)
        really_acquire = client._line._opening.acquire

        def acquire(blocking: bool = True, timeout: float = -1) -> bool:
            waiting.release()
            return really_acquire(blocking, timeout)

        monkeypatch.setattr(client._line._opening, "acquire", acquire)
        calls = [pool.submit(client.call, ECHO, echo("y")) for _ in range(8)]
        for _ in calls:
            assert waiting.acquire(timeout=PATIENCE)
        future = client.start(ECHO, echo("y"))
        go.set()
        for call in (first, *calls, future):
            with pytest.raises(ConnectionLost, match="nobody there"):
                call.result(PATIENCE)
        assert len(attempts) == 1


def test_a_connection_that_never_works_is_backed_off_from() -> None:
    """A server that welcomes and hangs up is not asked again at full speed."""

    def script(peer: Peer) -> None:
        peer.greet()

    with serving(script) as server, connect(server.address, SERVICE, backoff=Backoff(0.05, 60)) as client:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            with pytest.raises(ConnectionLost):
                client.call(ECHO, echo("x"))
        assert server.connections < 15


def test_an_unclosed_client_warns_and_lets_go() -> None:
    """A client that is dropped without ``close`` says so, and its connection does not outlive it."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet().serve()
        gone.set()

    with serving(script) as server:
        client = connect(server.address, SERVICE)
        client.call(ECHO, echo("x"))
        with pytest.warns(ResourceWarning, match="unclosed client"):
            del client
        assert gone.wait(PATIENCE)


@pytest.fixture
def interrupting() -> Iterator[Callable[[str], None]]:
    """Makes a signal handler of the main thread raise once that thread is inside the function of this name."""

    raised = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if not raised.is_set():
            raised.set()
            raise KeyboardInterrupt

    main = threading.main_thread().ident
    assert main is not None

    def poke(function: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while sys._current_frames()[main].f_code.co_name != function:
            assert time.monotonic() < deadline
        while not raised.is_set():
            # Again: a signal that comes between Python's last look for signals and the wait is seen behind the wait.
            signal.pthread_kill(main, signal.SIGUSR1)
            raised.wait(0.2)
            assert time.monotonic() < deadline

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield poke
    signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_while_receiving_ends_the_connection(interrupting: Callable[[str], None]) -> None:
    """Bytes may be lost with the exception of a signal handler, so nothing is read from that connection any more."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        peer.until_gone()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        poking = pool.submit(interrupting, "_receive")
        with pytest.raises(KeyboardInterrupt):
            client.call(ECHO, echo("x"))
        poking.result(PATIENCE)
        assert client.call(ECHO, echo("y"), wait=True).text == "y"
        assert server.connections == 2


def test_an_interrupt_while_asleep_costs_only_the_call(interrupting: Callable[[str], None]) -> None:
    """A call with a time limit sleeps before it receives: interrupted there it is cancelled, and that is all."""

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.request()
        peer.expect(CancelReceived)
        peer.answer(request)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        poking = pool.submit(interrupting, "_sleep")
        with pytest.raises(KeyboardInterrupt):
            client.call(ECHO, echo("x"), timeout=PATIENCE)
        poking.result(PATIENCE)
        assert client.call(ECHO, echo("y")).text == "y"
        assert server.connections == 1


def test_an_interrupt_while_parked_costs_only_the_call(interrupting: Callable[[str], None]) -> None:
    """A caller that waits for another one's reading can be interrupted, and the lead is not lost with it."""
    first = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        held = peer.request()
        first.set()
        request = peer.request()
        peer.expect(CancelReceived)
        peer.answer(request)
        peer.answer(held)
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(2) as pool:
        leader = pool.submit(client.call, ECHO, echo("held"))
        assert first.wait(PATIENCE)
        poking = pool.submit(interrupting, "_follow")
        with pytest.raises(KeyboardInterrupt):
            client.call(ECHO, echo("x"))
        poking.result(PATIENCE)
        assert leader.result(PATIENCE).text == "held"
        assert client.call(ECHO, echo("y")).text == "y"
        assert server.connections == 1


def test_frames_of_several_threads_are_not_mixed() -> None:
    """Requests of several threads that the kernel takes piecemeal arrive whole, one after the other."""

    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        peer.greet().serve()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(8) as pool:
        texts = [chr(ord("a") + n) * 300_000 for n in range(8)]
        for _ in range(3):
            answers = pool.map(lambda text: client.call(ECHO, echo(text)).text, texts)
            assert list(answers) == texts
        assert server.connections == 1
