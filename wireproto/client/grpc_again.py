"""When a call over gRPC is made again by itself: by the rule of the other client, for at most as many times."""

import time
from typing import Any, Final

from wireproto.client.face import deadline_after
from wireproto.client.line import repeatable
from wireproto.errors import CallError

__all__ = ["UNREACHED", "Attempts"]

UNREACHED: Final = ("failed to connect to all addresses", "DNS resolution failed")
"""How grpcio's words begin where no connection came about. Such a call is not made again: as on the other door, one
attempt to connect decides, unless the caller has said that it waits."""


class Attempts:
    """The time of one call, and how often it was made. One thread at a time.

    Args:
        seconds: that the call may take, all attempts together; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._deadline = deadline_after(seconds)
        self._repeated = 0

    def left(self) -> float | None:
        """Seconds that are left, at least 0; None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def again(self, error: CallError, rpc: Any) -> bool:
        """Whether to make the call once more, which then counts.

        Args:
            error: what it failed with.
            rpc: grpcio's, that did.
        """
        if not repeatable(error, self._repeated) or (rpc.details() or "").startswith(UNREACHED):
            return False
        self._repeated += 1
        return True
