"""The leader's poller: how long it looks before it sleeps. The rest is held by ``tests/test_poller.py``."""

import itertools
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from wireproto.poller import READ
from wireproto.server.poller import MOST_SKIPPED, LookingPoller


@pytest.fixture
def poller() -> Iterator[LookingPoller]:
    made = LookingPoller()
    yield made
    made.close()


def test_what_is_ready_is_found_by_looking_and_by_sleeping(poller: LookingPoller) -> None:
    """A wait gives the descriptors that are ready, whether it finds them at once or is woken by them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.add(ours.fileno(), READ)
        theirs.send(b"x")
        assert poller.poll(-1) == [(ours.fileno(), READ)]
        ours.recv(1)
        poller._skip, poller._skipped = MOST_SKIPPED, 0  # so that it sleeps at once
        later = threading.Timer(0.05, theirs.send, [b"y"])
        later.start()
        assert poller.poll(-1) == [(ours.fileno(), READ)]
        later.join()


def test_looking_in_vain_is_done_ever_less_often(poller: LookingPoller) -> None:
    """After each look in vain twice as many waits sleep at once, up to a limit; one that pays starts anew."""
    looks: list[int] = []
    for wait in range(4 * MOST_SKIPPED):
        before = poller._skipped
        assert poller._look() == []
        if poller._skipped <= before:
            looks.append(wait)
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert gaps[:6] == [2, 3, 5, 9, 17, 33]
    assert set(gaps[6:]) == {MOST_SKIPPED + 1}
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x")
        poller.add(reader, READ)
        while not poller._look():
            pass
        assert poller._skip == 0
        assert poller._look() == [(reader, READ)]
    finally:
        poller.remove(reader)
        os.close(reader)
        os.close(writer)
