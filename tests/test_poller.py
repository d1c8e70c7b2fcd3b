"""The poller: what is ready, and wakes."""

import socket
import threading
from collections.abc import Iterator

import pytest

from wireproto.poller import READ, WRITE, Poller
from wireproto.server.poller import LookingPoller


@pytest.fixture(params=[Poller, LookingPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


def test_what_is_ready_is_told_until_it_is_taken(poller: Poller) -> None:
    """A wait gives the descriptors that are ready, each time anew, by the interest that was said last."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.add(ours.fileno(), READ)
        theirs.send(b"x")
        assert poller.poll(-1) == poller.poll(0) == [(ours.fileno(), READ)]
        poller.modify(ours.fileno(), READ | WRITE)
        assert poller.poll(-1) == [(ours.fileno(), READ | WRITE)]
        ours.recv(1)
        assert poller.poll(-1) == [(ours.fileno(), WRITE)]
        poller.remove(ours.fileno())
        assert poller.poll(0.001) == []


def test_a_wake_ends_the_wait_that_is_under_way_or_the_next(poller: Poller) -> None:
    """A wake gives an empty list, once."""
    poller.wake()
    assert poller.poll(-1) == []
    assert poller.poll(0) == []
    later = threading.Timer(0.05, poller.wake)
    later.start()
    assert poller.poll(-1) == []
    later.join()


def test_after_its_end_a_wake_does_nothing(poller: Poller) -> None:
    """A wake that comes late writes into nobody's descriptor."""
    poller.close()
    poller.wake()
    poller.close()
