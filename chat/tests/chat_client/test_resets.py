"""Sessions over connections that are reset at any byte, and over a server that is killed: shown once, sent once."""

import itertools
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from chat_client.fake import PASSWORD
from chat_service.fakes import QUICK
from wireproto import CallError, Client, Server, connect
from wireproto.testing import FaultProxy, Reset
from wireproto_chat.client import reconnect
from wireproto_chat.client.commands import Create, LogIn, Send
from wireproto_chat.client.display import DisplayLine, LineKind
from wireproto_chat.client.session import ChatSession
from wireproto_chat.opcodes import (
    CHAT,
    CREATE_ACCOUNT,
    LOG_IN,
    POP_UNDELIVERED,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    PopUndeliveredRequest,
    SendMessageRequest,
)
from wireproto_chat.service.handlers import open_chat
from wireproto_chat.service.passwords import Passwords

WAIT = 30.0
WAITED, LIVE, SENT = 4, 3, 2
"""Messages that wait for bob, come while he is there, and are sent by him."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, and as many tries as it takes."""
    monkeypatch.setattr(reconnect, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(reconnect, "STEADY", -1.0)


class Seen:
    """What a session showed of other people's messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.farewells: list[str] = []
        self._grown = threading.Condition()

    def show(self, line: DisplayLine) -> None:
        if line.kind is LineKind.MESSAGE:
            with self._grown:
                self.texts.append(line.text)
                self._grown.notify_all()

    def wait_for_one(self, text: str) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: text in self.texts, WAIT), self.texts

    def wait_for(self, texts: list[str]) -> None:
        with self._grown:
            self._grown.wait_for(lambda: len(self.texts) >= len(texts), WAIT)
        assert self.texts == texts
        assert self.farewells == []


class Scene:
    """A server behind a proxy. Alice is on the server, and bob with a second connection; he chats through the proxy."""

    def __init__(self, server: Server, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.alice, self.bob = (self._signed_in(server, name) for name in ("alice", "bob"))
        self._rounds = itertools.count()

    def _signed_in(self, server: Server, name: str) -> Client:
        client = connect(server.address, CHAT)
        client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
        client.call(LOG_IN, LogInRequest(username=name, password=PASSWORD))
        return client

    def to_bob(self, text: str) -> None:
        self.alice.call(SEND_MESSAGE, SendMessageRequest(recipient="bob", text=text))

    def bobs(self) -> Client:
        """A connection of bob's; one that is reset in the handshake is made again, as a person would."""
        for _ in range(3):
            try:
                return connect(self.proxy.address, CHAT, timeout=WAIT)
            except CallError:
                continue
        raise AssertionError("only one connection is reset")

    def talk(self, way: Literal["up", "down"], at: int) -> int:
        """One visit of bob's, whose connection is reset behind so many bytes; how many bytes that way it had."""
        label = f"{next(self._rounds)}"
        texts = [f"{label} {number}" for number in range(WAITED + LIVE)]
        for text in texts[:WAITED]:
            self.to_bob(text)
        before = self.proxy.stats
        # Connections are counted by the proxy from its start.
        faults = [Reset(at, skip=before.connections, count=1)]
        self.proxy.up, self.proxy.down = (faults, []) if way == "up" else ([], faults)
        seen = Seen()
        session = ChatSession(self.bobs(), seen.show, seen.farewells.append, patience=WAIT)
        session.execute(LogIn("bob", PASSWORD))
        assert session.user == "bob"
        for number in range(SENT):
            session.execute(Send("alice", f"{label} back {number}"))
        for text in texts[WAITED:]:
            self.to_bob(text)
        seen.wait_for(texts)
        session.close(5.0)
        assert seen.texts == texts
        page = self.alice.call(POP_UNDELIVERED, PopUndeliveredRequest())
        assert [message.text for message in page.messages] == [f"{label} back {number}" for number in range(SENT)]
        # A reset that meets the last acknowledgement, of somebody about to leave, is made good by nobody: what it was
        # for would come again at the next visit.
        page = self.bob.call(POP_UNDELIVERED, PopUndeliveredRequest())
        left = [message.text for message in page.messages]
        assert left == texts[len(texts) - len(left) :]
        after = self.proxy.stats
        return after.up - before.up if way == "up" else after.down - before.down


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    path = tmp_path_factory.mktemp("resets") / "chat.db"
    with (
        open_chat(str(path), passwords=Passwords(hasher=QUICK)) as app,
        Server(app.handlers, port=0, authenticate=app.authenticate) as server,
        FaultProxy(server.address) as proxy,
    ):
        scene = Scene(server, proxy)
        yield scene
        scene.alice.close()
        scene.bob.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_reset_at_a_byte_loses_and_doubles_nothing(scene: Scene, way: Literal["up", "down"]) -> None:
    """Wherever the connection is reset, here at every 29th byte, each message is shown once, in order, and each line is
    carried out once."""
    whole = scene.talk(way, 1_000_000)
    assert whole > 300
    for at in range(2, whole, 29):
        scene.talk(way, at)


@pytest.mark.long
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_reset_at_each_byte_loses_and_doubles_nothing(scene: Scene, way: Literal["up", "down"]) -> None:
    """The same at every byte."""
    for at in range(scene.talk(way, 1_000_000)):
        scene.talk(way, at)


@pytest.mark.slow
def test_a_server_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A server process is killed twice while both sides write to each other: each line is carried out once, and
    shown once, in order."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "wireproto", "serve", "--no-grpc", "--port", str(port)]

    def started() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*command, "--store", str(tmp_path / "chat.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        return process

    def write(session: ChatSession, to: str, texts: list[str]) -> None:
        for text in texts:
            session.execute(Send(to, text))

    process = started()
    try:
        people = {}
        for name in ("alice", "bob"):
            seen = Seen()
            session = ChatSession(connect(("127.0.0.1", port), CHAT), seen.show, seen.farewells.append, patience=60)
            session.execute(Create(name, PASSWORD))
            session.execute(LogIn(name, PASSWORD))
            people[name] = session, seen
        texts: list[str] = []
        for number in range(2):
            # What a sender waits for is the answer, so the two write at the same time.
            texts += (new := [f"{number} {each}" for each in range(20)])
            writers = [
                threading.Thread(target=write, args=(people[name][0], to, new))
                for name, to in (("alice", "bob"), ("bob", "alice"))
            ]
            for writer in writers:
                writer.start()
            people["bob"][1].wait_for_one(new[5])
            process.send_signal(signal.SIGKILL)
            process.wait(WAIT)
            assert process.stdout is not None
            process.stdout.close()
            process = started()
            for writer in writers:
                writer.join(60)
                assert not writer.is_alive()
            for _, seen in people.values():
                seen.wait_for(texts)
        for session, seen in people.values():
            session.close(5.0)
            assert seen.texts == texts
    finally:
        process.kill()
        process.wait(WAIT)
        assert process.stdout is not None
        process.stdout.close()
