"""Hanging up on a caller, which no interface of gRPC's offers: the connection is found among the process's sockets.

The TCP door closes the connection of who floods it, of who says nothing while others want in, and of who has too many.
gRPC's core would keep them all, and have everybody wait meanwhile.
"""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

from wireproto.address import Address, is_loopback
from wireproto.answering.pool import Pool
from wireproto.limits import Limits

__all__ = ["HangingUp", "connected", "hang_up"]

CHUNK = 1024 * 1024

CHUNKS = 16
"""Of what a connection has sent before, each ``CHUNK`` bytes, are thrown away: no stranger keeps a follower at it."""

LOOK = 1.0
"""Seconds between two looks at who is connected, while nobody is too much."""


def hang_up(peers: set[str], port: int) -> int:
    """Shut down the accepted connections of some peers.

    Args:
        peers: each ``host:port``, IPv6 hosts in brackets.
        port: ours, on which they came.

    Returns:
        How many were found.
    """
    found = 0
    for connection, peer in _accepted(port):
        if peer in peers:
            try:
                connection.shutdown(socket.SHUT_RDWR)
                found += 1
                # What it has sent before would be read yet, which is tens of thousands of resets; nobody wants it.
                for _ in range(CHUNKS):
                    if not connection.recv(CHUNK, socket.MSG_DONTWAIT):
                        break
            except OSError:  # it is not connected any more, or there is nothing left
                continue
    return found


def connected(port: int) -> list[str]:
    """Who is connected to a port of ours, each ``host:port``."""
    return [peer for _, peer in _accepted(port)]


def _accepted(port: int) -> Iterator[tuple[socket.socket, str]]:
    """The connections that came on a port, each open as long as it is looked at, and their peers."""
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
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == port:
                    host, number = connection.getpeername()[:2]
                else:
                    continue
            except OSError:  # it is not connected, or no more
                continue
            # gRPC listens on sockets of IPv6 for both.
            yield connection, str(Address(host.removeprefix("::ffff:"), number))


class HangingUp:
    """Hangs up on whom it is told to, and on who is too much, on a follower of the pool.

    Args:
        pool: whose follower.
        port: the door's.
        limits: how many connections an address may have, and how many may say nothing.

    Attributes:
        spoke: connections that have begun a call. The door adds to it.
    """

    def __init__(self, pool: Pool, port: int, limits: Limits) -> None:
        self._pool = pool
        self._port = port
        self._limits = limits
        self._lock = threading.Lock()
        self._peers: set[str] = set()
        self._looks = False
        self._next_look = 0.0
        self._since: dict[str, float] = {}
        self.spoke: set[str] = set()

    def add(self, peer: str) -> None:
        """Hang up on one. Any thread."""
        with self._lock:
            waits = bool(self._peers) or self._looks
            self._peers.add(peer)
        if not waits:
            self._pool.submit(self, always=True)  # there is one of these, however many are to go

    def look(self, now: float) -> None:
        """Look at who is connected, if it is time and there may be too many; called by the watchdog."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        descriptors = len(os.listdir("/proc/self/fd"))
        limits = self._limits
        fewest = min(limits.max_connections, limits.max_connections_per_address, limits.max_handshaking)
        if descriptors <= fewest and len(self.spoke) <= 2 * descriptors:
            return
        with self._lock:
            waits = bool(self._peers) or self._looks
            self._looks = True
        if not waits:
            self._pool.submit(self, always=True)

    def run_blocking(self) -> None:
        """Do so; called by the pool."""
        with self._lock:
            peers, self._peers = self._peers, set()
            looks, self._looks = self._looks, False
        if looks:
            peers |= self._too_many(time.monotonic())
        if peers:
            hang_up(peers, self._port)

    def _too_many(self, now: float) -> set[str]:
        """The oldest of those that say nothing, if they are too many; the newest of the others, and of an address."""
        there = connected(self._port)  # by descriptor: of those that are seen together the newest is most often last
        self.spoke.difference_update(self.spoke.difference(there))
        self._since = {peer: self._since.get(peer, now) for peer in there}
        oldest_first = sorted(there, key=lambda peer: self._since[peer])
        addresses: dict[str, list[str]] = defaultdict(list)
        for peer in oldest_first:
            addresses[peer.rpartition(":")[0]].append(peer)
        excess = {
            peer
            for host, peers in addresses.items()
            if len(peers) > self._limits.max_connections_per_address and not is_loopback(host.strip("[]"))
            for peer in peers[self._limits.max_connections_per_address :]
        }
        silent = [peer for peer in oldest_first if peer not in self.spoke and peer not in excess]
        excess.update(silent[: max(0, len(silent) - self._limits.max_handshaking)])
        speaking = [peer for peer in oldest_first if peer in self.spoke and peer not in excess]
        excess.update(speaking[self._limits.max_connections :])
        if excess:
            self._next_look = now  # who was hung up on may be back at once
        return excess
