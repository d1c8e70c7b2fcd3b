"""Cases against a server that runs: each on a connection of its own, judged, and written down when it is a finding.

    campaign = Campaign(("127.0.0.1", 7411), service, codec="msgpack", seed=1)
    for finding in campaign.run(connections=1000):
        print(finding.problems)

One thread, one connection at a time. Now and then, and after each finding, a fresh connection must still be served.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from wireproto.conformance import page
from wireproto.conformance.fuzzing.cases import KINDS, Generator, Input
from wireproto.conformance.fuzzing.judge import Methods, Observed, judge
from wireproto.conformance.raw import Ending, RawPeer
from wireproto.schema import Service

__all__ = ["PROBE_EVERY", "Campaign", "Finding", "load", "save", "show"]

PROBE_EVERY: Final = 64
"""Connections after which a fresh one must be served."""


class Finding(msgspec.Struct, frozen=True):
    """What a server did that the protocol does not allow, and what it was sent before.

    Attributes:
        seed: of the campaign.
        number: of the case; -1 for the probe behind it.
        problems: sentences, for people.
        cases: what to send again, in order. More than one when it is not clear which of them it was.
        service: the full name of the service.
        codec: the codec's name.
        version: of the service.
    """

    seed: int
    number: int
    problems: list[str]
    cases: list[Input]
    service: str
    codec: str
    version: int


class Campaign:
    """Sends cases and judges the answers.

    Args:
        address: host and port.
        service: what the server serves, and in which version.
        codec: the codec's name.
        seed: of the cases.
        kinds: which kinds of cases; None for all.
        timeout: seconds after which a server that neither answers nor closes hangs. More than its own time-outs.

    Attributes:
        connections: made so far, probes included.
        calls: sent by the kinds of cases that are about calls.
        cases: by kind.
        answered: probes that were served.
    """

    def __init__(
        self,
        address: tuple[str, int],
        service: Service,
        *,
        codec: str = "msgpack",
        seed: int = 0,
        kinds: list[str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.address = address
        self.table = Methods.of(service, codec, service.version)
        self.codec = codec
        self.seed = seed
        self.timeout = timeout
        self.connections = 0
        self.calls = 0
        self.answered = 0
        self.cases: Counter[str] = Counter()
        self.generator = Generator(self.table, codec, seed, kinds or list(KINDS))
        self._since_probe: deque[Input] = deque(maxlen=PROBE_EVERY)

    def run(self, connections: int | None = None, seconds: float | None = None) -> Iterator[Finding | None]:
        """Send one case after another; None for each that was answered as it should be.

        Args:
            connections: how many; None for no end.
            seconds: how long; None for no end.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        number = 0
        while (connections is None or number < connections) and (deadline is None or time.monotonic() < deadline):
            case = self.generator.case(number)
            self.cases[case.kind] += 1
            self._since_probe.append(case)
            problems = self.send(case)
            if problems:
                yield self._finding(number, problems, [case])
            if problems or number % PROBE_EVERY == PROBE_EVERY - 1:
                yield self.probe()
            else:
                yield None
            number += 1
        yield self.probe()

    def probe(self) -> Finding | None:
        """Whether a fresh connection is served after all that was sent."""
        problems = self.send(self.generator.probe())
        suspects = list(self._since_probe)
        self._since_probe.clear()
        if not problems:
            self.answered += 1
            return None
        return self._finding(-1, [f"after that, a fresh connection: {problem}" for problem in problems], suspects)

    def _finding(self, number: int, problems: list[str], cases: list[Input]) -> Finding:
        table = self.table
        return Finding(self.seed, number, problems, cases, table.service.full_name, self.codec, table.version)

    def replay(self, finding: Finding) -> list[str]:
        """Send its cases again, and a probe; what is still wrong."""
        problems = [problem for case in finding.cases for problem in self.send(case)]
        problems += self.send(self.generator.probe())
        return list(dict.fromkeys(problems))

    def send(self, case: Input) -> list[str]:
        """Send one case and judge the answer; what is wrong with it."""
        self.connections += 1
        try:
            observed = self.observe(case)
        except OSError as error:
            return [f"it cannot be connected to: {error.strerror or error}"]
        if observed is None:
            return []
        return judge(case.opening, case.rest or b"", observed, self.table)

    def observe(self, case: Input) -> Observed | None:
        """What comes back; None for a case that does not look.

        Raises:
            OSError: there is no connection to be had.
        """
        with RawPeer.connect(self.address, self.timeout) as peer:
            peer.send(case.opening, timeout=self.timeout)
            if case.rest is None:
                peer.end_output()
                opening, ending = peer.drain(self.timeout)
                return Observed(opening, None, ending)
            welcome = self._welcome(peer)
            if isinstance(welcome, Observed):
                return welcome
            peer.send(*_pieces(case), timeout=self.timeout)
            if case.reset:
                peer.reset()
                return None
            peer.end_output()
            rest, ending = peer.drain(self.timeout)
            self.calls += case.calls
            return Observed(welcome, rest, ending)

    def _welcome(self, peer: RawPeer) -> bytes | Observed:
        """The bytes of preamble and WELCOME; all that came when they are something else."""
        deadline = time.monotonic() + self.timeout
        first = peer.take(len(page.PREAMBLE) + page.HEADER.size, self.timeout)
        if isinstance(first, Ending):
            peer.end_output()
            return Observed(bytes(peer.received), None, first)
        header = page.read_header(first, len(page.PREAMBLE))
        length = header.length - page.AFTER_LENGTH
        if first.startswith(page.PREAMBLE) and header.kind == page.WELCOME and 0 <= length <= page.HELLO_MAX_FRAME:
            body = peer.take(length, max(deadline - time.monotonic(), 0.001))
            if not isinstance(body, Ending):
                return first + body
        peer.end_output()
        rest, ending = peer.drain(self.timeout)
        return Observed(first + rest, None, ending)


def _pieces(case: Input) -> list[bytes]:
    pieces = []
    rest = case.rest or b""
    for cut in case.cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return [piece for piece in (*pieces, rest) if piece]


# Files ----------------------------------------------------------------------------------------------------------------


def save(finding: Finding, folder: Path) -> Path:
    """Write a finding into a file of its own; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "probe" if finding.number < 0 else str(finding.number)
    path = folder / f"wireproto-fuzz-{finding.seed}-{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(finding)) + b"\n")
    return path


def load(text: str) -> Finding:
    """Read what ``save`` wrote: the text of the file.

    Raises:
        msgspec.DecodeError: it is that of another one.
    """
    return msgspec.json.decode(text, type=Finding)


def show(case: Input) -> list[str]:
    """What a case sends, a line for each frame, for people."""
    lines = [f"{case.kind}:"]
    for label, data in (("first", case.opening), ("then", case.rest)):
        if data is None:
            continue
        if label == "first" and data.startswith(page.PREAMBLE):
            lines.append("  first  f5 57 50 01  preamble")
            data = data[len(page.PREAMBLE) :]
        while data:
            length = int.from_bytes(data[:4], "big") + 4 if len(data) >= page.HEADER.size else len(data)
            shown, data = data[:length], data[length:]
            text = shown[:64].hex(" ") + (f" ... {len(shown)} bytes" if len(shown) > 64 else "")
            lines.append(f"  {label:<5}  {text}")
    lines.append("  and drops the connection" if case.reset else "  and ends its output")
    return lines
