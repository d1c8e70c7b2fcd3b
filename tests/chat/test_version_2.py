"""What version 2 brought: acknowledging by name, conversations, deleting, broadcasts, passwords, guesses, presence."""

import threading
from collections import Counter
from typing import Any

import pytest

from tests.chat.fakes import PASSWORD, WAIT, Chat, Clock, FakeContext
from wireproto.chat import broadcast as broadcast_module
from wireproto.chat import mailboxes
from wireproto.chat.contract import (
    ACKNOWLEDGE,
    BROADCAST,
    CHANGE_PASSWORD,
    DELETE_MESSAGE,
    LIST_CONVERSATION,
    LOG_IN,
    POP_UNDELIVERED,
    WHO_AM_I,
    WILD_CARD,
    AcknowledgeRequest,
    AcknowledgeResponse,
    BroadcastRequest,
    BroadcastResponse,
    ChangePasswordRequest,
    ConversationMessage,
    DeleteMessageRequest,
    ListConversationRequest,
    LogInRequest,
    PopUndeliveredRequest,
    WhoAmIRequest,
    WildCardRequest,
)
from wireproto.chat.guesses import network_of, wait_after
from wireproto.chat.live import WINDOW
from wireproto.chat.mailboxes import moment
from wireproto.errors import CallError
from wireproto.metadata import Metadata
from wireproto.status import Retry, Status


def acknowledge(chat: Chat, context: FakeContext, sequence: int) -> AcknowledgeResponse:
    return chat.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=sequence), context)


def pop(chat: Chat, context: FakeContext) -> list[str]:
    return [m.text for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), context).messages]


def history(chat: Chat, context: FakeContext, name: str, **how: Any) -> list[ConversationMessage]:
    return chat.call(LIST_CONVERSATION, ListConversationRequest(username=name, **how), context).messages


def delete(chat: Chat, context: FakeContext, recipient: str, sequence: int) -> None:
    chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient=recipient, sequence=sequence), context)


def filled(chat: Chat, count: int) -> tuple[FakeContext, FakeContext]:
    ann, bob = chat.account("ann", version=2), chat.account("bob", version=2)
    for i in range(1, count + 1):
        chat.send(ann, "bob", str(i))
    return ann, bob


# ---------------------------------------------------------------------- acknowledging


def test_an_acknowledgement_is_cumulative_and_never_goes_back(chat: Chat) -> None:
    """Acknowledge takes everything up to its sequence, answers the furthest, and survives being sent late."""
    _, bob = filled(chat, 5)
    assert acknowledge(chat, bob, 3) == AcknowledgeResponse(acknowledged=3, undelivered=2)
    assert acknowledge(chat, bob, 1) == AcknowledgeResponse(acknowledged=3, undelivered=2)
    assert acknowledge(chat, bob, 0) == AcknowledgeResponse(acknowledged=3, undelivered=2)
    assert chat.receive(bob).texts() == ["4", "5"]
    assert acknowledge(chat, bob, 5) == AcknowledgeResponse(acknowledged=5, undelivered=0)


@pytest.mark.parametrize("sequence", [-1, 4, 2**63 - 1])
def test_what_does_not_exist_cannot_be_acknowledged(chat: Chat, sequence: int) -> None:
    """A sequence that no message has is refused and changes nothing."""
    _, bob = filled(chat, 3)
    error = chat.refused(ACKNOWLEDGE, AcknowledgeRequest(sequence=sequence), bob)
    assert (error.status, error.reason) == (Status.OUT_OF_RANGE, "ACKNOWLEDGED_TOO_MUCH")
    assert acknowledge(chat, bob, 0) == AcknowledgeResponse(acknowledged=0, undelivered=3)


def test_credit_does_not_acknowledge_in_version_2(chat: Chat) -> None:
    """However much credit comes, nothing is acknowledged by it."""
    _, bob = filled(chat, 10)
    reader = chat.receive(bob)
    assert len(reader.take()) == 10
    reader.acknowledge(500)
    assert acknowledge(chat, bob, 0).undelivered == 10
    assert chat.receive(bob).texts() == [str(i) for i in range(1, 11)]


