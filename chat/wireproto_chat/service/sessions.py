"""Sessions: the tokens that log-ins answer, and the identities that carry them.

A token is 32 random bytes; the store keeps only its SHA-256. While anybody holds a session's identity (a connection, a
stream, a call) there is one object for it, so revoking that object ends the session everywhere at once.
"""

import base64
import binascii
import hashlib
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from weakref import WeakValueDictionary

from wireproto import CallError, Identity, Metadata, Retry, Status
from wireproto_chat.opcodes import LogInResponse, LogOutResponse
from wireproto_chat.store.clocks import Clocks
from wireproto_chat.store.expiry import TOKEN_IDLE, TOKEN_LIFETIME, TOKEN_STEP
from wireproto_chat.store.store import Store
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = [
    "ChatIdentity",
    "CloseSession",
    "OpenSession",
    "ResumeSession",
    "Sessions",
    "bad_credentials",
    "changed_meanwhile",
    "note_seen",
]

CAPABILITY = "account"
"""What every method but LogIn and CreateAccount requires."""

REMEMBERED = 4096
"""Identities kept although nobody holds them, for callers who send their token with every call."""


def bad_credentials() -> CallError:
    """The one answer to every log-in that fails, whatever was wrong."""
    return CallError(
        Status.UNAUTHENTICATED,
        "BAD_CREDENTIALS",
        "the user name and the password or token do not belong together; check both, or create the account first",
    )


def changed_meanwhile() -> CallError:
    """What a call is told whose password was right for a hash that was replaced while it waited."""
    return CallError(
        Status.RESOURCE_EXHAUSTED,
        "SERVER_BUSY",
        "the account changed meanwhile; try again",
        retry=Retry.NOT_PROCESSED,
        retry_after_ms=50,
    )


