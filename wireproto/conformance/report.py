"""What is said of the runs, to a person and to a program, and which deviations were known before."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wireproto.conformance.case import SECTIONS, Case, Over, Run, Verdict
from wireproto.errors import ConfigError

__all__ = ["Known", "Report", "listing"]


class Known:
    """Deviations that are expected: one a line, with a reason behind it.

        s4.44             a case, whatever it is run over
        s4.44/pipe        ... in one codec
        s4.44/pipe/2      ... in one codec and version       # why

    Args:
        text: of the file. ``#`` begins a comment; what follows the name is its reason.
        cases: those there are.

    Raises:
        ConfigError: a line names no case.
    """

    def __init__(self, text: str, cases: Mapping[str, Case[Any]]) -> None:
        self.names: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if words[0].partition("/")[0] not in cases:
                raise ConfigError(f"line {number} of the known deviations names no case: {words[0]}; --list shows them")
            self.names.append(words[0])

    def entry(self, run: Run) -> str | None:
        """The line that expects a run to fail."""
        return next((name for name in self.names if run.name == name or run.name.startswith(name + "/")), None)


@dataclass
class Report:
    """All that there is to say about one implementation.

    Attributes:
        subject: what was judged, for people.
        runs: in the order of the document.
        known: what was expected to fail.
        seconds: what it took.
    """

    subject: str
    runs: Sequence[Run]
    known: Known
    seconds: float = 0.0
    _entries: dict[str, list[Run]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for run in self.runs:
            if entry := self.known.entry(run):
                self._entries.setdefault(entry, []).append(run)

    @property
    def unexpected(self) -> list[Run]:
        """Runs that failed and are not known to."""
        return [run for run in self.runs if run.verdict is Verdict.FAILED and self.known.entry(run) is None]

    @property
    def expected(self) -> list[Run]:
        """Runs that failed as it is known."""
        return [run for run in self.runs if run.verdict is Verdict.FAILED and self.known.entry(run) is not None]

    @property
    def mended(self) -> list[str]:
        """Known deviations of which every run that was judged passed: their lines can go."""
        return [
            entry
            for entry, runs in self._entries.items()
            if {run.verdict for run in runs} - {Verdict.SKIPPED} == {Verdict.PASSED}
        ]

    def lines(self) -> Iterator[tuple[str, str]]:
        """The report as lines, each with what it is: ``head``, ``good``, ``bad``, ``known``, ``note`` or plain."""
        yield "head", f"{self.subject}, judged by docs/wire.md, values.md and control.md"
        sections = {section: [run for run in self.runs if run.case.section == section] for section in SECTIONS}
        for section, runs in sections.items():
            if runs:
                yield from self._section(section, runs)
        if self.mended:
            yield "", ""
            for name in self.mended:
                yield "note", f"{name} is a known deviation and passes now; take it off the list"
        yield "", ""
        yield ("bad" if self.unexpected else "good"), self.summary()

    def _section(self, section: int, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
        verdicts = Counter(run.verdict for run in runs)
        cases = len({run.case.id for run in runs})
        failed = [run for run in runs if run.verdict is Verdict.FAILED]
        known = [run for run in failed if self.known.entry(run) is not None]
        words = [f"{verdicts[Verdict.PASSED]} passed"]
        if len(failed) > len(known):
            words.append(f"{len(failed) - len(known)} failed")
        if known:
            words.append(f"{len(known)} known to fail")
        if verdicts[Verdict.SKIPPED]:
            words.append(f"{verdicts[Verdict.SKIPPED]} not judged")
        kind = "bad" if len(failed) > len(known) else "good" if verdicts[Verdict.PASSED] else ""
        yield kind, f"{section:3}  {SECTIONS[section]:<34} {cases:4} cases  {', '.join(words)}"
        # What several runs have in common is said once: a deviation for its case, a lack for the section.
        seen: dict[tuple[str, str], list[Run]] = {}
        for run in failed:
            seen.setdefault((run.case.id, run.detail), []).append(run)
        for (_, detail), same in seen.items():
            expected = [run for run in same if run in known]
            names = same[0].name if len(same) == 1 else f"{same[0].name} and {len(same) - 1} more"
            verdict = "is known to fail" if expected == same else "failed"
            yield ("known" if expected == same else "bad"), f"       {names} {verdict}: {same[0].case.text}"
            yield "", f"           {detail}"
        lacks: dict[str, dict[str, None]] = {}
        for run in runs:
            if run.verdict is Verdict.SKIPPED:
                lacks.setdefault(run.detail, {})[run.case.id] = None
        for detail, ids in lacks.items():
            first, *others = ids
            names = first if not others else f"{first} and {len(others)} more"
            yield "known", f"       {names} not judged: {detail}"

    def summary(self) -> str:
        """One line."""
        verdicts = Counter(run.verdict for run in self.runs)
        words = [f"{verdicts[Verdict.PASSED]} passed", f"{len(self.unexpected)} failed"]
        if self.expected:
            words.append(f"{len(self.expected)} known to fail")
        if verdicts[Verdict.SKIPPED]:
            words.append(f"{verdicts[Verdict.SKIPPED]} not judged")
        cases = len({run.case.id for run in self.runs})
        return f"{cases} cases, {len(self.runs)} runs: {', '.join(words)} in {self.seconds:.1f} s"

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON's objects; docs/conformance.md has its fields."""
        verdicts = Counter(run.verdict for run in self.runs)
        cases: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            case = run.case
            into = cases.setdefault(case.id, {"id": case.id, "section": case.section, "rule": case.text, "runs": []})
            into["runs"].append(
                {
                    "codec": run.codec,
                    "version": run.version,
                    "verdict": run.verdict.value,
                    "known": self.known.entry(run) is not None,
                    "detail": run.detail,
                    "seconds": round(run.seconds, 3),
                }
            )
        return {
            "subject": self.subject,
            "conforms": not self.unexpected,
            "cases": len(cases),
            "runs": len(self.runs),
            "passed": verdicts[Verdict.PASSED],
            "failed": len(self.unexpected),
            "known_to_fail": len(self.expected),
            "not_judged": verdicts[Verdict.SKIPPED],
            "known_that_pass": self.mended,
            "seconds": round(self.seconds, 1),
            "results": list(cases.values()),
        }


def listing(cases: Iterable[Case[Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Rows of id, what a case is repeated over, what it needs, and its rule."""
    for case in cases:
        over = " and ".join(case.only) if case.only and case.over is not Over.ONCE else case.over.value
        yield case.id, over, case.needs.value, case.text
