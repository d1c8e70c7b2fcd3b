"""The keeper: heartbeats, silent and stalled peers, and that it leaves when there is nothing to keep."""

import os
import queue
import threading
import time

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import ECHO, SERVICE, EchoResponse, echo
from tests.impatient import ImpatientConnection
from wireproto import CallError, ConnectionLost, Limits, Status, connect
from wireproto.client.keeper import Keeper, the_keeper
from wireproto.wire.events import ConnectionEnded, Event, PingReceived, PongReceived
from wireproto.wire.frame import HEADER, Kind
from wireproto.wire.liveness import MAX_CHATTER


def keepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wireproto-keeper"]


def test_one_thread_keeps_all_links_and_leaves_with_the_last() -> None:
    """Ten clients share it; after the last ``close`` it is gone, with its descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    with serving(echoing) as server:
        for _ in range(3):
            clients = [connect(server.address, SERVICE) for _ in range(10)]
            assert len(keepers()) == 1
            for client in clients:
                assert client.call(ECHO, echo("x")).text == "x"
            for client in clients:
                client.close()
            assert keepers() == []
        listening = 1
        assert len(os.listdir("/proc/self/fd")) - before <= listening + 30  # the fake's own ends may linger


def test_silence_is_broken_by_pings() -> None:
    """An idle connection sends one PING for each heartbeat without a sign of life, and PONGs are signs of life."""
    pings = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.greet(heartbeat_ms=1000)
        for _ in range(3):
            assert isinstance(peer.event(), PingReceived)
            peer.flush()
            pings.release()
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE, connections=ImpatientConnection) as client:
        for _ in range(3):
            assert pings.acquire(timeout=PATIENCE)
        assert client.call(ECHO, echo("x")).text == "x"
        assert server.connections == 1


@pytest.mark.plain
def test_the_servers_pings_are_answered_while_nobody_calls() -> None:
    """The keeper reads PING and answers it."""
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.connection.send_ping(b"12345678")
        peer.flush()
        data = b""
        while len(data) < 24:
            data += peer.sock.recv(65_536)
        assert data.endswith(b"12345678")
        answered.set()
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE):
        assert answered.wait(PATIENCE)


CHATTER = [HEADER.pack(12, 0xF0, 1, 2, 3, 4, 0, 5), HEADER.pack(20, Kind.PONG, 0, 0, 0, 0, 0, 0) + b"unasked!"]


@pytest.mark.plain
@pytest.mark.parametrize("each", CHATTER, ids=["unknown", "PONG"])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_server_that_chatters_is_told_so(each: bytes, waiting: bool) -> None:
    """Too many frames that mean nothing end the connection with a reason, whether a caller receives or the keeper."""
    told: queue.SimpleQueue[ConnectionEnded] = queue.SimpleQueue()

    def script(peer: Peer) -> None:
        peer.greet()
        if waiting:
            peer.request()
        peer.sock.sendall(each * (MAX_CHATTER - 10))
        peer.connection.send_ping(bytes(8))
        peer.flush()
        assert isinstance(peer.event(), PongReceived)
        peer.sock.sendall(each * MAX_CHATTER)
        told.put(peer.expect(ConnectionEnded))

    with serving(script) as server, connect(server.address, SERVICE) as client:
        if waiting:
            with pytest.raises(ConnectionLost, match=r"TOO_MANY_FRAMES.* frames that mean nothing"):
                client.call(ECHO, echo("x"))
        end = told.get(timeout=PATIENCE)
    assert isinstance(end.error, CallError)
    assert (end.error.reason, end.error.status) == ("TOO_MANY_FRAMES", Status.RESOURCE_EXHAUSTED)


@pytest.mark.plain
def test_a_server_that_floods_with_pings_is_told_so() -> None:
    """PINGs within the limit are answered; one more ends the connection with a reason, and fails the call."""
    limits = Limits(ping_burst=5, pings_per_second=0.001)
    told: list[Event] = []
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        for _ in range(6):
            peer.connection.send_ping(bytes(8))
        peer.flush()
        while not told or isinstance(told[-1], PongReceived):
            told.append(peer.event())
        over.set()

    with (
        serving(script) as server,
        connect(server.address, SERVICE, limits=limits) as client,
        pytest.raises(ConnectionLost, match="TOO_MANY_PINGS"),
    ):
        client.call(ECHO, echo("x"))
    assert over.wait(PATIENCE)
    *pongs, end = told
    assert len(pongs) in (5, 6)  # the one that was too many may be answered, too
    assert isinstance(end, ConnectionEnded)
    assert isinstance(end.error, CallError)
    assert end.error.reason == "TOO_MANY_PINGS"


def test_a_silent_peer_is_given_up() -> None:
    """After three heartbeats without a PONG the connection ends, and a caller that waits is told."""

    def script(peer: Peer) -> None:
        peer.greet(heartbeat_ms=1000)
        while peer.sock.recv(65_536):
            pass

    with serving(script) as server, connect(server.address, SERVICE, connections=ImpatientConnection) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="nothing was heard"):
            client.call(ECHO, echo("x"))
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("waiting", [True, False])
def test_a_peer_that_stops_within_a_frame_is_given_up(waiting: bool) -> None:
    """A frame that was begun must be whole in time, whether a caller receives it or the keeper does."""
    stalled = threading.Event()
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.sock.sendall(peer.half(peer.request(), "x" * 100)[0])
        stalled.set()
        while peer.sock.recv(65_536):
            pass
        gone.set()

    limits = Limits(frame_timeout=0.2)
    with serving(script) as server, connect(server.address, SERVICE, limits=limits) as client:
        if waiting:
            with pytest.raises(ConnectionLost, match="stopped within a frame"):
                client.call(ECHO, echo("x"))
        else:
            future = client.start(ECHO, echo("x"))
            assert stalled.wait(PATIENCE)
            assert "stopped within a frame" in str(future.exception(PATIENCE))
        assert gone.wait(PATIENCE)


def test_the_keeper_survives_a_task_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A bug met on its thread is logged, and the other links are kept on."""
    ran = threading.Event()

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        the_keeper().run(broken)
        the_keeper().run(ran.set)
        assert ran.wait(PATIENCE)
        assert client.start(ECHO, echo("x")).result(PATIENCE).text == "x"
    assert "a task of the keeper failed" in caplog.text


