"""Which of many like messages are logged."""

from wireproto import LogLimit


class Clock:
    """Tells the time it was told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_kind_is_logged_once_in_an_interval() -> None:
    """The first is logged, those within ten seconds of it are counted, and the next one tells how many they were."""
    limit = LogLimit(clock=(clock := Clock()))
    assert limit.admit("disk") == ""
    clock.now = 9.9
    assert limit.admit("disk") is None
    assert limit.admit("disk") is None
    clock.now = 10.0
    assert limit.admit("disk") == " (and 2 more like it)"
    clock.now = 20.0
    assert limit.admit("disk") == ""


def test_kinds_do_not_silence_each_other() -> None:
    """Each kind has an interval of its own."""
    limit = LogLimit(1.0, clock=(clock := Clock()))
    assert limit.admit(("10.0.0.1", "handshake")) == ""
    clock.now = 0.5
    assert limit.admit(("10.0.0.2", "handshake")) == ""
    assert limit.admit(("10.0.0.1", "handshake")) is None


def test_kinds_that_are_made_up_cost_no_memory() -> None:
    """Beyond so many kinds all are forgotten; a kind that is known forgets nobody."""
    limit = LogLimit(kinds=3, clock=(clock := Clock()))
    for kind in range(3):
        assert limit.admit(kind) == ""
    clock.now = 10.0
    assert limit.admit(2) == ""
    assert limit.admit(2) is None
    assert limit.admit(3) == ""
    assert limit.admit(2) == ""
