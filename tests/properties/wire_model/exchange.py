"""Two programs, a queue of frames in each direction, and what holds when everything has settled."""

import enum
import random
from collections.abc import Callable
from typing import Final

from tests.properties.wire_model.frames import Amount, CallShape
from tests.properties.wire_model.programs import ModelProgram, ProgramCall
from tests.properties.wire_model.rules import Rules, Scale
from tests.properties.wire_model.sides import ModelSide, WireSide
from wireproto.wire.calls import CallPart
from wireproto.wire.frame import TOP_BIT

SideMaker = Callable[[int, Scale, Rules], WireSide]
"""Makes a side from the top bit of the ids that it begins: ``ModelSide``, or an adapter around another wire."""

REFUSALS: Final = ("", "", "", "WRONG_SHAPE")
"""What the other side has against a REQUEST: mostly nothing."""

FIRST_NUMBERS: Final = (1, 10_001)
"""The numbers of the client's calls, and of the server's."""


class RunEnding(enum.Enum):
    """How a run ends."""

    SETTLED = "settled"
    """All calls complete."""
    FINAL_ERROR = "final ERROR"
    """A side ends the connection with calls in flight."""
    RESET = "reset"
    """The connection is gone, with calls and frames in flight."""


ENDINGS: Final = (RunEnding.SETTLED, RunEnding.SETTLED, RunEnding.SETTLED, RunEnding.FINAL_ERROR, RunEnding.RESET)
"""Mostly the first: the others hide what would have been left over."""


class Exchange:
    """A client and a server, as programs over their sides; numbers 0 and 1 in all that follows."""

    def __init__(self, scale: Scale, rules: Rules, make_side: SideMaker = ModelSide) -> None:
        sides = [make_side(top_bit, scale, rules) for top_bit in (0, TOP_BIT)]
        self.client, self.server = self.programs = [
            ModelProgram(side, scale, rules, first) for side, first in zip(sides, FIRST_NUMBERS, strict=True)
        ]
        self.scale = scale
        self.frames = 0
        self.moves = 0

    def deliver(self, to: int, count: int) -> bool:
        """The next frames reach one of the sides; whether there were any."""
        queue = self.programs[1 - to].side.output
        for at in range(count):
            if not queue:
                return at > 0
            self.frames += 1
            self.programs[to].receive(queue.popleft())
        return True

    def settle(self) -> None:
        """Everything is delivered, taken, sent and answered, as far as it goes."""
        while True:
            delivered = [self.deliver(to, 1_000) for to in (0, 1)]
            if not any([*delivered, *[program.go_on() for program in self.programs]]):
                return

    def lose(self) -> None:
        """The connection is gone, and with it whatever was under way."""
        for program in self.programs:
            program.side.output.clear()
            program.lose()

    # What holds at the end.

    def check_settled(self) -> None:
        """No call is stuck, no message is lost, and no caller was told what is not so."""
        for program, other in ((self.client, self.server), (self.server, self.client)):
            assert program.calls_left == []
            assert program.side.calls_in_flight(CallPart.BEGAN) == program.side.calls_in_flight(CallPart.ANSWERS) == 0
            for call in program.began:
                self._check_call(call, other.answers.get(call.number))
            self._check_one_way(program, other)
        if not self.client.ended:
            self._check_items()

    def _check_call(self, call: ProgramCall, answer: ProgramCall | None) -> None:
        assert call.outcome, "its caller waits still"
        if answer is None:
            assert call.outcome not in ("RESPONSE", "END")
            assert call.incoming.taken == []
            return
        assert call.outcome != "NOT_PROCESSED"
        # Whatever was taken is what was sent, in order and without a gap.
        assert answer.incoming.taken == call.sent[: len(answer.incoming.taken)]
        assert call.incoming.taken == answer.sent[: len(call.incoming.taken)]
        if call.outcome in ("RESPONSE", "END"):
            assert call.incoming.taken == answer.sent
            if not answer.answered_early:
                assert answer.incoming.taken == call.sent

    def _check_one_way(self, program: ModelProgram, other: ModelProgram) -> None:
        """Each one-way call ran once or was dropped for a reason, and has returned its credit."""
        ran_or_dropped = sorted(other.ran + other.dropped)
        if self.client.ended or other.sent_goaway or other.half_closed:
            assert set(ran_or_dropped) <= set(program.posted)
        else:
            assert ran_or_dropped == program.posted
            if not (program.told_goaway or program.half_closed or program.peer_half_closed):
                assert program.side.begin(CallShape.ONE_WAY, 0) is not None

    def _check_items(self) -> None:
        """Each ITEM was taken, was not wanted by whoever held it, or was dropped by the rules of *Crossing*."""
        calls = [call for program in self.programs for call in (*program.began, *program.answers.values())]
        sent = sum(len(call.sent) for call in calls)
        taken = sum(len(call.incoming.taken) for call in calls)
        dropped = sum(program.discarded + program.side.dropped_items for program in self.programs)
        assert sent == taken + dropped

    def check_step(self) -> None:
        """Handlers that run on are bounded; the end of a call waits for them only where it must, and so briefly."""
        self.moves += 1
        for program in self.programs:
            # The end of the grace and the end of input end calls without waiting, and no new call comes behind them.
            ends_at_once = program.sent_goaway or program.peer_half_closed
            assert program.running_on <= self.scale.max_calls * (2 if ends_at_once else 1)
            assert not program.waits or program.running_on >= self.scale.max_calls

    def finish(self, ending: RunEnding) -> None:
        """Bring the run to its end, and look at what is left."""
        if ending is RunEnding.RESET:
            self.lose()
        elif ending is RunEnding.FINAL_ERROR:
            self.programs[self.frames % 2].end_connection()
        self.settle()
        self.check_settled()


