"""Mailboxes: putting a message into one, and taking messages out of it a page at a time."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from wireproto import CallError, Status
from wireproto_chat.opcodes import (
    PAGE_LIMIT,
    AcknowledgeResponse,
    ChatMessage,
    PopUndeliveredResponse,
    SendMessageResponse,
)
from wireproto_chat.service.sessions import ChatIdentity
from wireproto_chat.store.expiry import KEY_STEP
from wireproto_chat.store.failures import damaged
from wireproto_chat.store.sums import MESSAGE
from wireproto_chat.store.transaction import IdempotencyKey, KnownKey, Mailbox, Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = [
    "LONGEST_READ",
    "MAX_TEXT",
    "MESSAGE_BYTES",
    "PAGE_BYTES",
    "AcknowledgeThrough",
    "AppendMessage",
    "StoredMessage",
    "TakePage",
    "has_room",
    "moment",
    "next_message",
    "repeated",
    "signed_out",
    "unreadable",
]

MAX_TEXT = 16_384
"""Bytes of UTF-8 in one message."""

MAILBOX_MESSAGES = 10_000
"""Undelivered messages in one mailbox."""

MAILBOX_BYTES = 64 * 1024 * 1024
"""... and bytes of their texts."""

PAGE_BYTES = 60_000
"""What one page may come to: it fits a frame of 64 KiB, and with it every client that took the message's sender. A page
that the client refused would be lost, for it is acknowledged already."""

MESSAGE_BYTES = 160
"""... counting this much for what is not text, and each byte of text as four, which is what pipe makes of some."""

LONGEST_READ = 1_000
"""Rows that are read at once where many were deleted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int) -> datetime:
    """A stored time as a datetime, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


def unreadable(sequence: int) -> CallError:
    """What whoever reads a mailbox is told at a message that is missing, or is not what was stored."""
    return damaged(f"message {sequence} cannot be read; delete that message, or read on behind it")


class StoredMessage(NamedTuple):
    """A message of a mailbox that is what was stored.

    Attributes:
        body: its text in UTF-8; None once it was deleted.
        bytes_through: bytes of text up to it, itself included.
    """

    sequence: int
    message_id: bytes
    sender_id: int
    sent_at: int
    bytes_through: int
    body: bytes | None

    @property
    def text(self) -> str:
        """Its text, empty when it was deleted."""
        return (self.body or b"").decode()


def next_message(owner_id: int, row: Sequence[Any], sequence: int) -> StoredMessage:
    """The message that must come next in a mailbox, from its row.

    Args:
        owner_id: whose mailbox.
        row: as it was read.
        sequence: the next one.

    Raises:
        CallError: STORE_FAILED, DATA_LOSS: it is another one, or is not what was stored.
    """
    _, mailbox_id, found, message_id, sender_id, sent_at, bytes_through, body, _ = row
    if found != sequence or mailbox_id != owner_id or not MESSAGE.holds(row):
        raise unreadable(sequence)
    return StoredMessage(sequence, message_id, sender_id, sent_at, bytes_through, body)


def as_message(message: StoredMessage, names: Mapping[int, str]) -> ChatMessage:
    """A message as a page gives it.

    Raises:
        CallError: STORE_FAILED, DATA_LOSS: who sent it cannot be read.
    """
    sender = names.get(message.sender_id)
    if sender is None:
        raise unreadable(message.sequence)
    return ChatMessage(
        sequence=message.sequence,
        message_id=message.message_id,
        sender=sender,
        text=message.text,
        sent_at=moment(message.sent_at),
    )


def signed_out() -> CallError:
    """What a call is told whose session ended while it waited."""
    return CallError(Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED", "this session has ended; log in again")


def key_conflict() -> CallError:
    """What a call is told whose key was used for something else."""
    return CallError(
        Status.ALREADY_EXISTS,
        "KEY_CONFLICT",
        "this idempotency key was used for another message; use a fresh key for each message",
    )


def repeated(tx: Transaction, lookup: IdempotencyKey, known: KnownKey, request_hash: bytes) -> None:
    """A key was used again, which is right if it is for the same: keep it longer.

    Raises:
        CallError: KEY_CONFLICT; STORE_FAILED, DATA_LOSS: what was answered is not what was stored.
    """
    if known.refusal is not None:
        raise known.refusal
    if known.request_hash != request_hash:
        raise key_conflict()
    if tx.age - known.used_age >= KEY_STEP:
        tx.touch_key(lookup, known)


def has_room(box: Mailbox, size: int) -> bool:
    """Whether one more message of so many bytes is within the mailbox's quota."""
    return box.undelivered < MAILBOX_MESSAGES and box.bytes_in - box.bytes_acked + size <= MAILBOX_BYTES


