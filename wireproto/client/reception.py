"""Who receives: callers in turns, and the keeper while no caller waits.

There is no reader thread. Of the callers that wait on a link, one leads: it receives, feeds what comes to the link,
which wakes whoever it is for, and on leaving gives the lead to another one that waits. So a quick call costs one send
and one receive and wakes no thread, and no two threads ever receive at once.

    led   who receives
    no    the keeper: at once while futures wait for answers or the server may call, else after a moment of quiet
    yes   the leader, without the lock; whoever else waits is parked, asleep on a gate of its own
"""

import abc
import math
import select
import socket
import threading
from _thread import LockType, allocate_lock
from threading import TIMEOUT_MAX

from wireproto.client.calls import Waiter
from wireproto.client.keeper import Keeper
from wireproto.client.output import Output
from wireproto.poller import READ, WRITE

__all__ = ["CHUNK", "LOOK", "POLL_MAX", "QUIET", "Reception"]

QUIET = 0.1
"""Seconds without a frame after which the keeper reads for a link that nobody waits on."""
LOOK = 1.0
"""Seconds between two looks at the clocks of a link in use."""

CHUNK = 120 * 1024
"""Bytes to receive at once; the size has the reasons of ``Limits.turn_bytes``."""
POLL_MAX = 0x7FFF_FFFF
"""Milliseconds that poll takes at the most."""


