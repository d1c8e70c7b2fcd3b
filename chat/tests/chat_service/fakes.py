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
from wireproto_chat.contract import (
    CREATE_ACCOUNT,
    LOG_IN,
    LOG_OUT,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    CreateAccountRequest,
    LogInRequest,
    LogInResponse,
    LogOutRequest,
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
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, *, days: float = 0, seconds: float = 0) -> None:
        self.seconds += days * 86_400 + seconds


class FakeContext(Context):
    """One connection: it stays signed in from call to call, as a real one does."""

    __slots__ = ("_version", "cancelled", "deadline", "from_", "identity", "metadata")

    def __init__(self, key: bytes = b"", identity: Identity | None = None, *, version: int = 1) -> None:
        self.metadata = Metadata(idempotency_key=key)
        self.identity = identity
        self.deadline = None
        self.cancelled = False
        self.from_ = "127.0.0.1:1"
        self._version = version

    @property
    def peer(self) -> str:
        return self.from_

    @property
    def codec(self) -> str:
        return "fake"

    @property
    def version(self) -> int:
        return self._version

    @property
    def method(self) -> "Method[Any, Any] | StreamMethod[Any, Any]":
        return LOG_IN

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

    def account(self, name: str, *, version: int = 1) -> FakeContext:
        """A new account, signed in on a connection of its own."""
        self.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD), FakeContext())
        context = FakeContext(version=version)
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

    def receive(self, context: FakeContext, *, after: int = 0, credit: int = 64) -> "Reader":
        handler = self.app.handlers.handler(RECEIVE_MESSAGES)
        assert handler is not None
        return Reader(handler(ReceiveMessagesRequest(after=after), context), credit)

    def close(self) -> None:
        assert self.app.close(WAIT)


class Reader:
    """Takes from a stream as the server does: credit first, then as many items as it allows."""

    def __init__(self, stream: MailboxStream, credit: int) -> None:
        self.stream = stream
        self.credit = credit
        self.taken = 0
        self.woken = threading.Event()
        stream.wake = self.woken.set
        stream.credited(credit)

    def take(self, most: int = 64) -> list[ReceiveMessagesResponse]:
        with self.stream.giving:
            items = list(self.stream.take(min(most, self.credit - self.taken)))
        self.taken += len(items)
        return items

    def texts(self, most: int = 64) -> list[str]:
        return [item.text for item in self.take(most)]

    def acknowledge(self, count: int) -> None:
        self.credit += count
        self.stream.credited(self.credit)

    def close(self) -> None:
        self.stream.close("test")
