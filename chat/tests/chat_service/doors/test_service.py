"""The whole service through each door: what every method does, as a client in the field sees it."""

from collections.abc import Callable
from functools import partial

import pytest

from chat_service.doors.conftest import Scene
from chat_service.doors.people import CODECS, DOORS, PATIENCE, Door, Inbox, eventually
from chat_service.test_mailboxes import HOSTILE
from wireproto import CallError, Status, codecs
from wireproto_chat.opcodes import SEND_MESSAGE, SendMessageRequest


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


def texts(inbox: Inbox, count: int) -> list[str]:
    return [inbox.next().text for _ in range(count)]


def waiting(scene: Scene, name: str) -> int:
    """How many messages wait for somebody, as a log-in says it."""
    with scene.person(name) as person:
        return person.log_in().undelivered


def test_these_are_all_the_doors() -> None:
    """The suite runs over every codec that comes with the framework, and gRPC."""
    assert codecs.names()[:3] == list(CODECS)
    assert set(DOORS) == {*CODECS, "grpc"}


# ---------------------------------------------------------------------- sending and receiving


def test_two_people_chat(scene: Scene) -> None:
    """Messages arrive live, both ways, in order, while both streams are open."""
    ann, bob = scene.account("ann"), scene.account("bob")
    with ann.receive() as to_ann, bob.receive() as to_bob:
        for i in range(10):
            sent = ann.send(bob.name, f"ping {i}")
            item = to_bob.next()
            assert (item.sender, item.text, item.sequence) == (ann.name, f"ping {i}", i + 1)
            assert (item.message_id, item.sequence) == (sent.message_id, sent.sequence)
            bob.send(ann.name, f"pong {i}")
            item = to_ann.next()
            assert (item.sender, item.text, item.sequence) == (bob.name, f"pong {i}", i + 1)


def test_undelivered_messages_come_first_then_live_ones(scene: Scene) -> None:
    """A stream gives what waited, more than a window of it, then what comes, each once."""
    ann, bob = scene.account("ann"), scene.account("bob")
    sent = [ann.send(bob.name, f"waited {i}") for i in range(70)]
    with bob.receive() as inbox:
        items = [inbox.next() for _ in range(70)]
        sent += [ann.send(bob.name, f"live {i}") for i in range(10)]
        items += [inbox.next() for _ in range(10)]
        with pytest.raises(TimeoutError):
            inbox.next(0.02)
    assert [(item.message_id, item.sequence) for item in items] == [(one.message_id, one.sequence) for one in sent]
    assert [item.text for item in items] == [f"waited {i}" for i in range(70)] + [f"live {i}" for i in range(10)]


def test_what_was_not_acknowledged_comes_again(scene: Scene) -> None:
    """After a connection that vanished, what had come and was not acknowledged is delivered again."""
    ann, bob = scene.account("ann"), scene.account("bob")
    for i in range(10):
        ann.send(bob.name, str(i))
    inbox = bob.receive()
    assert texts(inbox, 6) == ["0", "1", "2", "3", "4", "5"]
    # Asking for the sixth acknowledged the fifth.
    assert waiting(scene, "bob") == 5
    bob.close()
    with scene.again("bob").receive() as inbox:
        assert texts(inbox, 5) == ["5", "6", "7", "8", "9"]


def test_a_stream_begins_behind_what_the_client_has(scene: Scene) -> None:
    """`after` leaves out what is known already, acknowledged or not."""
    ann = scene.account("ann")
    for i in range(1, 6):
        ann.send(ann.name, str(i))
    with ann.receive(after=3) as inbox:
        assert texts(inbox, 2) == ["4", "5"]


def test_hostile_texts_are_carried_as_they_are(scene: Scene) -> None:
    """Any text a codec can carry comes back equal, by stream and by page."""
    ann = scene.account("ann")
    with ann.receive() as inbox:
        for text in HOSTILE:
            ann.send(ann.name, text)
            assert inbox.next().text == text
        inbox.acknowledge()
    assert waiting(scene, "ann") == 0
    for text in HOSTILE:
        ann.send(ann.name, text)
    assert [message.text for message in ann.pop().messages] == HOSTILE


