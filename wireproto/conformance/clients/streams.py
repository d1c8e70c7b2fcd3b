"""Section 4: a client's streams and the credit it gives."""

from wireproto.conformance import page
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.host import CLIENT_CASES, Host, Request, Trial, call, stream
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import COUNT, SHORT, CountResponse, ShortResponse

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")


def _begun(host: Host, credit: int) -> Request:
    request = host.request(COUNT)
    if request.credit != credit:
        raise Deviation(f"the stream's first credit was to be {credit}, and is {request.credit}")
    return request


def _items(host: Host, numbers: list[int]) -> None:
    found = [item.get("number") for item in host.result().get("items", [])]
    if found != numbers:
        raise Deviation(f"items {numbers} were sent, and the client says that {found} came")


@case("4.40")
def whole(trial: Trial) -> None:
    """A stream's REQUEST carries its first credit; its items are handed out in order, and its END is told."""
    with trial.client(stream("Count", 8, items=3)) as host:
        request = _begun(host, 8)
        for number in range(3):
            host.item(request, CountResponse(number=number))
        host.end(request)
        _items(host, [0, 1, 2])
        if host.result().get("end") is not True:
            raise Deviation(f"the stream has ended, and the client said {host.result()}")


@case("4.41")
def more_credit(trial: Trial) -> None:
    """A client that takes the items grants credit for more of them: a stream of many items comes whole."""
    with trial.client(stream("Count", 2, items=40)) as host:
        request = _begun(host, 2)
        credit, sent = 2, 0
        while sent < 40:
            if not credit:
                credit += int.from_bytes(host.expect(page.CREDIT, request.call_id).payload, "big")
                continue
            host.item(request, CountResponse(number=sent))
            sent, credit = sent + 1, credit - 1
        host.end(request)
        _items(host, list(range(40)))


@case("4.42")
def no_items(trial: Trial) -> None:
    """A stream without items is an END."""
    with trial.client(stream("Count", 4, items=0)) as host:
        host.end(host.request(COUNT))
        _items(host, [])
        if host.result().get("end") is not True:
            raise Deviation(f"the stream has ended, and the client said {host.result()}")


@case("4.43")
def error_after_items(trial: Trial) -> None:
    """A stream may end with ERROR: the items before it are handed out, and then the error is told."""
    with trial.client(stream("Count", 4, items=2, fail=True), SHORT_CALL) as host:
        request = host.request(COUNT)
        for number in range(2):
            host.item(request, CountResponse(number=number))
        host.error(request, 10, b"AS_ASKED")
        host.respond(host.request(SHORT), ShortResponse(length=5))
        _items(host, [0, 1])
        host.failed(0, status=10, reason="AS_ASKED")
        host.answered(1, length=5)


@case("4.44")
def left(trial: Trial) -> None:
    """A stream that the caller leaves is sent CANCEL; items that were on their way are dropped, and the connection goes
    on."""
    with trial.client(stream("Count", 10, take=2, items=1000), SHORT_CALL) as host:
        request = _begun(host, 10)
        for number in range(5):
            host.item(request, CountResponse(number=number))
        while (found := host.read()).kind == page.CREDIT:
            pass
        if (found.kind, found.call_id) != (page.CANCEL, request.call_id):
            raise Deviation(f"CANCEL was due, and {page.shown(found)} came")
        for number in range(5, 8):
            host.item(request, CountResponse(number=number))
        host.error(request, 1, b"CANCELLED")
        host.respond(host.request(SHORT), ShortResponse(length=5))
        _items(host, [0, 1])
        host.answered(1, length=5)


@case("4.45")
def left_at_its_end(trial: Trial) -> None:
    """CANCEL may cross END: the stream is over all the same."""
    with trial.client(stream("Count", 4, take=1, items=1), SHORT_CALL) as host:
        request = host.request(COUNT)
        host.item(request, CountResponse(number=0))
        host.end(request)
        while (found := host.read()).kind in (page.CREDIT, page.CANCEL):
            pass
        if found.kind != page.REQUEST or found.opcode != SHORT.opcode:
            raise Deviation(f"REQUEST of Short was due, and {page.shown(found)} came")
        host.respond(Request(found.call_id, found.opcode, None, {}), ShortResponse(length=5))
        _items(host, [0])
        host.answered(1, length=5)


