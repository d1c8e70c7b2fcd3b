"""Guessing passwords: what it costs whom, and who is not held up by it."""

from collections import Counter
from typing import Any

import pytest

from chat_service.fakes import PASSWORD, WAIT, Chat, Clock, FakeContext
from wireproto import CallError, Retry, Status
from wireproto_chat.opcodes import (
    CHANGE_PASSWORD,
    LOG_IN,
    ChangePasswordRequest,
    LogInRequest,
)
from wireproto_chat.service.guesses import network_of, wait_after


def guess(chat: Chat, name: str, password: str, peer: str = "198.51.100.7:4000") -> CallError:
    context = FakeContext()
    context.from_ = peer
    return chat.refused(LOG_IN, LogInRequest(username=name, password=password), context)


def enter(chat: Chat, name: str, peer: str, token: str = "") -> None:
    context = FakeContext()
    context.from_ = peer
    chat.log_in(name, context, token=token)


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_guesses_are_slowed_down(chat: Chat, clock: Clock, name: str) -> None:
    """After five failures each further try waits, 1 s to 15 min, doubling; whether the account exists or not."""
    chat.account("ann")
    assert {guess(chat, name, "wrong").reason for _ in range(5)} == {"BAD_CREDENTIALS"}
    waits = []
    for _ in range(13):
        error = guess(chat, name, PASSWORD)
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "THROTTLED")
        assert error.retry is Retry.NOT_PROCESSED
        waits.append(error.retry_after_ms)
        clock.move(seconds=error.retry_after_ms / 1000 - 0.001)
        assert guess(chat, name, PASSWORD).reason == "THROTTLED"
        clock.move(seconds=0.001)
        assert guess(chat, name, "wrong").reason == "BAD_CREDENTIALS"
    assert waits == [1000 * min(900, 2**i) for i in range(13)]


