"""Section 4: a client's streams and the credit it gives."""

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, call, stream
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import COUNT, SHORT, CountResponse, ShortResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")


def _begun(callee: Callee, credit: int) -> Request:
    request = callee.request(COUNT)
    if request.credit != credit:
        raise Deviation(f"the stream's first credit was to be {credit}, and is {request.credit}")
    return request


def _items(callee: Callee, numbers: list[int]) -> None:
    said = callee.result().get("items", [])
    if not isinstance(said, list) or not all(isinstance(item, dict) for item in said):
        raise Deviation(f"the items that came are to be a list of objects, and the client said {said}")
    found = [item.get("number") for item in said]
    if found != numbers:
        raise Deviation(f"items {numbers} were sent, and the client says that {found} came")


@case("4.40")
def whole(trial: Trial) -> None:
    """A stream's REQUEST carries its first credit; its items are handed out in order, and its END is told."""
    with trial.client(stream("Count", 8, items=3)) as callee:
        request = _begun(callee, 8)
        for number in range(3):
            callee.item(request, CountResponse(number=number))
        callee.end(request)
        _items(callee, [0, 1, 2])
        if callee.result().get("end") is not True:
            raise Deviation(f"the stream has ended, and the client said {callee.result()}")


@case("4.41")
def more_credit(trial: Trial) -> None:
    """A client that takes the items grants credit for more of them: a stream of many items comes whole."""
    with trial.client(stream("Count", 2, items=40)) as callee:
        request = _begun(callee, 2)
        credit, sent = 2, 0
        while sent < 40:
            if not credit:
                credit += int.from_bytes(callee.expect(page.CREDIT, request.call_id).payload, "big")
                continue
            callee.item(request, CountResponse(number=sent))
            sent, credit = sent + 1, credit - 1
        callee.end(request)
        _items(callee, list(range(40)))


@case("4.42")
def no_items(trial: Trial) -> None:
    """A stream without items is an END."""
    with trial.client(stream("Count", 4, items=0)) as callee:
        callee.end(callee.request(COUNT))
        _items(callee, [])
        if callee.result().get("end") is not True:
            raise Deviation(f"the stream has ended, and the client said {callee.result()}")


@case("4.43")
def error_after_items(trial: Trial) -> None:
    """A stream may end with ERROR: the items before it are handed out, and then the error is told."""
    with trial.client(stream("Count", 4, items=2, fail=True), SHORT_CALL) as callee:
        request = callee.request(COUNT)
        for number in range(2):
            callee.item(request, CountResponse(number=number))
        callee.error(request, 10, b"AS_ASKED")
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        _items(callee, [0, 1])
        callee.failed(0, status=10, reason="AS_ASKED")
        callee.answered(1, length=5)


@case("4.44")
def left(trial: Trial) -> None:
    """A stream that the caller leaves is sent CANCEL; items that were on their way are dropped, and the connection goes
    on."""
    with trial.client(stream("Count", 10, take=2, items=1000), SHORT_CALL) as callee:
        request = _begun(callee, 10)
        for number in range(5):
            callee.item(request, CountResponse(number=number))
        while (found := callee.read()).kind == page.CREDIT:
            pass
        if (found.kind, found.call_id) != (page.CANCEL, request.call_id):
            raise Deviation(f"CANCEL was due, and {page.shown(found)} came")
        for number in range(5, 8):
            callee.item(request, CountResponse(number=number))
        callee.error(request, 1, b"CANCELLED")
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        _items(callee, [0, 1])
        callee.answered(1, length=5)


@case("4.45")
def left_at_its_end(trial: Trial) -> None:
    """CANCEL may cross END: the stream is over all the same."""
    with trial.client(stream("Count", 4, take=1, items=1), SHORT_CALL) as callee:
        request = callee.request(COUNT)
        callee.item(request, CountResponse(number=0))
        callee.end(request)
        while (found := callee.read()).kind in (page.CREDIT, page.CANCEL):
            pass
        if found.kind != page.REQUEST or found.opcode != SHORT.opcode:
            raise Deviation(f"REQUEST of Short was due, and {page.shown(found)} came")
        callee.respond(Request(found.call_id, found.opcode, None, {}), ShortResponse(length=5))
        _items(callee, [0])
        callee.answered(1, length=5)


