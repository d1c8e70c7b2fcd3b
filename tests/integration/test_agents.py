"""Many agents behind one server: it calls each in turn and all at once, while some are slow, silent, or leave."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Any

import pytest

from tests.agents.service import AGENTS, ENROL, NOTIFY, RUN, TAIL, EnrolRequest, EnrolResponse, Line, Order, Result
from wireproto import (
    CallError,
    Client,
    ConnectedClient,
    ConnectionLost,
    Context,
    Handlers,
    Limits,
    Server,
    Sink,
    Workers,
    connect,
)

CODECS = ("pipe", "msgpack", "protobuf")
SILENT, SLOW, LEAVING = 0, 1, 2
"""What one agent in ten is, by the last digit of its number; all others answer at once."""

COUNTS = [pytest.param(60, id="60"), pytest.param(1000, id="1000", marks=pytest.mark.long)]


class Field:
    """The agents of one server."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.agents: dict[int, ConnectedClient] = {}
        self.release = threading.Event()
        self.noted = threading.Semaphore(0)
        self.clients: list[Client] = []
        self._enrolled = threading.Condition()
        limits = Limits(heartbeat=0, linger=0.1, max_connections=count + 10)
        handlers = Handlers(AGENTS)
        handlers.register(ENROL)(self._enrol)
        self.server = Server(handlers, limits=limits, workers=8)
        self.workers = Workers(8, queue=10_000)

    def _enrol(self, request: EnrolRequest, context: Context) -> EnrolResponse:
        with self._enrolled:
            self.agents[int(request.name)] = context.client
            self._enrolled.notify_all()
            return EnrolResponse(agents=len(self.agents))

    def start(self) -> None:
        self.server.start()
        for number in range(self.count):
            client = connect(
                self.server.address,
                AGENTS,
                codec=CODECS[number % 3],
                limits=Limits(heartbeat=0),
                handlers=self._handlers(number),
                workers=self.workers,
            )
            self.clients.append(client)
            client.start(ENROL, EnrolRequest(name=str(number)), timeout=60)
        with self._enrolled:
            assert self._enrolled.wait_for(lambda: len(self.agents) == self.count, 60)

    def _handlers(self, number: int) -> Handlers:
        handlers = Handlers(AGENTS)

        @handlers.register(RUN)
        def run(order: Order, context: Context) -> Result | Future[Result]:
            if order.text == "kinds" and number % 10 == SILENT:
                return Future()
            if order.text == "kinds" and number % 10 == SLOW:
                later: Future[Result] = Future()
                timer = threading.Timer(0.5, lambda: later.set_result(Result(count=number)))
                timer.daemon = True
                timer.start()
                return later
            if order.text == "leave" and number % 10 == LEAVING:
                self.clients[number].close()
            return Result(text=order.text, count=number)

        @handlers.register(TAIL)
        def tail(order: Order, context: Context) -> Iterator[Line]:
            return (Line(text=f"{number}.{each}") for each in range(order.count))

        @handlers.register(NOTIFY)
        def notify(order: Order, context: Context) -> None:
            self.noted.release()

        return handlers

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.workers.close()
        assert self.server.shutdown(5) == []


@pytest.fixture(scope="module", params=COUNTS)
def field(request: pytest.FixtureRequest) -> Iterator[Field]:
    made = Field(request.param)
    made.start()
    yield made
    made.close()


def test_each_is_called_in_turn(field: Field) -> None:
    """One after the other, each in its own codec, and each answers for itself."""
    for number, agent in sorted(field.agents.items()):
        assert agent.codec == CODECS[number % 3]
        assert agent.call(RUN, Order(text="turn"), timeout=30) == Result(text="turn", count=number)


def test_all_are_called_at_once(field: Field) -> None:
    """No call holds a thread of the server's: all are in flight together, with several of each agent's."""
    futures = {
        (number, each): agent.start(RUN, Order(text="all"), timeout=60)
        for number, agent in field.agents.items()
        for each in range(3)
    }
    assert wait(futures.values(), 60).not_done == set()
    assert all(future.result().count == number for (number, _), future in futures.items())
    assert threading.active_count() < 60


def test_items_come_of_all(field: Field) -> None:
    """A stream of each, to a sink that holds no thread; and a word to each that nobody answers."""

    class Counted(Sink[Line, None]):
        def __init__(self, number: int) -> None:
            self.number = number
            self.count = 0

        def receive(self, item: Line) -> None:
            assert item.text == f"{self.number}.{self.count}"
            self.count += 1

        def finished(self) -> None:
            """The future says so."""

    sinks = {number: Counted(number) for number in field.agents}
    futures = [agent.stream(TAIL, Order(count=40), sinks[number], timeout=60) for number, agent in field.agents.items()]
    for agent in field.agents.values():
        agent.post(NOTIFY, Order())
    assert wait(futures, 60).not_done == set()
    assert all(future.exception() is None for future in futures)
    assert {sink.count for sink in sinks.values()} == {40}
    for _ in field.agents:
        assert field.noted.acquire(timeout=30)


def test_the_slow_and_the_silent_hold_up_nobody(field: Field) -> None:
    """Each ends at its own time: at once, after half a second, or at the deadline, told as that."""
    began = time.monotonic()
    ends: dict[int, float] = {}

    def note(number: int) -> Any:
        return lambda future: ends.setdefault(number, time.monotonic() - began)

    futures = {}
    for number, agent in field.agents.items():
        futures[number] = agent.start(RUN, Order(text="kinds"), timeout=8 if number % 10 == SILENT else 60)
        futures[number].add_done_callback(note(number))
    assert wait(futures.values(), 60).not_done == set()
    for number, future in futures.items():
        if number % 10 == SILENT:
            error = future.exception()
            assert isinstance(error, CallError)
            assert error.reason == "DEADLINE"
            assert ends[number] >= 7.9
        else:
            assert future.result().count == number
            assert ends[number] < 7.9, "an agent that answers waited for one that does not"


def test_some_leave_in_the_middle(field: Field) -> None:
    """Calls of those that leave are lost, and no others; a lost agent says that it is gone, once."""
    gone = threading.Semaphore(0)
    for number, agent in field.agents.items():
        if number % 10 == LEAVING:
            agent.on_close(gone.release)
    futures = {number: agent.start(RUN, Order(text="leave"), timeout=60) for number, agent in field.agents.items()}
    assert wait(futures.values(), 60).not_done == set()
    for number, future in futures.items():
        if number % 10 == LEAVING:
            assert isinstance(future.exception(), ConnectionLost)
        else:
            assert future.result().count == number
    for number in field.agents:
        if number % 10 == LEAVING:
            assert gone.acquire(timeout=30)
    assert all(agent.connected == (number % 10 != LEAVING) for number, agent in field.agents.items())