def new_token() -> str:
    """A fresh token, 43 characters of the URL-safe alphabet."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode("ascii")


def hash_of(token: str) -> bytes | None:
    """What the store knows a token by; None for a text that never was one."""
    if len(token) != 43 or not token.isascii():
        return None
    try:
        raw = base64.b64decode(token + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return hashlib.sha256(raw).digest()


class ChatIdentity(Identity):
    """Who holds a session.

    Attributes:
        account_id: the account's id, which is never given out twice, unlike its name.
        token_hash: what the store knows the session by.
        used_age: the store's age at the last use, as far as the store knows it.
    """

    __slots__ = ("__weakref__", "_clocks", "_end_age", "account_id", "token_hash", "used_age")

    def __init__(
        self, name: str, account_id: int, token_hash: bytes, *, end_age: int, used_age: int, clocks: Clocks
    ) -> None:
        super().__init__(name, (CAPABILITY,))
        self.account_id = account_id
        self.token_hash = token_hash
        self.used_age = used_age
        self._end_age = end_age
        self._clocks = clocks

    @property
    def revoked(self) -> bool:
        """Whether the session was ended, or has lived as long as one may; a connection does not prolong that."""
        return super().revoked or self._clocks.age >= self._end_age


class Sessions:
    """The sessions somebody uses right now. Every method may be called from any thread.

    Args:
        store: where sessions are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[bytes, ChatIdentity] = WeakValueDictionary()
        self._recent: dict[bytes, ChatIdentity] = {}
        self._ended = 0

    def authenticate(self, metadata: Metadata, peer: str) -> Identity | None:
        """Whose token the call carries, in ``authorization: Bearer <token>``; None when it is worth nothing."""
        scheme, _, token = metadata.authorization.partition(" ")
        token_hash = hash_of(token.strip(" "))
        if token_hash is None or scheme.lower() != "bearer":
            return None
        identity = self._recent.get(token_hash)
        if identity is None:
            identity = self._find(token_hash)
        if identity is None or identity.revoked or self._store.clocks.age - identity.used_age >= TOKEN_IDLE:
            return None
        self.touch(identity)
        return identity

    def hold(self, name: str, account_id: int, token_hash: bytes, opened_age: int, used_age: int) -> ChatIdentity:
        """The identity of a session that exists, always the same one."""
        with self._lock:
            identity = self._held.get(token_hash)
            if identity is None:
                identity = ChatIdentity(
                    name,
                    account_id,
                    token_hash,
                    end_age=opened_age + TOKEN_LIFETIME,
                    used_age=used_age,
                    clocks=self._store.clocks,
                )
                self._held[token_hash] = identity
            identity.used_age = max(identity.used_age, used_age)
            return identity

    def touch(self, identity: ChatIdentity) -> None:
        """The session was used: keep it from running out, with at most one write an hour."""
        age = self._store.clocks.age
        if age - identity.used_age >= TOKEN_STEP:
            identity.used_age = age
            try:
                self._store.submit(_Touch(identity.account_id, identity.token_hash))
            except CallError:
                pass  # a store that is busy now is told at the next use

    def end(self, token_hash: bytes) -> None:
        """Revoke a session's identity; called once the store has forgotten the session."""
        with self._lock:
            self._ended += 1
            self._revoke_locked(self._held.get(token_hash))

    def end_all(self, account_id: int, *, kept: bytes = b"") -> None:
        """Revoke the identities of all sessions of an account, but the one whose token has the hash ``kept``; called
        once the store has forgotten them."""
        with self._lock:
            self._ended += 1
            for identity in list(self._held.values()):
                if identity.account_id == account_id and identity.token_hash != kept:
                    self._revoke_locked(identity)

    def _revoke_locked(self, identity: ChatIdentity | None) -> None:
        if identity is not None:
            identity.revoke()
            self._recent.pop(identity.token_hash, None)

    def _find(self, token_hash: bytes) -> ChatIdentity | None:
        while True:
            ended = self._ended
            row = self._store.one(self._store.sql.session_by_hash, token_hash)
            if row is None:
                # One that we made below, after its session's end had been told to all that were held then.
                self.end(token_hash)
                return None
            _, account_id, opened_age, used_age, _, _, name, *_ = row
            identity = self.hold(name, account_id, token_hash, opened_age, used_age)
            with self._lock:
                if ended == self._ended:
                    if len(self._recent) >= REMEMBERED:
                        self._recent.clear()
                    self._recent[token_hash] = identity
                    return identity
            # Some session ended since we looked. Was it this one? Then nobody has revoked the identity just made.


class _Touch(WriteJob[None]):
    __slots__ = ("_account_id", "_token_hash")

    def __init__(self, account_id: int, token_hash: bytes) -> None:
        super().__init__()
        self._account_id = account_id
        self._token_hash = token_hash

    def apply(self, tx: Transaction) -> None:
        row = tx.one(tx.sql.session_by_hash, self._token_hash)
        if row is not None:
            tx.touch_session(row[:5])
            tx.change_account(row[5:], seen=True)


class _Seen(WriteJob[None]):
    __slots__ = ("_account_id",)

    def __init__(self, account_id: int) -> None:
        super().__init__()
        self._account_id = account_id

    def apply(self, tx: Transaction) -> None:
        tx.account_seen(self._account_id)


def note_seen(store: Store, account_id: int) -> None:
    """Have the store remember, some time soon, that the account is here now."""
    try:
        store.submit(_Seen(account_id))
    except CallError:
        pass  # it is for display, and whoever closes a stream has nobody to tell