def test_an_acknowledgement_makes_room_in_the_window(chat: Chat) -> None:
    """A stream stops at 64 unacknowledged messages, and Acknowledge, from any connection, lets it go on."""
    _, bob = filled(chat, WINDOW + 10)
    reader, phone = chat.receive(bob, credit=1000), FakeContext(version=2)
    chat.log_in("bob", phone)
    assert reader.texts(1000) == [str(i) for i in range(1, WINDOW + 1)]
    assert reader.take(1000) == []
    reader.woken.clear()
    acknowledge(chat, phone, 4)
    assert reader.woken.wait(WAIT)
    assert reader.texts(1000) == [str(i) for i in range(WINDOW + 1, WINDOW + 5)]
    acknowledge(chat, phone, WINDOW + 4)
    assert reader.texts(1000) == [str(i) for i in range(WINDOW + 5, WINDOW + 11)]


# ---------------------------------------------------------------------- conversations


def test_a_conversation_has_both_directions_in_order(chat: Chat, clock: Clock) -> None:
    """Both sides see the same messages in the order of acceptance, and nothing of a third."""
    ann, bob, eve = (chat.account(name) for name in ("ann", "bob", "eve"))
    for i in range(3):
        chat.send(ann, "bob", f"a{i}")
        chat.send(eve, "bob", "aside")
        chat.send(eve, "ann", "aside")
        chat.send(bob, "ann", f"b{i}")
    sent = chat.send(bob, "ann", "last")
    theirs = history(chat, ann, "bob")
    assert [m.text for m in theirs] == ["last", "b2", "a2", "b1", "a1", "b0", "a0"]
    assert history(chat, bob, "ann") == theirs
    assert history(chat, bob, "ann", oldest_first=True) == theirs[::-1]
    newest = theirs[0]
    assert (newest.sender, newest.recipient, newest.deleted) == ("bob", "ann", False)
    assert (newest.message_id, newest.sequence) == (sent.message_id, sent.sequence)
    assert newest.sent_at == moment(int(clock() * 1_000_000))
    assert history(chat, eve, "eve") == []


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_conversation_is_read_page_by_page(chat: Chat, limit: int, oldest_first: bool) -> None:
    """Pages, each begun where the last one ended, have every message once."""
    ann, bob = chat.account("ann"), chat.account("bob")
    for i in range(23):
        chat.send(*((ann, "bob") if i % 3 else (bob, "ann")), str(i))
    texts: list[str] = []
    position = 0
    more = True
    while more:
        where = {"after" if oldest_first else "before": position}
        request = ListConversationRequest(username="bob", limit=limit, oldest_first=oldest_first, **where)
        page = chat.call(LIST_CONVERSATION, request, ann)
        assert len(page.messages) == min(limit, 23 - len(texts))
        texts += [m.text for m in page.messages]
        position, more = page.messages[-1].position, page.more
    expected = [str(i) for i in range(23)]
    assert texts == (expected if oldest_first else expected[::-1])


def test_a_page_of_long_texts_fits_a_frame(chat: Chat) -> None:
    """Texts that would not fit together come on the next page, and `more` says so."""
    ann = chat.account("ann")
    for i in range(9):
        chat.send(ann, "ann", str(i) * 5000)
    page = chat.call(LIST_CONVERSATION, ListConversationRequest(username="ann"), ann)
    assert [m.text[0] for m in page.messages] == ["8", "7"]
    assert page.more


