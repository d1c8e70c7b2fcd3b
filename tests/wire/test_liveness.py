"""The clocks of a connection, told the time: who is overdue, who is asked, and who was only asleep."""

import math

import msgspec
import pytest

from tests.wire.peers import HELLO, Pair, drain, opened, raw, started
from wireproto.limits import Limits
from wireproto.wire.connection import Connection
from wireproto.wire.events import HelloReceived
from wireproto.wire.frame import Kind
from wireproto.wire.handshake import Welcome
from wireproto.wire.liveness import (
    CHATTER_PER_FRAME,
    CHATTER_PER_SECOND,
    LATE,
    MAX_CHATTER,
    Liveness,
    Overdue,
)

LIMITS = Limits(hello_timeout=5.0, frame_timeout=5.0, frame_rate=100, write_timeout=10.0, heartbeat=10.0)


def agreed(heartbeat_ms: int) -> Pair:
    """An open pair that has agreed on a heartbeat."""
    pair = started(LIMITS)
    pair.client.send_hello(msgspec.structs.replace(HELLO, heartbeat_ms=heartbeat_ms))
    (event,) = pair.deliver(pair.client)
    assert isinstance(event, HelloReceived)
    pair.server.send_welcome(
        Welcome(version=1, codec=2, max_frame=65_536, max_calls=256, heartbeat_ms=heartbeat_ms, server_name="test")
    )
    pair.deliver(pair.server)
    return pair


def clocks(connection: Connection, *, idle: float = 30.0) -> Liveness:
    return Liveness(connection, LIMITS, 0.0, idle=idle)


def test_a_silent_peer_is_asked_again_and_again_and_then_given_up() -> None:
    """In each heartbeat of silence a PING is due; after three heartbeats the peer is overdue."""
    liveness = clocks(agreed(10_000).server)
    assert not liveness.ping_due(9.9)
    assert liveness.next_look() == 10.0
    assert liveness.ping_due(10.0)
    assert not liveness.ping_due(19.9)
    assert liveness.next_look() == 20.0
    assert liveness.ping_due(20.5)
    assert liveness.next_look() == 30.0
    assert liveness.overdue(29.9) is None
    assert liveness.overdue(30.0) is Overdue.SILENCE
    assert liveness.sentence(Overdue.SILENCE, 30.0) == "nothing was heard for 30 s, and a PING was not answered"
    assert liveness.overdue(30.0, listening=False) is None


def test_a_sign_of_life_begins_the_silence_anew() -> None:
    """Whatever comes, a part of a frame too, is a sign of life, and takes the question back."""
    pair = agreed(10_000)
    liveness = clocks(pair.server)
    assert liveness.ping_due(10.0)
    pair.server.receive_data(raw(Kind.PING, b"12345678")[:9])
    drain(pair.server)
    assert not liveness.look(29.0)
    assert liveness.look(29.5)
    assert liveness.overdue(31.0) is None
    assert liveness.next_look() == 39.0


def test_what_was_agreed_counts_and_no_other_time() -> None:
    """A peer is gone after three of the heartbeats agreed on, however short the idle time is."""
    liveness = clocks(agreed(40_000).server, idle=1.0)
    assert liveness.overdue(39.9) is None
    assert liveness.ping_due(40.0)
    assert liveness.overdue(119.9) is None
    assert liveness.overdue(120.0) is Overdue.SILENCE


def test_a_peer_is_given_two_heartbeats_to_answer() -> None:
    """Who is asked late, because nobody looked in time, has as long to answer as anybody."""
    liveness = clocks(agreed(10_000).server)
    assert liveness.ping_due(25.0)
    assert liveness.next_look() == 35.0
    assert liveness.overdue(44.9) is None
    assert liveness.overdue(45.0) is Overdue.SILENCE


def test_bytes_are_signs_of_life_before_their_frame_is_whole() -> None:
    """A peer that sends a byte of a frame now and then is not silent, though no frame of it is whole."""
    pair = agreed(10_000)
    liveness = clocks(pair.server)
    wire = raw(Kind.REQUEST, bytes(6000), call_id=1)  # which may take a minute
    for second in range(0, 60, 9):
        pair.server.receive_data(wire[second : second + 9])
        assert drain(pair.server) == []
        assert not liveness.look(float(second))
        assert not liveness.ping_due(second + 8.9)
        assert liveness.overdue(second + 8.9) is None


