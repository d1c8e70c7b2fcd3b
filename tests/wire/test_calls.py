"""The calls that one side begins, without a connection: ids, which of them are older, and what may cross their end."""

import itertools

import pytest

from wireproto.wire.calls import (
    CIRCLE,
    MAX_CROSSED,
    REFILL,
    CallPart,
    Calls,
    CallState,
    call_step,
)
from wireproto.wire.frame import NO_CREDIT, TOP_BIT, Credit, Flag, Kind
from wireproto.wire.state import Direction

both = pytest.mark.parametrize("top_bit", [0, TOP_BIT])
circles = pytest.mark.parametrize("circle", [8, 16, 64, CIRCLE])


@both
def test_new_calls_have_nothing(top_bit: int) -> None:
    """Before the handshake no call is taken, none is begun, and no credit is there."""
    calls = Calls(CallPart.BEGAN, top_bit)
    assert (calls.last, calls.max_calls, calls.first, calls.one_way) == (top_bit, 0, NO_CREDIT, 0)
    assert (calls.opcodes, calls.halves, calls.next_id()) == ({}, {}, top_bit | 1)
    assert (calls.stop, calls.ahead) == (top_bit + 2**31, top_bit + 2**30)
    calls.accepted(3, Credit(2, 10), 5)
    assert (calls.max_calls, calls.first, calls.one_way) == (3, Credit(2, 10), 5)


@both
def test_ids_have_31_bits(top_bit: int) -> None:
    """Numbers go from 1 to 2**31 - 1, and the top bit is neither counted nor changed."""
    calls = Calls(CallPart.BEGAN, top_bit)
    assert CIRCLE == 2**31
    for last, following in ((0, 1), (1, 2), (2**30, 2**30 + 1), (2**31 - 2, 2**31 - 1), (2**31 - 1, 1)):
        calls.begin(top_bit | last)
        assert calls.next_id() == top_bit | following
        assert calls.takes(top_bit | following)
        assert not calls.takes((top_bit ^ TOP_BIT) | following)
        assert not calls.takes(top_bit)


