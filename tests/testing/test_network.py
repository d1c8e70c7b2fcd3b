"""Our client and our server with a network between them that cuts, flips, slices, stalls and resets."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.impatient import ImpatientConnection
from tests.server.peer import until
from tests.server.service import ECHO, SERVICE, EchoRequest, EchoResponse
from wireproto import CallError, Client, ConnectionLost, Context, Handlers, Limits, Retry, Server, WireprotoError
from wireproto.client.backoff import Backoff
from wireproto.schema import Message, Method, Service, StreamMethod
from wireproto.testing import Cut, Fault, FaultProxy, Flip, Latency, Reset, Slicer, Stall

PATIENCE = 60.0
AT_ONCE = Backoff(1e-6, 1e-6)
CODECS = ["pipe", "msgpack", "protobuf"]


class NoteRequest(Message):
    number: int


class NoteResponse(Message):
    number: int


class TailRequest(Message):
    number: int


class TailResponse(Message):
    n: int


NOTE = Method(opcode=1, name="Note", request=NoteRequest, response=NoteResponse)
TAIL = StreamMethod(opcode=2, name="Tail", request=TailRequest, response=TailResponse)
NOTES = Service("t.v1.NService", methods=[NOTE, TAIL])
"""A short name: every bit of HELLO is flipped."""


class Notes:
    """Handlers that remember what they have seen, and how often."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self._lock = threading.Lock()
        self.handlers = Handlers(NOTES)
        self.handlers.register(NOTE)(self.note)
        self.handlers.register(TAIL)(self.tail)

    def note(self, request: NoteRequest, context: Context) -> NoteResponse:
        with self._lock:
            self.seen[request.number] += 1
        return NoteResponse(number=request.number)

    def tail(self, request: TailRequest, context: Context) -> Iterator[TailResponse]:
        with self._lock:
            self.seen[-request.number] += 1
        for n in range(3):
            yield TailResponse(n=n)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def server(notes: Notes) -> Iterator[Server]:
    with Server(notes.handlers, workers=4, limits=Limits(hello_timeout=20.0)) as made:
        yield made


@pytest.mark.parametrize("codec", CODECS)
def test_many_calls_in_small_pieces(server: Server, notes: Notes, codec: str) -> None:
    """However the bytes are cut on their way, pipelined calls are answered in order and once, and streams are whole."""
    slices = [Slicer(5, variation=4), Latency(0.0005, jitter=0.0005)]
    with (
        FaultProxy(server.address, up=slices, down=slices, seed=3) as proxy,
        Client(proxy.address, NOTES, codec=codec) as client,
    ):
        answers = client.call_many(NOTE, [NoteRequest(number=n) for n in range(1, 400)], timeout=PATIENCE)
        assert [answer.number for answer in answers] == list(range(1, 400))
        assert [item.n for item in client.stream(TAIL, TailRequest(number=1), credit=1, batch=1)] == [0, 1, 2]
    assert set(notes.seen.values()) == {1}


def exchange(client: Client, number: int) -> list[Any]:
    """A call and a stream: of each its answer, or the error it ended with."""
    found: list[Any] = []
    try:
        found.append(client.call(NOTE, NoteRequest(number=number), timeout=PATIENCE).number)
    except CallError as error:
        found.append(error)
    items: list[int] = []
    try:
        for item in client.stream(TAIL, TailRequest(number=number), timeout=PATIENCE, credit=2, batch=1):
            items.append(item.n)
        found.append(items)
    except CallError as error:
        assert items == list(range(len(items))), "what came before the end is in order"
        found.append(error)
    return found


def lengths(address: Any, codec: str, limits: Limits | None = None) -> tuple[int, int]:
    """Bytes of one exchange to the server and to the client."""
    with FaultProxy(address) as proxy:
        with Client(proxy.address, NOTES, codec=codec, name="c", limits=limits) as client:
            assert exchange(client, 1) == [1, [0, 1, 2]]
        stats = proxy.stats
        return stats.up, stats.down


@pytest.mark.parametrize("fault", [Cut, Reset])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_connection_ends_at_every_byte(server: Server, notes: Notes, direction: str, fault: Any) -> None:
    """Wherever the first connection ends, each call is answered or says whether it was processed, and says the truth:
    what was not processed never was, and what was repeated by itself ran once.
    """
    up, down = lengths(server.address, "pipe")
    notes.seen.clear()
    told: dict[int, list[Any]] = {}
    with FaultProxy(server.address) as proxy:
        for at in range((up if direction == "up" else down) + 1):
            number = 100 + at  # always three digits: the exchange is as long as the one that was measured
            faults: Sequence[Fault] = [fault(at, skip=proxy.stats.connections, count=1)]
            proxy.up, proxy.down = (faults, ()) if direction == "up" else ((), faults)
            with Client(proxy.address, NOTES, codec="pipe", name="c", backoff=AT_ONCE) as client:
                told[number] = exchange(client, number)
    server.shutdown()  # a request that was still under way has been processed now, or never will be
    answered = 0
    for number, outcomes in told.items():
        for outcome, sign in zip(outcomes, (1, -1), strict=True):
            ran = notes.seen[sign * number]
            if isinstance(outcome, CallError):
                assert isinstance(outcome, ConnectionLost), outcome
                assert outcome.retry in (Retry.NOT_PROCESSED, Retry.MAYBE_PROCESSED)
                assert ran <= (outcome.retry is Retry.MAYBE_PROCESSED), f"{number}: {outcome}, but it ran {ran} times"
            else:
                answered += 1
                assert outcome in (number, [0, 1, 2])
                assert ran == 1, f"{number} was answered and ran {ran} times"
    lost = {number: each for number, each in told.items() if all(isinstance(one, CallError) for one in each)}
    assert not lost, "an end costs one of the two calls, or none"


