"""Live delivery: everything undelivered, then what comes, once each and in order, and what acknowledging does."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chat_service.fakes import WAIT, Chat, Clock, FakeContext, Reader
from wireproto import CallError, Status
from wireproto_chat.opcodes import LOG_IN, WHO_AM_I, LogInRequest, ReceiveMessagesResponse, WhoAmIRequest
from wireproto_chat.service import live
from wireproto_chat.service.live import MAX_STREAMS, WINDOW
from wireproto_chat.store.tables import Query


def undelivered(chat: Chat, name: str) -> int:
    """How many messages wait, as a log-in says it."""
    return chat.log_in(name, FakeContext()).undelivered


def fill(chat: Chat, sender: FakeContext, to: str, count: int) -> list[str]:
    texts = [str(i) for i in range(count)]
    for text in texts:
        chat.send(sender, to, text)
    return texts


def test_a_stream_begins_with_what_waits(chat: Chat) -> None:
    """ReceiveMessages gives the undelivered messages first, with all their fields."""
    ann, bob = chat.account("ann"), chat.account("bob")
    sent = chat.send(ann, "bob", "hello")
    (item,) = chat.receive(bob).take()
    assert type(item) is ReceiveMessagesResponse
    assert (item.sequence, item.message_id, item.sender, item.text) == (1, sent.message_id, "ann", "hello")


def test_a_message_wakes_the_stream_after_its_commit(chat: Chat) -> None:
    """A send wakes the recipient's streams and nobody else's, and the next take has it."""
    ann, bob = chat.account("ann"), chat.account("bob")
    mine, theirs = chat.receive(ann), chat.receive(bob)
    assert theirs.take() == mine.take() == []
    theirs.woken.clear()
    mine.woken.clear()
    chat.send(ann, "bob", "live")
    assert theirs.woken.wait(WAIT)
    assert theirs.texts() == ["live"]
    assert theirs.take() == []
    assert not mine.woken.is_set()


@pytest.fixture
def reads(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> list[Query]:
    """The reads of messages the store was asked for, as they come."""
    seen: list[Query] = []
    store, real = chat.app._store, chat.app._store.raw

    def raw(query: Query, *parameters: Any) -> Sequence[Sequence[Any]]:
        if query == store.sql.messages_after:
            seen.append(query)
        return real(query, *parameters)

    monkeypatch.setattr(store, "raw", raw)
    return seen


def test_a_stream_that_is_up_to_date_does_not_read_the_store(chat: Chat, reads: list[Query]) -> None:
    """take reads once for what one wake brought, and not at all when nothing came."""
    ann, bob = chat.account("ann"), chat.account("bob")
    reader = chat.receive(bob)
    assert reader.take() == []
    fill(chat, ann, "bob", 20)
    assert len(reader.take()) == 20
    assert [reader.take() for _ in range(5)] == [[]] * 5
    assert len(reads) == 1


def test_a_client_that_takes_one_by_one_costs_one_read_for_many(chat: Chat, reads: list[Query]) -> None:
    """Taking single messages reads the store once for sixteen."""
    ann, bob = chat.account("ann"), chat.account("bob")
    texts = fill(chat, ann, "bob", 48)
    reader = chat.receive(bob)
    assert [reader.texts(1) for _ in texts] == [[text] for text in texts]
    assert len(reads) == 3


def test_the_window_holds_back_what_is_not_acknowledged(chat: Chat) -> None:
    """At most 64 unacknowledged messages are out; as many as are acknowledged come next, woken by that."""
    ann, bob = chat.account("ann"), chat.account("bob")
    texts = fill(chat, ann, "bob", WINDOW + 20)
    reader = chat.receive(bob)
    assert reader.texts() == texts[:WINDOW]
    assert reader.texts() == []
    reader.woken.clear()
    reader.acknowledge(5)
    assert reader.woken.wait(WAIT)
    assert reader.texts() == texts[WINDOW : WINDOW + 5]
    assert reader.texts() == []


def test_popping_makes_room_in_a_full_window(chat: Chat) -> None:
    """A stream that pauses after a window goes on by as many as were popped, woken by the pop."""
    ann, bob = chat.account("ann"), chat.account("bob")
    texts = fill(chat, ann, "bob", WINDOW + 10)
    reader = chat.receive(bob)
    assert reader.texts() == texts[:WINDOW]
    assert reader.texts() == []
    reader.woken.clear()
    assert chat.pop(bob, 4) == texts[:4]
    assert reader.woken.wait(WAIT)
    assert reader.texts() == texts[WINDOW : WINDOW + 4]
    assert reader.texts() == []


def test_an_acknowledgement_is_cumulative(chat: Chat) -> None:
    """What was acknowledged up to a message does not wait any more, durably; the next stream begins behind it."""
    ann, bob = chat.account("ann"), chat.account("bob")
    texts = fill(chat, ann, "bob", 10)
    reader = chat.receive(bob)
    assert reader.texts() == texts
    assert undelivered(chat, "bob") == 10
    reader.acknowledge(3)
    assert undelivered(chat, "bob") == 7
    reader.acknowledge(4)
    reader.close()
    assert undelivered(chat, "bob") == 6
    assert chat.receive(bob).texts() == texts[4:]


def test_what_was_not_acknowledged_comes_again(chat: Chat) -> None:
    """Messages that were taken but not acknowledged are on the next stream again, in order."""
    ann, bob = chat.account("ann"), chat.account("bob")
    texts = fill(chat, ann, "bob", 5)
    for _ in range(3):
        reader = chat.receive(bob)
        assert reader.texts() == texts
        reader.close()


def test_after_skips_what_the_client_has(chat: Chat) -> None:
    """A stream with `after` starts behind it, but acknowledges nothing by that; what is acknowledged then counts from
    the start of the mailbox."""
    ann, bob = chat.account("ann"), chat.account("bob")
    texts = fill(chat, ann, "bob", 6)
    reader = chat.receive(bob, after=4)
    assert reader.texts() == texts[4:]
    assert undelivered(chat, "bob") == 6
    reader.acknowledge(5)
    assert undelivered(chat, "bob") == 1
    reader.close()
    assert chat.receive(bob, after=2).texts() == texts[5:]


@pytest.mark.parametrize("after", [-1, 4, 2**62])
def test_an_after_that_never_was_is_refused(chat: Chat, after: int) -> None:
    """BAD_AFTER answers a sequence that this mailbox has not given out."""
    ann, bob = chat.account("ann"), chat.account("bob")
    fill(chat, ann, "bob", 3)
    with pytest.raises(CallError, match="BAD_AFTER") as caught:
        chat.receive(bob, after=after).take()
    assert caught.value.status is Status.OUT_OF_RANGE


def test_every_stream_of_an_account_gets_everything(chat: Chat) -> None:
    """Two streams each get all messages; the furthest acknowledgement counts and none goes back."""
    ann, bob = chat.account("ann"), chat.account("bob")
    phone, desk = chat.receive(bob), chat.receive(bob)
    texts = fill(chat, ann, "bob", 6)
    assert phone.texts() == desk.texts() == texts
    phone.acknowledge(5)
    assert undelivered(chat, "bob") == 1
    desk.acknowledge(2)
    assert undelivered(chat, "bob") == 1
    desk.acknowledge(6)
    assert undelivered(chat, "bob") == 0


def test_popping_beside_a_stream_loses_nothing(chat: Chat) -> None:
    """What PopUndelivered takes still comes on an open stream, and its late acknowledgement changes nothing."""
    ann, bob = chat.account("ann"), chat.account("bob")
    reader = chat.receive(bob)
    texts = fill(chat, ann, "bob", 4)
    assert chat.pop(bob, 3) == texts[:3]
    # Opened, but nothing taken yet: it starts behind what is acknowledged when it first looks.
    assert reader.texts() == texts[3:]
    reader.acknowledge(2)
    assert undelivered(chat, "bob") == 1
    reader.acknowledge(4)
    assert undelivered(chat, "bob") == 0


def test_too_many_streams_are_refused(chat: Chat) -> None:
    """An account may have 16 streams open; a closed one makes room."""
    bob = chat.account("bob")
    readers = [chat.receive(bob) for _ in range(MAX_STREAMS)]
    with pytest.raises(CallError, match="TOO_MANY_STREAMS"):
        chat.receive(bob)
    readers[3].close()
    chat.receive(bob)


def test_closing_twice_or_late_harms_nothing(chat: Chat) -> None:
    """close of one stream leaves the account's others registered."""
    ann, bob = chat.account("ann"), chat.account("bob")
    one, two = chat.receive(bob), chat.receive(bob)
    one.close()
    one.close()
    two.take()
    two.woken.clear()
    chat.send(ann, "bob", "still here")
    assert two.woken.wait(WAIT)
    assert two.texts() == ["still here"]


