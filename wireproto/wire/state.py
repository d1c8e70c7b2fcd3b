"""The one table of what either side may send and receive, and when.

A state is one side's view: frames that cross on the wire are why a side that has sent GOAWAY still receives REQUESTs
and the side that has received it sends none. The states of a call are another table, in ``calls.py``.
"""

import enum
from typing import Final

from wireproto.wire.frame import IGNORABLE, KINDS, Kind

__all__ = ["END_OF_INPUT", "FINAL", "TRANSITIONS", "Direction", "Role", "State", "allowed", "describe"]


class Role(enum.Enum):
    """Which side of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class State(enum.Enum):
    """How far a connection has come, as one side sees it."""

    START = "start"
    """Nothing was exchanged."""
    GREETING = "greeting"
    """HELLO was sent or received, and not yet answered."""
    OPEN = "open"
    """WELCOME was sent or received: either side may begin calls, unless it has received GOAWAY."""
    HALF_CLOSED = "half closed"
    """The client has ended its output: its calls in flight are still answered."""
    CLOSED = "closed"
    """Over. What is still received is counted and dropped."""


class Direction(enum.Enum):
    """Whether we send or receive."""

    SEND = "send"
    RECEIVE = "receive"


FINAL: Final = 0
"""In ``TRANSITIONS``: an ERROR with call id 0, which ends the connection. Other ERRORs end a call."""

END_OF_INPUT: Final = -1
"""In ``TRANSITIONS``: the peer will send nothing more."""


def _stay(state: State, *moves: int) -> dict[int, State]:
    return dict.fromkeys(map(int, moves), state)


_TO_CALLERS = (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR)
_OF_THE_CONNECTION = (Kind.PING, Kind.PONG, Kind.GOAWAY)
_OPEN = (Kind.REQUEST, *_TO_CALLERS, Kind.CANCEL, Kind.CREDIT, *_OF_THE_CONNECTION)
_OVER = _stay(State.CLOSED, FINAL, END_OF_INPUT)

TRANSITIONS: Final[dict[tuple[Role, State, Direction], dict[int, State]]] = {
    (Role.CLIENT, State.START, Direction.SEND): {Kind.HELLO: State.GREETING},
    (Role.CLIENT, State.START, Direction.RECEIVE): _OVER,
    (Role.CLIENT, State.GREETING, Direction.SEND): {FINAL: State.CLOSED},
    (Role.CLIENT, State.GREETING, Direction.RECEIVE): {Kind.WELCOME: State.OPEN, **_OVER},
    (Role.CLIENT, State.OPEN, Direction.SEND): {
        **_stay(State.OPEN, *_OPEN),
        FINAL: State.CLOSED,
        END_OF_INPUT: State.HALF_CLOSED,
    },
    (Role.CLIENT, State.OPEN, Direction.RECEIVE): {**_stay(State.OPEN, *_OPEN, IGNORABLE), **_OVER},
    (Role.CLIENT, State.HALF_CLOSED, Direction.RECEIVE): {**_stay(State.HALF_CLOSED, *_OPEN, IGNORABLE), **_OVER},
    (Role.SERVER, State.START, Direction.SEND): {FINAL: State.CLOSED},
    (Role.SERVER, State.START, Direction.RECEIVE): {Kind.HELLO: State.GREETING, END_OF_INPUT: State.CLOSED},
    (Role.SERVER, State.GREETING, Direction.SEND): {Kind.WELCOME: State.OPEN, FINAL: State.CLOSED},
    (Role.SERVER, State.GREETING, Direction.RECEIVE): {END_OF_INPUT: State.CLOSED},
    (Role.SERVER, State.OPEN, Direction.SEND): {**_stay(State.OPEN, *_OPEN), FINAL: State.CLOSED},
    (Role.SERVER, State.OPEN, Direction.RECEIVE): {
        **_stay(State.OPEN, *_OPEN, IGNORABLE),
        FINAL: State.CLOSED,
        END_OF_INPUT: State.HALF_CLOSED,
    },
    (Role.SERVER, State.HALF_CLOSED, Direction.SEND): {**_stay(State.HALF_CLOSED, *_TO_CALLERS), FINAL: State.CLOSED},
}
"""(our role, state, direction) -> kind -> next state. What is not here is not allowed."""

_NOT_AFTER: Final[dict[Direction, tuple[frozenset[int], frozenset[int]]]] = {
    Direction.SEND: (frozenset({Kind.GOAWAY}), frozenset({Kind.REQUEST})),
    Direction.RECEIVE: (frozenset(), frozenset({Kind.GOAWAY})),
}
"""direction -> what is not allowed any more after GOAWAY was sent, and after it was received."""


def allowed(
    role: Role, state: State, direction: Direction, goaway_sent: bool = False, goaway_received: bool = False
) -> dict[int, State]:
    """What may be sent or received in a state, and the states that follow. Each side sends GOAWAY once, about the calls
    that the other side begins.
    """
    moves = TRANSITIONS.get((role, state, direction), {})
    if not (goaway_sent or goaway_received):
        return moves
    after_sent, after_received = _NOT_AFTER[direction]
    barred = (after_sent if goaway_sent else frozenset()) | (after_received if goaway_received else frozenset())
    return {move: then for move, then in moves.items() if move not in barred}


def describe(move: int) -> str:
    """The name of a move, for a sentence."""
    if move == FINAL:
        return "a final ERROR"
    if move == END_OF_INPUT:
        return "the end of its output"
    return Kind(move).name if move in KINDS else "a frame of an unknown kind"
