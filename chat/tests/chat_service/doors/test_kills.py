"""kill -9 at any moment, on one database, behind all four doors: the whole history of many clients has no violation."""

import random
import secrets
import time
from pathlib import Path

import pytest

from chat_service.doors.kills import Crowd, Servers

PART = 30
"""Kills after which a crowd's history is judged, and another crowd comes to the same database."""


class Torture:
    """Servers that are killed on one store, and what their clients noted.

    Attributes:
        kills: servers killed.
        answered: sends and broadcasts answered.
        seen: messages that came to somebody, by streams and pages.
    """

    def __init__(self, store: Path, chance: random.Random, *, fault: str = "") -> None:
        self.chance = chance
        self.servers = Servers(store, fault=fault)
        self.kills = self.answered = self.seen = 0

    def kill(self) -> None:
        self.servers.kill()
        self.kills += 1

    def part(self, name: str, lives: int) -> list[str]:
        """Kill the server so many times under one crowd; what is wrong with what the crowd has seen."""
        crowd = Crowd(name, self.chance)
        self.servers.start()
        crowd.arrive(self.servers.ready())
        self.kill()
        for life in range(lives - 2):
            while self.chance.random() < 0.1:
                # Killed while it opens the store: after an unknown part of its way to the ready line.
                self.servers.start()
                time.sleep(self.chance.random() * 0.2)
                self.kill()
            self.servers.start()
            crowd.live(self.servers.ready(), life, self.kill)
        self.servers.start()
        violations = crowd.leave(self.servers.ready())
        self.kill()
        self.answered += crowd.answered
        self.seen += sum(len(each.came) for each in crowd.history.streamings)
        self.seen += sum(len(each.messages) for each in crowd.history.takings)
        return violations


def torture(store: Path, kills: int, chance: random.Random) -> Torture:
    """At least so many kills on one database, in parts; a line of progress after each."""
    torture = Torture(store, chance)
    began = time.monotonic()
    try:
        while torture.kills < kills:
            violations = torture.part(f"p{torture.kills}", PART)
            assert not violations, "\n".join(violations[:20])
            minutes = (time.monotonic() - began) / 60
            print(
                f"{torture.kills} kills, {torture.answered} answered, {torture.seen} seen, {minutes:.1f} min",
                flush=True,
            )
    finally:
        log = torture.servers.close()
    assert "Traceback" not in log, log
    return torture


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_kills_leave_no_violation(store_path: Path) -> None:
    """Over 30 kills -9 under load every one of the ten invariants holds."""
    result = torture(store_path, PART, random.Random(1))
    assert result.kills >= 30
    assert result.answered > 1000
    assert result.seen > 1000


ANSWERED_TOO_EARLY = """
import time
from concurrent.futures import Future
from wireproto_chat.service.mailboxes import AppendMessage
from wireproto_chat.store.transaction import Transaction
apply, commit = AppendMessage.apply, Transaction.commit
def early(self, tx):
    answer = apply(self, tx)
    self.future.set_result(answer)
    self.future = Future()
    return answer
def slowly(self):
    time.sleep(0.05)  # so long that a kill comes between an answer and its commit on a busy machine, too
    commit(self)
AppendMessage.apply, Transaction.commit = early, slowly
"""

KEYS_IN_MEMORY = """
from wireproto_chat.store.transaction import KnownKey, Transaction as T
kept, begin = {}, T.begin
def remember(self, key, *answer):
    kept[key] = KnownKey(*answer, self.now)
def look(self, lookups):
    begin(self, lookups)
    self.known.update(kept)
T.remember, T.begin = remember, look
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fault", "invariant"), [(ANSWERED_TOO_EARLY, "I1"), (KEYS_IN_MEMORY, "I2")], ids=["answers", "keys"]
)
def test_a_server_that_forgets_is_found_out(store_path: Path, fault: str, invariant: str) -> None:
    """A service that answers before the commit, or keeps keys in memory alone, does not survive a few kills."""
    torture = Torture(store_path, random.Random(1), fault=fault)
    try:
        violations = torture.part("f", 6)
    finally:
        torture.servers.close()
    assert invariant in {violation.split()[0] for violation in violations}, violations


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_two_thousand_kills_leave_no_violation(store_path: Path) -> None:
    """The same over 2,000 kills, on five databases, from a fresh seed each run."""
    seed = secrets.randbits(32)
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    for number in range(5):
        torture(store_path.with_name(f"chat{number}.db"), 400, chance)