class Reception(abc.ABC):
    """The half of a link that waits and receives.

    A method whose name ends in ``_locked`` wants the lock held; the others take it themselves, wait for something, or
    need none.

    Args:
        sock: connected, in blocking mode; closed here, by the leader or when nobody leads.
        peer: the address, for messages.
        keeper: receives while no caller does, and writes what was left behind.

    Attributes:
        peer: as given.
        descriptor: the socket's.
        due: when the keeper is to look at the link's clocks.
    """

    def __init__(self, sock: socket.socket, peer: str, keeper: Keeper) -> None:
        self.peer = peer
        self.descriptor = sock.fileno()
        self.due = keeper.clock() + QUIET
        self._lock = threading.Lock()
        self._sock = sock
        self._keeper = keeper
        self._clock = keeper.clock
        self._output = Output(sock)
        self._ended = False
        self._problem = ""  # what receiving or sending met

        self._led = False
        self._leader: Waiter | None = None  # what the one who leads waits for
        self._blind = True  # the leader waits for input only
        self._parked: dict[Waiter, None] = {}
        self._poll = select.poll()  # the leader's
        self._poll_mask = 0
        self._interest = 0  # what the keeper watches for
        self._attended = False  # the keeper reads although no future waits
        self._futures = 0  # calls in flight whose answers go to futures
        self._serves = False  # the server may begin calls, so that the keeper reads whenever no caller does

    @abc.abstractmethod
    def _feed_locked(self, data: bytes | None) -> None:
        """Take in what was received (b"" at the end of input, None for nothing) and write what can be written."""

    @abc.abstractmethod
    def _fed_locked(self) -> None:
        """The keeper has received: look at the clocks in time for what began with that."""

    @abc.abstractmethod
    def _end_locked(self, why: str) -> None:
        """Be over: wake every waiter, then ``_close_locked``. Does nothing the second time."""

    def end(self, why: str) -> None:
        """Close the connection now. Calls in flight fail with ``why``, a clause that says what happened."""
        with self._lock:
            self._end_locked(why)

    def hang_up(self) -> None:
        """End the connection without taking the lock; who receives finds its end, the keeper at the latest."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is over already

    def forget(self) -> None:
        """Let go of the connection without a word to anybody, in a child of the process whose link this is.

        Only the descriptor is closed: ``shutdown`` would end the connection for the parent as well. No lock is taken,
        for whoever held it is not there any more; no other thread is, either.
        """
        self._lock = threading.Lock()
        self._ended = True
        self.due = math.inf
        self._sock.close()

    # Callers.

    def wait(self, waiter: Waiter, deadline: float | None) -> None:
        """Wait until ``waiter`` is done or the time is up."""
        with self._lock:
            if waiter.done:
                return
            gate = self._enter_locked(waiter)
        self._await(waiter, gate, deadline)

    def _enter_locked(self, waiter: Waiter) -> LockType | None:
        """Take the lead, or park. Returns the gate to sleep on; None for the lead."""
        if self._led:
            gate = allocate_lock()
            gate.acquire()
            waiter.gate = gate
            self._parked[waiter] = None
            return gate
        self._led = True
        self._leader = waiter
        self._blind = not self._output.waiting
        if self._interest:
            if self._attended:
                self._attended = False
                self._look_by_locked(self._clock() + QUIET)
            self._rewatch_locked()
        return None

    def _await(self, waiter: Waiter, gate: LockType | None, deadline: float | None) -> None:
        """Wait as ``_enter_locked`` decided."""
        if gate is None:
            self._lead(waiter, deadline)
        else:
            self._follow(waiter, gate, deadline)

    def _follow(self, waiter: Waiter, gate: LockType, deadline: float | None) -> None:
        """Sleep until woken: because ``waiter`` is done, or to take the lead."""
        try:
            if deadline is None or deadline == math.inf:
                woken = gate.acquire()
            else:
                woken = gate.acquire(timeout=min(max(0.0, deadline - self._clock()), TIMEOUT_MAX))
        except BaseException:
            with self._lock:
                self._unpark_locked(waiter)
            raise
        if not woken:
            with self._lock:
                self._unpark_locked(waiter)
        elif waiter.leads:
            waiter.leads = False
            self._lead(waiter, deadline)

    def _unpark_locked(self, waiter: Waiter) -> None:
        """Stop waiting; a lead that was given in this very moment goes on to the next one."""
        if waiter.gate is not None:
            waiter.gate = None
            del self._parked[waiter]
        elif waiter.leads:
            waiter.leads = False
            self._leave_locked()

    def _wake_locked(self, waiter: Waiter) -> None:
        """There is something for ``waiter`` to look at."""
        waiter.done = True
        gate = waiter.gate
        if gate is not None:
            waiter.gate = None
            del self._parked[waiter]
            gate.release()

    def _lead(self, waiter: Waiter, deadline: float | None) -> None:
        """Receive for everybody, until ``waiter`` is done or the time is up."""
        leads, receiving, over = True, False, waiter.done
        try:
            while not over:
                receiving = False
                if deadline is None and self._blind:
                    receiving = True
                    data = self._receive(0)
                else:
                    self._sleep(deadline)
                    receiving = True
                    data = self._receive(socket.MSG_DONTWAIT)
                with self._lock:
                    self._feed_locked(data)
                    over = waiter.done or (deadline is not None and self._clock() >= deadline)
                    if over:
                        leads = False
                        self._leave_locked()
                        return
                    self._blind = not self._output.waiting
        finally:
            if leads:
                with self._lock:
                    if receiving:
                        # A signal handler raised. Bytes that were just received may have gone with it, and a stream
                        # of bytes with a hole in it is of no use. While asleep there were none.
                        self._end_locked("receiving was interrupted")
                    self._leave_locked()

    def _leave_locked(self) -> None:
        """Give the lead to a parked thread, or to nobody."""
        if self._parked:
            # The one that came last: its answer is likely to be the last one, too, so the lead changes least.
            waiter, _ = self._parked.popitem()
            gate = waiter.gate
            assert gate is not None
            waiter.gate = None
            waiter.leads = True
            self._leader = waiter
            self._blind = not self._output.waiting
            gate.release()
            return
        self._led = False
        self._leader = None
        if self._ended:
            self._sock.close()
        elif self._futures or self._serves or self._output.waiting or not self._output.writable:
            self._rewatch_locked()

    def _give_up_lead(self, waiter: Waiter | None) -> None:
        """Pass on the lead of a thread that a signal handler took out of its wait for ``waiter``, wherever it was."""
        with self._lock:
            if waiter is None:
                return
            if self._leader is waiter:
                self._end_locked("receiving was interrupted")
                self._leave_locked()
            else:
                self._unpark_locked(waiter)

    def _sleep(self, deadline: float | None) -> None:
        """Wait, as the leader, for input, for room if output waits, or for the time to pass."""
        # By what ``_blind`` said when the lock was let go, and not by what waits now: a thread that left output behind
        # since then has told the keeper.
        mask = select.POLLIN if self._blind else select.POLLIN | select.POLLOUT
        if mask != self._poll_mask:
            self._poll.register(self.descriptor, mask)
            self._poll_mask = mask
        if deadline is None or deadline == math.inf:
            self._poll.poll()
        else:
            left = math.ceil((deadline - self._clock()) * 1000)
            self._poll.poll(0 if left < 0 else left if left < POLL_MAX else POLL_MAX)

    def _receive(self, flags: int) -> bytes | None:
        """Bytes, b"" at the end of input, None when there is nothing.

        By the leader, who may sleep in it, without the lock; by the keeper, who must not, with it.
        """
        try:
            return self._sock.recv(CHUNK, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            self._problem = self._problem or f"receiving failed: {error.strerror}"
            return b""

    def _close_locked(self) -> None:
        """The last act of ``_end_locked``."""
        self._rewatch_locked()
        self._keeper.discard(self)
        if self._led:
            # The leader is in recv or on its way there, and closes when it leaves. If it was closed here, the leader
            # could find somebody else's socket under the same descriptor.
            self.hang_up()
        else:
            self._sock.close()

    # The keeper, on its thread.

    def attend(self, writable: int, readable: int) -> None:
        """Write and read as epoll said; when a caller leads by now, reading is the caller's."""
        with self._lock:
            if not self._ended and (writable or not self._led):
                self._feed_locked(self._receive(socket.MSG_DONTWAIT) if readable and not self._led else None)
                self._fed_locked()
                self._rewatch_locked()

    @abc.abstractmethod
    def tend(self) -> None:
        """Look at the clocks; set ``due`` to when that is to be done again."""

    def _look_by_locked(self, when: float) -> None:
        if when < self.due:
            self.due = when
            self._keeper.soon(when)

    def _rewatch_locked(self) -> None:
        """Tell the keeper what to watch for; always worked out from the state, under the lock."""
        interest = 0
        if not self._ended:
            output = self._output
            if output.waiting and output.writable and (self._blind or not self._led):
                interest = WRITE
            if not self._led and (self._futures or self._attended or self._serves or not output.writable):
                interest |= READ
        if interest != self._interest:
            self._keeper.watch(self, self._interest, interest)
            self._interest = interest
