"""What a case is, how one says that a rule was broken, and which runs come of it."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = [
    "SECTIONS",
    "Case",
    "Deviation",
    "Needs",
    "NotJudged",
    "Over",
    "Registry",
    "Run",
    "Verdict",
    "sort_key",
]

B = TypeVar("B")

SECTIONS = {
    1: "First bytes",
    2: "Frames",
    3: "Handshake",
    4: "Calls",
    5: "Metadata",
    6: "Bodies of fixed layout",
    7: "States",
    8: "The end of a connection",
    9: "Statuses, retries and reasons",
    10: "Limits and times",
    11: "Values",
    12: "Codecs",
    13: "The framework's own opcodes",
    14: "How the protocol grows",
}
"""The sections that have cases: 11 and 12 are in ``values.md``, 13 is in ``control.md``, the others in ``wire.md``."""

_ID = re.compile(r"[sc](1[0-4]|[1-9])\.([0-9]{2}|[1-9][0-9]{2})")


class Deviation(Exception):
    """The implementation under test broke a rule; the text says which and what was seen."""


class NotJudged(Exception):
    """The case cannot be judged here, and why: the implementation lacks what it needs, by its own choice."""


class Over(Enum):
    """What a case is repeated over."""

    ONCE = "once"
    CODECS = "every codec"
    ALL = "every codec and version"


class Needs(Enum):
    """What a case takes beside a connection."""

    NOTHING = "any server"
    SERVICE = "the conformance service"
    SHAPES = "the conformance service in version 3, with methods of every shape"
    PROCESS = "the server's process"


@dataclass(frozen=True)
class Case(Generic[B]):
    """One rule.

    Attributes:
        id: a letter for who is judged, ``s`` or ``c``, the section, and a number in it; never used for another rule.
        text: the rule in one sentence.
        run: judges it; returns when the rule was kept.
        slow: it waits for seconds, so that it is begun first.
    """

    id: str
    text: str
    run: Callable[[B], None]
    over: Over = Over.ALL
    needs: Needs = Needs.NOTHING
    slow: bool = False
    only: tuple[str, ...] = ()
    """The codecs it is about; empty for all."""

    @property
    def section(self) -> int:
        return int(self.id[1:].partition(".")[0])

    @property
    def since(self) -> int:
        """The first version of the conformance service that has what the case needs."""
        return 3 if self.needs is Needs.SHAPES else 1


class Registry(Generic[B]):
    """The cases of one side.

    Args:
        side: ``s`` for cases that judge a server, ``c`` for a client's.
    """

    def __init__(self, side: str) -> None:
        self.side = side
        self.cases: dict[str, Case[B]] = {}

    def case(
        self, number: str, *, over: Over = Over.ALL, needs: Needs = Needs.NOTHING, slow: bool = False
    ) -> Callable[[Callable[[B], None]], Callable[[B], None]]:
        """A decorator that makes a function whose docstring is a rule the case ``number``, such as 2.07."""

        def keep(run: Callable[[B], None]) -> Callable[[B], None]:
            self.add(number, (run.__doc__ or "").strip(), run, over=over, needs=needs, slow=slow)
            return run

        return keep

    def add(
        self,
        number: str,
        text: str,
        run: Callable[[B], None],
        *,
        over: Over = Over.ALL,
        needs: Needs = Needs.NOTHING,
        slow: bool = False,
        only: tuple[str, ...] = (),
    ) -> None:
        """The same for a row of a table."""
        made = Case(self.side + number, " ".join(text.split()), run, over, needs, slow, only)
        if not _ID.fullmatch(made.id) or made.id in self.cases or not made.text.endswith("."):
            raise ValueError(f"{made.id} {made.text!r} is no case, or is there twice")
        self.cases[made.id] = made


def sort_key(case_id: str) -> tuple[str, int, int]:
    """The order of the document."""
    section, _, number = case_id[1:].partition(".")
    return case_id[0], int(section), int(number)


class Verdict(Enum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It could not be judged."""


class Run(NamedTuple):
    """One case under one codec and version, judged. Codec and version are empty and 0 where it is run once."""

    case: Case[Any]
    codec: str
    version: int
    verdict: Verdict
    detail: str = ""
    """What was seen, or why it was not judged."""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The case, and what it ran over: ``s2.07``, ``s2.07/pipe`` or ``s2.07/pipe/2``."""
        return "/".join(
            [self.case.id, *([self.codec] if self.codec else []), *([str(self.version)] if self.version else [])]
        )


def matches(case_id: str, wanted: Iterable[str]) -> bool:
    """Whether a case was named: ``s2.07`` in full, or ``2.07`` without the side."""
    return any(case_id in (each, case_id[0] + each) for each in wanted)
