"""Whether a method is quick, decided from the times of its runs, without a thread or a clock."""

from wireproto.answering.pace import PENALTY, PROVEN, SLOW, Pace

QUICK = SLOW / 2


def proven() -> Pace:
    """A method with a record of being quick."""
    pace = Pace(blocking=False)
    for _ in range(PROVEN):
        pace.note(QUICK)
    return pace


def test_a_method_without_a_record_is_timed_and_may_lead_while_it_can_be_deposed() -> None:
    """At first each run is timed; it runs on the leader unless nobody could depose that."""
    pace = Pace(blocking=False)
    for _ in range(PROVEN):
        assert pace.wary
        assert pace.may_lead(short=False)
        assert not pace.may_lead(short=True)
        pace.note(QUICK)
    assert not pace.wary
    assert pace.may_lead(short=True)


def test_a_method_that_was_declared_blocking_never_leads() -> None:
    """Whatever its times are, it is asked about each time and never runs on the leader."""
    pace = Pace(blocking=True)
    for _ in range(2 * PROVEN):
        pace.note(0.0)
    assert pace.wary
    assert not pace.may_lead(short=False)


def test_one_slow_run_keeps_it_away_until_a_quick_one() -> None:
    """A slow run sends the method to a follower; from its next quick run on it may lead again, but is still timed."""
    pace = proven()
    pace.note(SLOW * 1.01)
    assert (pace.wary, pace.quick, pace.may_lead(short=False)) == (True, False, False)
    pace.note(SLOW)  # the limit itself is quick
    assert (pace.quick, pace.may_lead(short=True)) == (True, True)
    assert pace.wary
    for _ in range(PENALTY - 1):
        assert pace.wary
        pace.note(QUICK)
    assert not pace.wary


def test_slow_runs_add_up_to_a_bound() -> None:
    """A method that is always slow is quick again after a bounded number of quick runs, however long it was slow."""
    pace = proven()
    for _ in range(100):
        pace.note(1.0)
    runs = 0
    while not pace.quick:
        pace.note(QUICK)
        runs += 1
    assert runs == 4 * PENALTY - PENALTY + 1


def test_only_what_ran_is_suspected() -> None:
    """After a slow turn a method that ran is timed once more; a second slow turn does not blame it for the first."""
    ran, idle = proven(), proven()
    ran.ran = True
    for pace in (ran, idle):
        pace.suspect()
    assert (ran.wary, idle.wary) == (True, False)
    ran.note(QUICK)
    assert not ran.wary
    ran.suspect()
    assert not ran.wary
