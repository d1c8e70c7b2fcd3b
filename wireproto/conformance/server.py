"""Judges a server: finds out what it hosts, and runs the cases it can be judged by."""

from collections.abc import Callable, Sequence

from wireproto import codecs as registry
from wireproto.conformance import page
from wireproto.conformance.caller import Bench, Caller, Subject
from wireproto.conformance.case import Case, Deviation, Needs, NotJudged, Run
from wireproto.conformance.raw import Ending
from wireproto.conformance.runner import JOBS, Selection, judge
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import CONFORMANCE
from wireproto.control import CONTROL
from wireproto.errors import ConfigError

__all__ = ["judge_server"]


def judge_server(
    address: tuple[str, int],
    selection: Selection | None = None,
    *,
    start: Callable[[], Subject] | None = None,
    jobs: int = JOBS,
    progress: Callable[[Run, int], None] | None = None,
) -> list[Run]:
    """Run the server cases against whoever listens at ``address``.

    Args:
        selection: the cases, codecs and versions wanted.
        start: starts another server of the same kind, for the cases that end it.
        jobs: runs at once.
        progress: see ``judge``.

    Raises:
        ConfigError: the selection names what there is not, or nobody at ``address`` speaks this protocol.
    """
    selection = selection or Selection()
    cases = selection.of(SERVER_CASES.cases)
    service, newest = _hosted(address)
    codecs = _codecs(address, service, selection.codecs)
    versions = [version for version in range(1, newest + 1) if not selection.versions or version in selection.versions]
    if not versions:
        raise ConfigError(f"the server speaks versions 1 to {newest} of {service}")
    numbers = {name: registry.get(name).id for name in codecs}

    def bind(case: Case[Bench], codec: str, version: int) -> Bench:
        if case.needs is not Needs.NOTHING and service != CONFORMANCE.full_name:
            raise NotJudged(f"the server does not host {CONFORMANCE.full_name}")
        if version < case.since:
            raise NotJudged(f"version {version} of the service has no methods of every shape")
        return Bench(address, (numbers[codec], codec), version, service, newest, start)

    return judge(cases, codecs, versions, bind, jobs=jobs, progress=progress)


def _hosted(address: tuple[str, int]) -> tuple[str, int]:
    """The service to judge the server by, and its newest version there."""
    for service in (CONFORMANCE.full_name, CONTROL.full_name):
        found = _greet(address, service, [(each.id, each.name) for each in registry.select()])
        if isinstance(found, page.WelcomeBody):
            return service, found.version
        if found.reason != "UNKNOWN_SERVICE":
            raise ConfigError(f"the server refuses a client of {service}: {found.reason}: {found.message}")
    raise ConfigError(
        f"the server hosts neither {CONFORMANCE.full_name} nor {CONTROL.full_name}, which every server does"
    )


def _codecs(address: tuple[str, int], service: str, wanted: Sequence[str]) -> list[str]:
    """The codecs that the server has, of those wanted."""
    installed = {each.name: each.id for each in registry.select()}
    for name in wanted:
        if name not in installed:
            raise ConfigError(f"there is no codec {name!r} here; there are {', '.join(installed)}")
    names = [
        name
        for name in wanted or installed
        if isinstance(_greet(address, service, [(installed[name], name)]), page.WelcomeBody)
    ]
    if not names:
        raise ConfigError(f"the server has none of the codecs {', '.join(wanted or installed)}")
    return names


def _greet(
    address: tuple[str, int], service: str, codecs: Sequence[tuple[int, str]]
) -> page.WelcomeBody | page.ErrorBody:
    bench = Bench(address, codecs[0], 1, service, 1)
    try:
        peer = bench.raw()
    except OSError as error:
        raise ConfigError(f"{address[0]}:{address[1]} cannot be reached: {error}") from error
    with peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE + page.frame(page.HELLO, bench.hello(codecs=codecs, versions=(1, 255))))
        try:
            found = caller.first()
        except Deviation as deviation:
            raise ConfigError(f"{address[0]}:{address[1]} does not speak this protocol: {deviation}") from None
    if isinstance(found, Ending):
        raise ConfigError(f"{address[0]}:{address[1]} does not answer a HELLO: there was {found.value}")
    try:
        return page.read_welcome(found.payload) if found.kind == page.WELCOME else page.read_error(found.payload)
    except Deviation as deviation:
        raise ConfigError(f"the server's answer to HELLO cannot be read: {deviation}") from None