SCALES: Final = (
    Scale(),
    Scale(modulus=16, max_calls=2, first=Amount(1, 1), window=Amount(2, 3), max_size=9, begins_after=13),
    Scale(modulus=8, max_calls=2, first=Amount(0, 0), window=Amount(1, 1), max_size=2, begins_after=6),
    Scale(modulus=64, max_calls=4, first=Amount(4, 0), window=Amount(6, 10), max_size=4, one_way=3, begins_after=60),
    Scale(modulus=16, max_calls=1, first=Amount(0, 4), window=Amount(12, 60), max_size=5, one_way=1),
)
"""Wires whose corners differ: short and long circles of ids, and first credits that lack items or bytes."""


def first_credits(scale: Scale) -> tuple[Amount, ...]:
    """What the answer half of a call may begin with: nothing, one ITEM, items or bytes alone, all of the window."""
    return (Amount(), Amount(1, 1), scale.window, scale.window._replace(items=0), scale.window._replace(bytes=0))


Move = Callable[[Exchange, int, int], object]
"""One move of an exchange: which side, and any number that picks among its choices."""


def act(of_program: Callable[[ModelProgram, int], bool]) -> Move:
    """A move of one of the programs."""
    return lambda exchange, who, at: of_program(exchange.programs[who], at)


def begin(exchange: Exchange, who: int, at: int) -> object:
    """Either side begins a call, of any shape and first credit, that the other side refuses now and then."""
    shapes, firsts = list(CallShape), first_credits(exchange.scale)
    at, shape = divmod(at, len(shapes))
    at, credit = divmod(at, len(firsts))
    return exchange.programs[who].begin(shapes[shape], firsts[credit], REFUSALS[at % len(REFUSALS)])


MOVES: Final[dict[str, Move]] = {
    "deliver to the client": lambda exchange, who, at: exchange.deliver(0, 1 + at % 8),
    "deliver to the server": lambda exchange, who, at: exchange.deliver(1, 1 + at % 8),
    "begin": begin,
    "send item": act(ModelProgram.send_item),
    "send end": act(ModelProgram.send_end),
    "take answer": act(ModelProgram.take_answer),
    "cancel": act(ModelProgram.cancel),
    "deadline of a caller": act(ModelProgram.miss_deadline),
    "start": act(ModelProgram.start),
    "take request": act(ModelProgram.take_request),
    "answer item": act(ModelProgram.answer_item),
    "finish": act(ModelProgram.finish),
    "answer early": act(ModelProgram.answer_early),
    "fail": act(ModelProgram.fail),
    "deadline of a handler": act(ModelProgram.exceed_deadline),
    "return": act(ModelProgram.return_from_handler),
    "run one-way": act(ModelProgram.run_one_way),
    "drop one-way": act(ModelProgram.drop_one_way),
    "grace is over": act(ModelProgram.end_grace),
}
"""What happens on a connection again and again."""

ENDS: Final[dict[str, Move]] = {
    "goaway": act(ModelProgram.send_goaway),
    "half-close": lambda exchange, who, at: exchange.client.half_close(),
}
"""What happens to a connection once."""


OFTEN: Final = {"deliver to the client": (0, 4, 12), "deliver to the server": (0, 4, 12), "begin": (1, 4)}
"""How often the moves come on which all others depend."""

RARE: Final = (
    "cancel", "deadline of a caller", "answer early", "fail", "deadline of a handler", "drop one-way", "grace is over",
)  # fmt: skip
"""Moves that end calls: with too many of them no call has a life."""


def stretch(exchange: Exchange, dice: random.Random, length: int) -> None:
    """Some moves in a row that prefer some kinds of moves.

    In one stretch calls grow old, in another one everything is cancelled, and one of the directions may stand still.
    """
    weights = [dice.choice(OFTEN.get(name, (0, 0, 0, 1) if name in RARE else (0, 4, 8))) for name in MOVES]
    if not any(weights):
        return
    for move in dice.choices(list(MOVES.values()), weights, k=length):
        move(exchange, dice.randrange(2), dice.randrange(1_000))
        exchange.check_step()


def run(seed: int, rules: Rules, stretches: int = 20, make_side: SideMaker = ModelSide) -> Exchange:
    """One run of moves picked by a seed, to its end and checked."""
    dice = random.Random(seed)
    exchange = Exchange(dice.choice(SCALES), rules, make_side)
    # The ends of the directions come late in a run, while calls are still in flight, and not at all in many runs.
    ends = {name: stretches - dice.randrange(1, 5) for name in ENDS if dice.random() < 0.4}
    for at in range(stretches):
        for name, when in ends.items():
            if when == at:
                ENDS[name](exchange, dice.randrange(2), 0)
        stretch(exchange, dice, dice.choice((20, 100)))
    exchange.finish(dice.choice(ENDINGS))
    return exchange
