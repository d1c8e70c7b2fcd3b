"""Fuzzing a server that runs: ours is clean, a faulty one is caught, and a finding can be had again."""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.services import SHOP
from tests.codecs.everything import EVERYTHING
from tests.conformance.fuzzing.faulty import FAULTS, FaultyServer
from wireproto import Context, Handlers, Method, Server, StreamMethod
from wireproto.conformance.fuzzing.cases import KINDS
from wireproto.conformance.fuzzing.live import Campaign, Finding, load, save, show
from wireproto.conformance.fuzzing.messages import random_message
from wireproto.conformance.fuzzing.watch import Resources, drift, resources
from wireproto.conformance.raw import RawListener
from wireproto.schema import DuplexMethod, Message, OneWayMethod, Operation, Service, UploadMethod


def _register(handlers: Handlers, method: Operation[Any, Any], rng: random.Random) -> None:
    """Answer a method with anything that it may answer."""
    if isinstance(method, StreamMethod):

        @handlers.register(method)
        def stream(request: Message, context: Context) -> Iterator[Message]:
            for _ in range(3):
                yield random_message(rng, method.response)

    elif isinstance(method, Method):

        @handlers.register(method)
        def answer(request: Message, context: Context) -> Message:
            made: Message = random_message(rng, method.response)
            return made

    elif isinstance(method, UploadMethod):

        @handlers.register(method)
        def add_up(items: Iterator[Message], context: Context) -> Message:
            for _ in items:
                pass
            made: Message = random_message(rng, method.response)
            return made

    elif isinstance(method, DuplexMethod):

        @handlers.register(method)
        def reflect(items: Iterator[Message], context: Context) -> Iterator[Message]:
            for _ in items:
                yield random_message(rng, method.response)

    elif isinstance(method, OneWayMethod):

        @handlers.register(method)
        def note(request: Message, context: Context) -> None:
            return None


class FuzzedItem(Message):
    """Goes either way."""

    number: int = 0
    texts: list[str] = []


OF_EVERY_SHAPE = Service(
    "fuzzed.v1.ShapesService",
    methods=[
        Method(opcode=1, name="Ask", request=FuzzedItem, response=FuzzedItem),
        StreamMethod(opcode=2, name="Watch", request=FuzzedItem, response=FuzzedItem),
        UploadMethod(opcode=3, name="Send", request=FuzzedItem, response=FuzzedItem),
        DuplexMethod(opcode=4, name="Talk", request=FuzzedItem, response=FuzzedItem),
        OneWayMethod(opcode=5, name="Tell", request=FuzzedItem),
    ],
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Our server, with a handler for every method of a service that has every type."""
    handlers = Handlers(EVERYTHING)
    for method in EVERYTHING.methods:
        _register(handlers, method, random.Random(1))
    with Server(handlers) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_our_server_is_clean(server: Server, codec: str) -> None:
    """Nothing that our server does on any kind of case is a finding, and fresh connections are served in between."""
    campaign = Campaign(server.address, EVERYTHING, codec=codec, seed=7, timeout=30)
    findings = [finding for finding in campaign.run(connections=400) if finding is not None]
    assert findings == []
    assert set(campaign.cases) == set(KINDS)
    assert campaign.answered >= 400 // 64
    assert campaign.calls > 100


@pytest.mark.slow
def test_our_server_is_clean_in_every_shape() -> None:
    """Methods of all five shapes, called and called wrongly: nothing is a finding."""
    handlers = Handlers(OF_EVERY_SHAPE)
    for method in OF_EVERY_SHAPE.methods:
        _register(handlers, method, random.Random(1))
    with Server(handlers, port=0) as running:
        campaign = Campaign(running.address, OF_EVERY_SHAPE, seed=11, timeout=30)
        assert [finding for finding in campaign.run(connections=500) if finding is not None] == []
        assert campaign.calls > 100


def _first(campaign: Campaign, text: str, limit: int = 1000) -> Finding:
    """The first finding that says so; others may come before."""
    seen = []
    for finding in itertools.islice(campaign.run(), limit):
        if finding is not None:
            if any(text in problem for problem in finding.problems):
                return finding
            seen.append(finding.problems)
    pytest.fail(f"no finding says {text!r} but {seen}")


def _campaign(server: FaultyServer) -> Campaign:
    kinds = ["frames"] if server.fault == "keeps no bucket" else None  # a flood of frames is rare among all kinds
    return Campaign(server.address, SHOP, seed=3, kinds=kinds, timeout=0.5 if server.fault == "hangs" else 10)


def test_the_faulty_server_is_right_without_a_fault() -> None:
    """The server of these tests has no other fault than the one it is told to have."""
    with FaultyServer() as faulty:
        assert not any(_campaign(faulty).run(connections=200))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_shown_again(fault: str, tmp_path: Path) -> None:
    """A faulty server is caught; the file of the finding shows the fault again, and that it is mended when it is."""
    with FaultyServer(fault) as faulty:
        found = _first(_campaign(faulty), FAULTS[fault])
    again = load(save(found, tmp_path).read_text("utf-8"))
    assert again == found
    with FaultyServer(fault) as faulty:
        assert any(FAULTS[fault] in problem for problem in _campaign(faulty).replay(again))
    with FaultyServer() as faulty:
        assert _campaign(faulty).replay(again) == []


def test_a_server_that_says_nothing_is_found() -> None:
    """Somebody who takes connections and never says a word hangs."""
    with RawListener() as listener:
        campaign = Campaign(listener.address, EVERYTHING, seed=1, timeout=0.2, kinds=["valid"])
        finding = next(campaign.run())
        assert finding is not None
        assert finding.problems == ["the server neither answered nor closed in time"]


def test_the_same_seed_sends_the_same(server: Server) -> None:
    """A case depends on seed and number alone; another seed makes others."""
    first, second, other = (Campaign(server.address, EVERYTHING, seed=seed).generator for seed in (5, 5, 6))
    cases = [first.case(number) for number in range(60)]
    assert [second.case(number) for number in reversed(range(60))] == cases[::-1]
    assert [other.case(number) for number in range(60)] != cases


def test_a_case_is_shown_frame_by_frame(server: Server) -> None:
    """What a reproducer sends can be read: the preamble, each frame, and how it ends."""
    lines = show(Campaign(server.address, EVERYTHING).generator.probe())
    assert lines[0] == "probe:"
    assert "preamble" in lines[1]
    assert lines[-2].split()[:6] == ["then", "00", "00", "00", "0e", "03"]
    assert lines[-1] == "  and ends its output"


def test_a_process_is_measured() -> None:
    """Threads, descriptors and memory of a process are seen, and a descriptor more is drift."""
    before = resources(os.getpid())
    assert before.threads >= 1
    assert before.memory > 2**20
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    try:
        after = resources(os.getpid())
    finally:
        for each in opened:
            os.close(each)
    assert any("descriptors" in problem for problem in drift(before, after))


def test_drift_is_more_than_slack() -> None:
    """More threads and descriptors are drift, memory only when it is more than caches explain."""
    before = Resources(30, 20, 100 * 2**20)
    assert drift(before, before) == []
    assert drift(before, Resources(29, 19, 110 * 2**20)) == []
    assert len(drift(before, Resources(31, 21, 120 * 2**20))) == 3
