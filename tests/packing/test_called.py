"""Calls from the server whose payloads are packed, both ways."""

import threading
from collections.abc import Iterator

import pytest

from wireproto import (
    Client,
    Context,
    DuplexMethod,
    Handlers,
    Message,
    Method,
    Server,
    Service,
    Sink,
    UploadMethod,
    connect,
)
from wireproto.connected import ConnectedClient
from wireproto.schema import StreamMethod
from wireproto.wire.packing import Packed


class Text(Message):
    """One text."""

    text: str = ""


ENROL = Method(opcode=1, name="Enrol", request=Text, response=Text)
RUN = Method(opcode=2, name="Run", request=Text, response=Text, by="server", compress=True)
TAIL = StreamMethod(opcode=3, name="Tail", request=Text, response=Text, by="server", compress=True)
REPORT = UploadMethod(opcode=4, name="Report", request=Text, response=Text, by="server", compress=True)
SHELL = DuplexMethod(opcode=5, name="Shell", request=Text, response=Text, by="server", compress=True)

SERVICE = Service("packing.v1.CalledService", methods=[ENROL, RUN, TAIL, REPORT, SHELL])
TEXT = Text(text="a text that says the same again and again; " * 100)


class Kept(Sink[Text, None]):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.items: list[Text] = []

    def receive(self, item: Text) -> None:
        self.items.append(item)

    def finished(self) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[ConnectedClient]:
    """A client, as a server sees it."""
    enrolled: list[ConnectedClient] = []
    handlers, work = Handlers(SERVICE), Handlers(SERVICE)

    @handlers.register(ENROL)
    def enrol(request: Text, context: Context) -> Text:
        enrolled.append(context.client)
        return request

    @work.register(RUN)
    def run(request: Text, context: Context) -> Text:
        return request

    @work.register(TAIL)
    def tail(request: Text, context: Context) -> Iterator[Text]:
        return iter([request] * 5)

    @work.register(REPORT)
    def report(items: Iterator[Text], context: Context) -> Text:
        return Text(text="".join(item.text for item in items))

    @work.register(SHELL)
    def shell(items: Iterator[Text], context: Context) -> Iterator[Text]:
        return iter(items)

    server = Server(handlers, workers=6)
    server.start()
    client: Client = connect(server.address, SERVICE, handlers=work)
    try:
        client.call(ENROL, Text())
        yield enrolled[0]
    finally:
        client.close()
        assert server.shutdown(10) == []


def test_every_shape_is_packed(agent: ConnectedClient) -> None:
    """What a server sends its clients, and what they answer, is the same as if it were not packed."""
    assert agent.call(RUN, TEXT, timeout=20) == TEXT
    assert list(agent.stream(TAIL, TEXT, timeout=20)) == [TEXT] * 5
    assert agent.upload(REPORT, [TEXT] * 3, timeout=20).result(20).text == TEXT.text * 3
    assert list(agent.duplex(SHELL, [TEXT] * 3, timeout=20)) == [TEXT] * 3


def test_answers_of_one_client_are_unpacked_one_at_a_time(
    agent: ConnectedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls of a server a client answers at once, with answers and items, one payload is unpacked."""
    unpack = Packed.unpack
    count, beside = threading.Lock(), threading.Event()
    now = most = 0

    def watch(self: Packed) -> bytes:
        nonlocal now, most
        if threading.current_thread().name.startswith("wireproto-agent"):
            return unpack(self)  # of the client's side
        with count:
            now += 1
            most = max(most, now)
            if now > 1:
                beside.set()
        try:
            beside.wait(0.05)  # for another one, which is not to come
            return unpack(self)
        finally:
            with count:
                now -= 1

    monkeypatch.setattr(Packed, "unpack", watch)
    sinks = [Kept() for _ in range(3)]
    futures = [agent.stream(TAIL, TEXT, sink, timeout=20) for sink in sinks]
    answers = [agent.start(RUN, TEXT, timeout=20) for _ in range(6)]
    assert [each.result(20) for each in answers] == [TEXT] * 6
    for future in futures:
        future.result(20)
    assert [sink.items for sink in sinks] == [[TEXT] * 5] * 3
    assert most == 1