class OpenSession(WriteJob[LogInResponse]):
    """Opens a session for an account whose password was right.

    Args:
        future: the call's answer.
        account_id: the account.
        old_hash: its password's hash as it was verified.
        new_hash: a better one to store in its place, if any.
        guess: what the failed log-ins before it are stored under, if there are any; they are forgotten.
        signed_in: called with (token's hash, the store's age now) once the session is durable.
    """

    __slots__ = ("_account_id", "_guess", "_new_hash", "_old_hash", "_opened_age", "_signed_in", "_token")

    def __init__(
        self,
        future: "Future[Any]",
        account_id: int,
        *,
        old_hash: str,
        new_hash: str | None,
        guess: tuple[str, str] | None,
        signed_in: Callable[[bytes, int], None],
    ) -> None:
        super().__init__(future)
        self._account_id = account_id
        self._old_hash = old_hash
        self._new_hash = new_hash
        self._guess = guess
        self._signed_in = signed_in
        self._token = new_token()
        self._opened_age = 0

    def apply(self, tx: Transaction) -> LogInResponse:
        box = tx.mailbox(self._account_id)
        if box is None:
            raise bad_credentials()  # deleted since its password was verified
        row = tx.one(tx.sql.account_by_id, self._account_id)
        if row is None or row[2] != self._old_hash:
            # A password that was changed since has ended all other sessions; this would be one that it missed.
            raise changed_meanwhile()
        token_hash = hash_of(self._token)
        if token_hash is None:
            raise ValueError("a token of ours has no hash")
        tx.add_session(token_hash, self._account_id)
        if self._guess is not None:
            tx.run(tx.sql.guesses_drop, *self._guess)
        tx.change_account(row, password_hash=self._new_hash, seen=True)
        self._opened_age = tx.age
        return LogInResponse(token=self._token, undelivered=box.undelivered)

    def committed(self, result: LogInResponse) -> None:
        token_hash = hash_of(result.token)
        if token_hash is not None:
            self._signed_in(token_hash, self._opened_age)


class ResumeSession(WriteJob[LogInResponse]):
    """Signs in by the token of an earlier log-in.

    Args:
        name: whose token it is said to be.
        token: the token.
        signed_in: called with (account id, token's hash, and the store's ages when it was opened and when it was used)
            once it is found good.
    """

    __slots__ = ("_name", "_row", "_signed_in", "_token", "_token_hash")

    def __init__(self, name: str, token: str, *, signed_in: Callable[[int, bytes, int, int], None]) -> None:
        super().__init__()
        self._name = name
        self._token = token
        self._token_hash = hash_of(token)
        self._signed_in = signed_in
        self._row: tuple[int, int, int] = (0, 0, 0)

    def apply(self, tx: Transaction) -> LogInResponse:
        row = None if self._token_hash is None else tx.one(tx.sql.session_by_hash, self._token_hash)
        if row is None:
            raise bad_credentials()
        _, account_id, opened_age, used_age, _, _, name, *_ = row
        over = tx.age - used_age >= TOKEN_IDLE or tx.age - opened_age >= TOKEN_LIFETIME
        box = tx.mailbox(account_id)
        # Another account's token gets the answer of an unknown one.
        if over or name != self._name or box is None:
            raise bad_credentials()
        if tx.age - used_age >= TOKEN_STEP:
            tx.touch_session(row[:5])
            used_age = tx.age
        tx.change_account(row[5:], seen=True)
        self._row = (account_id, opened_age, used_age)
        return LogInResponse(token=self._token, undelivered=box.undelivered)

    def committed(self, result: LogInResponse) -> None:
        account_id, opened_age, used_age = self._row
        if self._token_hash is not None:
            self._signed_in(account_id, self._token_hash, opened_age, used_age)


class CloseSession(WriteJob[LogOutResponse]):
    """Ends a session for good.

    Args:
        token_hash: which.
        ended: called once the store has forgotten it.
    """

    __slots__ = ("_ended", "_token_hash")

    def __init__(self, token_hash: bytes, *, ended: Callable[[], None]) -> None:
        super().__init__()
        self._token_hash = token_hash
        self._ended = ended

    def apply(self, tx: Transaction) -> LogOutResponse:
        tx.run(tx.sql.session_drop, self._token_hash)
        return LogOutResponse()

    def committed(self, result: LogOutResponse) -> None:
        self._ended()
