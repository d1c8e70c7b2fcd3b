"""Broadcasts: one text to every account that matches a pattern, in one transaction."""

import hashlib
import struct

from wireproto import CallError, Status
from wireproto_chat.opcodes import BROADCAST_LIMIT, BroadcastResponse
from wireproto_chat.service.accounts import ROW_BUDGET, accounts_of, matching
from wireproto_chat.service.mailboxes import has_room, repeated, signed_out
from wireproto_chat.service.sessions import ChatIdentity
from wireproto_chat.store.store import Store
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob
from wireproto_chat.wildcard import Pattern

__all__ = ["AppendBroadcast", "audience"]

# What a key remembers of a broadcast, in the place of a message id: both counts.
_COUNTS = struct.Struct(">QQ")


def audience(store: Store, pattern: Pattern) -> list[int]:
    """The ids of the live accounts whose name matches.

    Raises:
        CallError: TOO_MANY_RECIPIENTS: more than one broadcast goes to, or more names to look at than one call may.
    """
    found: list[int] = []
    after = ""
    for rows in matching(store, pattern, ""):
        for account_id, name, *_ in accounts_of(store, rows.found):
            found.append(account_id)
            if len(found) > BROADCAST_LIMIT:
                raise _too_many(f"more than {BROADCAST_LIMIT} accounts match")
            after = name
        if not rows.last and rows.looked_at >= ROW_BUDGET:
            raise _too_many(f"more than {ROW_BUDGET} names would have to be looked at, past {after!r}")
    return found


def _too_many(why: str) -> CallError:
    return CallError(
        Status.RESOURCE_EXHAUSTED,
        "TOO_MANY_RECIPIENTS",
        f"{why}, nothing was sent; begin the pattern with more letters before its first star",
    )


class AppendBroadcast(WriteJob[BroadcastResponse]):
    """Puts one text into many mailboxes.

    Args:
        sender: whose session sends it; does not get it.
        pattern: what it was addressed to.
        recipients: the accounts that are, by id; those deleted since are left out.
        body: the text in UTF-8.
        key: the idempotency key; empty for none.
    """

    __slots__ = ("_body", "_hash", "_recipients", "_sender")

    def __init__(self, sender: ChatIdentity, pattern: str, recipients: list[int], body: bytes, key: bytes) -> None:
        super().__init__(lookup=(sender.account_id, key) if key else None)
        self._sender = sender
        self._recipients = recipients
        self._body = body
        # With a name of its own, so that no SendMessage has the same hash.
        content = pattern.encode() + b"\0" + body
        self._hash = hashlib.blake2b(content, digest_size=16, person=b"broadcast").digest()

    def apply(self, tx: Transaction) -> BroadcastResponse:
        if self._sender.revoked:
            raise signed_out()
        if self.lookup is not None and (known := tx.known.get(self.lookup)) is not None:
            repeated(tx, self.lookup, known, self._hash)
            sent, full = _COUNTS.unpack(known.message_id)
            return BroadcastResponse(recipients=sent, full=full, duplicate=True)
        sent = full = 0
        for account_id in self._recipients:
            box = None if account_id == self._sender.account_id else tx.mailbox(account_id)
            if box is None:
                continue
            if has_room(box, len(self._body)):
                tx.append(box, self._sender.account_id, self._body)
                sent += 1
            else:
                full += 1
        if self.lookup is not None:
            tx.remember(self.lookup, self._hash, _COUNTS.pack(sent, full), 0)
        return BroadcastResponse(recipients=sent, full=full)
