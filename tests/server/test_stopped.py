"""A server that was stopped for longer than every time-out, and goes on: it blames nobody for the time that it slept.

Each time-out that ``test_connections.py``, ``test_endings.py`` and ``test_deadlines.py`` show of a server that runs is
shown here of one that slept through it: a peer that did its part meanwhile is served, and one that still does not do it
is ended all the same, by a clock that did not run while the server slept.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import pytest

from tests.server.peer import Peer
from tests.server.sleeper import FILL, SLEEPER, WAIT, WORK, FillRequest, WorkRequest
from tests.stopping import program, said, stopped
from wireproto.conformance.raw import Ending, RawFrame, RawPeer, frame
from wireproto.errors import CallError
from wireproto.status import Retry, Status
from wireproto.wire.events import (
    ErrorReceived,
    GoAwayReceived,
    PingReceived,
    PongReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import Kind
from wireproto.wire.metadata import Metadata

E = TypeVar("E")

pytestmark = [pytest.mark.slow, pytest.mark.plain]

STOPPED = 3.5
"""Seconds, more than any of the limits below."""

LIMITS = {
    "hello_timeout": 1.5, "frame_timeout": 1.5, "frame_rate": 1_000_000, "write_timeout": 1.5, "heartbeat": 1.0,
    "linger": 2.0, "high_watermark": 100_000, "low_watermark": 50_000,
}  # fmt: skip


class Where(NamedTuple):
    """What a peer wants of a server: where it listens."""

    address: tuple[str, int]


Scene = Callable[[Where], Iterator[None]]
"""What a peer does: until the server is stopped, while it is, and once it goes on, with a ``yield`` between them."""


def greets_late(where: Where) -> Iterator[None]:
    """HELLO comes while the server sleeps."""
    with Peer(where, SLEEPER, hello=False) as peer:
        yield
        peer.connection.send_hello(peer.hello())
        peer.flush()
        yield
        next_of(peer, WelcomeReceived)
        works(peer)


def finishes_a_frame_late(where: Where) -> Iterator[None]:
    """The rest of a frame comes while the server sleeps."""
    with Peer(where, SLEEPER) as peer:
        peer.start(WORK, WorkRequest(ms=0))
        request = peer.connection.data_to_send()
        peer.socket.sendall(request[:20])
        time.sleep(0.1)  # the server has it
        yield
        peer.socket.sendall(request[20:])
        yield
        answered(peer)


def reads_late(where: Where) -> Iterator[None]:
    """More than the kernel holds waits to be taken, and the peer begins to take it while the server sleeps."""
    with Peer(where, SLEEPER) as peer:
        for _ in range(40):
            peer.start(FILL, FillRequest(size=500_000))
        peer.flush()
        time.sleep(0.2)  # the server has answered as many as there is room for
        yield
        for _ in range(4):
            answered(peer)
        yield
        for _ in range(36):
            answered(peer)
        works(peer)


def pings(where: Where) -> Iterator[None]:
    """The peer says that it is alive while the server sleeps."""
    with Peer(where, SLEEPER) as peer:
        yield
        for _ in range(5):
            peer.socket.sendall(frame(Kind.PING, b"12345678"))
        yield
        works(peer)


def is_quiet(where: Where) -> Iterator[None]:
    """The peer is not asked anything by a server that sleeps, so it need not say anything."""
    with Peer(where, SLEEPER) as peer:
        yield
        yield
        works(peer)


def waits_for_an_answer(where: Where) -> Iterator[None]:
    """A call that takes a while goes on where it was; its deadline is far away."""
    with Peer(where, SLEEPER) as peer:
        peer.start(WORK, WorkRequest(ms=300), Metadata(deadline_ms=20_000))
        peer.flush()
        yield
        yield
        answered(peer)


def calls_late(where: Where) -> Iterator[None]:
    """The milliseconds of a deadline begin when the request is read, not when it came."""
    with Peer(where, SLEEPER) as peer:
        yield
        peer.start(WORK, WorkRequest(ms=0), Metadata(deadline_ms=3000))
        peer.flush()
        yield
        answered(peer)


def is_out_of_time(where: Where) -> Iterator[None]:
    """A deadline is a promise to the caller, whose clock has run on: the call ends, and the connection does not."""
    with Peer(where, SLEEPER) as peer:
        peer.start(WAIT, WorkRequest(ms=0), Metadata(deadline_ms=1000))
        peer.flush()
        time.sleep(0.1)
        yield
        yield
        error = next_of(peer, ErrorReceived).error
        assert (error.status, error.retry) == (Status.DEADLINE_EXCEEDED, Retry.MAYBE_PROCESSED)
        works(peer)


def is_told_why(where: Where) -> Iterator[None]:
    """A peer that broke the rules goes on sending while the server, which lingers for it, sleeps; it reads its end."""
    with Peer(where, SLEEPER) as peer:
        peer.socket.sendall(frame(99))
        time.sleep(0.2)  # the server has sent its last words, and lingers
        yield
        for _ in range(20):
            peer.socket.sendall(bytes(1000))
        yield
        time.sleep(0.3)  # more than that is left of the time for which it lingers
        assert peer.raw.send(bytes(1000)) is None
        answer, ending = peer.raw.drain()
        assert b"UNKNOWN_KIND" in answer
        assert ending is Ending.EOF


def never_greets(where: Where) -> Iterator[None]:
    with RawPeer.connect(where.address) as peer:
        yield
        yield
        began = time.monotonic()
        assert b"HELLO_TIMEOUT" in peer.drain()[0]
        assert time.monotonic() - began > 0.3  # its time was not over when the server fell asleep


def never_finishes(where: Where) -> Iterator[None]:
    with Peer(where, SLEEPER) as peer:
        peer.socket.sendall(frame(Kind.REQUEST, length=500, codec=2, version=1, opcode=1, call_id=1))
        time.sleep(0.1)
        yield
        yield
        began = time.monotonic()
        error = peer.ended().error
        assert isinstance(error, CallError)
        assert error.reason == "FRAME_TIMEOUT"
        assert time.monotonic() - began > 0.3


def never_reads(where: Where) -> Iterator[None]:
    with Peer(where, SLEEPER) as peer:
        for _ in range(40):
            peer.start(FILL, FillRequest(size=500_000))
        peer.flush()
        time.sleep(0.1)
        yield
        yield
        time.sleep(2.5)
        for ending in iter(peer.raw.receive, None):
            if isinstance(ending, Ending):
                assert ending in (Ending.EOF, Ending.RESET)
                return


def never_answers(where: Where) -> Iterator[None]:
    """It takes the PINGs and gives no PONG."""
    with Peer(where, SLEEPER) as peer:
        yield
        yield
        began = time.monotonic()
        frames = list(iter_frames(peer.raw))
        assert {each.kind for each in frames} == {Kind.PING}
        assert time.monotonic() - began > 1.0  # it was asked, and had its time


WELL: list[Scene] = [
    greets_late, finishes_a_frame_late, reads_late, pings, is_quiet, waits_for_an_answer, calls_late, is_out_of_time,
    is_told_why,
]  # fmt: skip
ILL: list[Scene] = [never_greets, never_finishes, never_reads, never_answers]


def iter_frames(peer: RawPeer) -> Iterator[RawFrame]:
    """All that comes until the end, which has to come."""
    while True:
        each = peer.receive(20)
        if isinstance(each, Ending):
            assert each is not Ending.SILENCE
            return
        yield each


def next_of(peer: Peer, kind: type[E]) -> E:
    """The next event but for signs of life, which must be of ``kind``; PINGs are answered on the way."""
    while isinstance(event := peer.event(), PingReceived | PongReceived):
        pass
    assert isinstance(event, kind), event
    return event


def works(peer: Peer) -> None:
    """The connection is as good as any."""
    peer.start(WORK, WorkRequest(ms=0))
    answered(peer)


def answered(peer: Peer) -> None:
    next_of(peer, ResponseReceived)


@pytest.mark.parametrize("kind", [WELL, ILL], ids=["well", "ill"])
def test_a_server_that_slept_judges_by_the_time_that_it_was_awake(kind: list[Scene]) -> None:
    """Each peer that did its part is served afterwards; each that does not is ended, with all the time it has."""
    with program("-m", "tests.server.sleeper", json.dumps(LIMITS)) as server:
        where = Where(("127.0.0.1", int(said(server))))
        scenes = [scene(where) for scene in kind]
        # At the same time, for what one of them waits for must not be time in which another says nothing.
        with ThreadPoolExecutor(len(scenes)) as pool:
            list(pool.map(next, scenes))
            with stopped(server, STOPPED):
                list(pool.map(next, scenes))
            ends = [pool.submit(next, scene, None) for scene in scenes]
            failures = {scene.__name__: end.exception(60) for scene, end in zip(kind, ends, strict=True)}
        assert {name: error for name, error in failures.items() if error is not None} == {}


def test_a_shutdown_gives_the_time_that_it_was_awake() -> None:
    """A server that sleeps while it shuts down for longer than it gives to what is in flight finishes that all the
    same.
    """
    with (
        program("-m", "tests.server.sleeper", json.dumps(LIMITS)) as server,
        Peer(Where(("127.0.0.1", int(said(server)))), SLEEPER) as peer,
    ):
        peer.start(WORK, WorkRequest(ms=500))
        peer.flush()
        time.sleep(0.1)  # its handler runs
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
        assert said(server) == "shutting down"
        next_of(peer, GoAwayReceived)
        with stopped(server, STOPPED):
            pass
        answered(peer)
        assert said(server) == "[]"
