"""Is the peer alive, does it go on with what it began, does it take what we send, does it chatter? One judge for both
roles.

A connection is judged from counters each time its owner looks at it, with the time handed in, so receiving and sending
cost nothing. Whoever slept blames nobody. An owner that looks later than it meant to was stopped, or kept from running,
and all clocks are set forward by as much. Whoever did not read, for that or any other reason, says of nobody that it
was silent before it has read for a whole heartbeat. And before a verdict the owner asks whether input waits, or room
for output: then it is we who are late.
"""

import enum
import math
from typing import Final

from wireproto.limits import Limits
from wireproto.wire.connection import Connection

__all__ = ["CHATTER_PER_FRAME", "CHATTER_PER_SECOND", "HEARTBEATS", "LATE", "MAX_CHATTER", "Liveness", "Overdue"]

HEARTBEATS: Final = 3
"""Heartbeats of silence after which a peer is gone. The first passes before it is asked; two answers may be lost."""

LATE: Final = 0.25
"""Seconds by which a look may be late without clocks being set forward: the interval of the server's sweep."""


MAX_CHATTER: Final = 1_000
"""Frames without a meaning that a peer may send at once: those of unknown kinds, and PONGs that answer no PING."""

CHATTER_PER_SECOND: Final = 20
"""... and how many more in each second,"""

CHATTER_PER_FRAME: Final = 4
"""... and for each other frame. A peer that greases sends two at most for each; a stream of its items is one call, so
that the calls that have ended would not say how much it may say."""


class Overdue(enum.Enum):
    """What the peer has failed to do in time."""

    HELLO = "HELLO"
    """To greet, after it had connected."""
    FRAME = "FRAME"
    """To send the rest of a frame that it began."""
    SILENCE = "SILENCE"
    """To say anything at all, or to answer a PING."""
    WRITING = "WRITING"
    """To take what was sent."""
    CHATTER = "CHATTER"
    """To stop sending what means nothing."""


