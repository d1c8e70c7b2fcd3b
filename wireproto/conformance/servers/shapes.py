"""Sections 4 and 7: the two halves of a call, calls of a shape that a method has not, and what crosses their end."""

from collections.abc import Callable, Iterable

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import COUNT, NOTE, SLEEP, CountRequest, NoteRequest, SleepRequest
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

MOST_ITEMS = 10_000
"""A server that grants more first credit is not sent that many items of a call that it has refused."""

LONG = 30_000
"""Milliseconds: a call that is still in flight when the case is over."""

X = EchoRequest(payload=b"x")


@case("4.80")
def unary_with_items(bench: Bench) -> None:
    """A REQUEST that wants items of a unary method is answered WRONG_SHAPE, not processed; the connection goes on."""
    with bench.open() as caller:
        caller.fail(ECHO, X, "WRONG_SHAPE", retry=page.NOT_PROCESSED, flags=page.ITEMS_COME_BACK, credit=5)


@case("4.81", needs=Needs.SERVICE)
def stream_without_items(bench: Bench) -> None:
    """A REQUEST that wants one message of a stream is answered WRONG_SHAPE, not processed; the connection goes on."""
    with bench.open() as caller:
        caller.fail(COUNT, CountRequest(items=1), "WRONG_SHAPE", retry=page.NOT_PROCESSED, flags=0)


@case("4.82", needs=Needs.SERVICE)
def items_that_nobody_takes(bench: Bench) -> None:
    """A REQUEST whose items follow, of a method that takes one message, is WRONG_SHAPE, not processed."""
    with bench.open() as caller:
        for method in (ECHO, COUNT):
            for flags in (page.ITEMS_FOLLOW, page.ITEMS_FOLLOW | page.ITEMS_COME_BACK):
                caller.fail(method, b"", "WRONG_SHAPE", retry=page.NOT_PROCESSED, flags=flags)


@case("4.83")
def payload_before_items(bench: Bench) -> None:
    """A REQUEST whose items follow has no payload, else BAD_BODY, whatever its method."""
    with bench.open() as caller:
        caller.request(ECHO, X, flags=page.ITEMS_FOLLOW)
        caller.ends("BAD_BODY")


@case("4.84", over=Over.CODECS, needs=Needs.SHAPES)
def one_way_without_credit(bench: Bench) -> None:
    """A one-way REQUEST beyond the credit, while handlers run, ends the connection as CREDIT_EXCEEDED."""
    for milliseconds in (30, 300, 3000):
        with bench.open() as caller:
            count = caller.one_way_room
            if count > MOST_ITEMS:
                raise NotJudged(f"the server takes {count} one-way calls")
            frames = [caller.request_frame(NOTE, NoteRequest(milliseconds=milliseconds))[1] for _ in range(count + 1)]
            caller.send(b"".join(frames))
            try:
                caller.ends("CREDIT_EXCEEDED", bench.patience)
            except Deviation:
                if caller.one_way_room < 0:
                    raise
                # Handlers have returned meanwhile, and their credit with them: the next ones take longer.
                continue
            return
    raise NotJudged("the server returns one-way credit faster than calls come")


# One-way calls of the server's, which a client grants.


@case("4.85")
def one_way_credit(bench: Bench) -> None:
    """CREDIT with call id 0 and opcode 0 lets the server begin one-way calls: it is taken, and nothing is answered."""
    with bench.open() as caller:
        for number in (1, 0xFFFF_FFFE):
            caller.send(caller.frame(page.CREDIT, page.credit_body(number, 0), call_id=0, opcode=0))
        caller.alive()


@case("4.86")
def one_way_credit_has_no_bytes(bench: Bench) -> None:
    """CREDIT of one-way calls that grants bytes is BAD_BODY."""
    for items in (0, 1):
        with bench.open() as caller:
            caller.send(caller.frame(page.CREDIT, page.credit_body(items, 1), call_id=0, opcode=0))
            caller.ends("BAD_BODY")


@case("4.87")
def one_way_overflow(bench: Bench) -> None:
    """One-way credit of more than 4294967295, with what HELLO granted, ends the connection as CREDIT_OVERFLOW."""
    with bench.open(fields=page.credit_fields(page.NOTHING, 1)) as caller:
        caller.send(caller.frame(page.CREDIT, page.credit_body(0xFFFF_FFFF, 0), call_id=0, opcode=0))
        caller.ends("CREDIT_OVERFLOW")


# Frames that have no place in the state of their call.

_BODIES = {
    page.RESPONSE: b"",
    page.ITEM: b"",
    page.END: b"",
    page.ERROR: page.error_body(),
    page.CREDIT: page.credit_body(1, 1),
}


def _wrong_half(number: str, text: str, kinds: Iterable[int], begin: Callable[[Caller], int], opcode: int) -> None:
    """A case in which each of these kinds, of the call that was begun, ends the connection as WRONG_HALF."""

    def run(bench: Bench) -> None:
        for kind in kinds:
            with bench.open() as caller:
                call_id = begin(caller)
                caller.send(caller.frame(kind, _BODIES[kind], call_id=call_id, opcode=opcode))
                caller.ends("WRONG_HALF")

    SERVER_CASES.add(number, text, run, over=Over.CODECS, needs=Needs.SERVICE)


def _unary(caller: Caller) -> int:
    return caller.request(SLEEP, SleepRequest(milliseconds=LONG))


def _stream(caller: Caller) -> int:
    return caller.request(COUNT, CountRequest(items=1 << 40))


