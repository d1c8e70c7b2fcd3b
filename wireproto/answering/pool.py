"""The workers: one of them leads (polls, reads, runs quick handlers), the others follow (run what may block).

The leader runs the handlers of the frames it read on its own thread, so a quick call costs no hand-off, no second
thread and no re-arming. What may block goes to a follower: a method declared ``blocking``, one that was slow lately
(``pace.py``), an iterator stream. What blocks unexpectedly is met by the watchdog (``watch.py``): when two of its looks
find the leader in the same handler, it is deposed, a follower leads on, and the old leader follows once its handler
returns.

Somebody always leads. One follower is kept back for that when the pool has four workers or more; while none is left to
depose the leader, it runs only methods with a record of being quick, and everything else waits in the run queue, which
workers drain before they follow.

Lock order: a session's lock may be held when the pool's is taken, never the other way round; no user code runs under
either.
"""

import logging
import math
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from wireproto.answering.alarms import Alarms
from wireproto.answering.pace import SLOW
from wireproto.answering.watch import Leader, Watch

__all__ = ["Job", "Pool", "Waits", "Worker"]

log = logging.getLogger("wireproto.answering")


class Job(Protocol):
    """What a follower may be given: something that may block."""

    def run_blocking(self) -> None: ...


class Waits(Protocol):
    """What the leader waits on: see ``poller.Poller``."""

    def poll(self, timeout: float) -> list[Any]:
        """Wait at most ``timeout`` seconds (-1: for ever) for what there is to do; a wake gives an empty list."""

    def put_back(self, events: list[Any]) -> None:
        """Have what a poll gave given again: who took it may not deal with it any more."""

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""


class Worker(threading.Thread):
    """A thread of the pool.

    Attributes:
        running: what the worker runs as the leader and may block in: a call, or a posted action; None otherwise. Each
            is an object of its own, so that the watchdog can tell one from the next.
    """

    def __init__(self, pool: "Pool", number: int) -> None:
        super().__init__(name=f"{pool.name}-worker-{number}", daemon=True)
        self.pool = pool
        self.gate = threading.Lock()
        self.gate.acquire()
        self.job: Job | None = None
        self.running: object | None = None

    def run(self) -> None:
        self.pool.work(self)


