"""One-way calls: credit, turns, and what their caller is told, which is little."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import PATIENCE, Peer, serving
from tests.client.service import ECHO, NOTE, SERVICE, echo
from tests.client.taking import TAKING, TakingStage
from wireproto import CallError, ConnectionLost, Limits, Metadata, Retry, Server, Status, connect
from wireproto.client.calls import Waiter
from wireproto.wire.connection import Connection
from wireproto.wire.events import ConnectionEnded, FlaggedRequestReceived, PingReceived
from wireproto.wire.frame import Flag


def noted(peer: Peer) -> str:
    """The next event, which must be a one-way call: what it says."""
    text: str = peer.message(peer.flagged_request(Flag.ONE_WAY)).text
    return text


def grant(peer: Peer, calls: int) -> None:
    assert peer.connection.send_one_way_credit(calls)
    peer.flush()


@pytest.mark.parametrize("at_a_time", [1, 4, 256])
def test_every_call_arrives(at_a_time: int) -> None:
    """However few the server takes at a time, and from however many threads."""
    taker = TakingStage()
    with (
        Server(taker.handlers, port=0, limits=Limits(one_way_calls=at_a_time)) as server,
        connect(server.address, TAKING) as client,
        ThreadPoolExecutor(4) as pool,
    ):

        def post(who: int) -> None:
            for n in range(200):
                client.post(NOTE, echo(f"{who} {n}"))

        for done in [pool.submit(post, who) for who in range(4)]:
            done.result(PATIENCE)
        for _ in range(800):
            assert taker.noted.acquire(timeout=PATIENCE)
    assert sorted(taker.notes) == sorted(f"{who} {n}" for who in range(4) for n in range(200))


@pytest.mark.plain
def test_turns_that_are_used_cost_no_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PING wakes a leader whose turn came because another one left; servers end a connection that sends many."""
    pings: list[bytes] = []
    monkeypatch.setattr(Connection, "send_ping", lambda connection, data: pings.append(data))
    taker = TakingStage()
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with (
            Server(taker.handlers, port=0, limits=Limits(one_way_calls=16)) as server,
            connect(server.address, TAKING) as client,
            ThreadPoolExecutor(8) as pool,
        ):
            for done in [pool.submit(lambda: [client.post(NOTE, echo()) for _ in range(300)]) for _ in range(8)]:
                done.result(PATIENCE)
            client.close(drain=PATIENCE)
    finally:
        sys.setswitchinterval(switching)
    assert pings == []


def test_it_takes_no_place() -> None:
    """With the one place taken a call is posted all the same."""
    posted = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_calls=1, one_way=5)
        request = peer.request()
        posted.set()
        assert noted(peer) == "a"
        peer.answer(request)
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call, ECHO, echo("x"))
        assert posted.wait(PATIENCE)
        client.post(NOTE, echo("a"))
        assert call.result(PATIENCE).text == "x"


def test_it_waits_for_credit() -> None:
    """The second one is not sent before the server takes it."""
    waits = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(one_way=1)
        assert noted(peer) == "1"
        assert waits.wait(PATIENCE)
        grant(peer, 1)
        assert noted(peer) == "2"
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(1) as pool:
        client.post(NOTE, echo("1"))
        second = pool.submit(client.post, NOTE, echo("2"))
        link = client._line.links[-1]
        while not link._turns:
            assert not second.done()
        waits.set()
        second.result(PATIENCE)


