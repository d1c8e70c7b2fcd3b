"""A chat without a network: contexts, a clock and passwords for tests that call the handlers themselves."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from argon2 import PasswordHasher

from wireproto import CallError, Context, Identity, Metadata
from wireproto.schema import Message, Method, StreamMethod
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    CHAT,
    CREATE_ACCOUNT,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    AcknowledgeRequest,
    AcknowledgeResponse,
    CreateAccountRequest,
    LogInRequest,
    LogInResponse,
    LogOutRequest,
    PopUndeliveredRequest,
    ReceiveMessagesRequest,
    ReceiveMessagesResponse,
    SendMessageRequest,
    SendMessageResponse,
)
from wireproto_chat.service.handlers import ChatApp, open_chat
from wireproto_chat.service.live import MailboxStream
from wireproto_chat.service.passwords import Passwords
from wireproto_chat.service.rates import Rate

PASSWORD = "correct horse battery"
WAIT = 10.0
"""Seconds a test waits for what must come at once."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """A wall clock, and the steady one beside it: both stand still until time passes."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0
        self.passed = 5000.0

    def __call__(self) -> float:
        return self.seconds

    def steady(self) -> float:
        return self.passed

    def move(self, *, days: float = 0, seconds: float = 0) -> None:
        """Time passes."""
        self.seconds += days * 86_400 + seconds
        self.passed += days * 86_400 + seconds

    def set(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self.seconds = seconds


class FakeContext(Context):
    """One connection: it stays signed in from call to call, as a real one does."""

    __slots__ = ("cancelled", "deadline", "from_", "identity", "metadata")

    def __init__(self, key: bytes = b"", identity: Identity | None = None) -> None:
        self.metadata = Metadata(idempotency_key=key)
        self.identity = identity
        self.deadline = None
        self.cancelled = False
        self.from_ = "127.0.0.1:1"

    @property
    def peer(self) -> str:
        return self.from_

    @property
    def codec(self) -> str:
        return "fake"

    @property
    def version(self) -> int:
        return CHAT.version

    @property
    def method(self) -> "Method[Any, Any] | StreamMethod[Any, Any]":
        return LOG_IN

    @property
    def draining(self) -> bool:
        return False

    def set_metadata(self, name: str, value: str) -> None:
        pass

    def sign_in(self, identity: Identity) -> None:
        self.identity = identity

    def sign_out(self) -> None:
        self.identity = None


class Chat:
    """A chat over a store of its own, with a hand on its clock."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        passwords: Passwords | None = None,
        free: Callable[[Path], int] = lambda _: 2**40,
        rates: Mapping[str, Rate] = MappingProxyType({}),
    ) -> None:
        self.clock = clock
        self.fatal: list[OSError] = []
        self.app: ChatApp = open_chat(
            str(path),
            clock=clock,
            steady=clock.steady,
            passwords=passwords or Passwords(hasher=QUICK),
            on_fatal=self.fatal.append,
            free=free,
            rates=rates,
        )

    def start(self, method: "Method[Req, Resp]", request: Req, context: Context) -> "Future[Resp]":
        """Call a handler; its answer as a future, whichever kind it gave."""
        handler = self.app.handlers.handler(method)
        assert handler is not None
        answer = handler(request, context)
        if not isinstance(answer, Future):
            done: Future[Resp] = Future()
            done.set_result(answer)
            return done
        return answer

    def call(self, method: "Method[Req, Resp]", request: Req, context: Context) -> Resp:
        return self.start(method, request, context).result(WAIT)

    def refused(self, method: "Method[Req, Resp]", request: Req, context: Context) -> CallError:
        """The error of a call that must fail."""
        try:
            answer = self.call(method, request, context)
        except CallError as error:
            return error
        raise AssertionError(f"{method.name} answered {answer!r} instead of failing")

    def account(self, name: str) -> FakeContext:
        """A new account, signed in on a connection of its own."""
        self.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD), FakeContext())
        context = FakeContext()
        self.log_in(name, context)
        return context

    def log_in(self, name: str, context: Context, *, token: str = "") -> LogInResponse:
        request = LogInRequest(username=name, password="" if token else PASSWORD, token=token)
        return self.call(LOG_IN, request, context)

    def log_out(self, context: Context) -> None:
        self.call(LOG_OUT, LogOutRequest(), context)

    def send(self, context: FakeContext, to: str, text: str, key: bytes = b"") -> SendMessageResponse:
        request = SendMessageRequest(recipient=to, text=text)
        return self.call(SEND_MESSAGE, request, FakeContext(key, context.identity))

    def filled(self, count: int) -> tuple[FakeContext, FakeContext]:
        """Ann and Bob, to whom she has sent so many messages: "1", "2", "3"."""
        ann, bob = self.account("ann"), self.account("bob")
        for number in range(1, count + 1):
            self.send(ann, "bob", str(number))
        return ann, bob

    def acknowledge(self, context: FakeContext, sequence: int) -> AcknowledgeResponse:
        return self.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=sequence), context)

    def pop(self, context: FakeContext, limit: int = 0) -> list[str]:
        """The texts of the page that was taken."""
        page = self.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=limit), context)
        return [message.text for message in page.messages]

    def receive(self, context: FakeContext, *, after: int = 0) -> "Reader":
        handler = self.app.handlers.handler(RECEIVE_MESSAGES)
        assert handler is not None
        return Reader(self, context, handler(ReceiveMessagesRequest(after=after), context))

    def close(self) -> None:
        assert self.app.close(WAIT)


class Reader:
    """Takes from a stream as the server does."""

    def __init__(self, chat: Chat, owner: FakeContext, stream: MailboxStream) -> None:
        self.stream = stream
        self.woken = threading.Event()
        stream.wake = self.woken.set
        self._chat = chat
        self._owner = owner

    def take(self, most: int = 1000) -> list[ReceiveMessagesResponse]:
        with self.stream.giving:
            return list(self.stream.take(most))

    def texts(self, most: int = 1000) -> list[str]:
        return [item.text for item in self.take(most)]

    def acknowledge(self, sequence: int) -> None:
        """As the stream's owner, by a call."""
        self._chat.acknowledge(self._owner, sequence)

    def close(self) -> None:
        self.stream.close("test")
