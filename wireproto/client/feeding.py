"""The items that a link sends, and its one-way calls: both wait for credit of the server's, and for room in the output.

An item is sent by the thread of the caller that has it, and only once it may be: nothing is queued here that has no
credit, and nothing behind output that the kernel does not take.
"""

import abc
import math
import socket
from _thread import LockType
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from wireproto.binding import Dialect
from wireproto.client.calls import ClientCall, DuplexCall, ItemCall, StreamCall, UploadCall, Waiter, timed_out
from wireproto.client.keeper import Keeper
from wireproto.client.queue import CallQueue
from wireproto.client.reception import LOOK
from wireproto.client.sending import HEARTBEAT, Sending, item_too_large, too_large
from wireproto.errors import BothFull, CallError
from wireproto.limits import Limits
from wireproto.status import Retry
from wireproto.wire.connection import Connection, PayloadTooLarge
from wireproto.wire.frame import NO_CREDIT, Credit, Flag
from wireproto.wire.packing import Payload

__all__ = ["Feeding"]


class Feeding(Sending):
    """The half of a link that sends the items of calls, and one-way calls.

    A method whose name ends in ``_locked`` wants the lock held; the others take it themselves, or wait for something.

    Args:
        sock, peer, keeper, connection, dialect, limits, queue: as for ``Sending``.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        keeper: Keeper,
        connection: Connection,
        dialect: Dialect,
        limits: Limits,
        queue: CallQueue,
    ) -> None:
        super().__init__(sock, peer, keeper, connection, dialect, limits, queue)
        self._held_up: dict[Waiter, None] = {}  # those who may send once the kernel has taken what waits
        self._turns: deque[Waiter] = deque()  # of one-way calls without credit, in the order in which they came
        self._posted = False  # a one-way call was sent: whether it came is not known before the server's end

    @abc.abstractmethod
    def _expire_locked(self, call: ClientCall) -> None:
        """Fail a call whose time is up and tell the server, unless it is done."""

    # Items.

    def wait_to_send(self, call: UploadCall, deadline: float | None) -> Credit:
        """Wait until an item of an upload may be sent, and say how many; none when the call is over.

        At the deadline it is.
        """
        while True:
            with self._lock:
                if not self._goes_on_locked(call, deadline):
                    return NO_CREDIT
                credit = self._allowance_locked(call, call)
                if credit.items:
                    return credit
                call.done = False
                gate = self._enter_locked(call)
            self._await_asleep(call, gate, deadline)

    def wait_for_answer(self, call: UploadCall, deadline: float | None) -> None:
        """Wait until an upload that is complete is over. At the deadline it is."""
        while True:
            with self._lock:
                if not self._goes_on_locked(call, deadline):
                    return
                call.done = False
                gate = self._enter_locked(call)
            self._await_asleep(call, gate, deadline)

    def wait_for_either(self, call: DuplexCall, deadline: float | None) -> Credit:
        """Wait until a duplex call has an item, or is over, or an item of it may be sent.

        Returns:
            How many items may be sent; none if something else happened, or the time was up before.
        """
        while True:
            with self._lock:
                if call.items or call.over:
                    return NO_CREDIT
                credit = self._allowance_locked(call, call)
                if credit.items or (deadline is not None and self._clock() >= deadline):
                    return credit
                call.done = False
                gate = self._enter_locked(call)
            self._await_asleep(call, gate, deadline)

    def wait_for_sending(
        self, call: DuplexCall, sender: Waiter, deadline: float | None, nobody_reads: Callable[[], bool]
    ) -> bool:
        """Wait until an item of a duplex call may be sent; False when it is over, or the time was up before.

        Args:
            call: of a thread that sends and does not iterate meanwhile.
            sender: the call's.
            deadline: point in time by ``time.monotonic``; None for none.
            nobody_reads: whether no thread takes the items that have come, so that none of them makes room for more.

        Raises:
            BothFull: there is no credit, and there will be none before somebody reads.
        """
        while True:
            with self._lock:
                if call.over:
                    return False
                if self._allowance_locked(call, sender).items:
                    return True
                until = deadline
                if not self._connection.may_send_item(call.call_id):
                    out = self._connection.credit_out(call.call_id)
                    if min(out) < 1:
                        if nobody_reads():
                            raise BothFull(
                                "the server takes no more items before it may answer more, and all answers that it may "
                                f"send ({len(call.items)}) are here unread: read some before you send more"
                            )
                        # The thread that reads may end without reading on, and nobody is told when a thread ends.
                        look = self._clock() + LOOK
                        until = look if deadline is None else min(deadline, look)
                if deadline is not None and self._clock() >= deadline:
                    return False
                sender.done = False
                gate = self._enter_locked(sender)
            self._await_asleep(sender, gate, until)

    def send_items(self, call: ItemCall, payloads: Sequence[Payload], last: bool) -> bool:
        """Send items that may be sent, in one write, and END behind them if they are the last.

        What the server has said meanwhile is taken in, if nobody else receives: an answer that came early ends the
        call, and credit lets it go on without a wait.

        Returns:
            False when the call is over, or nothing more is sent over this link: then nothing was.

        Raises:
            CallError: the server does not accept an item so large. Those before it were sent.
        """
        with self._lock:
            if self._calls.get(call.call_id) is not call or self._output.finished:
                return False
            connection = self._connection
            try:
                for payload in payloads:
                    connection.send_item(call.call_id, payload)
                if last:
                    connection.send_end(call.call_id)
            except PayloadTooLarge as error:
                raise item_too_large(error) from None
            finally:
                self._transmit_locked()
            self._look_locked()
        return True

    def _goes_on_locked(self, call: UploadCall, deadline: float | None) -> bool:
        """Whether a call is in flight; it is over at its deadline."""
        if deadline is not None and self._clock() >= deadline:
            self._expire_locked(call)
        return self._calls.get(call.call_id) is call

    def _allowance_locked(self, call: ItemCall, waiter: Waiter) -> Credit:
        """What may be sent of a call now. If it is the kernel that takes nothing, ``waiter`` is woken when it does."""
        if self._output.finished or not self._connection.may_send_item(call.call_id):
            return NO_CREDIT
        if self._crowded_locked(waiter):
            return NO_CREDIT
        return Credit(*self._connection.credit(call.call_id))

    def _crowded_locked(self, waiter: Waiter) -> bool:
        """Whether so much waits for the kernel that nothing is queued behind it; ``waiter`` is woken when that is over.

        Half-way to what stops requests: there is always room for a request, however many items are sent.
        """
        if len(self._output.waiting) < self._limits.low_watermark:
            return False
        self._held_up[waiter] = None
        return True

    def _flush_locked(self) -> None:
        """Send more of what waits, and let those go on who wait for that."""
        output = self._output
        output.flush()
        if self._held_up and len(output.waiting) < self._limits.low_watermark:
            held_up = list(self._held_up)
            self._held_up.clear()
            for waiter in held_up:
                self._wake_locked(waiter)

    def _received_locked(self, call: StreamCall) -> None:
        """Items of a call have come: wake who reads, and who sends if that may now be in vain."""
        self._wake_locked(call)
        sender = call.sender if type(call) is DuplexCall else None
        if sender is not None and min(self._connection.credit_out(call.call_id)) < 1:
            self._wake_locked(sender)

    def _look_locked(self) -> None:
        """Take in what has come by now, unless another thread receives."""
        if self._led or self._ended:
            return
        try:
            data = self._receive(socket.MSG_DONTWAIT)
            if data is not None:
                self._feed_locked(data)
        except BaseException:
            self._end_locked("receiving was interrupted")  # by a signal handler that raised: bytes may be lost
            raise

    def _await_asleep(self, waiter: Waiter, gate: LockType | None, deadline: float | None) -> None:
        """Wait as ``_enter_locked`` decided, and never in a plain recv: whoever waits for hours may then be interrupted
        without harm to the link.
        """
        try:
            self._await(waiter, gate, math.inf if deadline is None else deadline)
        except BaseException:
            self._give_up_lead(waiter)
            raise

    # One-way calls.

    def post(self, opcode: int, payload: Payload, metadata: bytes, deadline: float | None) -> CallError | None:
        """Send the request of a one-way call, once there is credit for it: first come, first served.

        Returns:
            Why it could not be sent; None when it was.

        Raises:
            CallError: the server does not accept a request so large; nothing was sent.
        """
        turn: Waiter | None = None
        try:
            while True:
                with self._lock:
                    if not self.usable:
                        return self._lost_locked(Retry.NOT_PROCESSED)
                    if turn is None:
                        turn = Waiter()
                        self._turns.append(turn)
                    if self._is_turn_locked(turn):
                        self._post_locked(opcode, payload, metadata)
                        # Together with the credit: else whoever comes in between counts a turn that has none.
                        self._turns.remove(turn)
                        return None
                    if deadline is not None and self._clock() >= deadline:
                        return timed_out("the server took no more one-way calls in time", Retry.NOT_PROCESSED)
                    turn.done = False
                    gate = self._enter_locked(turn)
                self._await_asleep(turn, gate, deadline)
        finally:
            if turn is not None:
                with self._lock:
                    if turn in self._turns:  # it was given up
                        self._turns.remove(turn)
                        self._call_up_locked(received=False)

    def _is_turn_locked(self, turn: Waiter) -> bool:
        credit = self._connection.one_way_credit
        return credit > 0 and turn in islice(self._turns, credit) and not self._crowded_locked(turn)

    def _post_locked(self, opcode: int, payload: Payload, metadata: bytes) -> None:
        try:
            self._connection.send_flagged_request(Flag.ONE_WAY, opcode, payload, metadata)
        except PayloadTooLarge as error:
            raise too_large(error) from None
        self._posted = True
        self._transmit_locked()

    def _call_up_locked(self, *, received: bool) -> None:
        """Wake those whose turn it is.

        Args:
            received: by the thread that received. If it waits itself, it looks at its turn when it is back.
        """
        for turn in islice(self._turns, self._connection.one_way_credit):
            # One that leads sleeps on the socket, and nothing need ever come. A PONG comes.
            unheard = turn is self._leader and not received and not turn.done and self.usable
            self._wake_locked(turn)
            if unheard:
                self._connection.send_ping(HEARTBEAT)
                self._transmit_locked()

    def _dismiss_locked(self) -> None:
        """The link takes no calls any more: there are no turns, as those see who wait for one."""
        for turn in self._turns:
            self._wake_locked(turn)
