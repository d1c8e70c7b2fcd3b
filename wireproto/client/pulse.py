"""The clocks of a link: is the peer alive, does it go on with what it began, does it take what we send."""

import math

from wireproto.limits import Limits
from wireproto.wire.connection import Connection

__all__ = ["Budget", "Pulse"]


class Pulse:
    """Judges a link each time the keeper looks at it, from counters only: receiving and sending cost it nothing.

    Args:
        connection: open; read, never changed.
        limits: ``frame_timeout``, ``frame_rate``, ``write_timeout`` and ``idle_timeout`` count here.
        now: by a monotonic clock in seconds, as are all times here.
    """

    def __init__(self, connection: Connection, limits: Limits, now: float) -> None:
        self._connection = connection
        self._limits = limits
        self._heartbeat = connection.heartbeat_ms / 1000 or math.inf
        self._patience = max(limits.idle_timeout - self._heartbeat, self._heartbeat)
        self._heard = connection.frames_received
        self._heard_at = now
        self._pinged_at = math.inf
        self._partial_since: float | None = None
        self._partial_after = 0
        self._stuck_since: float | None = None
        self._stuck_at = 0

    def quiet(self, now: float) -> bool:
        """Note what was received since the last look; whether that was nothing."""
        heard = self._connection.frames_received
        if heard == self._heard:
            return True
        self._heard = heard
        self._heard_at = now
        self._pinged_at = math.inf
        return False

    def silent(self, now: float) -> str:
        """Why the peer must be taken for dead; "" while it need not. Wants ``quiet`` first."""
        # Counted from the PING, not from the last sign of life: a process that was stopped for an hour has heard
        # nothing either.
        if now - self._pinged_at < self._patience:
            return ""
        return f"nothing was heard for {now - self._heard_at:.0f} s, and a PING was not answered"

    def stalled(self, now: float) -> str:
        """Why the peer must be taken for stalled within a frame of its own; "" while it need not."""
        length = self._connection.partial_length
        if length is None:
            self._partial_since = None
            return ""
        if self._partial_since is None or self._partial_after != self._connection.frames_received:
            self._partial_since = now
            self._partial_after = self._connection.frames_received
        if now - self._partial_since < self._limits.frame_timeout + length / self._limits.frame_rate:
            return ""
        return f"it stopped within a frame of {length} bytes"

    def stuck(self, now: float, waiting: bool, taken: int) -> str:
        """Why the peer must be taken for not reading; "" while it need not.

        Args:
            now: the time.
            waiting: whether there is output that the kernel did not take.
            taken: how much it ever took of such output.
        """
        if not waiting:
            self._stuck_since = None
            return ""
        if self._stuck_since is None or self._stuck_at != taken:
            self._stuck_since = now
            self._stuck_at = taken
        if now - self._stuck_since < self._limits.write_timeout:
            return ""
        return f"it took nothing of what was sent for {self._limits.write_timeout:.0f} s"

    def ping_due(self, now: float) -> bool:
        """Whether a PING is to be sent now; the caller sends it."""
        if now - self._heard_at < self._heartbeat or self._pinged_at != math.inf:
            return False
        self._pinged_at = now
        return True

    def next_look(self, now: float) -> float:
        """When silence is to be looked at again; ``math.inf`` without a heartbeat."""
        if self._pinged_at != math.inf:
            return min(self._pinged_at + self._patience, now + self._heartbeat)
        return self._heard_at + self._heartbeat


class Budget:
    """A token bucket: so many at once, so many a second.

    Args:
        rate: tokens a second.
        burst: tokens there are at most, and at first.
        now: the time, as for ``Pulse``.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one token; False when there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
