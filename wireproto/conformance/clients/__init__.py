"""The cases that judge a client, by the sections of the protocol's pages. Importing this fills the registry."""

from wireproto.conformance.callee import CLIENT_CASES
from wireproto.conformance.clients import (
    answers,
    calling,
    calls,
    early,
    ends,
    frames,
    handshake,
    metadata,
    packing,
    resuming,
    streams,
    uploads,
    values,
)

__all__ = [
    "CLIENT_CASES",
    "answers",
    "calling",
    "calls",
    "early",
    "ends",
    "frames",
    "handshake",
    "metadata",
    "packing",
    "resuming",
    "streams",
    "uploads",
    "values",
]