def test_without_credit_the_time_is_up() -> None:
    """It was not processed: nothing was sent, and the connection goes on."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.serve()

    with serving(script) as server, connect(server.address, SERVICE, timeout=0.5) as client:
        for timeout in (0.05, None):  # without one, the time for connecting is what a caller waits
            with pytest.raises(CallError) as caught:
                client.post(NOTE, echo("1"), timeout=timeout)
            assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.NOT_PROCESSED)
        assert client.call(ECHO, echo("x")).text == "x"
        assert not client._line.links[-1]._turns


def test_first_come_first_served() -> None:
    """Those who wait go in the order in which they came, as the credit comes."""
    waits = threading.Semaphore(0)
    texts = [str(n) for n in range(6)]
    arrived: list[str] = []

    def script(peer: Peer) -> None:
        peer.greet()
        assert waits.acquire(timeout=PATIENCE)
        for calls in (1, 2, 3):
            grant(peer, calls)
            # What was granted together is sent in no order of its own.
            arrived.extend(sorted(noted(peer) for _ in range(calls)))
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(6) as pool:
        link = client._line.links[-1]
        posts = []
        for n, text in enumerate(texts):
            posts.append(pool.submit(client.post, NOTE, echo(text)))
            while len(link._turns) <= n:
                assert not posts[-1].done()
        waits.release()
        for post in posts:
            post.result(PATIENCE)
    assert arrived == texts


def test_nobody_goes_before_one_whose_turn_it_is() -> None:
    """Though there is credit: it belongs to one that was woken and has not come for it yet."""

    def script(peer: Peer) -> None:
        peer.greet(one_way=1)
        assert noted(peer) == "2"
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        turns = client._line.links[-1]._turns
        turns.append(Waiter())
        with pytest.raises(CallError, match="took no more one-way calls in time"):
            client.post(NOTE, echo("1"), timeout=0.05)
        turns.popleft()
        client.post(NOTE, echo("2"))
        client.close(drain=PATIENCE)


def test_a_turn_that_is_not_used_is_the_next_ones() -> None:
    """Also if the next one is the thread that receives: nothing else would come that could wake it."""
    ready = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(max_frame=5000)
        held = peer.request()
        assert ready.wait(PATIENCE)
        peer.answer(held)  # whoever receives leaves the lead to the one that came last
        while link._leader not in list(link._turns)[1:]:
            assert not link._ended
        grant(peer, 1)
        peer.connection.next_event()
        event = peer.event()
        while isinstance(event, PingReceived):
            peer.flush()
            event = peer.event()
        assert isinstance(event, FlaggedRequestReceived)
        assert peer.message(event).text == "next"
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client, ThreadPoolExecutor(3) as pool:
        link = client._line.links[-1]
        held = pool.submit(client.call, ECHO, echo("held"))
        while not link._led:
            assert not held.done()
        large = pool.submit(client.post, NOTE, echo("x" * 6000))
        while len(link._parked) < 1:
            assert not large.done()
        after = pool.submit(client.post, NOTE, echo("next"))
        while len(link._parked) < 2:
            assert not after.done()
        ready.set()
        assert held.result(PATIENCE).text == "held"
        with pytest.raises(CallError, match="REQUEST_TOO_LARGE"):
            large.result(PATIENCE)
        after.result(PATIENCE)


def test_a_lost_connection_is_not_told() -> None:
    """Nobody knows what became of a call that was sent; the next one has a connection of its own."""

    def losing(peer: Peer) -> None:
        peer.greet(one_way=1)
        assert noted(peer) == "1"

    def well(peer: Peer) -> None:
        peer.greet(one_way=1)
        assert noted(peer) == "2"
        peer.until_gone()

    with serving(losing, well) as server, connect(server.address, SERVICE) as client:
        client.post(NOTE, echo("1"))
        client.post(NOTE, echo("2"))  # there is no credit left on the first one: it waits there, or is there too late
        client.close(drain=PATIENCE)
        assert server.connections == 2


@pytest.mark.parametrize("goes_away", [False, True])
def test_who_waits_for_credit_goes_to_another_connection(goes_away: bool) -> None:
    """A call that was not sent was not processed, so it is sent elsewhere when its connection takes none any more."""
    waits = threading.Event()

    def leaving(peer: Peer) -> None:
        peer.greet()
        assert waits.wait(PATIENCE)
        if goes_away:
            peer.go_away(0)
            peer.until_gone()

    def well(peer: Peer) -> None:
        peer.greet(one_way=1)
        assert noted(peer) == "1"
        peer.until_gone()

    with (
        serving(leaving, well) as server,
        connect(server.address, SERVICE) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        link = client._line.links[-1]
        post = pool.submit(client.post, NOTE, echo("1"))
        while not link._turns:
            assert not post.done()
        waits.set()
        post.result(PATIENCE)
        assert server.connections == 2


def test_without_a_connection_to_be_had_it_is_told() -> None:
    """It was not processed."""

    def script(peer: Peer) -> None:
        peer.greet()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        server.stop_listening()
        with pytest.raises(ConnectionLost) as caught:
            client.post(NOTE, echo("1"))
        assert caught.value.retry is Retry.NOT_PROCESSED


def test_the_server_is_told_what_the_caller_said() -> None:
    """Metadata go along; a time limit does if the caller gave one, and what a caller waits by itself does not."""
    seen: list[Metadata] = []

    def script(peer: Peer) -> None:
        peer.greet(one_way=2)
        for _ in range(2):
            metadata = peer.flagged_request(Flag.ONE_WAY).metadata
            assert isinstance(metadata, Metadata)
            seen.append(metadata)
        assert isinstance(peer.event(), ConnectionEnded)

    with serving(script) as server, connect(server.address, SERVICE, authorization="me") as client:
        client.post(NOTE, echo("1"), metadata={"who": "x"})
        client.post(NOTE, echo("2"), timeout=5)
        client.close(drain=PATIENCE)
    assert (seen[0].entries, seen[0].authorization, seen[0].deadline_ms) == ({"who": "x"}, "me", None)
    assert seen[1].deadline_ms is not None
    assert 1 <= seen[1].deadline_ms <= 5000


def test_what_is_too_large_is_refused_here() -> None:
    """Nothing is sent, and the credit is still there."""

    def script(peer: Peer) -> None:
        peer.greet(max_frame=5000, one_way=1)
        assert noted(peer) == "small"
        peer.until_gone()

    with serving(script) as server, connect(server.address, SERVICE) as client:
        with pytest.raises(CallError) as caught:
            client.post(NOTE, echo("x" * 6000))
        assert (caught.value.status, caught.value.reason) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
        client.post(NOTE, echo("small"))
