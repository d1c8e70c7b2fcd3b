"""What runs above a side: callers that begin calls, and handlers that answer those of the other side.

Whatever a program does is one method, called by whoever drives the exchange; it returns whether there was anything to
do. ``at`` picks one of the calls for which there is, so that any number will do.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.properties.wire_model.frames import Amount, CallShape, ModelFrame
from tests.properties.wire_model.rules import Rules, Scale
from tests.properties.wire_model.sides import WireSide
from wireproto.wire.frame import Flag, Kind
from wireproto.wire.state import END_OF_INPUT, FINAL

ITEMS_PER_HALF = 50
"""An ITEM's number is its call's times twice this, the half of the call, and its place there."""


@dataclass
class IncomingHalf:
    """The half of a call that a program receives: what came, and the credit that is to return for it."""

    window: Amount
    owed_items: int
    owed_bytes: int
    waiting: deque[ModelFrame] = field(default_factory=deque)
    taken: list[int] = field(default_factory=list)

    def owe(self, frame: ModelFrame) -> None:
        """The credit of an ITEM is to return."""
        self.owed_items += 1
        self.owed_bytes += frame.size

    @property
    def owes_half(self) -> bool:
        """Whether half the window, of items or of bytes, is to return."""
        return self.owed_items * 2 >= self.window.items or self.owed_bytes * 2 >= self.window.bytes


@dataclass
class ProgramCall:
    """What a program knows of one call that it began or answers.

    Attributes:
        shape: of the call.
        number: of its REQUEST.
        call_id: names it only while it is not ``over``.
        to_send: sizes of the ITEMs of our half that are still to be sent.
        incoming: the other half.
        sent: numbers of the ITEMs that were sent.
        request_ended: the caller's END was sent, or read.
        over: the terminal frame was sent or received, or the connection has ended.
        outcome: what a caller was told; empty until then.
        began: a handler was given the call.
        cancelled: CANCEL was read.
        answered_early: the handler answered before it had taken all ITEMs, or sent all of its own.
        last_reason: of an ERROR that waits until a handler that runs on has returned; empty if none waits.
    """

    shape: CallShape
    number: int
    call_id: int
    to_send: deque[int]
    incoming: IncomingHalf
    sent: list[int] = field(default_factory=list)
    request_ended: bool = False
    over: bool = False
    outcome: str = ""
    began: bool = False
    cancelled: bool = False
    answered_early: bool = False
    last_reason: str = ""

    @property
    def items_follow(self) -> bool:
        """Whether the request half carries ITEMs."""
        return Flag.ITEMS_FOLLOW in self.shape.value

    @property
    def items_come_back(self) -> bool:
        """Whether the answer half carries ITEMs."""
        return Flag.ITEMS_COME_BACK in self.shape.value


def planned_sizes(number: int, max_size: int) -> list[int]:
    """How long the ITEMs are that one half of this call will carry: none to four of them, and forty of some calls."""
    count = 40 if number % 3 == 0 else number % 5
    return [(number * 7 + at * 5) % max_size + 1 for at in range(count)]


class ModelProgram:
    """The callers and the handlers of one side.

    Attributes:
        began: all calls that it began, one-way ones not among them.
        answers: all calls that it was given to answer, by their number.
        posted: numbers of the one-way calls that it began.
        ran: numbers of the one-way calls whose handler has returned.
        dropped: numbers of the one-way calls that were refused, or whose time was up before they began.
        running_on: handlers that run on behind their terminal frame.
        discarded: ITEMs that came, and that nobody wanted any more.
    """

    def __init__(self, side: WireSide, scale: Scale, rules: Rules, first_number: int) -> None:
        self.side = side
        self.began: list[ProgramCall] = []
        self.answers: dict[int, ProgramCall] = {}
        self.posted: list[int] = []
        self.ran: list[int] = []
        self.dropped: list[int] = []
        self.running_on = 0
        self.discarded = 0
        self.told_goaway = self.sent_goaway = self.half_closed = self.peer_half_closed = self.ended = False
        self._scale = scale
        self._rules = rules
        self._next_number = first_number
        self._own: list[ProgramCall] = []  # in flight, or with items that nobody has taken yet
        self._own_by_id: dict[int, ProgramCall] = {}
        self._served: dict[int, ProgramCall] = {}
        self._waiting: deque[ProgramCall] = deque()  # for a handler to return
        self._posts: deque[int] = deque()  # one-way calls whose handler has not returned
        self._one_way_owed = 0

    # Callers.

    def begin(self, shape: CallShape, first: Amount, refusal: str) -> bool:
        """Begin a call; its answer half has this first credit, within the window."""
        number = self._next_number
        if not (shape.value & Flag.ITEMS_COME_BACK):
            first = Amount()
        call_id = self.side.begin(shape, number, first, refusal)
        if call_id is None:
            return False
        self._next_number += 1
        if shape is CallShape.ONE_WAY:
            self.posted.append(number)
            return True
        call = self._new_call(shape, number, call_id, first)
        if not call.items_follow:
            call.to_send.clear()
        self.began.append(call)
        self._own.append(call)
        self._own_by_id[call_id] = call
        if call.items_come_back and self._rules.grants_first_credit:
            self._return_credit(call)
        return True

    def _new_call(self, shape: CallShape, number: int, call_id: int, first: Amount) -> ProgramCall:
        window = self._scale.window
        incoming = IncomingHalf(window, window.items - first.items, window.bytes - first.bytes)
        return ProgramCall(shape, number, call_id, deque(planned_sizes(number, self._scale.max_size)), incoming)

    def send_item(self, at: int) -> bool:
        """A caller sends its next ITEM, if the call has credit."""
        call = pick((call for call in self._own if call.to_send and not call.over and not call.outcome), at)
        return call is not None and self._send_item(call, 0)

    def _send_item(self, call: ProgramCall, half: int) -> bool:
        number = (call.number * 2 + half) * ITEMS_PER_HALF + len(call.sent)
        if not self.side.send_item(call.call_id, number, call.to_send[0]):
            return False
        call.to_send.popleft()
        call.sent.append(number)
        return True

    def send_end(self, at: int) -> bool:
        """A caller has sent all its ITEMs."""
        ready = (
            call
            for call in self._own
            if call.items_follow and not (call.to_send or call.request_ended or call.over or call.outcome)
        )
        call = pick(ready, at)
        if call is None or not self.side.send_end(call.call_id):
            return False
        call.request_ended = True
        return True

    def cancel(self, at: int) -> bool:
        """A caller no longer wants its answer."""
        return self._give_up(at, "CANCELLED")

    def miss_deadline(self, at: int) -> bool:
        """A caller's time is up."""
        return self._give_up(at, "DEADLINE")

    def _give_up(self, at: int, outcome: str) -> bool:
        call = pick((call for call in self._own if not call.over and not call.outcome), at)
        if call is None:
            return False
        # A side that has half-closed cannot say so: its caller is told, and the call goes on to its terminal frame.
        if self.side.send_cancel(call.call_id):
            self._assert_silent(call)
        call.outcome = outcome
        self._discard(call)
        return True

    def _assert_silent(self, call: ProgramCall) -> None:
        """Behind CANCEL neither side has anything to say of the call but its terminal frame."""
        assert not self.side.send_item(call.call_id, 0, 1)
        assert not self.side.send_credit(call.call_id, Amount(1, 1))

    def take_answer(self, at: int) -> bool:
        """A caller takes an ITEM of its answer."""
        call = pick((call for call in self._own if call.incoming.waiting), at)
        return call is not None and self._take(call)

    def _take(self, call: ProgramCall) -> bool:
        frame = call.incoming.waiting.popleft()
        call.incoming.taken.append(frame.number)
        if self._rules.credit_returns_when_taken:
            call.incoming.owe(frame)
        if not call.over:
            self._return_credit(call)
        elif not call.incoming.waiting and call in self._own:
            self._own.remove(call)
        return True

    def _return_credit(self, call: ProgramCall) -> None:
        half = call.incoming
        due = half.owes_half if self._rules.credit_waits_for_half_the_window else half.owed_items or half.owed_bytes
        if due and self.side.send_credit(call.call_id, Amount(half.owed_items, half.owed_bytes)):
            half.owed_items = half.owed_bytes = 0

    def _discard(self, call: ProgramCall) -> None:
        self.discarded += len(call.incoming.waiting)
        call.incoming.waiting.clear()

    def _tell(self, call: ProgramCall, outcome: str) -> None:
        """A call of ours is over; its caller is told, unless it was told before."""
        call.over = True
        call.outcome = call.outcome or outcome
        del self._own_by_id[call.call_id]
        if not call.incoming.waiting:
            self._own.remove(call)

    # Handlers.

    def start(self, at: int) -> bool:
        """A handler is given a call."""
        call = pick((call for call in self._served.values() if not call.began), at)
        if call is None:
            return False
        call.began = True
        return True

    def take_request(self, at: int) -> bool:
        """A handler takes an ITEM."""
        call = pick((call for call in self._at_work() if call.incoming.waiting), at)
        return call is not None and self._take(call)

    def answer_item(self, at: int) -> bool:
        """A handler sends an ITEM, if the call has credit."""
        call = pick((call for call in self._at_work() if call.items_come_back and call.to_send), at)
        return call is not None and self._send_item(call, 1) and self._ask_streams_without_credit()

    def finish(self, at: int) -> bool:
        """A handler has taken everything and sent everything."""
        done = (
            call
            for call in self._at_work()
            if (call.request_ended or not call.items_follow)
            and not call.incoming.waiting
            and not (call.items_come_back and call.to_send)
        )
        call = pick(done, at)
        return call is not None and self._answer(call)

    def answer_early(self, at: int) -> bool:
        """A handler answers before it has taken or sent everything."""
        call = pick(self._at_work(), at)
        if call is None:
            return False
        call.answered_early = True
        return self._answer(call)

    def _answer(self, call: ProgramCall) -> bool:
        answer = self.side.send_end if call.items_come_back else self.side.send_response
        if not answer(call.call_id):
            return False
        self._is_over(call)
        return True

    def fail(self, at: int) -> bool:
        """A handler raises."""
        call = pick(self._at_work(), at)
        return call is not None and self._end_with_error(call, "INTERNAL")

    def exceed_deadline(self, at: int) -> bool:
        """A call's time is up at the side that answers it."""
        call = pick((call for call in self._served.values() if not call.last_reason), at)
        if call is None:
            return False
        self._end_early(call, "DEADLINE")
        return True

    def _end_early(self, call: ProgramCall, reason: str) -> None:
        """CANCEL or a deadline: the ERROR is sent now, or waits until one of the handlers that run on has returned."""
        self._discard(call)
        full = self.running_on >= self._scale.max_calls
        if call.began and full and self._rules.terminal_frame_waits:
            # Until then the call keeps its state: its caller may still send what its credit allows, and CANCEL. Nobody
            # takes that any more, so that no credit returns for it.
            call.last_reason = reason
            self._waiting.append(call)
            return
        self._run_on_behind(call, reason)

    def _run_on_behind(self, call: ProgramCall, reason: str) -> None:
        if self._end_with_error(call, reason) and call.began:
            self.running_on += 1
            self.side.hold()

    def _end_with_error(self, call: ProgramCall, reason: str) -> bool:
        if not self.side.send_error(call.call_id, reason):
            return False
        self._is_over(call)
        return True

    def _is_over(self, call: ProgramCall) -> None:
        call.over = True
        self._discard(call)
        del self._served[call.call_id]
        if call in self._waiting:
            self._waiting.remove(call)

    def return_from_handler(self, at: int) -> bool:
        """A handler that runs on has returned, or one whose call waits for that."""
        if at % 2 and self._waiting:
            return self._end_with_error(call := self._waiting[at % len(self._waiting)], call.last_reason)
        if not self.running_on:
            return False
        self.running_on -= 1
        self.side.release()
        if self._waiting and self._rules.waiting_frame_leaves:
            call = self._waiting.popleft()
            self._run_on_behind(call, call.last_reason)
        return True

    def _at_work(self) -> list[ProgramCall]:
        return [call for call in self._served.values() if call.began and not call.last_reason]

    # One-way calls.

    def run_one_way(self, at: int) -> bool:
        """The handler of a one-way call has returned."""
        if not self._posts:
            return False
        self.ran.append(self._posts.popleft())
        self._return_one_way_credit()
        return True

    def drop_one_way(self, at: int) -> bool:
        """The time of a one-way call is up before its handler has begun."""
        if not self._posts:
            return False
        self._drop_one_way(self._posts.pop())
        return True

    def _drop_one_way(self, number: int) -> None:
        self.dropped.append(number)
        if self._rules.dropped_one_way_returns_credit:
            self._return_one_way_credit()

    def _return_one_way_credit(self) -> None:
        self._one_way_owed += 1
        if self._one_way_owed * 2 >= self._scale.one_way and self.side.send_one_way_credit(self._one_way_owed):
            self._one_way_owed = 0

    # The connection.

    def send_goaway(self, at: int) -> bool:
        """Accept no more calls."""
        self.sent_goaway |= (sent := self.side.send_goaway())
        return sent

    def end_grace(self, at: int) -> bool:
        """Behind GOAWAY the calls that are still in flight are ended."""
        if not self.sent_goaway or not self._served:
            return False
        for call in list(self._served.values()):
            self._run_on_behind(call, "SHUTTING_DOWN")
        return True

    def half_close(self) -> bool:
        """Send nothing more: the other side's calls are over here, and our own go on."""
        if not self.side.half_close():
            return False
        self.half_closed = True
        for call in list(self._served.values()):
            self._is_over(call)
        return True

    def end_connection(self) -> bool:
        """Send a final ERROR."""
        sent = self.side.end_connection()
        self._all_over()
        return sent

    def lose(self) -> None:
        """The connection is gone."""
        self.side.lose()
        self._all_over()

    def _all_over(self) -> None:
        self.ended = True
        for call in list(self._own_by_id.values()):
            self._tell(call, "MAYBE_PROCESSED")
        for call in list(self._served.values()):
            self._is_over(call)

    # Receiving.

    def receive(self, frame: ModelFrame) -> None:
        """Take one frame that has come; raises what the side raises."""
        told = self.side.receive(frame)
        if told is None:
            return
        if told.kind == Kind.REQUEST:
            self._accept(told)
        elif told.call_id == 0:
            self._receive_about_connection(told)
        elif (own := self._own_by_id.get(told.call_id)) is not None:
            self._receive_answer(own, told)
        elif (served := self._served.get(told.call_id)) is not None:
            self._receive_of_request(served, told)

    def _accept(self, frame: ModelFrame) -> None:
        if Flag.ONE_WAY in frame.flags:
            if frame.reason:
                self._drop_one_way(frame.number)
            else:
                self._posts.append(frame.number)
            return
        first = self._scale.first if Flag.ITEMS_FOLLOW in frame.flags else Amount()
        call = self._new_call(CallShape(frame.flags), frame.number, frame.call_id, first)
        self.answers[frame.number] = self._served[frame.call_id] = call
        if call.items_follow and self._rules.grants_first_credit:
            self._return_credit(call)

    def _receive_answer(self, call: ProgramCall, frame: ModelFrame) -> None:
        if frame.kind == Kind.ITEM:
            self._keep(call, frame, wanted=not call.outcome)
        elif frame.kind in (Kind.RESPONSE, Kind.END, Kind.ERROR):
            # A caller counts its calls by their terminal frames: it is never above what the other side accepts.
            assert frame.reason != "TOO_MANY_CALLS"
            self._tell(call, frame.reason or Kind(frame.kind).name)

    def _receive_of_request(self, call: ProgramCall, frame: ModelFrame) -> None:
        if frame.kind == Kind.ITEM:
            self._keep(call, frame, wanted=not call.last_reason)
        elif frame.kind == Kind.END:
            call.request_ended = True
        elif frame.kind == Kind.CANCEL:
            call.cancelled = True
            self._assert_silent(call)
            if not call.last_reason:
                self._end_early(call, "CANCELLED")

    def _keep(self, call: ProgramCall, frame: ModelFrame, *, wanted: bool) -> None:
        """An ITEM is held until somebody takes it: no call holds more than its window and one frame."""
        half = call.incoming
        half.waiting.append(frame)
        held = sum(each.size for each in half.waiting)
        assert len(half.waiting) <= half.window.items
        assert held < half.window.bytes + self._scale.max_size
        if not wanted:
            self._discard(call)
        if not self._rules.credit_returns_when_taken:
            half.owe(frame)
            self._return_credit(call)

    def _receive_about_connection(self, frame: ModelFrame) -> None:
        if frame.kind == Kind.GOAWAY:
            self.told_goaway = True
            for call in self._own_by_id.values():
                if not call.outcome and self.side.lies_behind(call.call_id, frame.last):
                    call.outcome = "NOT_PROCESSED"
        elif frame.kind == END_OF_INPUT:
            self._receive_end_of_input()
        elif frame.kind == FINAL:
            self._all_over()

    def _receive_end_of_input(self) -> None:
        """The other side has half-closed: of what it began goes on what needs nothing more from it."""
        self.peer_half_closed = True
        if self._rules.half_close_loses_own_calls:
            for call in list(self._own_by_id.values()):
                self._tell(call, "MAYBE_PROCESSED")
        for call in list(self._served.values()):
            if (
                self._rules.half_close_ends_uploads
                and call.items_follow
                and not call.request_ended
                and not call.cancelled
            ):
                self._run_on_behind(call, "CANCELLED")
        self._ask_streams_without_credit()

    def _ask_streams_without_credit(self) -> bool:
        """Behind the end of input a stream without credit is asked whether it is at its end; then it is over."""
        if self.peer_half_closed and self._rules.half_close_ends_streams_without_credit:
            for call in list(self._served.values()):
                if not call.items_come_back or call.last_reason or self.side.may_send_item(call.call_id):
                    continue
                if call.to_send or call.incoming.waiting or not self._answer(call):
                    self._end_with_error(call, "CANCELLED")
        return True

    # Until nothing is left to do.

    def go_on(self) -> bool:
        """Do everything that completes a call, without hurry; whether there was anything to do."""
        return any(
            [
                self._every(self.send_item),
                self._every(self.send_end),
                self._every(self.take_answer),
                self._every(self.start),
                self._every(self.take_request),
                self._every(self.answer_item),
                self._every(self.finish),
                self._every(self.return_from_handler),
                self._every(self.run_one_way),
            ]
        )

    def _every(self, act: Callable[[int], bool]) -> bool:
        """Once for each call there may be: one without credit must not hide the others."""
        return sum(act(at) for at in range(len(self._own) + len(self._served) + 1)) > 0

    @property
    def waits(self) -> bool:
        """Whether the end of a call waits until a handler has returned."""
        return bool(self._waiting)

    @property
    def calls_left(self) -> list[ProgramCall]:
        """Calls that are not over, in the order in which they began."""
        return [*self._own, *self._served.values()]


def pick(calls: Iterable[ProgramCall], at: int) -> ProgramCall | None:
    """One of the calls, by any number."""
    choice = list(calls)
    return choice[at % len(choice)] if choice else None
