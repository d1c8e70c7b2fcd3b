"""Sending and popping: order, keys, quotas, and texts of every kind."""

import threading
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_service.fakes import WAIT, Chat, Clock, FakeContext
from wireproto import Retry, Status
from wireproto_chat.opcodes import (
    POP_UNDELIVERED,
    SEND_MESSAGE,
    PopUndeliveredRequest,
    SendMessageRequest,
    SendMessageResponse,
)
from wireproto_chat.service import mailboxes
from wireproto_chat.service.mailboxes import moment


def pop(chat: Chat, context: FakeContext, limit: int = 0) -> list[str]:
    return [m.text for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=limit), context).messages]


def test_a_sent_message_waits_for_its_recipient(chat: Chat, clock: Clock) -> None:
    """PopUndelivered answers what was sent: sequence, id, sender, text and time."""
    ann, bob = chat.account("ann"), chat.account("bob")
    clock.move(seconds=1.000001)
    sent = chat.send(ann, "bob", "hello")
    page = chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob)
    (message,) = page.messages
    assert (message.sequence, message.message_id) == (sent.sequence, sent.message_id) == (1, sent.message_id)
    assert (message.sender, message.text) == ("ann", "hello")
    assert message.sent_at == moment(int(clock() * 1_000_000))
    assert message.sent_at.utcoffset() == timedelta(0)
    assert page.remaining == 0
    assert len(sent.message_id) == 16


@pytest.mark.parametrize("microseconds", [0, 1, 1_800_000_001_000_001, 253_402_300_799_999_999])
def test_a_stored_time_comes_back_exactly(microseconds: int) -> None:
    """moment keeps every microsecond; a float would lose some."""
    assert (moment(microseconds) - moment(0)) // timedelta(microseconds=1) == microseconds


def test_popping_takes_pages_in_order_and_acknowledges_them(chat: Chat) -> None:
    """Each page has the next messages and says how many remain; none comes twice."""
    ann, bob = chat.account("ann"), chat.account("bob")
    for i in range(7):
        chat.send(ann, "bob", str(i))
    remaining = []
    texts = []
    for limit in (3, 3, 3, 3):
        page = chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=limit), bob)
        remaining.append(page.remaining)
        texts.append([m.text for m in page.messages])
    assert texts == [["0", "1", "2"], ["3", "4", "5"], ["6"], []]
    assert remaining == [4, 1, 0, 0]


def test_a_page_of_long_texts_is_cut_to_fit_a_frame(chat: Chat) -> None:
    """A page comes to 60,000 bytes in the worst codec; the rest comes next."""
    ann, bob = chat.account("ann"), chat.account("bob")
    for i in range(8):
        chat.send(ann, "bob", str(i) * 4_800)
    sizes = []
    while True:
        page = chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob)
        if not page.messages:
            break
        sizes.append(len(page.messages))
    assert sizes == [3, 3, 2]


def test_a_page_holds_a_message_longer_than_a_page(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text beyond the page's budget still comes, alone."""
    monkeypatch.setattr(mailboxes, "PAGE_BYTES", 100)
    ann = chat.account("ann")
    chat.send(ann, "ann", "x" * 16_384)
    chat.send(ann, "ann", "y")
    assert [pop(chat, ann)[0][0], pop(chat, ann)[0][0]] == ["x", "y"]


def test_an_unknown_recipient_is_refused(chat: Chat) -> None:
    """SendMessage to nobody answers UNKNOWN_RECIPIENT and names who was meant."""
    ann = chat.account("ann")
    for recipient in ("bob", "", "ANN", "ann ", "a|b", "x" * 5000, "\0"):
        error = chat.refused(SEND_MESSAGE, SendMessageRequest(recipient=recipient, text="hi"), ann)
        assert (error.status, error.reason) == (Status.NOT_FOUND, "UNKNOWN_RECIPIENT")
        assert len(error.message) < 200


@pytest.mark.parametrize("text", ["x", "x" * 16_384, "€" * 5461, "😀" * 4096])
def test_the_longest_text_is_accepted(chat: Chat, text: str) -> None:
    """1 to 16,384 bytes of UTF-8 make a message."""
    ann = chat.account("ann")
    chat.send(ann, "ann", text)
    assert pop(chat, ann) == [text]


@pytest.mark.parametrize("text", ["", "x" * 16_385, "€" * 5462])
def test_a_text_outside_the_limit_is_refused(chat: Chat, text: str) -> None:
    """BAD_TEXT says how long a message may be and how long this one is."""
    error = chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text=text), chat.account("ann"))
    assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "BAD_TEXT")
    assert f"this one is {len(text.encode())}" in error.message


