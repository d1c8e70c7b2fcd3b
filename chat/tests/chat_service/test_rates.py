"""How often the calls that cost much may be made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_service.fakes import PASSWORD, Chat, Clock, FakeContext
from wireproto import CallError, Retry, Status
from wireproto_chat.opcodes import (
    BROADCAST,
    CREATE_ACCOUNT,
    LOG_IN,
    WILD_CARD,
    BroadcastRequest,
    CreateAccountRequest,
    LogInRequest,
    WildCardRequest,
)
from wireproto_chat.service import rates as rates_module
from wireproto_chat.service.rates import RATES, Rate, Rates


def taken(rates: Rates, caller: str, tries: int) -> int:
    """How many of so many calls are not refused."""
    count = 0
    for _ in range(tries):
        try:
            rates.count("List", caller)
        except CallError:
            continue
        count += 1
    return count


def test_so_many_at_once_and_then_so_many_a_minute() -> None:
    """A burst, then one each time its interval has passed; nobody else's calls count, nor other methods."""
    clock = Clock()
    rates = Rates({"List": Rate(5, 30)}, clock=clock.steady)
    assert taken(rates, "ann", 20) == 5
    clock.move(seconds=2)
    assert taken(rates, "ann", 20) == 1
    assert taken(rates, "bob", 20) == 5
    clock.move(seconds=3600)
    assert taken(rates, "ann", 20) == 5
    for _ in range(100):
        rates.count("Send", "ann")


def test_whoever_waits_as_told_is_let_in() -> None:
    """The refusal says how long; a millisecond earlier is too early, and then one call is taken."""
    clock = Clock()
    rates = Rates({"List": Rate(3, 7)}, clock=clock.steady)
    taken(rates, "ann", 3)
    for _ in range(50):
        with pytest.raises(CallError, match="List is called too often: 3 at once, then 7 a minute; wait 9 s") as caught:
            rates.count("List", "ann")
        error = caught.value
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "TOO_OFTEN")
        assert error.retry is Retry.NOT_PROCESSED
        clock.move(seconds=error.retry_after_ms / 1000 - 0.002)
        assert taken(rates, "ann", 1) == 0
        clock.move(seconds=0.002)
        assert taken(rates, "ann", 2) == 1


def test_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: who may make a whole burst again is forgotten first, then whoever came first."""
    monkeypatch.setattr(rates_module, "KNOWN", 100)
    clock = Clock()
    rates = Rates({"List": Rate(1, 1)}, clock=clock.steady)
    for number in range(100):
        taken(rates, f"old {number}", 1)
    clock.move(seconds=61)
    for number in range(100):
        taken(rates, f"new {number}", 1)
        assert len(rates._whole) <= 100
    assert not any(str(caller).startswith("old") for _, caller in rates._whole)
    assert taken(rates, "new 99", 1) == 0
    assert taken(rates, "one more", 1) == 1
    assert len(rates._whole) <= 100
    assert taken(rates, "new 99", 1) == 0


@pytest.fixture
def limited(store_path: Path, clock: Clock) -> Iterator[Chat]:
    chat = Chat(store_path, clock, rates=RATES)
    yield chat
    chat.close()


def test_lists_and_broadcasts_are_limited_by_account(limited: Chat) -> None:
    """Each account has its own number of both, whichever session it uses; a pattern that is none costs nothing."""
    ann, bob = limited.account("ann"), limited.account("bob")
    assert limited.refused(WILD_CARD, WildCardRequest(pattern=""), ann).reason == "BAD_PATTERN"
    for _ in range(RATES["WildCard"].burst):
        limited.call(WILD_CARD, WildCardRequest(pattern="*"), ann)
    again = FakeContext()
    limited.log_in("ann", again)
    assert limited.refused(WILD_CARD, WildCardRequest(pattern="*"), again).reason == "TOO_OFTEN"
    limited.call(WILD_CARD, WildCardRequest(pattern="*"), bob)
    for _ in range(RATES["Broadcast"].burst):
        limited.call(BROADCAST, BroadcastRequest(pattern="b*", text="x"), ann)
    error = limited.refused(BROADCAST, BroadcastRequest(pattern="b*", text="x"), ann)
    assert (error.reason, error.retry_after_ms > 0) == ("TOO_OFTEN", True)


def test_log_ins_and_new_accounts_are_limited_by_network(limited: Chat) -> None:
    """From one network so many are taken, right or wrong; a token, other networks and the machine itself are free."""
    limited.account("ann")
    token = limited.log_in("ann", FakeContext()).token

    def there(peer: str = "198.51.100.7:4000") -> FakeContext:
        context = FakeContext()
        context.from_ = peer
        return context

    for _ in range(RATES["LogIn"].burst):
        limited.log_in("ann", there("198.51.100.8:4"))
    request = LogInRequest(username="ann", password=PASSWORD)
    error = limited.refused(LOG_IN, request, there())
    assert (error.reason, 0 < error.retry_after_ms <= 1000) == ("TOO_OFTEN", True)
    limited.log_in("ann", there(), token=token)
    limited.log_in("ann", there("203.0.113.9:4"))
    for number in range(RATES["CreateAccount"].burst):
        limited.call(CREATE_ACCOUNT, CreateAccountRequest(username=f"a{number}", password=PASSWORD), there())
    one_more = CreateAccountRequest(username="b", password=PASSWORD)
    assert limited.refused(CREATE_ACCOUNT, one_more, there()).reason == "TOO_OFTEN"
    limited.call(CREATE_ACCOUNT, one_more, there("127.0.0.1:4"))
    for number in range(100):
        context = there(("127.0.0.1:4", "127.9.8.7:4", "[::1]:4")[number % 3])
        limited.call(CREATE_ACCOUNT, CreateAccountRequest(username=f"c{number}", password=PASSWORD), context)
