"""Every reason that a method of the chat declares, and who may call it, through each door."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
from sqlalchemy.exc import OperationalError

from chat_service.doors.conftest import Scene
from chat_service.doors.people import DOORS, House, Person
from chat_service.doors.test_service import refused
from chat_service.fakes import PASSWORD
from wireproto import CallError, Retry, Status
from wireproto.schema import Message
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    BROADCAST,
    CHANGE_PASSWORD,
    CHAT,
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    DELETE_MESSAGE,
    LIST_CONVERSATION,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    RECEIVE_MESSAGES,
    SEND_MESSAGE,
    WHO_AM_I,
    WILD_CARD,
    CreateAccountRequest,
    DeleteAccountRequest,
)
from wireproto_chat.service import broadcast, handlers, live, mailboxes
from wireproto_chat.service.rates import Rate, Rates

OTHER_PASSWORD = "another password"


def ask(person: Person, method: Any, request: Message, authorization: str | None = None) -> object:
    """Call a method of either kind; of a stream, look at its first item."""
    if not method.items_come_back:
        return person.call(method, request, authorization=authorization)
    with person.client.stream(method, request, metadata={"authorization": authorization or ""}, credit=1) as stream:
        return next(iter(stream))


def sample(scene: Scene, method: Any, name: str = "ann") -> Message:
    """A request that works for an account that has one message, which it sent to itself."""
    own = scene.name(name)
    values: dict[str, object] = {"username": own, "recipient": own, "password": PASSWORD, "text": "x", "sequence": 1}
    values |= {"new_password": OTHER_PASSWORD, "pattern": scene.name("*"), "force": True}
    if method is CREATE_ACCOUNT:
        values["username"] = scene.name("new")
    names = method.request.__struct_fields__
    request: Message = method.request(**{name: values[name] for name in names if name in values})
    return request


def ready(scene: Scene, name: str = "ann") -> Person:
    person = scene.account(name)
    person.send(person.name, "x")
    return person


def methods() -> list[Any]:
    """All methods, those last that end a session."""
    ending = [CHANGE_PASSWORD, LOG_OUT, DELETE_ACCOUNT]
    return [method for method in CHAT.methods if method not in ending] + ending


# ---------------------------------------------------------------------- who may


@pytest.mark.parametrize("who", ["nobody", "signed out", "deleted", "worthless"])
def test_nothing_works_without_an_account(scene: Scene, who: str) -> None:
    """Every method that requires an account is refused to all who have no session, whatever they had before."""
    person = scene.person("ann") if who in ("nobody", "worthless") else scene.account("ann")
    scene.account("bob")
    if who == "signed out":
        person.log_out()
    elif who == "deleted":
        person.delete_account()
    authorization = f"Bearer {'x' * 43}" if who == "worthless" else None
    wanting = [method for method in methods() if method.requires]
    assert len(wanting) == 12
    for method in wanting:
        error = refused(partial(ask, person, method, sample(scene, method), authorization))
        assert (error.status, error.reason) == (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED"), method
        assert error.retry is Retry.NEVER


@pytest.mark.parametrize("how", ["signed in", "by token"])
def test_everything_works_with_an_account(scene: Scene, how: str) -> None:
    """Every method answers whoever is signed in, or whose token comes with the call."""
    ann = ready(scene)
    caller, authorization = (ann, None) if how == "signed in" else (scene.person("ann"), f"Bearer {ann.token}")
    for method in methods():
        if method is LOG_IN:
            continue  # refused to whoever is signed in
        if method is DELETE_ACCOUNT:  # which comes after LogOut
            authorization = f"Bearer {scene.again('ann', OTHER_PASSWORD).token}"
        assert type(ask(caller, method, sample(scene, method), authorization)) is method.response
        if method is POP_UNDELIVERED:
            ask(caller, SEND_MESSAGE, sample(scene, SEND_MESSAGE), authorization)  # for those after it


def test_nobody_reaches_anothers_account(scene: Scene) -> None:
    """What names an account is judged by the session: another's account, messages and conversations stay closed."""
    ann, bob, eve = scene.account("ann"), scene.account("bob"), scene.account("eve")
    ann.send(bob.name, "secret")
    request = DeleteAccountRequest(username=bob.name, force=True)
    assert refused(lambda: eve.call(DELETE_ACCOUNT, request)).reason == "NOT_YOUR_ACCOUNT"
    assert eve.pop().messages == []
    assert refused(lambda: eve.log_in(token=bob.token)).reason == "ALREADY_SIGNED_IN"
    stranger = scene.person("eve")
    assert refused(lambda: stranger.log_in(token=bob.token)).reason == "BAD_CREDENTIALS"
    assert refused(lambda: eve.delete_message(bob.name, 1)).reason == "UNKNOWN_MESSAGE"
    assert eve.conversation(bob.name).messages == eve.conversation(ann.name).messages == []
    assert eve.who_am_i().last_sequence == 0
    assert [message.text for message in bob.pop().messages] == ["secret"]