def test_an_expired_session_ends_its_stream(chat: Chat, clock: Clock) -> None:
    """A stream ends SIGNED_OUT when its session has lived for thirty days."""
    chat.account("ann")
    context = FakeContext()
    chat.call(LOG_IN, LogInRequest(username="ann", password="correct horse battery"), context)
    reader = chat.receive(context)
    assert reader.take() == []
    clock.move(days=30)
    with pytest.raises(CallError, match="SIGNED_OUT"):
        reader.take()


def test_no_wake_up_is_lost(chat: Chat) -> None:
    """Streams opened at any moment while messages come in get each one, without a look at a clock."""
    ann, bob = chat.account("ann"), chat.account("bob")
    total, rounds = 300, 12
    failures: list[str] = []
    start = threading.Barrier(rounds + 1)

    def receive() -> None:
        start.wait(WAIT)
        reader = chat.receive(bob)
        seen: list[int] = []
        while len(seen) < total:
            reader.woken.clear()
            items = reader.take()
            seen += [item.sequence for item in items]
            if items and len(seen) > 32:
                reader.acknowledge(seen[-1])
            if not items and len(seen) < total and not reader.woken.wait(WAIT):
                failures.append(f"slept at {seen[-3:]}")
                break
            if seen and seen[-1] == total:
                break
        if seen != list(range(seen[0] if seen else 0, total + 1)):
            failures.append(f"gap in {seen}")
        reader.close()

    threads = [threading.Thread(target=receive) for _ in range(rounds)]
    for thread in threads:
        thread.start()
    start.wait(WAIT)
    for i in range(total):
        chat.send(ann, "bob", str(i))
    for thread in threads:
        thread.join(60)
    assert not failures


