"""The session: commands become calls, answers and messages become lines, each message once."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from chat_client.fake import NOON, PASSWORD, FakeServer
from chat_client.person import PATIENCE, Person
from wireproto import CallError, ConnectionLost, DecodeError, EncodeError, HandshakeError, Retry, Status
from wireproto_chat.client.commands import (
    Broadcast,
    ChangePassword,
    Create,
    Delete,
    DeleteMessage,
    Help,
    History,
    Listen,
    LogIn,
    LogOut,
    More,
    Pop,
    Quit,
    Search,
    Send,
    Who,
    WhoAmI,
)
from wireproto_chat.opcodes import WildCardRequest, WildCardResponse


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Three accounts; the streams that a test leaves open end with it."""
    server = FakeServer("alice", "bob", "carol")
    yield server
    server.close()
    for thread in threading.enumerate():
        if thread.name == "wireproto-chat-receive":
            thread.join(10)
            assert not thread.is_alive()


def test_two_people_chat(server: FakeServer) -> None:
    """A message goes from one session to the other, under the sender's name."""
    alice, bob = Person(server, "alice"), Person(server, "bob")
    alice.session.execute(Send("bob", "hi | there"))
    bob.wait_for(lambda: len(bob.lines) == 2)
    assert alice.texts == ["Server: You are signed in as alice.", "Server: Sent to bob."]
    assert bob.texts == ["Server: You are signed in as bob.", "alice: hi | there"]


def test_every_send_carries_a_key_of_its_own(server: FakeServer) -> None:
    """Two sends of one text have different idempotency keys."""
    alice = Person(server, "alice")
    alice.session.execute(Send("bob", "hi"))
    alice.session.execute(Send("bob", "hi"))
    _, first, second = [b"", *alice.client.keys]
    assert len(first) == len(second) == 16
    assert first != second


def test_waiting_messages_come_after_log_in(server: FakeServer) -> None:
    """catch_up returns once everything that waited was shown, in order."""
    for number in range(200):
        server.post("carol", "bob", str(number))
    bob = Person(server, "bob")
    assert bob.texts == [
        "Server: You are signed in as bob. 200 messages came while you were away.",
        *[f"carol: {number}" for number in range(200)],
    ]


def test_a_message_to_oneself_is_waited_for(server: FakeServer) -> None:
    """catch_up waits for what this session itself has put into its mailbox."""
    alice = Person(server, "alice")
    alice.session.execute(Send("alice", "note"))
    alice.session.catch_up(PATIENCE)
    assert sorted(alice.texts[1:]) == ["Server: Sent to alice.", "alice: note"]


def test_catching_up_gives_up_when_nothing_comes(server: FakeServer) -> None:
    """A server that announced messages and sends none delays nobody for longer than the patience."""
    server.post("carol", "bob", "acknowledged by another device in between")
    bob = Person(server)
    bob.session.execute(LogIn("bob", PASSWORD))
    bob.wait_for(lambda: len(bob.lines) == 2)
    inbox = bob.session._inbox
    assert inbox is not None
    inbox.backlog = 5
    bob.session.catch_up(0.05)
    assert len(bob.lines) == 2


def test_a_message_is_shown_once(server: FakeServer) -> None:
    """What was shown is not asked for again by a second log-in, and not shown again when pop brings it."""
    bob = Person(server, "bob")
    server.post("carol", "bob", "one")
    bob.wait_for(lambda: len(bob.lines) == 2)
    bob.session.execute(LogOut())
    server.acknowledged["bob"] = 0  # as if the acknowledgement had been lost
    bob.session.execute(LogIn("bob", PASSWORD))
    assert bob.client.after == [0, 1]
    server.acknowledged["bob"] = 0
    bob.session.execute(Pop())
    assert [text for text in bob.texts if text.startswith("carol")] == ["carol: one"]
    assert bob.texts[-1] == "Server: No undelivered messages."


def test_popped_messages_are_not_streamed_again(server: FakeServer) -> None:
    """What pop showed first is dropped when the stream brings it."""
    bob = Person(server, "bob")
    held = server.streams.pop("bob")
    server.post("carol", "bob", "one")
    server.post("carol", "bob", "two")
    server.post("carol", "bob", "three")
    bob.session.execute(Pop())
    assert bob.texts[1:] == [
        "carol: one",
        "carol: two",
        "Server: 2 undelivered messages. 1 message more: type /pop again.",
    ]
    for number in (1, 2, 3):
        held[0].put(number)
    bob.wait_for(lambda: bob.texts[-1] == "carol: three")
    assert len(bob.lines) == 5