@case("4.46")
def without_credit(trial: Trial) -> None:
    """An ITEM without credit ends the connection as CREDIT_EXCEEDED."""
    with trial.client(stream("Count", 2, items=1 << 40)) as host:
        request = _begun(host, 2)
        many = 3000
        host.send(host.frame(page.ITEM, host.payload(CountResponse(number=0)), to=request) * many)
        granted = 2
        while (found := host.read()).kind == page.CREDIT:
            granted += int.from_bytes(found.payload, "big")
            if granted >= many:
                # Items that come at once may be taken at once: then nothing was wrong.
                host.end(request)
                raise NotJudged(f"the client grants credit as fast as {many} items come in one go")
        error = page.read_error(found.payload)
        if error.reason != "CREDIT_EXCEEDED":
            raise Deviation(f"a final ERROR with CREDIT_EXCEEDED was due, and {page.shown(found)} came")
        host.closes("the final ERROR")
        host.failed()


@case("4.47")
def response_for_stream(trial: Trial) -> None:
    """A stream that is answered with RESPONSE is WRONG_ANSWER."""
    with trial.client(stream("Count", 2, items=1)) as host:
        host.respond(host.request(COUNT), CountResponse(number=0))
        host.ends("WRONG_ANSWER")
        host.failed()


@case("4.48")
def end_with_payload(trial: Trial) -> None:
    """An END with a payload is BAD_BODY."""
    with trial.client(stream("Count", 2, items=1)) as host:
        request = host.request(COUNT)
        host.send(host.frame(page.END, b"!", to=request))
        host.ends("BAD_BODY")
        host.failed()


@case("4.52")
def unreadable_item(trial: Trial) -> None:
    """A stream of which an item cannot be read fails for its caller and is sent CANCEL; the connection goes on."""
    with trial.client(stream("Count", 4, items=3), SHORT_CALL) as host:
        request = host.request(COUNT)
        host.send(host.frame(page.ITEM, b"\xff\xff\xff", to=request))
        host.expect(page.CANCEL, request.call_id)
        host.error(request, 1, b"CANCELLED")
        host.respond(host.request(SHORT), ShortResponse(length=5))
        host.failed(0)
        host.answered(1, length=5)


@case("4.49")
def ping_while_waiting(trial: Trial) -> None:
    """PING is answered while a stream waits for items."""
    with trial.client(stream("Count", 2, items=1)) as host:
        request = host.request(COUNT)
        host.ping()
        host.item(request, CountResponse(number=0))
        host.end(request)
        _items(host, [0])


@case("4.50")
def lost(trial: Trial) -> None:
    """A stream whose connection is lost behind its items is MAYBE_PROCESSED, and the items count."""
    with trial.client(stream("Count", 4, items=3)) as host:
        request = host.request(COUNT)
        host.item(request, CountResponse(number=0))
        host.peer.end_output()
        _items(host, [0])
        host.failed(retry=page.MAYBE_PROCESSED)


@case("4.51", over=Over.CODECS)
def goes(trial: Trial) -> None:
    """A stream that ends SHUTTING_DOWN behind GOAWAY is told so, with the items before it."""
    with trial.client(stream("Count", 4, items=3)) as host:
        request = host.request(COUNT)
        host.item(request, CountResponse(number=0))
        host.goaway(request.call_id)
        host.error(request, 14, b"SHUTTING_DOWN", retry=page.MAYBE_PROCESSED)
        _items(host, [0])
        host.failed(status=14, reason="SHUTTING_DOWN")
        while isinstance(found := host.first(), tuple):
            if found.kind != page.CREDIT:
                raise Deviation(f"the end was due, and {page.shown(found)} came")
        if found is Ending.SILENCE:
            raise Deviation("the client did not close")
