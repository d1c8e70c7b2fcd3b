"""Items that many streams are given: encoded once per method, codec and version, and not kept for long."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from wireproto import codecs
from wireproto.dispatch import SHARED_BYTES, SHARED_ITEMS, Entry, Handlers
from wireproto.errors import CallError
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.schema import Message, Service, StreamMethod


class NewsRequest(Message):
    pass


class NewsItem(Message, weakref=True):
    text: str


NEWS = StreamMethod(opcode=1, name="News", request=NewsRequest, response=NewsItem)
SERVICE = Service("test.v1.NewsService", version=1, methods=[NEWS])


@pytest.fixture
def entry() -> Entry:
    """The method as it is served in pipe."""
    handlers = Handlers(SERVICE)

    @handlers.register(NEWS)
    def news(request: NewsRequest, context: Context) -> Iterator[NewsItem]:
        yield NewsItem(text="x")

    return handlers.table(codecs.get("pipe"), 1, Limits()).entries[NEWS.opcode]


def test_one_item_is_encoded_once(entry: Entry) -> None:
    """The second time the very same bytes object comes back; an equal item is another one."""
    item = NewsItem(text="news")
    first = entry.encode_shared(item)
    assert first == b"news"
    assert entry.encode_shared(item) is first
    assert entry.encode_shared(NewsItem(text="news")) is not first


def test_as_many_as_one_turn_takes_are_kept(entry: Entry) -> None:
    """With a turn's worth of items every subscriber after the first finds all of them; later ones drive them out."""
    turn = [NewsItem(text=str(number)) for number in range(SHARED_ITEMS)]
    encoded = [entry.encode_shared(item) for item in turn]
    assert all(entry.encode_shared(item) is one for item, one in zip(turn, encoded, strict=True))
    gone = weakref.ref(turn[0])
    del turn
    for number in range(SHARED_ITEMS):
        entry.encode_shared(NewsItem(text=f"later {number}"))
    gc.collect()
    assert gone() is None


def test_large_items_are_not_kept(entry: Entry) -> None:
    """What is kept is bounded in bytes as well."""
    small, large = NewsItem(text="x" * SHARED_BYTES), NewsItem(text="x" * (SHARED_BYTES + 1))
    assert entry.encode_shared(small) is entry.encode_shared(small)
    assert entry.encode_shared(large) is not entry.encode_shared(large)


def test_what_cannot_be_encoded_fails_every_time(entry: Entry) -> None:
    """An item of a wrong kind is an incident for each stream that is given it."""
    wrong = NewsItem(text=7)  # type: ignore[arg-type]
    answers = [entry.encode_shared(wrong), entry.encode_shared(wrong)]
    assert all(isinstance(answer, CallError) for answer in answers)
    assert answers[0] is not answers[1]
