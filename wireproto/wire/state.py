"""The one table of what either side may send and receive, and when.

A state is one side's view: frames that cross on the wire are why a server that drains still receives REQUESTs and a
client that drains sends none.
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
    """WELCOME was sent or received: calls may begin."""
    DRAINING = "draining"
    """GOAWAY was sent or received: calls in flight go on, no new one is accepted."""
    HALF_CLOSED = "half closed"
    """Server only: the client's input ended; its calls in flight are still answered."""
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


_ANSWERS = (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR)
_REQUESTS = (Kind.REQUEST, Kind.CANCEL, Kind.CREDIT)
_LIVENESS = (Kind.PING, Kind.PONG)
_OVER = _stay(State.CLOSED, FINAL, END_OF_INPUT)

TRANSITIONS: Final[dict[tuple[Role, State, Direction], dict[int, State]]] = {
    (Role.CLIENT, State.START, Direction.SEND): {Kind.HELLO: State.GREETING},
    (Role.CLIENT, State.START, Direction.RECEIVE): _OVER,
    (Role.CLIENT, State.GREETING, Direction.SEND): {FINAL: State.CLOSED},
    (Role.CLIENT, State.GREETING, Direction.RECEIVE): {Kind.WELCOME: State.OPEN, **_OVER},
    (Role.CLIENT, State.OPEN, Direction.SEND): {
        **_stay(State.OPEN, *_REQUESTS, *_LIVENESS),
        FINAL: State.CLOSED,
    },
    (Role.CLIENT, State.OPEN, Direction.RECEIVE): {
        **_stay(State.OPEN, *_ANSWERS, *_LIVENESS, IGNORABLE),
        Kind.GOAWAY: State.DRAINING,
        **_OVER,
    },
    (Role.CLIENT, State.DRAINING, Direction.SEND): {
        **_stay(State.DRAINING, Kind.CANCEL, Kind.CREDIT, *_LIVENESS),
        FINAL: State.CLOSED,
    },
    (Role.CLIENT, State.DRAINING, Direction.RECEIVE): {
        **_stay(State.DRAINING, *_ANSWERS, *_LIVENESS, IGNORABLE),
        **_OVER,
    },
    (Role.SERVER, State.START, Direction.SEND): {FINAL: State.CLOSED},
    (Role.SERVER, State.START, Direction.RECEIVE): {Kind.HELLO: State.GREETING, END_OF_INPUT: State.CLOSED},
    (Role.SERVER, State.GREETING, Direction.SEND): {Kind.WELCOME: State.OPEN, FINAL: State.CLOSED},
    (Role.SERVER, State.GREETING, Direction.RECEIVE): {END_OF_INPUT: State.CLOSED},
    (Role.SERVER, State.OPEN, Direction.SEND): {
        **_stay(State.OPEN, *_ANSWERS, *_LIVENESS),
        Kind.GOAWAY: State.DRAINING,
        FINAL: State.CLOSED,
    },
    (Role.SERVER, State.OPEN, Direction.RECEIVE): {
        **_stay(State.OPEN, *_REQUESTS, *_LIVENESS, IGNORABLE),
        FINAL: State.CLOSED,
        END_OF_INPUT: State.HALF_CLOSED,
    },
    (Role.SERVER, State.DRAINING, Direction.SEND): {
        **_stay(State.DRAINING, *_ANSWERS, *_LIVENESS),
        FINAL: State.CLOSED,
    },
    (Role.SERVER, State.DRAINING, Direction.RECEIVE): {
        # REQUESTs cross GOAWAY on the wire: they are answered, "not processed".
        **_stay(State.DRAINING, *_REQUESTS, *_LIVENESS, IGNORABLE),
        FINAL: State.CLOSED,
        END_OF_INPUT: State.HALF_CLOSED,
    },
    (Role.SERVER, State.HALF_CLOSED, Direction.SEND): {**_stay(State.HALF_CLOSED, *_ANSWERS), FINAL: State.CLOSED},
}
"""(our role, state, direction) -> kind -> next state. What is not here is not allowed."""


def allowed(role: Role, state: State, direction: Direction) -> dict[int, State]:
    """What may be sent or received in a state, and the states that follow."""
    return TRANSITIONS.get((role, state, direction), {})


def describe(move: int) -> str:
    """The name of a kind or of a final ERROR, for a sentence; the end of input is allowed wherever it is looked at."""
    if move == FINAL:
        return "a final ERROR"
    return Kind(move).name if move in KINDS else "a frame of an unknown kind"
