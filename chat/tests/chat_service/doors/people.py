"""The chat's four doors, a house that has them all, and people who come in by one of them."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias, TypeVar, get_args

from chat_service.fakes import PASSWORD, QUICK, Clock
from wireproto import Address, CallError, Client, Metadata, Server, Stream, connect
from wireproto.client.grpc import GrpcClient, GrpcStream
from wireproto.client.grpc import connect as connect_grpc
from wireproto.schema import Message, Method
from wireproto.server.gateway import GrpcGateway
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    BROADCAST,
    CHANGE_PASSWORD,
    CHAT,
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    DELETE_MESSAGE,
    LIST_CONVERSATION,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    WHO_AM_I,
    WILD_CARD,
    AcknowledgeRequest,
    AcknowledgeResponse,
    BroadcastRequest,
    BroadcastResponse,
    ChangePasswordRequest,
    CreateAccountRequest,
    DeleteAccountRequest,
    DeleteMessageRequest,
    ListConversationRequest,
    ListConversationResponse,
    LogInRequest,
    LogInResponse,
    LogOutRequest,
    PopUndeliveredRequest,
    PopUndeliveredResponse,
    ReceiveMessagesRequest,
    ReceiveMessagesResponse,
    SendMessageRequest,
    SendMessageResponse,
    WhoAmIRequest,
    WhoAmIResponse,
    WildCardRequest,
    WildCardResponse,
)
from wireproto_chat.service.handlers import ChatApp, open_chat
from wireproto_chat.service.passwords import Passwords
from wireproto_chat.store.clocks import steady

__all__ = ["CODECS", "DOORS", "PATIENCE", "Addresses", "Door", "House", "Inbox", "Person", "eventually"]

CODECS = ("pipe", "msgpack", "protobuf")

PATIENCE = 30.0
"""Seconds after which what must come at once is given up; generous, for a machine under load."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


Door: TypeAlias = Literal["pipe", "msgpack", "protobuf", "grpc"]
"""One way into the chat: a codec over TCP, or gRPC."""

DOORS: tuple[Door, ...] = get_args(Door)


class Addresses(NamedTuple):
    """Where a chat listens."""

    tcp: Address
    grpc: Address

    def person(self, door: Door, name: str = "") -> "Person":
        """Somebody who is connected, and not signed in."""
        client: Client | GrpcClient
        if door == "grpc":
            client = connect_grpc(self.grpc, CHAT, timeout=PATIENCE)
        else:
            client = connect(self.tcp, CHAT, codec=door, timeout=PATIENCE)
        return Person(client, door, name)