@both
@circles
def test_an_id_lies_ahead_by_less_than_half_the_circle(top_bit: int, circle: int) -> None:
    """From 1 to half the circle less 1, wherever the last one is; the bounds of the short way are never wider."""
    for last in (0, 1, circle // 2 - 1, circle // 2, circle // 2 + 1, circle - 1):
        calls = Calls(CallPart.BEGAN, top_bit, circle)
        calls.begin(top_bit | last)
        for ahead, taken in ((0, False), (1, True), (circle // 2 - 1, True), (circle // 2, False), (-1, False)):
            number = (last + ahead) % circle
            call_id = top_bit | number
            assert calls.takes(call_id) is (taken and number != 0), (last, ahead)
            if calls.last < call_id < calls.ahead:
                assert calls.takes(call_id)


@both
def test_the_next_id_is_none_that_is_in_flight(top_bit: int) -> None:
    """It is the first one ahead that is free; 0 when all that lie ahead are in flight."""
    calls = Calls(CallPart.BEGAN, top_bit, 16)
    calls.begin(top_bit | 13)
    expected = [14, 15, 1, 2, 3, 4, 0]
    for number in expected:
        found = calls.next_id()
        assert found == (top_bit | number if number else 0)
        calls.opcodes[found] = 7
    del calls.opcodes[top_bit | 1]
    assert calls.next_id() == top_bit | 1
    assert calls.last == top_bit | 13


@both
def test_what_is_older_than_the_numbers_is_remembered(top_bit: int) -> None:
    """Calls in flight when the numbers begin anew, plain ones too, do not lie behind a call of the new numbers."""
    calls = Calls(CallPart.BEGAN, top_bit, 16)

    def begin(number: int, flags: int) -> None:
        calls.begin(top_bit | number)
        if flags:
            calls.open(top_bit | number, 7, flags, NO_CREDIT, NO_CREDIT)
        else:
            calls.opcodes[top_bit | number] = 7

    def behind(last: int) -> list[int]:
        return [each & 15 for each in calls.opcodes if calls.lies_behind(each, top_bit | last)]

    begin(5, 0)
    begin(6, Flag.ITEMS_COME_BACK)
    begin(11, 0)
    assert (behind(0), behind(5), behind(6), behind(10), behind(11)) == ([5, 6, 11], [6, 11], [11], [11], [])
    begin(2, 0)
    assert (behind(11), behind(15), behind(2), behind(1)) == ([2], [2], [], [2])
    begin(7, Flag.ITEMS_FOLLOW)
    assert (behind(11), behind(2), behind(6), behind(7)) == ([2, 7], [7], [7], [])
    begin(13, 0)
    begin(3, 0)
    assert (behind(13), behind(14), behind(2), behind(3)) == ([3], [3], [3], [])
    # None was taken at all: whatever is of the present numbers was not.
    assert behind(0) == [3]
    assert calls.state_of(top_bit | 5).era == 0
    assert calls.state_of(top_bit | 13).era == 1
    assert calls.state_of(top_bit | 3).era == 2


def test_calls_that_are_lost_are_over() -> None:
    """No call is in flight behind the end, and none has a state."""
    calls = Calls(CallPart.BEGAN, 0)
    calls.begin(1)
    calls.opcodes[1] = 7
    calls.begin(2)
    calls.open(2, 7, Flag.ITEMS_FOLLOW, Credit(1, 2), Credit(3, 4))
    halves = calls.halves[2]
    assert (halves.items_to_send, halves.bytes_to_send, halves.items_to_come, halves.bytes_to_come) == (1, 2, 3, 4)
    calls.lose()
    assert (calls.opcodes, calls.halves, calls.last) == ({}, {}, 2)


def test_a_call_that_is_forgotten_leaves_the_others() -> None:
    """Its opcode and its state are gone; a plain call has only the one."""
    calls = Calls(CallPart.BEGAN, 0)
    for call_id, flags in ((1, Flag.ITEMS_FOLLOW), (2, Flag.ITEMS_COME_BACK)):
        calls.open(call_id, 7, flags, NO_CREDIT, NO_CREDIT)
    calls.opcodes[3] = 8
    calls.forget(3)
    calls.forget(1)
    assert (list(calls.opcodes), list(calls.halves)) == ([2], [2])


@pytest.mark.parametrize(
    ("left", "items", "size"),
    [
        ((2, 10), 2, 14),
        ((1, 1), 1, 5),
        ((0, 10), 0, 0),
        ((2, 0), 2, 0),
        ((2, -3), 2, 0),
    ],
)
def test_what_may_cross_is_what_was_left(left: tuple[int, int], items: int, size: int) -> None:
    """The items that were left, and with one of those and a byte the bytes and one frame, here of four bytes."""
    for taken, crosses in ((size, True), (size + 1, False)):
        calls = Calls(CallPart.BEGAN, 0)
        calls.let_cross(*left, 4)
        for _ in range(items - 1):
            assert calls.item_crosses(0)
        if items:
            assert calls.item_crosses(taken) is crosses
        assert not calls.item_crosses(0)


def test_bytes_of_a_call_without_items_are_none_of_another() -> None:
    """Bytes that nothing could be sent with are not lent to the item of a call that had no bytes."""
    calls = Calls(CallPart.BEGAN, 0)
    calls.let_cross(0, 10, 4)
    calls.let_cross(1, 0, 4)
    assert not calls.item_crosses(1)


@pytest.mark.parametrize("in_flight", [0, 1, 2, 3])
def test_calls_in_flight_have_refilled_nothing(in_flight: int) -> None:
    """Of three calls that were begun, those that are over put 8 each back, and those in flight nothing."""
    calls = Calls(CallPart.BEGAN, 0)
    assert all(calls.frame_crosses(0) for _ in range(MAX_CROSSED))
    calls.opcodes = dict.fromkeys(range(1, 1 + in_flight), 7)
    assert all(calls.frame_crosses(3) for _ in range((3 - in_flight) * REFILL))
    assert not calls.frame_crosses(3)


def test_the_bucket_is_refilled_by_calls_that_ended() -> None:
    """It holds 1,000, and each call that was begun and is not in flight puts 8 back, once and never beyond 1,000."""
    calls = Calls(CallPart.BEGAN, 0)
    assert all(calls.frame_crosses(0) for _ in range(MAX_CROSSED))
    calls.opcodes = {2: 7, 3: 7}
    # Three were begun, and one of them is over.
    assert all(calls.frame_crosses(3) for _ in range(REFILL))
    calls.opcodes = {}
    assert all(calls.frame_crosses(3) for _ in range(2 * REFILL))
    assert not calls.frame_crosses(3)
    calls = Calls(CallPart.BEGAN, 0)
    assert all(calls.frame_crosses(10_000) for _ in range(MAX_CROSSED))
    assert not calls.frame_crosses(10_000)


def test_a_smaller_bucket_is_one_for_tests() -> None:
    """A connection that a model drives has one that is empty after a few frames."""
    calls = Calls(CallPart.BEGAN, 0, 16, 2)
    assert [calls.frame_crosses(0) for _ in range(3)] == [True, True, False]


def test_what_is_over_has_no_step() -> None:
    """Nothing is sent or received of a call that is over, nor by the caller of one that is cancelled."""
    for kind, flags in itertools.product(Kind, range(0, 0x10, 4)):
        for part, direction in itertools.product(CallPart, Direction):
            assert call_step(part, CallState.OVER, direction, kind, flags) is None
        assert call_step(CallPart.BEGAN, CallState.CANCELLED, Direction.SEND, kind, flags) is None
        assert call_step(CallPart.ANSWERS, CallState.CANCELLED, Direction.RECEIVE, kind, flags) is None