@pytest.mark.parametrize(("idle", "expected"), [(30.0, Overdue.SILENCE), (math.inf, None)])
def test_without_a_heartbeat_the_owner_says_what_silence_means(idle: float, expected: Overdue | None) -> None:
    """A server gives a silent peer up after its idle time; a client that agreed on nothing waits for ever."""
    liveness = clocks(agreed(0).server, idle=idle)
    assert not liveness.ping_due(1e9)
    assert liveness.next_look() == idle
    assert liveness.overdue(29.9) is None
    assert liveness.overdue(30.0) is expected


def test_a_greeting_has_its_time() -> None:
    """HELLO is overdue at its time-out, as long as it is waited for."""
    liveness = clocks(started(LIMITS).server)
    assert liveness.overdue(4.9, greeting=True) is None
    assert liveness.overdue(5.0, greeting=True) is Overdue.HELLO
    assert liveness.overdue(5.0, greeting=False) is None
    assert "no HELLO within 5 s" in liveness.sentence(Overdue.HELLO, 5.0)


def test_a_frame_has_its_time_and_that_of_its_length() -> None:
    """A frame once begun is overdue after the time-out and its length at the least rate; the next one begins anew."""
    pair = opened(LIMITS)
    wire = raw(Kind.REQUEST, bytes(84), call_id=1)  # 100 bytes, which may take a second
    pair.server.receive_data(wire[:20])
    drain(pair.server)
    liveness = clocks(pair.server)
    liveness.look(2.0)
    assert liveness.overdue(7.9) is None
    assert liveness.overdue(8.0) is Overdue.FRAME
    assert "within a frame of 100 bytes" in liveness.sentence(Overdue.FRAME, 8.0)
    pair.server.receive_data(wire[20:] + raw(Kind.REQUEST, bytes(84), call_id=2)[:20])
    drain(pair.server)
    liveness.look(8.0)
    assert liveness.overdue(13.9) is None
    assert liveness.overdue(14.0) is Overdue.FRAME


def test_output_has_its_time_from_the_last_byte_that_was_taken() -> None:
    """A peer that takes nothing is overdue; one that takes a byte now and then is not."""
    liveness = clocks(opened(LIMITS).server, idle=math.inf)
    for now, taken in ((0.0, 0), (9.0, 1), (18.0, 2)):
        liveness.look_at_output(now, True, taken)
        assert liveness.overdue(now + 0.9) is None
    liveness.look_at_output(27.9, True, 2)
    assert liveness.overdue(27.9) is None
    assert liveness.overdue(28.0) is Overdue.WRITING
    assert "it took nothing of what was sent for 10 s" in liveness.sentence(Overdue.WRITING, 28.0)
    liveness.look_at_output(28.0, False, 2)
    assert liveness.overdue(28.0) is None


def test_while_nobody_reads_no_clock_of_the_input_runs() -> None:
    """Silence and the frame that was begun count from when reading goes on."""
    pair = agreed(10_000)
    pair.server.receive_data(raw(Kind.REQUEST, bytes(84), call_id=1)[:20])
    drain(pair.server)
    liveness = clocks(pair.server)
    for now in range(60):
        liveness.look(float(now), reading=False)
        assert liveness.overdue(float(now)) is None
        assert not liveness.ping_due(float(now))
    liveness.look(59.0)
    assert liveness.overdue(64.9) is None
    assert liveness.overdue(65.0) is Overdue.FRAME
    assert not liveness.ping_due(68.9)
    assert liveness.ping_due(69.0)


def test_whoever_slept_blames_nobody() -> None:
    """A look that is late sets every clock forward by as much: what was left of each time is left after it."""
    pair = agreed(10_000)
    pair.server.receive_data(raw(Kind.REQUEST, bytes(84), call_id=1)[:20])
    drain(pair.server)
    liveness = clocks(pair.server)
    liveness.look(1.0)
    liveness.look_at_output(1.0, True, 0)
    slept = 3600.0
    liveness.look(2.0 + slept, late=slept)
    liveness.look_at_output(2.0 + slept, True, 0)
    assert liveness.overdue(2.0 + slept, greeting=True) is None
    assert liveness.overdue(4.9 + slept, greeting=True) is None
    assert liveness.overdue(5.0 + slept, greeting=True) is Overdue.HELLO
    assert liveness.overdue(7.0 + slept) is Overdue.FRAME
    assert liveness.overdue(11.0 + slept) is Overdue.WRITING


