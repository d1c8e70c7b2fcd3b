"""``wireproto check``: a service against the contract that is kept of it, or that was kept of it at another time."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from wireproto.cli.command import Command, Failure
from wireproto.cli.failure import reason
from wireproto.cli.shadow import warn_of_shadows
from wireproto.cli.target import resolve
from wireproto.cli.text import decoded, read_text
from wireproto.cli.values import dumps
from wireproto.contract import LEVELS, Change, Lock, compare
from wireproto.contract.changes import Level
from wireproto.errors import ConfigError
from wireproto.schema import Service

__all__ = ["command"]

_SUFFIX = ".lock.json"


class _Report(NamedTuple):
    """What there is to say of one service."""

    service: Service
    changes: list[Change]
    problems: list[str]
    stale: bool = False

    def failed(self, level: Level) -> bool:
        return self.stale or bool(self.problems) or any(change.breaks_at(level) for change in self.changes)


@click.command("check", cls=Command)
@click.argument("services", nargs=-1, required=True, metavar="MODULE:SERVICE...")
@click.option(
    "--lock",
    "path",
    type=click.Path(path_type=Path),
    default=Path("contract"),
    show_default=True,
    metavar="PATH",
    help=f"The folder of the locks, FULL.NAME{_SUFFIX} for each service; or the file, for one.",
)
@click.option("--write", is_flag=True, help="Write the locks, but for what is released.")
@click.option(
    "--release",
    type=click.IntRange(1, 255),
    metavar="N",
    help="With --write: versions up to N must not change any more.",
)
@click.option(
    "--codec", "codecs", multiple=True, metavar="NAME", help="With --write: keep bytes of this codec; repeat it."
)
@click.option("--against", metavar="PATH|REV", help="Judge the change since that lock, or since that git revision's.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="wire",
    show_default=True,
    help="With --against: what must hold. text has names in JSON and .proto as well, source those in Python, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def command(
    services: tuple[str, ...],
    path: Path,
    write: bool,
    release: int | None,
    codecs: tuple[str, ...],
    against: str | None,
    level: Level,
    as_json: bool,
) -> None:
    """Compare a service with the lock that is kept of it, and say what a change breaks, and for whom.

    A lock has the opcode table and the bytes of sample messages in every version and codec. Without --against the lock
    must be what the code says; any difference fails. With it, what breaks at --level does.

    \b
    wireproto check calculator:CALCULATOR --write
    wireproto check calculator:CALCULATOR
    wireproto check calculator:CALCULATOR --against main

    Exit status: 0 nothing breaks, 1 something does, 2 wrong usage. docs/contract.md has the rules.
    """
    declared = [resolve(target, Service) for target in services]
    warn_of_shadows(declared)
    if write and against is not None:
        raise ConfigError("--write and --against exclude each other; compare first")
    if (release is not None or codecs) and not write:
        raise ConfigError("--release and --codec belong to --write")
    if path.suffix == ".json" and len(declared) > 1:
        raise ConfigError(f"--lock {path} is one file, and there are {len(declared)} services; give a folder")
    reports = []
    for service in declared:
        file = _file(path, service)
        if write:
            _write(service, file, release, codecs)
        elif against is None:
            reports.append(_compared(service, _read(file)))
        else:
            lock = _earlier(against, file, service)
            reports.append(_Report(service, compare(lock.service, service, lock.codecs), lock.problems(service)))
    if write:
        return
    _show_json(reports, level) if as_json else _show(reports, level)
    if any(report.failed(level) for report in reports):
        sys.exit(1)


# Locks ----------------------------------------------------------------------------------------------------------


def _file(path: Path, service: Service) -> Path:
    return path if path.suffix == ".json" else path / f"{service.full_name}{_SUFFIX}"


def _read(file: Path) -> Lock:
    try:
        text = read_text(file, f"the lock {file}", 2)
    except Failure as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ConfigError(f"there is no lock {file}; write it with --write, and commit it") from error
        raise
    return _parsed(text, str(file))


def _parsed(text: str, name: str) -> Lock:
    try:
        return Lock.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _compared(service: Service, lock: Lock) -> _Report:
    problems = lock.problems(service)
    # With problems there is no lock of it that could be written.
    stale = not problems and Lock.of(service, before=lock).text() != lock.text()
    return _Report(service, compare(lock.service, service, lock.codecs), problems, stale)


def _write(service: Service, file: Path, release: int | None, codecs: Sequence[str]) -> None:
    before = _read(file) if file.exists() else None
    if before is not None and (problems := before.problems(service, released_only=True)):
        raise Failure("\n".join([f"{file} is not written:", *problems]))
    if release is not None and release not in service.versions:
        has = f"{service.oldest} to {service.version}"
        raise ConfigError(f"--release {release}: {service.full_name} has the versions {has}")
    lock = Lock.of(service, before=before, codecs=codecs, released=release)
    text = lock.text()
    if before is not None and file.read_bytes() == text.encode():
        return
    for change in [] if before is None else compare(before.service, service, before.codecs):
        _show_change(change, err=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be written: {reason(error)}") from error
    click.echo(f"{file} written", err=True)


def _earlier(against: str, file: Path, service: Service) -> Lock:
    """The lock that ``against`` names: a file or folder that is there, or else what git has of ``file``."""
    named = Path(against)
    if named.exists():
        return _read(_file(named, service) if named.is_dir() else named)
    # The folder itself may be newer than the revision, or gone.
    where, name = (file.parent, Path(file.name)) if file.parent.is_dir() else (Path(), file)
    found = _git(where, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{against}^{{commit}}")
    commit = found.decode("ascii").strip()
    if not commit:
        raise ConfigError(f"--against {against}: there is no such file, and git knows no such revision")
    data = _git(where, "show", f"{commit}:./{name}")
    if not data:
        raise ConfigError(f"--against {against}: that revision has no {file}; give one in which it was committed")
    source = f"{file} of {against}"
    return _parsed(decoded(data, source, 2), source)


def _git(where: Path, *arguments: str) -> bytes:
    """What git says; nothing when it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError("git is not installed; give --against a file") from error
    return done.stdout if done.returncode == 0 else b""


# Saying it ------------------------------------------------------------------------------------------------------


def _show(reports: list[_Report], level: Level) -> None:
    for report in reports:
        for change in report.changes:
            _show_change(change)
        for problem in report.problems:
            click.echo(problem)
        name = report.service.full_name
        if report.stale:
            click.echo(f"{name} is not what its lock says; if that is meant, write it with --write", err=True)
        elif report.failed(level):
            click.echo(f"{name} breaks what must hold", err=True)


def _show_change(change: Change, *, err: bool = False) -> None:
    click.echo(str(change), err=err)
    for line in change.details():
        click.echo(f"    {line}", err=err)


def _show_json(reports: list[_Report], level: Level) -> None:
    found: list[dict[str, Any]] = [
        {
            "service": report.service.full_name,
            "failed": report.failed(level),
            "stale": report.stale,
            "changes": [change.to_json() for change in report.changes],
            "problems": report.problems,
        }
        for report in reports
    ]
    click.echo(dumps(found, indent=2 if sys.stdout.isatty() else None))
