"""Which runs a selection comes to, and running them: several at once, the slow ones first."""

import errno
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wireproto.conformance.case import Case, Deviation, NotJudged, Over, Run, Verdict, matches, sort_key
from wireproto.errors import ConfigError

__all__ = ["JOBS", "Selection", "judge"]

B = TypeVar("B")

_FOLDER = Path(__file__).parent

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What fails for want of this machine's own, whatever the peer does."""

JOBS = 8
"""Runs at once: most of the time each waits for its peer."""


@dataclass(frozen=True)
class Selection:
    """What was asked for; what is empty is everything.

    Attributes:
        cases: ids, with the letter or without.
        sections: of the pages of the protocol.
        codecs: names.
        versions: of the conformance service.
    """

    cases: Sequence[str] = ()
    sections: Sequence[int] = ()
    codecs: Sequence[str] = ()
    versions: Sequence[int] = ()

    def of(self, cases: Mapping[str, Case[B]]) -> list[Case[B]]:
        """The cases selected, in the order of the document.

        Raises:
            ConfigError: an id or a section has no case.
        """
        for each in self.cases:
            if not any(matches(case_id, [each]) for case_id in cases):
                raise ConfigError(f"there is no case {each}; --list shows those there are")
        for section in self.sections:
            if not any(case.section == section for case in cases.values()):
                raise ConfigError(f"section {section} has no case; --list shows those there are")
        chosen = [
            case
            for case_id, case in cases.items()
            if (not self.cases and not self.sections) or matches(case_id, self.cases) or case.section in self.sections
        ]
        return sorted(chosen, key=lambda case: sort_key(case.id))


Bind = Callable[[Case[B], str, int], B]
"""What a case is run with, under one codec and version."""


def _repeated(case: Case[Any], codecs: Sequence[str], versions: Sequence[int]) -> Iterator[tuple[str, int]]:
    """The codecs and versions that a case runs over, "" and 0 where it does not say them apart."""
    if case.over is Over.ONCE:
        yield "", 0
        return
    for codec in codecs:
        if case.only and codec not in case.only:
            continue
        if case.over is Over.CODECS:
            yield codec, 0
        else:
            # One that no version has is run in the last, and so not judged.
            with_it = [version for version in versions if version >= case.since] or versions[-1:]
            yield from ((codec, version) for version in with_it)


def judge(
    cases: Iterable[Case[B]],
    codecs: Sequence[str],
    versions: Sequence[int],
    bind: Bind[B],
    *,
    jobs: int = JOBS,
    progress: Callable[[Run, int], None] | None = None,
) -> list[Run]:
    """Run every case over every codec and version that it is about.

    Args:
        codecs: names, the first of which is used where the codec does not matter.
        versions: of the service, the last of which is used where it does not matter.
        bind: makes what a run is given; may raise ``NotJudged``.
        jobs: runs at once.
        progress: told of each run when it is over, and of how many there are; one call at a time.

    Returns:
        The runs in the order of the document. Whatever exception a case ends with is its failure, so that there is a
        report in any case.

    Raises:
        ConfigError: this process ran out of descriptors or of memory, so that nothing can be said of the peer.
    """
    todo = [(case, codec, version) for case in cases for codec, version in _repeated(case, codecs, versions)]

    def one(item: tuple[Case[B], str, int]) -> Run:
        case, codec, version = item
        began = time.monotonic()
        verdict, detail = Verdict.PASSED, ""
        try:
            case.run(bind(case, codec or codecs[0], version or versions[-1]))
        except NotJudged as reason:
            verdict, detail = Verdict.SKIPPED, str(reason)
        except Deviation as deviation:
            verdict, detail = Verdict.FAILED, str(deviation)
        except OSError as error:
            if error.errno in _OURS:
                raise ConfigError(
                    f"this machine gives the kit no more: {os.strerror(error.errno)}; "
                    "give fewer --jobs, or allow more open files (ulimit -n)"
                ) from error
            verdict, detail = Verdict.FAILED, f"no connection could be had: {error}"
        except Exception as error:  # noqa: BLE001 - what a peer answers may surprise a case in any way
            verdict, detail = Verdict.FAILED, f"the kit met what it did not expect: {_told(error)}"
        return Run(case, codec, version, verdict, detail, time.monotonic() - began)

    found = []
    with ThreadPoolExecutor(jobs, "wireproto-conformance") as pool:
        # Slow ones first, so that they do not end alone.
        futures = [pool.submit(one, item) for item in sorted(todo, key=lambda item: not item[0].slow)]
        try:
            for future in futures:
                found.append(future.result())
                if progress is not None:
                    progress(found[-1], len(todo))
        except BaseException:
            # An interrupt waits for what runs, and not for hundreds of cases that have not begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(found, key=lambda run: (*sort_key(run.case.id), run.codec, run.version))


def _told(error: Exception) -> str:
    """An exception in a line: its type and text, and the last line of a case that it came through."""
    kind, text = type(error).__name__, str(error)
    places = traceback.extract_tb(error.__traceback__)[1:]  # without the line here that runs every case
    ours = [each for each in places if Path(each.filename).is_relative_to(_FOLDER)]
    where = (ours or places)[-1]
    shown = f"{kind}: {text}" if text else kind
    return f"{shown}, in {where.name} ({Path(where.filename).name}:{where.lineno})"