# ---------------------------------------------------------------------- why not


class Case(NamedTuple):
    """A reason, the status it comes with, and how to come by it."""

    reason: str
    status: Status
    provoke: Callable[[Scene], object]
    retry: Retry = Retry.NEVER


def create(scene: Scene, name: str, password: str = PASSWORD) -> None:
    person = scene.person("x")
    person.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=password))


def guess(scene: Scene) -> Person:
    """Somebody, whose password was guessed at five times."""
    ann = scene.account("ann")
    for _ in range(5):
        assert refused(lambda: scene.person("ann").log_in("wrong")).reason in ("BAD_CREDENTIALS", "THROTTLED")
    return ann


def conflict(scene: Scene, send: Callable[[Person], object]) -> None:
    ann = scene.account("ann")
    ann.send(ann.name, "first", b"key")
    send(ann)


@contextmanager
def set_to(module: Any, name: str, value: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, value)
        yield


def too_often(scene: Scene, method: Any) -> None:
    """Twice, where once a minute is allowed; people on the machine itself are not limited, so here it is another's."""
    ann = ready(scene)
    rates = Rates({method.name: Rate(1, 1)})
    with set_to(handlers, "is_own", lambda network: False), set_to(scene.house.app, "_rates", rates):
        for number in range(2):
            caller = scene.person("ann") if method in (LOG_IN, CREATE_ACCOUNT) else ann
            request = sample(scene, method)
            if method is CREATE_ACCOUNT:
                request = CreateAccountRequest(username=scene.name(f"new{number}"), password=PASSWORD)
            ask(caller, method, request)


def guess_in_vain(scene: Scene) -> None:
    guess(scene)
    scene.person("ann").log_in()


def log_in_wrong(scene: Scene) -> None:
    scene.account("ann")
    scene.person("ann").log_in("wrong")


def fill_up(scene: Scene) -> None:
    ann = ready(scene)
    with set_to(mailboxes, "MAILBOX_MESSAGES", 1):
        ann.send(ann.name, "one too many")


def broadcast_to_too_many(scene: Scene) -> None:
    ann = scene.account("ann")
    scene.account("bob")
    with set_to(broadcast, "BROADCAST_LIMIT", 1):
        ann.broadcast(scene.name("*"), "x")


def receive(scene: Scene, *, after: int) -> None:
    with ready(scene).receive(after=after) as inbox:
        inbox.next()


def open_too_many(scene: Scene) -> None:
    ann = ready(scene)
    with set_to(live, "MAX_STREAMS", 1), ann.receive() as first:
        first.next()
        with ann.receive() as inbox:
            inbox.next()


def sign_out_beside_a_stream(scene: Scene) -> None:
    ann = ready(scene)
    with ann.receive() as inbox:
        inbox.next()
        scene.person("ann").call(LOG_OUT, LOG_OUT.request(), authorization=f"Bearer {ann.token}")
        inbox.next()


INVALID, MISSING, EXHAUSTED = Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.RESOURCE_EXHAUSTED
UNKNOWN_PERSON, TOO_FAR, EXISTS = Status.UNAUTHENTICATED, Status.OUT_OF_RANGE, Status.ALREADY_EXISTS
NOT_NOW = Status.FAILED_PRECONDITION