def flipped(server: Server, direction: str, bits: Sequence[int]) -> Counter[str]:
    """One exchange for each bit, with that one flipped: how they ended."""
    patient = Limits(hello_timeout=0.3, frame_timeout=0.3)

    def attempt(bit: int) -> str:
        faults: Any = {direction: [Flip(bit)]}
        with (
            FaultProxy(server.address, **faults) as proxy,
            Client(proxy.address, NOTES, codec="pipe", name="c", timeout=0.3, limits=patient) as client,
        ):
            try:
                client.call(NOTE, NoteRequest(number=7), timeout=0.3)
            except WireprotoError as error:
                return type(error).__name__
        return "answered"

    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(attempt, bits))


def exchange_bits(server: Server, direction: str) -> int:
    with FaultProxy(server.address) as proxy:
        with Client(proxy.address, NOTES, codec="pipe", name="c", timeout=PATIENCE) as client:
            client.call(NOTE, NoteRequest(number=7), timeout=0.3)
        return 8 * (proxy.stats.up if direction == "up" else proxy.stats.down)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_bit_is_wrong(server: Server, direction: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever bit of an exchange is flipped, the call ends in time, with an answer or a typed error; nobody fails."""
    bits = exchange_bits(server, direction)
    with caplog.at_level(logging.ERROR):
        ends = flipped(server, direction, range(bits))
    assert sum(ends.values()) == bits
    assert len(ends) >= 3, ends
    assert not caplog.records
    with Client(server.address, NOTES) as client:
        assert client.call(NOTE, NoteRequest(number=8)).number == 8


def handshake(address: Any) -> tuple[int, int]:
    """Bytes of a handshake to the server and to the client."""
    with FaultProxy(address) as proxy:
        with Client(proxy.address, NOTES, codec="pipe", name="c") as client:
            client.open()
        return proxy.stats.up, proxy.stats.down


@pytest.mark.parametrize("direction", ["up", "down"])
def test_heartbeats_find_a_line_that_went_dead(notes: Notes, direction: str) -> None:
    """A line that passes nothing in one direction any more, and stays, is found out by whoever hears nothing; the call
    ends without a time limit of its own, and the next one goes over another line.
    """
    lively = Limits(heartbeat=2.0)
    with Server(notes.handlers, workers=4, limits=lively, connections=ImpatientConnection) as server:
        up, down = handshake(server.address)
        dead: Any = {direction: [Stall(up if direction == "up" else down, count=1)]}
        with (
            FaultProxy(server.address, **dead) as proxy,
            Client(
                proxy.address,
                NOTES,
                codec="pipe",
                name="c",
                limits=lively,
                backoff=AT_ONCE,
                connections=ImpatientConnection,
            ) as client,
        ):
            client.open()
            with pytest.raises(ConnectionLost) as caught:
                client.call(NOTE, NoteRequest(number=2))
            assert caught.value.retry is Retry.MAYBE_PROCESSED
            assert client.call(NOTE, NoteRequest(number=3), timeout=PATIENCE).number == 3


def test_the_server_finds_a_line_that_went_dead(notes: Notes) -> None:
    """A server closes a connection that fell silent, though it is there."""
    lively = Limits(heartbeat=2.0)
    with Server(notes.handlers, workers=4, limits=lively, connections=ImpatientConnection) as server:
        up, _ = handshake(server.address)
        until(lambda: not server.sessions, "the connection that was measured is gone")
        with (
            FaultProxy(server.address, up=[Stall(up)]) as proxy,
            Client(proxy.address, NOTES, codec="pipe", name="c") as client,
        ):
            client.open()
            assert len(server.sessions) == 1
            until(lambda: not server.sessions, "the silent connection is closed")


def test_a_deadline_holds_on_a_slow_line(server: Server) -> None:
    """A call over a line that is slower than its deadline ends then, and the connection goes on."""
    with (
        FaultProxy(server.address, down=[Latency(0.3)]) as proxy,
        Client(proxy.address, NOTES, codec="msgpack") as client,
    ):
        client.open()
        with pytest.raises(CallError) as caught:
            client.call(NOTE, NoteRequest(number=1), timeout=0.1)
        assert caught.value.reason == "DEADLINE"
        assert client.call(NOTE, NoteRequest(number=2), timeout=PATIENCE).number == 2
        assert proxy.stats.connections == 1


def test_resets_cost_no_more_than_the_calls_in_flight(server: Server, notes: Notes) -> None:
    """Between calls a reset costs nothing: the next one goes over another connection."""
    with (
        FaultProxy(server.address) as proxy,
        Client(proxy.address, NOTES, codec="protobuf", backoff=AT_ONCE) as client,
    ):
        lost: list[Retry] = []
        for n in range(1, 30):
            try:
                assert client.call(NOTE, NoteRequest(number=n), timeout=PATIENCE).number == n
            except ConnectionLost as error:
                lost.append(error.retry)
            if n % 5 == 0:
                proxy.reset()
        assert len(lost) <= 5
        assert set(lost) <= {Retry.MAYBE_PROCESSED}
        assert proxy.stats.connections >= 5
    assert max(notes.seen.values()) == 1


def test_large_messages_through_a_narrow_line() -> None:
    """A request and an answer of many frames' worth of bytes arrive whole through small slices."""
    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        return EchoResponse(text=request.text)

    text = "wire" * 50_000
    with (
        Server(handlers, workers=4) as server,
        FaultProxy(server.address, up=[Slicer(1000, variation=999)], down=[Slicer(1000, variation=999)]) as proxy,
        Client(proxy.address, SERVICE) as client,
    ):
        assert client.call(ECHO, EchoRequest(text=text), timeout=PATIENCE).text == text
