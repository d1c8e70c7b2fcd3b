"""The parts of the client that need no server: back-off, clocks, budget, output."""

import socket
from collections.abc import Iterator

import pytest

from tests.client.service import ECHO, SERVICE
from wireproto import Limits, codecs
from wireproto.client.backoff import Backoff
from wireproto.client.binding import Dialect
from wireproto.client.calls import ClientCall, FutureCall
from wireproto.client.output import Output
from wireproto.client.pulse import Budget, Pulse
from wireproto.wire.connection import Connection, Role
from wireproto.wire.frame import Kind, pack
from wireproto.wire.handshake import Hello, Welcome


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_backoff_doubles_its_ceiling_up_to_the_most() -> None:
    """Full jitter: each pause is a random part of a ceiling of 0.5, 1, 2 ... 30 s, and a success forgets it."""
    clock = Clock()
    chances = iter([1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    backoff = Backoff(clock=clock, chance=lambda: next(chances))
    assert backoff.remaining() == 0.0
    pauses = []
    for _ in range(9):
        backoff.failed()
        pauses.append(backoff.remaining())
    assert pauses == [0.5, 0.5, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.0]
    backoff.reset()
    assert backoff.remaining() == 0.0
    backoff.failed()
    clock.now += 0.3
    assert backoff.remaining() == pytest.approx(0.2)
    clock.now += 0.3
    assert backoff.remaining() == 0.0


def test_a_budget_refills_with_time() -> None:
    """So many at once, then so many a second, never more than at first."""
    budget = Budget(2.0, 3.0, 0.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(0.5), budget.take(0.5)] == [True, False]
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_a_future_cancelled_just_before_its_answer_stays_cancelled() -> None:
    """The answer that was on its way to it is dropped without a word."""
    call = FutureCall(Dialect(SERVICE, codecs.get("pipe"), 1, Limits()).bind(ECHO).decode, None)
    call.payload = b"too late"
    assert call.future.cancel()
    call.complete()
    assert call.future.cancelled()


def opened(heartbeat_ms: int = 10_000) -> Connection:
    """A client's connection after its handshake."""
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.send_hello(Hello(min_version=1, max_version=1, codecs=((2, "msgpack"),), max_frame=1 << 20))
    server.receive_data(client.data_to_send())
    server.next_event()
    server.send_welcome(Welcome(version=1, codec=2, max_frame=1 << 20, max_calls=9, heartbeat_ms=heartbeat_ms))
    client.receive_data(server.data_to_send())
    client.next_event()
    return client


PONG = pack(Kind.PONG, 0, 0, 0, 0, b"", bytes(8))


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    """One PING after a heartbeat of silence; the verdict once the idle time-out has passed; a PONG undoes both."""
    connection = opened()
    pulse = Pulse(connection, Limits(idle_timeout=30.0), 0.0)
    assert not pulse.ping_due(9.9)
    assert pulse.next_look(9.9) == 10.0
    assert pulse.ping_due(10.0)
    assert not pulse.ping_due(11.0)
    assert [pulse.next_look(now) for now in (11.0, 25.0)] == [21.0, 30.0]
    assert pulse.silent(29.9) == ""
    assert "30 s" in pulse.silent(30.0)
    connection.receive_data(PONG)
    connection.next_event()
    assert not pulse.quiet(30.0)
    assert pulse.quiet(31.0)
    assert pulse.silent(30.0) == ""
    assert pulse.next_look(31.0) == 40.0


def test_a_pause_of_this_process_is_not_silence_of_the_peer() -> None:
    """After an hour of suspension the peer is asked, and has its time to answer."""
    pulse = Pulse(opened(), Limits(idle_timeout=30.0), 0.0)
    assert pulse.silent(3600.0) == ""
    assert pulse.ping_due(3600.0)
    assert pulse.silent(3619.0) == ""
    assert pulse.silent(3620.0)


def test_without_a_heartbeat_silence_is_no_fault() -> None:
    """Nobody pings, nobody is given up."""
    pulse = Pulse(opened(heartbeat_ms=0), Limits(), 0.0)
    assert not pulse.ping_due(1e9)
    assert pulse.silent(1e9) == ""
    assert pulse.next_look(1e9) == float("inf")


def test_a_frame_has_time_for_its_length() -> None:
    """5 s and a second for each 8 KiB, counted from when it was first seen; the next frame has its own time."""
    connection = opened()
    pulse = Pulse(connection, Limits(), 0.0)
    assert pulse.stalled(0.0) == ""
    frame = pack(Kind.PONG, 0, 0, 0, 0, b"", bytes(8))
    huge = (8192 * 10 - 4).to_bytes(4, "big") + frame[4:]
    connection.receive_data(huge)
    connection.next_event()
    assert pulse.stalled(100.0) == ""
    assert pulse.stalled(114.9) == ""
    assert "stopped within a frame" in pulse.stalled(115.0)
    connection = opened()
    pulse = Pulse(connection, Limits(), 0.0)
    for turn in range(5):
        connection.receive_data(frame[:3])
        connection.next_event()
        assert pulse.stalled(turn * 5.0) == ""
        assert pulse.stalled(turn * 5.0 + 4.9) == ""
        connection.receive_data(frame[3:])
        connection.next_event()
    assert pulse.stalled(30.0) == ""


def test_output_that_moves_is_not_stuck() -> None:
    """Only output that stands still for the write time-out counts."""
    pulse = Pulse(opened(), Limits(write_timeout=10.0), 0.0)
    assert pulse.stuck(0.0, False, 0) == ""
    assert pulse.stuck(50.0, True, 0) == ""
    assert pulse.stuck(59.0, True, 1) == ""
    assert pulse.stuck(68.0, True, 1) == ""
    assert "took nothing" in pulse.stuck(69.0, True, 1)
    assert pulse.stuck(69.0, False, 1) == ""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def drain(sock: socket.socket) -> bytes:
    data = b""
    sock.setblocking(False)
    while True:
        try:
            data += sock.recv(1 << 20)
        except BlockingIOError:
            return data


def test_output_keeps_what_the_kernel_does_not_take(pair: tuple[socket.socket, socket.socket]) -> None:
    """Bytes leave in order, none twice, and it is known of each call whether its request left whole."""
    ours, theirs = pair
    output = Output(ours)
    first, second, third = ClientCall(), ClientCall(), ClientCall()
    small, large = b"a" * 1000, b"b" * 2_000_000
    assert output.send(small) == len(small)
    sent = output.send(large)
    assert 10 < sent < len(large)
    output.keep(large, sent, [(10, first), (len(large), second)])
    assert output.unsent() == {second}
    assert output.send(b"c" * 10) == 0
    output.keep(b"c" * 10, 0, [(10, third)])
    assert output.unsent() == {second, third}
    received = b""
    while output.waiting:
        received += drain(theirs)
        output.flush()
    received += drain(theirs)
    assert received == small + large + b"c" * 10
    assert output.unsent() == set()
    assert output.writable


def test_output_that_fails_keeps_everything(pair: tuple[socket.socket, socket.socket]) -> None:
    """Nothing is sent after a failure, and what was handed over counts as not sent."""
    ours, theirs = pair
    theirs.close()
    output = Output(ours)
    call = ClientCall()
    assert output.send(b"abc") == 0
    output.keep(b"abc", 0, [(3, call)])
    assert not output.writable
    assert output.send(b"def") == 0
    assert "pipe" in output.problem.lower()
    output.flush()
    assert output.unsent() == {call}
    assert ours.recv(10) == b"", "what came before the failure can be read up to its end"
