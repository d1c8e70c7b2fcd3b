"""What the answers of clients say beside their payload, as the server has it that called them."""

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from wireproto import CallError, Context, Handlers, Server, Sink, Status, connect
from wireproto.schema import DuplexMethod, Message, Method, Service, StreamMethod, UploadMethod

PATIENCE = 20.0


class Ask(Message):
    fail: bool = False


class Told(Message):
    text: str = ""


class Why(Message):
    text: str = ""


ENROL = Method(opcode=1, name="Enrol", request=Ask, response=Told)
RUN = Method(opcode=2, name="Run", request=Ask, response=Told, by="server", errors=[Why])
TAIL = StreamMethod(opcode=3, name="Tail", request=Ask, response=Told, by="server", errors=[Why])
SEND = UploadMethod(opcode=4, name="Send", request=Ask, response=Told, by="server", errors=[Why])
TALK = DuplexMethod(opcode=5, name="Talk", request=Ask, response=Told, by="server", errors=[Why])
SERVICE = Service("test.answers.v1.AnswerService", methods=[ENROL, RUN, TAIL, SEND, TALK])
SAID = {"region": "eu", "who": "Zoë"}


def do(request: Ask, context: Context) -> Told:
    for name, value in SAID.items():
        context.set_metadata(name, value)
    if request.fail:
        context.abort(Status.ABORTED, "", "no", details=Why(text="because"))
    return Told(text="done")


class Kept(Sink[Told, None]):
    def receive(self, item: Told) -> None:
        pass

    def finished(self) -> None:
        pass

    def failed(self, error: CallError) -> None:
        pass


@pytest.fixture(params=["pipe", "msgpack", "protobuf"])
def agent(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client, as its server sees it."""
    at_server, at_client = Handlers(SERVICE), Handlers(SERVICE)
    agents: queue.Queue[Any] = queue.Queue()

    @at_server.register(ENROL)
    def enrol(request: Ask, context: Context) -> Told:
        agents.put(context.client)
        return Told()

    at_client.register(RUN)(do)
    at_client.register(TAIL)(lambda request, context: (do(request, context) for _ in range(3)))
    at_client.register(SEND)(lambda items, context: [do(item, context) for item in items][-1])
    at_client.register(TALK)(lambda items, context: (do(item, context) for item in items))
    with (
        Server(at_server, port=0, codecs=[request.param]) as server,
        connect(server.address, SERVICE, codec=request.param, handlers=at_client) as client,
    ):
        client.call(ENROL, Ask())
        yield agents.get(timeout=PATIENCE)


def begin(agent: Any, fail: bool) -> dict[str, Any]:
    """A future of each shape."""
    request = Ask(fail=fail)
    return {
        "unary": agent.start(RUN, request, timeout=PATIENCE),
        "stream": agent.stream(TAIL, request, Kept(), timeout=PATIENCE),
        "upload": agent.upload(SEND, [request], timeout=PATIENCE),
        "duplex": agent.duplex(TALK, [request], Kept(), timeout=PATIENCE),
    }


def test_the_future_of_a_call_has_what_the_client_said(agent: Any) -> None:
    """In every shape; of an error it has it, too, and the error has its details."""
    for shape, future in begin(agent, fail=False).items():
        future.result(PATIENCE)
        assert dict(future.metadata) == SAID, shape
    for shape, future in begin(agent, fail=True).items():
        error = future.exception(PATIENCE)
        assert (error.details, dict(error.metadata)) == (Why(text="because"), SAID), shape
        assert dict(future.metadata) == SAID, shape


def test_an_iterator_that_is_at_its_end_has_what_the_client_said(agent: Any) -> None:
    """And nothing before that."""
    for items in (agent.stream(TAIL, Ask(), timeout=PATIENCE), agent.duplex(TALK, [Ask()], timeout=PATIENCE)):
        assert next(items) == Told(text="done")
        assert dict(items.metadata) == {}
        assert set(items) <= {Told(text="done")}
        assert dict(items.metadata) == SAID
