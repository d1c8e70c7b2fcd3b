"""Accounts: making, listing and deleting them, by the handlers themselves."""

from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_service.fakes import PASSWORD, Chat, Clock, FakeContext
from chat_service.test_wildcard import oracle, patterns
from wireproto import Status
from wireproto_chat.opcodes import (
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    LOG_IN,
    POP_UNDELIVERED,
    SEND_MESSAGE,
    WILD_CARD,
    CreateAccountRequest,
    CreateAccountResponse,
    DeleteAccountRequest,
    LogInRequest,
    PopUndeliveredRequest,
    SendMessageRequest,
    WildCardRequest,
)
from wireproto_chat.service import accounts
from wireproto_chat.service.accounts import CreateAccount, list_accounts
from wireproto_chat.service.mailboxes import moment
from wireproto_chat.wildcard import Pattern


def fill(chat: Chat, names: list[str]) -> None:
    """Make accounts without hashing a password for each."""
    answers: list[Future[Any]] = [Future() for _ in names]
    for answer, name in zip(answers, names, strict=True):
        answer.set_running_or_notify_cancel()
        chat.app._store.submit(CreateAccount(answer, name, "no hash"))
    for answer in answers:
        assert answer.result(10) == CreateAccountResponse()


def pages(chat: Chat, context: FakeContext, pattern: str, limit: int = 0) -> list[list[str]]:
    """Every page of a list, by name."""
    found: list[list[str]] = []
    after = ""
    while True:
        page = chat.call(WILD_CARD, WildCardRequest(pattern=pattern, after=after, limit=limit), context)
        found.append([account.username for account in page.accounts])
        after = page.next
        if not after:
            return found


# ---------------------------------------------------------------------- making one


@pytest.mark.parametrize("name", ["a", "z9._-", "x" * 32, "...", "-"])
def test_a_valid_name_makes_an_account(chat: Chat, name: str) -> None:
    """CreateAccount answers and LogIn works for every name of the grammar."""
    context = chat.account(name)
    assert context.identity is not None
    assert context.identity.subject == name


@pytest.mark.parametrize("name", ["", "x" * 33, "Bob", "a b", "a|b", "ä", "a\n", "a\0", "ａ", "*"])
def test_a_bad_name_is_refused_with_what_is_accepted(chat: Chat, name: str) -> None:
    """CreateAccount and LogIn answer BAD_USERNAME and the grammar for anything else."""
    errors = [
        chat.refused(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD), FakeContext()),
        chat.refused(LOG_IN, LogInRequest(username=name, password=PASSWORD), FakeContext()),
    ]
    assert [(error.status, error.reason) for error in errors] == [(Status.INVALID_ARGUMENT, "BAD_USERNAME")] * 2
    assert "a-z 0-9" in errors[0].message


def test_a_taken_name_is_refused(chat: Chat) -> None:
    """A second CreateAccount with one name answers NAME_TAKEN and changes nothing."""
    chat.account("ann")
    request = CreateAccountRequest(username="ann", password="another password!")
    error = chat.refused(CREATE_ACCOUNT, request, FakeContext())
    assert (error.status, error.reason) == (Status.ALREADY_EXISTS, "NAME_TAKEN")
    chat.log_in("ann", FakeContext())


def test_two_at_once_make_one_account(chat: Chat) -> None:
    """Of many concurrent CreateAccount with one name, exactly one succeeds."""
    request = CreateAccountRequest(username="ann", password=PASSWORD)
    answers = [chat.start(CREATE_ACCOUNT, request, FakeContext()) for _ in range(20)]
    errors = [answer.exception(10) for answer in answers]
    assert errors.count(None) == 1
    assert {getattr(error, "reason", "") for error in errors if error} == {"NAME_TAKEN"}


# ---------------------------------------------------------------------- listing


def test_a_list_has_the_matching_accounts_in_order(chat: Chat) -> None:
    """WildCard answers the names that match, sorted, and nobody else."""
    ann = chat.account("ann")
    fill(chat, ["bob", "anna", "dan", "bann"])
    assert pages(chat, ann, "*an*") == [["ann", "anna", "bann", "dan"]]
    assert pages(chat, ann, "an?") == [["ann"]]
    assert pages(chat, ann, "nobody") == [[]]


def test_online_means_that_a_stream_is_open(chat: Chat) -> None:
    """An account is online from the opening of its ReceiveMessages to its end, not by being signed in."""
    ann = chat.account("ann")

    def online() -> bool:
        return chat.call(WILD_CARD, WildCardRequest(pattern="ann"), ann).accounts[0].online

    assert not online()
    first, second = chat.receive(ann), chat.receive(ann)
    assert online()
    first.close()
    assert online()
    second.close()
    assert not online()


