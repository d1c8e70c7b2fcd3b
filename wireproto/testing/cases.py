"""What a test of ServerSuite is about: a method in one version, or a client and a server of two."""

from dataclasses import dataclass
from typing import Any

from wireproto.schema import Operation, Shape

__all__ = ["LIVE", "MethodAt", "Peers"]

LIVE = (Shape.UNARY, Shape.STREAM)
"""The shapes that the suite calls through every door; methods of the others it calls through pairs."""


@dataclass(frozen=True)
class MethodAt:
    """A method in one version."""

    method: Operation[Any, Any]
    version: int

    def __str__(self) -> str:
        return f"{self.method.name}-v{self.version}"


@dataclass(frozen=True)
class Peers:
    """A client of one version and a server of another."""

    client: int
    server: int

    @property
    def spoken(self) -> int:
        """What they agree on."""
        return min(self.client, self.server)

    def __str__(self) -> str:
        return f"client-v{self.client}-server-v{self.server}"
