"""What comes packed over one connection: one payload is unpacked at a time, and never by the leader.

What a stranger's bytes become while they are unpacked is bounded by what they declare, and so it is for a connection,
however many such payloads it sends. Requests wait here for the turn of theirs, so that they hold one follower together.
Items and answers are unpacked by whoever takes them, who waits until the one before is unpacked: that holds his thread
no longer than unpacking beside the others would. A handler runs beside the unpacking of the next payload.
"""

import threading
from _thread import LockType
from collections import deque

from wireproto.answering.call import Call
from wireproto.answering.pool import Pool
from wireproto.limits import Limits
from wireproto.wire.packing import Packed

__all__ = ["InTurn", "PackedCalls"]


class InTurn(Packed):
    """A payload that is unpacked while no other of its connection is.

    Args:
        payload: the same without that.
        turn: of the connection. A leaf: nothing else is taken while it is held, and none of the user's code runs.
    """

    __slots__ = ("_turn",)

    def __init__(self, payload: Packed, turn: LockType) -> None:
        super().__init__(payload.algorithm, payload.body)
        self._turn = turn

    def unpack(self) -> bytes:
        with self._turn:
            return super().unpack()


class PackedCalls:
    """Calls that wait for the turn of their request, and the turns of whatever else comes packed.

    Args:
        lock: of the connection; what ends in ``_locked`` is called with it held.
        pool: runs them.
        limits: of this side.

    Attributes:
        turn: held by whoever unpacks.
    """

    __slots__ = ("_busy", "_lock", "_most", "_pool", "_waiting", "turn")

    def __init__(self, lock: LockType, pool: Pool, limits: Limits) -> None:
        self.turn: LockType = threading.Lock()
        self._lock = lock
        self._pool = pool
        self._most = 2 * (limits.max_calls + limits.one_way_calls)
        self._waiting: deque[Call] = deque()
        self._busy = False  # the request of one of them is being unpacked, or is about to be

    def put_locked(self, call: Call) -> None:
        """A call has come whose request is packed."""
        if len(self._waiting) >= self._most:
            # Those that are over by now would pile up where handlers hold all the workers.
            self._waiting = deque(each for each in self._waiting if not each.answered)
        self._waiting.append(call)
        if not self._busy:
            self._next_locked()

    def in_turn(self, payload: Packed) -> Packed:
        """An item, or an answer, that is unpacked in its turn."""
        return InTurn(payload, self.turn)

    def unpacked(self) -> None:
        """The request of one of them was unpacked, or never will be; by whoever runs it."""
        with self._lock:
            self._next_locked()

    def _next_locked(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._pool.submit(_Turn(self, self._waiting.popleft()), always=True)  # one of each connection


class _Turn(InTurn):
    """A job for a follower, and in the place of the call's payload what tells that it was unpacked."""

    __slots__ = ("_call", "_calls")

    __eq__ = object.__eq__  # the pool looks for its jobs
    __hash__ = object.__hash__

    def __init__(self, calls: PackedCalls, call: Call) -> None:
        payload = call.payload
        assert isinstance(payload, Packed)
        super().__init__(payload, calls.turn)
        self._calls: PackedCalls | None = calls
        self._call: Call | None = call

    def run_blocking(self) -> None:
        """Run the call; called by the pool."""
        call, self._call = self._call, None
        assert call is not None
        call.payload = self
        try:
            call.run(True)
        finally:
            self._over()

    def unpack(self) -> bytes:
        try:
            return super().unpack()
        finally:
            self._over()

    def _over(self) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.unpacked()
