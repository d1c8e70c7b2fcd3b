"""Everything at once: threads that call in every way, against a server that answers at random and does not last."""

import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import FakeServer, Peer
from tests.client.service import COUNT, ECHO, SERVICE, CountRequest, CountResponse, EchoResponse, echo
from wireproto import CallError, Client, LocalProtocolError, Status, connect
from wireproto.client import Backoff
from wireproto.wire.events import CancelReceived, ConnectionEnded, Event, RequestReceived

THREADS = 8
OPERATIONS = 60
LONG = 10.0
"""Seconds that no operation takes unless somebody was forgotten."""


class Moody:
    """A server's side that answers in any order, holds answers back for a moment, and ends in one of three ways."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.life = chance.choice([20, 100, 1000])
        self.held: list[RequestReceived] = []
        self.streams: set[int] = set()

    def __call__(self, peer: Peer) -> None:
        try:
            self.run(peer)
        except (ConnectionError, LocalProtocolError):
            pass  # the client was quicker

    def run(self, peer: Peer) -> None:
        peer.greet(max_calls=self.chance.choice([1, 2, 5, 64]))
        while True:
            event = self.event(peer)
            if isinstance(event, ConnectionEnded):
                return
            self.note(peer, event)
            self.stream(peer)
            if event is None or self.chance.random() < 0.7:
                self.answer(peer, len(self.held) if event is None else self.chance.randrange(len(self.held) + 1))
            peer.flush()
            if self.life < 0:
                self.end(peer)
                return

    def event(self, peer: Peer) -> Event | None:
        """The next one, or None after a moment without."""
        peer.sock.settimeout(0.002)
        try:
            return peer.event()
        except TimeoutError:
            return None
        finally:
            peer.sock.settimeout(LONG)

    def note(self, peer: Peer, event: Event | None) -> None:
        if isinstance(event, RequestReceived):
            self.life -= 1
            if event.opcode == COUNT.opcode:
                self.streams.add(event.call_id)
            else:
                self.held.append(event)
        elif isinstance(event, CancelReceived) and event.call_id in self.streams:
            self.streams.remove(event.call_id)
            peer.connection.send_error(event.call_id, CallError(Status.CANCELLED, "CANCELLED"))

    def stream(self, peer: Peer) -> None:
        for call_id in list(self.streams):
            while peer.connection.credit(call_id):
                if self.chance.random() < 0.05:
                    peer.connection.send_end(call_id)
                    self.streams.remove(call_id)
                    break
                peer.connection.send_item(call_id, peer.payload(COUNT, CountResponse(n=call_id)))

    def answer(self, peer: Peer, count: int) -> None:
        self.chance.shuffle(self.held)
        for request in self.held[:count]:
            if self.chance.random() < 0.02:
                peer.connection.send_error(request.call_id, CallError(Status.ABORTED, "MOODY"))
            else:
                text = peer.message(request).text
                peer.connection.send_response(request.call_id, peer.payload(ECHO, EchoResponse(text=text)))
        del self.held[:count]

    def end(self, peer: Peer) -> None:
        how = self.chance.randrange(3)
        if how == 0:
            peer.go_away(peer.connection.last_call_id)
            self.answer(peer, len(self.held))
            for call_id in self.streams:
                peer.connection.send_end(call_id)
            peer.flush()
            peer.until_gone()
        elif how == 1:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class User:
    """One thread's random calls; every answer must be its own."""

    def __init__(self, client: Client, chance: random.Random, name: str) -> None:
        self.client = client
        self.chance = chance
        self.name = name
        self.seen: Counter[str] = Counter()

    def __call__(self) -> "Counter[str]":
        for turn in range(OPERATIONS):
            kind = self.chance.choice([self.call, self.future, self.many, self.stream, self.ping])
            began = time.monotonic()
            try:
                kind(f"{self.name}.{turn}" * self.chance.choice([1, 1, 300]))
                self.seen[kind.__name__] += 1
            except CallError as error:
                self.seen[error.reason] += 1
            assert time.monotonic() - began < LONG, f"{kind.__name__} was forgotten"
        return self.seen

    def call(self, text: str) -> None:
        timeout = self.chance.choice([LONG, LONG, 0.002])
        assert self.client.call(ECHO, echo(text), timeout=timeout).text == text

    def future(self, text: str) -> None:
        future = self.client.start(ECHO, echo(text), timeout=self.chance.choice([LONG, 0.003]))
        if self.chance.random() < 0.3 and future.cancel():
            return
        assert future.result(LONG).text == text

    def many(self, text: str) -> None:
        most = self.chance.choice([5, 60])
        requests = (echo(f"{text}{n}") for n in range(self.chance.randrange(60)))
        for n, response in enumerate(self.client.call_many(ECHO, requests, timeout=LONG)):
            assert response.text == f"{text}{n}"
            if n == most:
                break

    def stream(self, text: str) -> None:
        credit, batch = self.chance.choice([(1, 1), (4, 2), (64, 2)])
        with self.client.stream(COUNT, CountRequest(upto=0), credit=credit, batch=batch, timeout=LONG) as stream:
            mine = set()
            for item in stream:
                mine.add(item.n)
                if self.chance.random() < 0.1:
                    break
            assert len(mine) <= 1

    def ping(self, text: str) -> None:
        assert self.client.ping(LONG) > 0


@pytest.fixture(params=[1e-5, 0.005])
def _switching(request: pytest.FixtureRequest) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching")
@pytest.mark.parametrize("seed", [1, 2])
def test_no_answer_goes_astray_and_nobody_is_forgotten(seed: int) -> None:
    """Under losses, refusals, time-outs and cancels each caller gets its own answer or an error, soon."""
    connections = threading.Lock()
    chances = random.Random(seed)

    def script(peer: Peer) -> None:
        with connections:
            moody = Moody(random.Random(chances.random()))
        moody(peer)

    server = FakeServer([script])
    with connect(server.address, SERVICE, backoff=Backoff(0.001, 0.005)) as client, ThreadPoolExecutor(THREADS) as pool:
        users = [User(client, random.Random(f"{seed}.{n}"), str(n)) for n in range(THREADS)]
        seen: Counter[str] = Counter()
        for task in [pool.submit(user) for user in users]:
            seen += task.result(LONG * OPERATIONS)
    server.stop()
    assert seen.total() == THREADS * OPERATIONS
    for kind in ("call", "future", "many", "stream", "ping"):
        assert seen[kind] > 10, seen
