"""The page about the chat says what the service promises, and names only what exists."""

import re
from pathlib import Path

from wireproto_chat.opcodes import CHAT

PAGE = (Path(__file__).parents[2] / "docs" / "chat.md").read_text()


def test_the_promise_is_printed() -> None:
    """The delivery promise stands in docs/chat.md, word for word."""
    quoted = " ".join(line.removeprefix("> ") for line in PAGE.splitlines() if line.startswith("> "))
    assert quoted == (
        "A send answered OK is committed to durable storage before the answer leaves the server. From then on it is "
        "delivered to the recipient at least once, in mailbox order, until acknowledged or deleted; the client shows "
        "it once. A send without an answer may be repeated with the same key, safely."
    )


def test_the_page_names_what_exists() -> None:
    """Every method and reason that the page names is in the opcode table."""
    names = {method.name for method in CHAT.methods}
    reasons = {reason for method in CHAT.methods for reason in method.reasons}
    assert set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+|Acknowledge)`", PAGE)) <= names
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b|\bTHROTTLED\b", PAGE)) - {"XDG_STATE_HOME"} <= reasons
