"""Two sides that keep the rules of calls complete every call, lose no message and end no peer; broken rules are seen.

The rules are those of ``wire_model``. A run of random moves ends by letting everything settle; the same moves are
driven by Hypothesis, which shrinks what fails, and by seeds, which come to more moves in the same time.
"""

import dataclasses
import random
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.properties.wire_model.exchange import (
    ENDINGS,
    ENDS,
    MOVES,
    RARE,
    REFUSALS,
    SCALES,
    Exchange,
    RunEnding,
    first_credits,
    run,
    stretch,
)
from tests.properties.wire_model.frames import (
    Amount,
    CallShape,
    ConnectionEnds,
    CreditExceeded,
    CreditOverflow,
    ModelFrame,
    StrayAnswers,
    TooManyFrames,
    WrongCallId,
    WrongHalf,
)
from tests.properties.wire_model.rules import MOST_THAT_CROSS, Rules, Scale
from tests.properties.wire_model.sides import ModelSide
from wireproto.wire.calls import REFILL, STATES_OF_A_CALL, CallPart, CallState
from wireproto.wire.frame import TOP_BIT, Kind
from wireproto.wire.state import Direction


def broken(switch: str) -> Rules:
    """The rules with one of them turned around."""
    turned: dict[str, Any] = {switch: False}
    return Rules(**turned)


SIDES = st.integers(0, 1)
PLACES = st.integers(0, 11)


class ExchangeMachine(RuleBasedStateMachine):
    """Both programs do what they like, frames arrive in order, and in the end everything settles."""

    judged_by: ClassVar[Rules] = Rules()

    def make_exchange(self, scale: Scale) -> Exchange:
        """Both sides are the model's; a machine over another wire makes it with sides of its own."""
        return Exchange(scale, self.judged_by)

    @initialize(scale=st.sampled_from(SCALES), ending=st.sampled_from(ENDINGS))
    def connect(self, scale: Scale, ending: RunEnding) -> None:
        """The connection is open; its limits and its end are those of this run."""
        self.exchange = self.make_exchange(scale)
        self.ending = ending

    @rule(to=SIDES, count=st.integers(1, 8))
    def deliver(self, to: int, count: int) -> None:
        """Some frames reach one of the sides."""
        self.exchange.deliver(to, count)

    @rule(who=SIDES, shape=st.sampled_from(CallShape), credit=st.integers(0, 4), refusal=st.sampled_from(REFUSALS))
    def begin(self, who: int, shape: CallShape, credit: int, refusal: str) -> None:
        """Either side begins a call."""
        self.exchange.programs[who].begin(shape, first_credits(self.exchange.scale)[credit], refusal)

    @rule(name=st.sampled_from([name for name in MOVES if name not in RARE]), who=SIDES, at=PLACES)
    def go_on(self, name: str, who: int, at: int) -> None:
        """A call goes on."""
        MOVES[name](self.exchange, who, at)

    @rule(seed=st.integers(0, 2**32), length=st.integers(1, 200))
    def be_busy(self, seed: int, length: int) -> None:
        """Many moves at once: what goes wrong often takes more of them than single rules come to."""
        stretch(self.exchange, random.Random(seed), length)

    @rule(name=st.sampled_from(RARE), who=SIDES, at=PLACES)
    def end_call(self, name: str, who: int, at: int) -> None:
        """A call ends before it is complete."""
        MOVES[name](self.exchange, who, at)

    @precondition(lambda self: self.exchange.frames > 20)
    @rule(name=st.sampled_from(list(ENDS)), who=SIDES)
    def end_direction(self, name: str, who: int) -> None:
        """A side accepts no more calls, or sends nothing more."""
        ENDS[name](self.exchange, who, 0)

    @invariant()
    def handlers_are_bounded(self) -> None:
        """What may pile up is within its limit."""
        self.exchange.check_step()

    def teardown(self) -> None:
        """Everything settles."""
        if hasattr(self, "exchange"):
            self.exchange.finish(self.ending)


ExchangeMachine.TestCase.settings = settings(stateful_step_count=30)
TestExchangeMachine = ExchangeMachine.TestCase