def test_pages_are_full_and_complete(chat: Chat) -> None:
    """Pages of any size hold every account once, in order, and the last one has no next."""
    ann = chat.account("ann")
    names = sorted(["ann", *(f"u{i:03}" for i in range(230))])
    fill(chat, names[1:])
    for limit, sizes in ((0, [100, 100, 31]), (77, [77, 77, 77]), (100, [100, 100, 31]), (1, [1] * 231)):
        found = pages(chat, ann, "*", limit)
        assert [len(page) for page in found] == sizes
        assert [name for page in found for name in page] == names


def test_an_account_that_stays_is_listed_once_whatever_changes(chat: Chat) -> None:
    """Accounts that come and go between two pages neither hide nor double the others."""
    ann = chat.account("ann")
    gone = chat.account("c1")
    fill(chat, ["b1", "b2", "d1", "d2"])
    page = chat.call(WILD_CARD, WildCardRequest(pattern="*", limit=3), ann)
    assert [account.username for account in page.accounts] == ["ann", "b1", "b2"]
    fill(chat, ["a0", "b3"])
    chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="c1"), gone)
    page = chat.call(WILD_CARD, WildCardRequest(pattern="*", after=page.next), ann)
    assert [account.username for account in page.accounts] == ["b3", "d1", "d2"]


def test_a_list_that_looks_at_too_many_names_goes_on_from_a_cursor(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call looks at its budget of names and answers a cursor, even when nothing matched yet."""
    monkeypatch.setattr(accounts, "ROW_BUDGET", 50)
    ann = chat.account("ann")
    fill(chat, [f"u{i:03}" for i in range(120)])
    found = pages(chat, ann, "*119")
    assert found == [[], [], ["u119"]]


def test_a_literal_prefix_saves_the_budget(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names outside the pattern's literal beginning are not looked at."""
    monkeypatch.setattr(accounts, "ROW_BUDGET", 50)
    ann = chat.account("ann")
    fill(chat, [f"u{i:03}" for i in range(120)])
    assert pages(chat, ann, "u11*9") == [["u119"]]


@pytest.mark.parametrize("after", ["", "zzz", "ANN", "é", "\0", "a" * 500, "' OR 1=1 --"])
def test_any_cursor_is_harmless(chat: Chat, after: str) -> None:
    """WildCard takes any text as a cursor and answers names behind it."""
    ann = chat.account("ann")
    page = chat.call(WILD_CARD, WildCardRequest(pattern="*", after=after), ann)
    assert all(account.username > after for account in page.accounts)


def test_a_bad_pattern_is_refused_with_what_is_accepted(chat: Chat) -> None:
    """WildCard answers BAD_PATTERN and the grammar."""
    error = chat.refused(WILD_CARD, WildCardRequest(pattern="Bob%"), chat.account("ann"))
    assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "BAD_PATTERN")
    assert "1 to 64" in error.message


def test_lists_agree_with_the_definition(chat: Chat) -> None:
    """For any pattern, the pages of a list are the names the definition matches, in order."""
    ann = chat.account("ann")
    names = sorted({"ann", *(f"{a}{b}{c}" for a in "ab-" for b in "._1" for c in ("", "a", "b-", "11"))})
    fill(chat, [name for name in names if name != "ann"])

    @settings(max_examples=60)
    @given(patterns, st.integers(1, 40))
    def check(pattern: str, limit: int) -> None:
        found = [name for page in pages(chat, ann, pattern, limit) for name in page]
        assert found == [name for name in names if oracle(pattern, name)]

    check()


