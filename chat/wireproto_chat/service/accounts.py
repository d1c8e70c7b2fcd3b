"""Accounts: names, making one, deleting one, listing them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from wireproto import CallError, Status
from wireproto_chat.opcodes import (
    NAME,
    PAGE_LIMIT,
    Account,
    ChangePasswordResponse,
    CreateAccountResponse,
    DeleteAccountResponse,
    WhoAmIResponse,
    WildCardResponse,
)
from wireproto_chat.service.mailboxes import moment, signed_out
from wireproto_chat.service.sessions import ChatIdentity, changed_meanwhile
from wireproto_chat.store.expiry import NAME_HELD
from wireproto_chat.store.failures import damaged
from wireproto_chat.store.store import Store
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob
from wireproto_chat.wildcard import Pattern

__all__ = [
    "ROW_BUDGET",
    "CreateAccount",
    "DeleteAccount",
    "Matches",
    "ReplacePassword",
    "accounts_of",
    "check_name",
    "describe",
    "is_held",
    "list_accounts",
    "matching",
    "name_taken",
]

ROW_BUDGET = 10_000
"""Names that one call for a list looks at; some 15 ms of work."""

_FIRST_READ = 200
_LONGEST_READ = 2_000


def check_name(name: str) -> None:
    """Refuse what cannot be a user name.

    Raises:
        CallError: BAD_USERNAME; the text says what is accepted.
    """
    if NAME.fullmatch(name) is None:
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


def is_held(account: Sequence[Any], age: int) -> bool:
    """Whether an account, by its row, still keeps its name from others at this age of the store."""
    deleted_age = int(account[4])
    return deleted_age == 0 or age - deleted_age < NAME_HELD


class CreateAccount(WriteJob[CreateAccountResponse]):
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
        if any(is_held(account, tx.age) for account in tx.rows(tx.sql.name_uses, self._name)):
            raise name_taken(self._name)
        tx.need_room()
        tx.add_account(self._name, self._hash)
        return CreateAccountResponse()


class DeleteAccount(WriteJob[DeleteAccountResponse]):
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
        sql = tx.sql
        account = tx.one(sql.account_by_id, self._account_id)
        if account is None:
            raise signed_out()
        # What this transaction has put into the mailbox must be there to be deleted.
        tx.flush()
        for statement in (sql.messages_drop, sql.mailbox_drop, sql.sessions_drop):
            tx.run(statement, self._account_id)
        tx.change_account(account, deleted_age=tx.age)
        tx.forget(box)
        return DeleteAccountResponse(discarded=waiting)

    def committed(self, result: DeleteAccountResponse) -> None:
        self._ended()


class ReplacePassword(WriteJob[ChangePasswordResponse]):
    """Stores another password's hash and drops every session of the account but the caller's.

    Args:
        future: the call's answer.
        caller: whose password, and the session that stays.
        old_hash: the old password's hash, as it was verified.
        new_hash: the new one's.
        guess: what failed tries are stored under, if there are any; they are forgotten.
        ended: called once the others are gone.
    """

    __slots__ = ("_caller", "_ended", "_guess", "_new_hash", "_old_hash")

    def __init__(
        self,
        future: "Future[Any]",
        caller: ChatIdentity,
        *,
        old_hash: str,
        new_hash: str,
        guess: tuple[str, str] | None,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(future)
        self._caller = caller
        self._old_hash = old_hash
        self._new_hash = new_hash
        self._guess = guess
        self._ended = ended

    def apply(self, tx: Transaction) -> ChangePasswordResponse:
        sql, account_id = tx.sql, self._caller.account_id
        row = tx.one(sql.account_by_id, account_id)
        if row is None or self._caller.revoked:
            raise signed_out()
        if row[2] != self._old_hash:
            raise changed_meanwhile()
        tx.change_account(row, password_hash=self._new_hash)
        if self._guess is not None:
            tx.run(sql.guesses_drop, *self._guess)
        return ChangePasswordResponse(
            sessions_ended=tx.run(sql.sessions_drop_others, account_id, self._caller.token_hash)
        )

    def committed(self, result: ChangePasswordResponse) -> None:
        self._ended()


def describe(store: Store, caller: ChatIdentity) -> WhoAmIResponse:
    """The caller's account, and how its mailbox stands."""
    account = store.one(store.sql.account_by_id, caller.account_id)
    box = store.one(store.sql.mailbox_by_id, caller.account_id)
    if account is None or box is None:
        raise signed_out()
    _, head, acked, _, _, deleted, *_ = box
    return WhoAmIResponse(
        username=caller.subject,
        created_at=moment(account[3]),
        sessions=len(store.rows(store.sql.sessions_of, caller.account_id)),
        acknowledged=acked,
        last_sequence=head,
        undelivered=head - acked - deleted,
    )


class Matches(NamedTuple):
    """The matches among the names that one read looked at, which ``accounts_of`` has yet to look at.

    Attributes:
        found: (name, account id) of each, as an index has them.
        reached: the last name looked at; empty when there was none.
        looked_at: names looked at so far, by all reads.
        last: whether no name lies behind them.
    """

    found: list[Sequence[Any]]
    reached: str
    looked_at: int
    last: bool


def matching(store: Store, pattern: Pattern, after: str) -> Iterator[Matches]:
    """The live accounts behind ``after`` whose name matches, in the order of their names, read by read, until
    ``ROW_BUDGET`` names were looked at."""
    first = pattern.first
    if after >= first:
        # A space sorts before everything a name may hold, so this is the first name behind `after`.
        first = after + " " if after else ""
    looked_at = 0
    most = _FIRST_READ
    last = False
    while not last and looked_at < ROW_BUDGET:
        most = min(most, ROW_BUDGET - looked_at)
        rows = store.rows(store.sql.names, first, pattern.end, most)
        looked_at += len(rows)
        last = len(rows) < most
        reached = rows[-1][0] if rows else first
        if reached < first:
            # It would begin from there again and again.
            raise damaged("the names of the accounts are not in order")
        yield Matches([row for row in rows if pattern.matches(row[0])], reached if rows else "", looked_at, last)
        first = reached + " "
        most = min(most * 4, _LONGEST_READ)


def accounts_of(store: Store, found: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """The rows of accounts that an index has found by their names, in the same order; those deleted since are left out.

    Raises:
        CallError: STORE_FAILED, DATA_LOSS: one of them, or what the index says of it, is not what was stored.
    """
    by_id: dict[int, Sequence[Any]] = {}
    for query, parameters in store.sql.accounts_by_id.chunks([account_id for _, account_id in found]):
        by_id.update((row[0], row) for row in store.rows(query, *parameters))
    if any(account_id not in by_id or by_id[account_id][1] != name for name, account_id in found):
        raise damaged("the names of the accounts are not those of the accounts")
    return [by_id[account_id] for _, account_id in found if by_id[account_id][4] == 0]


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
    found: list[Sequence[Any]] = []
    reached = ""
    for read in matching(store, pattern, after):
        found += read.found
        reached = "" if read.last else read.reached
        if len(found) > limit:
            del found[limit:]
            reached = found[-1][0]
            break
    accounts: list[Account] = []
    for account_id, name, _, _, _, last_seen, _ in accounts_of(store, found):
        is_online = online(account_id)
        seen = store.clocks.now if is_online else last_seen
        accounts.append(Account(username=name, online=is_online, last_seen=moment(seen) if seen else None))
    return WildCardResponse(accounts=accounts, next=reached)
