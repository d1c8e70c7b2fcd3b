"""Sections 4, 7 and 8: uploads, duplex calls and one-way calls, and the credit of what a client sends."""

import secrets
import time

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import (
    NOTE,
    NOTED,
    REFLECT,
    SUM,
    NotedRequest,
    NoteRequest,
    ReflectRequest,
    SumRequest,
    SumResponse,
)
from wireproto.conformance.sizes import noise
from wireproto.control import ECHO, EchoRequest

case = SERVER_CASES.case

MOST = 10_000
"""A server that grants more items, or more one-way calls, is not sent as many and one more."""

MOST_BYTES = 32 * 1024 * 1024
"""... and bytes."""

LONG = 30_000
"""Milliseconds: an item that is still being taken when the case is over."""

HELD = SumRequest(milliseconds=LONG)
ONE = SumRequest(number=1)


def _sum(caller: Caller, call_id: int, total: int, size: int, items: int) -> None:
    """The next frame must be the RESPONSE of a Sum with these."""
    found = caller.response(SUM, call_id)
    if found != SumResponse(total=total, size=size, items=items):
        raise Deviation(f"the sum of {items} items is {total}, of {size} bytes, and {found} came")


# Uploads.


@case("4.100", needs=Needs.SHAPES)
def within_first_credit(bench: Bench) -> None:
    """An upload within the first credit of WELCOME is sent at once and answered, without waiting for any CREDIT."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        room = caller.room(call_id)
        count = min(room.items, 10) if room.bytes > 1000 else 0
        caller.put(SUM, call_id, *[SumRequest(number=number) for number in range(count)])
        caller.complete(SUM, call_id)
        _sum(caller, call_id, sum(range(count)), 0, count)
        caller.alive()


@case("4.101", needs=Needs.SHAPES)
def no_items(bench: Bench) -> None:
    """An upload without items is a REQUEST and an END, and it is answered."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        caller.complete(SUM, call_id)
        _sum(caller, call_id, 0, 0, 0)
        caller.alive()


@case("4.102", needs=Needs.SHAPES, over=Over.CODECS)
def credit_comes_back(bench: Bench) -> None:
    """Credit returns as items are taken: an upload of a thousand items, each sent when there is credit, is answered."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        caller.give(SUM, call_id, *[SumRequest(number=number, data=bytes(100)) for number in range(1000)])
        caller.complete(SUM, call_id)
        _sum(caller, call_id, sum(range(1000)), 100_000, 1000)
        caller.alive()


@case("4.103", needs=Needs.SHAPES, over=Over.CODECS)
def large_items(bench: Bench) -> None:
    """No item is too long for its credit: with 1 byte left it is taken, and its bytes return."""
    with bench.open() as caller:
        assert caller.welcome is not None
        call_id = caller.upload(SUM)
        size = min(400_000, (caller.welcome.max_frame - 1000) // 3)
        caller.give(SUM, call_id, *[SumRequest(number=1, data=bytes(size))] * 12)
        caller.complete(SUM, call_id)
        _sum(caller, call_id, 12, 12 * size, 12)
        caller.alive()


@case("4.104", needs=Needs.SHAPES)
def early_answer(bench: Bench) -> None:
    """An upload may be answered before its END: the call is over, and items and the END that cross it are dropped."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        caller.give(SUM, call_id, ONE, SumRequest(number=2, answer=True))
        # With what crosses the answer in hand, as far as there is credit for it.
        more = max(0, min(5, caller.room(call_id).items)) if caller.room(call_id).bytes > 1000 else 0
        caller.put(SUM, call_id, *[ONE] * more)
        caller.complete(SUM, call_id)
        _sum(caller, call_id, 3, 0, 2)
        caller.alive()