def test_log_out_and_in_as_another(server: FakeServer) -> None:
    """Numbers of one mailbox say nothing about another's."""
    server.post("carol", "alice", "for alice")
    server.post("carol", "bob", "for bob")
    person = Person(server, "alice")
    person.session.execute(LogOut())
    person.session.execute(LogIn("bob", PASSWORD))
    person.session.catch_up(PATIENCE)
    assert person.session.user == "bob"
    assert [text for text in person.texts if text.startswith("carol")] == ["carol: for alice", "carol: for bob"]
    assert "Server: You are signed out." in person.texts
    assert not any("signed out: the session" in text for text in person.texts)


def test_an_account_made_anew_counts_from_one(server: FakeServer) -> None:
    """Deleting an account forgets which of its numbers were shown."""
    server.post("carol", "alice", "old")
    person = Person(server, "alice")
    person.session.execute(Delete("alice", force=True))
    person.session.execute(Create("alice", PASSWORD))
    server.post("carol", "alice", "new")
    person.session.execute(LogIn("alice", PASSWORD))
    person.session.catch_up(PATIENCE)
    assert person.texts[-1] == "carol: new"
    assert "Server: The account alice is made. Sign in with /login alice." in person.texts


def test_listing_goes_page_by_page(server: FakeServer) -> None:
    """/more shows the next page until there is none."""
    alice = Person(server, "alice")
    for command in (Search("*"), More(), More(), Search("z*")):
        alice.session.execute(command)
    assert alice.texts[1:] == [
        "Server: 2 accounts matching *; /more shows the next:\n  | alice (online)\n  | bob",
        "Server: 1 more account matching *:\n  | carol",
        "! There is no further page. /list PATTERN begins a list.",
        "Server: No account matches z*.",
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            LogIn("alice", "wrong"),
            "Server: Name or password is wrong. Try again, or make an account with /create alice.",
        ),
        (Create("bob", "x" * 12), "Server: The name bob is taken, or was until a short time ago. Choose another."),
        (Send("bob", "hi"), "Server: You are not signed in. Type /login NAME; /create NAME makes an account."),
        (Search("*"), "Server: You are not signed in. Type /login NAME; /create NAME makes an account."),
        (Listen(), "* Messages arrive by themselves once you are signed in: type /login NAME."),
        (More(), "! There is no further page. /list PATTERN begins a list."),
    ],
)
def test_mistakes_of_somebody_not_signed_in(
    server: FakeServer, command: LogIn | Create | Send | Search | Listen | More, said: str
) -> None:
    """Each answer says what is wrong and what to type."""
    person = Person(server)
    person.session.execute(command)
    assert person.texts == [said]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (LogIn("bob", PASSWORD), "! You are signed in as alice already. Type /logout first."),
        (Send("dave", "hi"), "Server: There is no account dave, so nothing was sent. /list shows who is there."),
        (Delete("bob"), "Server: You can delete only your own account. You are signed in as alice."),
        (Listen(), "* Messages arrive by themselves."),
    ],
)
def test_mistakes_of_somebody_signed_in(server: FakeServer, command: LogIn | Send | Delete | Listen, said: str) -> None:
    """Each answer says what is wrong and what to type."""
    alice = Person(server, "alice")
    alice.session.execute(command)
    assert alice.texts[1:] == [said]
    assert alice.session.user == "alice"


