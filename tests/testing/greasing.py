"""Grease on every connection of a test: whatever it shows, it shows with peers that say what nobody knows."""

from itertools import count

import pytest

from wireproto.client import opening
from wireproto.limits import Limits
from wireproto.server import server
from wireproto.testing.grease import GreasingConnection
from wireproto.wire.connection import Connection, Role


def grease_everything(monkeypatch: pytest.MonkeyPatch, seed: str, *, versions: bool = True) -> None:
    """Let all clients and servers that are made from now on grease, each connection with a seed of its own."""
    numbers = count()

    def greasing(role: Role, limits: Limits | None = None, *, hint: str = "") -> Connection:
        return GreasingConnection(role, limits, hint=hint, seed=f"{seed} {next(numbers)}", versions=versions)

    monkeypatch.setattr(opening, "Connection", greasing)
    monkeypatch.setattr(server, "Connection", greasing)