@case("4.46")
def without_credit(trial: Trial) -> None:
    """An ITEM without credit ends the connection as CREDIT_EXCEEDED."""
    with trial.client(stream("Count", 2, items=1 << 40)) as callee:
        request = _begun(callee, 2)
        many = 3000
        callee.send(callee.frame(page.ITEM, callee.payload(CountResponse(number=0)), to=request) * many)
        granted = 2
        while (found := callee.read()).kind == page.CREDIT:
            granted += int.from_bytes(found.payload, "big")
            if granted >= many:
                # Items that come at once may be taken at once: then nothing was wrong.
                callee.end(request)
                raise NotJudged(f"the client grants credit as fast as {many} items come in one go")
        error = page.read_error(found.payload)
        if error.reason != "CREDIT_EXCEEDED":
            raise Deviation(f"a final ERROR with CREDIT_EXCEEDED was due, and {page.shown(found)} came")
        callee.closes("the final ERROR")
        callee.failed()


@case("4.47")
def response_for_stream(trial: Trial) -> None:
    """A stream that is answered with RESPONSE is WRONG_ANSWER."""
    with trial.client(stream("Count", 2, items=1)) as callee:
        callee.respond(callee.request(COUNT), CountResponse(number=0))
        callee.ends("WRONG_ANSWER")
        callee.failed()


@case("4.48")
def end_with_payload(trial: Trial) -> None:
    """An END with a payload is BAD_BODY."""
    with trial.client(stream("Count", 2, items=1)) as callee:
        request = callee.request(COUNT)
        callee.send(callee.frame(page.END, b"!", to=request))
        callee.ends("BAD_BODY")
        callee.failed()


@case("4.52")
def unreadable_item(trial: Trial) -> None:
    """A stream of which an item cannot be read fails for its caller and is sent CANCEL; the connection goes on."""
    with trial.client(stream("Count", 4, items=3), SHORT_CALL) as callee:
        request = callee.request(COUNT)
        callee.send(callee.frame(page.ITEM, b"\xff\xff\xff", to=request))
        callee.expect(page.CANCEL, request.call_id)
        callee.error(request, 1, b"CANCELLED")
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        callee.failed(0)
        callee.answered(1, length=5)


@case("4.49")
def ping_while_waiting(trial: Trial) -> None:
    """PING is answered while a stream waits for items."""
    with trial.client(stream("Count", 2, items=1)) as callee:
        request = callee.request(COUNT)
        callee.ping()
        callee.item(request, CountResponse(number=0))
        callee.end(request)
        _items(callee, [0])


@case("4.50")
def lost(trial: Trial) -> None:
    """A stream whose connection is lost behind its items is MAYBE_PROCESSED, and the items count."""
    with trial.client(stream("Count", 4, items=3)) as callee:
        request = callee.request(COUNT)
        callee.item(request, CountResponse(number=0))
        callee.peer.end_output()
        _items(callee, [0])
        callee.failed(retry=page.MAYBE_PROCESSED)


@case("4.51", over=Over.CODECS)
def goes(trial: Trial) -> None:
    """A stream that ends SHUTTING_DOWN behind GOAWAY is told so, with the items before it."""
    with trial.client(stream("Count", 4, items=3)) as callee:
        request = callee.request(COUNT)
        callee.item(request, CountResponse(number=0))
        callee.goaway(request.call_id)
        callee.error(request, 14, b"SHUTTING_DOWN", retry=page.MAYBE_PROCESSED)
        _items(callee, [0])
        callee.failed(status=14, reason="SHUTTING_DOWN")
        while isinstance(found := callee.first(), tuple):
            if found.kind != page.CREDIT:
                raise Deviation(f"the end was due, and {page.shown(found)} came")
        if found is Ending.SILENCE:
            raise Deviation("the client did not close")
