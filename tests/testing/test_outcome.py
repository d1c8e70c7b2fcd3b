"""What comes of one call of a pair, of any shape."""

from concurrent.futures import Future
from typing import Any

import pytest

from tests.testing.shelf import (
    FILL,
    FORGET,
    LIST,
    PUT,
    SHELF,
    SUM_UP,
    SWAP,
    FillResponse,
    ListRequest,
    ListResponse,
    MergeRequest,
    MergeResponse,
    PutRequest,
    PutResponse,
    Shelf,
    TakeRequest,
    TakeResponse,
)
from wireproto.dispatch import Handlers, Identity
from wireproto.testing import Pair, pair
from wireproto.testing.outcome import ENOUGH, Outcome, paired_outcome

PUTS = [PutRequest(key=key, value=key.encode()) for key in "abcdefgh"]


@pytest.fixture
def link() -> Pair:
    """A pair whose shelf has nothing on it, for a caller who may write."""
    return pair(Shelf().handlers, authenticate=lambda metadata, peer: Identity(metadata.authorization, ["write"]))


def outcome(link: Pair, method: Any, request: Any) -> Outcome:
    return paired_outcome(link, method, request, authorization="ann")


def test_each_shape_has_its_answers(link: Pair) -> None:
    """One answer, several, or none; and who calls is told."""
    assert outcome(link, PUT, PUTS[0]).answers == [PutResponse(size=1, by="ann")]
    assert outcome(link, FILL, PUTS[:3]).answers == [FillResponse(count=3)]
    assert outcome(link, LIST, ListRequest()).answers == [ListResponse(key=key, value=key.encode()) for key in "abc"]
    assert outcome(link, SUM_UP, [MergeRequest(numbers={"a": 1}), MergeRequest(numbers={"b": 2})]).answers == [
        MergeResponse(total=3.0)
    ]
    assert outcome(link, FORGET, TakeRequest(key="b")) == Outcome([], None, True)
    assert [item.key for item in outcome(link, LIST, ListRequest()).answers] == ["a", "c"]


def reason(found: Outcome) -> str:
    assert found.error is not None
    assert found.ended
    return found.error.reason


def test_what_ends_a_call_is_told_behind_its_answers(link: Pair) -> None:
    """The answers that came before an error are there; what a one-way call failed with is there, too."""
    outcome(link, FILL, PUTS[:1])
    gone = outcome(link, SWAP, [TakeRequest(key="a"), TakeRequest(key="a")])
    assert gone.answers == [TakeResponse(value=b"a")]
    assert reason(gone) == "GONE"
    assert reason(outcome(link, FILL, [PutRequest(key="a", value=bytes(200))])) == "REQUEST_TOO_LARGE"
    assert reason(outcome(pair(Handlers(SHELF)), FORGET, TakeRequest(key="a"))) == "NO_HANDLER"
    assert reason(outcome(pair(Shelf().handlers), PUT, PUTS[0])) == "SIGN_IN_REQUIRED"


def test_a_stream_is_left_after_enough(link: Pair) -> None:
    """Of more than that there is no need; the call is cancelled, and the link goes on."""
    outcome(link, FILL, PUTS)
    left = outcome(link, LIST, ListRequest())
    assert (len(left.answers), left.error, left.ended) == (ENOUGH, None, False)
    assert link.client.calls_in_flight == link.server.calls_in_flight == 0
    assert outcome(link, FILL, []).answers == [FillResponse(count=0)]


def test_what_waits_is_left() -> None:
    """A future that is not done leaves the call, whichever shape has it."""
    handlers = Handlers(SHELF)
    futures: list[Future[Any]] = []

    def later(request: Any, context: Any) -> Future[Any]:
        futures.append(Future())
        return futures[-1]

    handlers.register(PUT)(later)
    handlers.register(SUM_UP)(later)
    link = pair(handlers, authenticate=lambda metadata, peer: Identity("ann", ["write"]))
    assert outcome(link, PUT, PUTS[0]) == Outcome([], None, False)
    assert outcome(link, SUM_UP, []) == Outcome([], None, False)
    assert futures[1].cancelled()
