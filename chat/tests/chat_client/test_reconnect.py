"""A lost connection: got back, signed in again, every message shown once and every line carried out once."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from chat_client.fake import PASSWORD, FakeServer
from chat_client.person import PATIENCE, Person
from wireproto import CallError, ConnectionLost, HandshakeError, Retry, Status
from wireproto_chat.client import reconnect
from wireproto_chat.client.commands import (
    Broadcast,
    Create,
    Delete,
    LogIn,
    LogOut,
    Pop,
    Search,
    Send,
)
from wireproto_chat.client.reconnect import TRIES, Gone, Lasting, Tries

LOST = "* The connection to the server was lost; trying to get it back."
BACK = "* The connection is back."
CUT = ConnectionLost("connection reset")
SHUTTING_DOWN = CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down", retry=Retry.NOT_PROCESSED)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(reconnect, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Three accounts; the threads that a test leaves end with it."""
    server = FakeServer("alice", "bob", "carol")
    yield server
    server.absent = None
    server.close()
    for thread in threading.enumerate():
        if thread.name == "wireproto-chat-receive":
            thread.join(10)
            assert not thread.is_alive()


def lasting(server: FakeServer, name: str) -> Person:
    """Somebody signed in whose session does not give up at once."""
    return Person(server, name, patience=30)


@pytest.mark.parametrize("error", [CUT, SHUTTING_DOWN])
def test_a_lost_connection_comes_back(server: FakeServer, error: CallError) -> None:
    """The person is told in one line each, stays signed in, and gets what came meanwhile, once."""
    bob = lasting(server, "bob")
    server.post("carol", "bob", "before")
    bob.wait_for(lambda: bob.texts[-1] == "carol: before")
    server.absent = ConnectionLost("connection refused", retry=Retry.NOT_PROCESSED)
    server.lose(error, bob.client)
    bob.wait_for(lambda: bob.texts[-1] == LOST)
    server.post("carol", "bob", "meanwhile")
    server.absent = None
    bob.wait_for(lambda: bob.texts[-1] == "carol: meanwhile")
    server.post("carol", "bob", "after")
    bob.wait_for(lambda: bob.texts[-1] == "carol: after")
    assert bob.texts[1:] == ["carol: before", LOST, BACK, "carol: meanwhile", "carol: after"]
    assert bob.session.user == "bob"
    assert bob.farewells == []


def test_pauses_grow_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each try is a random part of a ceiling that doubles from half a second to half a minute; what worked
    begins anew."""
    monkeypatch.undo()
    tries = Tries(chance=lambda: 1.0)
    ceilings = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert [tries.next() for _ in range(TRIES)] == pytest.approx(ceilings, abs=0.1)
    assert tries.made == TRIES
    tries.reset()
    assert tries.made == 0
    assert tries.next() == pytest.approx(0.5, abs=0.1)
    assert Tries(chance=lambda: 0.0).next() == 0.0


DISK = CallError(Status.UNAVAILABLE, "STORE_FAILED", "the store", retry=Retry.NOT_PROCESSED, retry_after_ms=1)


def test_a_stream_that_the_server_could_not_serve_goes_on(server: FakeServer) -> None:
    """While the server's store fails nothing is said; when it has recovered what came meanwhile is shown, once."""
    bob = lasting(server, "bob")
    for number in range(TRIES + 5):
        server.post("carol", "bob", f"{number}")
        bob.wait_for(lambda: bob.texts[-1] == f"carol: {number}")  # noqa: B023
        server.end_streams("bob", DISK)
    assert bob.texts[1:] == [f"carol: {number}" for number in range(TRIES + 5)]


