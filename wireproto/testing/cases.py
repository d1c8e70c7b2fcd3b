"""What a test of ServerSuite is about: a method in one version, a client and a server of two, a caller that leaves."""

from dataclasses import dataclass
from typing import Any

from wireproto.schema import Operation

__all__ = ["AgentPeers", "Left", "MethodAt", "Peers"]


@dataclass(frozen=True)
class MethodAt:
    """A method in one version."""

    method: Operation[Any, Any]
    version: int

    def __str__(self) -> str:
        return f"{self.method.name}-v{self.version}"


@dataclass(frozen=True)
class Peers:
    """A client of one version and a server of another. Where the server calls it has the part of the client."""

    client: int
    server: int

    @property
    def spoken(self) -> int:
        """What they agree on."""
        return min(self.client, self.server)

    def __str__(self) -> str:
        return f"client-v{self.client}-server-v{self.server}"


class AgentPeers(Peers):
    """A server of one version, which calls, and a client of another, which answers."""

    def __str__(self) -> str:
        return f"server-v{self.client}-agent-v{self.server}"


class Left(Exception):
    """What a caller's own iterable raises, to leave in the middle of its items."""
