"""The dispatcher alone, with methods whose payloads are packed: what runs where, and what comes of it."""

import pytest

from tests.test_dispatch import CODEC, LIMITS, AskRequest, AskResponse, Call
from wireproto.dispatch import Entry
from wireproto.errors import CallError, LocalProtocolError
from wireproto.handling import Context
from wireproto.schema import Method
from wireproto.wire.packing import Packed, pack_payload

TEXT = "the same again " * 200
ECHO = Method(opcode=0, name="Echo", request=AskRequest, response=AskResponse, compress=True)
REQUEST = CODEC.plan(AskRequest, 1, LIMITS).encode(AskRequest(text=TEXT))
ANSWER = CODEC.plan(AskResponse, 1, LIMITS, request=False).encode(AskResponse(text=TEXT))


def echo(request: AskRequest, context: Context) -> AskResponse:
    return AskResponse(text=request.text)


def packing(algorithm: int) -> Entry:
    return Entry(ECHO, echo, CODEC, 1, LIMITS, None, packing=algorithm)


def test_an_answer_is_packed_where_an_algorithm_was_agreed_on() -> None:
    """Packing takes its time, so such a method is no work for a leader; without an algorithm it is as any other."""
    entry = packing(1)
    assert entry.blocking
    answer = entry.run(REQUEST, Call())
    assert isinstance(answer, Packed)
    assert answer.unpack() == ANSWER
    plain = packing(0)
    assert not plain.blocking
    assert plain.run(REQUEST, Call()) == ANSWER


def test_a_packed_request_is_run_by_a_twin() -> None:
    """It unpacks, wherever it runs, and leaves the entry of the other requests as it was."""
    entry = packing(0)
    twin = entry.unpacking()
    assert (twin.blocking, entry.blocking) == (True, False)
    assert twin.run(pack_payload(REQUEST, 1), Call()) == ANSWER
    assert entry.run(REQUEST, Call()) == ANSWER


def test_a_stream_that_cannot_be_unpacked_is_a_bad_payload() -> None:
    """As any payload that is no message of the method."""
    outcome = packing(1).unpacking().run(Packed(1, b"\0\0\2\0" + b"no stream"), Call())
    assert isinstance(outcome, CallError)
    assert outcome.reason == "BAD_PAYLOAD"


def test_who_called_cannot_be_called_where_no_door_says_who_it_is() -> None:
    """A context says so, unless its door has calls of a server."""
    with pytest.raises(LocalProtocolError, match="who called cannot be called"):
        _ = Call().client
