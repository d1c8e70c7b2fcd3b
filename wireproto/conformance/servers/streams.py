"""Section 4: server streams and their credit."""

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, Over
from wireproto.conformance.service import COUNT, CountRequest
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

ENDLESS = 1 << 40
"""Items: more than any case takes."""


def _items(caller: Caller, call_id: int, first: int, count: int) -> None:
    for number in range(first, first + count):
        item = caller.item(COUNT, call_id)
        if item.number != number:
            raise Deviation(f"item {number} was due, and {item.number} came")


@case("4.40", needs=Needs.SERVICE)
def whole(bench: Bench) -> None:
    """A stream is its items, in order, and one END."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=5), credit=100)
        _items(caller, call_id, 0, 5)
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.41", needs=Needs.SERVICE)
def credit_holds(bench: Bench) -> None:
    """No ITEM comes without credit: of an endless stream as many as were granted, and no more until CREDIT."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS), credit=3)
        _items(caller, call_id, 0, 3)
        for _ in range(3):
            caller.ping()
            caller.alive()
        caller.credit(call_id, 2)
        _items(caller, call_id, 3, 2)
        caller.ping()
        caller.alive()


@case("4.42", needs=Needs.SERVICE)
def no_credit(bench: Bench) -> None:
    """A stream whose REQUEST grants no credit sends nothing until CREDIT comes."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS))
        caller.alive()
        caller.credit(call_id, 1)
        _items(caller, call_id, 0, 1)
        caller.alive()


@case("4.43", needs=Needs.SERVICE)
def zero_credit(bench: Bench) -> None:
    """A first credit of 0 in the metadata is the same as none."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS), credit=0)
        caller.alive()
        caller.credit(call_id, 2)
        _items(caller, call_id, 0, 2)
        caller.alive()


@case("4.44", needs=Needs.SERVICE)
def end_takes_none(bench: Bench) -> None:
    """END takes no credit: behind the last item it comes at the latest when there is credit for another one."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=2), credit=2)
        _items(caller, call_id, 0, 2)
        caller.credit(call_id, 1)
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.45", needs=Needs.SERVICE)
def no_items(bench: Bench) -> None:
    """A stream without items is an END."""
    with bench.open() as caller:
        caller.expect(page.END, caller.request(COUNT, CountRequest(items=0), credit=1))
        caller.alive()


@case("4.46", needs=Needs.SERVICE)
def error_after_items(bench: Bench) -> None:
    """A stream may end with ERROR behind items that were sent, which count."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=2, fail=True), credit=10)
        _items(caller, call_id, 0, 2)
        error = caller.error(call_id, "AS_ASKED")
        if error.status != 10:
            raise Deviation(f"the status is {error.status} and not ABORTED")
        caller.alive()


@case("4.47", needs=Needs.SERVICE)
def error_at_once(bench: Bench) -> None:
    """A stream may end with ERROR before its first item."""
    with bench.open() as caller:
        caller.fail(COUNT, CountRequest(fail=True), "AS_ASKED", credit=1)


@case("4.48", needs=Needs.SERVICE)
def cancel_stream(bench: Bench) -> None:
    """A stream that is cancelled ends with ERROR, CANCELLED; items that were on their way may come before it."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS), credit=50)
        caller.item(COUNT, call_id)
        caller.cancel(call_id)
        while (found := caller.read()).kind == page.ITEM:
            pass
        if found.kind != page.ERROR or page.read_error(found.payload).reason != "CANCELLED":
            raise Deviation(f"ERROR with CANCELLED was due, and {page.shown(found)} came")
        caller.alive()


@case("4.49", needs=Needs.SERVICE)
def cancel_without_credit(bench: Bench) -> None:
    """A stream that waits for credit is cancelled like any other."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS))
        caller.cancel(call_id)
        caller.error(call_id, "CANCELLED")
        caller.alive()


@case("4.50", needs=Needs.SERVICE)
def overflow(bench: Bench) -> None:
    """Credit of more than 4294967295 items, or as many bytes, ends the connection as CREDIT_OVERFLOW."""
    # Without the other number nothing is sent, so that none of it is used before the rest comes.
    for first, more in (((1, 0), (0xFFFF_FFFF, 0)), ((0, 1), (0, 0xFFFF_FFFF))):
        with bench.open() as caller:
            items, size = first
            call_id = caller.request(COUNT, CountRequest(items=ENDLESS), credit=items, size=size)
            caller.credit(call_id, *more)
            caller.ends("CREDIT_OVERFLOW")


@case("4.51", needs=Needs.SERVICE)
def greatest_credit(bench: Bench) -> None:
    """Credit of exactly 4294967295 items and as many bytes, in parts, is accepted."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=3), credit=0, size=0)
        for items, size in ((0xFFFF_FFFE, 0), (1, 0), (0, 0xFFFF_FFFF)):
            caller.credit(call_id, items, size)
        _items(caller, call_id, 0, 3)
        caller.expect(page.END, call_id)


@case("4.52")
def credit_on_unary(bench: Bench) -> None:
    """In the metadata of a call whose answer is one message credit means nothing."""
    with bench.open() as caller:
        caller.call(ECHO, EchoRequest(payload=b"x"), credit=7)


@case("4.53")
def credit_crossed(bench: Bench) -> None:
    """CREDIT of a call that is over has crossed its answer, and is dropped, whatever its opcode."""
    with bench.open() as caller:
        caller.call(ECHO, EchoRequest(payload=b"x"), call_id=1)
        caller.send(caller.frame(page.CREDIT, page.credit_body(1, 1), call_id=1))
        caller.send(caller.frame(page.CREDIT, page.credit_body(1, 1), opcode=0x1234, call_id=1))
        caller.alive()


@case("4.54", needs=Needs.SERVICE)
def credit_wrong_opcode(bench: Bench) -> None:
    """CREDIT of a call in flight with another opcode is WRONG_OPCODE."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS))
        caller.send(caller.frame(page.CREDIT, page.credit_body(1, 1), opcode=COUNT.opcode + 1, call_id=call_id))
        caller.ends("WRONG_OPCODE")


