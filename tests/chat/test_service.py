"""The whole service over real sockets, once for each codec and version: what a client in the field sees."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pytest

from tests.chat.fakes import PASSWORD, QUICK, WAIT
from tests.chat.test_mailboxes import HOSTILE
from wireproto import codecs, connect
from wireproto.chat.contract import (
    ACKNOWLEDGE,
    CHAT,
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    WILD_CARD,
    AcknowledgeRequest,
    CreateAccountRequest,
    DeleteAccountRequest,
    LogInRequest,
    LogOutRequest,
    PopUndeliveredRequest,
    ReceiveMessagesRequest,
    ReceiveMessagesResponse,
    SendMessageRequest,
    WildCardRequest,
)
from wireproto.chat.handlers import ChatApp, open_chat
from wireproto.chat.passwords import Passwords
from wireproto.client import Client, Stream
from wireproto.errors import CallError
from wireproto.metadata import Metadata
from wireproto.server import Server
from wireproto.status import Status

BUILT_IN = ("pipe", "msgpack", "protobuf")


class Service:
    """A server on a store, which may be stopped and started again, and clients of one codec and version."""

    def __init__(self, path: Path, codec: str, version: int, stack: ExitStack) -> None:
        self.path = path
        self.codec = codec
        self.version = version
        self._stack = stack
        self.start()

    def start(self) -> None:
        self.app: ChatApp = open_chat(str(self.path), passwords=Passwords(hasher=QUICK))
        self.server = Server(self.app.handlers, authenticate=self.app.authenticate, workers=8)
        self.server.start()

    def stop(self) -> None:
        assert self.server.shutdown() == []
        assert self.app.close(WAIT)

    def client(self) -> Client:
        return self._stack.enter_context(
            connect(self.server.address, CHAT, codec=self.codec, timeout=WAIT, version=self.version)
        )

    def wait_for_undelivered(self, name: str, count: int) -> None:
        """Ask until so many messages of an account wait."""
        deadline = time.monotonic() + WAIT
        while True:
            client = self.client()
            found = client.call(LOG_IN, LogInRequest(username=name, password=PASSWORD)).undelivered
            client.close()
            if found == count:
                return
            assert time.monotonic() < deadline, f"{found} messages wait, not {count}"

    def account(self, name: str) -> Client:
        """A client that is signed in as a new account."""
        client = self.client()
        client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
        log_in(client, name)
        return client


class Acknowledging:
    """A stream of version 2 that acknowledges as one of version 1 does whose credit is returned one by one: the
    message before, when the next is asked for."""

    def __init__(self, client: Client, stream: Stream[ReceiveMessagesResponse]) -> None:
        self._client = client
        self._stream = stream
        self._last = 0

    def next(self, timeout: float = WAIT) -> ReceiveMessagesResponse:
        self.acknowledge()
        item = self._stream.next(timeout)
        self._last = item.sequence
        return item

    def acknowledge(self) -> None:
        if self._last:
            # A session that has ended cannot acknowledge; the stream says so itself.
            with suppress(CallError):
                self._client.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=self._last))
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()


@pytest.fixture(params=[f"{codec} {version}" for codec in BUILT_IN for version in (1, 2)])
def service(request: pytest.FixtureRequest, store_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        codec, version = request.param.split()
        service = Service(store_path, codec, int(version), stack)
        stack.callback(lambda: service.stop())
        yield service


def log_in(client: Client, name: str) -> str:
    return client.call(LOG_IN, LogInRequest(username=name, password=PASSWORD)).token


def send(client: Client, to: str, text: str, key: bytes = b"") -> tuple[bytes, int]:
    answer = client.call(
        SEND_MESSAGE, SendMessageRequest(recipient=to, text=text), metadata=Metadata(idempotency_key=key)
    )
    return answer.message_id, answer.sequence


def receive(client: Client, *, after: int = 0, batch: int = 1) -> "Stream[ReceiveMessagesResponse] | Acknowledging":
    stream = client.stream(RECEIVE_MESSAGES, ReceiveMessagesRequest(after=after), batch=batch)
    return stream if client.version == 1 else Acknowledging(client, stream)


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


def test_these_are_all_the_codecs() -> None:
    """The suite runs over every codec that comes with the framework."""
    assert tuple(codecs.names()[:3]) == BUILT_IN


def test_two_people_chat(service: Service) -> None:
    """Messages arrive live, both ways, in order, while both streams are open."""
    ann, bob = service.account("ann"), service.account("bob")
    with receive(ann) as to_ann, receive(bob) as to_bob:
        for i in range(20):
            send(ann, "bob", f"ping {i}")
            item = to_bob.next(WAIT)
            assert (item.sender, item.text, item.sequence) == ("ann", f"ping {i}", i + 1)
            send(bob, "ann", f"pong {i}")
            item = to_ann.next(WAIT)
            assert (item.sender, item.text, item.sequence) == ("bob", f"pong {i}", i + 1)


def test_undelivered_messages_come_first_then_live_ones(service: Service) -> None:
    """A stream gives what waited, then what comes, each once."""
    ann, bob = service.account("ann"), service.account("bob")
    sent = [send(ann, "bob", f"waited {i}") for i in range(100)]
    with receive(bob, batch=16) as stream:
        items = [stream.next(WAIT) for _ in range(100)]
        sent += [send(ann, "bob", f"live {i}") for i in range(100)]
        items += [stream.next(WAIT) for _ in range(100)]
        with pytest.raises(TimeoutError):
            stream.next(0.05)
    assert [(item.message_id, item.sequence) for item in items] == sent
    assert [item.text for item in items] == [f"{word} {i}" for word in ("waited", "live") for i in range(100)]


def test_what_was_not_acknowledged_comes_again(service: Service) -> None:
    """After a connection that vanished, the messages whose credit did not come back are delivered again."""
    ann, bob = service.account("ann"), service.account("bob")
    for i in range(10):
        send(ann, "bob", str(i))
    stream = receive(bob)
    texts = [stream.next(WAIT).text for _ in range(6)]
    assert texts == ["0", "1", "2", "3", "4", "5"]
    # Asking for the sixth acknowledged the fifth; acknowledgements are written in their own time.
    service.wait_for_undelivered("bob", 5)
    bob.close()
    again = service.client()
    log_in(again, "bob")
    with receive(again) as stream:
        assert [stream.next(WAIT).text for _ in range(5)] == ["5", "6", "7", "8", "9"]


def test_hostile_texts_are_carried_as_they_are(service: Service) -> None:
    """Any text a codec can carry comes back equal, by stream and by page."""
    ann = service.account("ann")
    with receive(ann) as stream:
        for text in HOSTILE:
            send(ann, "ann", text)
            assert stream.next(WAIT).text == text
        stream.acknowledge()
    for text in HOSTILE:
        send(ann, "ann", text)
    texts = [m.text for m in ann.call(POP_UNDELIVERED, PopUndeliveredRequest()).messages]
    assert texts[-len(HOSTILE) :] == HOSTILE


def test_the_longest_texts_fit_a_page_and_a_frame(service: Service) -> None:
    """Pages of the longest texts, of characters that a codec writes longest, still arrive."""
    ann = service.account("ann")
    texts = [char * (16_384 // len(char.encode())) for char in ",|\\\0€😀"]
    for text in texts:
        send(ann, "ann", text)
    received: list[str] = []
    while page := ann.call(POP_UNDELIVERED, PopUndeliveredRequest()).messages:
        received += [message.text for message in page]
    assert received == texts


def test_accounts_and_messages_survive_a_restart(service: Service) -> None:
    """After the server was stopped and started, old clients find their accounts, messages and sessions."""
    ann, bob = service.account("ann"), service.account("bob")
    ann.call(LOG_OUT, LogOutRequest())
    token = log_in(ann, "ann")
    first = send(ann, "bob", "before", key=b"k")
    bob.close()
    service.stop()
    service.start()
    again, bob = service.client(), service.client()
    answer = again.call(LOG_IN, LogInRequest(username="ann", token=token))
    assert answer.token == token
    assert send(again, "bob", "before", key=b"k") == first
    log_in(bob, "bob")
    with receive(bob) as stream:
        assert stream.next(WAIT).text == "before"
        send(again, "bob", "after")
        assert stream.next(WAIT).text == "after"


def test_a_token_stands_for_a_log_in(service: Service) -> None:
    """A connection that never logged in may call with `authorization`; a bad token is nobody."""
    ann = service.account("ann")
    ann.call(LOG_OUT, LogOutRequest())
    token = log_in(ann, "ann")
    other = service.client()
    request = SendMessageRequest(recipient="ann", text="by token")
    good, bad = (Metadata(authorization=f"Bearer {text}") for text in (token, "x" * 43))
    assert other.call(SEND_MESSAGE, request, metadata=good).sequence == 1
    error = refused(lambda: other.call(SEND_MESSAGE, request, metadata=bad))
    assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED")
    assert refused(lambda: other.call(SEND_MESSAGE, request)).reason == "SIGN_IN_REQUIRED"
    assert ann.call(POP_UNDELIVERED, PopUndeliveredRequest()).messages[0].sender == "ann"


@pytest.mark.parametrize("who", ["nobody", "signed out", "deleted"])
def test_nothing_works_without_an_account(service: Service, who: str) -> None:
    """Every method that requires an account is refused before and after being signed in."""
    client = service.client() if who == "nobody" else service.account("ann")
    if who == "signed out":
        client.call(LOG_OUT, LogOutRequest())
    elif who == "deleted":
        client.call(DELETE_ACCOUNT, DeleteAccountRequest(username="ann"))
    calls: list[Callable[[], object]] = [
        lambda: client.call(WILD_CARD, WildCardRequest(pattern="*")),
        lambda: client.call(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="x")),
        lambda: client.call(LOG_OUT, LogOutRequest()),
        lambda: client.call(DELETE_ACCOUNT, DeleteAccountRequest(username="ann")),
        lambda: receive(client).next(WAIT),
        lambda: client.call(POP_UNDELIVERED, PopUndeliveredRequest()),
    ]
    for call in calls:
        error = refused(call)
        assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED")


def test_logging_out_ends_the_streams(service: Service) -> None:
    """A stream that waits is ended by LogOut on its connection, SIGNED_OUT; another session's goes on."""
    ann, phone = service.account("ann"), service.client()
    log_in(phone, "ann")
    with receive(ann) as ended, receive(phone) as stays:
        send(phone, "ann", "before")
        assert ended.next(WAIT).text == stays.next(WAIT).text == "before"
        ann.call(LOG_OUT, LogOutRequest())
        error = refused(lambda: ended.next(WAIT))
        assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGNED_OUT")
        send(phone, "ann", "after")
        assert stays.next(WAIT).text == "after"