CASES: dict[Any, list[Case]] = {
    LOG_IN: [
        Case("BAD_USERNAME", INVALID, lambda s: s.person("Ann").log_in()),
        Case("BAD_PASSWORD", INVALID, lambda s: s.person("ann").log_in("x" * 1025)),
        Case("BAD_CREDENTIALS", UNKNOWN_PERSON, log_in_wrong),
        Case("ALREADY_SIGNED_IN", NOT_NOW, lambda s: s.account("ann").log_in()),
        Case("THROTTLED", EXHAUSTED, guess_in_vain, Retry.NOT_PROCESSED),
        Case("TOO_OFTEN", EXHAUSTED, lambda s: too_often(s, LOG_IN), Retry.NOT_PROCESSED),
    ],
    CREATE_ACCOUNT: [
        Case("BAD_USERNAME", INVALID, lambda s: create(s, "Ann")),
        Case("BAD_PASSWORD", INVALID, lambda s: create(s, s.name("ann"), "short")),
        Case("NAME_TAKEN", EXISTS, lambda s: create(s, s.account("ann").name)),
        Case("TOO_OFTEN", EXHAUSTED, lambda s: too_often(s, CREATE_ACCOUNT), Retry.NOT_PROCESSED),
    ],
    WILD_CARD: [
        Case("BAD_PATTERN", INVALID, lambda s: s.account("ann").list("%")),
        Case("TOO_OFTEN", EXHAUSTED, lambda s: too_often(s, WILD_CARD), Retry.NOT_PROCESSED),
    ],
    SEND_MESSAGE: [
        Case("BAD_TEXT", INVALID, lambda s: s.account("ann").send(s.name("ann"), "")),
        Case("UNKNOWN_RECIPIENT", MISSING, lambda s: s.account("ann").send(s.name("nobody"), "x")),
        Case("MAILBOX_FULL", EXHAUSTED, fill_up),
        Case("KEY_CONFLICT", EXISTS, lambda s: conflict(s, lambda ann: ann.send(ann.name, "second", b"key"))),
    ],
    LOG_OUT: [],
    DELETE_ACCOUNT: [
        Case(
            "NOT_YOUR_ACCOUNT",
            Status.PERMISSION_DENIED,
            lambda s: s.account("ann").call(DELETE_ACCOUNT, DeleteAccountRequest(username=s.name("bob"))),
        ),
        Case("UNDELIVERED_MESSAGES", NOT_NOW, lambda s: ready(s).delete_account()),
    ],
    RECEIVE_MESSAGES: [
        Case("BAD_AFTER", TOO_FAR, lambda s: receive(s, after=2)),
        Case("TOO_MANY_STREAMS", EXHAUSTED, open_too_many),
        Case("SIGNED_OUT", UNKNOWN_PERSON, sign_out_beside_a_stream),
    ],
    POP_UNDELIVERED: [],
    ACKNOWLEDGE: [Case("ACKNOWLEDGED_TOO_MUCH", TOO_FAR, lambda s: ready(s).acknowledge(2))],
    LIST_CONVERSATION: [Case("UNKNOWN_ACCOUNT", MISSING, lambda s: s.account("ann").conversation(s.name("nobody")))],
    DELETE_MESSAGE: [Case("UNKNOWN_MESSAGE", MISSING, lambda s: ready(s).delete_message(s.name("ann"), 2))],
    BROADCAST: [
        Case("BAD_PATTERN", INVALID, lambda s: s.account("ann").broadcast("%", "x")),
        Case("BAD_TEXT", INVALID, lambda s: s.account("ann").broadcast("*", "x" * 16_385)),
        Case("TOO_MANY_RECIPIENTS", EXHAUSTED, broadcast_to_too_many),
        Case("KEY_CONFLICT", EXISTS, lambda s: conflict(s, lambda ann: ann.broadcast(s.name("*"), "x", b"key"))),
        Case("TOO_OFTEN", EXHAUSTED, lambda s: too_often(s, BROADCAST), Retry.NOT_PROCESSED),
    ],
    CHANGE_PASSWORD: [
        Case("BAD_PASSWORD", INVALID, lambda s: s.account("ann").change_password(PASSWORD, "short")),
        Case("BAD_CREDENTIALS", UNKNOWN_PERSON, lambda s: s.account("ann").change_password("wrong", OTHER_PASSWORD)),
        Case(
            "THROTTLED",
            EXHAUSTED,
            lambda s: guess(s).change_password(PASSWORD, OTHER_PASSWORD),
            Retry.NOT_PROCESSED,
        ),
    ],
    WHO_AM_I: [],
}

STORE = {"STORE_FULL", "STORE_FAILED"}


