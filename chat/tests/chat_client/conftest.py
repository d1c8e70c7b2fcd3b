"""A real server for the tests that need one: the chat over TCP, on a store of its own."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wireproto_chat.contract import (
    CHAT,
    CREATE_ACCOUNT,
    LOG_IN,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    SendMessageRequest,
)
from wireproto_chat.service.handlers import open_chat

from chat_client.fake import PASSWORD
from wireproto import Address, Server, connect

Run = Callable[..., subprocess.CompletedProcess[str]]


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