HOSTILE = [
    "\0",
    "\x1b]0;owned\x07",
    "\x9b31m",
    "a|b\\c\\p",
    "line\r\nline\n\r",
    "\u2028\u2029\x85\x0b\x0c",
    "\u202e\u2066abc\u2069",
    "'; DROP TABLE messages; --",
    "%s %d {0} {x!r}",
    "\ufeff\ufffe\uffff\U0010ffff",
    "e\u0301 \u00e9 " + "\u0300" * 50,
]


def test_hostile_texts_are_kept_as_they_are(chat: Chat) -> None:
    """Escapes, NULs, separators and unnormalised letters come back byte for byte."""
    ann = chat.account("ann")
    for text in HOSTILE:
        chat.send(ann, "ann", text)
    assert pop(chat, ann) == HOSTILE


def test_any_text_is_kept_as_it_is(chat: Chat) -> None:
    """Whatever Unicode text is sent comes back equal."""
    ann = chat.account("ann")

    @settings(max_examples=50)
    @given(st.text(min_size=1, max_size=50))
    def check(text: str) -> None:
        chat.send(ann, "ann", text)
        assert pop(chat, ann) == [text]

    check()


# ---------------------------------------------------------------------- order


def test_concurrent_sends_are_dense_and_in_commit_order(chat: Chat) -> None:
    """Sends from many threads get the sequences 1 to n without a gap; each thread's own are in its order."""
    count, each = 8, 40
    senders = [chat.account(f"s{i}") for i in range(count)]
    bob = chat.account("bob")
    answered: list[list[int]] = [[] for _ in senders]
    start = threading.Barrier(count)

    def run(index: int) -> None:
        start.wait(WAIT)
        for i in range(each):
            answered[index].append(chat.send(senders[index], "bob", f"{index} {i}").sequence)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(number for numbers in answered for number in numbers) == list(range(1, count * each + 1))
    assert all(numbers == sorted(numbers) for numbers in answered)
    received = []
    while page := chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob).messages:
        received += page
    assert [m.sequence for m in received] == list(range(1, count * each + 1))
    expected = {number: f"{index} {i}" for index, numbers in enumerate(answered) for i, number in enumerate(numbers)}
    assert {m.sequence: m.text for m in received} == expected


def test_sends_in_flight_together_share_transactions(chat: Chat) -> None:
    """Many sends at once are committed in a few transactions, each answered with its own place."""
    ann, bob = chat.account("ann"), chat.account("bob")
    jobs, batches = chat.app.counts
    request = SendMessageRequest(recipient="bob", text="x")
    answers = [chat.start(SEND_MESSAGE, request, ann) for _ in range(500)]
    assert [answer.result(WAIT).sequence for answer in answers] == list(range(1, 501))
    assert len({answer.result().message_id for answer in answers}) == 500
    jobs, batches = chat.app.counts[0] - jobs, chat.app.counts[1] - batches
    assert jobs == 500
    assert batches <= 50
    assert chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=1), bob).remaining == 499


# ---------------------------------------------------------------------- idempotency


def test_the_same_key_and_content_answer_the_same(chat: Chat) -> None:
    """A repeated send with its key answers the first result and stores nothing."""
    ann, bob = chat.account("ann"), chat.account("bob")
    first = chat.send(ann, "bob", "once", key=b"k")
    assert not first.duplicate
    again = SendMessageResponse(message_id=first.message_id, sequence=first.sequence, duplicate=True)
    assert [chat.send(ann, "bob", "once", key=b"k") for _ in range(3)] == [again] * 3
    assert pop(chat, bob) == ["once"]
    assert chat.send(ann, "bob", "once", key=b"k") == again
    assert pop(chat, bob) == []


def test_the_same_key_within_one_transaction_is_one_message(chat: Chat) -> None:
    """Repetitions that the writer takes up together still make one message and one answer."""
    ann, bob = chat.account("ann"), chat.account("bob")
    request = SendMessageRequest(recipient="bob", text="once")
    answers = [chat.start(SEND_MESSAGE, request, FakeContext(b"k%d" % (i % 3), ann.identity)) for i in range(60)]
    results = [answer.result(WAIT) for answer in answers]
    assert len({(result.message_id, result.sequence) for result in results}) == 3
    assert sum(not result.duplicate for result in results) == 3
    assert pop(chat, bob) == ["once"] * 3


