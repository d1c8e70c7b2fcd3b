"""pair with topics: what was left out, who is ended, and where a stream goes on."""

import pytest

from tests.server.newsroom import ALERTS, PAPER, TICKS, ListenRequest, News, Newsroom, publish
from wireproto import CallError, Metadata
from wireproto.testing import pair
from wireproto.wire.events import AnsweredBeside, EndReceived, ErrorReceived, ItemReceived


def test_a_listener_has_what_is_kept() -> None:
    """The oldest items are left out of a stream without credit, and the rest comes in order."""
    room = Newsroom(keep=3)
    link = pair(room.handlers)
    call_id = link.start(TICKS, ListenRequest(), credit=0)
    link.exchange()
    publish(room.ticks, 1, 10)
    room.ticks.close()
    assert link.exchange() == []
    link.client.send_credit(call_id, 10, 1000)
    first, *others, end = link.exchange()
    assert isinstance(first, AnsweredBeside)
    assert first.beside.dropped == 7
    assert isinstance(first.event, ItemReceived)
    assert [type(each) for each in others] == [ItemReceived, ItemReceived]
    assert isinstance(end, EndReceived)


def test_a_slow_listener_is_ended_without_credit() -> None:
    """As on a real server."""
    room = Newsroom(keep=3)
    link = pair(room.handlers)
    link.start(ALERTS, ListenRequest(), credit=0)
    link.exchange()
    assert room.alerts.subscribers == 1
    publish(room.alerts, 1, 4)
    (ended,) = link.exchange()
    assert isinstance(ended, ErrorReceived)
    assert ended.error.reason == "SLOW_CONSUMER"
    assert room.alerts.subscribers == 0


def test_the_end_of_a_topic_needs_no_credit() -> None:
    """A listener that has all there is hears it."""
    room = Newsroom(keep=3)
    link = pair(room.handlers)
    link.start(TICKS, ListenRequest(), credit=0)
    link.exchange()
    assert room.ticks.subscribers == 1
    room.ticks.close()
    assert [type(each) for each in link.exchange()] == [EndReceived]
    assert room.ticks.subscribers == 0


def test_a_stream_goes_on_behind_a_position() -> None:
    """Or says that it cannot."""
    room = Newsroom(keep=3)
    publish(room.paper, 1, 9)
    room.paper.close()
    link = pair(room.handlers)
    assert list(link.stream(PAPER, ListenRequest(), metadata=Metadata(resume_after=b"7"))) == [
        News(number=8),
        News(number=9),
    ]
    with pytest.raises(CallError, match="POSITION_LOST"):
        list(link.stream(PAPER, ListenRequest(), metadata=Metadata(resume_after=b"5")))