for _number, _text, _payload in (
    ("4.55", "CREDIT of 0 items and 0 bytes is BAD_BODY.", bytes(8)),
    ("4.56", "CREDIT whose body has 7 bytes is BAD_BODY.", page.credit_body(1, 1 << 8)[:7]),
    ("4.57", "CREDIT whose body has 9 bytes is BAD_BODY.", page.credit_body(1, 1) + b"\0"),
    ("4.61", "CREDIT of items alone, in a body of 4 bytes, is BAD_BODY.", page.u32(1)),
):

    def _run(bench: Bench, payload: bytes = _payload) -> None:
        with bench.open() as caller:
            caller.send(caller.frame(page.CREDIT, payload))
            caller.ends("BAD_BODY")

    SERVER_CASES.add(_number, _text, _run)


@case("4.58", needs=Needs.SERVICE)
def deadline_of_a_stream(bench: Bench) -> None:
    """A stream whose deadline passes ends with ERROR, DEADLINE, also while it waits for credit."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS), page.field(1, page.u32(30)))
        caller.error(call_id, "DEADLINE")
        caller.alive()


@case("4.59", needs=Needs.SERVICE)
def streams_together(bench: Bench) -> None:
    """Streams in flight together keep their items in order, each by its own credit."""
    with bench.open() as caller:
        ids = [caller.request(COUNT, CountRequest(items=ENDLESS), credit=credit) for credit in (2, 3, 4)]
        seen: dict[int, list[int]] = {call_id: [] for call_id in ids}
        for _ in range(9):
            found = caller.read()
            if found.kind != page.ITEM:
                raise Deviation(f"an ITEM was due, and {page.shown(found)} came")
            seen[found.call_id].append(caller.decode(COUNT, found.payload).number)
        if seen != {call_id: list(range(n)) for call_id, n in zip(ids, (2, 3, 4), strict=True)}:
            raise Deviation(f"the items of three streams are {seen}")
        caller.alive()


@case("4.60", over=Over.CODECS, needs=Needs.SERVICE)
def long_stream(bench: Bench) -> None:
    """A stream of a thousand items, granted in parts of ten, comes whole."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=1000), credit=10)
        for first in range(0, 1000, 10):
            _items(caller, call_id, first, 10)
            caller.credit(call_id, 10)
        caller.expect(page.END, call_id)


@case("4.62", needs=Needs.SERVICE)
def no_bytes(bench: Bench) -> None:
    """No ITEM comes without at least 1 byte of credit, however many items are granted, and then it does."""
    with bench.open() as caller:
        # An item without padding has no bytes in some codecs, and takes none.
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS, padding=1), credit=100, size=0)
        caller.alive()
        caller.credit(call_id, 100, 0)
        caller.ping()
        caller.alive()
        caller.credit(call_id, 0, 1)
        _items(caller, call_id, 0, 1)
        caller.alive()


@case("4.63", needs=Needs.SERVICE)
def bytes_without_items(bench: Bench) -> None:
    """No ITEM comes without at least 1 item of credit, however many bytes are granted, and then it does."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS), credit=0)
        caller.credit(call_id, 0, 1 << 30)
        caller.ping()
        caller.alive()
        caller.credit(call_id, 1, 0)
        _items(caller, call_id, 0, 1)
        caller.alive()


@case("4.64", needs=Needs.SERVICE)
def one_byte(bench: Bench) -> None:
    """With 1 byte of credit an ITEM of any length comes, which takes them below 0; the next one when they are above."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=ENDLESS, padding=5000), credit=10, size=1)
        for number in range(3):
            payload = caller.expect(page.ITEM, call_id).payload
            if caller.decode(COUNT, payload).number != number:
                raise Deviation(f"item {number} was due, and {payload[:40].hex(' ')} came")
            caller.ping()
            caller.credit(call_id, 0, len(payload) - 1)  # which leaves 0
            caller.alive()
            caller.credit(call_id, 0, 1)


@case("4.65", over=Over.CODECS, needs=Needs.SERVICE)
def large_items(bench: Bench) -> None:
    """A stream of large items, whose bytes are granted as they come, comes whole."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=60, padding=30_000), credit=60, size=40_000)
        for number in range(60):
            payload = caller.expect(page.ITEM, call_id).payload
            if caller.decode(COUNT, payload).number != number:
                raise Deviation(f"item {number} was due, and {payload[:40].hex(' ')} came")
            caller.credit(call_id, 1, len(payload))
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.66", needs=Needs.SERVICE)
def end_takes_no_bytes(bench: Bench) -> None:
    """END takes no bytes: behind an item that overran them it comes at the latest when more are granted."""
    with bench.open() as caller:
        call_id = caller.request(COUNT, CountRequest(items=1, padding=5000), credit=2, size=1)
        size = len(caller.expect(page.ITEM, call_id).payload)
        caller.credit(call_id, 1, size)
        caller.expect(page.END, call_id)
        caller.alive()
