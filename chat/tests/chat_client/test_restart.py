"""Sessions over a real server that is taken away and comes back, over TCP and gRPC."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat_client.fake import PASSWORD
from chat_client.person import PATIENCE
from wireproto import Server, connect
from wireproto.server.gateway import GrpcGateway
from wireproto_chat.client import reconnect
from wireproto_chat.client.commands import ChatCommand, Create, LogIn, Send
from wireproto_chat.client.display import DisplayLine, rows
from wireproto_chat.client.over_grpc import GrpcChatClient
from wireproto_chat.client.reconnect import ChatClient
from wireproto_chat.client.session import ChatSession
from wireproto_chat.opcodes import CHAT
from wireproto_chat.service.handlers import ChatApp, open_chat

pytestmark = pytest.mark.slow

LOST = "* The connection to the server was lost; trying to get it back."
BACK = "* The connection is back."


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ChatApp]:
    """A store that outlives its servers."""
    with open_chat(str(tmp_path / "chat.db")) as app:
        yield app


class Door:
    """One way to the chat, which can be shut and opened again at the same port."""

    def __init__(self, app: ChatApp, *, grpc: bool) -> None:
        self._app, self._grpc = app, grpc
        self._port = 0
        self._server: Server | GrpcGateway | None = None
        self.open()

    def open(self) -> None:
        kind = GrpcGateway if self._grpc else Server
        self._server = kind(self._app.handlers, port=self._port, authenticate=self._app.authenticate)
        self._server.start()
        self._port = self._server.address.port

    def shut(self) -> None:
        assert self._server is not None
        self._server.shutdown()

    def connect(self) -> ChatClient:
        where = f"127.0.0.1:{self._port}"
        if self._grpc:
            return GrpcChatClient(where)
        return connect(where, CHAT)


class Member:
    """A session over a real connection, and what it showed."""

    def __init__(self, door: Door, name: str) -> None:
        self.texts: list[str] = []
        self.farewells: list[str] = []
        self._grown = threading.Condition()
        self.session = ChatSession(door.connect(), self._show, self.farewells.append, patience=60)
        self.do(Create(name, PASSWORD))
        self.do(LogIn(name, PASSWORD))

    def _show(self, line: DisplayLine) -> None:
        with self._grown:
            self.texts.append("\n".join(str(row) for row in rows(line)))
            self._grown.notify_all()

    def do(self, command: ChatCommand) -> None:
        self.session.execute(command)

    @property
    def received(self) -> list[str]:
        return [text for text in self.texts if text.startswith("alice: ")]

    def wait_for(self, done: Callable[[], bool]) -> None:
        with self._grown:
            assert self._grown.wait_for(done, 30), self.texts


@pytest.mark.parametrize("grpc", [False, True])
def test_a_server_that_comes_back(app: ChatApp, grpc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides come back by themselves; each message is shown once, and once acknowledged stays so."""
    monkeypatch.setattr(reconnect, "STEADY", -1.0)
    door = Door(app, grpc=grpc)
    alice, bob = Member(door, "alice"), Member(door, "bob")
    try:
        for round_number in range(3):
            alice.do(Send("bob", f"before {round_number}"))
            bob.wait_for(lambda: f"alice: before {round_number}" in bob.texts)  # noqa: B023
            door.shut()
            bob.wait_for(lambda: bob.texts.count(LOST) == round_number + 1)  # noqa: B023
            sending = threading.Thread(target=alice.do, args=(Send("bob", f"meanwhile {round_number}"),))
            sending.start()
            door.open()
            sending.join(30)
            assert not sending.is_alive()
            bob.wait_for(lambda: f"alice: meanwhile {round_number}" in bob.texts)  # noqa: B023
        assert bob.received == [f"alice: {when} {number}" for number in range(3) for when in ("before", "meanwhile")]
        assert bob.texts.count(BACK) == 3
        bob.session.close(PATIENCE)
        again = Member(door, "bob")  # its account is there: the first line is a refusal
        assert again.texts[1:] == ["Server: You are signed in as bob."]
        again.session.close(PATIENCE)
        assert alice.farewells == bob.farewells == []
    finally:
        alice.session.close(PATIENCE)
        bob.session.close(PATIENCE)
        door.shut()
