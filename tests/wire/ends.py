"""Two sides in a call of any shape, which either of them began."""

from typing import NamedTuple

import pytest

from tests.wire.peers import (
    ERROR_BODY,
    FIRST,
    STREAM,
    STREAM_CREDIT,
    Pair,
    opened_both_ways,
)
from wireproto.limits import Limits
from wireproto.wire.connection import Connection, Role
from wireproto.wire.frame import TOP_BIT, Credit, Flag, Kind, pack_credit

UNARY, STREAMED, UPLOAD = Flag.NONE, Flag.ITEMS_COME_BACK, Flag.ITEMS_FOLLOW
DUPLEX = UPLOAD | STREAMED
SHAPES = {"unary": UNARY, "stream": STREAMED, "upload": UPLOAD, "duplex": DUPLEX}
MAX_FRAME = 4096
LARGEST = MAX_FRAME - 12


class Ends(NamedTuple):
    """Who began a call, who answers it, its id, and both together."""

    caller: Connection
    answerer: Connection
    call_id: int
    pair: Pair

    def deliver(self) -> list[object]:
        """What the answerer reports of all that the caller has sent."""
        return list(self.pair.deliver(self.caller))

    def deliver_back(self) -> list[object]:
        """What the caller reports of all that the answerer has sent."""
        return list(self.pair.deliver(self.answerer))


def ends(by: Role, first: Credit = FIRST, *, one_way: int = 2, max_calls: int = 3) -> Ends:
    """Both sides accept the same calls, and ``by`` is the one to begin them."""
    pair = opened_both_ways(first, one_way=one_way, max_calls=max_calls, limits=Limits(max_frame=MAX_FRAME))
    return Ends(pair.client, pair.server, 1, pair) if by is Role.CLIENT else Ends(*pair[::-1], TOP_BIT | 1, pair)


def begun(by: Role, flags: int, first: Credit = FIRST) -> Ends:
    """Call 1 of ``by`` is in flight; its answer half, if it is a stream, has ``STREAM_CREDIT``."""
    call = ends(by, first)
    begin(call.caller, flags)
    call.deliver()
    return call


def begin(side: Connection, flags: int) -> int:
    if not flags:
        return side.send_request(0x10, b"")
    if flags & STREAMED:
        return side.send_flagged_request(flags, 0x10, b"", STREAM, credit=STREAM_CREDIT)
    return side.send_flagged_request(flags, 0x10, b"")


either = pytest.mark.parametrize("by", Role, ids=lambda role: f"by the {role.value}")

KINDS_OF_CALLS = (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR, Kind.CANCEL, Kind.CREDIT)
BODIES = {Kind.ERROR: ERROR_BODY, Kind.CREDIT: pack_credit(1, 1)}
