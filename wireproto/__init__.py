"""A pluggable-codec wire protocol framework: declare messages and an opcode table once, serve them in any codec.

The names below are the public contract. The first group is there at once; the second is loaded when it is first
used, so that a program that only declares messages does not pay for sockets and threads.
"""

import importlib
from typing import TYPE_CHECKING

from wireproto.address import Address
from wireproto.errors import (
    BothFull,
    CallError,
    CodecError,
    ConfigError,
    ConnectionLost,
    DeclarationError,
    DecodeError,
    EncodeError,
    HandshakeError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    WireprotoError,
)
from wireproto.limits import Limits
from wireproto.status import Retry, Status
from wireproto.version import __version__

if TYPE_CHECKING:
    from wireproto.client import Backoff, Client, ClientState, Duplex, Following, Gap, Stream, Workers, connect
    from wireproto.connected import ConnectedClient
    from wireproto.dispatch import Handlers
    from wireproto.futures import CallFuture
    from wireproto.handling import Context, Sink, Subscription
    from wireproto.identity import Identity
    from wireproto.log_limit import LogLimit
    from wireproto.schema import (
        Bounds,
        DuplexMethod,
        Message,
        Method,
        OneWayMethod,
        Service,
        Shape,
        Since,
        StreamMethod,
        UInt64,
        UploadMethod,
    )
    from wireproto.server import Server
    from wireproto.topic import Topic
    from wireproto.wire.frame import Credit
    from wireproto.wire.metadata import Metadata

__all__ = [
    "Address",
    "Backoff",
    "BothFull",
    "Bounds",
    "CallError",
    "CallFuture",
    "Client",
    "ClientState",
    "CodecError",
    "ConfigError",
    "ConnectedClient",
    "ConnectionLost",
    "Context",
    "Credit",
    "DeclarationError",
    "DecodeError",
    "Duplex",
    "DuplexMethod",
    "EncodeError",
    "Following",
    "Gap",
    "Handlers",
    "HandshakeError",
    "Identity",
    "Limits",
    "LocalProtocolError",
    "LogLimit",
    "Message",
    "Metadata",
    "Method",
    "OneWayMethod",
    "ProtocolError",
    "RemoteProtocolError",
    "Retry",
    "Server",
    "Service",
    "Shape",
    "Since",
    "Sink",
    "Status",
    "Stream",
    "StreamMethod",
    "Subscription",
    "Topic",
    "UInt64",
    "UploadMethod",
    "WireprotoError",
    "Workers",
    "__version__",
    "connect",
]


_LAZY = {
    "Backoff": "wireproto.client",
    "Bounds": "wireproto.schema",
    "CallFuture": "wireproto.futures",
    "Client": "wireproto.client",
    "ClientState": "wireproto.client",
    "ConnectedClient": "wireproto.connected",
    "Context": "wireproto.handling",
    "Credit": "wireproto.wire.frame",
    "Duplex": "wireproto.client",
    "DuplexMethod": "wireproto.schema",
    "Following": "wireproto.client",
    "Gap": "wireproto.client",
    "Handlers": "wireproto.dispatch",
    "Identity": "wireproto.identity",
    "LogLimit": "wireproto.log_limit",
    "Message": "wireproto.schema",
    "Metadata": "wireproto.wire.metadata",
    "Method": "wireproto.schema",
    "OneWayMethod": "wireproto.schema",
    "Server": "wireproto.server",
    "Service": "wireproto.schema",
    "Shape": "wireproto.schema",
    "Since": "wireproto.schema",
    "Sink": "wireproto.handling",
    "Stream": "wireproto.client",
    "StreamMethod": "wireproto.schema",
    "Subscription": "wireproto.handling",
    "Topic": "wireproto.topic",
    "UInt64": "wireproto.schema",
    "UploadMethod": "wireproto.schema",
    "Workers": "wireproto.client",
    "connect": "wireproto.client",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(module), name)
    except AttributeError as error:
        # ``from wireproto import Server`` would take it for a name that is not there, and hide what happened.
        raise ImportError(f"{__name__}.{name} cannot be loaded: {error}") from error
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
