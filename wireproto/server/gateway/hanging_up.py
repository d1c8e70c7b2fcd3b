"""Hanging up on a caller, which no interface of gRPC's offers: the connection is found among the process's sockets.

The TCP door closes the connection of who floods it. gRPC's core would read on, and have everybody wait meanwhile.
"""

import os
import socket
import threading

from wireproto.address import Address
from wireproto.server.pool import Pool

__all__ = ["HangingUp", "hang_up"]


def hang_up(peers: set[str], port: int) -> int:
    """Shut down the accepted connections of some peers.

    Args:
        peers: each ``host:port``, IPv6 hosts in brackets.
        port: ours, on which they came.

    Returns:
        How many were found.
    """
    found = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            # A copy: whatever becomes of the number meanwhile, it is this socket that is looked at, and shut down.
            descriptor = os.dup(int(entry))
        except OSError:
            continue
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:  # no socket
            os.close(descriptor)
            continue
        with connection:
            try:
                if _is_of(connection, peers, port):
                    connection.shutdown(socket.SHUT_RDWR)
                    found += 1
            except OSError:  # it is not connected, or no more
                continue
    return found


def _is_of(connection: socket.socket, peers: set[str], port: int) -> bool:
    if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
        return False
    host, number = connection.getpeername()[:2]
    host = host.removeprefix("::ffff:")  # gRPC listens on sockets of IPv6 for both
    return str(Address(host, number)) in peers


class HangingUp:
    """Hangs up on whom it is told to, on a follower of the pool, for many at once.

    Args:
        pool: whose follower.
        port: the door's.
    """

    def __init__(self, pool: Pool, port: int) -> None:
        self._pool = pool
        self._port = port
        self._lock = threading.Lock()
        self._peers: set[str] = set()

    def add(self, peer: str) -> None:
        """Hang up on one. Any thread."""
        with self._lock:
            waits = bool(self._peers)
            self._peers.add(peer)
        if not waits:
            self._pool.submit(self, always=True)  # there is one of these, however many are to go

    def run_blocking(self) -> None:
        """Do so; called by the pool."""
        with self._lock:
            peers, self._peers = self._peers, set()
        hang_up(peers, self._port)
