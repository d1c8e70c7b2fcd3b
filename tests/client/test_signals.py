"""Signal handlers that use a client whose method they interrupted: it works or is refused in words, and never hangs."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import ADD_UP, CHAT, COUNT, ECHO, NOTE, SERVICE, CountRequest, CountResponse, echo
from wireproto import CallError, Client, LocalProtocolError, connect
from wireproto.client import Backoff, ClientState
from wireproto.client.guard import MAIN
from wireproto.wire.events import (
    ConnectionEnded,
    FlaggedRequestReceived,
    ItemReceived,
    RequestEnded,
    RequestReceived,
)
from wireproto.wire.frame import Credit, Flag

# The other way of pytest-timeout wants SIGALRM for itself.
pytestmark = pytest.mark.timeout(100, method="thread")

TRIES = 2500
"""Signals for each kind of use that are tried at any moment; half as many for closing."""


@contextmanager
def handling(handler: Callable[[], object], number: int = signal.SIGALRM) -> Iterator[None]:
    """Run ``handler`` for a signal."""
    before = signal.signal(number, lambda *_: handler())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, before)


USES: dict[str, Callable[[Client], object]] = {
    "call": lambda client: client.call(ECHO, echo("from the handler")),
    "future": lambda client: client.start(ECHO, echo("from the handler")).result(),
    "stream": lambda client: list(client.stream(COUNT, CountRequest(upto=3))),
    "upload": lambda client: client.upload(ADD_UP, iter([CountRequest(upto=1)] * 3)),
    "duplex": lambda client: list(client.duplex(CHAT, iter([CountRequest(upto=1)] * 3))),
    "post": lambda client: client.post(NOTE, echo("from the handler")),
    "call_many": lambda client: list(client.call_many(ECHO, [echo("1"), echo("2")])),
    "ping": lambda client: client.ping(),
    "open": lambda client: client.open(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("other", [False, True])
def test_a_handler_that_interrupted_a_call_is_refused(use: str, other: bool) -> None:
    """Whatever it does with this client or another one, it is told so at once; the call that it interrupted goes on."""
    told: list[BaseException] = []
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        request = peer.request()
        sent.set()
        assert handled.wait(PATIENCE)
        peer.answer(request)
        peer.until_gone()

    handled = threading.Event()

    def handler() -> None:
        try:
            USES[use](mine)
        except LocalProtocolError as error:
            told.append(error)
        handled.set()

    with (
        serving(script) as server,
        serving(echoing) as second,
        connect(server.address, SERVICE) as client,
        connect(second.address, SERVICE) as their,
        handling(handler, signal.SIGUSR1),
    ):
        mine = their if other else client
        main = threading.get_ident()

        def interrupt() -> None:
            assert sent.wait(PATIENCE)
            signal.pthread_kill(main, signal.SIGUSR1)
            while not handled.wait(1):  # one between Python's last look and the wait is seen when the wait is over
                signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert client.call(ECHO, echo("interrupted"), timeout=PATIENCE).text == "interrupted"
        thread.join(PATIENCE)
        assert "set a flag" in str(told[0])
        assert their.call(ECHO, echo("after")).text == "after"


WAITS: dict[str, Callable[[Client], object]] = {
    "call": lambda client: client.call(ECHO, echo("held")),
    "future": lambda client: client.start(ECHO, echo("held")).result(),
    "stream": lambda client: next(client.stream(COUNT, CountRequest(upto=3))),
    "upload": lambda client: client.upload(ADD_UP, [CountRequest(upto=1)]),
    "duplex": lambda client: next(client.duplex(CHAT, [CountRequest(upto=1)])),
    "send": lambda client: client.duplex(CHAT).send(CountRequest(upto=1)),
    "post": lambda client: (client.post(NOTE, echo("sent")), client.post(NOTE, echo("held"), timeout=PATIENCE)),
    "ping": lambda client: client.ping(),
}


@pytest.mark.parametrize("waits", WAITS)
def test_close_in_a_handler_ends_what_it_interrupted(waits: str) -> None:
    """The usual clean end: the handler returns at once, and whoever waited learns that the client was closed."""

    def script(peer: Peer) -> None:
        peer.greet(one_way=1)
        peer.event()
        while not handled.is_set():
            # Again: a signal that comes between Python's last look for signals and the wait is seen behind the wait.
            os.kill(os.getpid(), signal.SIGTERM)
            handled.wait(0.5)
        peer.until_gone()

    handled = threading.Event()
    client_closed: list[ClientState] = []

    def handler() -> None:
        if not handled.is_set():
            handled.set()
            client.close()
            client_closed.append(client.state)

    with serving(script) as server, handling(handler, signal.SIGTERM):
        client = connect(server.address, SERVICE)
        with pytest.raises((CallError, LocalProtocolError), match="closed"):
            WAITS[waits](client)
        assert client_closed == [ClientState.CLOSED]
        with pytest.raises(LocalProtocolError, match="closed"):
            client.call(ECHO, echo("x"))


def test_close_in_a_handler_ends_a_pause() -> None:
    """A thread that waits for the next attempt is woken, too."""
    backoff = Backoff(600, 600, chance=lambda: 1.0)
    backoff.failed()
    client = Client("127.0.0.1:1", SERVICE, backoff=backoff)
    main = threading.get_ident()
    with handling(client.close, signal.SIGUSR1):
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
        timer.start()
        with pytest.raises(LocalProtocolError, match="closed"):
            client.call(ECHO, echo("x"), wait=True)
        timer.join(PATIENCE)


@pytest.mark.parametrize("where", ["before it receives", "while it receives"])
def test_a_handler_that_raises_leaves_the_client_usable(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Nobody is left as the one who receives for all, nor as inside: at worst the connection is lost with the call."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with serving(echoing) as server, connect(server.address, SERVICE, backoff=Backoff(1e-3, 1e-3)) as client:
        link = client._line.link(None)
        monkeypatch.setattr(link, "_lead" if where.startswith("before") else "_receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.call(ECHO, echo("x"))
        monkeypatch.undo()
        assert not MAIN.inside
        with handling(client.close, signal.SIGUSR1):
            assert client.call(ECHO, echo("y"), timeout=PATIENCE, wait=True).text == "y"


def counting(peer: Peer) -> None:
    """Echo, answer each stream with three items, each item of a duplex call with another one, and each upload."""
    peer.greet(first=Credit(16, 65_536), one_way=8)
    duplex: set[int] = set()
    while not isinstance(event := peer.event(), ConnectionEnded):
        connection = peer.connection
        if isinstance(event, FlaggedRequestReceived):
            if event.flags == Flag.ONE_WAY:
                connection.send_one_way_credit(1)
            elif event.flags == Flag.ITEMS_COME_BACK:
                for n in range(3):
                    connection.send_item(event.call_id, peer.payload(COUNT, CountResponse(n=n)))
                connection.send_end(event.call_id)
            elif Flag.ITEMS_COME_BACK & event.flags:
                duplex.add(event.call_id)
        elif isinstance(event, ItemReceived) and event.call_id in duplex:
            connection.send_item(event.call_id, peer.payload(CHAT, CountResponse(n=1)))
        elif isinstance(event, RequestEnded) and event.call_id in duplex:
            connection.send_end(event.call_id)
        elif isinstance(event, RequestEnded):
            connection.send_response(event.call_id, peer.payload(ADD_UP, CountResponse(n=3)))
        elif isinstance(event, RequestReceived):
            peer.answer(event)
        peer.flush()


AT_ANY_MOMENT = ("call", "future", "stream", "upload", "duplex", "post", "call_many")


@pytest.mark.parametrize("use", AT_ANY_MOMENT)
def test_thousands_of_signals_at_any_moment(use: str) -> None:
    """The handler works or is refused, at whatever step it comes, and what it interrupted has its answer."""
    worked, refused = [0], [0]

    def handler() -> None:
        try:
            USES[use](client)
            worked[0] += 1
        except LocalProtocolError:
            refused[0] += 1
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 6e-4))

    work: list[Callable[[Any], object]] = [USES[name] for name in AT_ANY_MOMENT]
    with serving(counting) as server, connect(server.address, SERVICE) as client, handling(handler):
        handler()
        deadline = time.monotonic() + 4 * PATIENCE
        while worked[0] + refused[0] < TRIES:
            assert time.monotonic() < deadline
            for each in work:
                each(client)
    assert refused[0] > 0


def test_thousands_of_closes_at_any_moment() -> None:
    """Closing from a handler, wherever it comes, ends the client and never hangs."""
    closed = 0

    def call_for_ever(client: Client) -> None:
        while True:
            client.call(ECHO, echo("x"), timeout=PATIENCE)

    with serving(echoing) as server:
        while closed < TRIES // 2:
            client = connect(server.address, SERVICE)
            with handling(client.close):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
                with pytest.raises((CallError, LocalProtocolError), match="closed"):
                    call_for_ever(client)
            client.close()
            closed += 1
