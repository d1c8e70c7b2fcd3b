"""The cases that judge a server, by the sections of the protocol's pages. Importing this fills the registry."""

from wireproto.conformance.caller import SERVER_CASES
from wireproto.conformance.servers import (
    calls,
    describing,
    early,
    ends,
    errors,
    first_bytes,
    frames,
    going_away,
    handshake,
    metadata,
    packing,
    resuming,
    shapes,
    slow,
    streams,
    uploads,
    values,
)

__all__ = [
    "SERVER_CASES",
    "calls",
    "describing",
    "early",
    "ends",
    "errors",
    "first_bytes",
    "frames",
    "going_away",
    "handshake",
    "metadata",
    "packing",
    "resuming",
    "shapes",
    "slow",
    "streams",
    "uploads",
    "values",
]
