"""Sections 5 and 6: what a server says beside its answers, and the details of its errors."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs
from wireproto.conformance.raw import RawFrame
from wireproto.conformance.saying import RECITE, SAY, Refusal, SayRequest
from wireproto.conformance.service import CONFORMANCE

case = SERVER_CASES.case

ENTRIES = {"region": "eu", "who": "Zoë", "empty": ""}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAID = {**ENTRIES, "traceparent": TRACE}
NAME = f"{CONFORMANCE.package}.Refusal".encode()


def _asks(*, items: int = 0, fail: bool = False) -> SayRequest:
    return SayRequest(entries=ENTRIES, traceparent=TRACE, items=items, fail=fail)


def _said(found: RawFrame) -> dict[str, str]:
    """What stands beside an answer, by name."""
    keys = page.read_metadata(found.metadata)
    said = {value[1 : 1 + value[0]].decode(): value[1 + value[0] :].decode() for value in keys.get(page.ENTRY_KEY, [])}
    for trace in keys.get(page.TRACEPARENT_KEY, []):
        said["traceparent"] = trace.decode()
    return said


def _must_say(found: RawFrame, said: dict[str, str]) -> RawFrame:
    if _said(found) != said:
        raise Deviation(f"beside {page.shown(found)} {said} was to be said, and {_said(found)} was")
    return found


def _fails(caller: Caller, method: Any, request: SayRequest) -> RawFrame:
    """The ERROR of a call that fails as it was asked to."""
    call_id = caller.request(method, request, credit=None if method is SAY else 100)
    for _ in range(request.items):
        caller.item(method, call_id)
    found = caller.expect(page.ERROR, call_id)
    error = page.read_error(found.payload)
    if (error.status, error.reason, error.retry) != (page.ABORTED, "AS_ASKED", page.NEVER):
        raise Deviation(f"an error with ABORTED, AS_ASKED and NEVER was asked for, and {page.shown(found)} came")
    return found


def _details(found: RawFrame) -> bytes | None:
    return page.read_error(found.payload).details


def _written(caller: Caller, size: int) -> bytes:
    """The details with so many bytes of data, as they are to be."""
    return bytes([len(NAME)]) + NAME + caller.details(Refusal(data=bytes(size)))


def _longest(caller: Caller, most: int) -> int:
    """The bytes of data with which the details have at most so many, and one more would be too much."""
    size = most - len(NAME) - 1
    while len(_written(caller, size)) > most:
        size -= 1
    return size


def _must_have(caller: Caller, request: SayRequest, there: bool) -> None:
    """Whether an error has its details; what is said beside it is there in any case."""
    found = _must_say(_fails(caller, SAY, request), request.entries)
    wanted = _written(caller, request.size) if there else None
    details = _details(found)
    if details != wanted:
        raise Deviation(
            f"the details were to {'be there' if there else 'be left out'}: {len(_written(caller, request.size))} "
            f"bytes, beside {len(found.metadata)} of metadata; and {'none' if details is None else len(details)} came"
        )


@case("5.53", needs=Needs.SHAPES)
def response(bench: Bench) -> None:
    """A RESPONSE says what its handler does: entries, also such as are not ASCII or empty, and a trace."""
    with bench.open() as caller:
        _must_say(caller.expect(page.RESPONSE, caller.request(SAY, _asks())), SAID)
        caller.alive()


@case("5.54", needs=Needs.SHAPES)
def end(bench: Bench) -> None:
    """An END does, and the items ahead of it do not."""
    with bench.open() as caller:
        call_id = caller.request(RECITE, _asks(items=3), credit=100)
        for _ in range(3):
            _must_say(caller.expect(page.ITEM, call_id), {})
        _must_say(caller.expect(page.END, call_id), SAID)
        caller.alive()


@case("5.55", needs=Needs.SHAPES)
def error(bench: Bench) -> None:
    """The ERROR of a call does, of a unary one as of a stream."""
    with bench.open() as caller:
        _must_say(_fails(caller, SAY, _asks(fail=True)), SAID)
        _must_say(_fails(caller, RECITE, _asks(fail=True, items=2)), SAID)
        caller.alive()


@case("5.56", needs=Needs.SHAPES)
def nothing(bench: Bench) -> None:
    """What was said beside an answer is that one's alone: the next one has nothing."""
    with bench.open() as caller:
        caller.expect(page.RESPONSE, caller.request(SAY, _asks()))
        _must_say(caller.expect(page.RESPONSE, caller.request(SAY, SayRequest())), {})
        _must_say(caller.expect(page.END, caller.request(RECITE, SayRequest(), credit=1)), {})
        _must_say(_fails(caller, SAY, SayRequest(fail=True)), {})


@case("5.57", needs=Needs.SHAPES)
def together(bench: Bench) -> None:
    """The details go along as long as they and the metadata have 7168 bytes together, and are left out else."""
    with bench.open() as caller:
        size = _longest(caller, 3500)
        room = page.MOST_BESIDE - len(page.field(page.DETAILS_FIELD, _written(caller, size)))
        most = room - len(page.entry(b"a", b""))
        _must_have(caller, SayRequest(entries={"a": "x" * most}, fail=True, size=size), True)
        _must_have(caller, SayRequest(entries={"a": "x" * (most + 1)}, fail=True, size=size), False)
        caller.alive()


@case("6.14", needs=Needs.SHAPES)
def details(bench: Bench) -> None:
    """The details of an error are the full name of their message and its payload, of a unary call as of a stream."""
    with bench.open() as caller:
        for method in (SAY, RECITE):
            for size in (0, 100):
                found = _details(_fails(caller, method, SayRequest(fail=True, size=size)))
                if found != _written(caller, size):
                    shown = "none" if found is None else found.hex(" ")
                    raise Deviation(f"the details {_written(caller, size).hex(' ')} were due, and {shown} came")
        caller.alive()


@case("6.15", needs=Needs.SHAPES)
def too_long(bench: Bench) -> None:
    """Details of 4096 bytes go along; longer ones are left out, and the error is what it is without them."""
    with bench.open() as caller:
        size = _longest(caller, page.MOST_DETAILS)
        _must_have(caller, SayRequest(fail=True, size=size), True)
        _must_have(caller, SayRequest(fail=True, size=size + 4), False)
        caller.alive()


@case("6.16", needs=Needs.SHAPES)
def over_the_frame(bench: Bench) -> None:
    """Details with which the ERROR would be too large for the client are left out."""
    with bench.open(max_frame=4096) as caller:
        size = _longest(caller, page.MOST_DETAILS)
        _must_have(caller, SayRequest(fail=True, size=size), False)
        _must_have(caller, SayRequest(fail=True, size=_longest(caller, 1000)), True)
        caller.alive()
