"""The cases that judge a client, by the sections of ``docs/protocol.md``. Importing this fills the registry."""

from wireproto.testing.conformance.clients import calls, ends, frames, handshake, metadata, streams, values
from wireproto.testing.conformance.host import CLIENT_CASES

__all__ = ["CLIENT_CASES", "calls", "ends", "frames", "handshake", "metadata", "streams", "values"]