def test_notes_to_oneself_are_a_conversation(chat: Chat) -> None:
    """Each message to oneself is there once."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "note")
    assert [m.text for m in history(chat, ann, "ann")] == ["note"]


def test_a_conversation_with_nobody_is_refused(chat: Chat) -> None:
    """A name that is no account answers UNKNOWN_ACCOUNT."""
    error = chat.refused(LIST_CONVERSATION, ListConversationRequest(username="nobody"), chat.account("ann"))
    assert (error.status, error.reason) == (Status.NOT_FOUND, "UNKNOWN_ACCOUNT")


# ---------------------------------------------------------------------- deleting


def test_a_deleted_message_is_gone_for_both(chat: Chat) -> None:
    """Sender or recipient deletes it, as often as they like; its place stays, its text does not."""
    ann, bob = filled(chat, 4)
    delete(chat, ann, "bob", 2)
    delete(chat, bob, "bob", 3)
    delete(chat, bob, "bob", 2)
    for context, name in ((ann, "bob"), (bob, "ann")):
        assert [(m.text, m.deleted) for m in history(chat, context, name, oldest_first=True)] == [
            ("1", False),
            ("", True),
            ("", True),
            ("4", False),
        ]
    assert acknowledge(chat, bob, 0).undelivered == 2
    assert pop(chat, bob) == ["1", "4"]


def test_what_is_deleted_does_not_wait(chat: Chat) -> None:
    """Undelivered counts what will be delivered, after a restart of the counters, too."""
    ann, bob = filled(chat, 5)
    for sequence in (1, 4, 5):
        delete(chat, ann, "bob", sequence)
    assert acknowledge(chat, bob, 0).undelivered == 2
    chat.app._store._writer._tx._by_id.clear()
    chat.app._store._writer._tx._by_name.clear()
    assert acknowledge(chat, bob, 0).undelivered == 2
    assert acknowledge(chat, bob, 2).undelivered == 1
    reader = chat.receive(bob)
    assert reader.texts() == ["3"]
    chat.send(ann, "bob", "6")
    assert reader.texts() == ["6"]
    assert acknowledge(chat, bob, 6) == AcknowledgeResponse(acknowledged=6, undelivered=0)


@pytest.mark.parametrize("version", [1, 2])
def test_a_stream_that_has_read_ahead_forgets_what_is_deleted(chat: Chat, version: int) -> None:
    """Messages a stream holds ready are not given out once their deletion was answered."""
    ann, bob = chat.account("ann"), chat.account("bob", version=version)
    for i in range(10):
        chat.send(ann, "bob", str(i))
    reader = chat.receive(bob)
    assert reader.texts(2) == ["0", "1"]
    for sequence in range(3, 10):
        delete(chat, ann, "bob", sequence)
    assert reader.texts() == ["9"]


def test_a_deletion_during_a_read_counts(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message deleted while a stream reads the store is not given out either."""
    ann, bob = filled(chat, 3)
    reader, store = chat.receive(bob), chat.app._store
    real = store.rows
    deleted: list[int] = []

    def slow(statement: str, *parameters: Any) -> Any:
        rows = real(statement, *parameters)
        if statement == store.sql.messages_after and not deleted:
            deleted.append(2)
            delete(chat, ann, "bob", 2)
        return rows

    monkeypatch.setattr(store, "rows", slow)
    assert reader.texts() == ["1", "3"]


@pytest.mark.parametrize(
    ("who", "recipient", "sequence"),
    [("eve", "bob", 1), ("bob", "ann", 1), ("ann", "bob", 2), ("ann", "bob", 0), ("ann", "bob", -5), ("ann", "zoe", 1)],
)
def test_other_peoples_messages_do_not_exist(chat: Chat, who: str, recipient: str, sequence: int) -> None:
    """A message of others is answered exactly as one that does not exist."""
    people = dict(zip(("ann", "bob"), filled(chat, 1), strict=True)) | {"eve": chat.account("eve")}
    request = DeleteMessageRequest(recipient=recipient, sequence=sequence)
    error = chat.refused(DELETE_MESSAGE, request, people[who])
    nothing = chat.refused(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=99), people["eve"])
    assert (error.status, error.reason, str(error)) == (Status.NOT_FOUND, "UNKNOWN_MESSAGE", str(nothing))
    assert pop(chat, people["bob"]) == ["1"]


# ---------------------------------------------------------------------- broadcasts


def broadcast(chat: Chat, context: FakeContext, pattern: str, text: str, key: bytes = b"") -> BroadcastResponse:
    return chat.call(BROADCAST, BroadcastRequest(pattern=pattern, text=text), FakeContext(key, context.identity))


