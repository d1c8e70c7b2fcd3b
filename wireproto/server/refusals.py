"""What the server itself answers to a call that its handler does not answer."""

from wireproto.errors import CallError
from wireproto.status import Retry, Status
from wireproto.wire.connection import PayloadTooLarge

__all__ = ["busy", "cancelled", "half_closed", "late", "shutting_down", "too_large"]


def busy() -> CallError:
    return CallError(
        Status.RESOURCE_EXHAUSTED,
        "SERVER_BUSY",
        "every worker is busy and the run queue is full; try again later",
        retry=Retry.NOT_PROCESSED,
        retry_after_ms=100,
    )


def cancelled(retry: Retry) -> CallError:
    return CallError(Status.CANCELLED, "CANCELLED", "the caller cancelled the call", retry=retry)


def half_closed(retry: Retry) -> CallError:
    return CallError(Status.CANCELLED, "CANCELLED", "the caller closed its side", retry=retry)


def late(retry: Retry) -> CallError:
    text = "the deadline passed before the answer was there"
    return CallError(Status.DEADLINE_EXCEEDED, "DEADLINE", text, retry=retry)


def shutting_down(retry: Retry) -> CallError:
    text = "the server is shutting down; connect again, to another one if there is one"
    return CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", text, retry=retry)


def too_large(error: PayloadTooLarge) -> CallError:
    text = f"the answer cannot be sent: {error}"
    return CallError(Status.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE", text, retry=Retry.MAYBE_PROCESSED)
