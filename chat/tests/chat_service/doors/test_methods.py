"""More of what each method does, through each door: acknowledging, conversations, deleting, broadcasts, passwords, and
who one is."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from chat_service.doors.conftest import Scene
from chat_service.doors.people import Person
from chat_service.doors.test_service import refused, texts
from chat_service.fakes import PASSWORD
from wireproto import Status
from wireproto_chat.opcodes import AcknowledgeResponse, BroadcastResponse, ConversationMessage
from wireproto_chat.service import broadcast, mailboxes


def filled(scene: Scene, count: int) -> tuple[Person, Person]:
    ann, bob = scene.account("ann"), scene.account("bob")
    for i in range(1, count + 1):
        ann.send(bob.name, str(i))
    return ann, bob


def history(person: Person, other: Person, **how: Any) -> list[ConversationMessage]:
    return person.conversation(other.name, **how).messages


def popped(person: Person) -> list[str]:
    return [message.text for message in person.pop().messages]


# ---------------------------------------------------------------------- acknowledging


def test_an_acknowledgement_is_cumulative_and_never_goes_back(scene: Scene) -> None:
    """Acknowledge takes everything up to its sequence, answers the furthest, and survives being sent late."""
    _, bob = filled(scene, 5)
    with bob.receive(by_itself=False) as inbox:
        assert texts(inbox, 5) == ["1", "2", "3", "4", "5"]
    assert bob.acknowledge(3) == AcknowledgeResponse(acknowledged=3, undelivered=2)
    assert bob.acknowledge(1) == AcknowledgeResponse(acknowledged=3, undelivered=2)
    assert bob.acknowledge(0) == AcknowledgeResponse(acknowledged=3, undelivered=2)
    with bob.receive(by_itself=False) as inbox:
        assert texts(inbox, 2) == ["4", "5"]
    assert bob.acknowledge(5) == AcknowledgeResponse(acknowledged=5, undelivered=0)


@pytest.mark.parametrize("sequence", [-1, 4, 2**63 - 1])
def test_what_does_not_exist_cannot_be_acknowledged(scene: Scene, sequence: int) -> None:
    """A sequence that no message has is refused and changes nothing."""
    _, bob = filled(scene, 3)
    error = refused(lambda: bob.acknowledge(sequence))
    assert (error.status, error.reason) == (Status.OUT_OF_RANGE, "ACKNOWLEDGED_TOO_MUCH")
    assert bob.acknowledge(0) == AcknowledgeResponse(acknowledged=0, undelivered=3)


def test_receiving_does_not_acknowledge(scene: Scene) -> None:
    """However often a stream was read and its credit returned, all comes again until Acknowledge says otherwise."""
    _, bob = filled(scene, 10)
    for _ in range(2):
        with bob.receive(credit=4, by_itself=False) as inbox:
            assert texts(inbox, 10) == [str(i) for i in range(1, 11)]
    assert bob.acknowledge(0).undelivered == 10


# ---------------------------------------------------------------------- conversations


def test_a_conversation_has_both_directions_in_order(scene: Scene) -> None:
    """Both sides see the same messages in the order of acceptance, and nothing of a third."""
    ann, bob, eve = (scene.account(name) for name in ("ann", "bob", "eve"))
    for i in range(3):
        ann.send(bob.name, f"a{i}")
        eve.send(bob.name, "aside")
        eve.send(ann.name, "aside")
        bob.send(ann.name, f"b{i}")
    sent = bob.send(ann.name, "last")
    theirs = history(ann, bob)
    assert [m.text for m in theirs] == ["last", "b2", "a2", "b1", "a1", "b0", "a0"]
    assert history(bob, ann) == theirs
    assert history(bob, ann, oldest_first=True) == theirs[::-1]
    newest = theirs[0]
    assert (newest.sender, newest.recipient, newest.deleted) == (bob.name, ann.name, False)
    assert (newest.message_id, newest.sequence) == (sent.message_id, sent.sequence)
    assert abs(newest.sent_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert history(eve, eve) == []


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_conversation_is_read_page_by_page(scene: Scene, limit: int, oldest_first: bool) -> None:
    """Pages, each begun where the last one ended, have every message once."""
    ann, bob = scene.account("ann"), scene.account("bob")
    for i in range(13):
        ann.send(bob.name, str(i)) if i % 3 else bob.send(ann.name, str(i))
    found: list[str] = []
    position = 0
    more = True
    while more:
        where = {"after" if oldest_first else "before": position}
        page = ann.conversation(bob.name, limit=limit, oldest_first=oldest_first, **where)
        assert len(page.messages) == min(limit, 13 - len(found))
        found += [m.text for m in page.messages]
        position, more = page.messages[-1].position, page.more
    expected = [str(i) for i in range(13)]
    assert found == (expected if oldest_first else expected[::-1])


def test_a_page_of_long_texts_fits_a_frame(scene: Scene) -> None:
    """Texts that would not fit together come on the next page, and `more` says so."""
    ann = scene.account("ann")
    for i in range(9):
        ann.send(ann.name, str(i) * 5000)
    page = ann.conversation(ann.name)
    assert [m.text[0] for m in page.messages] == ["8", "7"]
    assert page.more


def test_notes_to_oneself_are_a_conversation(scene: Scene) -> None:
    """Each message to oneself is there once."""
    ann = scene.account("ann")
    ann.send(ann.name, "note")
    assert [m.text for m in history(ann, ann)] == ["note"]


# ---------------------------------------------------------------------- deleting


def test_a_deleted_message_is_gone_for_both(scene: Scene) -> None:
    """Sender or recipient deletes it, as often as they like; its place stays, its text does not."""
    ann, bob = filled(scene, 4)
    ann.delete_message(bob.name, 2)
    bob.delete_message(bob.name, 3)
    bob.delete_message(bob.name, 2)
    for person, other in ((ann, bob), (bob, ann)):
        assert [(m.sequence, m.text, m.deleted) for m in history(person, other, oldest_first=True)] == [
            (1, "1", False),
            (2, "", True),
            (3, "", True),
            (4, "4", False),
        ]
    assert bob.acknowledge(0).undelivered == 2
    with bob.receive(by_itself=False) as inbox:
        assert texts(inbox, 2) == ["1", "4"]
    assert popped(bob) == ["1", "4"]


@pytest.mark.parametrize(
    ("who", "recipient", "sequence"),
    [("eve", "bob", 1), ("bob", "ann", 1), ("ann", "bob", 2), ("ann", "bob", 0), ("ann", "bob", -5), ("ann", "zoe", 1)],
)
def test_other_peoples_messages_do_not_exist(scene: Scene, who: str, recipient: str, sequence: int) -> None:
    """A message of others is answered exactly as one that does not exist."""
    ann, bob = filled(scene, 1)
    people = {"ann": ann, "bob": bob, "eve": scene.account("eve")}
    error = refused(lambda: people[who].delete_message(scene.name(recipient), sequence))
    nothing = refused(lambda: people["eve"].delete_message(bob.name, 99))
    assert (error.status, error.reason, str(error)) == (Status.NOT_FOUND, "UNKNOWN_MESSAGE", str(nothing))
    assert popped(bob) == ["1"]


# ---------------------------------------------------------------------- broadcasts


def test_a_broadcast_goes_to_all_that_match_but_the_sender(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer counts who got it and whose mailbox is full; others get nothing."""
    team = [scene.account(f"team-{letter}") for letter in "abc"]
    zoe = scene.account("zoe")
    assert team[0].broadcast(scene.name("team-*"), "one") == BroadcastResponse(recipients=2, full=0)
    assert popped(team[2]) == ["one"]
    monkeypatch.setattr(mailboxes, "MAILBOX_MESSAGES", 1)
    assert team[0].broadcast(scene.name("*-?"), "two") == BroadcastResponse(recipients=1, full=1)
    assert team[0].broadcast(scene.name("x*"), "none") == BroadcastResponse(recipients=0, full=0)
    assert [popped(person) for person in (*team, zoe)] == [[], ["one"], ["two"], []]


