"""Signing in and out: passwords, tokens, their lifetimes, and who a call belongs to."""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from chat_service.fakes import PASSWORD, QUICK, WAIT, Chat, Clock, FakeContext
from wireproto import CallError, Identity, Metadata, Retry, Status
from wireproto_chat.opcodes import (
    CHANGE_PASSWORD,
    CREATE_ACCOUNT,
    LOG_IN,
    LOG_OUT,
    SEND_MESSAGE,
    WHO_AM_I,
    ChangePasswordRequest,
    CreateAccountRequest,
    LogInRequest,
    LogOutRequest,
    SendMessageRequest,
    WhoAmIRequest,
)
from wireproto_chat.service.passwords import HashPool, Passwords
from wireproto_chat.store.tables import Query


def bearer(chat: Chat, token: str) -> Identity | None:
    return chat.app.authenticate(Metadata(authorization=f"Bearer {token}"), "127.0.0.1:1")


# ---------------------------------------------------------------------- passwords


def test_a_log_in_signs_the_connection_in_and_answers_a_token(chat: Chat) -> None:
    """LogIn binds the account's identity and answers 256 random bits and what waits."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "to myself")
    context = FakeContext()
    answers = [chat.log_in("ann", context)]
    assert context.identity is not None
    assert context.identity.subject == "ann"
    assert context.identity.capabilities == {"account"}
    answers.append(chat.log_in("ann", FakeContext()))
    assert [answer.undelivered for answer in answers] == [1, 1]
    assert answers[0].token != answers[1].token
    assert all(len(answer.token) == 43 for answer in answers)


@pytest.mark.parametrize("how", ["wrong password", "unknown user", "bad token", "no password"])
def test_every_failed_log_in_has_the_same_answer(chat: Chat, how: str) -> None:
    """Wrong password, unknown user and bad token answer the same status, reason, text and advice."""
    chat.account("ann")
    expected = chat.refused(LOG_IN, LogInRequest(username="ann", password="not the password"), FakeContext())
    request = {
        "wrong password": LogInRequest(username="ann", password="x"),
        "unknown user": LogInRequest(username="nobody", password=PASSWORD),
        "bad token": LogInRequest(username="ann", token="A" * 43),
        "no password": LogInRequest(username="ann"),
    }[how]
    context = FakeContext()
    error = chat.refused(LOG_IN, request, context)
    assert context.identity is None
    assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "BAD_CREDENTIALS")
    assert (str(error), error.retry, error.retry_after_ms) == (
        str(expected),
        expected.retry,
        expected.retry_after_ms,
    )


class Counting(Passwords):
    """Passwords that note what was verified."""

    def __init__(self) -> None:
        super().__init__(hasher=QUICK)
        self.verified: list[tuple[str, str]] = []

    def verify(self, stored: str | None, normal: str) -> bool:
        self.verified.append((threading.current_thread().name.rsplit("_", 1)[0], "stored" if stored else "nobody"))
        return super().verify(stored, normal)


def test_an_unknown_user_takes_the_way_of_a_wrong_password(store_path: Path, clock: Clock) -> None:
    """Both go through the hashing threads and verify one hash of the same parameters."""
    passwords = Counting()
    chat = Chat(store_path, clock, passwords=passwords)
    chat.call(CREATE_ACCOUNT, CreateAccountRequest(username="ann", password=PASSWORD), FakeContext())
    for name in ("ann", "nobody"):
        chat.refused(LOG_IN, LogInRequest(username=name, password="not the password"), FakeContext())
    assert passwords.verified == [("wireproto-chat-hash", "stored"), ("wireproto-chat-hash", "nobody")]
    chat.close()


def test_a_dummy_hash_costs_what_a_stored_one_costs() -> None:
    """Verifying for nobody takes as long as verifying a wrong password: medians within a quarter."""
    passwords = Passwords(hasher=PasswordHasher(time_cost=1, memory_cost=4096, parallelism=1))
    stored = passwords.hash(PASSWORD)

    def cost(of: str | None) -> float:
        start = time.thread_time()
        assert not passwords.verify(of, "not the password")
        return time.thread_time() - start

    pairs = [(cost(stored), cost(None)) for _ in range(40)]
    known, unknown = (sorted(column)[20] for column in zip(*pairs, strict=True))
    assert 0.75 < known / unknown < 1.33


LONG = " ".join(str(number * number) for number in range(3, 50))


@pytest.mark.parametrize(
    ("password", "good"),
    [
        (LONG[:11], False),
        (LONG[:12], True),
        (LONG[:128], True),
        (LONG[:129], False),
        ("", False),
        ("a" * 1_000_000, False),
        ("€äöü" * 32, True),
        ("😀😁😂" * 42, True),
        ("long enough\0with nul", False),
        ("long enough\nwith line", False),
        ("        spaces", True),
    ],
)
def test_the_rule_for_passwords(chat: Chat, password: str, good: bool) -> None:
    """12 to 128 characters without control characters make an account; others are refused with the rule."""
    request = CreateAccountRequest(username="ann", password=password)
    if good:
        chat.call(CREATE_ACCOUNT, request, FakeContext())
        chat.call(LOG_IN, LogInRequest(username="ann", password=password), FakeContext())
    else:
        error = chat.refused(CREATE_ACCOUNT, request, FakeContext())
        assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "BAD_PASSWORD")
        assert "12 to 128 characters" in error.message


def test_the_shortest_password_is_a_setting() -> None:
    """Passwords(minimum=4) takes four characters and says so when it gets three."""
    passwords = Passwords(minimum=4, hasher=QUICK)
    assert passwords.checked("four") == "four"
    with pytest.raises(CallError, match="4 to 128 characters"):
        passwords.checked("six"[:3])


def test_two_ways_to_write_one_password_are_one_password(chat: Chat) -> None:
    """A composed and a decomposed letter, an ASCII and a no-break space log in to the same account."""
    request = CreateAccountRequest(username="ann", password="caf\u00e9 au lait, 1")
    chat.call(CREATE_ACCOUNT, request, FakeContext())
    chat.call(LOG_IN, LogInRequest(username="ann", password="cafe\u0301\u00a0au lait, 1"), FakeContext())


def test_an_old_hash_is_replaced_at_the_next_log_in(store_path: Path, clock: Clock) -> None:
    """A hash made with other parameters is verified once more and stored anew; the password stays the same."""
    chat = Chat(store_path, clock)
    chat.account("ann")
    chat.close()
    stronger = Passwords(hasher=PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))

    def stored() -> str:
        return str(chat.app._store.one(chat.app._store.sql.account_by_name, "ann")[2])  # type: ignore[index]

    chat = Chat(store_path, clock, passwords=stronger)
    assert "m=8,t=1" in stored()
    chat.log_in("ann", FakeContext())
    assert "m=16,t=2" in stored()
    chat.log_in("ann", FakeContext())
    chat.close()


def test_a_hash_of_the_default_strength() -> None:
    """New hashes are Argon2id with 19 MiB, two passes and one lane."""
    assert Passwords().hash(PASSWORD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


# ---------------------------------------------------------------------- the hashing threads


@pytest.fixture
def hashing() -> Iterator[HashPool]:
    pool = HashPool(workers=1, waiting=2)
    yield pool
    pool.close()


def test_too_many_hashes_are_refused_at_once(hashing: HashPool) -> None:
    """Beyond the workers and those that may wait, SERVER_BUSY comes at once and says that nothing was done."""
    gate = threading.Event()
    answers: list[Future[Any]] = [Future() for _ in range(3)]
    for answer in answers:
        hashing.submit(answer, lambda answer=answer: answer.set_result(gate.wait(WAIT)))  # type: ignore[misc]
    with pytest.raises(CallError) as caught:
        hashing.submit(Future(), lambda: None)
    gate.set()
    assert [answer.result(WAIT) for answer in answers] == [True] * 3
    assert (caught.value.status, caught.value.reason) == (Status.RESOURCE_EXHAUSTED, "SERVER_BUSY")
    assert caught.value.retry is Retry.NOT_PROCESSED
    assert caught.value.retry_after_ms > 0


def test_a_hash_that_waited_too_long_is_refused() -> None:
    """A call that waited more than two seconds for a worker is refused instead of done."""
    now = [0.0]
    pool = HashPool(workers=1, waiting=2, clock=lambda: now[0])
    gate = threading.Event()
    first: Future[Any] = Future()
    second: Future[Any] = Future()
    pool.submit(first, lambda: first.set_result(gate.wait(WAIT)))
    pool.submit(second, lambda: second.set_result("done"))
    now[0] = 2.1
    gate.set()
    error = second.exception(WAIT)
    assert isinstance(error, CallError)
    assert error.reason == "SERVER_BUSY"
    pool.close()


def test_a_cancelled_log_in_is_not_hashed(hashing: HashPool) -> None:
    """Work whose caller has gone while it waited is not done."""
    gate = threading.Event()
    done: list[str] = []
    first: Future[Any] = Future()
    second: Future[Any] = Future()
    hashing.submit(first, lambda: first.set_result(gate.wait(WAIT)))
    hashing.submit(second, lambda: done.append("second"))
    assert second.cancel()
    gate.set()
    first.result(WAIT)
    hashing.close()
    assert not done


# ---------------------------------------------------------------------- tokens


def test_a_token_resumes_its_session(chat: Chat) -> None:
    """LogIn with a token signs in without the password, answers the same token, and shares one identity."""
    first, second = chat.account("ann"), FakeContext()
    token = chat.log_in("ann", FakeContext()).token
    answer = chat.log_in("ann", second, token=token)
    assert answer.token == token
    third = FakeContext()
    chat.log_in("ann", third, token=token)
    assert second.identity is third.identity
    assert second.identity is not first.identity
    assert bearer(chat, token) is second.identity


def test_another_accounts_token_is_an_unknown_one(chat: Chat) -> None:
    """A token with another name is refused as if it did not exist."""
    chat.account("ann")
    bob = FakeContext()
    chat.account("bob")
    token = chat.log_in("bob", bob).token
    error = chat.refused(LOG_IN, LogInRequest(username="ann", token=token), FakeContext())
    assert error.reason == "BAD_CREDENTIALS"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer " + "A" * 43,
        "Bearer é",
    ],
)
def test_a_worthless_authorization_is_nobody(chat: Chat, authorization: str) -> None:
    """authenticate answers None for everything but a bearer token that exists."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    metadata = Metadata(authorization=authorization.format(token=token))
    assert chat.app.authenticate(metadata, "127.0.0.1:1") is None
    assert bearer(chat, token) is not None


