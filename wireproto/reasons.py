"""What any call may fail with, whatever its method declares: each reason with its status and its advice, in one table.

All doors and clients take both from here, so that a caller is told the same wherever it calls. ``docs/wire.md``
lists the reasons for those who write another implementation.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from wireproto.errors import CallError
from wireproto.status import Retry, Status

__all__ = ["REASONS", "Reason", "failure"]


class Reason(NamedTuple):
    """What goes with a reason.

    Attributes:
        status: always.
        retry: the advice, unless whoever fails the call knows better: that its handler has begun, or has not.
    """

    status: Status
    retry: Retry


_NEVER, _NOT_PROCESSED, _MAYBE = Retry.NEVER, Retry.NOT_PROCESSED, Retry.MAYBE_PROCESSED

REASONS: Final[Mapping[str, Reason]] = {
    "ALREADY_SIGNED_IN": Reason(Status.FAILED_PRECONDITION, _NEVER),
    "BAD_METADATA": Reason(Status.INVALID_ARGUMENT, _NEVER),
    "BAD_PAYLOAD": Reason(Status.INVALID_ARGUMENT, _NEVER),
    "CANCELLED": Reason(Status.CANCELLED, _MAYBE),
    "DEADLINE": Reason(Status.DEADLINE_EXCEEDED, _MAYBE),
    "INTERNAL": Reason(Status.INTERNAL, _MAYBE),
    "ITEM_TIMEOUT": Reason(Status.DEADLINE_EXCEEDED, _MAYBE),
    "METADATA_TOO_LARGE": Reason(Status.RESOURCE_EXHAUSTED, _NEVER),
    "NOT_PERMITTED": Reason(Status.PERMISSION_DENIED, _NEVER),
    "NO_HANDLER": Reason(Status.UNIMPLEMENTED, _NEVER),
    "POSITION_LOST": Reason(Status.OUT_OF_RANGE, _NOT_PROCESSED),
    "REQUEST_TOO_LARGE": Reason(Status.RESOURCE_EXHAUSTED, _NEVER),
    "RESPONSE_TOO_LARGE": Reason(Status.RESOURCE_EXHAUSTED, _MAYBE),
    "SERVER_BUSY": Reason(Status.RESOURCE_EXHAUSTED, _NOT_PROCESSED),
    "SHUTTING_DOWN": Reason(Status.UNAVAILABLE, _NOT_PROCESSED),
    "SIGN_IN_REQUIRED": Reason(Status.UNAUTHENTICATED, _NEVER),
    "SLOW_CONSUMER": Reason(Status.RESOURCE_EXHAUSTED, _MAYBE),
    "TOO_MANY_CALLS": Reason(Status.RESOURCE_EXHAUSTED, _NOT_PROCESSED),
    "UNKNOWN_METADATA": Reason(Status.UNIMPLEMENTED, _NEVER),
    "UNKNOWN_OPCODE": Reason(Status.UNIMPLEMENTED, _NEVER),
    "WRONG_SHAPE": Reason(Status.UNIMPLEMENTED, _NOT_PROCESSED),
}


def failure(reason: str, message: str, *, retry: Retry | None = None, retry_after_ms: int = 0) -> CallError:
    """The error of a call that fails for one of these reasons.

    Args:
        reason: a key of ``REASONS``.
        message: for people: what happened, and what to do.
        retry: where it is not that of the table.
        retry_after_ms: a hint when to try again, in milliseconds; 0 for none.
    """
    status, advice = REASONS[reason]
    return CallError(status, reason, message, retry=advice if retry is None else retry, retry_after_ms=retry_after_ms)
