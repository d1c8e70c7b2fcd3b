"""A wall clock that is wrong for a while: nobody waits longer for it, nothing ends for it, and nothing is lost.

Each rule of the chat that knows time is tried under each change of the clock, while the chat runs and over a restart.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_service.fakes import PASSWORD, WAIT, Chat, Clock, FakeContext
from chat_service.test_guesses import enter, guess, names
from wireproto import CallError
from wireproto_chat.opcodes import (
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    LIST_CONVERSATION,
    LOG_IN,
    WHO_AM_I,
    WILD_CARD,
    CreateAccountRequest,
    DeleteAccountRequest,
    ListConversationRequest,
    LogInRequest,
    WhoAmIRequest,
    WildCardRequest,
)
from wireproto_chat.service.guesses import HOURLY, INTERVAL, LONGEST
from wireproto_chat.service.rates import Rate
from wireproto_chat.store.clocks import LONGEST_GAP, Clocks, steady
from wireproto_chat.store.expiry import Expire
from wireproto_chat.store.tables import Query

DAY = 86_400.0
RIGHT = Clock().seconds
WRONG = {"a year ahead": RIGHT + 365 * DAY, "a year behind": RIGHT - 365 * DAY, "at 1970": 0.0}


class Life:
    """A chat whose wall clock becomes wrong, and right again, while it runs or while it is restarted."""

    def __init__(self, path: Path, clock: Clock, wrong: float, *, restarts: bool) -> None:
        self._path = path
        self._clock = clock
        self._wrong = wrong - RIGHT
        self._restarts = restarts
        self.chat = Chat(path, clock, rates=RATES)

    def _set(self, by: float) -> None:
        self._clock.set(self._clock.seconds + by)
        if self._restarts:
            self.chat.close()
            self.chat = Chat(self._path, self._clock, rates=RATES)

    def goes_wrong(self) -> None:
        self._set(self._wrong)

    def is_right_again(self) -> None:
        self._set(-self._wrong)

    def expire(self) -> None:
        """Delete what is over."""
        while self.chat.app._store.submit(Expire()).result(WAIT):
            pass


RATES = {"WildCard": Rate(3, 6)}


@pytest.fixture(params=["while it runs", "over a restart"])
def restarts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "over a restart")


@pytest.fixture(params=WRONG)
def life(request: pytest.FixtureRequest, store_path: Path, clock: Clock, restarts: bool) -> Iterator[Life]:
    life = Life(store_path, clock, WRONG[request.param], restarts=restarts)
    yield life
    life.chat.close()
    assert not life.chat.fatal


def throttled(chat: Chat, name: str, peer: str) -> float:
    """Seconds for which a log-in with the right password has to wait; 0 when it is let in."""
    context = FakeContext()
    context.from_ = peer
    error = chat.start(LOG_IN, LogInRequest(username=name, password=PASSWORD), context).exception(WAIT)
    if error is None:
        return 0.0
    assert isinstance(error, CallError)
    assert error.reason == "THROTTLED"
    return error.retry_after_ms / 1000


@pytest.mark.parametrize("failures", [1, 5, 9])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_wrong_clock_holds_up_no_log_in(life: Life, clock: Clock, when: str, failures: int) -> None:
    """Whoever failed before the clock was wrong, or while it was, waits as long as is said and as the rule says."""
    life.chat.account("bob")
    peer = "198.51.100.7:4000"

    def fail() -> None:
        for _ in range(failures):
            error = guess(life.chat, "bob", "wrong", peer)
            if error.reason == "THROTTLED":
                clock.move(seconds=error.retry_after_ms / 1000)
                assert guess(life.chat, "bob", "wrong", peer).reason == "BAD_CREDENTIALS"

    if when == "before":
        fail()
    life.goes_wrong()
    if when == "meanwhile":
        fail()
    wait = throttled(life.chat, "bob", peer)
    assert wait <= max(0, 2 ** (failures - 5)) <= LONGEST
    life.is_right_again()
    wait = throttled(life.chat, "bob", peer)
    assert wait <= max(0, 2 ** (failures - 5)) <= LONGEST
    clock.move(seconds=wait)
    assert throttled(life.chat, "bob", peer) == 0.0


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_wrong_clock_holds_up_no_network(life: Life, clock: Clock, when: str) -> None:
    """A network from which as much failed as may waits no longer than an interval, however the clock goes."""
    life.chat.account("ann")
    longest = (HOURLY + 1) * INTERVAL / 1_000_000
    if when == "meanwhile":
        life.goes_wrong()
    for name in names(HOURLY):
        guess(life.chat, name, "wrong")
    if when == "before":
        life.goes_wrong()
    assert throttled(life.chat, "ann", "198.51.100.7:4000") <= longest
    life.is_right_again()
    wait = throttled(life.chat, "ann", "198.51.100.7:4000")
    assert wait <= INTERVAL / 1_000_000
    clock.move(seconds=wait)
    enter(life.chat, "ann", "198.51.100.7:4000")


def test_a_wrong_clock_ends_no_session(life: Life, clock: Clock) -> None:
    """A token made before, and one made meanwhile, are good while the clock is wrong and afterwards, on connections and
    alone, though what is over is deleted all the time; they end when their days have passed."""
    ann = life.chat.account("ann")
    tokens = [life.chat.log_in("ann", FakeContext()).token]
    life.goes_wrong()
    life.expire()
    tokens.append(life.chat.log_in("ann", FakeContext()).token)
    for _ in range(2):
        for token in tokens:
            life.chat.log_in("ann", FakeContext(), token=token)
        assert ann.identity is not None
        assert not ann.identity.revoked
        life.is_right_again()
        life.expire()
    clock.move(days=7)
    for token in tokens:
        request = LogInRequest(username="ann", token=token)
        assert life.chat.refused(LOG_IN, request, FakeContext()).reason == "BAD_CREDENTIALS"
    life.expire()
    context = FakeContext()
    life.chat.log_in("ann", context)
    assert life.chat.call(WHO_AM_I, WhoAmIRequest(), context).sessions == 1


def test_a_wrong_clock_forgets_no_key(life: Life, clock: Clock) -> None:
    """A repetition of what was sent before or meanwhile is known for seven days, and keys are deleted when old."""
    ann = life.chat.account("ann")
    sent = [life.chat.send(ann, "ann", "before", key=b"before")]
    life.goes_wrong()
    life.expire()
    token = life.chat.log_in("ann", FakeContext()).token
    ann = FakeContext()
    life.chat.log_in("ann", ann, token=token)
    sent.append(life.chat.send(ann, "ann", "meanwhile", key=b"meanwhile"))
    assert life.chat.send(ann, "ann", "before", key=b"before").message_id == sent[0].message_id
    life.is_right_again()
    clock.move(days=6.99)
    life.expire()
    ann = FakeContext()
    life.chat.log_in("ann", ann)
    for answer, text in zip(sent, ("before", "meanwhile"), strict=True):
        again = life.chat.send(ann, "ann", text, key=text.encode())
        assert (again.message_id, again.duplicate) == (answer.message_id, True)
    clock.move(days=9)
    life.expire()
    assert life.chat.app._store.rows(Query("SELECT count(*) FROM idempotency_keys")) == [(0,)]


def test_a_wrong_clock_loses_no_message(life: Life) -> None:
    """All messages are there, in order, with the time of day that the clock showed."""
    ann = life.chat.account("ann")
    life.chat.send(ann, "ann", "before")
    life.goes_wrong()
    life.expire()
    ann = FakeContext()
    life.chat.log_in("ann", ann)
    life.chat.send(ann, "ann", "meanwhile")
    life.is_right_again()
    life.expire()
    ann = FakeContext()
    life.chat.log_in("ann", ann)
    life.chat.send(ann, "ann", "after")
    page = life.chat.call(LIST_CONVERSATION, ListConversationRequest(username="ann", oldest_first=True), ann)
    assert [message.text for message in page.messages] == ["before", "meanwhile", "after"]
    first, second, third = (message.sent_at.timestamp() for message in page.messages)
    assert (first, third) == (RIGHT, RIGHT)
    assert second != RIGHT
    assert life.chat.pop(ann) == ["before", "meanwhile", "after"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_wrong_clock_holds_no_name_for_longer(life: Life, clock: Clock, when: str) -> None:
    """The name of a deleted account is free thirty days after it, and not while the clock is wrong."""

    def taken() -> bool:
        request = CreateAccountRequest(username="ann", password=PASSWORD)
        error = life.chat.start(CREATE_ACCOUNT, request, FakeContext()).exception(WAIT)
        assert error is None or getattr(error, "reason", "") == "NAME_TAKEN"
        return error is not None

    if when == "meanwhile":
        life.goes_wrong()
    life.chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="ann"), life.chat.account("ann"))
    if when == "before":
        life.goes_wrong()
    assert taken()
    life.is_right_again()
    assert taken()
    clock.move(days=30 - LONGEST_GAP / DAY / 1_000_000 - 0.01)
    assert taken()
    clock.move(days=LONGEST_GAP / DAY / 1_000_000 + 0.01)
    assert not taken()


def test_a_wrong_clock_changes_no_rate(life: Life, clock: Clock) -> None:
    """Whoever called too often waits as long as was said."""
    ann = life.chat.account("ann")
    request = WildCardRequest(pattern="ann")
    life.goes_wrong()
    for _ in range(3):
        life.chat.call(WILD_CARD, request, ann)
    error = life.chat.refused(WILD_CARD, request, ann)
    assert (error.reason, error.retry_after_ms) == ("TOO_OFTEN", 10_000)
    life.is_right_again()
    clock.move(seconds=10)
    life.chat.call(WILD_CARD, request, ann)


def test_who_was_there_last_is_shown_by_the_right_clock_again(life: Life, clock: Clock) -> None:
    """A time of day that was noted by a wrong clock is replaced when its account is seen again."""
    life.chat.account("bob")
    ann = life.chat.account("ann")
    life.goes_wrong()
    life.chat.log_in("bob", FakeContext())
    life.is_right_again()
    clock.move(seconds=60)
    life.chat.log_in("bob", FakeContext())
    (bob,) = life.chat.call(WILD_CARD, WildCardRequest(pattern="bob"), ann).accounts
    assert bob.last_seen is not None
    assert bob.last_seen.timestamp() == RIGHT + 60


def test_a_crash_under_a_wrong_clock_makes_no_wait_longer(store_path: Path, clock: Clock) -> None:
    """What was counted a moment before a crash is not ahead of the store's age, though the next start finds the clock
    at 1970 and so cannot tell how long ago that was."""
    chat = Chat(store_path, clock)
    chat.account("ann")
    for seconds in range(5):
        clock.move(seconds=seconds / 10)
        guess(chat, "ann", "wrong")
    copied = store_path.with_name("crashed.db")
    # The log first: pages that a checkpoint has copied from it into the database are no harm when it is read again.
    for ending in ("-wal", ""):
        Path(f"{copied}{ending}").write_bytes(Path(f"{store_path}{ending}").read_bytes())
    chat.close()
    clock.set(0.0)
    chat = Chat(copied, clock)
    error = guess(chat, "ann", PASSWORD)
    assert (error.reason, error.retry_after_ms) == ("THROTTLED", 1000)
    clock.move(seconds=1)
    enter(chat, "ann", "198.51.100.7:4000")
    chat.close()


def test_the_time_between_two_runs_counts_up_to_a_day(store_path: Path, clock: Clock) -> None:
    """A week's rest is a day for tokens: what the wall clock says of more than a day is not believed."""
    chat = Chat(store_path, clock)
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    for _ in range(6):
        chat.close()
        clock.move(days=7)
        chat = Chat(store_path, clock)
    chat.log_in("ann", FakeContext(), token=token)
    chat.close()
    clock.move(days=1)
    clock.passed = 1.0  # the machine was started anew
    chat = Chat(store_path, clock)
    clock.move(days=6)
    request = LogInRequest(username="ann", token=token)
    assert chat.refused(LOG_IN, request, FakeContext()).reason == "BAD_CREDENTIALS"
    chat.close()


def test_the_age_is_noted_now_and_then(chat: Chat, clock: Clock) -> None:
    """A note costs a statement, so it is written once a second however many transactions there are."""
    ann = chat.account("ann")
    store = chat.app._store
    clock.move(seconds=1)
    noted = set()
    for _ in range(30):
        clock.move(seconds=0.1)
        chat.send(ann, "ann", "x")
        noted.add(tuple(store.rows(store.sql.note)[0]))
    assert 3 <= len(noted) <= 4
    ages = sorted(age for _, age, *_ in noted)
    assert ages[-1] <= store.clocks.age <= ages[-1] + 1_000_000


def test_the_steady_clock_is_one_that_nobody_can_set() -> None:
    """It is the time since the system started, and an age goes on by it however the wall clock is changed."""
    wall = [RIGHT]
    clocks = Clocks(lambda: wall[0], steady)
    clocks.start(5_000_000, int(RIGHT * 1_000_000))
    ages = []
    for seconds in (RIGHT, RIGHT * 2, 0.0, RIGHT):
        wall[0] = seconds
        ages.append(clocks.age)
    assert ages == sorted(ages)
    assert 5_000_000 <= ages[0] <= ages[-1] < 6_000_000
