"""The fuzz targets hold for every input that was kept, and for the test vectors; ``make fuzz`` looks for new ones."""

import random

import pytest

from fuzz import corpus
from fuzz.payloads import CODECS, plans
from fuzz.run import Progress
from fuzz.targets import TARGETS
from wireproto.errors import DecodeError


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_holds_for_its_corpus(name: str) -> None:
    """Every kept input, and every test vector, keeps the target's promise."""
    assert len(corpus.load(name)) >= 30
    _replay(name)


def _replay(name: str) -> None:
    run = TARGETS[name].make()
    for each in [*corpus.load(name), *TARGETS[name].seeds()]:
        try:
            run(each)
        except Exception as error:
            error.add_note(f"{name}: {each.hex()}")
            raise


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_takes_anything(name: str) -> None:
    """No input is too short or too strange for the target itself."""
    run = TARGETS[name].make()
    rng = random.Random(name)
    for size in (*range(9), *[40] * 200):
        run(rng.randbytes(size))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_corpus_is_kept_in_order(name: str) -> None:
    """A corpus file has each input once, the shortest first, so that a change to it can be read."""
    kept = corpus.load(name)
    assert kept == sorted(set(kept), key=lambda each: (len(each), each))


@pytest.mark.parametrize("codec", CODECS)
def test_a_corpus_has_both_verdicts(codec: str) -> None:
    """Of each codec there are payloads that are read and payloads that are refused, of most messages."""
    routes = plans(codec)
    read, refused = set(), set()
    for each in corpus.load(codec):
        if each:
            route = each[0] % len(routes)
            try:
                routes[route].decode(each[1:])
            except DecodeError:
                refused.add(route)
            else:
                read.add(route)
    assert len(read) >= len(routes) // 2
    assert len(refused) >= len(routes) // 2


def test_a_broken_codec_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that loses a character of what its own writer wrote breaks the target's promise."""
    from wireproto.codecs import pipe

    monkeypatch.setitem(pipe._CALLED, "unescape", lambda text: text.replace("\\p", ""))
    from wireproto import codecs

    monkeypatch.setattr(codecs.get("pipe"), "_plans", {})
    with pytest.raises(AssertionError):
        _replay("pipe")


def test_a_connection_that_reads_pieces_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that forgets a byte when a frame comes in two pieces breaks the target's promise."""
    from wireproto.wire.buffer import Buffer

    append = Buffer.append

    def lossy(self: Buffer, data: bytes) -> None:
        append(self, data if not len(self) or len(data) < 2 else data[1:])

    monkeypatch.setattr(Buffer, "append", lossy)
    with pytest.raises(AssertionError):
        _replay("frames")


def test_a_connection_that_takes_more_than_was_granted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that grants more of a call than its owner has, or forgets to, breaks the target's promise."""
    from wireproto.wire.connection import Connection

    send_credit = Connection.send_credit

    def generous(self: Connection, call_id: int, items: int, size: int) -> bool:
        sent = send_credit(self, call_id, items, size)
        if sent:
            self._calls_of(call_id).halves[call_id].bytes_to_come += 1
        return sent

    monkeypatch.setattr(Connection, "send_credit", generous)
    with pytest.raises(AssertionError):
        _replay("frames")


def test_a_connection_that_counts_calls_beyond_their_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that counts a cancelled call beyond its terminal frame breaks the target's promise."""
    from wireproto.wire.calls import Calls, CallState

    forget = Calls.forget

    def slow(self: Calls, call_id: int) -> None:
        if self.state_of(call_id).state is not CallState.CANCELLED:
            forget(self, call_id)

    monkeypatch.setattr(Calls, "forget", slow)
    with pytest.raises(AssertionError):
        _replay("frames")


def test_progress_is_read_from_what_libfuzzer_prints() -> None:
    """Executions, edges, inputs and a finding are taken from its lines; all others are passed over."""
    progress = Progress("frames")
    for line in (
        "INFO: Using preloaded libfuzzer\n",
        "#7\tINITED cov: 40 ft: 44 corp: 3/9b exec/s: 0 rss: 60Mb\n",
        "#65536\tpulse  cov: 244 ft: 619 corp: 89/1346b lim: 192 exec/s: 6085 rss: 62Mb\n",
        "#65541\tREDUCE cov: 245 ft: 620 corp: 90/1340b lim: 192 exec/s: 6085 rss: 62Mb L: 12/391 MS: 1 CrossOver-\n",
        "stat::number_of_executed_units: 70000\n",
        "artifact_prefix='fuzz/findings/frames-'; Test unit written to fuzz/findings/frames-crash-ab\n",
    ):
        progress.read(line)
    assert (progress.executions, progress.edges, progress.inputs) == (70_000, 245, 90)
    assert progress.finding == "fuzz/findings/frames-crash-ab"
    assert "70,000 executions" in progress.line(10)
    assert "7,000/s" in progress.line(10)
