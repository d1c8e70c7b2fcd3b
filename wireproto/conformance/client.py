"""Judges a client: starts its program, tells it what to do, and is the server it does it to."""

from collections.abc import Callable, Sequence

from wireproto import codecs as registry
from wireproto.conformance.callee import Trial
from wireproto.conformance.case import Case, NotJudged, Run
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.programs import Programs
from wireproto.conformance.runner import JOBS, Selection, judge
from wireproto.conformance.service import CONFORMANCE
from wireproto.errors import ConfigError

__all__ = ["judge_client"]


def judge_client(
    command: Sequence[str],
    selection: Selection | None = None,
    *,
    jobs: int = JOBS,
    progress: Callable[[Run, int], None] | None = None,
) -> list[Run]:
    """Run the client cases against a program.

    Args:
        command: the program and its arguments; docs/conformance.md says what it reads and writes.
        selection: the cases, codecs and versions wanted.
        jobs: processes of it at once.
        progress: see ``judge``.

    Raises:
        ConfigError: the selection names what there is not, or the program cannot be started.
    """
    selection = selection or Selection()
    cases = selection.of(CLIENT_CASES.cases)
    installed = {each.name: each.id for each in registry.select()}
    for name in selection.codecs:
        if name not in installed:
            raise ConfigError(f"there is no codec {name!r} here; there are {', '.join(installed)}")
    names = list(selection.codecs or installed)
    versions = [
        version
        for version in range(1, CONFORMANCE.version + 1)
        if not selection.versions or version in selection.versions
    ]
    if not versions:
        raise ConfigError(f"the conformance service has versions 1 to {CONFORMANCE.version}")
    programs = Programs(command)

    def bind(case: Case[Trial], codec: str, version: int) -> Trial:
        if version < case.since:
            raise NotJudged(f"version {version} of the service has no methods of every shape")
        return Trial((installed[codec], codec), version, programs)

    try:
        return judge(cases, names, versions, bind, jobs=jobs, progress=progress)
    finally:
        programs.close()
