"""Conversations: what two accounts sent each other, and taking a message of it back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wireproto import CallError, Status
from wireproto_chat.opcodes import (
    PAGE_LIMIT,
    ConversationMessage,
    DeleteMessageResponse,
    ListConversationRequest,
    ListConversationResponse,
)
from wireproto_chat.service.mailboxes import MESSAGE_BYTES, PAGE_BYTES, moment, signed_out
from wireproto_chat.service.sessions import ChatIdentity
from wireproto_chat.store.failures import damaged
from wireproto_chat.store.store import Store
from wireproto_chat.store.sums import MESSAGE
from wireproto_chat.store.transaction import Mailbox, Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = ["ClearMessage", "list_conversation"]

_NO_BOUND = 2**63 - 1


def list_conversation(store: Store, caller: ChatIdentity, request: ListConversationRequest) -> ListConversationResponse:
    """One page of what the caller and another account sent each other.

    Raises:
        CallError: UNKNOWN_ACCOUNT.
    """
    account = store.one(store.sql.account_by_name, request.username)
    if account is None:
        raise CallError(
            Status.NOT_FOUND,
            "UNKNOWN_ACCOUNT",
            f"there is no account {request.username[:32]!r}; list the accounts to see who there is",
        )
    me, other = caller.account_id, int(account[0])
    limit = request.limit or PAGE_LIMIT
    # One more than asked for shows whether there is more.
    bounds = (request.after, request.before or _NO_BOUND, limit + 1)
    # The other direction of notes to oneself is the same one; no message has the sender 0.
    parameters = (me, other, *bounds, other, 0 if other == me else me, *bounds)
    sql = store.sql
    query = sql.conversation_oldest if request.oldest_first else sql.conversation_newest
    rows = list(store.raw(query, *parameters))
    rows.sort(key=lambda row: int(row[0]), reverse=not request.oldest_first)
    names = {me: caller.subject, other: request.username}
    page: list[ConversationMessage] = []
    room = PAGE_BYTES
    for row in rows[:limit]:
        position, recipient_id, sequence, message_id, sender_id, sent_at, _, body, _ = row
        if not MESSAGE.holds(row) or {sender_id, recipient_id} - names.keys():
            if not page:
                raise _unreadable(store, row, names)
            break
        room -= MESSAGE_BYTES + 4 * len(body or b"")
        if page and room < 0:
            break
        page.append(
            ConversationMessage(
                position=position,
                sequence=sequence,
                message_id=message_id,
                sender=names[sender_id],
                recipient=names[recipient_id],
                text=(body or b"").decode(),
                sent_at=moment(sent_at),
                deleted=body is None,
            )
        )
    return ListConversationResponse(messages=page, more=len(page) < len(rows))


def _unreadable(store: Store, row: Sequence[Any], names: Mapping[int, str]) -> CallError:
    """What the reader of a conversation is told at a message that is not what was stored.

    Anything may be wrong in its row. Its number is told if another index leads from it to the same row.
    """
    position, mailbox_id, sequence, *_ = row
    there = store.raw(store.sql.message_at, mailbox_id, sequence)
    if mailbox_id in names and [each[0] for each in there] == [position]:
        return damaged(f"message {sequence} to {names[mailbox_id]} cannot be read; delete that message to read on")
    return damaged("a message of this conversation cannot be read; read on behind it")


class ClearMessage(WriteJob[DeleteMessageResponse]):
    """Deletes the text of a message that the caller sent or received.

    Args:
        caller: who wants it.
        recipient: whose mailbox it is in, by name.
        sequence: its place there.
        deleted: called with the recipient's account id once it is gone.
    """

    __slots__ = ("_caller", "_deleted", "_recipient", "_recipient_id", "_sequence")

    def __init__(self, caller: ChatIdentity, recipient: str, sequence: int, *, deleted: Callable[[int], None]) -> None:
        super().__init__()
        self._caller = caller
        self._recipient = recipient
        self._recipient_id = 0
        self._sequence = sequence
        self._deleted = deleted

    def apply(self, tx: Transaction) -> DeleteMessageResponse:
        if self._caller.revoked:
            raise signed_out()
        box = tx.mailbox(self._recipient)
        row = None
        if box is not None and 0 < self._sequence <= box.head:
            tx.flush()
            found = tx.raw(tx.sql.message_at, box.account_id, self._sequence)
            if not found or not MESSAGE.holds(found[0]):
                self._clear_damaged(tx, box, found)
                return DeleteMessageResponse()
            row = found[0]
        if box is None or row is None or self._caller.account_id not in (box.account_id, row[4]):
            # Other people's messages do not exist, as far as the caller can tell.
            raise CallError(
                Status.NOT_FOUND,
                "UNKNOWN_MESSAGE",
                "you neither sent nor received such a message; name the account it was sent to, and its sequence there",
            )
        self._recipient_id = box.account_id
        if row[7] is not None:
            tx.clear_message(box, row)
        return DeleteMessageResponse()

    def _clear_damaged(self, tx: Transaction, box: Mailbox, found: Sequence[Sequence[Any]]) -> None:
        """Delete a message that is not what was stored, which only its recipient may: its sender is not known.

        Raises:
            CallError: STORE_FAILED, DATA_LOSS: the caller may not, or what leads to the message is damaged, so that
                another message might be deleted.
        """
        if found and self._caller.account_id == box.account_id:
            # The same row without the index: does it say itself that it is this message?
            rows = tx.raw(tx.sql.message_by_id, found[0][0])
            if rows and tuple(rows[0][1:3]) == (box.account_id, self._sequence):
                tx.lose_message(box, rows[0])
                self._recipient_id = box.account_id
                return
        raise damaged(f"message {self._sequence} cannot be read, and not be deleted; read on behind it")

    def committed(self, result: DeleteMessageResponse) -> None:
        self._deleted(self._recipient_id)