def test_a_stream_that_fails_again_and_again_is_given_up(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many tries as for a lost connection the person is told; a damaged message is not tried again at all."""
    bob = lasting(server, "bob")
    opened: list[int] = []

    def fails(*_: object, **__: object) -> None:
        opened.append(1)
        raise DISK

    monkeypatch.setattr(bob.client, "stream", fails)
    server.end_streams("bob", DISK)
    bob.wait_for(lambda: len(bob.texts) == 3)
    assert len(opened) == TRIES
    assert bob.texts[2].startswith("* New messages are not shown from here on")
    carol = lasting(server, "carol")
    server.end_streams("carol", CallError(Status.DATA_LOSS, "STORE_FAILED", "message 3 cannot be read"))
    carol.wait_for(lambda: len(carol.texts) == 3)
    assert carol.texts[2].startswith("* New messages are not shown from here on")


def test_an_acknowledgement_that_was_lost_is_made_good(server: FakeServer) -> None:
    """What was shown before the loss is not shown again after it, and the server comes to know."""
    bob = lasting(server, "bob")
    server.post("carol", "bob", "one")
    server.post("carol", "bob", "two")
    bob.wait_for(lambda: bob.texts[-1] == "carol: two")
    server.lose(CUT, bob.client)
    server.acknowledged["bob"] = 0
    bob.wait_for(lambda: bob.texts[-1] == BACK)
    server.post("carol", "bob", "three")
    bob.wait_for(lambda: bob.texts[-1] == "carol: three")
    bob.session.close(PATIENCE)
    assert server.acknowledged["bob"] >= 2
    assert [text for text in bob.texts if text.startswith("carol")] == ["carol: one", "carol: two", "carol: three"]
    assert bob.client.after == [0, 2]


def test_many_losses_lose_and_double_nothing(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the connection is cut, each message is shown once and in order."""
    monkeypatch.setattr(reconnect, "STEADY", -1.0)  # each of these connections counts as one that held
    bob = lasting(server, "bob")
    for number in range(60):
        server.post("carol", "bob", str(number))
        if number % 3 == 0:
            # Cut somewhere while messages are under way; then wait until it was noticed.
            seen = bob.texts.count(BACK)
            server.lose(CUT, bob.client)
            bob.wait_for(lambda seen=seen: bob.texts.count(BACK) > seen)  # type: ignore[misc]
    bob.wait_for(lambda: "carol: 59" in bob.texts)
    assert [text for text in bob.texts if text.startswith("carol")] == [f"carol: {number}" for number in range(60)]


@pytest.mark.parametrize("command", [Send("carol", "hi"), Broadcast("car*", "hi")])
@pytest.mark.parametrize(
    "error", [CUT, CallError(Status.DEADLINE_EXCEEDED, "DEADLINE", "too late", retry=Retry.MAYBE_PROCESSED)]
)
def test_an_unknown_result_is_asked_for_again(server: FakeServer, command: Send | Broadcast, error: CallError) -> None:
    """A send whose answer was lost is repeated with the same key: the message is there once, and the person knows."""
    alice = lasting(server, "alice")
    alice.client.lost_answers = [error, error]
    alice.session.execute(command)
    assert server.mail["carol"] == [("alice", "hi")]
    assert len(set(alice.client.keys)) == 1
    assert len(alice.client.keys) == 3
    assert alice.texts[-1].startswith("Server: Sent to ")


def test_a_send_on_a_connection_that_is_nobodys(server: FakeServer) -> None:
    """When the client has connected again by itself, the session signs in again and sends."""
    alice = lasting(server, "alice")
    alice.client.user = ""
    alice.session.execute(Send("carol", "hi"))
    assert alice.texts[-1] == "Server: Sent to carol."
    assert server.mail["carol"] == [("alice", "hi")]


@pytest.mark.parametrize("command", [Create("dave", PASSWORD), Pop()])
def test_what_must_not_be_repeated_is_said_to_be_unknown(server: FakeServer, command: Create | Pop) -> None:
    """A command without a key is not carried out twice; the person is told that it may have been once."""
    alice = lasting(server, "alice")
    alice.client.lost_answers = [CUT]
    alice.session.execute(command)
    assert (
        alice.texts[-1]
        == "Server: The connection was lost before the answer came, and it is not known whether it was done."
    )
    assert len([name for name in alice.client.asked if name in ("CreateAccount", "PopUndelivered")]) == 1
    assert not alice.session.gone


@pytest.mark.parametrize("command", [LogOut(), Delete("alice")])
def test_leaving_when_the_answer_is_lost(server: FakeServer, command: LogOut | Delete) -> None:
    """Once the token is refused the session is known to have ended."""
    alice = lasting(server, "alice")
    alice.client.lost_answers = [CUT]
    alice.session.execute(command)
    assert alice.session.user == ""
    assert "so you are signed out" in "".join(alice.texts)
    assert alice.farewells == []


def test_a_refused_token_signs_out(server: FakeServer) -> None:
    """A session that ended while the connection was lost is not taken up again; the person may sign in."""
    alice = lasting(server, "alice")
    server.tokens.clear()
    server.lose(CUT, alice.client)
    said = "* The connection was lost and made again, so you are signed out. Type /login NAME."
    alice.wait_for(lambda: alice.texts[-1] == said)
    assert alice.session.user == ""
    alice.session.execute(LogIn("alice", PASSWORD))
    assert alice.session.user == "alice"


def test_a_server_gone_for_good(server: FakeServer) -> None:
    """After ten tries the conversation ends with a sentence, as without any patience."""
    alice = lasting(server, "alice")
    asked = len(alice.client.asked)
    server.absent = ConnectionLost("connection refused; try later", retry=Retry.NOT_PROCESSED)
    server.lose(CUT, alice.client)
    alice.wait_for(lambda: alice.farewells != [])
    assert alice.farewells == ["The server went away: connection refused."]
    assert alice.texts[1:] == [LOST]
    assert len(alice.client.asked) - asked == TRIES
    assert alice.session.gone


def test_another_server_at_the_address(server: FakeServer) -> None:
    """A server that refuses the connection for good is not asked ten times."""
    alice = lasting(server, "alice")
    server.absent = HandshakeError(Status.NOT_FOUND, "UNKNOWN_SERVICE", "there is no chat here")
    server.lose(CUT, alice.client)
    alice.wait_for(lambda: alice.farewells != [])
    assert alice.client.asked == ["LogIn", "LogIn"]


def test_a_connection_that_never_holds_is_given_up(server: FakeServer) -> None:
    """One that is lost each time as soon as it is back is lost at last."""
    alice = lasting(server, "alice")
    broken = (_ for _ in itertools.repeat(CUT))
    alice.client.stream = lambda *_, **__: (_ for _ in ()).throw(next(broken))  # type: ignore[method-assign]
    server.lose(CUT, alice.client)
    alice.wait_for(lambda: alice.farewells != [])
    assert alice.texts.count(BACK) == TRIES


def test_a_line_typed_meanwhile_waits(server: FakeServer) -> None:
    """A command given while the connection is lost is carried out when it is back, once."""
    alice = lasting(server, "alice")
    server.absent = ConnectionLost("connection refused", retry=Retry.NOT_PROCESSED)
    server.lose(CUT, alice.client)
    alice.wait_for(lambda: alice.texts[-1] == LOST)
    sending = threading.Thread(target=alice.session.execute, args=(Send("carol", "hi"),))
    sending.start()
    server.absent = None
    sending.join(10)
    assert server.mail["carol"] == [("alice", "hi")]
    assert alice.texts.count(LOST) == alice.texts.count(BACK) == 1


def test_leaving_meanwhile_takes_no_two_minutes(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves while the connection is lost does not wait until it is given up."""
    monkeypatch.setattr(reconnect, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE", 1000.0)
    alice = lasting(server, "alice")
    server.absent = CUT
    server.lose(CUT, alice.client)
    alice.wait_for(lambda: alice.texts[-1] == LOST)
    sending = threading.Thread(target=alice.session.execute, args=(Send("carol", "hi"),))
    sending.start()
    alice.session.hurry(0.05)
    sending.join(10)
    assert not sending.is_alive()
    alice.session.close(PATIENCE)
    assert len(alice.farewells) == 1


def test_nobody_signed_in_comes_back_too(server: FakeServer) -> None:
    """check gets the connection back although there is nobody to sign in."""
    person = Person(server, patience=30)
    person.client.failures = [CUT, CUT]
    person.session.check()
    assert person.texts == [LOST, BACK]


def test_a_mailbox_that_was_set_back(server: FakeServer) -> None:
    """A server restored from a backup knows fewer messages; its new ones are shown from the start."""
    bob = lasting(server, "bob")
    for number in range(3):
        server.post("carol", "bob", str(number))
    bob.wait_for(lambda: bob.texts[-1] == "carol: 2")
    with server.opened:
        assert server.opened.wait_for(lambda: server.acknowledged["bob"] == 3, 10)
    server.mail["bob"], server.acknowledged["bob"] = [("carol", "anew")], 0
    server.lose(CUT, bob.client)
    bob.wait_for(lambda: bob.texts[-1] == "carol: anew")


def test_reads_are_repeated_without_a_word(server: FakeServer) -> None:
    """A listing that met the loss is answered after it."""
    alice = lasting(server, "alice")
    alice.client.failures = [CUT]
    alice.session.execute(Search("b*"))
    assert alice.texts[-1] == "Server: 1 account matching b*:\n  | bob"


def test_threads_that_see_one_loss_share_its_repair(server: FakeServer) -> None:
    """The second to report a loss does nothing; told is called once for each."""
    alice = Person(server, "alice")
    told: list[bool] = []
    shared = Lasting(alice.client, told.append, patience=30)
    era = shared.era
    threads = [threading.Thread(target=shared.restore, args=(era, CUT)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert told == [False, True]
    assert shared.era == era + 1
    shared.close()
    with pytest.raises(Gone):
        shared.restore(shared.era, CUT)
