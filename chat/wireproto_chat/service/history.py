"""Conversations: what two accounts sent each other, and taking a message of it back."""

from collections.abc import Callable

from wireproto import CallError, Status
from wireproto_chat.opcodes import (
    PAGE_LIMIT,
    ConversationMessage,
    DeleteMessageResponse,
    ListConversationRequest,
    ListConversationResponse,
)
from wireproto_chat.service.mailboxes import MESSAGE_BYTES, PAGE_BYTES, moment, signed_out, text_of
from wireproto_chat.service.sessions import ChatIdentity
from wireproto_chat.store.store import Store
from wireproto_chat.store.transaction import Transaction
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
    rows = list(store.rows(sql.conversation_oldest if request.oldest_first else sql.conversation_newest, *parameters))
    rows.sort(key=lambda row: int(row[0]), reverse=not request.oldest_first)
    names = {me: caller.subject, other: request.username}
    page: list[ConversationMessage] = []
    room = PAGE_BYTES
    for position, sequence, message_id, recipient_id, sender_id, sent_at, body in rows[:limit]:
        try:
            text = "" if body is None else text_of(sequence, body)
        except CallError:
            if not page:
                raise
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
                text=text,
                sent_at=moment(sent_at),
                deleted=body is None,
            )
        )
    return ListConversationResponse(messages=page, more=len(page) < len(rows))


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
            row = tx.one(tx.sql.message_at, box.account_id, self._sequence)
        if box is None or row is None or self._caller.account_id not in (box.account_id, row[0]):
            # Other people's messages do not exist, as far as the caller can tell.
            raise CallError(
                Status.NOT_FOUND,
                "UNKNOWN_MESSAGE",
                "you neither sent nor received such a message; name the account it was sent to, and its sequence there",
            )
        self._recipient_id = box.account_id
        if not row[2]:
            tx.run(tx.sql.message_clear, box.account_id, self._sequence)
            if self._sequence > box.acked:
                box.deleted += 1
        return DeleteMessageResponse()

    def committed(self, result: DeleteMessageResponse) -> None:
        self._deleted(self._recipient_id)
