"""The status of a call, and whether a failed call may be sent again."""

import enum

__all__ = ["Retry", "Status"]


class Status(enum.IntEnum):
    """How a call ended: gRPC's seventeen codes, with gRPC's numbers, on every door."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Retry(enum.IntEnum):
    """What the side that failed a call knows about sending it again."""

    NEVER = 0
    """The call was decided; the same request would fail again."""
    NOT_PROCESSED = 1
    """No handler saw the call; sending it again is safe."""
    MAYBE_PROCESSED = 2
    """The handler may have run; send it again only with an idempotency key."""
