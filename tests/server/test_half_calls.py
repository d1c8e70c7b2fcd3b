"""Whose message is read: turns by network and connection, without a door."""

import time
from dataclasses import dataclass, field

import pytest

from wireproto.errors import CallError
from wireproto.server.gateway import halves
from wireproto.server.gateway.halves import LOOKAHEAD, HalfCalls, network_of
from wireproto.status import Retry

MIB = 1024 * 1024


@dataclass(eq=False)
class Caller:
    """A half call that keeps what it was told."""

    peer: str
    told: list[object] = field(default_factory=list)

    def read(self) -> None:
        self.told.append("read")

    def refuse(self, error: CallError) -> None:
        assert (error.reason, error.retry) == ("SERVER_BUSY", Retry.NOT_PROCESSED)
        self.told.append("refused")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def enter(calls: HalfCalls, *peers: str) -> list[Caller]:
    made = [Caller(peer) for peer in peers]
    for each in made:
        calls.enter(each)
    return made


def test_strangers_have_half_of_the_turns(clock: list[float]) -> None:
    """Of eight turns four are for connections that have sent nothing whole; the others wait, and are read in turn."""
    calls = HalfCalls(8 * MIB, MIB, MIB)
    made = enter(calls, *(["10.0.0.1:1"] * 6))
    assert [each.told for each in made] == [["read"]] * 4 + [[]] * 2
    calls.leave(made[0])
    assert made[4].told == ["read"]
    calls.leave(made[5])  # it waited, and is gone
    calls.leave(made[1])
    assert made[5].told == []


def test_who_has_sent_a_whole_message_goes_before_strangers(clock: list[float]) -> None:
    """A proven connection finds turns that strangers may not have, and a stranger's when those are taken."""
    calls = HalfCalls(4 * MIB, MIB, MIB)
    (known,) = enter(calls, "10.0.0.9:9")
    calls.leave(known, whole=True)
    strangers = enter(calls, *(["10.0.0.1:1"] * 4))
    assert [each.told for each in strangers] == [["read"], ["read"], [], []]
    first, second = enter(calls, "10.0.0.9:9", "10.0.0.9:9")
    assert first.told == second.told == ["read"]
    clock[0] += halves.SETTLED + 0.01
    (third,) = enter(calls, "10.0.0.9:9")
    assert third.told == ["read"]
    assert strangers[0].told == ["read", "refused"]


def test_a_burst_of_whole_messages_costs_nobody_a_turn(clock: list[float]) -> None:
    """What is there is whole at once: nobody gives way before the time that takes."""
    calls = HalfCalls(4 * MIB, MIB, MIB)
    made = enter(calls, *(f"10.0.0.1:{port}" for port in range(50)))
    for each in made:
        calls.leave(each, whole=True)
    assert all(each.told in (["read"], []) for each in made)