def test_a_token_ends_a_week_after_its_last_use(chat: Chat, clock: Clock) -> None:
    """Use within seven days keeps a token; seven days without use end it, for log-ins and for calls."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    for _ in range(3):
        clock.move(days=6.9)
        chat.log_in("ann", FakeContext(), token=token)
    clock.move(days=7)
    assert bearer(chat, token) is None
    error = chat.refused(LOG_IN, LogInRequest(username="ann", token=token), FakeContext())
    assert error.reason == "BAD_CREDENTIALS"


def test_a_call_counts_as_use_of_its_token(chat: Chat, clock: Clock) -> None:
    """Calls keep the session of their connection, or the token they carry, from running out."""
    ann = chat.account("ann")
    context = FakeContext()
    token = chat.log_in("ann", context).token
    clock.move(days=6)
    chat.send(context, "ann", "still here")
    clock.move(days=6)
    assert bearer(chat, token) is not None
    clock.move(days=6)
    assert bearer(chat, token) is context.identity
    assert ann.identity is not None


def test_a_token_ends_thirty_days_after_the_password(chat: Chat, clock: Clock) -> None:
    """However often it is used, a session ends after thirty days, on connections that are signed in too."""
    chat.account("ann")
    context = FakeContext()
    token = chat.log_in("ann", context).token
    for _ in range(5):
        clock.move(days=5.9)
        assert bearer(chat, token) is context.identity
    clock.move(days=0.5)
    assert bearer(chat, token) is None
    assert context.identity is not None
    assert context.identity.revoked


def test_only_a_tokens_hash_is_stored(chat: Chat, store_path: Path) -> None:
    """Neither the token nor the password is anywhere in the files of the store."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    chat.send(FakeContext(identity=bearer(chat, token)), "ann", "a text that is there")
    content = b"".join(path.read_bytes() for path in store_path.parent.iterdir())
    assert b"a text that is there" in content
    assert token.encode() not in content
    assert PASSWORD.encode() not in content


