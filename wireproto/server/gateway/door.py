"""What all calls of a gateway share: who answers which path, the pool they run in, the clocks, and the end."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from wireproto.answering.call import Call
from wireproto.answering.pace import Pace
from wireproto.answering.pool import Pool, Worker
from wireproto.answering.refusals import shutting_down
from wireproto.dispatch import Entry, Table
from wireproto.errors import CallError
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.log_limit import LogLimit
from wireproto.schema import Shape
from wireproto.server.gateway.conduct import Conduct
from wireproto.server.gateway.fed import FedRpc, most_fed
from wireproto.server.gateway.halves import HELD, LOOKAHEAD, HalfCalls
from wireproto.server.gateway.hanging_up import HangingUp
from wireproto.server.gateway.metadata import read_headers
from wireproto.server.gateway.one_way import OneWayRpc
from wireproto.server.gateway.rpc import Live, PathTarget, Rpc
from wireproto.server.gateway.seam import CallEvents, Engine, Wire
from wireproto.server.gateway.shares import NetworkShares
from wireproto.server.gateway.turns import Turns
from wireproto.server.gateway.untaken import Untaken
from wireproto.server.life import while_awake
from wireproto.status import Status
from wireproto.wire.frame import HEADER_AFTER_LENGTH, Flag
from wireproto.wire.metadata import Metadata

log = logging.getLogger("wireproto.gateway")

__all__ = ["Door", "Taking", "Versions", "largest"]


QUIET = 0.02
"""Seconds without a new call after which those who would send one have sent it. Callers on this machine and in the same
building need a few milliseconds."""


QUESTIONS = 64
"""Callers of reflection of one network that may wait to ask."""


_KINDS: Final[Mapping[Shape, type[FedRpc | OneWayRpc]]] = {
    Shape.UPLOAD: FedRpc,
    Shape.DUPLEX: FedRpc,
    Shape.ONE_WAY: OneWayRpc,
}
"""What a call of each shape is; a plain ``Rpc`` of the others."""


class Taking(CallEvents, Live, Protocol):
    """A call, as the engine and the door have it."""


def largest(limits: Limits) -> int:
    """Bytes that a payload may have in either direction: what fits one door fits the other."""
    return limits.max_frame - HEADER_AFTER_LENGTH


class Versions:
    """A method in every version of its service.

    Args:
        opcode: of the method.
        tables: by version; the newest one serves calls that ask for none.
        most_metadata: bytes that a call's metadata may have, counted as on the TCP door.
    """

    def __init__(self, opcode: int, tables: Mapping[int, Table], most_metadata: int) -> None:
        self._most_metadata = most_metadata
        self._newest = max(tables)
        self._entries = {
            version: table.entries.get(opcode) or table.missing(opcode) for version, table in tables.items()
        }

    def terms(self, wire: Wire) -> tuple[Entry, Metadata, int]:
        """See ``rpc.PathTarget``."""
        remaining = wire.remaining()
        deadline_ms = None if remaining is None else int(remaining * 1000)
        metadata, version = read_headers(wire.headers, deadline_ms, self._most_metadata)
        if version is None:
            version = self._newest
        entry = self._entries.get(version)
        if not isinstance(entry, Entry):
            raise entry if isinstance(entry, CallError) else self._unsupported(version)
        return entry, metadata, version

    def _unsupported(self, version: int) -> CallError:
        return CallError(
            Status.FAILED_PRECONDITION,
            "UNSUPPORTED_VERSION",
            f"version {version} is not served; the versions {min(self._entries)} to {self._newest} are",
        )


class Door:
    """The calls of a gateway, behind whichever engine.

    Args:
        limits: the gateway's.
        engine: what the calls come through.
        workers: threads that run them, at least 2.

    Attributes:
        methods: what takes a call, by its path.
        one_answer: the paths of those that are no streams.
        halves: the calls whose message is not whole.
        questions: the callers of reflection of whom the next question is awaited.
        fed: the calls of each network whose items follow.
        one_way: the one-way calls of each connection that wait for a worker or run, and those that wait for their turn.
        untaken: the answers that have not been taken, and the calls that wait for that.
        conduct: who has cancelled too much, or sent too much that cannot be understood.
        draining: it closes; new calls are refused.
    """

    def __init__(self, limits: Limits, engine: Engine, workers: int) -> None:
        self.limits = limits
        self.largest = largest(limits)
        self.patience = limits.frame_timeout + self.largest / limits.frame_rate
        self.draining = False
        self.methods: dict[str, Callable[[Wire], Taking]] = {}
        self.one_answer: set[str] = set()
        self.pool = Pool(
            size=workers,
            queue_limit=limits.run_queue,
            poller=engine.poller,
            on_events=engine.on_events,
            on_slow_turn=self._suspect,
            on_tick=self._sweep,
            on_stuck=_took_long,
            name="wireproto-grpc",
        )
        self.halves = HalfCalls(HELD // 2, HELD // 4, self.largest)
        self.questions = HalfCalls(HELD // 4 - QUESTIONS * LOOKAHEAD, QUESTIONS * LOOKAHEAD, self.largest)
        self.fed = NetworkShares(most_fed(self.largest))
        self.one_way = Turns(limits.one_way_calls)
        self.untaken = Untaken(limits.high_watermark)
        self.conduct = Conduct(limits, self.hang_up)
        self._paces: list[Pace] = []
        self._live: set[Taking] = set()
        self._alarm_at = math.inf
        self._log_limit = LogLimit()
        self._empty = threading.Event()
        self._hanging_up: HangingUp | None = None
        self._spoke: set[str] = set()
        self._late_lock = threading.Lock()
        self._late: list[Live] | None = []
        self._latest = 0.0

    def serve(self, path: str, served: PathTarget, shape: Shape) -> None:
        """Have a path answered by a method."""
        kind = _KINDS.get(shape, Rpc)
        self.methods[path] = lambda wire: kind(self, wire, served)
        if Flag.ITEMS_COME_BACK not in shape.flags:
            self.one_answer.add(path)

    def keep_pace(self, entries: Iterable[Entry]) -> None:
        """Have what is served here know how quick it is."""
        for entry in entries:
            entry.pace = Pace(entry.blocking)
            self._paces.append(entry.pace)

    def listens(self, port: int) -> None:
        """The engine listens there."""
        self._hanging_up = HangingUp(self.pool, port, self.limits)
        self._spoke = self._hanging_up.spoke

    def hang_up(self, peer: str, why: str = "nothing is taken of what is sent") -> None:
        """End the connection of a peer. Any thread."""
        host = peer.rpartition(":")[0]
        more = self._log_limit.admit((host, why))
        if more is not None:
            log.warning("%s: %s; hung up%s", host, why, more)
        if self._hanging_up is not None:
            self._hanging_up.add(peer)

    # ------------------------------------------------------------------ for the engine

    def begin(self, wire: Wire) -> CallEvents | None:
        """A call has come; see ``seam.Begin``."""
        if self.conduct.reckless(wire.peer):
            return None  # there is nobody to be told
        self._spoke.add(wire.peer)
        take = self.methods.get(wire.path)
        call: Taking = Rpc(self, wire, None) if take is None else take(wire)
        self._live.add(call)
        if take is None:
            self.conduct.note(wire.peer, "errors")
            call.refuse(CallError(Status.UNIMPLEMENTED, "", f"there is no method {wire.path[:256]} here"))
        elif self.draining:
            self._come_too_late(call)
        else:
            call.ask()
        return call

    def _come_too_late(self, call: Live) -> None:
        with self._late_lock:
            if self._late is not None:
                self._late.append(call)
                self._latest = time.monotonic()
                return
        call.refuse(shutting_down())

    # ------------------------------------------------------------------ for the calls

    def expect(self, deadline: float) -> None:
        """See ``rpc.RpcOwner``. What is due after the next sweep needs no alarm of its own."""
        if deadline < min(self._alarm_at, self.pool.next_tick):
            self._alarm_at = deadline
            self.pool.alarm(deadline, self._expire)

    def _expire(self, now: float) -> None:
        """A deadline is up, or was when the alarm was set; called by the watchdog."""
        if now < self._alarm_at:
            return  # it was set before another one that came sooner, and what is left has an alarm of its own
        self._alarm_at = math.inf
        soonest = min((call.expire(now) for call in list(self._live)), default=math.inf)
        self.expect(soonest)

    def identity_revoked(self, identity: Identity) -> None:
        """See ``identity.Holder``."""
        for call in list(self._live):
            call.revoke(identity)

    def leads(self, pace: Pace, worker: Worker | None) -> bool:
        """See ``rpc.RpcOwner``. Where nobody leads, nobody can be deposed: only what is known to be quick runs."""
        return not pace.wary or pace.may_lead(worker is None or self.pool.short)

    def forget(self, call: Live) -> None:
        """See ``rpc.RpcOwner``."""
        self._live.discard(call)
        if self.draining and not self._live:
            self._empty.set()

    def note_one_way(self, peer: str, error: CallError) -> None:
        """See ``rpc.RpcOwner``."""
        host = peer.rpartition(":")[0]
        more = self._log_limit.admit((host, "one-way"))
        if more is not None:
            # ascii: what a caller sent may be quoted, and a log line must stay one line.
            log.warning("%s: a one-way call failed: %s%s", host, ascii(str(error)[:256])[1:-1], more)

    # ------------------------------------------------------------------ clocks and the end

    def drain(self) -> None:
        """Refuse what comes from now on, and end what has no end of its own."""
        self._latest = time.monotonic()
        self.draining = True
        for call in list(self._live):
            call.drain()
        if not self._live:
            self._empty.set()

    def settle(self, timeout: float) -> None:
        """Keep the calls that come, until none has come for a while; at most ``timeout`` seconds."""
        until = time.monotonic() + timeout
        pause = threading.Event()
        while (now := time.monotonic()) < until and now - self._latest < QUIET:
            pause.wait(QUIET / 4)  # for what does not come; nothing could tell

    def dismiss(self) -> None:
        """Refuse what was kept, what is not whole, and what comes from now on."""
        with self._late_lock:
            late, self._late = self._late or [], None
        for call in late:
            call.refuse(shutting_down())
        for call in list(self._live):
            call.dismiss()

    def wait(self, timeout: float) -> None:
        """Wait for the calls in flight, at most ``timeout`` seconds in which the process runs."""
        while_awake(self._empty.wait, timeout)

    def cut(self) -> None:
        """End what is left, in words."""
        for call in list(self._live):
            call.cut()

    def abandon(self) -> None:
        """The engine has ended, and tells nothing any more: let go of what it has not told the end of."""
        for call in list(self._live):
            call.on_over()

    def _sweep(self, late: float) -> None:
        now = time.monotonic()
        for call in list(self._live):
            call.sweep(now - late)
        self._alarm_at = now
        self._expire(now)
        self.halves.sweep(now - late)
        self.questions.sweep(now - late)
        if self._hanging_up is not None:
            self._hanging_up.look(now)

    def _suspect(self) -> None:
        for pace in self._paces:
            pace.suspect()


def _took_long(running: object) -> None:
    """The leader was deposed in a handler."""
    if isinstance(running, Call):
        running.session.take_over()
