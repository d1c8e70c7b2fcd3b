"""One side of a connection: it judges what it receives by the rules, and sends what they allow."""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from tests.properties.wire_model.frames import (
    NO_CREDIT,
    Amount,
    CallShape,
    CreditExceeded,
    CreditOverflow,
    ModelFrame,
    StrayAnswers,
    TooManyFrames,
    WrongCallId,
    WrongHalf,
)
from tests.properties.wire_model.rules import MAX_CREDIT, Rules, Scale
from wireproto.wire.calls import REFILL, CallPart, CallState, CallStep
from wireproto.wire.frame import TOP_BIT, Flag, Kind
from wireproto.wire.state import END_OF_INPUT, FINAL, Direction


class WireSide(Protocol):
    """A side as its program sees it. What sends returns False, or None for an id, where the rules do not allow it."""

    output: deque[ModelFrame]
    """What was sent, for whoever carries it to the other side."""
    dropped_items: int
    """ITEMs that were received and are no program's: of calls that are over or cancelled."""

    def begin(self, shape: CallShape, number: int, credit: Amount = ..., refusal: str = ...) -> int | None:
        """Send a REQUEST with the credit of its answer half; ``refusal`` is what the other side has against it."""

    def send_item(self, call_id: int, number: int, size: int) -> bool:
        """Send an ITEM of the half of the call that is ours."""

    def send_end(self, call_id: int) -> bool:
        """Complete our half of a call: the terminal frame, if we answer it."""

    def send_response(self, call_id: int) -> bool:
        """Answer a call whose answer half is no stream."""

    def send_error(self, call_id: int, reason: str) -> bool:
        """Fail a call that the other side began."""

    def send_cancel(self, call_id: int) -> bool:
        """No longer want the answer to a call of ours."""

    def send_credit(self, call_id: int, credit: Amount) -> bool:
        """Let the other side send more ITEMs of its half of a call."""

    def send_one_way_credit(self, items: int) -> bool:
        """Let the other side send more one-way calls."""

    def send_goaway(self) -> bool:
        """Accept no more calls."""

    def half_close(self) -> bool:
        """Send nothing more, and still receive the answers to our calls."""

    def end_connection(self) -> bool:
        """Send a final ERROR."""

    def lose(self) -> None:
        """The connection is gone: nothing is sent or received any more."""

    def hold(self) -> None:
        """A handler runs on behind the terminal frame of its call."""

    def release(self) -> None:
        """A handler that ran on has returned."""

    def may_send_item(self, call_id: int) -> bool:
        """Whether our half of the call has the credit for an ITEM."""

    def lies_behind(self, call_id: int, last: int) -> bool:
        """Whether a call of ours began after the one that the other side's GOAWAY named."""

    def calls_in_flight(self, part: CallPart) -> int:
        """How many calls in flight this side began, or answers."""

    def receive(self, frame: ModelFrame) -> ModelFrame | None:
        """Judge a frame.

        Returns:
            The frame if it concerns the program; None for one that was dropped or that the side answered by itself.

        Raises:
            ConnectionEnds: the rules do not allow the frame.
        """


@dataclass
class HalfCredit:
    """What may still be sent of one half of a call; the bytes may be below zero by one ITEM."""

    items: int
    bytes: int

    @property
    def some(self) -> bool:
        """Whether one more ITEM may be sent."""
        return self.items >= 1 and self.bytes >= 1

    def spend(self, size: int) -> None:
        """An ITEM was sent or received."""
        self.items -= 1
        self.bytes -= size

    def grow(self, more: Amount) -> None:
        """A CREDIT was sent or received."""
        self.items += more.items
        self.bytes += more.bytes


@dataclass
class ModelCall:
    """What one side knows of a call in flight."""

    call_id: int
    part: CallPart
    flags: Flag
    state: CallState
    to_send: HalfCredit
    to_come: HalfCredit


