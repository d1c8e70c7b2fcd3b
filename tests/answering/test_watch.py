"""When the watchdog looks, and what it finds, told the time: no thread and no clock."""

from dataclasses import dataclass, field

from wireproto.answering.watch import CALM, IDLE_LOOKS, QUIET, STUCK, Watch


@dataclass
class FakeLeader:
    running: object | None = None


@dataclass
class FakePool:
    leader: FakeLeader | None = field(default_factory=FakeLeader)
    turn_began: float = 0.0
    slow_turns: int = 0


def test_a_leader_that_two_looks_find_in_one_handler_is_stuck() -> None:
    """One look proves nothing; the second one in the same run does, of the same leader."""
    pool = FakePool()
    watch = Watch(pool, 0.0)
    assert pool.leader is not None
    pool.leader.running = handler = object()
    assert watch.stuck(1.0) is None
    assert watch.stuck(1.002) == (pool.leader, handler)


def test_another_run_or_another_leader_is_not_stuck() -> None:
    """A leader that has gone on between two looks is well, whatever it runs then; so is another leader in its place."""
    pool = FakePool()
    watch = Watch(pool, 0.0)
    assert pool.leader is not None
    for number in range(3):
        pool.leader.running = object()
        assert watch.stuck(float(number)) is None
    pool.leader = FakeLeader(running=pool.leader.running)
    assert watch.stuck(4.0) is None
    pool.leader = None
    assert watch.stuck(5.0) is None
    pool.leader = FakeLeader()
    assert watch.stuck(6.0) is None


def test_quiet_times_have_fewer_looks() -> None:
    """After a second without a slow turn the next look comes later, until a turn is slow or a leader was deposed."""
    pool = FakePool()
    watch = Watch(pool, 0.0)
    assert watch.next_look(QUIET) == STUCK
    assert watch.next_look(QUIET + 0.001) == CALM
    pool.slow_turns = 1
    watch.stuck(5.0)
    assert watch.next_look(5.0 + QUIET) == STUCK
    assert watch.next_look(5.1 + QUIET) == CALM
    watch.deposed(9.0)
    assert watch.next_look(9.0 + QUIET) == STUCK


def test_a_turn_that_is_old_is_looked_at_again_soon() -> None:
    """In quiet times, too, the second look at a run comes at once when its turn is as old as a stuck one's."""
    pool = FakePool(turn_began=10.0)
    watch = Watch(pool, 0.0)
    assert pool.leader is not None
    pool.leader.running = object()
    watch.stuck(10.001)
    assert watch.next_look(10.001) == CALM
    assert watch.next_look(10.002) == STUCK
    pool.leader.running = None
    watch.stuck(10.003)
    assert watch.next_look(10.003) == CALM


def test_it_rests_while_nothing_runs() -> None:
    """After so many looks without anything running there are none until there is work again."""
    pool = FakePool()
    watch = Watch(pool, 0.0)
    for _ in range(IDLE_LOOKS + 1):
        assert watch.next_look(0.0) is not None
        watch.stuck(0.0)
    assert watch.next_look(0.0) is None
    watch.work_again()
    assert watch.next_look(0.0) is not None
    watch.stuck(0.0)
    assert watch.next_look(0.0) is not None
