"""What is shown of a server's answers, whatever they say."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from wireproto_chat.client.answers import accounts, past, who_you_are
from wireproto_chat.opcodes import Account, ConversationMessage, WhoAmIResponse


@pytest.fixture
def _clocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of this process is so many hours from UTC."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
SUMMER = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("_clocks", "moment", "shown"),
    [
        ("east-2", SUMMER, "2026-07-01 14:00"),
        ("west+5", SUMMER, "2026-07-01 07:00"),
        ("east-2", FIRST, "0001-01-01 02:00"),
        ("west+5", FIRST, "0001-01-01 00:00 UTC"),
        ("east-2", LAST, "9999-12-31 23:59 UTC"),
        ("west+5", LAST, "9999-12-31 18:59"),
    ],
    indirect=["_clocks"],
)
@pytest.mark.usefixtures("_clocks")
def test_every_time_that_a_server_may_say_is_shown(moment: datetime, shown: str) -> None:
    """A time is shown by the clock of the reader, and in UTC where that clock does not reach it."""
    message = ConversationMessage(
        position=1, sequence=1, message_id=bytes(16), sender="bob", recipient="ann", text="hi", sent_at=moment
    )
    assert past(message, "ann").when == shown
    assert shown in accounts([Account(username="ann", online=False, last_seen=moment)], times=True)[0]
    answer = WhoAmIResponse(
        username="ann", created_at=moment, sessions=1, last_sequence=0, acknowledged=0, undelivered=0
    )
    assert f"The account was made {shown} and" in who_you_are(answer)