@dataclass
class ModelSide:
    """One side: the server if ``top_bit`` is set in the ids of the calls that it begins."""

    top_bit: int
    scale: Scale
    rules: Rules
    output: deque[ModelFrame] = field(default_factory=deque)
    calls: dict[int, ModelCall] = field(default_factory=dict)
    dropped_items: int = 0

    def __post_init__(self) -> None:
        self.last_sent = self.last_received = self.position = self.scale.begins_after
        # How many ids this side had passed when it began the latest call of an id: an id that no modulus has cut.
        self.positions: dict[int, int] = {}
        self.one_way_to_send = self.one_way_to_come = self.scale.one_way
        self.crossing = HalfCredit(0, 0)
        self.bucket = self.scale.bucket
        self.stray = self.held = 0
        self.goaway_sent = self.goaway_received = self.end_sent = self.end_received = self.closed = False

    def calls_in_flight(self, part: CallPart) -> int:
        """How many calls in flight this side began, or answers."""
        return sum(call.part is part for call in self.calls.values())

    # Sending.

    def _send(self, frame: ModelFrame) -> bool:
        if self.closed or self.end_sent:
            return False
        self.output.append(frame)
        return True

    def begin(self, shape: CallShape, number: int, credit: Amount = NO_CREDIT, refusal: str = "") -> int | None:
        """Send a REQUEST: it takes the next id of this side's that is not in flight."""
        low, flags = self._next_id(), shape.value
        if self.goaway_received or self.end_sent or self.end_received or self.closed:
            return None
        if not self._is_ahead(low, self.last_sent):
            return None
        if Flag.ONE_WAY in flags:
            if not self.one_way_to_send:
                return None
            self.one_way_to_send -= 1
        elif self.calls_in_flight(CallPart.BEGAN) >= self.scale.max_calls:
            return None
        self.position += (low - self.last_sent) % self.scale.modulus
        self.last_sent = low
        self.positions[low | self.top_bit] = self.position
        call = self._new_call(low | self.top_bit, CallPart.BEGAN, flags, credit)
        self._send(ModelFrame(Kind.REQUEST, call.call_id, flags, number, credit=credit, reason=refusal))
        return call.call_id

    def _next_id(self) -> int:
        low = self.last_sent
        for _ in range(self.scale.modulus):
            low = low % (self.scale.modulus - 1) + 1
            if low | self.top_bit not in self.calls or not self.rules.looks_at_ids_in_flight:
                break
        return low

    def _is_ahead(self, low: int, last: int) -> bool:
        return 0 < (low - last) % self.scale.modulus < self.scale.modulus // 2

    def _new_call(self, call_id: int, part: CallPart, flags: Flag, answer: Amount) -> ModelCall:
        request_half = HalfCredit(*self.scale.first) if Flag.ITEMS_FOLLOW in flags else HalfCredit(0, 0)
        answer_half = HalfCredit(*answer)
        to_send, to_come = (request_half, answer_half) if part is CallPart.BEGAN else (answer_half, request_half)
        state = CallState.BOTH_OPEN if Flag.ITEMS_FOLLOW in flags else CallState.ANSWERING
        call = ModelCall(call_id, part, flags, state, to_send, to_come)
        if Flag.ONE_WAY not in flags:
            self.calls[call_id] = call
        return call

    def _step(self, call: ModelCall, direction: Direction, kind: int) -> CallStep | None:
        """What the table says of a frame, if it allows it; the call then has the state that follows."""
        step = self.rules.table.get((call.part, call.state, direction), {}).get(kind)
        if step is None or step.only & ~call.flags or step.never & call.flags:
            return None
        call.state = step.then or call.state
        return step

    def _send_of_call(self, frame: ModelFrame) -> bool:
        """Send a frame of a call, if the call is in flight and the table allows it."""
        call = self.calls.get(frame.call_id)
        if call is None or self.end_sent:
            return False
        request_half_was_open = call.state is CallState.BOTH_OPEN
        if self._step(call, Direction.SEND, frame.kind) is None:
            return False
        if call.state is CallState.OVER:
            del self.calls[call.call_id]
            self._refill()
            if request_half_was_open and not self.end_received:
                self._let_cross(call.to_come)
        return self._send(frame)

    def send_item(self, call_id: int, number: int, size: int) -> bool:
        """Send an ITEM: it needs 1 item and 1 byte of credit, and takes all its bytes."""
        if not self.may_send_item(call_id):
            return False
        credit = self.calls[call_id].to_send
        if size > credit.bytes and not self.rules.sender_overruns_bytes:
            return False
        if not self._send_of_call(ModelFrame(Kind.ITEM, call_id, number=number, size=size)):
            return False
        credit.spend(size)
        return True

    def may_send_item(self, call_id: int) -> bool:
        """Whether our half of the call has the credit for an ITEM."""
        return call_id in self.calls and self.calls[call_id].to_send.some

    def send_end(self, call_id: int) -> bool:
        """Complete our half of a call."""
        return self._send_of_call(ModelFrame(Kind.END, call_id))

    def send_response(self, call_id: int) -> bool:
        """Answer a call whose answer half is no stream."""
        return self._send_of_call(ModelFrame(Kind.RESPONSE, call_id))

    def send_error(self, call_id: int, reason: str) -> bool:
        """Fail a call that the other side began."""
        return self._send_of_call(ModelFrame(Kind.ERROR, call_id, reason=reason))

    def send_cancel(self, call_id: int) -> bool:
        """No longer want the answer to a call of ours."""
        return self._send_of_call(ModelFrame(Kind.CANCEL, call_id))

    def send_credit(self, call_id: int, credit: Amount) -> bool:
        """Let the other side send more ITEMs of its half of a call."""
        call = self.calls.get(call_id)
        if call is None or not self._send_of_call(ModelFrame(Kind.CREDIT, call_id, credit=credit)):
            return False
        call.to_come.grow(credit)
        return True

    def send_one_way_credit(self, items: int) -> bool:
        """Let the other side send more one-way calls."""
        if not self._send(ModelFrame(Kind.CREDIT, credit=Amount(items))):
            return False
        self.one_way_to_come += items
        return True

    def send_goaway(self) -> bool:
        """Accept no more calls; it names the last REQUEST that was received."""
        if self.goaway_sent or not self._send(ModelFrame(Kind.GOAWAY, last=self.last_received)):
            return False
        self.goaway_sent = True
        return True

    def half_close(self) -> bool:
        """End the output: the peer's calls are over here, for nothing can be said of them any more."""
        if not self._send(ModelFrame(END_OF_INPUT)):
            return False
        self.end_sent = True
        self._forget(CallPart.ANSWERS)
        return True

    def end_connection(self) -> bool:
        """Send a final ERROR."""
        sent = self._send(ModelFrame(FINAL))
        self.lose()
        return sent

    def lose(self) -> None:
        """All calls are over."""
        self.closed = True
        self.calls.clear()

    def hold(self) -> None:
        """A handler runs on; it is counted apart from the calls in flight."""
        self.held += 1

    def release(self) -> None:
        """A handler that ran on has returned."""
        self.held -= 1

    def lies_behind(self, call_id: int, last: int) -> bool:
        """Whether a call of ours began after the one that GOAWAY named, however old it is."""
        if not self.rules.goaway_goes_by_order:
            return self._is_ahead(call_id & ~TOP_BIT, last)
        named = self.position - (self.last_sent - last) % self.scale.modulus
        return self.positions[call_id] > named

    def _forget(self, part: CallPart) -> None:
        for call_id in [call_id for call_id, call in self.calls.items() if call.part is part]:
            del self.calls[call_id]

    # Crossing.

    def _let_cross(self, left: HalfCredit) -> None:
        """A call ended before its END or CANCEL was read: what its caller may have sent by then is dropped later on."""
        if self.rules.room_for_crossing:
            self.crossing.items += left.items
            if left.some:
                self.crossing.bytes += left.bytes + self.scale.max_size * self.rules.room_for_the_overrun

    def _refill(self) -> None:
        if self.rules.bucket_refills:
            self.bucket = min(self.bucket + REFILL, self.scale.bucket)

    def _drop_crossing(self, frame: ModelFrame) -> None:
        """A frame of a peer's call that is over, or was never begun."""
        low = frame.call_id & ~TOP_BIT
        if not self.rules.only_requests_lie_ahead and self._is_ahead(low, self.last_received):
            raise WrongCallId(f"{frame} names a call that lies ahead of {self.last_received}")
        if frame.kind == Kind.ITEM:
            self.dropped_items += 1
            self.crossing.spend(frame.size)
            if self.crossing.items < 0 or self.crossing.bytes < 0:
                raise CreditExceeded(f"{frame} is of a call that is over, and {self.crossing} is left to be dropped")
        elif frame.kind in (Kind.END, Kind.CREDIT, Kind.CANCEL):
            self.bucket -= 1
            if self.bucket < 0:
                raise TooManyFrames(f"{frame} is of a call that is over, and the bucket is empty")
        else:
            raise WrongHalf(f"{frame} is sent by whoever answers a call, never by whoever began it")

    # Receiving.

    def receive(self, frame: ModelFrame) -> ModelFrame | None:
        """Judge a frame: one about the connection, one of a call in flight, or one of none."""
        if self.closed:
            return None
        if frame.call_id == 0:
            return self._receive_about_connection(frame)
        began = frame.call_id & TOP_BIT == self.top_bit
        if self.end_sent and not began and self.rules.half_closed_side_drops_requests:
            # Not judged at all: these calls are forgotten here, while the peer keeps them until it reads the end.
            self.dropped_items += frame.kind == Kind.ITEM
            return None
        if frame.kind == Kind.REQUEST:
            return self._receive_request(frame)
        call = self.calls.get(frame.call_id)
        if call is not None:
            return self._receive_of_call(call, frame)
        if not began:
            self._drop_crossing(frame)
            return None
        # A caller knows no more of a call that is over than of one that never was. So whatever comes is one answer too
        # many, be it a CANCEL, which nobody sends to the side that began a call.
        self.stray += 1
        self.dropped_items += frame.kind == Kind.ITEM
        if self.stray > self.scale.max_stray:
            raise StrayAnswers(f"{frame} answers a call that is not in flight")
        return None

    def _receive_about_connection(self, frame: ModelFrame) -> ModelFrame:
        if frame.kind == Kind.GOAWAY:
            self.goaway_received = True
            if not self.rules.goaway_keeps_ids_in_flight:
                for call_id in [each for each, call in self.calls.items() if call.part is CallPart.BEGAN]:
                    if self.lies_behind(call_id, frame.last):
                        del self.calls[call_id]
        elif frame.kind == Kind.CREDIT:
            self.one_way_to_send += frame.credit.items
            if self.one_way_to_send > MAX_CREDIT:
                raise CreditOverflow(f"{frame} lets the one-way credit grow to {self.one_way_to_send}")
        elif frame.kind == END_OF_INPUT:
            self.end_received = True
            if self.rules.half_close_loses_own_calls:
                self._forget(CallPart.BEGAN)
        else:
            assert frame.kind == FINAL
            self.lose()
        return frame

    def _receive_request(self, frame: ModelFrame) -> ModelFrame | None:
        """Accept a call or refuse it, in the order of refusals: id, draining, caps, whatever else is wrong with it."""
        low = frame.call_id & ~TOP_BIT
        if frame.call_id & TOP_BIT == self.top_bit or not self._is_ahead(low, self.last_received):
            raise WrongCallId(f"{frame} is not ahead of {self.last_received}, or not its sender's to begin")
        if frame.call_id in self.calls:
            raise WrongCallId(f"{frame} names a call that is in flight")
        self.last_received = low
        if Flag.ONE_WAY in frame.flags:
            return self._receive_one_way(frame)
        refusal = frame.reason
        if self.goaway_sent:
            refusal = "SHUTTING_DOWN"
        elif self._counted() >= self.scale.max_calls:
            refusal = "TOO_MANY_CALLS"
        if refusal:
            self._refuse(frame, refusal)
            return None
        self._new_call(frame.call_id, CallPart.ANSWERS, frame.flags, frame.credit)
        return frame

    def _receive_one_way(self, frame: ModelFrame) -> ModelFrame | None:
        """It is over at once; the program drops one that it would refuse, and counts its credit as used."""
        if self.goaway_sent:
            return None
        if not self.one_way_to_come:
            raise CreditExceeded(f"{frame} has no one-way credit")
        self.one_way_to_come -= 1
        return frame

    def _counted(self) -> int:
        """The calls that count against ``max_calls``: those between their REQUEST and their terminal frame."""
        counted = self.calls_in_flight(CallPart.ANSWERS)
        if not self.rules.running_handlers_are_counted_apart:
            counted += self.held
        if not self.rules.one_way_is_no_call_in_flight:
            counted += self.scale.one_way - self.one_way_to_come
        return counted

    def _refuse(self, frame: ModelFrame, reason: str) -> None:
        """A refused REQUEST is a call that ends at once: its ITEMs may be under way already."""
        if not self.rules.draining_side_answers and self.goaway_sent:
            return
        self._refill()
        if Flag.ITEMS_FOLLOW in frame.flags and self.rules.room_for_refused:
            self._let_cross(HalfCredit(*self.scale.first))
        self._send(ModelFrame(Kind.ERROR, frame.call_id, reason=reason))

    def _receive_of_call(self, call: ModelCall, frame: ModelFrame) -> ModelFrame | None:
        before = call.state
        if self._step(call, Direction.RECEIVE, frame.kind) is None:
            raise WrongHalf(f"{frame} came to {call}")
        if call.state is CallState.OVER:
            del self.calls[call.call_id]
        elif frame.kind == Kind.ITEM:
            if not call.to_come.some or (
                frame.size > call.to_come.bytes and not self.rules.receiver_lets_bytes_overrun
            ):
                raise CreditExceeded(f"{frame} came with {call.to_come}")
            call.to_come.spend(frame.size)
            if before is CallState.CANCELLED:
                self.dropped_items += 1
                return None
        elif frame.kind == Kind.CREDIT:
            call.to_send.grow(frame.credit)
            if max(call.to_send.items, call.to_send.bytes) > MAX_CREDIT:
                raise CreditOverflow(f"{frame} lets the credit of a half grow to {call.to_send}")
        return frame