class Liveness:
    """The clocks of one connection. Not thread-safe: its owner holds a lock.

    Args:
        connection: read, never changed. What it has ignored is chatter.
        limits: ``hello_timeout``, ``frame_timeout``, ``frame_rate`` and ``write_timeout`` count here.
        now: by a monotonic clock in seconds, as are all times here.
        idle: seconds of silence after which a peer is overdue where no heartbeat was agreed on; ``math.inf`` for never.
    """

    __slots__ = (
        "_asked_at",
        "_chatter_left",
        "_connection",
        "_frame_after",
        "_frame_since",
        "_heard",
        "_heard_at",
        "_idle",
        "_ignored",
        "_limits",
        "_looked_at",
        "_pinged_at",
        "_reading_since",
        "_taken",
        "_unwritten_since",
        "_waited_since",
    )

    def __init__(self, connection: Connection, limits: Limits, now: float, *, idle: float) -> None:
        self._connection = connection
        self._limits = limits
        self._idle = idle
        self._waited_since = now  # for HELLO
        self._heard = (connection.frames_received, connection.bytes_waiting)
        self._heard_at = now
        self._reading_since = now  # without a pause, and without a look that was late
        self._asked_at = math.inf  # the first PING since anything was heard
        self._pinged_at = math.inf  # ... and the last one
        self._frame_since: float | None = None
        self._frame_after = 0
        self._unwritten_since: float | None = None
        self._taken = 0
        self._ignored = connection.frames_ignored
        self._chatter_left: float = MAX_CHATTER  # how much more may come at once
        self._looked_at = now

    def look(self, now: float, late: float = 0.0, *, reading: bool = True) -> bool:
        """Note what was received since the last look.

        Args:
            now: the time.
            late: seconds by which this look is later than it was meant to be.
            reading: input is being read; while it is not, what the peer does cannot be seen, and no clock runs.

        Returns:
            Whether nothing was received.
        """
        if late > LATE:
            self._set_forward(late)
        if late > LATE or not reading:
            self._reading_since = now
        connection = self._connection
        heard = (connection.frames_received, connection.bytes_waiting)
        quiet = heard == self._heard
        if connection.frames_ignored != self._ignored or self._chatter_left < MAX_CHATTER:
            self._count_chatter(now)
        self._looked_at = now
        if not quiet or not reading:
            self._heard = heard
            self._heard_at = now
            self._asked_at = self._pinged_at = math.inf
        if connection.partial_length is None:
            self._frame_since = None
        elif self._frame_since is None or self._frame_after != connection.frames_received or not reading:
            self._frame_since = now
            self._frame_after = connection.frames_received
        return quiet

    def look_at_output(self, now: float, waiting: bool, taken: int) -> None:
        """Note what became of what was sent.

        Args:
            now: the time.
            waiting: whether there is output that the kernel did not take.
            taken: how much it ever took of such output.
        """
        if not waiting:
            self._unwritten_since = None
        elif self._unwritten_since is None or self._taken != taken:
            self._unwritten_since = now
            self._taken = taken

    def overdue(self, now: float, *, greeting: bool = False, listening: bool = True) -> Overdue | None:
        """What the peer has not done in time, as far as was looked; None while there is nothing.

        Args:
            now: the time.
            greeting: HELLO is still waited for.
            listening: more input is to come; False once the peer has ended it.
        """
        limits = self._limits
        if self._chatter_left < 0:
            return Overdue.CHATTER
        if self._unwritten_since is not None and now - self._unwritten_since >= limits.write_timeout:
            return Overdue.WRITING
        if greeting and now - self._waited_since >= limits.hello_timeout:
            return Overdue.HELLO
        if self._frame_since is not None:
            rate_time = (self._connection.partial_length or 0) / limits.frame_rate
            if now - self._frame_since >= limits.frame_timeout + rate_time:
                return Overdue.FRAME
        if listening and self._is_silent(now):
            return Overdue.SILENCE
        return None

    def sentence(self, overdue: Overdue, now: float) -> str:
        """The same in words."""
        if overdue is Overdue.CHATTER:
            return f"it sent {self._ignored} frames that mean nothing, and {self._heard[0] - self._ignored} others"
        if overdue is Overdue.WRITING:
            return f"it took nothing of what was sent for {self._limits.write_timeout:g} s"
        if overdue is Overdue.HELLO:
            return f"no HELLO within {self._limits.hello_timeout:g} s"
        if overdue is Overdue.FRAME:
            return f"it stopped within a frame of {self._connection.partial_length} bytes"
        pinged = ", and a PING was not answered" if self._asked_at != math.inf else ""
        return f"nothing was heard for {now - self._heard_at:.0f} s{pinged}"

    def ping_due(self, now: float) -> bool:
        """Whether a PING is to be sent now, which is once in each heartbeat of silence; the caller sends it."""
        if now - (self._heard_at if self._pinged_at == math.inf else self._pinged_at) < self._heartbeat():
            return False
        self._pinged_at = now
        self._asked_at = min(self._asked_at, now)
        return True

    def next_look(self) -> float:
        """When silence is to be looked at again; ``math.inf`` where no silence counts."""
        heartbeat = self._heartbeat()
        if self._asked_at == math.inf:
            return self._heard_at + min(heartbeat, self._idle)
        return min(self._gone_at(heartbeat), self._pinged_at + heartbeat)

    def _count_chatter(self, now: float) -> None:
        # What the peer was allowed since the last look is not cut to what it may say at once before what it said is
        # taken: of the frames that we have read together, nobody knows when each of them came.
        connection = self._connection
        ignored = connection.frames_ignored - self._ignored
        others = connection.frames_received - self._heard[0] - ignored
        more = CHATTER_PER_SECOND * (now - self._looked_at) + CHATTER_PER_FRAME * others
        self._chatter_left = min(MAX_CHATTER, self._chatter_left + more - ignored)
        self._ignored = connection.frames_ignored

    def _heartbeat(self) -> float:
        return self._connection.heartbeat_ms / 1000 or math.inf

    def _gone_at(self, heartbeat: float) -> float:
        # Counted from the first PING, not from the last sign of life: until it is asked, a peer need not say anything.
        return max(self._asked_at + (HEARTBEATS - 1) * heartbeat, self._reading_since + heartbeat)

    def _is_silent(self, now: float) -> bool:
        heartbeat = self._heartbeat()
        if heartbeat == math.inf:
            return now - self._heard_at >= self._idle
        return now >= self._gone_at(heartbeat)

    def _set_forward(self, late: float) -> None:
        """We were kept from looking: nobody is to blame for that time."""
        self._waited_since += late
        self._heard_at += late
        self._asked_at += late
        self._pinged_at += late
        if self._frame_since is not None:
            self._frame_since += late
        if self._unwritten_since is not None:
            self._unwritten_since += late
