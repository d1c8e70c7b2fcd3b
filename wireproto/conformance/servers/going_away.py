"""Section 4, going away: for servers whose process the kit may end, which is asked to by SIGTERM."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller, Subject
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import (
    COUNT,
    REFLECT,
    SHAPED,
    SLEEP,
    SUM,
    CountRequest,
    ReflectRequest,
    SleepRequest,
    SumRequest,
)
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case


@contextmanager
def _leaving(bench: Bench) -> Iterator[tuple[Subject, Caller]]:
    """A server of its own for this case, and a connection to it."""
    if bench.start is None:
        raise NotJudged("the kit did not start the server, so it cannot ask it to go")
    with bench.start() as subject, bench.at(subject.address).open() as caller:
        yield subject, caller


def _goaway(caller: Caller, last_call_id: int) -> None:
    found = page.read_goaway(caller.expect(page.GOAWAY, 0).payload)
    if found.last_call_id != last_call_id:
        raise Deviation(f"GOAWAY names call {found.last_call_id} as the last one taken; it was {last_call_id}")


@case("4.70", over=Over.ONCE, needs=Needs.PROCESS)
def idle(bench: Bench) -> None:
    """A server that goes sends GOAWAY with the id of the last call it took, and closes when none is in flight."""
    with _leaving(bench) as (subject, caller):
        caller.call(ECHO, EchoRequest(payload=b"x"), call_id=5)
        subject.terminate()
        _goaway(caller, 5)
        caller.closes("GOAWAY")


@case("4.71", over=Over.ONCE, needs=Needs.PROCESS)
def without_calls(bench: Bench) -> None:
    """GOAWAY on a connection without any call names 0."""
    with _leaving(bench) as (subject, caller):
        subject.terminate()
        _goaway(caller, 0)
        caller.closes("GOAWAY")


def _with_patience(bench: Bench, judged: Callable[[Subject, Caller, int], None]) -> None:
    """Judge with a call in flight that takes some milliseconds; a slow machine gets a second try with more of them."""
    try:
        with _leaving(bench) as (subject, caller):
            judged(subject, caller, 500)
    except Deviation:
        with _leaving(bench) as (subject, caller):
            judged(subject, caller, 6000)


@case("4.72", over=Over.ONCE, needs=Needs.PROCESS)
def in_flight(bench: Bench) -> None:
    """Calls in flight go on behind GOAWAY: they are answered, PING is too, and then the connection ends."""

    def judged(subject: Subject, caller: Caller, milliseconds: int) -> None:
        call_id = caller.request(SLEEP, SleepRequest(milliseconds=milliseconds))
        caller.ping()
        subject.terminate()
        _goaway(caller, call_id)
        caller.ping()
        caller.response(SLEEP, call_id)
        caller.closes("the last answer")

    _with_patience(bench, judged)


@case("4.73", over=Over.ONCE, needs=Needs.PROCESS)
def crossed(bench: Bench) -> None:
    """A REQUEST behind GOAWAY is answered SHUTTING_DOWN, not processed."""

    def judged(subject: Subject, caller: Caller, milliseconds: int) -> None:
        slow = caller.request(SLEEP, SleepRequest(milliseconds=milliseconds))
        caller.ping()
        subject.terminate()
        _goaway(caller, slow)
        late = caller.request(ECHO, EchoRequest(payload=b"x"))
        caller.error(late, "SHUTTING_DOWN", retry=page.NOT_PROCESSED)
        caller.response(SLEEP, slow)
        caller.closes("the last answer")

    _with_patience(bench, judged)


@case("4.75", over=Over.ONCE, needs=Needs.PROCESS)
def crossed_in_every_shape(bench: Bench) -> None:
    """REQUESTs of every shape behind GOAWAY are answered SHUTTING_DOWN, not processed, and one-way ones are dropped."""

    def judged(subject: Subject, caller: Caller, milliseconds: int) -> None:
        slow = caller.request(SLEEP, SleepRequest(milliseconds=milliseconds))
        caller.ping()
        subject.terminate()
        _goaway(caller, slow)
        for flags in page.FLAGS_OF_REQUEST:
            late = caller.request(ECHO, b"", flags=flags)
            if not flags & page.ONE_WAY:
                caller.error(late, "SHUTTING_DOWN", retry=page.NOT_PROCESSED)
        caller.response(SLEEP, slow)
        caller.closes("the last answer")

    _with_patience(bench, judged)


@case("4.74", over=Over.ONCE, needs=Needs.PROCESS)
def streams(bench: Bench) -> None:
    """Streams end with ERROR, UNAVAILABLE, when the server goes."""
    with _leaving(bench) as (subject, caller):
        call_id = caller.request(COUNT, CountRequest(items=1 << 40), credit=1)
        caller.item(COUNT, call_id)
        subject.terminate()
        _goaway(caller, call_id)
        caller.error(call_id, "SHUTTING_DOWN")
        caller.closes("the last answer")


@case("4.76", over=Over.ONCE, needs=Needs.PROCESS)
def uploads(bench: Bench) -> None:
    """Uploads up to the last call of GOAWAY go on: their items are taken, credit for them returns, and they are
    answered."""
    if bench.version < SHAPED:
        raise NotJudged(f"version {bench.version} of the service has no uploads")
    with _leaving(bench) as (subject, caller):
        upload = caller.upload(SUM)
        caller.give(SUM, upload, SumRequest(number=1))
        caller.ping()
        subject.terminate()
        _goaway(caller, upload)
        caller.give(SUM, upload, *[SumRequest(number=2, data=bytes(100))] * 1000)
        caller.complete(SUM, upload)
        answer = caller.response(SUM, upload)
        if (answer.total, answer.items) != (2001, 1001):
            raise Deviation(f"the sum of 1001 items is 2001, and {answer} came")
        caller.closes("the last answer")


@case("4.77", over=Over.ONCE, needs=Needs.PROCESS)
def streams_that_drain(bench: Bench) -> None:
    """A call of a method that says `drains` goes on behind GOAWAY in both halves, to its own end."""
    if bench.version < SHAPED:
        raise NotJudged(f"version {bench.version} of the service has no duplex calls")
    with _leaving(bench) as (subject, caller):
        call_id = caller.upload(REFLECT, credit=100)
        caller.give(REFLECT, call_id, ReflectRequest(number=1))
        caller.item(REFLECT, call_id)
        subject.terminate()
        _goaway(caller, call_id)
        for number in range(2, 6):
            caller.give(REFLECT, call_id, ReflectRequest(number=number))
            if (back := caller.item(REFLECT, call_id).number) != number:
                raise Deviation(f"the item that came back has number {back}, and {number} was sent")
        caller.complete(REFLECT, call_id)
        caller.expect(page.END, call_id)
        caller.closes("the last answer")


@case("4.155", over=Over.ONCE, needs=Needs.PROCESS)
def streams_with_an_end(bench: Bench) -> None:
    """A stream that has an end of its own goes on behind GOAWAY, by the credit that comes, to that end."""
    with _leaving(bench) as (subject, caller):
        call_id = caller.request(COUNT, CountRequest(items=6), credit=1)
        caller.item(COUNT, call_id)
        subject.terminate()
        _goaway(caller, call_id)
        for due in range(1, 6):
            caller.credit(call_id, 1 if due < 5 else 2)  # with none left a server need not know that this was the end
            if (number := caller.item(COUNT, call_id).number) != due:
                raise Deviation(f"item {due} was due, and {number} came")
        caller.expect(page.END, call_id)
        caller.closes("the last answer")