_wrong_half(
    "7.04",
    "ITEM and END of a call whose items do not follow are WRONG_HALF, also where its answer is a stream.",
    (page.ITEM, page.END),
    _stream,
    COUNT.opcode,
)
_wrong_half("7.05", "CREDIT of a call whose answer is one message is WRONG_HALF.", (page.CREDIT,), _unary, SLEEP.opcode)
_wrong_half(
    "7.06",
    "ITEM and END of a unary call are WRONG_HALF.",
    (page.ITEM, page.END),
    _unary,
    SLEEP.opcode,
)
_wrong_half(
    "7.07",
    "RESPONSE and ERROR from a client, of a call of its own in flight, are WRONG_HALF.",
    (page.RESPONSE, page.ERROR),
    _unary,
    SLEEP.opcode,
)


@case("7.08", over=Over.CODECS)
def answers_of_no_call(bench: Bench) -> None:
    """RESPONSE and ERROR from a client, of a call that only it could begin, are WRONG_HALF also when it is over."""
    for kind in (page.RESPONSE, page.ERROR):
        for begun in (True, False):
            with bench.open() as caller:
                if begun:
                    caller.alive()
                caller.send(caller.frame(kind, _BODIES[kind]))
                caller.ends("WRONG_HALF")


def _strays(caller: Caller, count: int) -> bytes:
    """Frames of calls that the server would have begun."""
    kinds = [page.RESPONSE, page.ITEM, page.END, page.ERROR, page.CREDIT]
    chosen = [kinds[number % len(kinds)] for number in range(count)]
    return b"".join(
        caller.frame(kind, _BODIES[kind], call_id=page.TOP_BIT | number) for number, kind in enumerate(chosen, 1)
    )


@case("4.88")
def strays(bench: Bench) -> None:
    """16 frames of calls of the server's that are not in flight are dropped."""
    with bench.open() as caller:
        caller.send(_strays(caller, page.MOST_STRAYS))
        caller.alive()


@case("4.89")
def too_many_strays(bench: Bench) -> None:
    """The 17th frame of a call of the server's that is not in flight ends the connection as STRAY_ANSWERS."""
    with bench.open() as caller:
        caller.send(_strays(caller, page.MOST_STRAYS + 1))
        caller.ends("STRAY_ANSWERS")


# What crosses the end of a call.


@case("4.90")
def item_of_no_call(bench: Bench) -> None:
    """An ITEM of a call that never was ends the connection as CREDIT_EXCEEDED: no credit can have crossed an end."""
    with bench.open() as caller:
        caller.send(caller.frame(page.ITEM, call_id=5))
        caller.ends("CREDIT_EXCEEDED")


@case("4.91")
def item_of_a_unary_call(bench: Bench) -> None:
    """An ITEM of a unary call that is over ends the connection as CREDIT_EXCEEDED: it never had credit."""
    with bench.open() as caller:
        caller.call(ECHO, X, call_id=5)
        caller.send(caller.frame(page.ITEM, call_id=5))
        caller.ends("CREDIT_EXCEEDED")


def _refused(caller: Caller) -> tuple[int, page.CreditBody]:
    """A call whose items nobody takes, refused: its id, and the first credit that they have all the same."""
    assert caller.welcome is not None
    first = caller.welcome.first_credit
    if first.items > MOST_ITEMS:
        raise NotJudged(f"the server grants {first.items} items at first")
    call_id = caller.request(ECHO, b"", flags=page.ITEMS_FOLLOW)
    caller.error(call_id, "WRONG_SHAPE", retry=page.NOT_PROCESSED)
    return call_id, first if min(first) > 0 else page.NOTHING


@case("4.92", over=Over.CODECS)
def items_of_a_refused_call(bench: Bench) -> None:
    """ITEMs and the END of a refused REQUEST, which have crossed its ERROR, are dropped up to the first credit."""
    with bench.open() as caller:
        call_id, first = _refused(caller)
        # One behind the other the items take their bytes, and the last of them may take more than are left.
        caller.send(caller.frame(page.ITEM, call_id=call_id) * first.items, caller.frame(page.END, call_id=call_id))
        caller.alive()


@case("4.93", over=Over.CODECS)
def too_many_items_of_a_refused_call(bench: Bench) -> None:
    """One ITEM more than the first credit of a refused REQUEST ends the connection as CREDIT_EXCEEDED."""
    with bench.open() as caller:
        call_id, first = _refused(caller)
        caller.send(caller.frame(page.ITEM, call_id=call_id) * (first.items + 1))
        caller.ends("CREDIT_EXCEEDED")


def _crossing(caller: Caller, count: int) -> bytes:
    """END, CREDIT and CANCEL of calls that are over, or never were."""
    kinds = [page.END, page.CREDIT, page.CANCEL]
    chosen = [kinds[number % len(kinds)] for number in range(count)]
    return b"".join(caller.frame(kind, _BODIES.get(kind, b""), call_id=1) for kind in chosen)


@case("4.94", over=Over.CODECS)
def bucket(bench: Bench) -> None:
    """1000 END, CREDIT and CANCEL of calls that are over are dropped, and 8 more for each call that has ended since."""
    with bench.open() as caller:
        caller.send(_crossing(caller, page.MOST_CROSSED))
        for _ in range(3):
            caller.alive()
            caller.send(_crossing(caller, page.REFILL))
        caller.alive()


@case("4.95", over=Over.CODECS)
def empty_bucket(bench: Bench) -> None:
    """1001 END, CREDIT and CANCEL of calls that are over, while none ends, end the connection as TOO_MANY_FRAMES."""
    with bench.open() as caller:
        caller.send(_crossing(caller, page.MOST_CROSSED + 1))
        caller.ends("TOO_MANY_FRAMES")