def test_a_broadcast_goes_to_all_that_match_but_the_sender(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer counts who got it and whose mailbox is full; others get nothing."""
    people = {name: chat.account(name) for name in ("team-a", "team-b", "team-c", "zoe")}
    assert broadcast(chat, people["team-a"], "team-*", "one") == BroadcastResponse(recipients=2, full=0)
    pop(chat, people["team-c"])
    monkeypatch.setattr(mailboxes, "MAILBOX_MESSAGES", 1)
    assert broadcast(chat, people["team-a"], "*-?", "two") == BroadcastResponse(recipients=1, full=1)
    assert broadcast(chat, people["team-a"], "x*", "none") == BroadcastResponse(recipients=0, full=0)
    assert [pop(chat, context) for context in people.values()] == [[], ["one"], ["two"], []]


def test_a_broadcast_with_a_key_happens_once(chat: Chat) -> None:
    """Repeated with its key it answers the same counts and sends nothing; for something else the key is refused."""
    ann, bob = chat.account("ann"), chat.account("bob")
    assert broadcast(chat, ann, "*", "x", b"k") == BroadcastResponse(recipients=1, full=0)
    chat.account("carl")
    assert broadcast(chat, ann, "*", "x", b"k") == BroadcastResponse(recipients=1, full=0, duplicate=True)
    for request in (BroadcastRequest(pattern="*", text="y"), BroadcastRequest(pattern="b*", text="x")):
        error = chat.refused(BROADCAST, request, FakeContext(b"k", ann.identity))
        assert error.reason == "KEY_CONFLICT"
    with pytest.raises(CallError, match="KEY_CONFLICT"):
        chat.send(ann, "bob", "x", key=b"k")
    assert pop(chat, bob) == ["x"]


def test_a_broadcast_to_too_many_sends_nothing(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """More matches than the limit, and more names to look at than the budget, are refused whole."""
    people = [chat.account(f"p{i}") for i in range(4)]
    monkeypatch.setattr(broadcast_module, "BROADCAST_LIMIT", 3)
    error = chat.refused(BROADCAST, BroadcastRequest(pattern="p*", text="x"), people[0])
    assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "TOO_MANY_RECIPIENTS")
    assert [pop(chat, context) for context in people] == [[]] * 4
    for request, reason in (
        (BroadcastRequest(pattern="p%", text="x"), "BAD_PATTERN"),
        (BroadcastRequest(pattern="p1", text=""), "BAD_TEXT"),
    ):
        assert chat.refused(BROADCAST, request, people[0]).reason == reason


# ---------------------------------------------------------------------- passwords and guesses


def change(chat: Chat, context: FakeContext, old: str, new: str) -> int:
    return chat.call(CHANGE_PASSWORD, ChangePasswordRequest(password=old, new_password=new), context).sessions_ended


def test_a_changed_password_ends_the_other_sessions(chat: Chat) -> None:
    """The caller stays signed in; others, their streams and tokens end; only the new password works."""
    ann, phone = chat.account("ann"), FakeContext()
    token = chat.log_in("ann", phone).token
    mine, theirs = chat.receive(ann), chat.receive(phone)
    assert mine.take() == theirs.take() == []
    theirs.woken.clear()
    assert change(chat, ann, PASSWORD, "another password") == 1
    assert theirs.woken.wait(WAIT)
    with pytest.raises(CallError, match="SIGNED_OUT"):
        theirs.take()
    assert chat.app.authenticate(Metadata(authorization=f"Bearer {token}"), "127.0.0.1:1") is None
    chat.send(ann, "ann", "still here")
    assert mine.texts() == ["still here"]
    for request in (LogInRequest(username="ann", password=PASSWORD), LogInRequest(username="ann", token=token)):
        assert chat.refused(LOG_IN, request, FakeContext()).reason == "BAD_CREDENTIALS"
    chat.call(LOG_IN, LogInRequest(username="ann", password="another password"), FakeContext())


def test_a_password_is_changed_by_who_knows_it(chat: Chat) -> None:
    """A wrong old password, and a new one against the rule, change nothing."""
    ann = chat.account("ann")
    for old, new, reason in (("wrong", "another password", "BAD_CREDENTIALS"), (PASSWORD, "short", "BAD_PASSWORD")):
        error = chat.refused(CHANGE_PASSWORD, ChangePasswordRequest(password=old, new_password=new), ann)
        assert error.reason == reason
    chat.log_in("ann", FakeContext())


def test_a_log_in_that_overlaps_a_change_opens_no_session(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password verified before the change and used after it is refused, and may be tried again."""
    ann = chat.account("ann")
    real = chat.app._passwords.verify
    once = threading.Lock()

    def slow(stored: "str | None", normal: str) -> bool:
        good = real(stored, normal)
        if once.acquire(blocking=False):
            change(chat, ann, PASSWORD, "another password")
        return good

    monkeypatch.setattr(chat.app._passwords, "verify", slow)
    error = chat.refused(LOG_IN, LogInRequest(username="ann", password=PASSWORD), FakeContext())
    assert (error.reason, error.retry) == ("SERVER_BUSY", Retry.NOT_PROCESSED)
    assert chat.call(WHO_AM_I, WhoAmIRequest(), ann).sessions == 1


def guess(chat: Chat, name: str, password: str, peer: str = "198.51.100.7:4000") -> CallError:
    context = FakeContext()
    context.from_ = peer
    return chat.refused(LOG_IN, LogInRequest(username=name, password=password), context)


def enter(chat: Chat, name: str, peer: str, token: str = "") -> None:
    context = FakeContext()
    context.from_ = peer
    chat.log_in(name, context, token=token)


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_guesses_are_slowed_down(chat: Chat, clock: Clock, name: str) -> None:
    """After five failures each further try waits, 1 s to 15 min, doubling; whether the account exists or not."""
    chat.account("ann")
    assert {guess(chat, name, "wrong").reason for _ in range(5)} == {"BAD_CREDENTIALS"}
    waits = []
    for _ in range(13):
        error = guess(chat, name, PASSWORD)
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "THROTTLED")
        assert error.retry is Retry.NOT_PROCESSED
        waits.append(error.retry_after_ms)
        clock.move(seconds=error.retry_after_ms / 1000 - 0.001)
        assert guess(chat, name, PASSWORD).reason == "THROTTLED"
        clock.move(seconds=0.001)
        assert guess(chat, name, "wrong").reason == "BAD_CREDENTIALS"
    assert waits == [1000 * min(900, 2**i) for i in range(13)]