def test_deleting_an_account_ends_it_everywhere(service: Service) -> None:
    """DeleteAccount is refused while messages wait, then ends the other sessions, and frees nothing of the name."""
    ann, phone, bob = service.account("ann"), service.client(), service.account("bob")
    log_in(phone, "ann")
    with receive(phone) as stream:
        send(bob, "ann", "one")
        assert stream.next(WAIT).text == "one"
        send(bob, "ann", "two")
        error = refused(lambda: ann.call(DELETE_ACCOUNT, DeleteAccountRequest(username="ann")))
        assert (error.reason, error.message[:2]) == ("UNDELIVERED_MESSAGES", "2 ")
        assert ann.call(DELETE_ACCOUNT, DeleteAccountRequest(username="ann", force=True)).discarded == 2
        # What was under way may still come, but then the stream ends.
        assert refused(lambda: [stream.next(WAIT) for _ in range(2)]).reason == "SIGNED_OUT"
    assert refused(lambda: phone.call(WILD_CARD, WildCardRequest(pattern="*"))).reason == "SIGN_IN_REQUIRED"
    assert refused(lambda: send(bob, "ann", "late")).reason == "UNKNOWN_RECIPIENT"
    assert refused(lambda: service.account("ann")).reason == "NAME_TAKEN"


