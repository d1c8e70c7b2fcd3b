"""Grease on every connection of a test: whatever it shows, it shows with peers that say what nobody knows."""

import pytest

from wireproto.client import line
from wireproto.server import server
from wireproto.testing import greasing


def grease_everything(monkeypatch: pytest.MonkeyPatch, seed: str, *, versions: bool = True) -> None:
    """Let all clients and servers that are made from now on grease, each connection with a seed of its own."""
    make = greasing(seed, versions=versions)
    monkeypatch.setattr(line, "Connection", make)
    monkeypatch.setattr(server, "Connection", make)
