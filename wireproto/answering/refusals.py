"""What the server itself answers to a call that its handler does not answer, over TCP and over gRPC."""

from wireproto.errors import CallError
from wireproto.reasons import failure
from wireproto.status import Retry

__all__ = [
    "BUSY",
    "busy",
    "cancelled",
    "given_up",
    "half_closed",
    "identity_revoked",
    "late",
    "metadata_too_large",
    "shutting_down",
    "too_large",
]

BUSY = "every worker is busy and the run queue is full; try again later"


def busy(text: str = BUSY) -> CallError:
    """There is no room to run it."""
    return failure("SERVER_BUSY", text, retry_after_ms=100)


def cancelled(retry: Retry = Retry.MAYBE_PROCESSED) -> CallError:
    """The caller wants no answer any more."""
    return failure("CANCELLED", "the caller cancelled the call", retry=retry)


def given_up() -> CallError:
    """Whoever was to complete a deferred answer has cancelled its future."""
    return failure("CANCELLED", "the call was cancelled")


def half_closed(retry: Retry) -> CallError:
    """The caller closed its side, so nobody grants the stream any more credit."""
    return failure("CANCELLED", "the caller closed its side, and grants no more credit", retry=retry)


def identity_revoked(retry: Retry) -> CallError:
    """The identity with which the call was begun is worth nothing any more."""
    return failure("SIGN_IN_REQUIRED", "the identity of the call was revoked while it ran; sign in again", retry=retry)


def late(retry: Retry = Retry.MAYBE_PROCESSED) -> CallError:
    """The deadline passed while it was waited for."""
    return failure("DEADLINE", "the deadline passed before the answer was there", retry=retry)


def shutting_down(retry: Retry = Retry.NOT_PROCESSED) -> CallError:
    """The server is going away."""
    text = "the server is shutting down; connect again, to another one if there is one"
    return failure("SHUTTING_DOWN", text, retry=retry)


def too_large(problem: object) -> CallError:
    """The answer is larger than the caller accepts."""
    return failure("RESPONSE_TOO_LARGE", f"the answer cannot be sent: {problem}")


def metadata_too_large(size: int, most: int) -> CallError:
    """The metadata are more than the server takes."""
    return failure("METADATA_TOO_LARGE", f"the request has {size} bytes of metadata; at most {most} are accepted")