def test_a_list_shows_who_is_online(service: Service) -> None:
    """WildCard names the matching accounts, pages on, and shows whose stream is open."""
    ann, bob = service.account("ann"), service.account("bob")
    service.account("carl")
    with receive(bob) as stream:
        send(ann, "bob", "so that the stream has begun")
        stream.next(WAIT)
        first = ann.call(WILD_CARD, WildCardRequest(pattern="*", limit=2))
        assert [(account.username, account.online) for account in first.accounts] == [("ann", False), ("bob", True)]
        second = ann.call(WILD_CARD, WildCardRequest(pattern="*", limit=2, after=first.next))
        assert [(account.username, account.online) for account in second.accounts] == [("carl", False)]
        assert second.next == ""
    assert [a.username for a in ann.call(WILD_CARD, WildCardRequest(pattern="?a*")).accounts] == ["carl"]


def log_in_again(client: Client) -> None:
    client.call(LOG_IN, LogInRequest(username="ann", password=PASSWORD))


def create(client: Client, name: str, password: str = PASSWORD) -> None:
    client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=password))


def delete(client: Client, name: str) -> None:
    client.call(DELETE_ACCOUNT, DeleteAccountRequest(username=name))


def receive_with(client: Client, after: int, credit: int) -> None:
    next(client.stream(RECEIVE_MESSAGES, ReceiveMessagesRequest(after=after), credit=credit))