def test_secrets_do_not_reach_the_log(chat: Chat, caplog: pytest.LogCaptureFixture) -> None:
    """Log-ins that fail or succeed, and errors of the store, log neither passwords nor tokens."""
    caplog.set_level(logging.DEBUG)
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    chat.refused(LOG_IN, LogInRequest(username="ann", password="canary-password"), FakeContext())
    with pytest.raises(CallError):
        chat.app._store.rows(Query("SELECT * FROM missing WHERE x = ?"), "canary-parameter")
    assert "a read of the store failed" in caplog.text
    assert not [word for word in ("canary", token, PASSWORD) if word in caplog.text]


# ---------------------------------------------------------------------- signing out


def test_a_signed_in_connection_cannot_log_in_again(chat: Chat) -> None:
    """LogIn on a signed-in connection is ALREADY_SIGNED_IN and changes nothing; after LogOut it works."""
    ann = chat.account("ann")
    chat.account("bob")
    error = chat.refused(LOG_IN, LogInRequest(username="bob", password=PASSWORD), ann)
    assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "ALREADY_SIGNED_IN")
    assert ann.identity is not None
    assert ann.identity.subject == "ann"
    chat.log_out(ann)
    chat.log_in("bob", ann)
    assert ann.identity.subject == "bob"