def test_nobody_is_locked_out_by_a_stranger(chat: Chat, clock: Clock) -> None:
    """From another network, and with a token from anywhere, the owner comes in; a success forgets the failures."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    for _ in range(5):
        guess(chat, "ann", "wrong")
    assert guess(chat, "ann", PASSWORD, "198.51.100.99:1").reason == "THROTTLED"
    enter(chat, "ann", "198.51.101.7:4000")
    enter(chat, "ann", "198.51.100.7:4000", token)
    clock.move(seconds=1)
    enter(chat, "ann", "198.51.100.7:4000")
    assert guess(chat, "ann", "wrong").reason == "BAD_CREDENTIALS"
    enter(chat, "ann", "198.51.100.7:4000")


def names(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


def test_one_network_may_try_so_many_names(chat: Chat, clock: Clock) -> None:
    """From one network 50 log-ins may fail at once whatever the names, and at most 100 in any hour; other networks, a
    token, and the machine itself are not held up."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    assert {guess(chat, name, "wrong").reason for name in names(50)} == {"BAD_CREDENTIALS"}
    error = guess(chat, "ann", PASSWORD)
    assert (error.reason, error.retry, error.retry_after_ms) == ("THROTTLED", Retry.NOT_PROCESSED, 72_000)
    enter(chat, "ann", "198.51.100.7:4000", token)
    enter(chat, "ann", "198.51.101.7:4000")
    assert {guess(chat, name, "wrong", "127.0.0.1:4").reason for name in names(120)} == {"BAD_CREDENTIALS"}
    evaluated = 50
    for number in range(2000):
        clock.move(seconds=1.8)
        evaluated += guess(chat, f"other{number}", "wrong").reason == "BAD_CREDENTIALS"
    assert 98 <= evaluated <= 100
    clock.move(days=1)
    assert {guess(chat, name, "wrong").reason for name in names(50)} == {"BAD_CREDENTIALS"}


def test_one_name_may_be_tried_so_often_from_everywhere(chat: Chat, clock: Clock) -> None:
    """From however many networks, 50 log-ins of one name may fail at once, and at most 100 in any hour; its owner's
    token and other names are not held up."""
    chat.account("ann")
    chat.account("bob")
    token = chat.log_in("ann", FakeContext()).token
    peers = [f"10.{number // 256}.{number % 256}.1:5" for number in range(2000)]
    assert {guess(chat, "ann", "wrong", peer).reason for peer in peers[:50]} == {"BAD_CREDENTIALS"}
    assert guess(chat, "ann", PASSWORD, peers[50]).reason == "THROTTLED"
    enter(chat, "ann", peers[50], token)
    enter(chat, "bob", peers[50])
    evaluated = 50
    for peer in peers:
        clock.move(seconds=1.8)
        evaluated += guess(chat, "ann", "wrong", peer).reason == "BAD_CREDENTIALS"
    assert 98 <= evaluated <= 100


