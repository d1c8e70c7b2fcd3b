"""The parts of the client that need no server: back-off, output."""

import socket
from collections.abc import Iterator

import pytest

from tests.client.service import ECHO, SERVICE, echo
from wireproto import Address, Limits, codecs
from wireproto.binding import Dialect
from wireproto.client.backoff import Backoff
from wireproto.client.calls import ClientCall, FutureCall
from wireproto.client.keeper import Keeper
from wireproto.client.output import Output
from wireproto.client.queue import CallQueue


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_backoff_doubles_its_ceiling_up_to_the_most() -> None:
    """Full jitter: each pause is a random part of a ceiling of 0.5, 1, 2, 4, 5 s, and a success forgets it."""
    clock = Clock()
    chances = iter([1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    backoff = Backoff(clock=clock, chance=lambda: next(chances))
    assert backoff.remaining() == 0.0
    pauses = []
    for _ in range(9):
        backoff.failed()
        pauses.append(backoff.remaining())
    assert pauses == [0.5, 0.5, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0, 0.0]
    backoff.reset()
    assert backoff.remaining() == 0.0
    backoff.failed()
    clock.now += 0.3
    assert backoff.remaining() == pytest.approx(0.2)
    clock.now += 0.3
    assert backoff.remaining() == 0.0


def test_a_future_cancelled_just_before_its_answer_stays_cancelled() -> None:
    """The answer that was on its way to it is dropped without a word."""
    queue = CallQueue(1, Address("127.0.0.1", 1), Keeper())
    call = FutureCall(ECHO, echo("x"), bytes, None, False, queue)
    call.prepare(Dialect(SERVICE, codecs.get("pipe"), 1, Limits()))
    call.payload = b"too late"
    assert call.future.cancel()
    call.complete()
    assert call.future.cancelled()


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