def test_a_link_that_meets_a_bug_is_given_up(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls fail instead of hanging, and the keeper goes on with the others."""
    received = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        received.set()
        peer.until_gone()

    with serving(script, echoing) as server, connect(server.address, SERVICE) as client:
        future = client.start(ECHO, echo("x"))
        assert received.wait(PATIENCE)
        link = client._line.link(None)

        def broken() -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(link, "tend", broken)
        with link._lock:
            link._look_by_locked(0.0)
        assert "an error of its own" in str(future.exception(PATIENCE))
        assert client.start(ECHO, echo("y"), wait=True).result(PATIENCE).text == "y"
    assert "is given up" in caplog.text


def leave(*args: object) -> None:
    """A callback that tries to end its thread."""
    raise SystemExit(3)


@pytest.mark.parametrize("where", ["answered", "failed in the queue"])
def test_what_a_callback_raises_is_neither_for_the_keeper_nor_for_others(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit passes through ``Future``. The thread goes on, and so do the futures that are completed with it."""
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=2 if where == "answered" else 1)
        requests = [peer.request()]
        if where == "answered":
            requests.append(peer.request())
            assert waiting.wait(PATIENCE)
            for request in requests:
                peer.connection.send_response(request.call_id, peer.payload(ECHO, EchoResponse(text="x")))
            peer.flush()
        peer.serve()

    with serving(echoing, script) as server, connect(server.address, SERVICE) as other:
        other.open()
        with connect(server.address, SERVICE) as client:
            futures = [client.start(ECHO, echo("x")) for _ in range(3)]
            first, second = futures[:2] if where == "answered" else futures[1:]
            first.add_done_callback(leave)
            waiting.set()
            if where == "answered":
                assert second.result(PATIENCE).text == "x"
        if where != "answered":
            assert "the client was closed" in str(second.exception(PATIENCE))
        assert "a task of the keeper failed" in caplog.text
        assert other.start(ECHO, echo("y")).result(PATIENCE).text == "y"


def test_a_listener_that_raises_does_not_end_the_keeper(caplog: pytest.LogCaptureFixture) -> None:
    """Futures are completed after it as before."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        client.listen(leave)
        assert client.start(ECHO, echo("x")).result(PATIENCE).text == "x"
        assert client.start(ECHO, echo("y")).result(PATIENCE).text == "y"
    assert "a task of the keeper failed" in caplog.text


def test_a_keeper_without_links_does_not_run() -> None:
    """It starts for a task, runs it, and is gone."""
    keeper = Keeper()
    ran = threading.Event()
    keeper.run(ran.set)
    assert ran.wait(PATIENCE)
    keeper.join()
    assert keepers() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_has_a_keeper_of_its_own() -> None:
    """A client made in a forked child works, whatever the parent was doing; the parent's goes on."""
    with serving(echoing) as server, connect(server.address, SERVICE) as client:
        assert client.call(ECHO, echo("x")).text == "x"
        child = os.fork()
        if not child:
            status = 1
            try:
                with connect(server.address, SERVICE) as own:
                    status = 0 if own.start(ECHO, echo("y")).result(PATIENCE).text == "y" else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert client.call(ECHO, echo("z")).text == "z"