def test_the_longest_texts_fit_a_page_and_a_frame(scene: Scene) -> None:
    """Pages of the longest texts, of characters that a codec writes longest, still arrive."""
    ann = scene.account("ann")
    sent = [char * (16_384 // len(char.encode())) for char in ",|\\\0€😀"]
    for text in sent:
        ann.send(ann.name, text)
    received: list[str] = []
    while page := ann.pop().messages:
        received += [message.text for message in page]
    assert received == sent


def test_pages_are_taken_in_order_and_acknowledged(scene: Scene) -> None:
    """PopUndelivered gives the oldest, no more than asked for, all fields, and says what is left."""
    ann, bob = scene.account("ann"), scene.account("bob")
    sent = [ann.send(bob.name, str(i)) for i in range(1, 8)]
    page = bob.pop(3)
    assert [(one.sequence, one.sender, one.text) for one in page.messages] == [(i, ann.name, str(i)) for i in (1, 2, 3)]
    assert [one.message_id for one in page.messages] == [one.message_id for one in sent[:3]]
    assert page.messages[0].sent_at <= page.messages[2].sent_at
    assert page.remaining == 4
    assert [one.text for one in bob.pop().messages] == ["4", "5", "6", "7"]
    assert bob.pop() == type(page)(messages=[], remaining=0)


def test_a_key_makes_a_repetition_safe(scene: Scene) -> None:
    """The same key and message answer the same, and that it is a repetition; without a key it is a second message."""
    ann, bob = scene.account("ann"), scene.account("bob")
    first, again = (ann.send(bob.name, "once", key=b"k") for _ in range(2))
    assert (again.message_id, again.sequence) == (first.message_id, first.sequence)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert bob.send(bob.name, "another's key", key=b"k").sequence == 2
    ann.send(bob.name, "twice")
    ann.send(bob.name, "twice")
    assert [one.text for one in bob.pop().messages] == ["once", "another's key", "twice", "twice"]


def test_many_sends_in_flight_on_one_connection(scene: Scene) -> None:
    """A connection may have many sends in flight; each is answered with its own place, and they share commits."""
    ann = scene.account("ann")
    jobs, batches = scene.house.app.counts
    requests = (SendMessageRequest(recipient=ann.name, text=str(i)) for i in range(200))
    answers = list(ann.client.call_many(SEND_MESSAGE, requests, timeout=PATIENCE))
    assert sorted(answer.sequence for answer in answers) == list(range(1, 201))
    jobs, batches = scene.house.app.counts[0] - jobs, scene.house.app.counts[1] - batches
    assert jobs >= 200
    assert batches < 150
    by_sequence = {answer.sequence: str(i) for i, answer in enumerate(answers)}
    assert all(by_sequence[message.sequence] == message.text for message in ann.pop().messages)


@pytest.mark.parametrize("other", DOORS)
def test_people_at_different_doors_chat(scene: Scene, other: Door) -> None:
    """What is sent through one door is received through another."""
    ann, bob = scene.account("ann"), scene.account("bob", other)
    with bob.receive() as to_bob, ann.receive() as to_ann:
        ann.send(bob.name, "a|b\\c\0€")
        assert to_bob.next().text == "a|b\\c\0€"
        bob.send(ann.name, "{x:[y]},(z)")
        assert to_ann.next().text == "{x:[y]},(z)"


# ---------------------------------------------------------------------- accounts and sessions


def test_a_log_in_answers_a_token_and_what_waits(scene: Scene) -> None:
    """The token is 43 characters, another one each time, and resumes its session by LogIn."""
    ann = scene.account("ann")
    ann.send(ann.name, "one")
    phone = scene.person("ann")
    answer = phone.log_in()
    assert (len(answer.token), answer.undelivered) == (43, 1)
    assert answer.token != ann.token
    tablet = scene.person("ann")
    assert tablet.log_in(token=answer.token) == answer
    assert tablet.send(ann.name, "two").sequence == 2


def test_a_token_stands_for_a_log_in(scene: Scene) -> None:
    """A connection that never logged in may call with `authorization`; a bad token is nobody."""
    ann, other = scene.account("ann"), scene.person("nobody")
    request = SendMessageRequest(recipient=ann.name, text="by token")
    assert other.call(SEND_MESSAGE, request, authorization=f"Bearer {ann.token}").sequence == 1
    for worthless in ("", f"Bearer {'x' * 43}", ann.token, f"Basic {ann.token}"):
        error = refused(partial(other.call, SEND_MESSAGE, request, authorization=worthless))
        assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED")
    assert ann.pop().messages[0].sender == ann.name


def test_accounts_and_messages_survive_a_restart(own: Scene) -> None:
    """After the server was stopped and started, old clients find their accounts, messages, keys and sessions."""
    ann, bob = own.account("ann"), own.account("bob")
    first = ann.send(bob.name, "before", key=b"k")
    for person in (ann, bob):
        person.close()
    own.house.stop()
    own.house.start()
    again, bob = own.person("ann"), own.again("bob")
    assert again.log_in(token=ann.token).token == ann.token
    repeated = again.send(bob.name, "before", key=b"k")
    assert (repeated.message_id, repeated.sequence) == (first.message_id, first.sequence)
    with bob.receive() as inbox:
        assert inbox.next().text == "before"
        again.send(bob.name, "after")
        assert inbox.next().text == "after"


def test_logging_out_ends_the_streams(scene: Scene) -> None:
    """A stream that waits is ended by LogOut, SIGNED_OUT, and its token with it; another session's goes on."""
    ann = scene.account("ann")
    phone = scene.again("ann")
    with ann.receive(by_itself=False) as ended, phone.receive(by_itself=False) as stays:
        phone.send(ann.name, "before")
        assert ended.next().text == stays.next().text == "before"
        ann.log_out()
        error = refused(ended.next)
        assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGNED_OUT")
        phone.send(ann.name, "after")
        assert stays.next().text == "after"
    token = ann.token
    assert refused(lambda: ann.log_in(token=token)).reason == "BAD_CREDENTIALS"
    ann.log_in()
    assert ann.token != token


def test_deleting_an_account_ends_it_everywhere(scene: Scene) -> None:
    """DeleteAccount is refused while messages wait, then ends the other sessions, and frees nothing of the name."""
    ann, bob = scene.account("ann"), scene.account("bob")
    phone = scene.again("ann")
    with phone.receive(by_itself=False) as inbox:
        bob.send(ann.name, "one")
        assert inbox.next().text == "one"
        bob.send(ann.name, "two")
        error = refused(ann.delete_account)
        assert (error.reason, error.message[:2]) == ("UNDELIVERED_MESSAGES", "2 ")
        assert ann.delete_account(force=True) == 2
        # What was under way may still come, but then the stream ends.
        assert refused(lambda: texts(inbox, 2)).reason == "SIGNED_OUT"
    assert refused(lambda: phone.list("*")).reason == "SIGN_IN_REQUIRED"
    assert refused(lambda: bob.send(ann.name, "late")).reason == "UNKNOWN_RECIPIENT"
    assert refused(lambda: scene.account("ann")).reason == "NAME_TAKEN"
    assert refused(lambda: scene.again("ann")).reason == "BAD_CREDENTIALS"
    assert [one.username for one in bob.list(scene.name("*")).accounts] == [bob.name]


def test_a_list_shows_who_is_online(scene: Scene) -> None:
    """WildCard names the matching accounts, pages on, and shows whose stream is open, and since when not."""
    ann, bob, carl = (scene.account(name) for name in ("ann", "bob", "carl"))

    def shown(pattern: str, **page: object) -> tuple[list[tuple[str, bool]], str]:
        found = ann.list(scene.name(pattern), **page)  # type: ignore[arg-type]
        assert all(account.last_seen is not None for account in found.accounts)
        return [(account.username, account.online) for account in found.accounts], found.next

    with bob.receive() as inbox:
        inbox.wait_until_open()
        eventually(lambda: shown("*", limit=2), ([(ann.name, False), (bob.name, True)], bob.name))
        assert shown("*", limit=2, after=bob.name) == ([(carl.name, False)], "")
        assert shown("?a*") == ([(carl.name, False)], "")
        assert shown("???") == ([(ann.name, False), (bob.name, True)], "")
    eventually(lambda: shown("bob"), ([(bob.name, False)], ""))


# ---------------------------------------------------------------------- windows


def test_credit_is_no_window(scene: Scene) -> None:
    """A client may give more credit than the window has room for; it only controls the flow."""
    ann = scene.account("ann")
    ann.send(ann.name, "x")
    with ann.receive(credit=1000) as inbox:
        assert inbox.next().text == "x"


def test_a_stream_pauses_at_64_unacknowledged_messages(scene: Scene) -> None:
    """Whatever the door, a stream sends 64 messages and waits; what is acknowledged makes room."""
    ann = scene.account("ann")
    requests = (SendMessageRequest(recipient=ann.name, text=str(i)) for i in range(70))
    assert len(list(ann.client.call_many(SEND_MESSAGE, requests, timeout=PATIENCE))) == 70
    with ann.receive(by_itself=False) as inbox:
        assert [inbox.next().sequence for _ in range(64)] == list(range(1, 65))
        with pytest.raises(TimeoutError):
            inbox.next(0.05)
        ann.acknowledge(3)
        assert [inbox.next().sequence for _ in range(3)] == [65, 66, 67]
        with pytest.raises(TimeoutError):
            inbox.next(0.05)
        assert len(ann.pop(2).messages) == 2
        assert [inbox.next().sequence for _ in range(2)] == [68, 69]
        with pytest.raises(TimeoutError):
            inbox.next(0.05)
