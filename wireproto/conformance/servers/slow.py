"""Sections 4 and 5: streams whose items wait for nobody."""

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench
from wireproto.conformance.case import Deviation, Needs
from wireproto.conformance.service import BURST, FLOOD, FloodRequest

case = SERVER_CASES.case


def _given(bench: Bench, request: FloodRequest, left_out: int, *, credit: int = 100) -> None:
    """A stream whose first item says how many were left out ahead of it, if any, and the others nothing."""
    with bench.open() as caller:
        call_id = caller.request(FLOOD, request, credit=credit)
        for number in range(request.items - min(request.keep, request.items), request.items):
            found = caller.expect(page.ITEM, call_id)
            if caller.decode(FLOOD, found.payload).number != number:
                raise Deviation(f"item {number} was due, and {page.shown(found)} came")
            told = int.from_bytes(page.read_metadata(found.metadata).get(page.DROPPED_KEY, [b""])[0])
            if told != left_out:
                raise Deviation(f"{left_out} items were left out ahead of item {number}, and {told} were told")
            left_out = 0
            if credit == 1:
                caller.credit(call_id, 1)
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.150", needs=Needs.SHAPES)
def told(bench: Bench) -> None:
    """How many items were left out is told with the next one, in key 8 of its ITEM, and not again with the others."""
    _given(bench, FloodRequest(items=10, keep=3), 7)
    _given(bench, FloodRequest(items=2000, keep=1), 1999)


@case("4.151", needs=Needs.SHAPES)
def nothing_told(bench: Bench) -> None:
    """An ITEM before which nothing was left out says nothing of it."""
    _given(bench, FloodRequest(items=3, keep=3), 0)


@case("4.152", needs=Needs.SHAPES)
def told_once(bench: Bench) -> None:
    """It is told once, too, where the items come one by one as there is credit."""
    _given(bench, FloodRequest(items=8, keep=4), 4, credit=1)


@case("4.153", needs=Needs.SHAPES)
def ended(bench: Bench) -> None:
    """A stream that ends the slow does so without credit: SLOW_CONSUMER, which may have been processed."""
    with bench.open() as caller:
        request = FloodRequest(items=10, keep=3)
        caller.fail(BURST, request, "SLOW_CONSUMER", credit=0, retry=page.MAYBE_PROCESSED)
        caller.fail(BURST, request, "SLOW_CONSUMER", credit=100, retry=page.MAYBE_PROCESSED)


@case("4.154", needs=Needs.SHAPES)
def not_ended(bench: Bench) -> None:
    """A stream of which every item is kept is not slow, and has them all."""
    with bench.open() as caller:
        call_id = caller.request(BURST, FloodRequest(items=3, keep=3), credit=100)
        numbers = [caller.item(BURST, call_id).number for _ in range(3)]
        if numbers != [0, 1, 2]:
            raise Deviation(f"items 0, 1 and 2 were due, and {numbers} came")
        caller.expect(page.END, call_id)
        caller.alive()
