"""Everything at once: threads that call in every way, against a server that answers at random and does not last."""

import random
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fakes import FakeServer, Peer
from tests.client.service import (
    ADD_UP,
    CHAT,
    COUNT,
    ECHO,
    NOTE,
    SERVICE,
    CountRequest,
    CountResponse,
    EchoResponse,
    echo,
)
from wireproto import BothFull, CallError, Client, LocalProtocolError, Status, connect
from wireproto.client import Backoff
from wireproto.wire.events import (
    CancelReceived,
    ConnectionEnded,
    Event,
    FlaggedRequestReceived,
    ItemReceived,
    RequestEnded,
    RequestReceived,
)
from wireproto.wire.frame import Credit, Flag

THREADS = 8
OPERATIONS = 60
LONG = 10.0
"""Seconds that no operation takes unless somebody was forgotten."""

EARLY = -1
"""The answer to an upload whose items were not all taken."""


class Taken:
    """A call whose items a moody server takes."""

    def __init__(self, request: FlaggedRequestReceived) -> None:
        self.request = request
        self.sum = 0
        self.unanswered: deque[int] = deque()
        self.complete = False

    @property
    def is_duplex(self) -> bool:
        return bool(self.request.flags & Flag.ITEMS_COME_BACK)


class Moody:
    """A server's side that answers in any order, holds answers back for a moment, and ends in one of three ways."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.life = chance.choice([20, 100, 1000])
        self.held: list[RequestReceived] = []
        self.streams: set[int] = set()
        self.taken: dict[int, Taken] = {}
        self.posted = 0

    def __call__(self, peer: Peer) -> None:
        try:
            self.run(peer)
        except (ConnectionError, LocalProtocolError):
            pass  # the client was quicker

    def run(self, peer: Peer) -> None:
        peer.greet(
            max_calls=self.chance.choice([1, 2, 5, 64]),
            first=self.chance.choice([Credit(0, 0), Credit(1, 1), Credit(16, 65_536)]),
            one_way=self.chance.choice([0, 1, 4]),
        )
        while True:
            event = self.event(peer)
            if isinstance(event, ConnectionEnded):
                return
            self.note(peer, event)
            self.stream(peer)
            self.take(peer)
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
            self.held.append(event)
        elif isinstance(event, FlaggedRequestReceived):
            self.life -= 1
            if event.flags == Flag.ONE_WAY:
                self.posted += 1
            elif event.flags == Flag.ITEMS_COME_BACK:
                self.streams.add(event.call_id)
            else:
                self.taken[event.call_id] = Taken(event)
        elif isinstance(event, ItemReceived):
            call = self.taken[event.call_id]
            number = peer.read(call.request, event.payload).upto
            call.sum += number
            call.unanswered.append(number)
        elif isinstance(event, RequestEnded):
            self.taken[event.call_id].complete = True
        elif isinstance(event, CancelReceived) and event.call_id in self.taken:
            self.over(peer, self.taken[event.call_id], CallError(Status.CANCELLED, "CANCELLED"))
        elif isinstance(event, CancelReceived) and event.call_id in self.streams:
            self.streams.remove(event.call_id)
            peer.connection.send_error(event.call_id, CallError(Status.CANCELLED, "CANCELLED"))

    def stream(self, peer: Peer) -> None:
        for call_id in list(self.streams):
            while peer.connection.may_send_item(call_id):
                if self.chance.random() < 0.05:
                    peer.connection.send_end(call_id)
                    self.streams.remove(call_id)
                    break
                peer.connection.send_item(call_id, peer.payload(COUNT, CountResponse(n=call_id)))

    def take(self, peer: Peer) -> None:
        """Grant some credit, and go on with the calls that have items."""
        if self.posted and self.chance.random() < 0.5:
            peer.connection.send_one_way_credit(self.posted)
            self.posted = 0
        elif not peer.connection._theirs.one_way and self.chance.random() < 0.1:
            peer.connection.send_one_way_credit(1)
        for call in list(self.taken.values()):
            call_id = call.request.call_id
            while call.is_duplex and call.unanswered and peer.connection.may_send_item(call_id):
                peer.connection.send_item(call_id, peer.payload(CHAT, CountResponse(n=call.unanswered.popleft())))
            if self.chance.random() < 0.005:
                self.over(peer, call, CallError(Status.ABORTED, "MOODY"))
            elif self.chance.random() < 0.005 or (call.complete and not (call.is_duplex and call.unanswered)):
                self.over(peer, call)
            elif not call.complete and self.chance.random() < 0.5:
                peer.connection.send_credit(call_id, self.chance.choice([0, 1, 1, 20]), self.chance.choice([1, 9, 999]))

    def over(self, peer: Peer, call: Taken, error: CallError | None = None) -> None:
        call_id = call.request.call_id
        del self.taken[call_id]
        if error is not None:
            peer.connection.send_error(call_id, error)
        elif call.is_duplex:
            peer.connection.send_end(call_id)
        else:
            answer = CountResponse(n=call.sum if call.complete else EARLY)
            peer.connection.send_response(call_id, peer.payload(ADD_UP, answer))

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
            for call in list(self.taken.values()):
                self.over(peer, call)
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
            kind = self.chance.choice([getattr(self, name) for name in KINDS])
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
        credit, batch = self.chance.choice([(1, 1), (4, 2), (64, 2), (64, None)])
        window = self.chance.choice([1, 40, 1 << 20])
        request = CountRequest(upto=0)
        with self.client.stream(COUNT, request, credit=credit, batch=batch, window=window, timeout=LONG) as stream:
            mine = set()
            for item in stream:
                mine.add(item.n)
                if self.chance.random() < 0.1:
                    break
            assert len(mine) <= 1

    def upload(self, text: str) -> None:
        items = [CountRequest(upto=n) for n in range(self.chance.randrange(40))]
        given = self.chance.choice([items, iter(items)])
        timeout = self.chance.choice([LONG, LONG, 0.004])
        assert self.client.upload(ADD_UP, given, timeout=timeout).n in (sum(range(len(items))), EARLY)

    def duplex(self, text: str) -> None:
        items = [CountRequest(upto=n) for n in range(self.chance.randrange(40))]
        given = self.chance.choice([items, iter(items)])
        credit, window = self.chance.choice([(1, 1), (4, 40), (64, 1 << 20)])
        with self.client.duplex(CHAT, given, credit=credit, window=window, timeout=LONG) as both:
            found = [item.n for item in both]
        assert found == list(range(len(found)))
        assert len(found) <= len(items)

    def converse(self, text: str) -> None:
        sent = 0
        found: list[int] = []
        with self.client.duplex(CHAT, credit=self.chance.choice([1, 4]), timeout=LONG) as both:
            try:
                while sent < 20:
                    try:
                        both.send(CountRequest(upto=sent))
                        sent += 1
                    except BothFull:
                        found.append(next(both).n)
                    if len(found) < sent and self.chance.random() < 0.4:
                        found.append(next(both).n)
                both.finish()
            except (StopIteration, LocalProtocolError):
                pass  # the server had enough
            found += [item.n for item in both]
        assert found == list(range(len(found)))
        assert len(found) <= sent

    def post(self, text: str) -> None:
        self.client.post(NOTE, echo(text), timeout=self.chance.choice([LONG, LONG, 0.004]))

    def ping(self, text: str) -> None:
        assert self.client.ping(LONG) > 0


KINDS = ("call", "future", "many", "stream", "upload", "duplex", "converse", "post", "ping")


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
    for kind in KINDS:
        assert seen[kind] > 10, seen
