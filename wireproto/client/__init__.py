"""The blocking client: many threads, many calls in flight, one connection."""

from wireproto.client.backoff import Backoff
from wireproto.client.client import Client, connect
from wireproto.client.duplex import Duplex
from wireproto.client.face import BlockingClient, ClientFace, ItemExchange, ItemFollower, ItemStream
from wireproto.client.following import Following
from wireproto.client.gap import Gap
from wireproto.client.state import ClientState
from wireproto.client.stream import Stream
from wireproto.client.workers import Workers

__all__ = [
    "Backoff",
    "BlockingClient",
    "Client",
    "ClientFace",
    "ClientState",
    "Duplex",
    "Following",
    "Gap",
    "ItemExchange",
    "ItemFollower",
    "ItemStream",
    "Stream",
    "Workers",
    "connect",
]