def test_one_network_takes_nothing_of_another(clock: list[float]) -> None:
    """Each network has its own turns: a /24, a /64."""
    calls = HalfCalls(2 * MIB, LOOKAHEAD, MIB)
    enter(calls, *(["10.0.0.1:1"] * 3))
    (full,) = enter(calls, "10.0.0.1:1")
    assert full.told == ["refused"]
    others = enter(calls, "10.0.1.1:1", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1")
    assert [each.told for each in others] == [["read"]] * 3


def test_where_all_places_are_taken_the_connection_with_most_gives_one(clock: list[float]) -> None:
    """The newest of whoever waits most is refused for a newcomer of a connection with fewer."""
    calls = HalfCalls(2 * MIB, 3 * LOOKAHEAD, MIB)
    many = enter(calls, *(["10.0.0.1:1"] * 4))
    (newcomer,) = enter(calls, "10.0.0.2:2")
    assert [each.told for each in many] == [["read"], [], [], ["refused"]]
    assert newcomer.told == []
    calls.leave(many[0])
    assert many[1].told == ["read"]  # the first that waits, of the first connection
    calls.leave(many[1])
    assert newcomer.told == ["read"]


def test_who_waits_for_long_is_given_the_turn_of_a_connection_with_more(clock: list[float]) -> None:
    """And a connection that lets its turn go by is a stranger again."""
    calls = HalfCalls(2 * MIB, MIB, MIB)
    (once,) = enter(calls, "10.0.0.1:1")
    calls.leave(once, whole=True)
    slow = enter(calls, "10.0.0.1:1", "10.0.0.1:1")
    assert [each.told for each in slow] == [["read"], ["read"]]
    (waiting,) = enter(calls, "10.0.0.2:2")
    calls.sweep(clock[0] + halves.TURN / 2)
    assert waiting.told == []
    calls.sweep(clock[0] + halves.TURN + 0.1)
    assert waiting.told == ["read"]
    assert slow[0].told == ["read", "refused"]


def test_a_stranger_who_waits_stands_in_nobodys_way(clock: list[float]) -> None:
    """A turn that strangers may not have goes to who may, though a stranger has waited for longer."""
    calls = HalfCalls(4 * MIB, MIB, MIB)
    (known,) = enter(calls, "10.0.0.9:9")
    calls.leave(known, whole=True)
    strangers = enter(calls, *(["10.0.0.1:1"] * 3))
    assert [each.told for each in strangers] == [["read"], ["read"], []]
    busy = enter(calls, *(["10.0.0.9:9"] * 3))
    assert [each.told for each in busy] == [["read"], ["read"], []]
    calls.leave(busy[0], whole=True)
    assert busy[2].told == ["read"]
    assert strangers[2].told == []


def test_who_proves_itself_while_it_waits_is_no_stranger(clock: list[float]) -> None:
    """What waits of a connection goes on as soon as that has sent a whole message, if there are turns."""
    calls = HalfCalls(4 * MIB, MIB, MIB)
    made = enter(calls, *(["10.0.0.1:1"] * 4))
    assert [each.told for each in made] == [["read"], ["read"], [], []]
    calls.leave(made[0], whole=True)
    assert [each.told for each in made] == [["read"]] * 4


def test_idlers_who_have_proven_themselves_give_way(clock: list[float]) -> None:
    """A whole message gives nobody a turn for ever: who has none takes the oldest, and that connection is strange."""
    calls = HalfCalls(2 * MIB, MIB, MIB)
    idlers = ["10.0.0.1:1", "10.0.0.1:2"]
    for each in enter(calls, *idlers):
        calls.leave(each, whole=True)
    first, second = enter(calls, *idlers)
    (good,) = enter(calls, "10.0.0.9:9")
    assert good.told == []
    calls.leave(good)
    clock[0] += halves.TURN + 0.01
    (good,) = enter(calls, "10.0.0.9:9")
    assert good.told == ["read"]
    assert first.told == ["read", "refused"]
    calls.leave(good, whole=True)
    again, third = enter(calls, idlers[0], idlers[0])
    assert again.told == ["read"]
    assert third.told == []
    assert second.told == ["read"]


def test_a_newcomer_is_not_overlooked_for_those_who_always_wait(clock: list[float]) -> None:
    """Sixteen connections with many half calls each; one with a single call comes when all turns are fresh."""
    calls = HalfCalls(8 * MIB, 512 * LOOKAHEAD, MIB)
    for port in range(16):
        enter(calls, *([f"10.0.0.1:{port}"] * 20))
    (good,) = enter(calls, "10.0.0.9:9")
    assert good.told == []
    clock[0] += 0.25
    calls.sweep(clock[0])
    assert good.told == ["read"]


def test_all_who_wait_have_their_turn(clock: list[float]) -> None:
    """What is exchanged goes round."""
    calls = HalfCalls(8 * MIB, 512 * LOOKAHEAD, MIB)
    made = [enter(calls, f"10.0.0.1:{port}", f"10.0.0.1:{port}") for port in range(16)]
    for _ in range(8):
        clock[0] += 0.25
        calls.sweep(clock[0])
    assert all(any("read" in each.told for each in pair) for pair in made)


def test_networks_that_nobody_is_of_are_forgotten(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of networks is bounded."""
    monkeypatch.setattr(halves, "NETWORKS", 4)
    calls = HalfCalls(2 * MIB, MIB, MIB)
    for number in range(20):
        (each,) = enter(calls, f"10.0.{number}.1:1")
        calls.leave(each, whole=True)
    assert len(vars(calls)["_networks"]) <= 5


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("127.0.0.1:5", "127.0.0.0/24"),
        ("10.1.2.3:5", "10.1.2.0/24"),
        ("[2001:db8::5]:5", "2001:db8::/64"),
        ("[fe80::1%eth0]:5", "fe80::/64"),
        ("[::ffff:10.1.2.3]:5", "10.1.2.0/24"),
        ("/run/socket", ""),
        ("", ""),
    ],
)
def test_the_network_of_a_peer(peer: str, network: str) -> None:
    """A /24 of IPv4, also of one that is written as IPv6, and a /64 of IPv6."""
    assert network_of(peer) == network