def test_tries_at_once_count_together(chat: Chat) -> None:
    """Log-ins of many names under way at once count for their network until they are answered."""
    contexts = []
    for _ in range(120):
        context = FakeContext()
        context.from_ = "198.51.100.7:4000"
        contexts.append(context)
    reasons: Counter[str] = Counter()
    waiting: list[Any] = []
    for name, context in zip(names(120), contexts, strict=True):
        if len(waiting) == 20:
            reasons[waiting.pop(0).exception(WAIT).reason] += 1
        waiting.append(chat.start(LOG_IN, LogInRequest(username=name, password="wrong"), context))
    reasons.update(each.exception(WAIT).reason for each in waiting)
    assert reasons["BAD_CREDENTIALS"] <= 50
    assert set(reasons) == {"BAD_CREDENTIALS", "THROTTLED"}


def test_a_clock_set_back_does_not_hold_a_network_up_for_long(chat: Chat, clock: Clock) -> None:
    """After the clock went back by a year, whoever was throttled waits an hour and a bit, not a year."""
    for name in names(50):
        guess(chat, name, "wrong")
    clock.move(days=-365)
    assert guess(chat, "ann", "wrong").retry_after_ms <= 52 * 72_000


def test_a_restart_does_not_forget_guesses(store_path: Any, clock: Clock) -> None:
    """The count is in the store; after a day without a failure it is gone."""
    chat = Chat(store_path, clock)
    chat.account("ann")
    for _ in range(5):
        guess(chat, "ann", "wrong")
    chat.close()
    chat = Chat(store_path, clock)
    assert guess(chat, "ann", PASSWORD).reason == "THROTTLED"
    clock.move(days=1)
    assert guess(chat, "ann", "wrong").reason == "BAD_CREDENTIALS"
    enter(chat, "ann", "198.51.100.7:4000")
    chat.close()


def test_guesses_at_once_are_guesses(chat: Chat) -> None:
    """Log-ins under way count as failures until they are answered, so that many at once are not all tried."""
    chat.account("ann")
    tries = [chat.start(LOG_IN, LogInRequest(username="ann", password="wrong"), FakeContext()) for _ in range(30)]
    reasons = [error.reason for error in (each.exception(WAIT) for each in tries) if isinstance(error, CallError)]
    assert reasons.count("BAD_CREDENTIALS") <= 5
    assert set(reasons) == {"BAD_CREDENTIALS", "THROTTLED"}


def test_changing_a_password_is_guessing_too(chat: Chat) -> None:
    """Wrong old passwords count as failed log-ins."""
    ann = chat.account("ann")
    request = ChangePasswordRequest(password="wrong", new_password="another password")
    reasons = [chat.refused(CHANGE_PASSWORD, request, ann).reason for _ in range(6)]
    assert reasons == ["BAD_CREDENTIALS"] * 5 + ["THROTTLED"]


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("127.0.0.1:80", "127.0.0.0/24"),
        ("[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64"),
        ("[::ffff:198.51.100.7]:80", "198.51.100.0/24"),
        ("[fe80::1%eth0]:80", "fe80::/64"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_a_network_is_what_one_person_may_have(peer: str, network: str) -> None:
    """/24 of IPv4 and /64 of IPv6."""
    assert network_of(peer) == network


def test_no_wait_is_longer_than_a_quarter_of_an_hour() -> None:
    """Any number of failures has a wait, without a number that grows without bound."""
    assert [wait_after(failures) for failures in (0, 4, 5, 14, 15, 10**9)] == [0, 0, 1, 512, 900, 900]


# ---------------------------------------------------------------------- who, and when


def test_who_am_i_says_how_the_mailbox_stands(chat: Chat, clock: Clock) -> None:
    """Name, age, sessions, the acknowledged and the newest sequence, and what waits."""
    ann, bob = filled(chat, 4)
    created = moment(int(clock() * 1_000_000))
    clock.move(days=1)
    chat.log_in("bob", FakeContext())
    acknowledge(chat, bob, 1)
    delete(chat, ann, "bob", 3)
    answer = chat.call(WHO_AM_I, WhoAmIRequest(), bob)
    assert (answer.username, answer.created_at, answer.sessions) == ("bob", created, 2)
    assert (answer.acknowledged, answer.last_sequence, answer.undelivered) == (1, 4, 2)


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
