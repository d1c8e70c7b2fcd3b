"""Section 4: a client's streams and the credit it gives."""

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Callee, Request, Trial, call, stream
from wireproto.conformance.case import Deviation, NotJudged, Over
from wireproto.conformance.raw import Ending
from wireproto.conformance.service import COUNT, SHORT, CountResponse, ShortResponse
from wireproto.conformance.sizes import longest, noise

case = CLIENT_CASES.case

SHORT_CALL = call("Short", text="hello")

LARGE = 100_000
"""Bytes of a large item."""

LARGEST_JUDGED = 32 * 1024 * 1024
"""A client that accepts longer frames, or grants more bytes, is not sent as many."""


def _begun(callee: Callee, credit: int) -> Request:
    request = callee.request(COUNT)
    if request.credit.items != credit or not request.credit.bytes:
        raise Deviation(f"the stream's first credit was to be {credit} items, and is {request.credit}")
    return request


class _Window:
    """What may still be sent of a stream's items."""

    def __init__(self, callee: Callee, request: Request) -> None:
        self._callee = callee
        self._request = request
        self.items, self.bytes = request.credit

    def take(self, found: page.RawFrame) -> None:
        """A CREDIT came."""
        more = page.read_credit(found.payload)
        self.items += more.items
        self.bytes += more.bytes

    def send(self, number: int, padding: bytes = b"") -> None:
        """Send an ITEM, and take it from what is left; the caller knows whether it may."""
        payload = self._callee.payload(CountResponse(number=number, padding=padding))
        self._callee.send(self._callee.frame(page.ITEM, payload, to=self._request))
        self.items -= 1
        self.bytes -= len(payload)

    def send_all(self, paddings: list[bytes]) -> None:
        """Send as many ITEMs as these, whenever there is credit, and the END."""
        for number, padding in enumerate(paddings):
            while min(self.items, self.bytes) < 1:
                self.take(self._callee.expect(page.CREDIT, self._request.call_id))
            self.send(number, padding)
        self._callee.end(self._request)

    def is_left(self) -> None:
        """The client sends CANCEL, and grants nothing any more."""
        while (found := self._callee.read()).kind == page.CREDIT:
            self.take(found)
        if (found.kind, found.call_id) != (page.CANCEL, self._request.call_id):
            raise Deviation(f"CANCEL was due, and {page.shown(found)} came")


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
        _Window(callee, _begun(callee, 2)).send_all([b""] * 40)
        _items(callee, list(range(40)))


@case("4.53", over=Over.CODECS)
def credit_of_bytes(trial: Trial) -> None:
    """A client that takes the items grants their bytes again, too: a stream of more bytes than it granted comes
    whole."""
    with trial.client(stream("Count", 8, items=12)) as callee:
        request = _begun(callee, 8)
        padding = bytes(min(request.credit.bytes // 3, LARGE))
        _Window(callee, request).send_all([padding] * 12)
        _items(callee, list(range(12)))


def _room(callee: Callee) -> int:
    """Bytes of the longest payload that the client accepts, within what is judged."""
    assert callee.hello is not None
    return min(callee.hello.max_frame - 12, LARGEST_JUDGED)


def _overrun(callee: Callee, window: _Window) -> None:
    """Use up the bytes: the last ITEM takes more than are left."""
    room = _room(callee)
    if window.bytes > LARGEST_JUDGED:
        raise NotJudged(f"the client grants {window.bytes} bytes")
    while window.bytes > 0:
        # The longest that there is room for, and one byte more than is left where that will do.
        most = min(room, window.bytes + 100)

        def written(size: int) -> int:
            return len(callee.payload(CountResponse(number=1, padding=noise(size))))

        window.send(1, noise(longest(written, most, most)))
        if window.items < 1:
            raise NotJudged("the client grants fewer items than its bytes allow")


@case("4.54", over=Over.CODECS)
def overrun(trial: Trial) -> None:
    """With a byte of credit left an ITEM of any length may come, and take more: it is no mistake of the server's."""
    with trial.client(stream("Count", 1000, take=1, items=1000), SHORT_CALL) as callee:
        request = _begun(callee, 1000)
        window = _Window(callee, request)
        window.send(0)
        window.is_left()
        _overrun(callee, window)
        callee.error(request, 1, b"CANCELLED")
        callee.respond(callee.request(SHORT), ShortResponse(length=5))
        _items(callee, [0])
        callee.answered(1, length=5)


@case("4.55", over=Over.CODECS)
def without_bytes(trial: Trial) -> None:
    """An ITEM while no byte of credit is left ends the connection as CREDIT_EXCEEDED, also behind CANCEL."""
    with trial.client(stream("Count", 1000, take=1, items=1000), SHORT_CALL) as callee:
        window = _Window(callee, _begun(callee, 1000))
        window.send(0)
        window.is_left()
        _overrun(callee, window)
        window.send(2)
        callee.ends("CREDIT_EXCEEDED")
        callee.failed(1)


@case("4.56")
def without_items(trial: Trial) -> None:
    """An ITEM while no item of credit is left ends the connection as CREDIT_EXCEEDED, also behind CANCEL."""
    with trial.client(stream("Count", 5, take=1, items=1000), SHORT_CALL) as callee:
        window = _Window(callee, _begun(callee, 5))
        window.send(0)
        window.is_left()
        while window.items:
            window.send(1)
        window.send(2)
        callee.ends("CREDIT_EXCEEDED")
        callee.failed(1)


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
            granted += page.read_credit(found.payload).items
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
    """A stream that is answered with RESPONSE is WRONG_HALF."""
    with trial.client(stream("Count", 2, items=1)) as callee:
        callee.respond(callee.request(COUNT), CountResponse(number=0))
        callee.ends("WRONG_HALF")
        callee.failed()


@case("4.57")
def response_behind_cancel(trial: Trial) -> None:
    """A stream that was sent CANCEL, and is answered with RESPONSE, is WRONG_HALF all the same."""
    with trial.client(stream("Count", 2, take=1, items=5), SHORT_CALL) as callee:
        request = _begun(callee, 2)
        window = _Window(callee, request)
        window.send(0)
        window.is_left()
        callee.respond(request, CountResponse(number=0))
        callee.ends("WRONG_HALF")
        callee.failed(1)


@case("4.58")
def credit_of_the_server(trial: Trial) -> None:
    """CREDIT of a stream whose items do not follow is WRONG_HALF."""
    with trial.client(stream("Count", 2, items=1)) as callee:
        callee.send(callee.frame(page.CREDIT, page.credit_body(1, 1), to=callee.request(COUNT)))
        callee.ends("WRONG_HALF")
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
