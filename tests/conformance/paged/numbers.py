"""Numbers and reasons of sections 2, 3, 9 and 10, and the three ways in which something ends."""

from typing import Any

__all__ = [
    "CANCEL", "CANCELLED", "CHATTER_PER_FRAME", "CHATTER_PER_SECOND", "CODECS", "CREDIT", "DEADLINE_EXCEEDED", "END",
    "ERROR", "FAILED_PRECONDITION",
    "FIRST_CREDIT", "FLAGS", "FRAME_TIMEOUT", "FROM_EITHER", "FURTHEST", "GOAWAY", "GRACE", "HELLO", "HELLO_MAX_FRAME",
    "HELLO_TIMEOUT", "INTERNAL", "INVALID_ARGUMENT", "ITEM", "ITEMS_COME_BACK", "ITEMS_FOLLOW",
    "LAST_NUMBER", "LINGER", "MAX_ANSWER", "MAX_CALLS", "MAX_CHATTER", "MAX_CROSSED", "MAX_DETAILS", "MAX_FRAME",
    "MAX_METADATA", "MAX_STRAYS",
    "MAYBE_PROCESSED", "NEVER", "NOT_FOUND", "NOT_PROCESSED", "OF_CALLS", "OF_MESSAGES", "ONE_WAY", "ONE_WAY_CALLS",
    "PACKED", "PERMISSION_DENIED", "PING", "PONG", "PREAMBLE", "REFILL", "REQUEST", "RESOURCE_EXHAUSTED", "RESPONSE",
    "UNAUTHENTICATED", "UNAVAILABLE", "UNIMPLEMENTED", "WELCOME", "ZLIB", "Failure", "Final", "Gone", "bad",
]  # fmt: skip

PREAMBLE = b"\xf5WP\x01"
HELLO, WELCOME, REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY = range(1, 13)
OF_MESSAGES = (REQUEST, RESPONSE, ITEM)
OF_CALLS = (*OF_MESSAGES, END, ERROR, CANCEL, CREDIT)
ANSWERS = (RESPONSE, ITEM, END, ERROR)
FROM_EITHER = (*OF_CALLS, PING, PONG, GOAWAY)
ONE_WAY, PACKED, ITEMS_FOLLOW, ITEMS_COME_BACK = 0x01, 0x02, 0x04, 0x08
ZLIB = 1
FLAGS = (0, ONE_WAY, ITEMS_FOLLOW, ITEMS_COME_BACK, ITEMS_FOLLOW | ITEMS_COME_BACK)
LAST_NUMBER, FURTHEST = 2**31 - 1, 2**30 - 1
MAX_STRAYS, MAX_CROSSED, REFILL = 16, 1000, 8
MAX_CHATTER, CHATTER_PER_SECOND, CHATTER_PER_FRAME = 1000, 20, 4
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 1, 3, 4, 5, 7
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 9, 12, 13, 14, 16
NEVER, NOT_PROCESSED, MAYBE_PROCESSED = 0, 1, 2
HELLO_MAX_FRAME, MAX_FRAME, MAX_METADATA, MAX_CALLS = 4096, 1 << 20, 8192, 64
MAX_ANSWER, MAX_DETAILS = 7168, 4096
FIRST_CREDIT, ONE_WAY_CALLS = (16, 65536), 64
HELLO_TIMEOUT, FRAME_TIMEOUT, LINGER, GRACE = 2.0, 2.0, 1.0, 1.0
CODECS = {1: "pipe", 2: "msgpack"}


class Final(Exception):
    """Ends the connection (section 8)."""

    def __init__(self, reason: str, text: str = "", status: int = INVALID_ARGUMENT, retry: int = NEVER) -> None:
        super().__init__(reason, text, status, retry)
        self.reason, self.text, self.status, self.retry = reason, text, status, retry


class Failure(Exception):
    """Fails a call."""

    details: tuple[str, dict[str, Any]] | None = None
    """Its message, and what that says."""

    def __init__(self, status: int, reason: str, text: str = "", retry: int = NEVER, after: int = 0) -> None:
        super().__init__(status, reason, text, retry)
        self.status, self.reason, self.text, self.retry, self.after = status, reason, text, retry, after


class Gone(Exception):
    """The client has ended its output, or the connection."""


def bad(problem: str) -> Failure:
    """A payload that is no message of the method."""
    return Failure(INVALID_ARGUMENT, "BAD_PAYLOAD", problem)