class AppendMessage(WriteJob[SendMessageResponse]):
    """Puts one message into a mailbox.

    Args:
        sender: whose session sends it.
        recipient: the name of the account it goes to.
        body: its text in UTF-8.
        key: the idempotency key; empty for none.
    """

    __slots__ = ("_body", "_hash", "_recipient", "_sender")

    def __init__(self, sender: ChatIdentity, recipient: str, body: bytes, key: bytes) -> None:
        super().__init__(lookup=(sender.account_id, key) if key else None)
        self._sender = sender
        self._recipient = recipient
        self._body = body
        # No name holds a NUL, so two different requests never read the same.
        self._hash = hashlib.blake2b(recipient.encode() + b"\0" + body, digest_size=16).digest() if key else b""

    def apply(self, tx: Transaction) -> SendMessageResponse:
        if self._sender.revoked:
            raise signed_out()
        if self.lookup is not None and (known := tx.known.get(self.lookup)) is not None:
            return self._repeated(tx, self.lookup, known)
        box = tx.mailbox(self._recipient)
        if box is None:
            raise CallError(
                Status.NOT_FOUND,
                "UNKNOWN_RECIPIENT",
                f"there is no account {self._recipient[:32]!r}; list the accounts to see who there is",
            )
        if not has_room(box, len(self._body)):
            raise CallError(
                Status.RESOURCE_EXHAUSTED,
                "MAILBOX_FULL",
                f"the mailbox of {box.name} is full ({box.undelivered} messages wait); "
                "send again when some of them were received",
                retry_after_ms=60_000,
            )
        message_id, sequence = tx.append(box, self._sender.account_id, self._body)
        if self.lookup is not None:
            tx.remember(self.lookup, self._hash, message_id, sequence)
        return SendMessageResponse(message_id=message_id, sequence=sequence)

    def _repeated(self, tx: Transaction, lookup: IdempotencyKey, known: KnownKey) -> SendMessageResponse:
        repeated(tx, lookup, known, self._hash)
        return SendMessageResponse(message_id=known.message_id, sequence=known.sequence, duplicate=True)


class AcknowledgeThrough(WriteJob[AcknowledgeResponse]):
    """Acknowledges a mailbox up to a sequence; never moves it back.

    Args:
        owner: whose mailbox.
        sequence: of the last message dealt with.
        given: the sequence up to which an account's mailbox was given out, as far as this process knows.
        acknowledged: called with (account id, sequence) of how far it is, once that is durable.
    """

    __slots__ = ("_acknowledged", "_given", "_owner", "_sequence")

    def __init__(
        self,
        owner: ChatIdentity,
        sequence: int,
        *,
        given: Callable[[int], int],
        acknowledged: Callable[[int, int], None],
    ) -> None:
        super().__init__()
        self._owner = owner
        self._sequence = sequence
        self._given = given
        self._acknowledged = acknowledged

    def apply(self, tx: Transaction) -> AcknowledgeResponse:
        box = tx.mailbox(self._owner.account_id)
        if box is None or self._owner.revoked:
            raise signed_out()
        if not 0 <= self._sequence <= box.head:
            raise self._refusal(f"there is no message {self._sequence} in this mailbox, its newest is {box.head}")
        if self._sequence > box.acked:
            tx.flush()
            row = tx.one(tx.sql.message_at, box.account_id, self._sequence)
            if row is None:
                raise unreadable(self._sequence)
            # What is older than this process may have been delivered by the one before it; nobody remembers.
            if self._sequence > self._given(box.account_id) and row[0] > tx.inherited:
                raise self._refusal(f"message {self._sequence} was not delivered to anybody yet")
            tx.acknowledge(box, self._sequence, row[6])
        return AcknowledgeResponse(acknowledged=box.acked, undelivered=box.undelivered)

    def _refusal(self, why: str) -> CallError:
        return CallError(
            Status.OUT_OF_RANGE,
            "ACKNOWLEDGED_TOO_MUCH",
            f"{why}; acknowledge the sequence of a message that ReceiveMessages gave",
        )

    def committed(self, result: AcknowledgeResponse) -> None:
        self._acknowledged(self._owner.account_id, result.acknowledged)


class TakePage(WriteJob[PopUndeliveredResponse]):
    """Takes the oldest undelivered messages of a mailbox and acknowledges them.

    Args:
        owner: whose mailbox.
        limit: messages at most; 0 for a full page.
        acknowledged: called with (account id, sequence) of the last one taken, once that is durable.
    """

    __slots__ = ("_acknowledged", "_limit", "_owner")

    def __init__(self, owner: ChatIdentity, limit: int, acknowledged: Callable[[int, int], None]) -> None:
        super().__init__()
        self._acknowledged = acknowledged
        self._owner = owner
        self._limit = limit or PAGE_LIMIT

    def apply(self, tx: Transaction) -> PopUndeliveredResponse:
        box = tx.mailbox(self._owner.account_id)
        if box is None or self._owner.revoked:
            raise signed_out()
        messages: list[ChatMessage] = []
        if box.undelivered:
            tx.flush()
            messages, bytes_through = self._page(tx, box)
            if messages:
                tx.acknowledge(box, messages[-1].sequence, bytes_through)
        return PopUndeliveredResponse(messages=messages, remaining=box.undelivered)

    def _page(self, tx: Transaction, box: Mailbox) -> tuple[list[ChatMessage], int]:
        """As many messages as fit, up to one that is damaged; and ``bytes_through`` of the last of them."""
        messages: list[ChatMessage] = []
        room, acknowledged, after = PAGE_BYTES, 0, box.acked
        most = self._limit
        try:
            while after < box.head and len(messages) < self._limit:
                rows = tx.raw(tx.sql.messages_after, box.account_id, after, most)
                names = tx.name_of([row[4] for row in rows])
                for row in rows:
                    message = next_message(box.account_id, row, after + 1)
                    after = message.sequence
                    if message.body is None:
                        continue
                    item = as_message(message, names)
                    room -= MESSAGE_BYTES + 4 * len(message.body)
                    if messages and (room < 0 or len(messages) == self._limit):
                        return messages, acknowledged
                    messages.append(item)
                    acknowledged = message.bytes_through
                if not rows:
                    raise unreadable(after + 1)
                # What was read was deleted, all or in part; that may be so of very many.
                most = min(4 * most, LONGEST_READ)
        except CallError:
            if not messages:
                raise
        return messages, acknowledged

    def committed(self, result: PopUndeliveredResponse) -> None:
        if result.messages:
            self._acknowledged(self._owner.account_id, result.messages[-1].sequence)