def test_a_log_out_ends_the_session_everywhere(chat: Chat) -> None:
    """LogOut revokes the token, clears every connection's identity of that session, and ends its streams only."""
    other = chat.account("ann")
    one, two = FakeContext(), FakeContext()
    token = chat.log_in("ann", one).token
    chat.log_in("ann", two, token=token)
    ended, stays = chat.receive(two), chat.receive(other)
    ended.take()
    chat.log_out(one)
    assert one.identity is None
    assert two.identity is not None
    assert two.identity.revoked
    with pytest.raises(CallError, match="SIGNED_OUT"):
        ended.take()
    assert stays.take() == []
    assert other.identity is not None
    assert not other.identity.revoked
    assert bearer(chat, token) is None
    assert chat.refused(LOG_IN, LogInRequest(username="ann", token=token), one).reason == "BAD_CREDENTIALS"
    ended.close()
    stays.close()


def test_a_session_survives_a_restart_and_a_log_out_too(store_path: Path, clock: Clock) -> None:
    """A token works after a restart; one that was logged out does not."""
    chat = Chat(store_path, clock)
    chat.account("ann")
    kept = chat.log_in("ann", FakeContext()).token
    ended = FakeContext()
    gone = chat.log_in("ann", ended).token
    chat.log_out(ended)
    chat.close()
    chat = Chat(store_path, clock)
    assert bearer(chat, kept) is not None
    assert bearer(chat, gone) is None
    chat.close()


def test_expired_sessions_are_deleted(chat: Chat, clock: Clock, store_path: Path) -> None:
    """Housekeeping deletes sessions and idempotency keys whose time is over, and nothing else."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "x", key=b"old")
    clock.move(days=9)
    fresh = FakeContext()
    chat.log_in("ann", fresh)
    chat.send(fresh, "ann", "x", key=b"new")
    assert chat.app._store.submit(chat.app._store._writer._housekeeping()).result(WAIT) is False
    with sqlite3.connect(f"file:{store_path}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchall() == [(1,)]
        assert database.execute("SELECT idempotency_key FROM idempotency_keys").fetchall() == [(b"new",)]
    database.close()


def test_a_token_looked_up_while_its_session_ends_is_not_kept(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that overlaps LogOut answers nobody, and leaves no identity that still works."""
    chat.account("ann")
    context = FakeContext()
    token = chat.log_in("ann", context).token
    store = chat.app._store
    real = store.one
    seen: list[Any] = []

    def slow(query: Query, *parameters: Any) -> Any:
        row = real(query, *parameters)
        if query == store.sql.session_by_hash and not seen:
            seen.append(row)
            chat.log_out(context)
            context.identity = None
            chat.app._sessions._held.clear()
        return row

    monkeypatch.setattr(store, "one", slow)
    assert bearer(chat, token) is None
    assert seen
    assert bearer(chat, token) is None


def test_a_revoked_identity_cannot_send(chat: Chat) -> None:
    """A send with an identity whose session has ended is refused by the writer."""
    ann = chat.account("ann")
    late = FakeContext(identity=ann.identity)
    chat.call(LOG_OUT, LogOutRequest(), ann)
    error = chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="x"), late)
    assert error.status is Status.UNAUTHENTICATED


def test_a_log_in_that_overlaps_a_change_opens_no_session(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password verified before the change and used after it is refused, and may be tried again."""
    ann = chat.account("ann")
    real = chat.app._passwords.verify
    once = threading.Lock()

    def slow(stored: "str | None", normal: str) -> bool:
        good = real(stored, normal)
        if once.acquire(blocking=False):
            request = ChangePasswordRequest(password=PASSWORD, new_password="another password")
            assert chat.call(CHANGE_PASSWORD, request, ann).sessions_ended == 0
        return good

    monkeypatch.setattr(chat.app._passwords, "verify", slow)
    error = chat.refused(LOG_IN, LogInRequest(username="ann", password=PASSWORD), FakeContext())
    assert (error.reason, error.retry) == ("SERVER_BUSY", Retry.NOT_PROCESSED)
    assert chat.call(WHO_AM_I, WhoAmIRequest(), ann).sessions == 1


def test_a_session_that_was_resumed_just_now_is_not_noted_as_used_again(chat: Chat) -> None:
    """The call after a log-in by token writes nothing of its own: when the session was used is known to the hour."""
    ann = chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    resumed = FakeContext()
    chat.log_in("ann", resumed, token=token)
    jobs, _ = chat.app.counts
    chat.send(resumed, "ann", "x")
    chat.send(ann, "ann", "y")
    assert chat.app.counts[0] == jobs + 2
