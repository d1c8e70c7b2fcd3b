"""Calls whose message is not whole: what a peer has not proven costs it a share, and never the whole.

gRPC's core gives a message the room that it needs as soon as somebody asks for it, and says nothing until it is whole;
one that nobody asks for gets ``LOOKAHEAD``. So what half messages hold is bounded by how many are asked for at once. A
network has so many turns that messages of the largest size fill half of ``HELD``; the calls beyond wait, and fill a
quarter at most; and the last quarter is for those who ask one thing after another, as reflection's callers do, which
have turns of their own because they keep them while they ask nothing.

Whole messages are through with their turn at once. Where they are not, a connection that has sent a whole message
before, or has no other half call, goes before those of which neither is so, and one that has fewer turns before one
that has more. Nobody can tell a message that is slow from one that never comes: whoever has to give way for that is
told to try again, and has to prove itself anew.
"""

import functools
import ipaddress
import itertools
import threading
import time
from collections import OrderedDict, deque
from typing import Protocol, TypeAlias

from wireproto.answering.refusals import busy
from wireproto.errors import CallError

__all__ = ["HELD", "LOOKAHEAD", "Half", "HalfCalls", "network_of"]

HELD = 16 * 1024 * 1024
"""Bytes that the half messages of one network hold at most; one message, where that is larger than half of it."""

LOOKAHEAD = 8 * 1024
"""Bytes that a caller may send of a message before anybody asks for it."""

SETTLED = 0.05
"""Seconds in which a message that is there is whole, however busy this process is: sooner a call gives no turn up."""

TURN = 0.2
"""Seconds after which a call that waits is given the turn of another, if its connection has fewer; and after which one
that has proven itself gives its turn to a newcomer that has none."""

PROVEN = 1024
"""Connections of a network of which is remembered that they have sent a whole message."""

NETWORKS = 4096
"""Networks of which is remembered who has proven itself."""

_BUSY = "too many requests of your network are not whole; send each without a pause, and try again"


class Half(Protocol):
    """A call before its message.

    Attributes:
        peer: its connection, as the caller's ``host:port``.
    """

    peer: str

    def read(self) -> None:
        """It is its turn: ask for the message."""

    def refuse(self, error: CallError) -> None:
        """It has to give way."""


_Queues: TypeAlias = "OrderedDict[str, deque[tuple[float, Half]]]"


