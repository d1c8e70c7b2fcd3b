"""Sections 4 and 7: a client's uploads, duplex calls and one-way calls, and the credit it keeps to."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import (
    CLIENT_CASES,
    Callee,
    Request,
    Trial,
    call,
    duplex,
    post,
    upload,
)
from wireproto.conformance.case import Deviation, Needs, Over
from wireproto.conformance.service import (
    NOTE,
    REFLECT,
    SHORT,
    SUM,
    ReflectResponse,
    ShortResponse,
    SumResponse,
)

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")

PLENTY = page.CreditBody(1000, 1 << 20)


def _numbers(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"number": number, **more} for number in range(count)]


def _given(callee: Callee, request: Request, numbers: range) -> None:
    """The next frames must be the items with these numbers."""
    method = SUM if request.opcode == SUM.opcode else REFLECT
    for number in numbers:
        item = callee.given(method, request)
        if item.number != number:
            raise Deviation(f"item {number} was due, and {item.number} came")


def _goes_on(callee: Callee, step: int) -> None:
    """One more call, which shows that the connection goes on."""
    callee.respond(callee.request(SHORT), ShortResponse(length=5))
    callee.answered(step, length=5)


def _back(callee: Callee, numbers: list[int], *, end: bool = True) -> None:
    """What the client says of the items that came back."""
    said = callee.result().get("items", [])
    if not isinstance(said, list) or [each.get("number") for each in said if isinstance(each, dict)] != numbers:
        raise Deviation(f"items {numbers} were sent, and the client says that {said} came")
    if (callee.result().get("end") is True) is not end:
        raise Deviation(f"the call has {'ended' if end else 'not ended'}, and the client said {callee.result()}")


# Uploads.


@case("4.60", needs=Needs.SHAPES)
def whole(trial: Trial) -> None:
    """An upload is an empty REQUEST with the flag 0x04, its items in order, and an END; its RESPONSE is told."""
    with trial.client(upload("Sum", _numbers(5, data="00ff")), SHORT_CALL, first=PLENTY) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(5))
        callee.completed(request)
        callee.respond(request, SumResponse(total=10, size=10, items=5))
        _goes_on(callee, 1)
        callee.answered(0, total=10, size=10, items=5)


@case("4.61", needs=Needs.SHAPES)
def no_items(trial: Trial) -> None:
    """An upload without items is a REQUEST and an END."""
    with trial.client(upload("Sum", []), first=PLENTY) as callee:
        request = callee.request(SUM)
        callee.completed(request)
        callee.respond(request, SumResponse())
        callee.answered(0, items=0)


@case("4.62", needs=Needs.SHAPES)
def waits_for_items(trial: Trial) -> None:
    """A client sends as many items as it has credit for, waits for CREDIT, answering PING meanwhile, and goes on."""
    with trial.client(upload("Sum", _numbers(9)), first=page.CreditBody(2, 1 << 20)) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(2))
        for _ in range(3):
            callee.ping()
        callee.credit(request, 4, 1)
        _given(callee, request, range(2, 6))
        callee.ping()
        callee.credit(request, 10, 0)
        _given(callee, request, range(6, 9))
        callee.completed(request)
        callee.respond(request, SumResponse(total=36, items=9))
        callee.answered(0, total=36, items=9)


@case("4.63", needs=Needs.SHAPES)
def waits_for_bytes(trial: Trial) -> None:
    """With 1 byte of credit left an item of any length is sent, and the next one when at least 1 byte is left again."""
    with trial.client(upload("Sum", _numbers(4, data="ab" * 3000)), first=page.CreditBody(100, 1)) as callee:
        request = callee.request(SUM)
        for number in range(4):
            _given(callee, request, range(number, number + 1))
            if number < 3:
                callee.credit(request, 0, -callee.room(request).bytes)  # which leaves 0
                callee.ping()
            # Behind the last item, too: the client may find out only then that there is no other.
            callee.credit(request, 0, 1 - callee.room(request).bytes)
        callee.completed(request)
        callee.respond(request, SumResponse(items=4))
        callee.answered(0, items=4)


@case("4.64", needs=Needs.SHAPES)
def no_first_credit(trial: Trial) -> None:
    """Without a first credit in WELCOME no item is sent until CREDIT comes."""
    with trial.client(upload("Sum", _numbers(9))) as callee:
        request = callee.request(SUM)
        for first in (0, 3, 6):
            for _ in range(3):
                callee.ping()
            callee.credit(request, 3, 1000)
            _given(callee, request, range(first, first + 3))
        callee.credit(request, 1, 1)
        callee.completed(request)
        callee.respond(request, SumResponse(items=9))
        callee.answered(0, items=9)


@case("4.65", needs=Needs.SHAPES)
def early_answer(trial: Trial) -> None:
    """An upload that is answered before its END is over: the RESPONSE is told, and nothing more is sent of it."""
    with trial.client(upload("Sum", _numbers(100)), SHORT_CALL, first=page.CreditBody(3, 1 << 20)) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(3))
        callee.respond(request, SumResponse(total=77))
        _goes_on(callee, 1)
        callee.answered(0, total=77)


@case("4.66", needs=Needs.SHAPES)
def early_error(trial: Trial) -> None:
    """An upload that fails before its END is over: the ERROR is told, and nothing more is sent of it."""
    with trial.client(upload("Sum", _numbers(100)), SHORT_CALL, first=page.CreditBody(3, 1 << 20)) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(3))
        callee.error(request, 10, b"AS_ASKED")
        _goes_on(callee, 1)
        callee.failed(0, status=10, reason="AS_ASKED")


@case("4.67", needs=Needs.SHAPES)
def left(trial: Trial) -> None:
    """An upload that the caller leaves is sent CANCEL and no END; the connection goes on."""
    with trial.client(upload("Sum", _numbers(2), leave=True), SHORT_CALL, first=PLENTY) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(2))
        callee.expect(page.CANCEL, request.call_id)
        callee.error(request, 1, b"CANCELLED")
        _goes_on(callee, 1)


@case("4.68", needs=Needs.SHAPES)
def late(trial: Trial) -> None:
    """An upload whose time is over while it waits for CREDIT is sent CANCEL, and the caller is told DEADLINE."""
    with trial.client(upload("Sum", _numbers(5), {"deadline_ms": 300}), SHORT_CALL) as callee:
        request = callee.request(SUM)
        if page.DEADLINE_KEY not in request.metadata:
            raise Deviation("the upload has a deadline, and its REQUEST has none")
        callee.expect(page.CANCEL, request.call_id)
        callee.error(request, 1, b"CANCELLED")
        _goes_on(callee, 1)
        callee.failed(0, status=4)


@case("4.69", needs=Needs.SHAPES)
def overflow(trial: Trial) -> None:
    """CREDIT that brings the items or the bytes of a request half above 4294967295 is CREDIT_OVERFLOW."""
    for items, size in ((0xFFFF_FFFF, 0), (0, 0xFFFF_FFFF)):
        # The item waits for the number that is not overrun.
        first = page.CreditBody(1, 0) if items else page.CreditBody(0, 1)
        with trial.client(upload("Sum", _numbers(5)), first=first) as callee:
            request = callee.request(SUM)
            callee.send(callee.frame(page.CREDIT, page.credit_body(items, size), to=request))
            callee.ends("CREDIT_OVERFLOW")
            callee.failed()


@case("4.70", needs=Needs.SHAPES)
def credit_behind_the_end(trial: Trial) -> None:
    """CREDIT that has crossed the END of an upload has no effect."""
    with trial.client(upload("Sum", _numbers(2)), SHORT_CALL, first=PLENTY) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(2))
        callee.completed(request)
        callee.credit(request, 1, 1)
        callee.respond(request, SumResponse(items=2))
        _goes_on(callee, 1)
        callee.answered(0, items=2)


@case("4.71", needs=Needs.SHAPES)
def items_of_an_upload(trial: Trial) -> None:
    """ITEM and END from the server, of an upload, are WRONG_HALF: its answer is one message."""
    for kind in (page.ITEM, page.END):
        with trial.client(upload("Sum", _numbers(2)), first=page.CreditBody(1, 1 << 20)) as callee:
            request = callee.request(SUM)
            callee.given(SUM, request)
            callee.send(callee.frame(kind, b"", to=request))
            callee.ends("WRONG_HALF")
            callee.failed()


@case("4.72", needs=Needs.SHAPES)
def lost(trial: Trial) -> None:
    """An upload whose connection is lost while it waits for CREDIT is MAYBE_PROCESSED."""
    with trial.client(upload("Sum", _numbers(5)), first=page.CreditBody(1, 1 << 20)) as callee:
        callee.given(SUM, callee.request(SUM))
        callee.peer.end_output()
        callee.failed(retry=page.MAYBE_PROCESSED)


@case("4.73", needs=Needs.SHAPES)
def goes(trial: Trial) -> None:
    """An upload up to the last call of GOAWAY goes on: its items are sent as credit comes, and its answer is told."""
    with trial.client(upload("Sum", _numbers(4)), first=page.CreditBody(1, 1 << 20)) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(1))
        callee.goaway(request.call_id)
        callee.ping()
        callee.credit(request, 5, 1)
        _given(callee, request, range(1, 4))
        callee.completed(request)
        callee.respond(request, SumResponse(items=4))
        callee.answered(0, items=4)


@case("4.74", needs=Needs.SHAPES)
def excluded(trial: Trial) -> None:
    """An upload behind the last call of GOAWAY is told as not processed, whatever was sent of it."""
    with trial.client(upload("Sum", _numbers(4)), first=page.CreditBody(1, 1 << 20)) as callee:
        request = callee.request(SUM)
        _given(callee, request, range(1))
        callee.goaway(0)
        callee.error(request, 14, b"SHUTTING_DOWN", retry=page.NOT_PROCESSED)
        callee.failed(retry=page.NOT_PROCESSED)


# Duplex calls.


@case("4.75", needs=Needs.SHAPES)
def both_halves(trial: Trial) -> None:
    """A duplex call is an empty REQUEST with the flags 0x0c and first credit; both halves go on until both ENDs."""
    with trial.client(duplex("Reflect", _numbers(5), 8), SHORT_CALL, first=PLENTY) as callee:
        request = callee.request(REFLECT)
        if request.credit.items != 8 or not request.credit.bytes:
            raise Deviation(f"the first credit was to be 8 items, and is {request.credit}")
        for number in range(5):
            _given(callee, request, range(number, number + 1))
            callee.item(request, ReflectResponse(number=number))
        callee.completed(request)
        callee.end(request)
        _goes_on(callee, 1)
        _back(callee, list(range(5)))


@case("4.76", needs=Needs.SHAPES, over=Over.CODECS)
def credit_both_ways(trial: Trial) -> None:
    """Credit holds in both halves of a duplex call: items go as CREDIT comes, and CREDIT goes as items are taken."""
    with trial.client(duplex("Reflect", _numbers(40), 3), first=page.CreditBody(2, 1 << 20)) as callee:
        request = callee.request(REFLECT)
        left = request.credit.items
        waiting: list[int] = []
        back = expected = 0
        while back < 40:
            if waiting and left:
                callee.item(request, ReflectResponse(number=waiting.pop(0)))
                back += 1
                left -= 1
                continue
            found = callee.read()
            if found.kind == page.CREDIT:
                left += page.read_credit(found.payload).items
            elif found.kind == page.ITEM:
                waiting.append(expected)
                expected += 1
                callee.credit(request, 1, len(found.payload))
            elif found.kind != page.END:
                raise Deviation(f"ITEM, CREDIT or END was due, and {page.shown(found)} came")
        callee.end(request)
        _back(callee, list(range(40)))


@case("4.77", needs=Needs.SHAPES)
def answer_half_ends_first(trial: Trial) -> None:
    """END of the answer half ends a duplex call: it is told, and nothing more is sent of the other half."""
    with trial.client(duplex("Reflect", _numbers(100), 8), SHORT_CALL, first=page.CreditBody(2, 1 << 20)) as callee:
        request = callee.request(REFLECT)
        _given(callee, request, range(2))
        callee.item(request, ReflectResponse(number=0))
        callee.end(request)
        _goes_on(callee, 1)
        _back(callee, [0])


@case("4.78", needs=Needs.SHAPES)
def duplex_fails(trial: Trial) -> None:
    """ERROR ends a duplex call: the items before it are handed out, and then it is told."""
    with trial.client(duplex("Reflect", _numbers(100), 8), SHORT_CALL, first=page.CreditBody(2, 1 << 20)) as callee:
        request = callee.request(REFLECT)
        _given(callee, request, range(2))
        callee.item(request, ReflectResponse(number=0))
        callee.error(request, 10, b"AS_ASKED")
        _goes_on(callee, 1)
        _back(callee, [0], end=False)
        callee.failed(0, status=10, reason="AS_ASKED")


@case("4.79", needs=Needs.SHAPES)
def duplex_left(trial: Trial) -> None:
    """A duplex call that the caller leaves is sent CANCEL, which ends both halves; the connection goes on."""
    steps = duplex("Reflect", _numbers(100), 8, take=1), SHORT_CALL
    with trial.client(*steps, first=page.CreditBody(2, 1 << 20)) as callee:
        request = callee.request(REFLECT)
        _given(callee, request, range(2))
        callee.item(request, ReflectResponse(number=0))
        while (found := callee.read()).kind == page.CREDIT:
            pass
        if (found.kind, found.call_id) != (page.CANCEL, request.call_id):
            raise Deviation(f"CANCEL was due, and {page.shown(found)} came")
        callee.item(request, ReflectResponse(number=1))
        callee.error(request, 1, b"CANCELLED")
        _goes_on(callee, 1)
        _back(callee, [0], end=False)


@case("4.80", needs=Needs.SHAPES)
def response_for_duplex(trial: Trial) -> None:
    """A duplex call that is answered with RESPONSE is WRONG_HALF."""
    with trial.client(duplex("Reflect", _numbers(2), 8)) as callee:
        callee.respond(callee.request(REFLECT), ReflectResponse())
        callee.ends("WRONG_HALF")
        callee.failed()


# One-way calls.


def _note(callee: Callee, number: int) -> None:
    found = callee.request(NOTE).message
    if found.number != number:
        raise Deviation(f"the note of {number} was due, and that of {found.number} came")


@case("4.85", needs=Needs.SHAPES)
def one_way(trial: Trial) -> None:
    """A one-way call is a REQUEST with the flag 0x01 and nothing else; nobody waits for an answer."""
    with trial.client(post("Note", key="k", number=7), SHORT_CALL, one_way=5) as callee:
        _note(callee, 7)
        _goes_on(callee, 1)
        if callee.result() != {}:
            raise Deviation(f"nothing comes of a one-way call, and the client said {callee.result()}")


@case("4.86", needs=Needs.SHAPES)
def one_way_credit(trial: Trial) -> None:
    """A client begins as many one-way calls as it has credit for, waits for CREDIT of call id 0, and goes on."""
    steps = [post("Note", key="k", number=number) for number in range(5)]
    with trial.client(*steps, one_way=2) as callee:
        for number in range(2):
            _note(callee, number)
        for _ in range(3):
            callee.ping()
        callee.one_way_credit(1)
        _note(callee, 2)
        callee.ping()
        callee.one_way_credit(10)
        for number in range(3, 5):
            _note(callee, number)
        callee.results()


@case("4.87", needs=Needs.SHAPES)
def no_one_way_credit(trial: Trial) -> None:
    """Without one-way credit in WELCOME no one-way call is begun until CREDIT comes."""
    with trial.client(*[post("Note", key="k", number=number) for number in range(5)]) as callee:
        for number in range(5):
            for _ in range(3):
                callee.ping()
            callee.one_way_credit(1)
            _note(callee, number)
        callee.results()


@case("4.88", needs=Needs.SHAPES)
def answer_of_a_one_way_call(trial: Trial) -> None:
    """What comes of a one-way call is dropped, as of any call that is over."""
    with trial.client(post("Note", key="k", number=1), SHORT_CALL, one_way=5) as callee:
        request = callee.request(NOTE)
        callee.error(request, 14, b"SERVER_BUSY")
        _goes_on(callee, 1)