@case("4.105", needs=Needs.SHAPES)
def error_in_the_middle(bench: Bench) -> None:
    """An upload may fail before its END: what crosses its ERROR is dropped, and the connection goes on."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        caller.give(SUM, call_id, ONE, SumRequest(fail=True))
        caller.complete(SUM, call_id)
        if (error := caller.error(call_id, "AS_ASKED")).status != 10:
            raise Deviation(f"the status is {error.status} and not ABORTED")
        caller.alive()


@case("4.106", needs=Needs.SHAPES)
def bad_item(bench: Bench) -> None:
    """An ITEM that is no message of its method fails its call with BAD_PAYLOAD, and the connection goes on."""
    with bench.open() as caller:
        for method in (SUM, REFLECT):
            # A duplex call may take its items only when there is credit for what comes of them.
            call_id = caller.upload(method, credit=10 if method is REFLECT else None)
            caller.wait_for_room(call_id)
            caller.put(method, call_id, b"\xff\xff\xff")
            caller.error(call_id, "BAD_PAYLOAD")
            caller.alive()


@case("4.107", needs=Needs.SHAPES)
def cancel_in_the_middle(bench: Bench) -> None:
    """CANCEL ends an upload whose items are not all there: ERROR, CANCELLED; the connection goes on."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        caller.give(SUM, call_id, ONE)
        caller.cancel(call_id)
        caller.error(call_id, "CANCELLED")
        caller.alive()


@case("4.108", needs=Needs.SHAPES)
def cancel_while_it_is_taken(bench: Bench) -> None:
    """CANCEL is heard while no item is taken, and also behind END."""
    with bench.open() as caller:
        for whole in (False, True):
            call_id = caller.upload(SUM)
            caller.give(SUM, call_id, HELD)
            if whole:
                caller.complete(SUM, call_id)
            caller.alive()
            caller.cancel(call_id)
            caller.error(call_id, "CANCELLED")
            caller.alive()


@case("4.109", needs=Needs.SHAPES)
def deadline(bench: Bench) -> None:
    """An upload whose deadline passes ends with ERROR, DEADLINE, while it waits for items and while one is taken."""
    with bench.open() as caller:
        for item in (ONE, HELD):
            call_id = caller.upload(SUM, page.field(page.DEADLINE_KEY, page.u32(60)))
            caller.give(SUM, call_id, item)
            caller.error(call_id, "DEADLINE")
            caller.alive()


def held(caller: Caller) -> int:
    """An upload of which the first item is being taken for long, and all the credit that there is for others."""
    call_id = caller.upload(SUM)
    caller.give(SUM, call_id, HELD)
    for _ in range(3):
        caller.alive()  # what the server grants at once is read
    room = caller.room(call_id)
    if room.items > MOST or room.bytes > MOST_BYTES:
        raise NotJudged(f"the server grants {room.items} items and {room.bytes} bytes")
    return call_id


@case("4.110", needs=Needs.SHAPES, over=Over.CODECS)
def items_are_limited(bench: Bench) -> None:
    """While items are not taken their credit does not return, and the ITEM beyond it is CREDIT_EXCEEDED."""
    with bench.open() as caller:
        call_id = held(caller)
        caller.put(SUM, call_id, *[ONE] * caller.room(call_id).items)
        caller.alive()
        if caller.room(call_id).items > 0:
            raise Deviation("credit came back for items that were not taken")
        caller.put(SUM, call_id, ONE)
        caller.ends("CREDIT_EXCEEDED")


