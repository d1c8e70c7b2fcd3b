"""Sections 4 and 7: the calls of its server that a client answers. It is told to by ``handlers`` in what it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wireproto.conformance import page
from wireproto.conformance.asking import (
    EXCHANGE,
    GATHER,
    LIST,
    NOTICE,
    TELL,
    ExchangeRequest,
    GatherRequest,
    GatherResponse,
    ListRequest,
    NoticeRequest,
    TellRequest,
    TellResponse,
)
from wireproto.conformance.callee import CLIENT_CASES, Callee, Trial, call
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import SHORT, ShortRequest, ShortResponse

case = CLIENT_CASES.case

SHAPES = Needs.SHAPES


@contextmanager
def _answering(trial: Trial, **changes: Any) -> Iterator[Callee]:
    """A client that answers, and waits for the answer of one call of its own meanwhile."""
    with trial.client(call("Short", text="hello"), handlers=True, **changes) as callee:
        if callee.hello is None or not callee.hello.max_calls:
            raise NotJudged("the client accepts no calls of its server")
        own = callee.request(SHORT)
        yield callee
        callee.respond(own, ShortResponse(length=5))
        callee.answered(0, length=5)


def _due(found: object, due: object) -> None:
    if found != due:
        raise Deviation(f"{due} was due, and {found} came")


@case("4.200", needs=SHAPES)
def unary(trial: Trial) -> None:
    """A client answers unary calls of its server while one of its own is in flight."""
    with _answering(trial) as callee:
        own = callee.own
        begun = [own.begin(TELL, TellRequest(number=number)) for number in range(3)]
        found = set()
        for _ in begun:
            frame = callee.read()
            if frame.kind != page.RESPONSE or frame.call_id not in begun:
                raise Deviation(f"RESPONSE of one of three calls was due, and {page.shown(frame)} came")
            message = callee.understand(TellResponse, frame.payload)
            _due(message.number, begun.index(frame.call_id))
            found.add(frame.call_id)
        _due(found, set(begun))


@case("4.201", needs=SHAPES, over=Over.CODECS)
def refused(trial: Trial) -> None:
    """A handler's error is an ERROR of its call; a method that the client calls is UNKNOWN_OPCODE, and wrong flags are
    WRONG_SHAPE, both not processed.
    """
    with _answering(trial) as callee:
        own = callee.own
        own.fails(own.begin(TELL, TellRequest(fail=True)), "AS_ASKED", 0)
        own.fails(own.begin(SHORT, ShortRequest(text="x")), "UNKNOWN_OPCODE", page.NOT_PROCESSED)
        own.fails(own.begin(TELL, TellRequest(), flags=page.ITEMS_COME_BACK), "WRONG_SHAPE", page.NOT_PROCESSED)
        _due(own.answer(TELL, own.begin(TELL, TellRequest(number=4))).number, 4)


@case("4.202", needs=SHAPES)
def stream(trial: Trial) -> None:
    """A client sends the items of a stream within the credit of its server, up to END."""
    with _answering(trial) as callee:
        own = callee.own
        call_id = own.begin(LIST, ListRequest(count=10), credit=4)
        for number in range(10):
            _due(own.answer(LIST, call_id).number, number)
            if number % 4 == 3:
                own.say(page.CREDIT, call_id, page.credit_body(4, 1))
        own.ends(call_id)


@case("4.203", needs=SHAPES)
def upload(trial: Trial) -> None:
    """A client grants credit for the items of an upload, and answers it."""
    with _answering(trial) as callee:
        own = callee.own
        call_id = own.begin(GATHER)
        own.give(call_id, *[GatherRequest(number=number) for number in range(600)])
        own.say(page.END, call_id)
        _due(own.answer(GATHER, call_id), GatherResponse(total=sum(range(600)), items=600))


@case("4.204", needs=SHAPES)
def duplex(trial: Trial) -> None:
    """A client answers a duplex call with items while others still come."""
    with _answering(trial) as callee:
        own = callee.own
        call_id = own.begin(EXCHANGE, credit=100)
        for number in range(5):
            own.give(call_id, ExchangeRequest(number=number))
            _due(own.answer(EXCHANGE, call_id).number, number)
        own.say(page.END, call_id)
        own.ends(call_id)


@case("4.205", needs=SHAPES, over=Over.CODECS)
def one_way(trial: Trial) -> None:
    """One-way calls of the server are not answered, and their credit comes back."""
    with _answering(trial) as callee:
        own = callee.own
        if not own.one_way_room:
            raise NotJudged("the client takes no one-way calls")
        if own.one_way_room > 10_000:
            raise NotJudged(f"the client takes {own.one_way_room} one-way calls at once")
        for number in range(own.one_way_room + 5):
            own.wait_for_one_way_room()
            own.begin(NOTICE, NoticeRequest(number=number))
        _due(own.answer(TELL, own.begin(TELL, TellRequest(number=4))).number, 4)


@case("4.206", needs=SHAPES, over=Over.CODECS)
def cancelled(trial: Trial) -> None:
    """A call of the server that is cancelled has one terminal frame."""
    with _answering(trial) as callee:
        own = callee.own
        call_id = own.begin(TELL, TellRequest(number=1, milliseconds=300))
        own.say(page.CANCEL, call_id)
        found = own.next(call_id)
        if found.kind not in (page.ERROR, page.RESPONSE):
            raise Deviation(f"the terminal frame of call {call_id:#x} was due, and {page.shown(found)} came")
        stream_id = own.begin(LIST, ListRequest(count=1000), credit=1)
        own.answer(LIST, stream_id)
        own.say(page.CANCEL, stream_id)
        own.fails(stream_id, "CANCELLED")
        _due(own.answer(TELL, own.begin(TELL, TellRequest(number=4))).number, 4)


@case("4.207", needs=SHAPES, over=Over.CODECS)
def most_calls(trial: Trial) -> None:
    """Calls beyond those that HELLO accepts are refused TOO_MANY_CALLS, not processed; the others are answered."""
    with _answering(trial) as callee:
        own = callee.own
        assert callee.hello is not None
        most = callee.hello.max_calls
        if most > 1000:
            raise NotJudged(f"the client accepts {most} calls at once")
        slow = [own.begin(GATHER) for _ in range(most)]
        own.fails(own.begin(TELL, TellRequest()), "TOO_MANY_CALLS", page.NOT_PROCESSED)
        for call_id in slow:
            own.say(page.END, call_id)
        for _ in slow:
            while (frame := callee.read()).kind == page.CREDIT:
                pass
            if frame.kind != page.RESPONSE or frame.call_id not in slow:
                raise Deviation(f"RESPONSE of an upload was due, and {page.shown(frame)} came")


@case("4.208", needs=SHAPES, over=Over.CODECS)
def behind_goaway(trial: Trial) -> None:
    """A server that has sent GOAWAY may still begin calls, and the client answers them."""
    with _answering(trial) as callee:
        own = callee.own
        callee.goaway(1)
        callee.gone()
        _due(own.answer(TELL, own.begin(TELL, TellRequest(number=4))).number, 4)
