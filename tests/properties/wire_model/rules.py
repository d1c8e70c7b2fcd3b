"""The rules of calls in one place: the table of the states of a call, every other rule as a switch, and the sizes."""

from dataclasses import dataclass, field
from typing import Final

from tests.properties.wire_model.frames import Amount
from wireproto.wire.calls import STATES_OF_A_CALL, CallTable

MAX_CREDIT: Final = 2**32 - 1
"""What a field of CREDIT holds, and what credit may grow to."""

MOST_THAT_CROSS: Final = 5
"""What may cross the end of one call: END, CANCEL, and three CREDITs where each returns half the window.

The window's items make two of them, for each takes half of the items, and one more may be due for its bytes alone.
``REFILL`` must not be less: a peer whose every call ended so would empty any bucket, slowly.
"""


@dataclass(frozen=True)
class Rules:
    """Each rule beside the table, as a switch that is right by default. A fault is one field that differs."""

    table: CallTable = field(default_factory=lambda: STATES_OF_A_CALL)
    """The states of a call."""

    # Ids.
    looks_at_ids_in_flight: bool = True
    """A REQUEST takes the next id that none of its sender's calls in flight has."""
    only_requests_lie_ahead: bool = True
    """A frame of a call that is over is never judged by how far its id lies ahead: the call may be very old."""

    # Credit.
    sender_overruns_bytes: bool = True
    """An ITEM is sent with 1 item and 1 byte of credit, however long it is."""
    receiver_lets_bytes_overrun: bool = True
    """... and is received so: an ITEM may take the bytes below zero."""
    credit_returns_when_taken: bool = True
    """Credit returns when an item was taken, and not when it arrived."""
    credit_waits_for_half_the_window: bool = True
    """Credit returns when half the window, of items or of bytes, is owed. Item by item it would be as right for the
    call, but too many CREDITs would cross its end: ``test_credit_that_returns_item_by_item_ends_an_honest_client``."""
    grants_first_credit: bool = True
    """What the window is above the first credit is granted at once, without an ITEM having come."""

    # Crossing.
    room_for_crossing: bool = True
    """The request credit that is left when a call ends early joins the connection's crossing allowance."""
    room_for_the_overrun: bool = True
    """... and one frame with it, since an ITEM may take the bytes below zero."""
    room_for_refused: bool = True
    """A refused REQUEST whose items follow adds the first credit and one frame."""
    bucket_refills: bool = True
    """The bucket of END, CREDIT and CANCEL that cross the end of their call is refilled by each call that ends."""

    # Handlers.
    running_handlers_are_counted_apart: bool = True
    """A handler that runs on behind its terminal frame is not counted against ``max_calls``."""
    terminal_frame_waits: bool = True
    """With ``max_calls`` handlers that run on, the terminal frame of the next CANCEL or deadline waits for one."""
    waiting_frame_leaves: bool = True
    """... and it leaves when one has returned."""

    # One-way calls.
    one_way_is_no_call_in_flight: bool = True
    """A one-way call is over at once: it does not count against ``max_calls``."""
    dropped_one_way_returns_credit: bool = True
    """A one-way call that was refused or never ran returns its credit like one whose handler has returned."""

    # The end.
    draining_side_answers: bool = True
    """A REQUEST behind the sender's GOAWAY is answered with ERROR, and not only dropped."""
    goaway_keeps_ids_in_flight: bool = True
    """The id of a call behind GOAWAY stays in flight until its terminal frame."""
    goaway_goes_by_order: bool = True
    """Which calls lie behind GOAWAY is told by the order in which they began, not by their ids alone: an old id that is
    still in flight can look like one that lies ahead."""
    half_close_ends_uploads: bool = True
    """The end of input ends the calls whose request half is open."""
    half_close_ends_streams_without_credit: bool = True
    """Behind the end of input a stream without credit ends: it can be granted none any more."""
    half_close_loses_own_calls: bool = True
    """At the end of input a side's own calls to the peer are lost: the peer can answer none of them."""
    half_closed_side_drops_requests: bool = True
    """A side that has half-closed drops what still comes of the peer's calls: it can answer none of them."""


SMALL_WINDOW: Final = Amount(4, 8)
SMALL_FIRST_CREDIT: Final = Amount(3, 6)


@dataclass(frozen=True)
class Scale:
    """The numbers of a wire that is small enough for its corners to be met often.

    Attributes:
        modulus: of the ids; 2**31 on the real wire.
        max_calls: calls in flight either side accepts.
        window: credit of each half of a call, when nothing of it is used.
        first: credit of the request half that comes with no CREDIT; the answer half's is drawn for each call.
        max_size: bytes of the longest payload.
        one_way: one-way credit of either side.
        max_stray: answers to calls that are not in flight which a side drops. Two sides that keep the rules send none,
            so that the model lets none pass; the real wire lets 16.
        begins_after: the id both sides take for the last one, so that some runs wrap at once.
    """

    modulus: int = 32
    max_calls: int = 3
    window: Amount = SMALL_WINDOW
    first: Amount = SMALL_FIRST_CREDIT
    max_size: int = 6
    one_way: int = 2
    max_stray: int = 0
    begins_after: int = 0

    @property
    def bucket(self) -> int:
        """END, CREDIT and CANCEL that may cross the end of their call: enough for all calls in flight to end at once.

        The real one is 1,000, and refills with time as well. The model has no clock, so that it judges more strictly.
        """
        return MOST_THAT_CROSS * self.max_calls