def test_a_broadcast_comes_live(scene: Scene) -> None:
    """Open streams get it as they get any message."""
    ann, bob = scene.account("ann"), scene.account("bob")
    with bob.receive() as inbox:
        ann.broadcast(scene.name("*"), "live")
        item = inbox.next()
        assert (item.sender, item.text, item.sequence) == (ann.name, "live", 1)


def test_a_broadcast_with_a_key_happens_once(scene: Scene) -> None:
    """Repeated with its key it answers the same counts and sends nothing; for something else the key is refused."""
    ann, bob = scene.account("ann"), scene.account("bob")
    assert ann.broadcast(scene.name("*"), "x", b"k") == BroadcastResponse(recipients=1, full=0)
    scene.account("carl")
    assert ann.broadcast(scene.name("*"), "x", b"k") == BroadcastResponse(recipients=1, full=0, duplicate=True)
    for pattern, text in (("*", "y"), ("b*", "x")):
        assert refused(partial(ann.broadcast, scene.name(pattern), text, b"k")).reason == "KEY_CONFLICT"
    assert refused(lambda: ann.send(bob.name, "x", b"k")).reason == "KEY_CONFLICT"
    assert popped(bob) == ["x"]


def test_a_broadcast_to_too_many_sends_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """More matches than the limit are refused whole."""
    people = [scene.account(f"p{i}") for i in range(4)]
    monkeypatch.setattr(broadcast, "BROADCAST_LIMIT", 3)
    error = refused(lambda: people[0].broadcast(scene.name("p*"), "x"))
    assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "TOO_MANY_RECIPIENTS")
    assert [popped(person) for person in people] == [[]] * 4


# ---------------------------------------------------------------------- who, and by which password


def test_a_changed_password_ends_the_other_sessions(scene: Scene) -> None:
    """The caller stays signed in; others, their streams and tokens end; only the new password works."""
    ann, phone = scene.account("ann"), scene.again("ann")
    with ann.receive() as mine, phone.receive() as theirs:
        theirs.wait_until_open()
        assert phone.who_am_i().sessions == 2
        assert ann.change_password(PASSWORD, "another password") == 1
        assert refused(theirs.next).reason == "SIGNED_OUT"
        ann.send(ann.name, "still here")
        assert mine.next().text == "still here"
    assert refused(phone.who_am_i).reason == "SIGN_IN_REQUIRED"
    assert refused(lambda: scene.person("ann").log_in(token=phone.token)).reason == "BAD_CREDENTIALS"
    assert refused(lambda: scene.person("ann").log_in()).reason == "BAD_CREDENTIALS"
    scene.person("ann").log_in("another password")
    assert ann.who_am_i().sessions == 2


def test_who_am_i_says_how_the_mailbox_stands(scene: Scene) -> None:
    """Name, age, sessions, the acknowledged and the newest sequence, and what waits."""
    ann, bob = filled(scene, 4)
    scene.again("bob")
    with bob.receive(by_itself=False) as inbox:
        assert texts(inbox, 1) == ["1"]
    bob.acknowledge(1)
    ann.delete_message(bob.name, 3)
    answer = bob.who_am_i()
    assert abs(answer.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert (answer.username, answer.sessions) == (bob.name, 2)
    assert (answer.acknowledged, answer.last_sequence, answer.undelivered) == (1, 4, 2)
