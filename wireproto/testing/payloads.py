"""Calls with payloads that nobody encoded, through a client that would refuse to write them."""

import dataclasses
from typing import Any

from wireproto.binding import Binding, Dialect
from wireproto.client import BlockingClient, Client
from wireproto.schema import Operation

__all__ = ["as_bytes"]


def as_bytes(client: BlockingClient, method: Any) -> Any:
    """A copy of ``method`` that ``client`` calls with bytes in the place of the request, and of the answer or items.

    Nothing is judged before it is sent: not the size, not whether the version has the method. It declares no timeout,
    so that a call sends no deadline by itself. It holds until the client connects anew.

    Args:
        client: of either kind, connected.
        method: of the client's service, in any version.
    """
    twin: Operation[Any, Any] = dataclasses.replace(method, timeout=None, max_request=None)
    _dialect(client).bindings[twin] = Binding(twin, _as_it_is, _as_it_is)
    return twin


def _as_it_is(payload: Any) -> Any:
    return payload


def _dialect(client: Any) -> Dialect:
    """What the client speaks. It is not to be had by its face, which keeps to what is declared."""
    dialect: Dialect = client._line.link(None).dialect if isinstance(client, Client) else client._dialect
    return dialect
