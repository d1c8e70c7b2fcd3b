"""The poller: what is ready, and wakes."""

import re
import socket
import subprocess
import sys
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


# Where it cannot be ------------------------------------------------------------------------------------------------

TAKEN_AWAY = {
    "gevent's patch": "import select; del select.epoll",
    "eventlet's patch": "import select; del select.epoll, select.poll",
    "another system": "import os, select; [delattr(select, name) for name in dir(select) if 'epoll' in name.lower()]; "
    "del os.eventfd",
    "an old Linux": "import os; del os.eventfd",
}
"""What makes an interpreter be without epoll, or eventfd, before the package is imported or after."""

SENTENCE = r"wireproto waits with select\.epoll and os\.eventfd, .*gevent.*; use it in a process that is not patched"


def _run(*code: str) -> str:
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    return done.stderr


@pytest.mark.parametrize("how", TAKEN_AWAY)
@pytest.mark.parametrize("name", ["connect", "Server"])
def test_without_epoll_importing_says_so(how: str, name: str) -> None:
    """A public name that needs it is refused with a sentence, and the true cause stands in the traceback."""
    said = _run(TAKEN_AWAY[how], "import wireproto", f"from wireproto import {name}")
    assert re.search(f"\nwireproto.errors.ConfigError: {SENTENCE}\n$", said), said
    assert "has no attribute" in said
    assert "The above exception was the direct cause" in said


@pytest.mark.parametrize("how", TAKEN_AWAY)
def test_epoll_that_is_taken_away_later_is_missed_in_words(how: str) -> None:
    """A patch that comes behind the import is found out by whoever makes a poller: a server, or a client's keeper."""
    said = _run("from wireproto.poller import Poller", TAKEN_AWAY[how], "Poller()")
    assert re.search(f"\nwireproto.errors.ConfigError: {SENTENCE}\n$", said), said


def test_a_name_that_cannot_be_loaded_says_why() -> None:
    """What fails while a public name is loaded is told, and is not taken to mean that there is no such name."""
    for package, name in (("wireproto", "Client"), ("wireproto.testing", "running")):
        said = _run(f"import {package}, socket; del socket.socket", f"from {package} import {name}")
        cause = "module 'socket' has no attribute 'socket'"
        assert re.search(f"\nAttributeError: {cause}[^\n]*\n\nThe above exception was the direct cause", said), said
        assert said.endswith(f"\nImportError: {package}.{name} cannot be loaded: {cause}\n"), said
