"""A server that its clients enrol with, and clients whose handlers do what the server asks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.agents.service import (
    AGENTS,
    COLLECT,
    CONVERT,
    ENROL,
    NOTIFY,
    REPORT,
    RUN,
    SHELL,
    TAIL,
    EnrolRequest,
    EnrolResponse,
    Line,
    Order,
    Result,
)
from wireproto import Client, Context, Handlers, Limits, Server, Sink, Status, Subscription, connect
from wireproto.connected import ConnectedClient

LIMITS = Limits(heartbeat=0, linger=0.2)


class Work:
    """What one client does for its server.

    Attributes:
        orders: of Notify, in order.
        hold: what Notify waits for.
        gate: what Run waits for when it is told to wait.
        waiting: set once it does.
        contexts: of the calls of Run.
    """

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.noted = threading.Semaphore(0)
        self.gate = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.waiting = threading.Semaphore(0)
        self.contexts: list[Context] = []
        self.futures: list[Future[Result]] = []
        self.handlers = Handlers(AGENTS)
        self.handlers.register(RUN)(self.run)
        self.handlers.register(TAIL)(self.tail)
        self.handlers.register(REPORT)(self.report)
        self.handlers.register(COLLECT)(self.collect)
        self.handlers.register(SHELL)(self.shell)
        self.handlers.register(NOTIFY)(self.notify)
        self.handlers.sink(CONVERT)(Convert)

    def run(self, order: Order, context: Context) -> Result | Future[Result]:
        self.contexts.append(context)
        match order.text:
            case "wait":
                self.waiting.release()
                assert self.gate.wait(20)
            case "fail":
                context.abort(Status.FAILED_PRECONDITION, "BROKEN", "it is broken")
            case "later":
                future: Future[Result] = Future()
                self.futures.append(future)
                self.waiting.release()
                return future
            case "thread":
                return Result(text=threading.current_thread().name)
        return Result(text=order.text.upper(), count=order.count)

    def tail(self, order: Order, context: Context) -> Iterator[Line]:
        for number in range(order.count):
            yield Line(text=f"{order.text}{number}")
        if order.text == "fail":
            context.abort(Status.ABORTED, message="the end is missing")
        if order.text == "wait":
            self.waiting.release()
            assert self.gate.wait(20)

    def report(self, items: Iterator[Line], context: Context) -> Result:
        texts = []
        for item in items:
            if item.text == "enough":
                break
            texts.append(item.text)
        return Result(text=",".join(texts[:10]), count=len(texts))

    def collect(self, items: list[Line], context: Context) -> Result:
        return Result(count=len(items))

    def shell(self, items: Iterator[Line], context: Context) -> Iterator[Line]:
        for item in items:
            yield Line(text=item.text[::-1])

    def notify(self, order: Order, context: Context) -> None:
        assert self.hold.wait(20)
        self.orders.append(order.text)
        self.noted.release()


class Convert(Sink[Line, None], Subscription[Line]):
    """Both halves of Convert, without a thread."""

    def __init__(self, context: Context) -> None:
        self._lines: list[Line] = []
        self._over = False

    def receive(self, item: Line) -> None:
        self._lines.append(Line(text=item.text.upper()))
        self.wake()

    def finished(self) -> None:
        self._over = True
        self.wake()

    def take(self, n: int) -> list[Line]:
        taken, self._lines = self._lines[:n], self._lines[n:]
        if not taken and self._over:
            raise StopIteration
        return taken


class Office:
    """A server and who has enrolled with it.

    Attributes:
        clients: by the name that each gave.
        act: what the handler of Enrol does beside answering.
    """

    def __init__(self, **settings: Any) -> None:
        self.clients: dict[str, ConnectedClient] = {}
        self.act: Callable[[ConnectedClient], Any] | None = None
        handlers = Handlers(AGENTS)

        @handlers.register(ENROL)
        def enrol(request: EnrolRequest, context: Context) -> EnrolResponse | Future[EnrolResponse]:
            self.clients[request.name] = context.client
            if self.act is not None:
                acted = self.act(context.client)
                if isinstance(acted, Future):
                    return acted
            return EnrolResponse(agents=len(self.clients))

        self.handlers = handlers
        self.server = Server(handlers, **{"limits": LIMITS, **settings})


class Branch:
    """Makes offices and clients, and takes them away again."""

    def __init__(self) -> None:
        self._offices: list[Office] = []
        self._clients: list[Client] = []
        self.works: list[Work] = []

    def office(self, **settings: Any) -> Office:
        made = Office(**settings)
        made.server.start()
        self._offices.append(made)
        return made

    def client(self, office: Office, work: Work | None = None, **settings: Any) -> tuple[Client, Work]:
        work = work or Work()
        self.works.append(work)
        client = connect(
            office.server.address, AGENTS, **{"handlers": work.handlers, "limits": LIMITS, "timeout": 10.0, **settings}
        )
        self._clients.append(client)
        return client, work

    def agent(self, office: Office, name: str = "a", **settings: Any) -> tuple[ConnectedClient, Client, Work]:
        """A client that has enrolled, as the server sees it and as it is."""
        client, work = self.client(office, **settings)
        client.call(ENROL, EnrolRequest(name=name), timeout=10)
        return office.clients[name], client, work

    def close(self) -> None:
        for work in self.works:
            work.gate.set()
            work.hold.set()
        for client in self._clients:
            client.close()
        for office in self._offices:
            assert office.server.shutdown(5) == []


def _is_spared(thread: threading.Thread) -> bool:
    """The keeper, which all clients share, and what the interpreter makes up for a thread that a finalizer started."""
    return "keeper" in thread.name or thread.name.startswith("Dummy-")


@pytest.fixture
def branch() -> Iterator[Branch]:
    made = Branch()
    threads = set(threading.enumerate())
    yield made
    made.close()
    left = [thread for thread in set(threading.enumerate()) - threads if not _is_spared(thread)]
    for thread in left:
        thread.join(5)
    assert not [thread.name for thread in left if thread.is_alive()]
