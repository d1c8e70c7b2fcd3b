"""The threaded socket server. ``server.py`` listens, ``session.py`` is one connection; ``answering`` runs its calls."""

from wireproto.server.server import Server

__all__ = ["Server"]