class Pool:
    """A fixed number of workers around one poller.

    Args:
        size: workers, at least 2.
        queue_limit: jobs that may wait for a follower; beyond it ``submit`` refuses.
        poller: what the leader waits on.
        on_events: called by the leader with (worker, events).
        on_slow_turn: called by the leader after a turn in which something took more than ``SLOW``, or many things did.
        on_tick: called by the watchdog thread every ``tick`` seconds, with the seconds by which it is late.
        on_stuck: called by the watchdog with what a deposed leader is ``running``.
        tick: seconds between two ticks.
        name: what its threads' names begin with.

    Attributes:
        leader: the worker that leads; None for a moment when nobody does.
        turn_began: when the leader's turn began (monotonic).
        slow_turns: turns so far in which something took more than ``SLOW``, or many things did.
        next_tick: when ``on_tick`` is called next (monotonic). What is due later needs no alarm before that.
    """

    def __init__(
        self,
        *,
        size: int,
        queue_limit: int,
        poller: Waits,
        on_events: Callable[[Worker, list[Any]], None],
        on_slow_turn: Callable[[], None],
        on_tick: Callable[[float], None],
        on_stuck: Callable[[object], None],
        tick: float = 0.25,
        name: str = "wireproto",
    ) -> None:
        self.name = name
        self._poller = poller
        self._on_events = on_events
        self._on_slow_turn = on_slow_turn
        self._on_tick = on_tick
        self._on_stuck = on_stuck
        self._tick = tick
        self._lock = threading.Lock()
        self._queue: deque[Job] = deque()
        self._queue_limit = queue_limit
        self._pulling = 0
        self._pullers: dict[str, int] = {}  # how many pull for each owner
        self._pulls: dict[str, deque[Job]] = {}  # those that wait, by owner; whose turn is next comes first
        self._parked: list[Worker] = []  # last in, first out: the worker whose caches are warm
        self._reserve = 1 if size >= 4 else 0
        # Half the pool, but one follower for blocking calls where there is more than one.
        self._pull_limit = max(1, min(size // 2, size - 2 - self._reserve))
        self._pull_share = max(1, self._pull_limit // 2)
        self._posted: deque[Callable[[Worker], None]] = deque()
        self._sleeping = False
        self._stopping = False
        self._over = False  # nobody leads any more
        self.turn_began = 0.0  # at the end of a poll
        self.slow_turns = 0
        self.leader: Worker | None = None
        self._workers = [Worker(self, number) for number in range(size)]
        self.next_tick = 0.0
        self._alarms = Alarms()
        self._sleeps_until = math.inf  # of the watchdog
        self._watching = False
        self._watch_gate = threading.Lock()
        self._watch_gate.acquire()
        self._watchdog = threading.Thread(target=self._guard, name=f"{name}-watchdog", daemon=True)

    def start(self) -> None:
        self.next_tick = time.monotonic() + self._tick
        for worker in self._workers:
            worker.start()
        self._watchdog.start()

    # ------------------------------------------------------------------ for any thread

    @property
    def short(self) -> bool:
        """Whether nobody could depose the leader now, so that it must run only what is known to be quick."""
        return not self._parked

    def post(self, action: Callable[[Worker], None]) -> None:
        """Have the leader run ``action``, soon and at the back of what it has to do. It must not block."""
        self._posted.append(action)
        # The leader sets _sleeping before it looks at _posted for the last time, so one of the two sees the other.
        if self._sleeping:
            self._sleeping = False
            self._poller.wake()

    def alarm(self, when: float, action: Callable[[float], None]) -> None:
        """Have the watchdog call ``action`` with the time, at ``when`` (monotonic) or a few milliseconds after it. It
        must not block.
        """
        self._alarms.add(when, action)
        # The watchdog writes _sleeps_until before it looks at the alarms for the last time, so one sees the other.
        if when < self._sleeps_until:
            self._open_watch_gate()

    def submit(self, job: Job, *, always: bool = False) -> bool:
        """Have a follower run ``job``, which may block.

        Returns:
            False when no follower is free and the run queue is full; never with ``always``, for jobs bounded elsewhere.
        """
        with self._lock:
            if len(self._parked) > self._reserve:
                worker = self._parked.pop()
                worker.job = job
                worker.gate.release()
                return True
            if len(self._queue) >= self._queue_limit and not always:
                return False
            self._queue.append(job)
            return True

    def withdraw(self, job: Job) -> None:
        """Take a job out of the run queue, if it waits there: there is nothing left to do."""
        with self._lock:
            try:
                self._queue.remove(job)
            except ValueError:
                pass  # a worker has it, or it never waited here

    def withdraw_pull(self, job: Job, owner: str) -> bool:
        """Take a job of ``submit_pull`` out, if it waits for its turn: whether it did, and is never run."""
        with self._lock:
            waiting = self._pulls.get(owner)
            if waiting is None or job not in waiting:
                return False
            waiting.remove(job)
            if not waiting:
                del self._pulls[owner]
            return True

    def submit_pull(self, job: Job, owner: str) -> None:
        """Have a follower pull a stream's source, or run a handler that iterates, which may block. At most half the
        pool does so at once, and at most half of that for one owner while another one waits.

        Each is one stream or upload in flight, so that the calls in flight bound how many wait: one that ends before
        its turn is taken out.

        Args:
            job: what is run.
            owner: the connection whose call it is.
        """
        with self._lock:
            if self._pulling >= self._pull_limit:
                self._pulls.setdefault(owner, deque()).append(job)
                return
            self._begin_pull(owner)
        self.submit(job, always=True)

    def pull_ended(self, owner: str) -> None:
        """A job of ``submit_pull`` is through; called by itself, exactly once."""
        jobs = []
        with self._lock:
            self._pulling -= 1
            self._pullers[owner] -= 1
            if not self._pullers[owner]:
                del self._pullers[owner]
            while self._pulls and self._pulling < self._pull_limit:
                jobs.append(self._next_pull())
        for job in jobs:
            self.submit(job, always=True)

    def _has_its_share(self, owner: str) -> bool:
        return self._pullers.get(owner, 0) >= self._pull_share

    def _begin_pull(self, owner: str) -> None:
        self._pulling += 1
        self._pullers[owner] = self._pullers.get(owner, 0) + 1

    def _next_pull(self) -> Job:
        """Of those that wait: the owners take turns, but those that have their share come after the others."""
        owner = next((each for each in self._pulls if not self._has_its_share(each)), next(iter(self._pulls)))
        waiting = self._pulls.pop(owner)
        job = waiting.popleft()
        if waiting:
            self._pulls[owner] = waiting  # behind the other owners
        self._begin_pull(owner)
        return job

    def stop(self, deadline: float) -> list[str]:
        """End all workers; the names of the threads that were still busy at ``deadline`` (monotonic)."""
        with self._lock:
            self._stopping = True
            parked, self._parked = self._parked, []
            for worker in parked:
                worker.gate.release()
        self._poller.wake()
        self._open_watch_gate()
        threads = [*self._workers, self._watchdog]
        for thread in threads:
            # Not alive is one that was never started, and one that a signal's handler finds on its way: it then ends.
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._over = True
        # Nobody leads any more: what was posted last, closing sources above all, is run here.
        self._run_all_posted()
        return [thread.name for thread in threads if thread.is_alive()]

    def run_late(self) -> None:
        """For whoever has posted or submitted what others wait for, and may have come behind ``stop``: a thread of its
        own then runs that. Before the stop this does nothing.
        """
        if self._over:
            start_new_thread(self._run_rest, ())

    def _run_all_posted(self) -> None:
        spare = Worker(self, len(self._workers))
        while self._posted:
            self._run_posted(spare)

    def _run_rest(self) -> None:
        self._run_all_posted()
        while True:
            with self._lock:
                if not self._queue:
                    return
                job = self._queue.popleft()
            self._run_job(job)

    # ------------------------------------------------------------------ the workers' own

    def work(self, me: Worker) -> None:
        """The life of a worker: refill the reserve, else drain the run queue, else lead if nobody does, else follow."""
        while True:
            lead = False
            with self._lock:
                job = me.job
                me.job = None
                if job is None and self.leader is not me:
                    # The reserve goes first: a queue that is never empty must not keep the leader from being deposed.
                    if self._queue and (len(self._parked) >= self._reserve or self._stopping):
                        job = self._queue.popleft()
                    elif self._stopping:
                        return
                    elif self.leader is None:
                        self.leader = me
                    else:
                        self._parked.append(me)
                lead = self.leader is me
            if job is not None:
                self._run_job(job)
            elif lead:
                self._lead(me)
            else:
                me.gate.acquire()

    def _run_job(self, job: Job) -> None:
        try:
            job.run_blocking()
        except BaseException:  # SystemExit too: a worker that left would be missed for ever
            log.exception("a job failed outside its handler; please report this")

    def _lead(self, me: Worker) -> None:
        posted = self._posted
        poller = self._poller
        clock = time.monotonic
        self.turn_began = clock()
        while self.leader is me:
            if self._stopping:
                with self._lock:
                    if self.leader is me:
                        self.leader = None
                # The wake of `stop` may have been taken just now, while a deposed leader still waits for it.
                poller.wake()
                return
            # As many as there are now: what they post in turn waits for the descriptors that are ready.
            for _ in range(len(posted)):
                self._run_posted(me)
                if self.leader is not me:
                    return
            try:
                if clock() - self.turn_began > SLOW:  # when all together were quick, each was
                    self.slow_turns += 1
                    self._on_slow_turn()
                self._sleeping = True
                events = poller.poll(0 if posted or self._stopping else -1)
                self._sleeping = False
                self.turn_began = clock()
                if self.leader is not me:
                    # Deposed on the way here, by a watchdog that looked a moment earlier. A wake is not reported again,
                    # and may have been the new leader's.
                    poller.put_back(events)
                    poller.wake()
                    return
                if not self._watching:
                    self._watching = True
                    self._open_watch_gate()
                if events:
                    self._on_events(me, events)
            except BaseException:  # SystemExit too: without a leader nothing goes on
                log.exception("the leader failed outside a handler; please report this")

    def _run_posted(self, me: Worker) -> None:
        try:
            action = self._posted.popleft()
        except IndexError:
            return  # a deposed leader took the last one
        me.running = action
        try:
            action(me)
        except BaseException:  # it may be a callback of the user's, and the leader must lead on
            log.exception("a posted action failed; please report this")
        me.running = None

    def _open_watch_gate(self) -> None:
        """Wake the watchdog; it looks what there is to do, and finding nothing sleeps again."""
        try:
            self._watch_gate.release()
        except RuntimeError:
            pass  # it is open, by another thread's doing

    def _guard(self) -> None:
        """The life of the watchdog: depose a leader that is stuck, run alarms, and tick."""
        now = time.monotonic()
        watch = Watch(self, now)
        next_look = now
        while not self._stopping:
            if next_look == math.inf:
                self._watching = False
            self._sleeps_until = math.inf
            self._sleeps_until = until = min(next_look, self.next_tick, self._alarms.next())
            self._watch_gate.acquire(timeout=max(0.0, until - now))
            try:
                now = time.monotonic()
                if next_look == math.inf and self._watching:  # the leader has opened the gate
                    watch.work_again()
                    next_look = now
                if now >= next_look:
                    next_look = self._look(watch, now)
                self._alarms.run(now)
                if now >= self.next_tick:
                    late = now - self.next_tick
                    # First: a call that begins behind the tick's back sees that it is to set an alarm by itself.
                    self.next_tick = now + self._tick
                    self._on_tick(late)
            except Exception:
                log.exception("the watchdog failed and goes on; please report this")

    def _look(self, watch: Watch, now: float) -> float:
        """Depose the leader if it is stuck; when to look next."""
        found = watch.stuck(now)
        if found is not None and self._depose(*found):
            watch.deposed(now)
            self._on_stuck(found[1])
        pause = watch.next_look(now)
        return math.inf if pause is None else now + pause

    def _depose(self, leader: Leader, running: object) -> bool:
        with self._lock:
            if self.leader is not leader or not self._parked or leader.running is not running:
                return False
            self.leader = self._parked.pop()
            self.leader.gate.release()
            return True