def test_a_list_reads_the_same_at_every_budget(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the budget and the page, all pages together are the same names."""
    chat.account("ann")
    fill(chat, [f"u{i:02}" for i in range(30)])
    expected = ["ann", *(f"u{i:02}" for i in range(30))]
    for budget in (1, 2, 7, 31, 32, 1000):
        monkeypatch.setattr(accounts, "ROW_BUDGET", budget)
        found, after = [], ""
        for _ in range(100):
            page = list_accounts(chat.app._store, lambda _: False, Pattern("*"), after, 5)
            found += [account.username for account in page.accounts]
            after = page.next
            if not after:
                break
        assert found == expected


# ---------------------------------------------------------------------- deleting one


def test_a_deleted_account_is_gone(chat: Chat) -> None:
    """After DeleteAccount nobody can log in as it, find it, or send to it."""
    ann, bob = chat.account("ann"), chat.account("bob")
    assert chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="bob"), bob).discarded == 0
    assert bob.identity is None
    assert chat.refused(LOG_IN, LogInRequest(username="bob", password=PASSWORD), bob).reason == "BAD_CREDENTIALS"
    assert pages(chat, ann, "*") == [["ann"]]
    error = chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="hi"), ann)
    assert (error.status, error.reason) == (Status.NOT_FOUND, "UNKNOWN_RECIPIENT")


def test_only_the_own_account_can_be_deleted(chat: Chat) -> None:
    """DeleteAccount with another name answers NOT_YOUR_ACCOUNT, whether there is such an account or not."""
    ann, _ = chat.account("ann"), chat.account("bob")
    errors = [
        chat.refused(DELETE_ACCOUNT, DeleteAccountRequest(username=name, force=True), ann) for name in ("bob", "carl")
    ]
    assert [(error.status, error.reason) for error in errors] == [(Status.PERMISSION_DENIED, "NOT_YOUR_ACCOUNT")] * 2
    assert errors[0].message == errors[1].message
    chat.log_in("bob", FakeContext())


def test_undelivered_messages_refuse_a_deletion_unless_forced(chat: Chat) -> None:
    """DeleteAccount says how many messages wait and keeps the account; with force it discards them."""
    ann, bob = chat.account("ann"), chat.account("bob")
    for text in ("one", "two", "three"):
        chat.send(ann, "bob", text)
    error = chat.refused(DELETE_ACCOUNT, DeleteAccountRequest(username="bob"), bob)
    assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "UNDELIVERED_MESSAGES")
    assert error.message.startswith("3 undelivered messages ")
    assert len(chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=1), bob).messages) == 1
    assert chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="bob", force=True), bob).discarded == 2


def test_a_deletion_ends_every_session_and_stream(chat: Chat) -> None:
    """The account's other connections lose their identity, its tokens their worth, its streams their mailbox."""
    bob, phone = chat.account("bob"), FakeContext()
    token = chat.log_in("bob", phone).token
    stream = chat.receive(phone)
    stream.take()
    stream.woken.clear()
    chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="bob"), bob)
    assert phone.identity is not None
    assert phone.identity.revoked
    assert stream.woken.wait(10)
    with pytest.raises(Exception, match="SIGNED_OUT"):
        stream.take()
    stream.close()
    request = LogInRequest(username="bob", token=token)
    assert chat.refused(LOG_IN, request, FakeContext()).reason == "BAD_CREDENTIALS"


def test_a_name_is_held_back_and_comes_without_the_old_mail(chat: Chat, clock: Clock) -> None:
    """The name of a deleted account is refused for 30 days; whoever has it then gets nothing of the old account's."""
    ann, bob = chat.account("ann"), chat.account("bob")
    chat.send(ann, "bob", "for the old bob")
    chat.send(bob, "ann", "from the old bob")
    chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="bob", force=True), bob)
    clock.move(days=30, seconds=-1)
    request = CreateAccountRequest(username="bob", password=PASSWORD)
    assert chat.refused(CREATE_ACCOUNT, request, FakeContext()).reason == "NAME_TAKEN"
    clock.move(seconds=1)
    new = chat.account("bob")
    assert chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), new).messages == []
    ann = FakeContext()
    chat.log_in("ann", ann)
    assert chat.send(ann, "bob", "for the new bob").sequence == 1
    # What the old one sent is still his.
    assert [m.sender for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), ann).messages] == ["bob"]


def test_a_send_under_way_does_not_survive_the_senders_deletion(chat: Chat) -> None:
    """A send that the writer takes up after the sender's deletion is refused and stores nothing."""
    ann, bob = chat.account("ann"), chat.account("bob")
    gone = FakeContext(identity=ann.identity)
    chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="ann"), ann)
    error = chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="late"), gone)
    assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED")
    assert chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob).messages == []


def test_a_list_says_when_somebody_was_last_seen(chat: Chat, clock: Clock) -> None:
    """Never, at the last log-in, at the end of the last stream, and now while one is open."""

    def seen() -> Any:
        (account,) = chat.call(WILD_CARD, WildCardRequest(pattern="bob"), ann).accounts
        return account.online, account.last_seen

    def now() -> Any:
        return moment(int(clock() * 1_000_000))

    ann, bob = chat.account("ann"), chat.account("bob")
    at = now()
    clock.move(seconds=60)
    assert seen() == (False, at)
    reader = chat.receive(bob)
    reader.take()
    clock.move(seconds=60)
    assert seen() == (True, now())
    reader.close()
    chat.log_in("ann", FakeContext())  # the writer has done what came before
    at = now()
    clock.move(seconds=60)
    assert seen() == (False, at)
