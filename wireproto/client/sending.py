"""The sending half of a link: places, requests, and what becomes of bytes that the kernel does not take."""

import abc
import socket
from _thread import LockType
from collections.abc import Sequence

from wireproto.binding import Dialect
from wireproto.client.calls import ClientCall, Flagged, FutureCall, Place, timed_out
from wireproto.client.keeper import Keeper
from wireproto.client.places import Places
from wireproto.client.queue import CallQueue
from wireproto.client.reception import CHUNK, LOOK, Reception
from wireproto.errors import CallError, ConnectionLost
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.status import Retry
from wireproto.wire.connection import Connection, PayloadTooLarge
from wireproto.wire.packing import Payload

__all__ = ["HEARTBEAT", "Sending", "item_too_large", "too_large"]

HEARTBEAT = bytes(8)
"""What a PING says whose PONG nobody waits for."""


class Sending(Reception):
    """The half of a link that gives calls their places and sends their requests.

    A method whose name ends in ``_locked`` wants the lock held; the others take it themselves, or wait for something.

    Args:
        sock, peer, keeper: as for ``Reception``.
        connection: open, that is, after WELCOME; used under the lock only.
        dialect: what is spoken.
        limits: of this side.
        queue: calls that take places of this link as they come free.

    Attributes:
        dialect: as given.
        usable: whether the link takes further calls; once False it stays so.
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
        super().__init__(sock, peer, keeper)
        self.dialect = dialect
        self.usable = True
        self._connection = connection
        self._limits = limits
        self._queue = queue
        self._places = Places(queue, self._room_locked)
        self._calls: dict[int, ClientCall] = {}
        self._replies = 0  # bytes of replies, of those that wait behind ``_replies_since``
        self._replies_since = 0  # a value of the output's ``taken``

    @abc.abstractmethod
    def cancel(self, call: ClientCall) -> bool:
        """Give a call up and tell the server; False when it was not in flight."""

    @abc.abstractmethod
    def _lost_locked(self, retry: Retry) -> ConnectionLost:
        """The error of a call that this link could not, or can no longer, carry."""

    @abc.abstractmethod
    def _close_to_calls_locked(self) -> None:
        """Take no further calls, and say so."""

    @abc.abstractmethod
    def _settle_locked(self, call: FutureCall) -> None:
        """Have the keeper complete a future."""

    def _submit_locked(
        self,
        call: ClientCall,
        opcode: int,
        payload: Payload,
        metadata: bytes,
        flagged: Flagged | None,
        place: Place | None,
    ) -> bool:
        """Send the request of ``call``, if there is a place for the call.

        Args:
            call: gets its id.
            opcode, payload, metadata: as for ``Connection.send_request``.
            flagged: what else it says; None for a unary call.
            place: what the caller has waited for and was granted; None as long as it has not waited.

        Returns:
            Whether the caller need not wait for a place: the request was sent, or the link takes no further calls and
            ``call`` is done, with the error that says so. False only without a ``place``.

        Raises:
            CallError: the server does not accept a request so large; nothing was sent.
        """
        places = self._places
        if place is not None:
            places.claim()
        if not self.usable:
            call.error = self._lost_locked(Retry.NOT_PROCESSED)
            call.done = True
            return True
        if place is None:
            # Those who wait for a place came earlier, so a place that is free by now is theirs.
            if places.threads or places.queued:
                return False
            # ``free`` is not raised when a call ends. Thus it may be too low and is never too high, and most calls
            # need not count anew. Output that waits may leave no room, however many places there are.
            if (places.free <= 0 or self._output.waiting) and places.full():
                return False
            places.free -= 1
        connection = self._connection
        try:
            if flagged is not None:
                call.call_id = connection.send_flagged_request(
                    flagged.flags, opcode, payload, metadata, credit=flagged.credit
                )
            else:
                call.call_id = connection.send_request(opcode, payload, metadata)
        except PayloadTooLarge as error:
            # The place was not used. Whoever is next in line would otherwise wait for an answer to make it free.
            self._grant_locked()
            raise too_large(error) from None
        # In this order: the answer cannot be received before the lock is let go, but sending may end the link, and that
        # fails the calls that it finds here.
        self._calls[call.call_id] = call
        self._transmit_locked(call)
        return True

    def _transmit_locked(self, call: ClientCall | None = None, requests: Sequence[tuple[int, ClientCall]] = ()) -> None:
        """Send what the connection has queued. What the kernel does not take waits in the output.

        Args:
            call: with whose request the queued bytes end; None if they are about no request, or about several.
            requests: the calls whose requests are among the bytes, each behind the position at which its request ends.
        """
        output = self._output
        try:
            data = self._connection.data_to_send()
            sent = output.send(data)
            if sent == len(data):
                return
            output.keep(data, sent, requests if call is None else ((len(data), call),))
        except BaseException:
            self._end_locked("sending was interrupted")  # by a signal handler that raised: a frame may be cut
            raise
        # After a write that was partial or failed: have the keeper write the rest, and run the clock of the peer that
        # takes nothing.
        if not output.writable:
            self._close_to_calls_locked()
            self._problem = self._problem or output.problem
        self._look_by_locked(self._clock() + LOOK)
        self._rewatch_locked()

    def _reply_locked(self) -> bool:
        """Send what the connection has queued by itself, because of what the server said: PONGs, and refusals.

        Whatever else is sent stops, or is bounded by what callers do, when the server takes nothing. These are not: a
        server that asks on and on, and reads a trickle, would fill the memory. So the link ends when too many bytes of
        them wait. What waits because of calls is not counted, so that no honest use comes near.

        Returns:
            Whether the link goes on.
        """
        output = self._output
        size = self._connection.bytes_pending
        self._transmit_locked()
        if output.taken >= self._replies_since:
            # All replies counted so far are gone; those from here on lie behind what waits now.
            self._replies = 0
            self._replies_since = output.taken + len(output.waiting)
        elif not output.finished:
            self._replies += size
            if self._replies > self._limits.high_watermark + CHUNK:
                self._end_locked(f"{self.peer} was given up: it asks for more than it takes answers")
                return False
        return True

    def _start_locked(self, call: FutureCall, ends: list[tuple[int, ClientCall]]) -> None:
        """Write the request of ``call`` and note in ``ends`` where it ends; without one, the call has failed."""
        connection = self._connection
        try:
            call.prepare(self.dialect)
            call.call_id = connection.send_request(call.opcode, call.request, call.metadata)
        except Exception as error:  # noqa: BLE001 - whatever a codec raises belongs to the future, and to nobody else
            call.error = too_large(error) if isinstance(error, PayloadTooLarge) else error
            self._settle_locked(call)
            return
        call.sent(self)
        self._places.free -= 1
        self._calls[call.call_id] = call
        self._futures += 1
        self._look_by_locked(call.deadline)
        ends.append((connection.bytes_pending, call))
        if not self._led:
            self._rewatch_locked()

    def _room_locked(self) -> int:
        """How many calls more there are places for, as long as there is room for their requests as well."""
        connection = self._connection
        if len(self._output.waiting) > self._limits.high_watermark:
            return 0
        return connection.their_max_calls - connection.own_calls

    def _grant_locked(self, *, received: bool = False) -> None:
        """Give free places to those who wait for one: first come, first served.

        Args:
            received: the thread that received is the one that calls. It looks at its own place when it is back.
        """
        places, connection = self._places, self._connection
        unheard = False
        ends: list[tuple[int, ClientCall]] = []
        while (places.threads or places.queued) and self.usable and not places.full():
            if places.threads_turn():
                place = places.grant()
                # One without a gate belongs to the leader, or to a thread that is about to give it up.
                unheard |= place.gate is None and not received
                self._wake_locked(place)
                continue
            self._queue.take(lambda call: self._start_locked(call, ends))
            if connection.bytes_pending > self._limits.high_watermark:
                self._transmit_locked(None, ends)
                ends.clear()
        if ends:
            self._transmit_locked(None, ends)
        if unheard and self._led:
            # The leader sleeps on the socket, and with nothing in flight nothing would ever come. A PONG comes.
            connection.send_ping(HEARTBEAT)
            self._transmit_locked()

    def _wait_for_place(self, call: ClientCall, place: Place, gate: LockType | None, deadline: float | None) -> bool:
        """Wait until ``place`` is granted. If it is not, ``call`` is done and failed."""
        granted = False
        try:
            self._await(place, gate, deadline)
            granted = place.done and place.error is None
        finally:
            if not granted:
                with self._lock:
                    if not place.done:
                        self._places.threads.remove(place)
                    elif place.error is None:  # granted to a thread that was interrupted
                        self._places.claim()
                        self._grant_locked()
        if granted:
            return True
        call.error = place.error or timed_out("no place for the call came free in time", Retry.NOT_PROCESSED)
        call.done = True
        return False


def too_large(error: PayloadTooLarge) -> CallError:
    """What a request fails with that the server's largest frame does not hold."""
    return failure(
        "REQUEST_TOO_LARGE",
        f"the request makes a frame of {error.size} bytes; the server accepts {error.limit}. Nothing was sent",
    )


def item_too_large(error: PayloadTooLarge) -> CallError:
    """What an item fails with that the server's largest frame does not hold, in a call that is begun."""
    return failure(
        "REQUEST_TOO_LARGE",
        f"an item of the request makes a frame of {error.size} bytes; the server accepts {error.limit}. It was not "
        "sent; what came before it in the call was",
    )