class _Network:
    """The half calls of one.

    Args:
        turns: calls that may read at once; those of connections that have not proven themselves have half of them.

    Attributes:
        proven: connections that have sent a whole message, the latest last.
        count: how many calls wait.
    """

    __slots__ = ("_most", "_most_strange", "_reading", "_strange", "_turns", "_waiting", "count", "proven")

    def __init__(self, turns: int) -> None:
        self._most = turns
        self._most_strange = max(1, turns // 2)
        self._reading: dict[Half, tuple[float, bool]] = {}  # since when, and whether strange, in the order of time
        self._turns: dict[str, int] = {}
        self._strange = 0
        # By connection: of strangers, and of those that have proven themselves.
        self._waiting: tuple[_Queues, _Queues] = (OrderedDict(), OrderedDict())
        self.proven: OrderedDict[str, None] = OrderedDict()
        self.count = 0

    @property
    def idle(self) -> bool:
        """Nobody reads."""
        return not self._reading

    def free(self, peer: str) -> bool:
        """Whether there is a turn that a call of the connection may have."""
        return len(self._reading) < self._most and (peer in self.proven or self._strange < self._most_strange)

    def begin(self, half: Half, now: float) -> None:
        """It has a turn."""
        strange = half.peer not in self.proven
        self._reading[half] = (now, strange)
        self._strange += strange
        self._turns[half.peer] = self._turns.get(half.peer, 0) + 1

    def end(self, half: Half) -> bool:
        """It gives its turn back; whether it had one."""
        found = self._reading.pop(half, None)
        if found is None:
            return False
        self._strange -= found[1]
        left = self._turns[half.peer] - 1
        if left:
            self._turns[half.peer] = left
        else:
            del self._turns[half.peer]
        return True

    def wait(self, half: Half, now: float) -> None:
        """It waits for a turn; those of a connection that has proven itself go before others."""
        self._queues(half.peer).setdefault(half.peer, deque()).append((now, half))
        self.count += 1

    def forget(self, half: Half) -> None:
        """It waits no more."""
        queue = self._queues(half.peer).get(half.peer, ())
        for place, (_, each) in enumerate(queue):
            if each is half:
                del queue[place]  # type: ignore[union-attr]
                self._took(half.peer)
                return

    def next(self) -> Half | None:
        """Whose turn it is now, if there is one to be had; its connection comes last again."""
        for queues in reversed(self._waiting):
            if queues:
                peer = next(iter(queues))
                if self.free(peer):
                    _, half = queues[peer].popleft()
                    queues.move_to_end(peer)
                    self._took(peer)
                    return half
        return None

    def _queues(self, peer: str) -> _Queues:
        return self._waiting[peer in self.proven]

    def _took(self, peer: str) -> None:
        self.count -= 1
        queues = self._queues(peer)
        if not queues[peer]:
            del queues[peer]

    def prove(self, peer: str) -> None:
        """It has sent a whole message."""
        if peer in self.proven:
            self.proven.move_to_end(peer)
            return
        strangers, known = self._waiting
        if peer in strangers:
            known[peer] = strangers.pop(peer)
        if len(self.proven) >= PROVEN:
            self.disprove(next(iter(self.proven)))
        self.proven[peer] = None

    def disprove(self, peer: str) -> None:
        """It is a stranger again."""
        if self.proven.pop(peer, self) is None:
            strangers, known = self._waiting
            if peer in known:
                strangers[peer] = known.pop(peer)

    def give_up(self, half: Half) -> None:
        """Its turn is another's, for it has not used it."""
        self.end(half)
        self.disprove(half.peer)

    def giving_way(self, peer: str, now: float) -> Half | None:
        """Whose turn a newcomer has, if anybody's: of those that had it for a while without a whole message."""
        known = peer in self.proven
        alone = not (peer in self._turns or peer in self._queues(peer))
        for half, (began, strange) in self._reading.items():
            if now - began <= SETTLED:
                break
            if strange and (known or alone):
                return half
        if not self._reading:
            return None
        oldest = next(iter(self._reading))
        if alone and now - self._reading[oldest][0] > TURN and (known or self._strange < self._most_strange):
            return oldest
        return self.oldest_of_the_dearest(self._turns.get(peer, 0) + 1, now)

    def oldest_of_the_dearest(self, fewer: int, now: float) -> Half | None:
        """The oldest of the connection that has most turns, if that has more than ``fewer`` and for a while."""
        peer, most = max(self._turns.items(), key=lambda each: each[1], default=("", 0))
        if most <= fewer:
            return None
        oldest = next(half for half in self._reading if half.peer == peer)
        return oldest if now - self._reading[oldest][0] > SETTLED else None

    def drop_newest(self, peer: str) -> Half | None:
        """Take out the newest of the connection that has most waiting calls, if it has more than this one will have."""
        fewer = len(self._queues(peer).get(peer, ())) + 1
        every = itertools.chain(*(queues.items() for queues in self._waiting))
        dearest, queue = max(every, key=lambda each: len(each[1]))
        if len(queue) <= fewer:
            return None
        _, half = queue.pop()
        self._took(dearest)
        return half

    def exchange(self, now: float) -> list[tuple[Half, Half]]:
        """Who gives way to whom of those that have waited for long, both of which is done.

        Whoever has fewest calls waiting is first, and last of its like once it had a turn, so that nobody is overlooked
        for ever. A connection that has let its turn go by for as long is a stranger again.
        """
        for half, (began, _) in self._reading.items():
            if now - began > TURN:
                self.disprove(half.peer)
        found = []
        for queues in reversed(self._waiting):
            for peer, queue in sorted(queues.items(), key=lambda each: len(each[1])):
                since, half = queue[0]
                turns = self._turns.get(peer, 0)
                given_up = self.oldest_of_the_dearest(turns, now)
                if given_up is None:
                    continue
                strange = self._reading[given_up][1]
                if now - since > (SETTLED if strange and not turns else TURN):
                    self.give_up(given_up)
                    self.forget(half)
                    if peer in queues:
                        queues.move_to_end(peer)
                    self.begin(half, now)
                    found.append((given_up, half))
        return found


class HalfCalls:
    """All half calls of a door. Thread-safe; calls are asked to read, and to give way, without its lock.

    Args:
        reading: bytes that those which are asked for may hold.
        waiting: bytes that the others may hold.
        largest: bytes that a message may have.
    """

    def __init__(self, reading: int, waiting: int, largest: int) -> None:
        self._turns = max(1, reading // largest)
        self._most_waiting = max(1, waiting // LOOKAHEAD)
        self._lock = threading.Lock()
        self._networks: dict[str, _Network] = {}

    def enter(self, half: Half) -> bool:
        """A call wants its message, and reads now or when it is its turn; whether it does now."""
        now = time.monotonic()
        reads, given_up = True, None
        with self._lock:
            network = self._network_locked(half)
            if not network.free(half.peer):
                given_up = network.giving_way(half.peer, now)
                if given_up is not None:
                    network.give_up(given_up)
                else:
                    reads = False
                    if network.count >= self._most_waiting:
                        given_up = network.drop_newest(half.peer) or half
                    if given_up is not half:
                        network.wait(half, now)
            if reads:
                network.begin(half, now)
        if given_up is not None:
            given_up.refuse(busy(_BUSY))
        if reads:
            half.read()
        return reads

    def leave(self, half: Half, *, whole: bool = False) -> None:
        """It has its message, which is ``whole``, or is over. To leave again does nothing."""
        readers: list[Half] = []
        with self._lock:
            network = self._network_locked(half)
            if whole:
                network.prove(half.peer)
            if not network.end(half) and not whole:
                network.forget(half)
            while network.count and (reader := network.next()) is not None:
                network.begin(reader, time.monotonic())
                readers.append(reader)
        for reader in readers:
            reader.read()

    def sweep(self, now: float) -> None:
        """Give turns to those that have waited for long; called now and then."""
        with self._lock:
            found = [each for network in self._networks.values() for each in network.exchange(now)]
        for given_up, reader in found:
            given_up.refuse(busy(_BUSY))
            reader.read()

    def _network_locked(self, half: Half) -> _Network:
        key = network_of(half.peer)
        network = self._networks.get(key)
        if network is None:
            if len(self._networks) >= NETWORKS:
                for idle in [each for each, one in self._networks.items() if one.idle and not one.count]:
                    del self._networks[idle]
            network = self._networks[key] = _Network(self._turns)
        return network


@functools.lru_cache(4096)
def network_of(peer: str) -> str:
    """The network of ``host:port``: a /24 of IPv4, a /64 of IPv6; whatever has no such address is one network."""
    try:
        address = ipaddress.ip_address(peer.rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    if address.version == 6 and mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(ipaddress.ip_network((mapped or address, 24), strict=False))