@pytest.mark.parametrize(
    "switch", ["receiver_lets_bytes_overrun", "room_for_crossing", "running_handlers_are_counted_apart"]
)
def test_the_machine_finds_a_broken_rule(switch: str) -> None:
    """Hypothesis drives the same moves to a fault; the seeds below find each of them in less time."""

    class BrokenMachine(ExchangeMachine):
        judged_by = broken(switch)

    tried = settings(
        max_examples=300,
        stateful_step_count=30,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises((AssertionError, ConnectionEnds)):
        run_state_machine_as_test(BrokenMachine, settings=tried)


# Seeded runs.

SWITCHES = [each.name for each in dataclasses.fields(Rules) if each.name != "table"]
"""Each rule beside the table, turned around: a planted fault."""

RECEIVED = [
    pytest.param(key, kind, id=f"{key[0].value} {key[1].value} {Kind(kind).name}")
    for key, steps in STATES_OF_A_CALL.items()
    if key[2] is Direction.RECEIVE
    for kind in steps
]
"""Each frame that a side must understand in a state; a table without it is a planted fault, too."""


def runs_until_found(rules: Rules) -> int | None:
    """How many runs it takes until two sides with these rules fail; None if a thousand pass."""
    for seed in range(1_000):
        try:
            run(seed, rules)
        except (AssertionError, ConnectionEnds):
            return seed + 1
    return None


@pytest.mark.parametrize("runs", [200, pytest.param(1_000, marks=pytest.mark.long)])
def test_sides_that_keep_the_rules_complete_everything(runs: int) -> None:
    """Seeded runs, 1,200 moves each, end with no call stuck, no message lost and no peer ended."""
    for seed in range(runs):
        run(seed, Rules())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_sides_that_keep_the_rules_complete_everything_for_long() -> None:
    """Ten million moves, a million frames, in runs of 300, 1,200 and 6,000 moves."""
    moves = 0
    for seed in range(1_000, 5_100):
        stretches = (5, 20, 100)[seed % 3]
        moves += run(seed, Rules(), stretches).moves
    assert moves > 10_000_000


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_broken_rule_is_found(switch: str) -> None:
    """Two sides that turn one rule around fail."""
    assert runs_until_found(broken(switch)) is not None


@pytest.mark.parametrize(("key", "kind"), RECEIVED)
def test_a_frame_missing_from_the_table_is_found(key: tuple[CallPart, CallState, Direction], kind: int) -> None:
    """Each frame that the table lets a side receive is received in some run."""
    steps = {each: step for each, step in STATES_OF_A_CALL[key].items() if each != kind}
    assert runs_until_found(Rules(table={**STATES_OF_A_CALL, key: steps})) is not None


# Counterexamples: why rules of the model say more than the text they were first written in.


def connected(scale: Scale) -> tuple[ModelSide, ModelSide]:
    """A client and a server without programs."""
    return ModelSide(0, scale, Rules()), ModelSide(TOP_BIT, scale, Rules())


def deliver(sender: ModelSide, receiver: ModelSide) -> None:
    """All frames that were sent arrive."""
    while sender.output:
        receiver.receive(sender.output.popleft())


def test_credit_that_returns_item_by_item_ends_an_honest_client() -> None:
    """Streams of 16 items whose client returns credit for each item by itself empty a bucket of 1,000 within 125 calls.

    The server has sent END behind the items before it reads any CREDIT, so that all 16 cross the end of their call,
    which refills only eight. With credit that returns at half the window two cross it.
    """
    scale = Scale(modulus=2**31, max_calls=200, window=Amount(16, 65_536), max_size=16_384)
    assert scale.bucket == 1_000
    client, server = connected(scale)

    def complete_a_stream(batch: int) -> None:
        call_id = client.begin(CallShape.STREAM, 0, scale.window)
        assert call_id is not None
        deliver(client, server)
        assert all(server.send_item(call_id, number, 100) for number in range(16))
        assert server.send_end(call_id)
        for at in range(1, 17):
            client.receive(server.output.popleft())
            assert at % batch or client.send_credit(call_id, Amount(batch, batch * 100))
        deliver(server, client)
        deliver(client, server)

    for _ in range(1_000):
        complete_a_stream(batch=8)
    assert server.bucket == scale.bucket - 2
    for _ in range(124):
        complete_a_stream(batch=1)
    with pytest.raises(TooManyFrames):
        complete_a_stream(batch=1)


def test_a_call_may_leave_five_frames_behind_its_end() -> None:
    """A duplex call whose END, three CREDITs of half the window, and CANCEL all cross its end.

    A refill of four for each call would end a client that keeps every rule, once it has made enough such calls.
    """
    scale = Scale()
    client, server = connected(scale)

    def end_a_call() -> None:
        call_id = client.begin(CallShape.DUPLEX, 0, scale.window)
        assert call_id is not None
        deliver(client, server)
        assert client.send_end(call_id)
        assert all(server.send_item(call_id, 0, size) for size in (4, 1, 1, 6))
        deliver(server, client)
        assert all(client.send_credit(call_id, credit) for credit in (Amount(1, 4), Amount(2, 2), Amount(1, 6)))
        assert client.send_cancel(call_id)
        assert server.send_end(call_id)
        deliver(server, client)
        deliver(client, server)

    for _ in range(2 * scale.bucket):
        end_a_call()
        assert server.bucket == scale.bucket - MOST_THAT_CROSS
    assert REFILL >= MOST_THAT_CROSS


def test_an_old_call_does_not_lie_behind_goaway() -> None:
    """A stream that is older than half the circle of ids looks as if it were ahead of the call that GOAWAY names.

    By its id alone the client would tell its caller "not processed" of a call that has been running all the time.
    """
    scale = Scale(modulus=16)
    client, server = connected(scale)
    old = client.begin(CallShape.STREAM, 0)
    for latest in range(2, 12):
        assert client.begin(CallShape.UNARY, 0) == latest
        deliver(client, server)
        assert server.send_response(latest)
        deliver(server, client)
    behind = client.begin(CallShape.UNARY, 0)
    assert old == 1
    assert behind == 12
    assert 0 < (old - 11) % scale.modulus < scale.modulus // 2
    assert not client.lies_behind(old, 11)
    assert client.lies_behind(behind, 11)


# Peers that break a rule are ended, with the reason of the rule.


def broken_frames() -> list[tuple[str, list[ModelFrame], type[ConnectionEnds]]]:
    """What a client sends to a server, and how the server ends."""
    upload = ModelFrame(Kind.REQUEST, 1, CallShape.UPLOAD.value)
    unary = ModelFrame(Kind.REQUEST, 1, CallShape.UNARY.value)
    duplex = ModelFrame(Kind.REQUEST, 1, CallShape.DUPLEX.value, credit=Amount(1, 1))
    one_way = [ModelFrame(Kind.REQUEST, low, CallShape.ONE_WAY.value) for low in (1, 2, 3)]
    item, end, cancel = ModelFrame(Kind.ITEM, 1, size=1), ModelFrame(Kind.END, 1), ModelFrame(Kind.CANCEL, 1)
    credit = ModelFrame(Kind.CREDIT, 1, credit=Amount(1, 1))
    all_credit = credit._replace(credit=Amount(0, 2**32 - 1))
    return [
        ("an id again", [unary, unary], WrongCallId),
        ("an id behind", [unary._replace(call_id=2), unary], WrongCallId),
        ("an id of the server's", [unary._replace(call_id=1 | TOP_BIT)], WrongCallId),
        ("an id half the circle ahead", [unary._replace(call_id=16)], WrongCallId),
        ("ITEM of a unary call", [unary, item], WrongHalf),
        ("END of a unary call", [unary, end], WrongHalf),
        ("CREDIT of an upload", [upload, credit], WrongHalf),
        ("ITEM behind END", [upload, end, item], WrongHalf),
        ("ITEM behind CANCEL", [duplex, cancel, item], WrongHalf),
        ("CREDIT behind CANCEL", [duplex, cancel, credit], WrongHalf),
        ("RESPONSE to its own call", [unary, ModelFrame(Kind.RESPONSE, 1)], WrongHalf),
        ("ERROR of a call that is over", [ModelFrame(Kind.ERROR, 1)], WrongHalf),
        ("ITEM without items", [upload, item, item, item, item], CreditExceeded),
        ("ITEM without bytes", [upload, item._replace(size=6), item], CreditExceeded),
        ("ITEM of no call", [item], CreditExceeded),
        ("one-way without credit", one_way, CreditExceeded),
        ("CREDIT past its field", [duplex, all_credit], CreditOverflow),
        ("one-way credit past its field", [all_credit._replace(call_id=0, credit=Amount(2**32 - 1))], CreditOverflow),
        ("CANCEL of no call", [cancel] * 16, TooManyFrames),
        ("answers to no call", [ModelFrame(Kind.RESPONSE, 1 | TOP_BIT)], StrayAnswers),
    ]


@pytest.mark.parametrize(
    ("frames", "ends"), [pytest.param(frames, ends, id=name) for name, frames, ends in broken_frames()]
)
def test_a_peer_that_breaks_a_rule_is_ended(frames: list[ModelFrame], ends: type[ConnectionEnds]) -> None:
    """The last of the frames ends the connection, and none before it."""
    _, server = connected(Scale(first=Amount(3, 6)))
    for frame in frames[:-1]:
        server.receive(frame)
    with pytest.raises(ends):
        server.receive(frames[-1])
