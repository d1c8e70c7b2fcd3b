"""Accounts: names, making one, deleting one, listing them."""

import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from wireproto.chat.contract import (
    PAGE_LIMIT,
    Account,
    CreateAccountResponse,
    DeleteAccountResponse,
    WildCardResponse,
)
from wireproto.chat.expiry import NAME_HELD
from wireproto.chat.mailboxes import signed_out
from wireproto.chat.store import Store
from wireproto.chat.transaction import Transaction
from wireproto.chat.wildcard import Pattern
from wireproto.chat.writer import Job
from wireproto.errors import CallError
from wireproto.status import Status

__all__ = ["CreateAccount", "DeleteAccount", "check_name", "is_held", "list_accounts", "name_taken"]

_NAME = re.compile(r"[a-z0-9._-]{1,32}")

ROW_BUDGET = 10_000
"""Names that one call for a list looks at; some 15 ms of work."""

_FIRST_READ = 200
_LONGEST_READ = 2_000


def check_name(name: str) -> None:
    """Refuse what cannot be a user name.

    Raises:
        CallError: BAD_USERNAME; the text says what is accepted.
    """
    if _NAME.fullmatch(name) is None:
        raise CallError(
            Status.INVALID_ARGUMENT, "BAD_USERNAME", "a user name is 1 to 32 of a-z 0-9 . _ - (no capital letters)"
        )


def name_taken(name: str) -> CallError:
    """What somebody is told who wants a name that is in use, or was until lately."""
    return CallError(
        Status.ALREADY_EXISTS,
        "NAME_TAKEN",
        f"the name {name} is taken, or belonged to an account deleted in the last 30 days; choose another",
    )


def is_held(deleted_at: int, now: int) -> bool:
    """Whether an account, live (0) or deleted at that time, still keeps its name from others."""
    return deleted_at == 0 or now - deleted_at < NAME_HELD


class CreateAccount(Job[CreateAccountResponse]):
    """Makes an account with an empty mailbox.

    Args:
        future: the call's answer.
        name: a valid name.
        password_hash: its password, hashed.
    """

    __slots__ = ("_hash", "_name")

    def __init__(self, future: "Future[Any]", name: str, password_hash: str) -> None:
        super().__init__(future)
        self._name = name
        self._hash = password_hash

    def apply(self, tx: Transaction) -> CreateAccountResponse:
        if any(is_held(deleted_at, tx.now) for (deleted_at,) in tx.rows(tx.sql.name_uses, self._name)):
            raise name_taken(self._name)
        account_id = tx.insert(tx.sql.account_add, self._name, self._hash, tx.now, 0)
        for statement, parameters in tx.sql.mailboxes_write.chunks((account_id, 0, 0, 0, 0)):
            tx.run(statement, *parameters)
        return CreateAccountResponse()


class DeleteAccount(Job[DeleteAccountResponse]):
    """Deletes an account, its mailbox and its sessions; its id and, for a while, its name stay taken.

    Args:
        account_id: which.
        force: also when messages wait in it.
        ended: called once it is gone.
    """

    __slots__ = ("_account_id", "_ended", "_force")

    def __init__(self, account_id: int, *, force: bool, ended: Callable[[], None]) -> None:
        super().__init__()
        self._account_id = account_id
        self._force = force
        self._ended = ended

    def apply(self, tx: Transaction) -> DeleteAccountResponse:
        box = tx.mailbox(self._account_id)
        if box is None:
            raise signed_out()
        waiting = box.undelivered
        if waiting and not self._force:
            raise CallError(
                Status.FAILED_PRECONDITION,
                "UNDELIVERED_MESSAGES",
                f"{waiting} undelivered message{'s' if waiting > 1 else ''} would be lost; "
                "receive them first, or delete with force",
            )
        # What this transaction has put into the mailbox must be there to be deleted.
        tx.flush()
        sql = tx.sql
        for statement in (sql.messages_drop, sql.mailbox_drop, sql.sessions_drop):
            tx.run(statement, self._account_id)
        tx.run(sql.account_bury, tx.now, self._account_id)
        tx.forget(box)
        return DeleteAccountResponse(discarded=waiting)

    def committed(self, result: DeleteAccountResponse) -> None:
        self._ended()


def list_accounts(
    store: Store, online: Callable[[int], bool], pattern: Pattern, after: str, limit: int
) -> WildCardResponse:
    """One page of the live accounts whose name matches, in the order of their names.

    An account that exists all the while is on exactly one page, whatever comes and goes beside it: a page begins behind
    the last name looked at, not at a position.

    Args:
        store: where the accounts are.
        online: whether an account, by id, is.
        pattern: what to match.
        after: the last name looked at for the page before; empty for the first.
        limit: accounts at most; 0 for a full page.
    """
    limit = limit or PAGE_LIMIT
    found: list[Account] = []
    first = pattern.first
    if after >= first:
        # A space sorts before everything a name may hold, so this is the first name behind `after`.
        first = after + " " if after else ""
    budget = ROW_BUDGET
    most = _FIRST_READ
    while budget > 0:
        most = min(most, budget)
        rows = store.rows(store.sql.names, first, pattern.end, most)
        for name, account_id in rows:
            if pattern.matches(name):
                if len(found) == limit:
                    return WildCardResponse(accounts=found, next=found[-1].username)
                found.append(Account(username=name, online=online(account_id)))
        if len(rows) < most:
            return WildCardResponse(accounts=found, next="")
        first = rows[-1][0] + " "
        budget -= most
        most = min(most * 4, _LONGEST_READ)
    return WildCardResponse(accounts=found, next=first[:-1])