@case("4.111", needs=Needs.SHAPES, over=Over.CODECS)
def bytes_are_limited(bench: Bench) -> None:
    """While items are not taken their bytes do not return, and the ITEM without a byte of credit is CREDIT_EXCEEDED."""
    with bench.open() as caller:
        assert caller.welcome is not None
        call_id = held(caller)
        large = SumRequest(data=noise(min(200_000, (caller.welcome.max_frame - 1000) // 3)))
        while caller.room(call_id).bytes > 0:
            if caller.room(call_id).items < 2:
                raise NotJudged("the server grants fewer items than its bytes allow")
            caller.put(SUM, call_id, large)
        caller.alive()
        if caller.room(call_id).bytes > 0:
            raise Deviation("credit came back for bytes that were not taken")
        caller.put(SUM, call_id, ONE)
        caller.ends("CREDIT_EXCEEDED")


def _answered_early(caller: Caller) -> tuple[int, int]:
    """An upload that is over: its id, and the items that may still cross its end."""
    call_id = caller.upload(SUM)
    caller.give(SUM, call_id, SumRequest(number=2, answer=True))
    _sum(caller, call_id, 2, 0, 1)
    room = caller.room(call_id)
    if room.items > MOST:
        raise NotJudged(f"the server grants {room.items} items")
    return call_id, room.items if min(room) > 0 else 0


@case("4.112", needs=Needs.SHAPES, over=Over.CODECS)
def items_that_cross(bench: Bench) -> None:
    """ITEMs that cross the end of an upload are dropped as far as they had credit, whatever they are."""
    with bench.open() as caller:
        call_id, count = _answered_early(caller)
        caller.put(SUM, call_id, *[b"\xff"] * count)
        caller.complete(SUM, call_id)
        caller.alive()


@case("4.113", needs=Needs.SHAPES, over=Over.CODECS)
def too_many_that_cross(bench: Bench) -> None:
    """One ITEM more than had credit when its upload ended is CREDIT_EXCEEDED."""
    with bench.open() as caller:
        call_id, count = _answered_early(caller)
        caller.put(SUM, call_id, *[b"\xff"] * (count + 1))
        caller.ends("CREDIT_EXCEEDED")


@case("4.114", needs=Needs.SHAPES)
def wrong_shapes(bench: Bench) -> None:
    """An upload and a duplex call are begun by the flags of their own shape, else WRONG_SHAPE, not processed."""
    with bench.open() as caller:
        for method in (SUM, REFLECT, NOTE):
            for flags in page.FLAGS_OF_REQUEST:
                if flags not in (int(method.shape.flags), page.ONE_WAY):
                    caller.fail(method, b"", "WRONG_SHAPE", retry=page.NOT_PROCESSED, flags=flags)


@case("4.115", needs=Needs.SHAPES)
def uploads_together(bench: Bench) -> None:
    """Uploads in flight together are summed each by itself, whatever the order of their items and ENDs."""
    with bench.open() as caller:
        ids = [caller.upload(SUM) for _ in range(3)]
        for number in range(1, 5):
            for place, call_id in enumerate(ids):
                caller.give(SUM, call_id, SumRequest(number=number * 10**place))
        for place, call_id in reversed([*enumerate(ids)]):
            caller.complete(SUM, call_id)
            _sum(caller, call_id, 10 * 10**place, 0, 4)


# Duplex calls.


def _reflected(caller: Caller, call_id: int, number: int) -> None:
    found = caller.item(REFLECT, call_id)
    if found.number != number:
        raise Deviation(f"item {number} was due, and {found.number} came")


@case("4.120", needs=Needs.SHAPES)
def both_halves(bench: Bench) -> None:
    """ITEMs of both halves of a duplex call are under way together; END of the caller's half completes that alone."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT, credit=100)
        for number in range(5):
            caller.give(REFLECT, call_id, ReflectRequest(number=number))
            _reflected(caller, call_id, number)
        caller.complete(REFLECT, call_id)
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.121", needs=Needs.SHAPES)
def answers_behind_the_end(bench: Bench) -> None:
    """Behind the END of the caller's half the items of the other half still come, as far as there is credit."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT)
        count = min(caller.room(call_id).items, 12) if caller.room(call_id).bytes > 1000 else 0
        caller.put(REFLECT, call_id, *[ReflectRequest(number=number) for number in range(count)])
        caller.complete(REFLECT, call_id)
        caller.alive()
        for number in range(count):
            caller.credit(call_id, 1)
            _reflected(caller, call_id, number)
            if number < count - 1:  # behind the last one END may come at once
                caller.ping()
                caller.alive()
        caller.credit(call_id, 1)
        caller.expect(page.END, call_id)


@case("4.122", needs=Needs.SHAPES, over=Over.CODECS)
def long_duplex(bench: Bench) -> None:
    """Credit returns in both directions: 500 items go and come back, each within its credit."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT, credit=3)
        for number in range(500):
            caller.give(REFLECT, call_id, ReflectRequest(number=number, data=bytes(500)))
            _reflected(caller, call_id, number)
            caller.credit(call_id, 1)
        caller.complete(REFLECT, call_id)
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.123", needs=Needs.SHAPES)
def answer_half_ends_first(bench: Bench) -> None:
    """END of the answer half ends a duplex call, though the other half is open: what crosses it is dropped."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT, credit=10)
        caller.give(REFLECT, call_id, ReflectRequest(number=1), ReflectRequest(end=True))
        caller.complete(REFLECT, call_id)
        _reflected(caller, call_id, 1)
        caller.expect(page.END, call_id)
        caller.alive()


@case("4.124", needs=Needs.SHAPES)
def duplex_fails(bench: Bench) -> None:
    """ERROR ends both halves of a duplex call; the items before it count."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT, credit=10)
        caller.give(REFLECT, call_id, ReflectRequest(number=1))
        _reflected(caller, call_id, 1)
        caller.give(REFLECT, call_id, ReflectRequest(fail=True))
        caller.error(call_id, "AS_ASKED")
        caller.alive()


@case("4.125", needs=Needs.SHAPES)
def duplex_cancelled(bench: Bench) -> None:
    """CANCEL ends both halves of a duplex call: ERROR, CANCELLED."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT, credit=10)
        caller.give(REFLECT, call_id, ReflectRequest(number=1))
        _reflected(caller, call_id, 1)
        caller.cancel(call_id)
        caller.error(call_id, "CANCELLED")
        caller.alive()


# One-way calls.


def _granted(caller: Caller) -> int:
    """The one-way calls that WELCOME grants."""
    if not 0 < caller.one_way_room <= MOST:
        raise NotJudged(f"the server takes {caller.one_way_room} one-way calls")
    return caller.one_way_room


def _noted(caller: Caller, key: str, count: int, total: int) -> None:
    """So many notes must be there within the patience of the run, and no others."""
    until = time.monotonic() + caller.bench.patience
    while True:
        found = caller.call(NOTED, NotedRequest(key=key))
        if (found.count, found.total) == (count, total):
            return
        if found.count > count or time.monotonic() > until:
            raise Deviation(f"{count} notes that sum up to {total} were sent, and there are {found}")


@case("4.130", needs=Needs.SHAPES)
def nothing_is_answered(bench: Bench) -> None:
    """A one-way call is carried out, and no frame of it is ever sent."""
    key = secrets.token_hex(8)
    with bench.open() as caller:
        count = min(3, _granted(caller))
        for number in range(count):
            caller.request(NOTE, NoteRequest(key=key, number=number + 1))
        _noted(caller, key, count, sum(range(count + 1)))
        caller.ping()
        caller.alive()


@case("4.131", needs=Needs.SHAPES, over=Over.CODECS)
def one_way_credit_returns(bench: Bench) -> None:
    """One-way credit returns by CREDIT of call id 0: twice as many calls as WELCOME grants are all carried out."""
    key = secrets.token_hex(8)
    with bench.open() as caller:
        count = 2 * _granted(caller) + 1
        for _ in range(count):
            caller.wait_for_one_way_room()
            caller.request(NOTE, NoteRequest(key=key, number=1))
        _noted(caller, key, count, count)


@case("4.132", needs=Needs.SHAPES)
def bad_one_way_calls(bench: Bench) -> None:
    """A one-way call that cannot be read is dropped, answered with nothing, and the connection goes on."""
    key = secrets.token_hex(8)
    with bench.open() as caller:
        _granted(caller)
        caller.request(NOTE, b"\xff\xff\xff")
        caller.wait_for_one_way_room()
        caller.request(NOTE, NoteRequest(key=key, number=7))
        _noted(caller, key, 1, 7)
        caller.alive()


@case("4.133")
def one_way_calls_of_other_methods(bench: Bench) -> None:
    """A one-way call of a method of another shape, or of none, is dropped, and no ERROR says so."""
    with bench.open() as caller:
        _granted(caller)
        caller.request(ECHO, EchoRequest(payload=b"x"), flags=page.ONE_WAY)
        caller.wait_for_one_way_room()
        call_id = page.next_id(1)
        caller.one_way_room -= 1
        caller.send(caller.frame(page.REQUEST, b"", opcode=0x0BAD, call_id=call_id, flags=page.ONE_WAY))
        caller.request(ECHO, EchoRequest(payload=b"x"), call_id=page.next_id(call_id))
        caller.response(ECHO, page.next_id(call_id))
        caller.alive()


@case("4.134", needs=Needs.SHAPES)
def late_one_way_call(bench: Bench) -> None:
    """A one-way call whose deadline has passed before it has begun is dropped."""
    key = secrets.token_hex(8)
    with bench.open() as caller:
        _granted(caller)
        caller.request(NOTE, NoteRequest(key=key, number=100), page.field(page.DEADLINE_KEY, page.u32(0)))
        for _ in range(3):
            caller.wait_for_one_way_room()
            caller.request(NOTE, NoteRequest(key=key, number=1))
        _noted(caller, key, 3, 3)


# What has no place in the state of its call.


@case("7.09", needs=Needs.SHAPES, over=Over.CODECS)
def behind_the_end(bench: Bench) -> None:
    """ITEM and END behind the END of a request half are WRONG_HALF."""
    for again in (True, False):
        with bench.open() as caller:
            call_id = caller.upload(SUM)
            caller.give(SUM, call_id, HELD)
            caller.complete(SUM, call_id)
            caller.put(SUM, call_id, ONE) if again else caller.complete(SUM, call_id)
            caller.ends("WRONG_HALF")


@case("7.10", needs=Needs.SHAPES, over=Over.CODECS)
def frames_of_the_other_side(bench: Bench) -> None:
    """RESPONSE and ERROR of an upload from the client, and CREDIT of its answer, are WRONG_HALF."""
    for kind, body in (
        (page.RESPONSE, b""),
        (page.ERROR, page.error_body()),
        (page.CREDIT, page.credit_body(1, 1)),
    ):
        with bench.open() as caller:
            call_id = caller.upload(SUM)
            caller.send(caller.frame(kind, body, opcode=SUM.opcode, call_id=call_id))
            caller.ends("WRONG_HALF")


@case("7.11", needs=Needs.SHAPES, over=Over.CODECS)
def opcode_of_an_item(bench: Bench) -> None:
    """ITEM and END of an upload in flight with another opcode are WRONG_OPCODE."""
    for kind in (page.ITEM, page.END):
        with bench.open() as caller:
            call_id = caller.upload(SUM)
            caller.send(caller.frame(kind, b"", opcode=REFLECT.opcode, call_id=call_id))
            caller.ends("WRONG_OPCODE")


@case("7.12", needs=Needs.SHAPES)
def no_credit_behind_the_end(bench: Bench) -> None:
    """Of a request half whose END was read no CREDIT is sent any more, though items of it are taken only then."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        count = min(caller.room(call_id).items, 10) if caller.room(call_id).bytes > 1000 else 0
        items = [SumRequest(number=1, milliseconds=200), *[ONE] * count][:count]
        caller.put(SUM, call_id, *items)
        caller.complete(SUM, call_id)
        caller.ping()
        _sum(caller, call_id, count, 0, count)
        caller.alive()


# The end of the client's output.


@case("8.13", needs=Needs.SHAPES)
def half_close_of_an_open_upload(bench: Bench) -> None:
    """Behind a client's end of input a call whose request half is open ends with ERROR, CANCELLED."""
    for method in (SUM, REFLECT):
        with bench.open() as caller:
            call_id = caller.upload(method)
            caller.wait_for_room(call_id)
            caller.put(method, call_id, ONE if method is SUM else ReflectRequest())
            caller.peer.end_output()
            caller.error(call_id, "CANCELLED")
            caller.closes("the last answer")


@case("8.14", needs=Needs.SHAPES)
def half_close_of_a_whole_upload(bench: Bench) -> None:
    """Behind a client's end of input an upload whose request half is complete is answered."""
    with bench.open() as caller:
        call_id = caller.upload(SUM)
        caller.give(SUM, call_id, SumRequest(number=4, milliseconds=100))
        caller.complete(SUM, call_id)
        caller.peer.end_output()
        _sum(caller, call_id, 4, 0, 1)
        caller.closes("the last answer")


@case("8.15", needs=Needs.SHAPES)
def half_close_of_a_whole_duplex_call(bench: Bench) -> None:
    """Behind a client's end of input a duplex call whose request half is complete goes on while it has credit."""
    with bench.open() as caller:
        call_id = caller.upload(REFLECT, credit=10)
        caller.give(REFLECT, call_id, *[ReflectRequest(number=number) for number in range(4)])
        caller.complete(REFLECT, call_id)
        caller.peer.end_output()
        for number in range(4):
            _reflected(caller, call_id, number)
        caller.expect(page.END, call_id)
        caller.closes("the last answer")
