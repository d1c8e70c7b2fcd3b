"""The chat client through the gateway: each message shown once, acknowledged after that, and none lost."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat_client.fake import PASSWORD
from wireproto import CallError
from wireproto.server.gateway import GrpcGateway
from wireproto_chat.client.inbox import Inbox, ShownMessages
from wireproto_chat.client.over_grpc import GrpcChatClient
from wireproto_chat.opcodes import (
    CREATE_ACCOUNT,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    LogOutRequest,
    PopUndeliveredRequest,
    ReceiveMessagesRequest,
    ReceiveMessagesResponse,
    SendMessageRequest,
)
from wireproto_chat.service.handlers import open_chat
from wireproto_chat.service.live import WINDOW

Connect = Callable[[str], GrpcChatClient]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GrpcGateway]:
    """The chat over gRPC, with the accounts alice and bob."""
    app = open_chat(str(tmp_path / "chat.db"))
    with app, GrpcGateway(app.handlers, port=0, authenticate=app.authenticate) as gateway:
        connection = GrpcChatClient(gateway.address)
        for name in ("alice", "bob"):
            connection.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
        connection.close()
        yield gateway


@pytest.fixture
def signed_in(gateway: GrpcGateway) -> Iterator[Connect]:
    """Opens connections and signs them in."""
    made: list[GrpcChatClient] = []

    def connect(name: str) -> GrpcChatClient:
        connection = GrpcChatClient(gateway.address)
        made.append(connection)
        connection.call(LOG_IN, LogInRequest(username=name, password=PASSWORD))
        return connection

    yield connect
    for connection in made:
        connection.close()


def post(sender: GrpcChatClient, texts: list[str]) -> None:
    for text in texts:
        sender.call(SEND_MESSAGE, SendMessageRequest(recipient="bob", text=text))


def messages(connection: GrpcChatClient) -> Iterator[ReceiveMessagesResponse]:
    """The messages of an account, acknowledged once the next one is asked for, as a session does it."""
    inbox = Inbox(connection, "bob", ShownMessages(), 0)
    return inbox.messages(connection.stream(RECEIVE_MESSAGES, ReceiveMessagesRequest()))


def undelivered(connection: GrpcChatClient) -> list[str]:
    """What the server still holds for the account; takes it."""
    return [message.text for message in connection.call(POP_UNDELIVERED, PopUndeliveredRequest()).messages]


def test_a_log_in_signs_the_calls_after_it(signed_in: Connect) -> None:
    """The token of a log-in goes with every call, until the log-out."""
    alice = signed_in("alice")
    post(alice, ["hello"])
    alice.call(LOG_OUT, LogOutRequest())
    with pytest.raises(CallError, match="SIGN_IN_REQUIRED"):
        post(alice, ["again"])


def test_more_than_a_window_comes_through_in_order(signed_in: Connect) -> None:
    """Acknowledging what was shown opens the window again and again; each message comes once."""
    texts = [str(number) for number in range(2 * WINDOW + 20)]
    post(signed_in("alice"), texts)
    stream = messages(signed_in("bob"))
    assert [next(stream).text for _ in texts] == texts


def test_what_was_not_shown_is_not_acknowledged(signed_in: Connect) -> None:
    """A message counts as shown when the next one is asked for: the last one given out still waits."""
    post(signed_in("alice"), [str(number) for number in range(40)])
    stream = messages(signed_in("bob"))
    assert [next(stream).text for _ in range(33)][-1] == "32"
    assert undelivered(signed_in("bob")) == [str(number) for number in range(32, 40)]


def test_what_another_client_takes_meanwhile_comes_once(signed_in: Connect) -> None:
    """When another client of the account has taken some, the stream goes on all the same: each message comes once."""
    texts = [str(number) for number in range(100)]
    post(signed_in("alice"), texts)
    stream, other = messages(signed_in("bob")), signed_in("bob")
    seen = [next(stream).text for _ in range(10)]
    other.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=20))
    seen += [next(stream).text for _ in range(90)]
    assert seen == texts


@pytest.mark.slow
def test_the_command_talks_through_the_gateway(gateway: GrpcGateway) -> None:
    """`wireproto chat --grpc` signs in, sends, shows each message once, and acknowledges before it leaves."""

    def chat(lines: str) -> str:
        command = [sys.executable, "-m", "wireproto", "chat", "--grpc", str(gateway.address)]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert "Sent to bob." in chat(f"0|alice|{PASSWORD}\n3|bob|one\n3|bob|two\nbye\n")
    first = chat(f"0|bob|{PASSWORD}\nbye\n")
    assert (first.count("alice: one"), first.count("alice: two")) == (1, 1)
    assert "alice:" not in chat(f"0|bob|{PASSWORD}\nbye\n")
