"""The names of accounts by their ids. An id keeps its name for ever, also when the account is deleted."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from wireproto_chat.store.sums import unsound
from wireproto_chat.store.tables import Query, Statements

__all__ = ["AccountNames"]

REMEMBERED: Final = 50_000
"""AccountNames kept in memory, some 150 bytes each; beyond it all are forgotten, and read again when next asked for."""


class AccountNames:
    """AccountNames of accounts. Any thread; two that ask for the same at once both read it."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(
        self,
        account_ids: Iterable[int],
        sql: Statements,
        read: Callable[..., Sequence[Sequence[Any]]],
    ) -> dict[int, str]:
        """The name of each of these accounts, but of those that are missing or not what was stored.

        Args:
            account_ids: in any order, and more than once if need be.
            sql: the statements.
            read: runs a query, given its parameters, and looks at nothing.
        """
        known = self._known
        found = {account_id: known[account_id] for account_id in account_ids if account_id in known}
        missing = {account_id for account_id in account_ids if account_id not in found}
        for query, parameters in sql.accounts_by_id.chunks(list(missing)):
            found.update(self._read(query, read(query, *parameters)))
        return found

    def _read(self, query: Query, rows: Sequence[Sequence[Any]]) -> dict[int, str]:
        names = {row[0]: row[1] for row in rows if unsound(query, row) is None}
        if len(self._known) >= REMEMBERED:
            self._known = {}
        self._known.update(names)
        return names