@pytest.mark.parametrize(("recipient", "text"), [("bob", "other"), ("ann", "once"), ("bo", "b\0once")])
def test_the_same_key_with_other_content_is_refused(chat: Chat, recipient: str, text: str) -> None:
    """Another text or recipient under a used key answers KEY_CONFLICT and stores nothing."""
    ann, bob = chat.account("ann"), chat.account("bob")
    chat.account("bo")
    chat.send(ann, "bob", "once", key=b"k")
    error = chat.refused(
        SEND_MESSAGE, SendMessageRequest(recipient=recipient, text=text), FakeContext(b"k", ann.identity)
    )
    assert (error.status, error.reason, error.retry) == (Status.ALREADY_EXISTS, "KEY_CONFLICT", Retry.NEVER)
    assert pop(chat, bob) == ["once"]
    assert pop(chat, ann) == []


def test_keys_belong_to_their_account(chat: Chat) -> None:
    """Two accounts may use one key."""
    ann, bob = chat.account("ann"), chat.account("bob")
    assert [chat.send(ann, "bob", "x", key=b"k").sequence, chat.send(bob, "bob", "y", key=b"k").sequence] == [1, 2]


def test_without_a_key_a_repetition_is_a_second_message(chat: Chat) -> None:
    """Sends without a key are never taken for one another."""
    ann = chat.account("ann")
    assert [chat.send(ann, "ann", "x").sequence for _ in range(2)] == [1, 2]


def test_a_refused_send_does_not_use_its_key_up(chat: Chat) -> None:
    """After UNKNOWN_RECIPIENT the same key sends, once the recipient exists."""
    ann = chat.account("ann")
    request = SendMessageRequest(recipient="bob", text="x")
    assert chat.refused(SEND_MESSAGE, request, FakeContext(b"k", ann.identity)).reason == "UNKNOWN_RECIPIENT"
    chat.account("bob")
    assert chat.send(ann, "bob", "x", key=b"k").sequence == 1


def test_a_key_lives_a_week_from_its_last_use(chat: Chat, clock: Clock) -> None:
    """Repetitions keep a key for seven days from each of them; two more days let it go, and then it makes a new
    message."""
    ann, store = chat.account("ann"), chat.app._store
    first = chat.send(ann, "ann", "x", key=b"k")

    def tidy() -> None:
        store.submit(store._writer._housekeeping()).result(WAIT)

    for days in (6, 0.9, 7, 7):
        clock.move(days=days)
        tidy()
        again = chat.send(ann, "ann", "x", key=b"k")
        assert (again.message_id, again.duplicate) == (first.message_id, True)
    clock.move(days=9)
    tidy()
    assert chat.send(ann, "ann", "x", key=b"k").sequence == 2


# ---------------------------------------------------------------------- quota


def test_a_full_mailbox_refuses_by_count(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the quota of messages sends answer MAILBOX_FULL, drop nothing, and go on when some were received."""
    monkeypatch.setattr(mailboxes, "MAILBOX_MESSAGES", 5)
    ann, bob = chat.account("ann"), chat.account("bob")
    for i in range(5):
        chat.send(ann, "bob", str(i))
    error = chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="6"), ann)
    assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "MAILBOX_FULL")
    assert "5 messages wait" in error.message
    assert pop(chat, bob, 2) == ["0", "1"]
    assert [chat.send(ann, "bob", "5").sequence, chat.send(ann, "bob", "6").sequence] == [6, 7]
    assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="7"), ann).reason == "MAILBOX_FULL"
    assert pop(chat, bob) == ["2", "3", "4", "5", "6"]


def test_a_full_mailbox_refuses_by_bytes(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quota of bytes counts the undelivered texts in UTF-8, exactly."""
    monkeypatch.setattr(mailboxes, "MAILBOX_BYTES", 10)
    ann, bob = chat.account("ann"), chat.account("bob")
    chat.send(ann, "bob", "€€€")
    assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="xx"), ann).reason == "MAILBOX_FULL"
    chat.send(ann, "bob", "x")
    assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="x"), ann).reason == "MAILBOX_FULL"
    assert pop(chat, bob, 1) == ["€€€"]
    chat.send(ann, "bob", "123456789")
    assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="bob", text="x"), ann).reason == "MAILBOX_FULL"


def test_the_quota_is_exact_within_one_transaction(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many sends at once, exactly as many succeed as the mailbox has room for."""
    monkeypatch.setattr(mailboxes, "MAILBOX_MESSAGES", 50)
    ann, bob = chat.account("ann"), chat.account("bob")
    answers = [chat.start(SEND_MESSAGE, SendMessageRequest(recipient="bob", text=str(i)), ann) for i in range(90)]
    errors = [answer.exception(WAIT) for answer in answers]
    assert [error is None for error in errors] == [True] * 50 + [False] * 40
    assert pop(chat, bob) == [str(i) for i in range(50)]