@pytest.mark.parametrize(
    ("call", "status", "reason"),
    [
        (log_in_again, Status.FAILED_PRECONDITION, "ALREADY_SIGNED_IN"),
        (lambda c: create(c, "Ann"), Status.INVALID_ARGUMENT, "BAD_USERNAME"),
        (lambda c: create(c, "bob", "short"), Status.INVALID_ARGUMENT, "BAD_PASSWORD"),
        (lambda c: create(c, "ann"), Status.ALREADY_EXISTS, "NAME_TAKEN"),
        (lambda c: c.call(WILD_CARD, WildCardRequest(pattern="%")), Status.INVALID_ARGUMENT, "BAD_PATTERN"),
        (lambda c: send(c, "nobody", "x"), Status.NOT_FOUND, "UNKNOWN_RECIPIENT"),
        (lambda c: send(c, "ann", ""), Status.INVALID_ARGUMENT, "BAD_TEXT"),
        (lambda c: send(c, "ann", "other", key=b"used"), Status.ALREADY_EXISTS, "KEY_CONFLICT"),
        (lambda c: delete(c, "bob"), Status.PERMISSION_DENIED, "NOT_YOUR_ACCOUNT"),
        (lambda c: delete(c, "ann"), Status.FAILED_PRECONDITION, "UNDELIVERED_MESSAGES"),
        (lambda c: receive_with(c, 9, 64), Status.OUT_OF_RANGE, "BAD_AFTER"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_refusal_reaches_the_client(
    service: Service, call: Callable[[Client], object], status: Status, reason: str
) -> None:
    """Each error a user can cause arrives with its status, its reason and a sentence, and the connection lives."""
    ann = service.account("ann")
    send(ann, "ann", "x", key=b"used")
    error = refused(lambda: call(ann))
    assert (error.status, error.reason) == (status, reason)
    assert len(error.message) > 20
    assert ann.call(WILD_CARD, WildCardRequest(pattern="ann")).accounts[0].username == "ann"


def test_a_window_is_part_of_version_1_only(service: Service) -> None:
    """Version 1 acknowledges by credit, and is refused more than 64 of it; in version 2 credit is only credit."""
    ann = service.account("ann")
    send(ann, "ann", "x")
    if service.version == 1:
        error = refused(lambda: receive_with(ann, 0, 65))
        assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "WINDOW_TOO_LARGE")
    else:
        receive_with(ann, 0, 1000)


def test_many_sends_in_flight_on_one_connection(service: Service) -> None:
    """A connection may have many sends in flight; each is answered with its own place, and they share commits."""
    ann = service.account("ann")
    jobs, batches = service.app.counts
    answers = list(ann.call_many(SEND_MESSAGE, (SendMessageRequest(recipient="ann", text=str(i)) for i in range(500))))
    assert sorted(answer.sequence for answer in answers) == list(range(1, 501))
    jobs, batches = service.app.counts[0] - jobs, service.app.counts[1] - batches
    assert jobs >= 500
    assert batches < 250
    page = ann.call(POP_UNDELIVERED, PopUndeliveredRequest())
    by_sequence = {answer.sequence: str(i) for i, answer in enumerate(answers)}
    assert all(by_sequence[message.sequence] == message.text for message in page.messages)


def test_clients_of_different_codecs_chat(service: Service) -> None:
    """What is sent in one codec is received in another."""
    ann = service.account("ann")
    other = next(name for name in BUILT_IN if name != service.codec)
    with connect(service.server.address, CHAT, codec=other) as bob:
        bob.call(CREATE_ACCOUNT, CreateAccountRequest(username="bob", password=PASSWORD))
        log_in(bob, "bob")
        with receive(bob) as to_bob, receive(ann) as to_ann:
            send(ann, "bob", "a|b\\c\0€")
            assert to_bob.next(WAIT).text == "a|b\\c\0€"
            send(bob, "ann", "{x:[y]},(z)")
            assert to_ann.next(WAIT).text == "{x:[y]},(z)"
