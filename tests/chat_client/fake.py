"""A chat server without a network: what a session calls, answered from dictionaries in this process."""

import fnmatch
import queue
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from wireproto.chat import contract
from wireproto.errors import CallError
from wireproto.metadata import Metadata
from wireproto.schema import Message, Method, StreamMethod
from wireproto.status import Status

__all__ = ["FakeClient", "FakeServer"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"


class FakeServer:
    """Accounts and mailboxes, shared by the clients made over it."""

    def __init__(self, *names: str) -> None:
        self.passwords = dict.fromkeys(names, PASSWORD)
        self.mail: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
        self.acknowledged: dict[str, int] = dict.fromkeys(names, 0)
        self.streams: dict[str, list[queue.SimpleQueue[object]]] = {}
        self._every: list[queue.SimpleQueue[object]] | None = []
        self.opened = threading.Condition()
        """Notified when a stream was opened."""

    def post(self, sender: str, recipient: str, text: str) -> int:
        """Put a message into a mailbox, and onto the streams that are open; its sequence number."""
        self.mail[recipient].append((sender, text))
        sequence = len(self.mail[recipient])
        for stream in self.streams.get(recipient, []):
            stream.put(sequence)
        return sequence

    def end_streams(self, name: str, error: CallError | None) -> None:
        """End every stream of an account, with an error or normally."""
        for stream in self.streams.pop(name, []):
            stream.put(error)

    def open_stream(self, name: str) -> "queue.SimpleQueue[object]":
        """A queue that gets the numbers of new messages, and None or an error at its end."""
        mine: queue.SimpleQueue[object] = queue.SimpleQueue()
        with self.opened:
            if self._every is None:
                mine.put(None)
                return mine
            self._every.append(mine)
            for sequence in range(self.acknowledged[name] + 1, len(self.mail[name]) + 1):
                mine.put(sequence)
            self.streams.setdefault(name, []).append(mine)
            self.opened.notify_all()
        return mine

    def close(self) -> None:
        """End every stream that was ever opened, and those opened from now on."""
        with self.opened:
            every, self._every = self._every or [], None
        for stream in every:
            stream.put(None)


class FakeClient:
    """One connection to a `FakeServer`; the part of ``wireproto.client.Client`` that a session uses."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.user = ""
        self.closed = False
        self.keys: list[bytes] = []
        self.failures: list[Exception] = []
        """Raised by the next calls, one each."""

    def call(self, method: Method[Req, Resp], request: Req, *, metadata: Metadata | None = None) -> Resp:
        """Answer as the service does, near enough."""
        if metadata is not None:
            self.keys.append(metadata.idempotency_key)
        if self.failures:
            raise self.failures.pop(0)
        if method.requires and not self.user:
            raise CallError(Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED", "sign in first")
        return cast(Resp, getattr(self, f"_{method.opcode}")(request))

    def stream(
        self, method: StreamMethod[Req, Resp], request: Req, *, credit: int = 64, batch: int = 32
    ) -> Iterable[Resp]:
        """The undelivered messages, then live ones."""
        assert (credit, batch) == (64, 1)
        if self.failures:
            raise self.failures.pop(0)
        return cast(Iterable[Resp], self._stream(self.user, self.server.open_stream(self.user)))

    def ping(self, timeout: float | None = None) -> float:
        """Answer, or fail as the next call would."""
        if self.failures:
            raise self.failures.pop(0)
        return 0.0

    def close(self, *, drain: float = 0.0) -> None:
        """End the streams, as a server does when the writing side is shut."""
        self.closed = True
        if self.user:
            self.server.end_streams(self.user, CallError(Status.CANCELLED, "CANCELLED"))

    def _stream(self, user: str, mine: "queue.SimpleQueue[object]") -> Iterator[Any]:
        while isinstance(event := mine.get(timeout=30), int):
            sender, text = self.server.mail[user][event - 1]
            yield contract.ReceiveMessagesResponse(
                sequence=event, message_id=bytes(16), sender=sender, text=text, sent_at=NOON
            )
            self.server.acknowledged[user] = max(self.server.acknowledged[user], event)
        if isinstance(event, Exception):
            raise event

    def _0(self, request: contract.LogInRequest) -> contract.LogInResponse:
        if self.server.passwords.get(request.username) != request.password:
            raise CallError(Status.UNAUTHENTICATED, "BAD_CREDENTIALS", "the name or the password is wrong")
        self.user = request.username
        waiting = len(self.server.mail[self.user]) - self.server.acknowledged[self.user]
        return contract.LogInResponse(token="t", undelivered=waiting)

    def _1(self, request: contract.CreateAccountRequest) -> contract.CreateAccountResponse:
        if request.username in self.server.passwords:
            raise CallError(Status.ALREADY_EXISTS, "NAME_TAKEN", "taken")
        self.server.passwords[request.username] = request.password
        self.server.mail[request.username] = []
        self.server.acknowledged[request.username] = 0
        return contract.CreateAccountResponse()

    def _2(self, request: contract.WildCardRequest) -> contract.WildCardResponse:
        found = sorted(fnmatch.filter(self.server.passwords, request.pattern))
        found = [name for name in found if name > request.after]
        page = [contract.Account(username=name, online=name in self.server.streams) for name in found[:2]]
        return contract.WildCardResponse(accounts=page, next=found[1] if len(found) > 2 else "")

    def _3(self, request: contract.SendMessageRequest) -> contract.SendMessageResponse:
        if request.recipient not in self.server.passwords:
            raise CallError(Status.NOT_FOUND, "UNKNOWN_RECIPIENT", "no such account")
        sequence = self.server.post(self.user, request.recipient, request.text)
        return contract.SendMessageResponse(message_id=bytes(16), sequence=sequence)

    def _4(self, request: contract.LogOutRequest) -> contract.LogOutResponse:
        user, self.user = self.user, ""
        self.server.end_streams(user, CallError(Status.UNAUTHENTICATED, "SIGNED_OUT"))
        return contract.LogOutResponse()

    def _5(self, request: contract.DeleteAccountRequest) -> contract.DeleteAccountResponse:
        if request.username != self.user:
            raise CallError(Status.PERMISSION_DENIED, "NOT_YOUR_ACCOUNT", "only your own")
        waiting = len(self.server.mail[self.user]) - self.server.acknowledged[self.user]
        if waiting and not request.force:
            raise CallError(Status.FAILED_PRECONDITION, "UNDELIVERED_MESSAGES", f"{waiting} messages wait")
        self.server.passwords.pop(self.user)
        self._4(contract.LogOutRequest())
        return contract.DeleteAccountResponse(discarded=waiting)

    def _7(self, request: contract.PopUndeliveredRequest) -> contract.PopUndeliveredResponse:
        mail, first = self.server.mail[self.user], self.server.acknowledged[self.user]
        self.server.acknowledged[self.user] = min(first + 2, len(mail))
        page = [
            contract.ChatMessage(sequence=number, message_id=bytes(16), sender=sender, text=text, sent_at=NOON)
            for number, (sender, text) in list(enumerate(mail, 1))[first : first + 2]
        ]
        return contract.PopUndeliveredResponse(messages=page, remaining=max(len(mail) - first - 2, 0))
