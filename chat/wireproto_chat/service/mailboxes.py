"""Mailboxes: putting a message into one, and taking messages out of it a page at a time."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

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
from wireproto_chat.store.transaction import KnownKey, Mailbox, Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = [
    "MAX_TEXT",
    "MESSAGE_BYTES",
    "PAGE_BYTES",
    "AcknowledgeThrough",
    "AppendMessage",
    "TakePage",
    "has_room",
    "key_conflict",
    "moment",
    "signed_out",
    "text_of",
    "touch_key",
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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int) -> datetime:
    """A stored time as a datetime, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


def text_of(sequence: int, body: object) -> str:
    """The text of a stored message.

    Raises:
        CallError: STORE_FAILED, DATA_LOSS: it is none.
    """
    try:
        if isinstance(body, bytes):
            return body.decode()
    except UnicodeDecodeError:
        pass  # it went in as UTF-8
    raise damaged(f"the text of message {sequence} cannot be read; delete that message to read on")


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


def touch_key(tx: Transaction, lookup: "tuple[int, bytes]", known: KnownKey) -> None:
    """A key was used again: keep it longer."""
    if tx.age - known.used_age >= KEY_STEP:
        tx.run(tx.sql.key_touch, tx.age, *lookup)


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
            return self._repeated(tx, known)
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

    def _repeated(self, tx: Transaction, known: KnownKey) -> SendMessageResponse:
        if known.request_hash != self._hash:
            raise key_conflict()
        if self.lookup is not None:
            touch_key(tx, self.lookup, known)
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
            # What is older than this process may have been delivered by the one before it; nobody remembers.
            if self._sequence > self._given(box.account_id) and (row is None or row[3] > tx.inherited):
                raise self._refusal(f"message {self._sequence} was not delivered to anybody yet")
            tx.acknowledge(box, self._sequence, box.bytes_acked if row is None else row[1])
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
            messages, bytes_through = self._page(tx.rows(tx.sql.messages_after, box.account_id, box.acked, self._limit))
            if messages:
                tx.acknowledge(box, messages[-1].sequence, bytes_through)
        return PopUndeliveredResponse(messages=messages, remaining=box.undelivered)

    def _page(self, rows: Sequence[Sequence[Any]]) -> tuple[list[ChatMessage], int]:
        """As many messages as fit, up to one that is damaged; and ``bytes_through`` of the last of them."""
        messages: list[ChatMessage] = []
        room, acknowledged = PAGE_BYTES, 0
        for sequence, message_id, sender, body, sent_at, bytes_through in rows:
            try:
                text = text_of(sequence, body)
            except CallError:
                if not messages:
                    raise
                break
            room -= MESSAGE_BYTES + 4 * len(body)
            if messages and room < 0:
                break
            messages.append(
                ChatMessage(sequence=sequence, message_id=message_id, sender=sender, text=text, sent_at=moment(sent_at))
            )
            acknowledged = bytes_through
        return messages, acknowledged

    def committed(self, result: PopUndeliveredResponse) -> None:
        if result.messages:
            self._acknowledged(self._owner.account_id, result.messages[-1].sequence)
