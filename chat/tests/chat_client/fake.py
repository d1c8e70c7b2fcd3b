"""A chat server without a network: what a session calls, answered from dictionaries in this process."""

import fnmatch
import queue
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from wireproto import CallError, Metadata, Status
from wireproto.schema import Message, Method, StreamMethod
from wireproto_chat import opcodes

__all__ = ["PASSWORD", "FakeClient", "FakeServer", "Run"]

Run = Callable[..., subprocess.CompletedProcess[str]]
"""What the fixture ``run`` gives: ``run(lines, *options)`` runs ``wireproto chat`` by pipe to its end."""

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
        self.tokens: dict[str, str] = {}
        """Name by token; a token that is not here is good for nothing."""
        self.sent: dict[bytes, tuple[Message, Any]] = {}
        """Request and answer by idempotency key."""
        self.times: dict[str, list[int]] = {name: [] for name in names}
        """Positions of the messages in a mailbox."""
        self.deleted: set[tuple[str, int]] = set()
        self.position = 0
        self.absent: CallError | None = None
        """While this is not None nobody reaches the server."""
        self.opened = threading.Condition()
        """Notified when a stream was opened, or messages were acknowledged by a call."""

    def post(self, sender: str, recipient: str, text: str) -> int:
        """Put a message into a mailbox, and onto the streams that are open; its sequence number."""
        self.mail[recipient].append((sender, text))
        sequence = len(self.mail[recipient])
        self.position += 1
        self.times.setdefault(recipient, []).append(self.position)
        for stream in self.streams.get(recipient, []):
            stream.put(sequence)
        return sequence

    def end_streams(self, name: str, error: CallError | None) -> None:
        """End every stream of an account, with an error or normally."""
        for stream in self.streams.pop(name, []):
            stream.put(error)

    def lose(self, error: CallError, *clients: "FakeClient") -> None:
        """Cut the connections of these clients: their streams end with ``error``, and the next one is nobody's."""
        for client in clients:
            user, client.user = client.user, ""
            self.end_streams(user, error)

    def open_stream(self, name: str, after: int = 0) -> "queue.SimpleQueue[object]":
        """A queue that gets the numbers of new messages, and None or an error at its end."""
        mine: queue.SimpleQueue[object] = queue.SimpleQueue()
        with self.opened:
            if self._every is None:
                mine.put(None)
                return mine
            self._every.append(mine)
            for sequence in range(max(after, self.acknowledged[name]) + 1, len(self.mail[name]) + 1):
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
        self.asked: list[str] = []
        """The methods that were called, by name."""
        self.after: list[int] = []
        """Where each stream was asked to begin."""
        self.closed = False
        self.keys: list[bytes] = []
        self.failures: list[Exception] = []
        """Raised by the next calls, one each."""
        self.lost_answers: list[Exception] = []
        """Raised by the next calls, one each, after the server has carried them out."""

    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp:
        """Answer as the service does, near enough."""
        key = metadata.idempotency_key if metadata is not None else b""
        if metadata is not None:
            self.keys.append(key)
        self.asked.append(method.name)
        if self.server.absent is not None:
            raise self.server.absent
        if self.failures:
            raise self.failures.pop(0)
        if method.requires and not self.user:
            raise CallError(Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED", "sign in first")
        if key in self.server.sent:
            before, answer = self.server.sent[key]
            assert before == request
        else:
            answer = getattr(self, f"_{method.opcode}")(request)
        if key:
            self.server.sent[key] = (request, answer)
        if self.lost_answers:
            raise self.lost_answers.pop(0)
        return cast(Resp, answer)

    def stream(
        self, method: StreamMethod[Req, Resp], request: Req, *, credit: int = 64, batch: int = 32
    ) -> "FakeStream":
        """The undelivered messages, then live ones."""
        assert (credit, batch) == (64, 32)
        if self.server.absent is not None:
            raise self.server.absent
        if self.failures:
            raise self.failures.pop(0)
        if not self.user:
            raise CallError(Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED", "sign in first")
        after = cast(opcodes.ReceiveMessagesRequest, request).after
        self.after.append(after)
        if after > len(self.server.mail[self.user]):
            raise CallError(Status.OUT_OF_RANGE, "BAD_AFTER", "there are not so many")
        return FakeStream(self, self.server.open_stream(self.user, after))

    def ping(self, timeout: float | None = None) -> float:
        """Answer, or fail as the next call would."""
        if self.server.absent is not None:
            raise self.server.absent
        if self.failures:
            raise self.failures.pop(0)
        return 0.0

    def close(self, *, drain: float = 0.0) -> None:
        """End the streams, as a server does when the writing side is shut."""
        self.closed = True
        if self.user:
            self.server.end_streams(self.user, CallError(Status.CANCELLED, "CANCELLED"))

    def _0(self, request: opcodes.LogInRequest) -> opcodes.LogInResponse:
        if self.user:
            raise CallError(Status.FAILED_PRECONDITION, "ALREADY_SIGNED_IN", "log out first")
        if request.token:
            right = self.server.tokens.get(request.token) == request.username
        else:
            right = self.server.passwords.get(request.username) == request.password
        if not right:
            raise CallError(Status.UNAUTHENTICATED, "BAD_CREDENTIALS", "the name or the password is wrong")
        self.user = request.username
        waiting = len(self.server.mail[self.user]) - self.server.acknowledged[self.user]
        token = request.token or f"{self.user}-{len(self.server.tokens)}"
        self.server.tokens[token] = self.user
        return opcodes.LogInResponse(token=token, undelivered=waiting)

    def _1(self, request: opcodes.CreateAccountRequest) -> opcodes.CreateAccountResponse:
        if request.username in self.server.passwords:
            raise CallError(Status.ALREADY_EXISTS, "NAME_TAKEN", "taken")
        self.server.passwords[request.username] = request.password
        self.server.mail[request.username] = []
        self.server.acknowledged[request.username] = 0
        return opcodes.CreateAccountResponse()

    def _2(self, request: opcodes.WildCardRequest) -> opcodes.WildCardResponse:
        found = sorted(fnmatch.filter(self.server.passwords, request.pattern))
        found = [name for name in found if name > request.after]
        page = [
            opcodes.Account(
                username=name,
                online=bool(self.server.streams.get(name)),
                last_seen=NOON if name != "carol" else None,
            )
            for name in found[:2]
        ]
        return opcodes.WildCardResponse(accounts=page, next=found[1] if len(found) > 2 else "")

    def _3(self, request: opcodes.SendMessageRequest) -> opcodes.SendMessageResponse:
        if request.recipient not in self.server.passwords:
            raise CallError(Status.NOT_FOUND, "UNKNOWN_RECIPIENT", "no such account")
        sequence = self.server.post(self.user, request.recipient, request.text)
        return opcodes.SendMessageResponse(message_id=bytes(16), sequence=sequence)

    def _4(self, request: opcodes.LogOutRequest) -> opcodes.LogOutResponse:
        user, self.user = self.user, ""
        self.server.tokens = {token: name for token, name in self.server.tokens.items() if name != user}
        self.server.end_streams(user, CallError(Status.UNAUTHENTICATED, "SIGNED_OUT"))
        return opcodes.LogOutResponse()

    def _5(self, request: opcodes.DeleteAccountRequest) -> opcodes.DeleteAccountResponse:
        if request.username != self.user:
            raise CallError(Status.PERMISSION_DENIED, "NOT_YOUR_ACCOUNT", "only your own")
        waiting = len(self.server.mail[self.user]) - self.server.acknowledged[self.user]
        if waiting and not request.force:
            raise CallError(Status.FAILED_PRECONDITION, "UNDELIVERED_MESSAGES", f"{waiting} messages wait")
        self.server.passwords.pop(self.user)
        self._4(opcodes.LogOutRequest())
        return opcodes.DeleteAccountResponse(discarded=waiting)

    def _7(self, request: opcodes.PopUndeliveredRequest) -> opcodes.PopUndeliveredResponse:
        mail, first = self.server.mail[self.user], self.server.acknowledged[self.user]
        self.server.acknowledged[self.user] = min(first + 2, len(mail))
        page = [
            opcodes.ChatMessage(sequence=number, message_id=bytes(16), sender=sender, text=text, sent_at=NOON)
            for number, (sender, text) in list(enumerate(mail, 1))[first : first + 2]
        ]
        return opcodes.PopUndeliveredResponse(messages=page, remaining=max(len(mail) - first - 2, 0))

    def _8(self, request: opcodes.AcknowledgeRequest) -> opcodes.AcknowledgeResponse:
        before = self.server.acknowledged[self.user]
        with self.server.opened:
            self.server.acknowledged[self.user] = now = max(before, request.sequence)
            self.server.opened.notify_all()
        return opcodes.AcknowledgeResponse(acknowledged=now, undelivered=len(self.server.mail[self.user]) - now)

    def _9(self, request: opcodes.ListConversationRequest) -> opcodes.ListConversationResponse:
        if request.username not in self.server.mail:
            raise CallError(Status.NOT_FOUND, "UNKNOWN_ACCOUNT", "no such account")
        found = [
            opcodes.ConversationMessage(
                position=self.server.times[recipient][number - 1],
                sequence=number,
                message_id=bytes(16),
                sender=sender,
                recipient=recipient,
                text="" if (recipient, number) in self.server.deleted else text,
                sent_at=NOON + timedelta(minutes=number),
                deleted=(recipient, number) in self.server.deleted,
            )
            for recipient, other in {(self.user, request.username), (request.username, self.user)}
            for number, (sender, text) in enumerate(self.server.mail[recipient], 1)
            if sender == other
        ]
        found = sorted((each for each in found if not 0 < request.before <= each.position), key=lambda m: -m.position)
        limit = request.limit or 100
        return opcodes.ListConversationResponse(messages=found[:limit], more=len(found) > limit)

    def _10(self, request: opcodes.DeleteMessageRequest) -> opcodes.DeleteMessageResponse:
        mail = self.server.mail.get(request.recipient, [])
        if not 0 < request.sequence <= len(mail):
            raise CallError(Status.NOT_FOUND, "UNKNOWN_MESSAGE", "no such message")
        self.server.deleted.add((request.recipient, request.sequence))
        return opcodes.DeleteMessageResponse()

    def _11(self, request: opcodes.BroadcastRequest) -> opcodes.BroadcastResponse:
        names = [name for name in fnmatch.filter(self.server.passwords, request.pattern) if name != self.user]
        for name in names:
            self.server.post(self.user, name, request.text)
        return opcodes.BroadcastResponse(recipients=len(names), full=0)

    def _12(self, request: opcodes.ChangePasswordRequest) -> opcodes.ChangePasswordResponse:
        if self.server.passwords[self.user] != request.password:
            raise CallError(Status.UNAUTHENTICATED, "BAD_CREDENTIALS", "the password is wrong")
        self.server.passwords[self.user] = request.new_password
        return opcodes.ChangePasswordResponse(sessions_ended=2)

    def _13(self, request: opcodes.WhoAmIRequest) -> opcodes.WhoAmIResponse:
        mail, acknowledged = self.server.mail[self.user], self.server.acknowledged[self.user]
        return opcodes.WhoAmIResponse(
            username=self.user,
            created_at=NOON,
            sessions=1,
            acknowledged=acknowledged,
            last_sequence=len(mail),
            undelivered=len(mail) - acknowledged,
        )


class FakeStream:
    """One open ReceiveMessages."""

    def __init__(self, client: FakeClient, events: "queue.SimpleQueue[object]") -> None:
        self._server, self._user = client.server, client.user
        self._events = events

    def next(self, timeout: float | None = None) -> Any:
        """As ``Stream.next``."""
        try:
            event = self._events.get(timeout=30 if timeout is None else timeout)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(event, Exception):
            raise event
        if not isinstance(event, int):
            raise StopIteration
        sender, text = self._server.mail[self._user][event - 1]
        return opcodes.ReceiveMessagesResponse(
            sequence=event, message_id=bytes(16), sender=sender, text=text, sent_at=NOON
        )
