"""Sections 4 and 5: streams that are gone on with behind a position."""

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench
from wireproto.conformance.case import Deviation, Needs, Over
from wireproto.conformance.service import COUNT, TAIL, CountRequest, TailRequest
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

RESUME_AFTER = 7
LOST = "POSITION_LOST"


def _after(position: bytes | int) -> bytes:
    """The metadata of a REQUEST that asks to go on behind a position."""
    return page.field(RESUME_AFTER, position if isinstance(position, bytes) else b"%d" % position)


def _whole(bench: Bench, request: TailRequest, numbers: range, metadata: bytes = b"") -> None:
    """A stream that must be these items and END."""
    with bench.open() as caller:
        call_id = caller.request(TAIL, request, metadata, credit=100)
        for number in numbers:
            item = caller.item(TAIL, call_id)
            if (item.number, item.position) != (number, number - 2):
                raise Deviation(f"item {number} was due, and {item} came")
        caller.expect(page.END, call_id)
        caller.alive()


def _lost(bench: Bench, *positions: bytes | int) -> None:
    """Positions behind which a stream of the items 3 to 5 cannot go on."""
    with bench.open() as caller:
        for position in positions:
            request = TailRequest(items=6, forgotten=3)
            caller.fail(TAIL, request, LOST, _after(position), credit=10, retry=page.NOT_PROCESSED)


@case("4.140", needs=Needs.SHAPES)
def begun(bench: Bench) -> None:
    """Without key 7 a resumable stream begins with what there is."""
    _whole(bench, TailRequest(items=5), range(5))
    _whole(bench, TailRequest(items=6, forgotten=3), range(3, 6))


@case("4.141", needs=Needs.SHAPES)
def gone_on_with(bench: Bench) -> None:
    """With key 7 it goes on behind the item of that position; a number is written in decimal, below 0 as well."""
    for number in range(5):
        _whole(bench, TailRequest(items=6), range(number + 1, 6), _after(number - 2))


@case("4.142", needs=Needs.SHAPES)
def at_its_end(bench: Bench) -> None:
    """Behind the last item there is END and nothing else."""
    _whole(bench, TailRequest(items=6), range(0), _after(3))


@case("4.143", needs=Needs.SHAPES)
def forgotten_last(bench: Bench) -> None:
    """Behind the item that was forgotten last nothing is missing, so that the stream goes on."""
    _whole(bench, TailRequest(items=6, forgotten=3), range(3, 6), _after(0))


@case("4.144", needs=Needs.SHAPES)
def lost(bench: Bench) -> None:
    """Behind a position that is not there, or not any more, it is POSITION_LOST, not processed."""
    _lost(bench, -1, -2, -3, 4, 100, 2**63 - 1)


@case("4.145", needs=Needs.SHAPES, over=Over.CODECS)
def no_position(bench: Bench) -> None:
    """Bytes that are no position of the method are POSITION_LOST: there is one way to write a number."""
    texts = (
        b"+1",
        b"01",
        b"-0",
        b" 1",
        b"1 ",
        b"1.0",
        b"0x1",
        b"-",
        b"one",
        b"\xff",
        b"9223372036854775808",
        b"1" * 64,
    )
    _lost(bench, *texts)


@case("4.146", needs=Needs.SHAPES)
def without_positions(bench: Bench) -> None:
    """A stream whose items have no positions cannot go on behind one: POSITION_LOST."""
    with bench.open() as caller:
        caller.fail(COUNT, CountRequest(items=3), LOST, _after(1), credit=10, retry=page.NOT_PROCESSED)


@case("4.147")
def of_a_unary_call(bench: Bench) -> None:
    """Key 7 means nothing in a call that is no stream."""
    with bench.open() as caller:
        if caller.call(ECHO, EchoRequest(payload=b"x"), _after(1)).payload != b"x":
            raise Deviation("the payload was to come back")


@case("4.148", needs=Needs.SHAPES)
def behind_the_payload(bench: Bench) -> None:
    """The position is looked at behind the payload: what is wrong with that is told first."""
    with bench.open() as caller:
        caller.fail(TAIL, b"\xff\xff\xff", "BAD_PAYLOAD", _after(b"no position"), credit=10)


@case("4.149", needs=Needs.SHAPES)
def credit_of_the_rest(bench: Bench) -> None:
    """A stream that goes on has the credit of its own REQUEST, and no other."""
    with bench.open() as caller:
        call_id = caller.request(TAIL, TailRequest(items=10), _after(0), credit=2)
        numbers = [caller.item(TAIL, call_id).number for _ in range(2)]
        caller.ping()
        caller.alive()
        caller.credit(call_id, 1)
        numbers.append(caller.item(TAIL, call_id).number)
        if numbers != [3, 4, 5]:
            raise Deviation(f"items 3, 4 and 5 were due, and {numbers} came")


def _bad(number: str, text: str, block: bytes) -> None:
    """A case in which the metadata fail the call, and the connection lives."""

    def run(bench: Bench) -> None:
        with bench.open() as caller:
            caller.fail(ECHO, EchoRequest(payload=b"x"), "BAD_METADATA", block)

    SERVER_CASES.add(number, text, run)


_bad("5.50", "An empty position is BAD_METADATA.", _after(b""))
_bad("5.51", "A position of 65 bytes is BAD_METADATA.", _after(bytes(65)))
_bad("5.52", "Two positions are BAD_METADATA.", _after(1) + _after(1))