SMALL = 4
"""What the server is told its window is, so that short runs fill it."""


class Delivery(RuleBasedStateMachine):
    """One mailbox with several readers against a list: what a reader takes, what waits, what comes again."""

    chat: Chat

    def __init__(self) -> None:
        super().__init__()
        number = next(_numbers)
        self.ann, self.bob_name = self.chat.account(f"a{number}"), f"b{number}"
        self.bob = self.chat.account(self.bob_name)
        self.sent: list[str] = []
        self.acked = 0
        self.readers: list[tuple[Reader, list[int]]] = []

    @initialize()
    def begin(self) -> None:
        self.send("first")

    @rule(text=st.text(min_size=1, max_size=5))
    def send(self, text: str) -> None:
        self.sent.append(text)
        assert self.chat.send(self.ann, self.bob_name, text).sequence == len(self.sent)

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def open(self) -> None:
        reader = self.chat.receive(self.bob)
        first = reader.take(1)
        assert [item.sequence for item in first] == [self.acked + 1][: len(self.sent) - self.acked]
        # Without a first message the next one is it.
        self.readers.append((reader, [self.acked, *(item.sequence for item in first)]))

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), most=st.integers(1, 6))
    def take(self, data: st.DataObject, most: int) -> None:
        reader, seen = data.draw(st.sampled_from(self.readers))
        items = reader.take(most)
        room = SMALL - sum(sequence > self.acked for sequence in seen[1:])
        there = max(0, min(most, room, len(self.sent) - seen[-1]))
        # What it has read ahead is given out first; the rest is read by the next take.
        assert min(1, there) <= len(items) <= there
        assert [(item.sequence, item.text) for item in items] == [
            (seen[-1] + 1 + place, self.sent[seen[-1] + place]) for place in range(len(items))
        ]
        seen += [item.sequence for item in items]

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        reader, seen = data.draw(st.sampled_from(self.readers))
        sequence = data.draw(st.integers(0, seen[-1]))
        reader.acknowledge(sequence)
        self.acked = max(self.acked, sequence)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        reader, _ = data.draw(st.sampled_from(self.readers))
        self.readers = [pair for pair in self.readers if pair[0] is not reader]
        reader.close()

    @rule(limit=st.integers(1, 5))
    def pop(self, limit: int) -> None:
        page = self.chat.pop(self.bob, limit)
        assert page == self.sent[self.acked : self.acked + limit]
        self.acked += len(page)

    @invariant()
    def what_waits_is_what_is_not_acknowledged(self) -> None:
        found = self.chat.call(WHO_AM_I, WhoAmIRequest(), self.bob)
        assert (found.acknowledged, found.undelivered) == (self.acked, len(self.sent) - self.acked)

    def teardown(self) -> None:
        for reader, _ in self.readers:
            reader.close()


_numbers = iter(range(10**9))


def test_delivery_agrees_with_a_model(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent, taken, acknowledged, popped and closed in any order, each reader sees its part in order, and no
    more of it than a window."""
    monkeypatch.setattr(live, "WINDOW", SMALL)
    Delivery.chat = chat
    run_state_machine_as_test(Delivery, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))