def test_no_reason_is_forgotten() -> None:
    """Every declared reason is provoked below, and those of the store by the two tests after it."""
    for method in CHAT.methods:
        assert {case.reason for case in CASES[method]} | STORE >= set(method.reasons), method
        assert {case.reason for case in CASES[method]} <= set(method.reasons), method
    assert list(CASES) == list(CHAT.methods)


@pytest.mark.parametrize(
    ("door", "method", "case"),
    [
        pytest.param(door, method, case, id=f"{door}-{method.name}-{case.reason}")
        for door in DOORS
        for method, cases in CASES.items()
        for case in cases
    ],
)
def test_every_reason_reaches_the_client(scene: Scene, method: Any, case: Case) -> None:
    """It arrives with its status, its advice and a sentence, and whoever got it goes on."""
    error = refused(lambda: case.provoke(scene))
    assert (error.status, error.reason, error.retry) == (case.status, case.reason, case.retry)
    assert len(error.message) > 20
    assert (error.retry_after_ms > 0) == (case.reason in ("THROTTLED", "TOO_OFTEN", "MAILBOX_FULL"))
    assert scene.account("zoe").list(scene.name("zoe")).accounts[0].username == scene.name("zoe")


class Broken:
    """A connection to the database that fails with a code of SQLite: a writer's at its commit, a reader's always."""

    def __init__(self, real: Any, code: int, *, reads: bool) -> None:
        self._real = real
        self._code = code
        self._reads = reads

    def exec_driver_sql(self, statement: str, parameters: Any = None) -> Any:
        if self._reads or statement == "COMMIT":
            origin = sqlite3.OperationalError("made up")
            origin.sqlite_errorcode = self._code
            raise OperationalError(statement, (), origin)
        return self._real.exec_driver_sql(statement, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextmanager
def broken(house: House, code: int, *, reads: bool) -> Iterator[None]:
    """The house's store fails meanwhile."""
    store = house.app._store
    tx = store._writer._tx
    writing, readers = tx._connection, store._readers
    tx._connection = Broken(writing, code, reads=False)  # type: ignore[assignment]
    if reads:
        store._readers = [Broken(None, code, reads=True) for _ in range(64)]  # type: ignore[misc]
    try:
        yield
    finally:
        tx._connection, store._readers = writing, readers


FULL, READONLY = 13, 8


def calls_that_fail(scene: Scene, reason: str, code: int, *, reads: bool) -> None:
    """Every method that declares the reason gives it while the store fails, did nothing, and works afterwards."""
    signed_in = ready(scene)
    for method in methods():
        if reason not in method.reasons:
            continue
        caller = scene.person("ann") if method in (LOG_IN, CREATE_ACCOUNT) else signed_in
        request = sample(scene, method)
        with broken(scene.house, code, reads=reads):
            error = refused(partial(ask, caller, method, request))
        assert error.reason == reason, method
        expected = Status.RESOURCE_EXHAUSTED if reason == "STORE_FULL" else Status.UNAVAILABLE
        assert (error.status, error.retry) == (expected, Retry.NOT_PROCESSED)
        assert error.retry_after_ms > 0
        if method is LOG_OUT:
            signed_in = scene.person("ann")
            signed_in.log_in(OTHER_PASSWORD)
        else:
            ask(caller, method, request)
        if method is POP_UNDELIVERED:
            signed_in.send(signed_in.name, "x")


def test_a_full_disk_reaches_the_client(scene: Scene) -> None:
    """STORE_FULL: nothing was done, come again."""
    calls_that_fail(scene, "STORE_FULL", FULL, reads=False)


def test_a_store_that_fails_reaches_the_client(scene: Scene) -> None:
    """STORE_FAILED, from reads and writes alike."""
    calls_that_fail(scene, "STORE_FAILED", READONLY, reads=True)


def test_a_refusal_says_no_secret(scene: Scene) -> None:
    """No sentence repeats a password or a token."""
    ann = scene.account("ann")
    errors: list[CallError] = [
        refused(lambda: scene.person("ann").log_in("s3cret-canary")),
        refused(lambda: scene.person("ann").log_in(token="s3cret-canary")),
        refused(lambda: create(scene, "ann", "s3cret")),
        refused(lambda: ann.change_password("s3cret-canary", OTHER_PASSWORD)),
    ]
    assert not [error for error in errors if "s3cret" in str(error)]
