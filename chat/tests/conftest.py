"""What the chat's tests share: a chat by itself, a server of it, and the commands as processes."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat_cli.processes import PATIENCE, Serve, Serving, environment
from chat_client.fake import PASSWORD, Run
from chat_service.fakes import Chat, Clock
from wireproto import Address, Server, connect
from wireproto_chat.opcodes import (
    CHAT,
    CREATE_ACCOUNT,
    LOG_IN,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    SendMessageRequest,
)
from wireproto_chat.service.handlers import open_chat


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "chat.db"


@pytest.fixture
def chat(store_path: Path, clock: Clock) -> Iterator[Chat]:
    """A chat on a store of its own."""
    chat = Chat(store_path, clock)
    yield chat
    chat.close()
    assert not chat.fatal


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A chat server with the accounts alice and bob."""
    app = open_chat(str(tmp_path / "chat.db"))
    try:
        with Server(app.handlers, authenticate=app.authenticate) as server:
            with connect(server.address, CHAT) as client:
                for name in ("alice", "bob"):
                    client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
            yield server
    finally:
        app.close()


@pytest.fixture
def address(server: Server) -> Address:
    """Where it listens."""
    return server.address


@pytest.fixture
def run(address: Address) -> Run:
    """Runs ``wireproto chat`` by pipe to its end: ``run(lines, *options)``."""

    def run(lines: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wireproto", "chat", str(address), *options],
            input=lines,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def post(address: Address) -> Callable[..., None]:
    """Sends texts as one account to another, over a connection of its own: ``post("alice", "bob", *texts)``."""

    def post(sender: str, recipient: str, *texts: str) -> None:
        with connect(address, CHAT) as client:
            client.call(LOG_IN, LogInRequest(username=sender, password=PASSWORD))
            for text in texts:
                client.call(SEND_MESSAGE, SendMessageRequest(recipient=recipient, text=text))

    return post


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts ``wireproto serve`` on free ports, and ends those servers that the test left running."""
    with contextlib.ExitStack() as stack:

        def start(*words: str, **variables: str) -> Serving:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "wireproto", "serve", *words, "--port", "0"],
                    env=environment(**variables),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                pytest.fail(f"not ready but {line!r}: {process.communicate(timeout=PATIENCE)[1]}")
            return Serving(process, dict(word.split("=", 1) for word in line.split()[1:]))

        yield start
