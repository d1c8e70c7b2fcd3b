"""Calls that the server begins: what a client says beside its answers, and the details of its errors."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from wireproto import ConnectedClient, Context, Handlers, Message, Method, Server, Service, StreamMethod, connect
from wireproto.errors import CallError
from wireproto.handling import Subscription
from wireproto.status import Status


class Job(Message):
    how: str = ""


class Done(Message):
    number: int


class Broken(Message):
    """Details of an error."""

    part: str


HELLO = Method(opcode=1, name="Hello", request=Job, response=Done)
WORK = Method(opcode=2, name="Work", request=Job, response=Done, by="server", timeout=30, errors=[Broken])
WATCH = StreamMethod(opcode=3, name="Watch", request=Job, response=Done, by="server", timeout=30)
YARD = Service("yard.v1.YardService", methods=[HELLO, WORK, WATCH])


class Leaky(Subscription[Done]):
    """One item, behind three that it left out, and the end."""

    def __init__(self) -> None:
        self._given = False

    def take(self, n: int) -> Sequence[Done]:
        if self._given:
            raise StopIteration
        self._given = True
        self.dropped = 3
        return [Done(number=4)]


def worker() -> Handlers:
    handlers = Handlers(YARD)

    @handlers.register(WORK)
    def work(request: Job, context: Context) -> Done:
        context.set_metadata("bench", "7")
        if request.how == "broken":
            context.abort(Status.ABORTED, details=Broken(part="axe"))
        return Done(number=1)

    @handlers.register(WATCH)
    def watch(request: Job, context: Context) -> Subscription[Done]:
        return Leaky()

    return handlers


@pytest.fixture(params=["pipe", "msgpack", "protobuf"])
def client(request: pytest.FixtureRequest) -> Iterator[ConnectedClient]:
    """A client with handlers, as its server has it."""
    found: list[ConnectedClient] = []
    came = threading.Event()

    def on_client(each: ConnectedClient) -> None:
        found.append(each)
        came.set()

    serving = Handlers(YARD)

    @serving.register(HELLO)
    def hello(job: Job, context: Context) -> Done:
        return Done(number=0)

    with (
        Server(serving, on_client=on_client) as server,
        connect(server.address, YARD, codec=request.param, handlers=worker()),
    ):
        assert came.wait(30)
        yield found[0]


def test_the_server_is_answered_though_something_stands_beside_it(client: ConnectedClient) -> None:
    """What a client says beside an answer does not spoil it."""
    assert client.start(WORK, Job()).result(30).number == 1


def test_errors_of_clients_have_details(client: ConnectedClient) -> None:
    """The message that was given, and what was said beside it."""
    with pytest.raises(CallError) as caught:
        client.start(WORK, Job(how="broken")).result(30)
    assert caught.value.details == Broken(part="axe")
    assert dict(caught.value.metadata) == {"bench": "7"}


def test_items_behind_others_reach_the_server(client: ConnectedClient) -> None:
    """An ITEM that says how many were left out before it is an item like any other."""
    items: Any = client.stream(WATCH, Job())
    assert [item.number for item in items] == [4]
