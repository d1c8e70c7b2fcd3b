"""Section 4: streams that a client opens again behind their last item."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, follow
from wireproto.conformance.case import Deviation, Needs
from wireproto.conformance.service import TAIL, TailResponse

case = CLIENT_CASES.case

RESUME_AFTER = 7


def _begun(callee: Callee, after: bytes | None) -> Request:
    """The next REQUEST must ask to go on behind this position; None for one that begins."""
    request = callee.request(TAIL)
    found = request.metadata.get(RESUME_AFTER)
    if found != (None if after is None else [after]):
        raise Deviation(f"key 7 was to be {after!r}, and is {found}")
    return request


def _give(callee: Callee, request: Request, *numbers: int) -> None:
    for number in numbers:
        callee.item(request, TailResponse(number=number, position=number - 2))


def _lose(callee: Callee, request: Request, retry: int = page.MAYBE_PROCESSED) -> None:
    callee.error(request, page.UNAVAILABLE, b"", b"come back", retry=retry)


def _taken(callee: Callee, *due: int | dict[str, Any]) -> None:
    """What the client says came: numbers of items, and gaps."""
    said = callee.result().get("items")
    if not isinstance(said, list):
        raise Deviation(f"the items that came are to be a list, and the client said {said}")
    found = [each if not isinstance(each, dict) or "gap" in each else each.get("number") for each in said]
    if found != list(due):
        raise Deviation(f"{list(due)} was due, and the client says that {found} came")


@case("4.100", needs=Needs.SHAPES)
def opened_again(trial: Trial) -> None:
    """A stream that ends UNAVAILABLE is opened again behind its last item: key 7 has its position."""
    with trial.client(follow("Tail", 8, items=5)) as callee:
        request = _begun(callee, None)
        _give(callee, request, 0, 1)
        _lose(callee, request)
        request = _begun(callee, b"-1")
        _give(callee, request, 2)
        _lose(callee, request)
        request = _begun(callee, b"0")
        _give(callee, request, 3, 4)
        callee.end(request)
        _taken(callee, 0, 1, 2, 3, 4)


@case("4.101", needs=Needs.SHAPES)
def lost_again(trial: Trial) -> None:
    """A stream that is lost before its next item asks for the same position once more."""
    with trial.client(follow("Tail", 8, items=3)) as callee:
        request = _begun(callee, None)
        _give(callee, request, 0)
        _lose(callee, request)
        _lose(callee, _begun(callee, b"-2"))
        _lose(callee, _begun(callee, b"-2"), page.NOT_PROCESSED)
        request = _begun(callee, b"-2")
        _give(callee, request, 1, 2)
        callee.end(request)
        _taken(callee, 0, 1, 2)


@case("4.102", needs=Needs.SHAPES)
def given_position(trial: Trial) -> None:
    """A stream that is begun behind a position has it in key 7 of its first REQUEST."""
    with trial.client(follow("Tail", 8, 1, items=5)) as callee:
        request = _begun(callee, b"1")
        _give(callee, request, 4)
        callee.end(request)
        _taken(callee, 4)


@case("4.103", needs=Needs.SHAPES)
def position_lost(trial: Trial) -> None:
    """POSITION_LOST is answered by a call without a position, and the program is told that items may be missing."""
    with trial.client(follow("Tail", 8, items=9)) as callee:
        request = _begun(callee, None)
        _give(callee, request, 0, 1)
        _lose(callee, request)
        callee.error(_begun(callee, b"-1"), page.OUT_OF_RANGE, b"POSITION_LOST", retry=page.NOT_PROCESSED)
        request = _begun(callee, None)
        _give(callee, request, 7, 8)
        callee.end(request)
        _taken(callee, 0, 1, {"gap": -1}, 7, 8)


@case("4.104", needs=Needs.SHAPES)
def lost_without_position(trial: Trial) -> None:
    """A stream that is lost before its first item may have missed some: the program is told, unless the call was not
    processed."""
    with trial.client(follow("Tail", 8, items=2)) as callee:
        _lose(callee, _begun(callee, None), page.NOT_PROCESSED)
        _lose(callee, _begun(callee, None))
        request = _begun(callee, None)
        _give(callee, request, 1)
        callee.end(request)
        _taken(callee, {"gap": None}, 1)


@case("4.105", needs=Needs.SHAPES)
def another_error(trial: Trial) -> None:
    """Any other error is the program's, POSITION_LOST of a call without a position among them."""
    for status, reason in ((10, b"AS_ASKED"), (page.OUT_OF_RANGE, b"POSITION_LOST")):
        with trial.client(follow("Tail", 8, items=2)) as callee:
            request = _begun(callee, None)
            _give(callee, request, 0)
            callee.error(request, status, reason, retry=page.NOT_PROCESSED)
            _taken(callee, 0)
            callee.failed(0, status=status, reason=reason.decode())