def test_whoever_slept_reads_for_a_heartbeat_before_it_judges() -> None:
    """A process that was stopped when the peer was all but given up, for a moment or for an hour, reads before that."""
    for slept in (0.3, 3600.0):
        liveness = clocks(agreed(10_000).server)
        assert liveness.ping_due(10.0)
        assert liveness.look(29.9)
        woken = 29.9 + slept
        assert liveness.look(woken, late=slept)
        assert liveness.overdue(woken + 9.9) is None
        assert liveness.next_look() <= woken + 10.0
        assert liveness.overdue(woken + 10.0) is Overdue.SILENCE


def test_whoever_slept_asks_first() -> None:
    """With nothing begun on either side, a sleep leaves of the silence what was left of it before."""
    liveness = clocks(agreed(10_000).server)
    liveness.look(1.0)
    slept = 3600.0
    liveness.look(2.0 + slept, late=slept)
    assert liveness.overdue(2.0 + slept) is None
    assert not liveness.ping_due(9.9 + slept)
    assert liveness.ping_due(10.0 + slept)
    assert liveness.overdue(29.9 + slept) is None
    assert liveness.overdue(30.0 + slept) is Overdue.SILENCE


def test_a_look_that_is_hardly_late_changes_nothing() -> None:
    """The jitter of a busy machine does not make the clocks slow."""
    liveness = clocks(started(LIMITS).server)
    for now in range(1, 6):
        liveness.look(float(now), late=LATE)
    assert liveness.overdue(5.0, greeting=True) is Overdue.HELLO


CHATTER = [raw(0xF0, bytes(9)), raw(Kind.PONG, b"unasked!")]


def say(side: Connection, *frames: bytes) -> None:
    side.receive_data(b"".join(frames))
    drain(side)


@pytest.mark.parametrize("each", CHATTER, ids=["unknown", "PONG"])
@pytest.mark.parametrize("off", [0, 1])
def test_chatter_is_read_over_up_to_a_limit(each: bytes, off: int) -> None:
    """So many frames that mean nothing may come at once, more as time passes, and more for each other frame."""
    for side in agreed(10_000):
        liveness = clocks(side)
        say(side, each * MAX_CHATTER)
        liveness.look(0.0)
        assert liveness.overdue(0.0) is None
        say(side, raw(Kind.PING, bytes(8)) * 3, each * 3 * CHATTER_PER_FRAME)
        liveness.look(0.0)
        assert liveness.overdue(0.0) is None
        say(side, each * (2 * CHATTER_PER_SECOND + off))
        liveness.look(2.0)
        assert liveness.overdue(2.0) is (Overdue.CHATTER if off else None)


def test_what_may_be_said_at_once_does_not_add_up() -> None:
    """An hour of silence, or of calls, allows no more at once than a moment of it."""
    side = agreed(10_000).server
    liveness = clocks(side)
    say(side, CHATTER[0])
    say(side, raw(Kind.PING, bytes(8)) * 1000)
    for now in range(1, 3600):
        liveness.look(float(now))
    say(side, CHATTER[0] * (MAX_CHATTER + CHATTER_PER_SECOND))
    liveness.look(3600.0)
    assert liveness.overdue(3600.0) is None
    say(side, CHATTER[0])
    liveness.look(3600.0)
    assert liveness.overdue(3600.0) is Overdue.CHATTER
    said = f"it sent {MAX_CHATTER + CHATTER_PER_SECOND + 2} frames that mean nothing, and 1001 others"
    assert liveness.sentence(Overdue.CHATTER, 3600.0) == said


def test_what_came_while_nobody_read_had_time_to_come() -> None:
    """After a pause chatter is allowed for the whole of it, and not for what may be said at once."""
    side = agreed(10_000).server
    liveness = clocks(side)
    liveness.look(100.0, reading=False)
    say(side, CHATTER[1] * (MAX_CHATTER + 50 * CHATTER_PER_SECOND))
    liveness.look(150.0, late=49.0)
    assert liveness.overdue(150.0) is None


def test_a_pong_that_was_asked_for_is_no_chatter() -> None:
    """Each PING lets one PONG come; the next one nobody has asked for."""
    pair = agreed(10_000)
    for _ in range(3):
        pair.server.send_ping(b"heartbea")
    for _ in range(4):
        assert pair.server.frames_ignored == 0
        say(pair.server, CHATTER[1])
    assert pair.server.frames_ignored == 1