def test_deleting_with_messages_waiting_is_refused_with_their_number(server: FakeServer) -> None:
    """The refusal names how many wait and how to go on, and the session stays signed in and receiving."""
    alice = Person(server, "alice")
    held = server.streams["alice"]
    server.streams["alice"] = []
    server.post("bob", "alice", "unread")
    alice.session.execute(Delete("alice"))
    assert alice.texts[-1] == (
        "Server: Undelivered messages wait for you (1), so nothing was deleted. "
        "Read them with /pop, or discard them with /delete alice force."
    )
    held[0].put(1)
    alice.wait_for(lambda: alice.texts[-1] == "bob: unread")
    server.streams["alice"] = held
    server.post("bob", "alice", "and another")
    alice.wait_for(lambda: alice.texts[-1] == "bob: and another")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            CallError(Status.RESOURCE_EXHAUSTED, "SERVER_BUSY", "x", retry=Retry.NOT_PROCESSED, retry_after_ms=1500),
            "The server has too much to do, so nothing was done. Try again in 2 seconds.",
        ),
        (
            CallError(Status.DEADLINE_EXCEEDED, "DEADLINE", "x", retry=Retry.MAYBE_PROCESSED),
            "No answer came in time, and it is not known whether it was done. Try again later.",
        ),
        (
            CallError(Status.RESOURCE_EXHAUSTED, "MAILBOX_FULL", "x"),
            "The mailbox of bob is full, so nothing was sent. It has room again when bob has read.",
        ),
        (
            CallError(Status.INTERNAL, "INTERNAL", "incident 0123abcd", retry=Retry.MAYBE_PROCESSED),
            (
                "Something failed inside the server, and it is not known whether it was done. "
                "Tell whoever runs it: Incident 0123abcd."
            ),
        ),
        (CallError(Status.ABORTED, "FROM_THE_FUTURE", "the moon is in the way"), "The moon is in the way."),
        (CallError(Status.ABORTED, "FROM_THE_FUTURE"), "The call ended with ABORTED."),
        (
            CallError(Status.UNIMPLEMENTED, "UNKNOWN_OPCODE", "there is no opcode 99"),
            "This server does not offer that: There is no opcode 99.",
        ),
    ],
)
def test_the_servers_reasons_become_sentences(server: FakeServer, error: CallError, said: str) -> None:
    """A refusal is a sentence, with the reason beside it for scripts."""
    alice = Person(server, "alice")
    alice.client.failures = [error]
    alice.session.execute(Send("bob", "hi"))
    assert alice.texts[-1] == f"Server: {said}"
    assert alice.lines[-1].reason == error.reason


def test_what_cannot_be_sent_or_read_is_said(server: FakeServer) -> None:
    """Errors of a codec reach the person as a sentence, and the conversation goes on."""
    alice = Person(server, "alice")
    alice.client.failures = [
        EncodeError("SendMessageRequest.text", "holds a surrogate"),
        DecodeError("SendMessageResponse.sequence", "is no integer"),
    ]
    for _ in range(3):
        alice.session.execute(Send("bob", "hi"))
    assert alice.texts[1:] == [
        "! That cannot be sent: SendMessageRequest.text: holds a surrogate",
        "! The server's answer cannot be read: SendMessageResponse.sequence: is no integer",
        "Server: Sent to bob.",
    ]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost("connection reset"),
        HandshakeError(Status.FAILED_PRECONDITION, "UNSUPPORTED_CODEC", "connection reset"),
    ],
)
def test_a_server_that_goes_away_during_a_call(server: FakeServer, error: CallError) -> None:
    """The farewell is said once, and says what is not known."""
    alice = Person(server, "alice")
    alice.client.failures = [error, error]
    alice.session.execute(Send("bob", "hi"))
    alice.session.execute(Send("bob", "hi"))
    assert alice.session.gone
    assert alice.farewells == [
        "The server went away: connection reset. It is not known whether your last line was carried out."
    ]


@pytest.mark.parametrize(
    "error", [ConnectionLost("connection reset"), CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "shutting down")]
)
def test_a_server_that_goes_away_in_silence(server: FakeServer, error: CallError) -> None:
    """The end of the stream ends the conversation, without anything being typed."""
    alice = Person(server, "alice")
    server.end_streams("alice", error)
    alice.wait_for(lambda: alice.farewells != [])
    assert alice.farewells == [f"The server went away: {error.message}."]


def test_a_server_that_goes_away_before_anybody_signed_in(server: FakeServer) -> None:
    """check asks whether the server is there; a slow answer is no loss, and who is signed in has a stream to tell."""
    person = Person(server)
    person.client.failures = [CallError(Status.DEADLINE_EXCEEDED, "DEADLINE", "no PONG")]
    person.session.check()
    person.session.check()
    assert person.farewells == []
    person.client.failures = [ConnectionLost("connection refused; try again")]
    person.session.check()
    person.session.check()
    assert person.farewells == ["The server went away: connection refused."]
    alice = Person(server, "alice")
    alice.client.failures = [ConnectionLost("not asked")]
    alice.session.check()
    assert alice.farewells == []


@pytest.mark.parametrize("error", [None, CallError(Status.UNAUTHENTICATED, "SIGNED_OUT", "gone")])
def test_a_session_that_is_ended_elsewhere(server: FakeServer, error: CallError | None) -> None:
    """The person is told, and can sign in again."""
    alice = Person(server, "alice")
    server.end_streams("alice", error)
    alice.wait_for(lambda: len(alice.lines) == 2)
    assert alice.texts[-1] == "Server: You were signed out: the session ended elsewhere. Type /login NAME."
    assert alice.session.user == ""
    assert alice.farewells == []


