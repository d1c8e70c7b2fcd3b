"""What version 2 brought, from inside: deletions that meet reads, changes that meet log-ins, presence."""

import threading
from typing import Any

import pytest

from chat_service.fakes import PASSWORD, Chat, Clock, FakeContext
from wireproto import Retry
from wireproto_chat.contract import (
    ACKNOWLEDGE,
    CHANGE_PASSWORD,
    DELETE_MESSAGE,
    LOG_IN,
    POP_UNDELIVERED,
    WHO_AM_I,
    WILD_CARD,
    AcknowledgeRequest,
    AcknowledgeResponse,
    ChangePasswordRequest,
    DeleteMessageRequest,
    LogInRequest,
    PopUndeliveredRequest,
    WhoAmIRequest,
    WildCardRequest,
)
from wireproto_chat.service.mailboxes import moment


def acknowledge(chat: Chat, context: FakeContext, sequence: int) -> AcknowledgeResponse:
    return chat.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=sequence), context)


def pop(chat: Chat, context: FakeContext) -> list[str]:
    return [m.text for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), context).messages]


def delete(chat: Chat, context: FakeContext, recipient: str, sequence: int) -> None:
    chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient=recipient, sequence=sequence), context)


def filled(chat: Chat, count: int) -> tuple[FakeContext, FakeContext]:
    ann, bob = chat.account("ann", version=2), chat.account("bob", version=2)
    for i in range(1, count + 1):
        chat.send(ann, "bob", str(i))
    return ann, bob


# ---------------------------------------------------------------------- deleting


def test_what_is_deleted_does_not_wait(chat: Chat) -> None:
    """Undelivered counts what will be delivered, after a restart of the counters, too."""
    ann, bob = filled(chat, 5)
    for sequence in (1, 4, 5):
        delete(chat, ann, "bob", sequence)
    assert acknowledge(chat, bob, 0).undelivered == 2
    chat.app._store._writer._tx._by_id.clear()
    chat.app._store._writer._tx._by_name.clear()
    assert acknowledge(chat, bob, 0).undelivered == 2
    reader = chat.receive(bob)
    assert reader.texts() == ["2", "3"]
    assert acknowledge(chat, bob, 2).undelivered == 1
    chat.send(ann, "bob", "6")
    assert reader.texts() == ["6"]
    assert acknowledge(chat, bob, 6) == AcknowledgeResponse(acknowledged=6, undelivered=0)


@pytest.mark.parametrize("version", [1, 2])
def test_a_stream_that_has_read_ahead_forgets_what_is_deleted(chat: Chat, version: int) -> None:
    """Messages a stream holds ready are not given out once their deletion was answered."""
    ann, bob = chat.account("ann"), chat.account("bob", version=version)
    for i in range(10):
        chat.send(ann, "bob", str(i))
    reader = chat.receive(bob)
    assert reader.texts(2) == ["0", "1"]
    for sequence in range(3, 10):
        delete(chat, ann, "bob", sequence)
    assert reader.texts() == ["9"]


# ---------------------------------------------------------------------- passwords


def change(chat: Chat, context: FakeContext, old: str, new: str) -> int:
    return chat.call(CHANGE_PASSWORD, ChangePasswordRequest(password=old, new_password=new), context).sessions_ended


def test_a_log_in_that_overlaps_a_change_opens_no_session(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password verified before the change and used after it is refused, and may be tried again."""
    ann = chat.account("ann")
    real = chat.app._passwords.verify
    once = threading.Lock()

    def slow(stored: "str | None", normal: str) -> bool:
        good = real(stored, normal)
        if once.acquire(blocking=False):
            change(chat, ann, PASSWORD, "another password")
        return good

    monkeypatch.setattr(chat.app._passwords, "verify", slow)
    error = chat.refused(LOG_IN, LogInRequest(username="ann", password=PASSWORD), FakeContext())
    assert (error.reason, error.retry) == ("SERVER_BUSY", Retry.NOT_PROCESSED)
    assert chat.call(WHO_AM_I, WhoAmIRequest(), ann).sessions == 1


# ---------------------------------------------------------------------- who, and when


def test_a_list_says_when_somebody_was_last_seen(chat: Chat, clock: Clock) -> None:
    """Never, at the last log-in, at the end of the last stream, and now while one is open."""

    def seen() -> Any:
        (account,) = chat.call(WILD_CARD, WildCardRequest(pattern="bob"), ann).accounts
        return account.online, account.last_seen

    def now() -> Any:
        return moment(int(clock() * 1_000_000))

    ann, bob = chat.account("ann"), chat.account("bob")
    at = now()
    clock.move(seconds=60)
    assert seen() == (False, at)
    reader = chat.receive(bob)
    reader.take()
    clock.move(seconds=60)
    assert seen() == (True, now())
    reader.close()
    chat.log_in("ann", FakeContext())  # the writer has done what came before
    at = now()
    clock.move(seconds=60)
    assert seen() == (False, at)