class House:
    """A chat on a store of its own, served through all its doors; may be stopped and started again."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.path = path
        self._clock = clock
        self.start()

    def start(self) -> None:
        self.app: ChatApp = open_chat(
            str(self.path),
            passwords=Passwords(hasher=QUICK),
            rates={},
            clock=self._clock or time.time,
            steady=self._clock.steady if self._clock is not None else steady,
        )
        self._server = Server(self.app.handlers, authenticate=self.app.authenticate, workers=8)
        self._gateway = GrpcGateway(self.app.handlers, port=0, workers=8, authenticate=self.app.authenticate)
        self._server.start()
        self._gateway.start()
        self.addresses = Addresses(self._server.address, self._gateway.address)

    def stop(self) -> None:
        assert self._gateway.shutdown() == []
        assert self._server.shutdown() == []
        assert self.app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Person:
    """Somebody at a door. Signed in over TCP the connection is theirs; over gRPC each call carries their token.

    Attributes:
        token: of the last log-in.
    """

    def __init__(self, client: Client | GrpcClient, door: Door, name: str) -> None:
        self.client = client
        self.door = door
        self.name = name
        self.token = ""

    def call(
        self, method: Method[Req, Resp], request: Req, *, key: bytes = b"", authorization: str | None = None
    ) -> Resp:
        return self.client.call(method, request, metadata=_metadata(key, authorization), timeout=PATIENCE)

    def start(self, method: Method[Req, Resp], request: Req, *, key: bytes = b"") -> "Future[Resp]":
        return self.client.start(method, request, metadata=_metadata(key), timeout=PATIENCE)

    def create(self, password: str = PASSWORD) -> None:
        self.call(CREATE_ACCOUNT, CreateAccountRequest(username=self.name, password=password))

    def log_in(self, password: str = PASSWORD, *, token: str = "") -> LogInResponse:
        request = LogInRequest(username=self.name, password="" if token else password, token=token)
        answer = self.call(LOG_IN, request)
        self.token = answer.token
        if isinstance(self.client, GrpcClient):
            self.client.authorization = f"Bearer {self.token}"
        return answer

    def log_out(self) -> None:
        # Over gRPC the token of the ended session is still sent, and must be worth nothing.
        self.call(LOG_OUT, LogOutRequest())

    def list(self, pattern: str, *, after: str = "", limit: int = 0) -> WildCardResponse:
        return self.call(WILD_CARD, WildCardRequest(pattern=pattern, after=after, limit=limit))

    def send(self, to: str, text: str, key: bytes = b"") -> SendMessageResponse:
        return self.call(SEND_MESSAGE, SendMessageRequest(recipient=to, text=text), key=key)

    def broadcast(self, pattern: str, text: str, key: bytes = b"") -> BroadcastResponse:
        return self.call(BROADCAST, BroadcastRequest(pattern=pattern, text=text), key=key)

    def pop(self, limit: int = 0) -> PopUndeliveredResponse:
        return self.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=limit))

    def acknowledge(self, sequence: int) -> AcknowledgeResponse:
        return self.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=sequence))

    def conversation(
        self, name: str, *, before: int = 0, after: int = 0, limit: int = 0, oldest_first: bool = False
    ) -> ListConversationResponse:
        request = ListConversationRequest(
            username=name, before=before, after=after, limit=limit, oldest_first=oldest_first
        )
        return self.call(LIST_CONVERSATION, request)

    def delete_message(self, recipient: str, sequence: int) -> None:
        self.call(DELETE_MESSAGE, DeleteMessageRequest(recipient=recipient, sequence=sequence))

    def delete_account(self, *, force: bool = False) -> int:
        return self.call(DELETE_ACCOUNT, DeleteAccountRequest(username=self.name, force=force)).discarded

    def change_password(self, old: str, new: str) -> int:
        return self.call(CHANGE_PASSWORD, ChangePasswordRequest(password=old, new_password=new)).sessions_ended

    def who_am_i(self) -> WhoAmIResponse:
        return self.call(WHO_AM_I, WhoAmIRequest())

    def receive(self, *, after: int = 0, credit: int = 64, by_itself: bool = True) -> "Inbox":
        """Open the stream of messages; ``by_itself``: to ask for the next one acknowledges the one before."""
        stream = self.client.stream(RECEIVE_MESSAGES, ReceiveMessagesRequest(after=after), credit=credit, batch=1)
        return Inbox(self, stream, by_itself=by_itself)

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Inbox:
    """An open ReceiveMessages."""

    def __init__(
        self,
        person: Person,
        stream: "Stream[ReceiveMessagesResponse] | GrpcStream[ReceiveMessagesResponse]",
        *,
        by_itself: bool,
    ) -> None:
        self.person = person
        self.last = 0  # the sequence handed out last
        self._stream = stream
        self._by_itself = by_itself
        self._acknowledged = 0

    def next(self, timeout: float = PATIENCE) -> ReceiveMessagesResponse:
        """The next message.

        Raises:
            TimeoutError: none came in time.
            CallError: the stream has ended.
        """
        if self._by_itself and self.last > self._acknowledged:
            try:
                self.acknowledge()
            except CallError:
                pass  # a session that has ended cannot; the stream says so itself
        item = self._stream.next(timeout)
        self.last = item.sequence
        return item

    def acknowledge(self) -> None:
        """Acknowledge what was handed out."""
        self.person.acknowledge(self.last)
        self._acknowledged = self.last

    def wait_until_open(self) -> None:
        """Over gRPC, wait until the server has begun; over TCP a call made after this is served after it."""
        if isinstance(self._stream, GrpcStream):
            self._stream.wait_until_open()

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def eventually(look: Callable[[], Any], expected: object, patience: float = PATIENCE) -> None:
    """Ask until the answer is as expected: for what the server does in its own time."""
    deadline = time.monotonic() + patience
    while (found := look()) != expected:
        assert time.monotonic() < deadline, f"{found!r}, not {expected!r}"
        time.sleep(0.002)


def _metadata(key: bytes, authorization: str | None = None) -> Metadata:
    return Metadata(idempotency_key=key, authorization=authorization or "")
