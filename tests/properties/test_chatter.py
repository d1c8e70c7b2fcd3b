"""No peer that greases is ended for its chatter: the runs of the model, over real connections that grease all they can.

Time stands still, so that nothing is allowed but what other frames allow; and hardly any chatter may be said at once.
"""

import math
from collections.abc import Callable
from typing import Final

import pytest

from tests.properties.wire_model.exchange import run
from tests.properties.wire_model.frames import ModelFrame
from tests.properties.wire_model.real import ConnectionSide, connection_for
from tests.properties.wire_model.rules import Rules, Scale
from wireproto.limits import Limits
from wireproto.testing import grease
from wireproto.wire import liveness
from wireproto.wire.connection import Connection, Role
from wireproto.wire.liveness import Liveness, Overdue

AT_ONCE: Final = 4


class GreasingSide(ConnectionSide):
    """A side that greases, and judges the chatter of the other one behind each frame."""

    made = 0

    def make(self, role: Role, scale: Scale) -> Connection:
        """A connection that greases, with clocks of its own."""
        GreasingSide.made += 1
        connection = connection_for(role, scale, f"seed {self.made}")
        self._liveness = Liveness(connection, Limits(), 0.0, idle=math.inf)
        return connection

    def receive(self, frame: ModelFrame) -> ModelFrame | None:
        """Judge a frame, and then how much of all that came means nothing."""
        found = super().receive(frame)
        self._liveness.look(0.0)
        assert self._liveness.overdue(0.0) is not Overdue.CHATTER, "an honest peer is ended for its chatter"
        return found


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame gets company that may."""
    monkeypatch.setattr(grease, "_SELDOM", 1.0)
    monkeypatch.setattr(liveness, "MAX_CHATTER", AT_ONCE)
    monkeypatch.setattr(GreasingSide, "made", 0)


def some_runs(runs: int) -> int:
    return sum(run(seed, Rules(), 20, GreasingSide).frames for seed in range(runs))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("runs", [40, pytest.param(1_000, marks=pytest.mark.long)])
def test_no_peer_that_greases_is_ended(runs: int) -> None:
    """Calls of all shapes in both directions complete, and neither side ever says too much."""
    assert some_runs(runs) > 10 * runs


def nothing_for_frames(patch: pytest.MonkeyPatch) -> None:
    """Other frames allow no chatter: the clock alone does."""
    patch.setattr(liveness, "CHATTER_PER_FRAME", 0)


def one_for_each_frame(patch: pytest.MonkeyPatch) -> None:
    """Each other frame allows one frame of it, and an answer may have one before and one behind it."""
    patch.setattr(liveness, "CHATTER_PER_FRAME", 1)


FAULTS: Final[tuple[Callable[[pytest.MonkeyPatch], None], ...]] = (nothing_for_frames, one_for_each_frame)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_less_would_end_honest_peers(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than is allowed the same runs end a peer for what it may say."""
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="for its chatter"):
        some_runs(40)