def test_nobody_is_locked_out_by_a_stranger(chat: Chat, clock: Clock) -> None:
    """From another network, and with a token from anywhere, the owner comes in; a success forgets the failures."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    for _ in range(5):
        guess(chat, "ann", "wrong")
    assert guess(chat, "ann", PASSWORD, "198.51.100.99:1").reason == "THROTTLED"
    enter(chat, "ann", "198.51.101.7:4000")
    enter(chat, "ann", "198.51.100.7:4000", token)
    clock.move(seconds=1)
    enter(chat, "ann", "198.51.100.7:4000")
    assert guess(chat, "ann", "wrong").reason == "BAD_CREDENTIALS"
    enter(chat, "ann", "198.51.100.7:4000")


def names(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


def test_one_network_may_try_so_many_names(chat: Chat, clock: Clock) -> None:
    """From one network 50 log-ins may fail at once whatever the names, and at most 100 in any hour; other networks, a
    token, and the machine itself are not held up."""
    chat.account("ann")
    token = chat.log_in("ann", FakeContext()).token
    assert {guess(chat, name, "wrong").reason for name in names(50)} == {"BAD_CREDENTIALS"}
    error = guess(chat, "ann", PASSWORD)
    assert (error.reason, error.retry, error.retry_after_ms) == ("THROTTLED", Retry.NOT_PROCESSED, 72_000)
    enter(chat, "ann", "198.51.100.7:4000", token)
    enter(chat, "ann", "198.51.101.7:4000")
    assert {guess(chat, name, "wrong", "127.0.0.1:4").reason for name in names(120)} == {"BAD_CREDENTIALS"}
    evaluated = 50
    for number in range(2000):
        clock.move(seconds=1.8)
        evaluated += guess(chat, f"other{number}", "wrong").reason == "BAD_CREDENTIALS"
    assert 98 <= evaluated <= 100
    clock.move(days=1)
    assert {guess(chat, name, "wrong").reason for name in names(50)} == {"BAD_CREDENTIALS"}


def test_one_name_may_be_tried_so_often_from_everywhere(chat: Chat, clock: Clock) -> None:
    """From however many networks, 50 log-ins of one name may fail at once, and at most 100 in any hour; its owner's
    token and other names are not held up."""
    chat.account("ann")
    chat.account("bob")
    token = chat.log_in("ann", FakeContext()).token
    peers = [f"10.{number // 256}.{number % 256}.1:5" for number in range(2000)]
    assert {guess(chat, "ann", "wrong", peer).reason for peer in peers[:50]} == {"BAD_CREDENTIALS"}
    assert guess(chat, "ann", PASSWORD, peers[50]).reason == "THROTTLED"
    enter(chat, "ann", peers[50], token)
    enter(chat, "bob", peers[50])
    evaluated = 50
    for peer in peers:
        clock.move(seconds=1.8)
        evaluated += guess(chat, "ann", "wrong", peer).reason == "BAD_CREDENTIALS"
    assert 98 <= evaluated <= 100


def test_tries_at_once_count_together(chat: Chat) -> None:
    """Log-ins of many names under way at once count for their network until they are answered."""
    contexts = []
    for _ in range(120):
        context = FakeContext()
        context.from_ = "198.51.100.7:4000"
        contexts.append(context)
    reasons: Counter[str] = Counter()
    waiting: list[Any] = []
    for name, context in zip(names(120), contexts, strict=True):
        if len(waiting) == 20:
            reasons[waiting.pop(0).exception(WAIT).reason] += 1
        waiting.append(chat.start(LOG_IN, LogInRequest(username=name, password="wrong"), context))
    reasons.update(each.exception(WAIT).reason for each in waiting)
    assert reasons["BAD_CREDENTIALS"] <= 50
    assert set(reasons) == {"BAD_CREDENTIALS", "THROTTLED"}


def test_a_restart_does_not_forget_guesses(store_path: Any, clock: Clock) -> None:
    """The count is in the store; after a day without a failure it is gone."""
    chat = Chat(store_path, clock)
    chat.account("ann")
    for _ in range(5):
        guess(chat, "ann", "wrong")
    chat.close()
    chat = Chat(store_path, clock)
    assert guess(chat, "ann", PASSWORD).reason == "THROTTLED"
    clock.move(days=1)
    assert guess(chat, "ann", "wrong").reason == "BAD_CREDENTIALS"
    enter(chat, "ann", "198.51.100.7:4000")
    chat.close()


def test_guesses_at_once_are_guesses(chat: Chat) -> None:
    """Log-ins under way count as failures until they are answered, so that many at once are not all tried."""
    chat.account("ann")
    tries = [chat.start(LOG_IN, LogInRequest(username="ann", password="wrong"), FakeContext()) for _ in range(30)]
    reasons = [error.reason for error in (each.exception(WAIT) for each in tries) if isinstance(error, CallError)]
    assert reasons.count("BAD_CREDENTIALS") <= 5
    assert set(reasons) == {"BAD_CREDENTIALS", "THROTTLED"}


def test_changing_a_password_is_guessing_too(chat: Chat) -> None:
    """Wrong old passwords count as failed log-ins."""
    ann = chat.account("ann")
    request = ChangePasswordRequest(password="wrong", new_password="another password")
    reasons = [chat.refused(CHANGE_PASSWORD, request, ann).reason for _ in range(6)]
    assert reasons == ["BAD_CREDENTIALS"] * 5 + ["THROTTLED"]


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("127.0.0.1:80", "127.0.0.0/24"),
        ("[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64"),
        ("[::ffff:198.51.100.7]:80", "198.51.100.0/24"),
        ("[fe80::1%eth0]:80", "fe80::/64"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_a_network_is_what_one_person_may_have(peer: str, network: str) -> None:
    """/24 of IPv4 and /64 of IPv6."""
    assert network_of(peer) == network


def test_no_wait_is_longer_than_a_quarter_of_an_hour() -> None:
    """Any number of failures has a wait, without a number that grows without bound."""
    assert [wait_after(failures) for failures in (0, 4, 5, 14, 15, 10**9)] == [0, 0, 1, 512, 900, 900]
