"""The threaded socket server. ``server.py`` listens, ``session.py`` is one connection, ``pool.py`` the threads."""

from wireproto.server.server import Server

__all__ = ["Server"]
