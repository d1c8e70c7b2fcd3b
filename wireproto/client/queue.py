"""The calls that ``start`` began and that have no place yet: no connection is open, or all its places are taken.

They belong to the client and not to a link, so they outlive a connection: the next link takes them. A link takes them
in the order in which they came, and among the callers that wait for a place, in the order in which those came.
"""

import math
import threading
from collections import deque
from collections.abc import Callable
from itertools import count

from wireproto.address import Address
from wireproto.client.calls import FutureCall, timed_out
from wireproto.client.keeper import Keeper, attempt
from wireproto.errors import CallError
from wireproto.reasons import failure
from wireproto.status import Retry

__all__ = ["CallQueue"]


class CallQueue:
    """A bounded queue. Thread-safe; its lock comes after a link's and before the keeper's.

    Args:
        most: calls that wait at a time; further ones fail at once.
        address: of the server, for the log.
        keeper: ends calls whose time is up while they wait.

    Attributes:
        calls: those that wait, the oldest first; others look whether there are any, without the lock.
        tickets: numbers for whoever begins to wait, in this order.
        due: when the keeper is to look at the deadlines.
        descriptor: in place of a socket's; below 0 and nobody else's.
    """

    def __init__(self, most: int, address: Address, keeper: Keeper) -> None:
        self.calls: deque[FutureCall] = deque()
        self.tickets = count()
        self.due = math.inf
        self.descriptor = -id(self)
        self._address = address
        self._most = most
        self._keeper = keeper
        self._kept = False  # the keeper knows of it, because there were calls with a deadline
        self._lock = threading.Lock()

    def put(self, call: FutureCall) -> bool:
        """Have ``call`` wait; False, and ``call`` has failed, if too many do."""
        with self._lock:
            if len(self.calls) < self._most:
                call.ticket = next(self.tickets)
                self.calls.append(call)
                if call.deadline < self.due:
                    self.due = call.deadline
                    if self._kept:
                        self._keeper.soon(call.deadline)
                    else:
                        self._kept = True
                        self._keeper.add(self)
                return True
        call.fail(
            failure(
                "TOO_MANY_CALLS",
                f"{self._most} calls wait for a connection or a place already (Limits.start_queue); "
                "let some of them end before you start more",
            )
        )
        return False

    def take(self, begin: Callable[[FutureCall], None]) -> None:
        """Give the oldest call, if there is one, to ``begin``, which runs under the lock."""
        with self._lock:
            if self.calls:
                begin(self.calls.popleft())

    def cancel(self, call: FutureCall) -> bool:
        """Take ``call`` out; False when it does not wait here."""
        with self._lock:
            try:
                self.calls.remove(call)
            except ValueError:
                return False
            return True

    def fail(self, why: Callable[[], CallError], *, patient: bool) -> None:
        """Fail the calls that wait, each with an error of its own, on the keeper's thread.

        Args:
            why: makes an error.
            patient: also those that are to wait for as long as it takes.
        """
        with self._lock:
            failed = [call for call in self.calls if patient or not call.wait]
            if len(failed) == len(self.calls):
                self.calls.clear()
            else:
                kept = [call for call in self.calls if call.wait]
                self.calls.clear()
                self.calls.extend(kept)
            if failed:
                self._fail_locked(failed, why)

    def close(self, why: Callable[[], CallError]) -> None:
        """Fail all calls, and leave the keeper."""
        with self._lock:
            calls = list(self.calls)
            self.calls.clear()
            if calls:
                self._fail_locked(calls, why)
            self._leave_locked()

    def _fail_locked(self, calls: list[FutureCall], why: Callable[[], CallError]) -> None:
        """Complete the futures on the keeper's thread: callbacks must run without a lock, and hold up no caller."""
        for call in calls:
            call.error = why()

        def complete() -> None:
            for call in calls:
                attempt(call.complete)

        self._keeper.run(complete)

    def _leave_locked(self) -> None:
        self.due = math.inf
        if self._kept:
            self._kept = False
            self._keeper.discard(self)

    # The keeper's.

    @property
    def peer(self) -> str:
        """The address, for the log."""
        return str(self._address)

    def attend(self, writable: int, readable: int) -> None:
        """Nothing: there is no socket."""

    def tend(self) -> None:
        """End the calls whose time is up."""
        with self._lock:
            now = self._keeper.clock()
            late = [call for call in self.calls if call.deadline <= now]
            if late:
                kept = [call for call in self.calls if call.deadline > now]
                self.calls.clear()
                self.calls.extend(kept)
                self._fail_locked(late, _late)
            self.due = min((call.deadline for call in self.calls), default=math.inf)
            if self.due == math.inf:
                self._leave_locked()

    def end(self, why: str) -> None:
        """Fail all calls: the keeper met a bug of ours."""
        self.close(lambda: failure("INTERNAL", f"{why}; the call was not processed", retry=Retry.NOT_PROCESSED))

    def forget(self) -> None:
        """Nothing: this process is a child of the one whose queue it is, and nobody serves it here."""


def _late() -> CallError:
    return timed_out("no place for the call came free in time", Retry.NOT_PROCESSED)