def test_a_connection_made_anew_is_not_signed_in(server: FakeServer) -> None:
    """When the client had to connect again the person is told to sign in again."""
    alice = Person(server, "alice")
    server.end_streams("alice", CallError(Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED", "sign in first"))
    alice.wait_for(lambda: len(alice.lines) == 2)
    assert alice.texts[-1] == "* The connection was lost and made again, so you are signed out. Type /login NAME."
    assert alice.session.user == ""


def test_a_stream_that_fails_leaves_the_rest_usable(server: FakeServer) -> None:
    """Without the stream one can still send, and knows that nothing arrives."""
    alice = Person(server, "alice")
    server.end_streams("alice", CallError(Status.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", "16 are open"))
    alice.wait_for(lambda: len(alice.lines) == 3)
    assert "receives in too many places" in alice.texts[1]
    alice.session.execute(Send("bob", "hi"))
    assert alice.texts[-1] == "Server: Sent to bob."


def test_a_stream_that_cannot_be_opened(server: FakeServer) -> None:
    """The person is signed in, and is told that messages do not arrive."""
    alice = Person(server)
    busy = CallError(Status.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", retry=Retry.NOT_PROCESSED)
    alice.client.stream = lambda *_, **__: (_ for _ in ()).throw(busy)  # type: ignore[method-assign]
    alice.session.execute(LogIn("alice", PASSWORD))
    alice.wait_for(lambda: len(alice.lines) == 3)
    assert alice.texts[1].startswith("Server: Too many commands are under way")
    assert alice.session.user == "alice"
    assert alice.farewells == []


def test_leaving_is_no_news(server: FakeServer) -> None:
    """close ends the stream and shows nothing about it."""
    alice = Person(server, "alice")
    alice.session.close(PATIENCE)
    assert alice.client.closed
    assert len(alice.lines) == 1
    assert alice.farewells == []
    assert not [thread for thread in threading.enumerate() if thread.name == "wireproto-chat-receive"]


def test_help_names_every_option(server: FakeServer) -> None:
    """/help shows both spellings of every command."""
    person = Person(server)
    person.session.execute(Help())
    person.session.execute(Quit())
    (text,) = person.texts
    for word in ("0|", "1|", "2|", "3|", "4|", "5|", "7|", "/send", "/list", "/quit", "bye"):
        assert word in text


def test_a_listing_that_finds_nothing_for_long_stops(server: FakeServer) -> None:
    """A pattern without a match in many pages is given up after some, and /more goes on from there."""
    alice = Person(server, "alice")
    asked: list[str] = []

    def scan(request: WildCardRequest) -> WildCardResponse:
        asked.append(request.after)
        return WildCardResponse(accounts=[], next=f"name{len(asked)}" if len(asked) < 12 else "")

    alice.client._2 = scan  # type: ignore[method-assign]
    alice.session.execute(Search("x?y"))
    alice.session.execute(More())
    assert alice.texts[1:] == [
        "Server: No account matches x?y so far. /more looks further.",
        "Server: No more account matches x?y.",
    ]
    assert asked == ["", *[f"name{number}" for number in range(1, 12)]]


def test_leaving_a_server_that_has_just_gone(server: FakeServer) -> None:
    """A server that goes away while somebody leaves is no news either."""
    alice = Person(server, "alice")
    alice.client.failures = [ConnectionLost("too late")]
    alice.session.close(PATIENCE)
    assert alice.client.closed
    assert alice.farewells == []


def test_who_is_there_and_who_was(server: FakeServer) -> None:
    """/who shows presence in a column; one page after the other."""
    alice = Person(server, "alice")
    alice.session.execute(Who("*"))
    alice.session.execute(More())
    seen = NOON.astimezone().strftime("%Y-%m-%d %H:%M")
    assert alice.texts[1:] == [
        f"Server: 2 accounts matching *; /more shows the next:\n  | alice  online\n  | bob    last seen {seen}",
        "Server: 1 more account matching *:\n  | carol  offline",
    ]


def test_history_shows_both_directions_oldest_first(server: FakeServer) -> None:
    """Each message stands under its place and time; /more shows those before; a deleted one says so."""
    alice = Person(server, "alice")
    for number in range(3):
        server.post("alice", "bob", f"to {number}")
        server.post("bob", "alice", f"from {number}\n[#9] alice: forged")
    alice.wait_for(lambda: len(alice.lines) == 4)
    server.deleted.add(("bob", 3))
    alice.session.execute(History("bob", 4))
    when = [(NOON + timedelta(minutes=number)).astimezone().strftime("%Y-%m-%d %H:%M") for number in range(4)]
    assert alice.texts[4:] == [
        f"[bob#2 {when[2]}] alice: to 1",
        f"[#2 {when[2]}] bob: from 1\n  | [#9] alice: forged",
        f"[bob#3 {when[3]}] alice: (deleted)",
        f"[#3 {when[3]}] bob: from 2\n  | [#9] alice: forged",
        "Server: 4 messages between you and bob; /more shows earlier ones.",
    ]
    alice.session.execute(More())
    assert alice.texts[9:] == [
        f"[bob#1 {when[1]}] alice: to 0",
        f"[#1 {when[1]}] bob: from 0\n  | [#9] alice: forged",
        "Server: 2 messages between you and bob.",
    ]
    alice.session.execute(More())
    assert "no further page" in alice.texts[-1]


def test_a_long_history_takes_several_pages(server: FakeServer) -> None:
    """More messages than one answer holds are asked for page by page, and shown as one list."""
    alice = Person(server, "alice")
    for number in range(250):
        server.post("alice", "bob", str(number))
    alice.session.execute(History("bob", 220))
    assert [row.rpartition(" ")[2] for row in alice.texts[1:-1]] == [str(number) for number in range(30, 250)]
    assert alice.client.asked.count("ListConversation") == 3


def test_the_rest_of_the_commands(server: FakeServer) -> None:
    """Broadcast, deletion of a message, the password and whoami answer in a sentence each."""
    alice = Person(server, "alice")
    for command in (
        Broadcast("*", "lunch"),
        Broadcast("z*", "lunch"),
        DeleteMessage("bob", 1),
        DeleteMessage("", 7),
        History("carol"),
        History("nobody"),
        ChangePassword("wrong", "another password"),
        ChangePassword(PASSWORD, "another password"),
        WhoAmI(),
    ):
        alice.session.execute(command)
    when = NOON.astimezone().strftime("%Y-%m-%d %H:%M")
    assert [line.reason for line in alice.lines if line.reason] == [
        "UNKNOWN_MESSAGE",
        "UNKNOWN_ACCOUNT",
        "BAD_CREDENTIALS",
    ]
    whoami = f"You are alice. The account was made {when} and is signed in nowhere else."
    assert [text for text, line in zip(alice.texts, alice.lines, strict=True) if not line.reason][1:] == [
        "Server: Sent to 2 accounts matching *.",
        "Server: No account but yours matches z*, so nothing was sent.",
        "Server: The message bob#1 is deleted.",
        f"[carol#1 {(NOON + timedelta(minutes=1)).astimezone().strftime('%Y-%m-%d %H:%M')}] alice: lunch",
        "Server: 1 message between you and carol.",
        "Server: Your password is changed. 2 other sessions of yours were ended.",
        f"Server: {whoami} 0 messages came; none waits.",
    ]
    assert "That is not your password" in "".join(alice.texts)
    assert server.deleted == {("bob", 1)}


def test_messages_are_acknowledged_by_a_call(server: FakeServer) -> None:
    """Those that came together are acknowledged together, and the last one, too."""
    for number in range(200):
        server.post("carol", "bob", str(number))
    bob = Person(server, "bob")
    bob.session.catch_up(PATIENCE)
    bob.session.close(PATIENCE)
    assert server.acknowledged["bob"] == 200
    assert 200 / 64 <= bob.client.asked.count("Acknowledge") < 20


def test_names_are_suggested(server: FakeServer) -> None:
    """Names seen are known; further ones are asked of the server, but not the same again, nor by nobody."""
    person = Person(server)
    assert person.session.suggest("b", ask=True) == []
    assert person.client.asked == []
    alice = Person(server, "alice")
    assert alice.session.suggest("b", ask=False) == []
    assert alice.session.suggest("b", ask=True) == ["bob"]
    assert alice.session.suggest("b", ask=True) == ["bob"]
    assert alice.client.asked.count("WildCard") == 1
    assert alice.session.suggest("c a", ask=True) == []
    server.post("carol", "alice", "hi")
    alice.wait_for(lambda: alice.texts[-1] == "carol: hi")
    assert alice.session.suggest("c", ask=False) == ["carol"]
    alice.client.failures = [ConnectionLost("cut")]
    assert alice.session.suggest("bo", ask=True) == ["bob"]
    assert len(alice.lines) == 2
