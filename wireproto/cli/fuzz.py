"""``wireproto fuzz``: malformed and valid traffic against a server that runs, judged by docs/wire.md."""

import re
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import click
import msgspec

from wireproto import codecs
from wireproto.address import Address, is_loopback
from wireproto.cli.command import Command, Failure
from wireproto.cli.failure import reason
from wireproto.cli.reflect import hosted
from wireproto.cli.target import resolve
from wireproto.cli.text import read_text
from wireproto.cli.units import TIMEOUT
from wireproto.cli.values import dumps
from wireproto.client import connect
from wireproto.conformance.fuzzing.cases import KINDS
from wireproto.conformance.fuzzing.live import Campaign, Finding, load, save, show
from wireproto.conformance.fuzzing.watch import Resources, drift, resources
from wireproto.control import CONTROL
from wireproto.errors import ConfigError
from wireproto.schema import Service

__all__ = ["command"]

SECONDS = 30.0
"""How long, when neither -n nor --seconds says so."""

MOST_FILES = 50
"""Findings that are written down; of what has been seen in so many ways, more files tell nothing."""

WARM_UP = 2000
"""Connections before a process is measured: until then it makes its threads, its caches and its tables."""


@click.command("fuzz", cls=Command)
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--service",
    metavar="MODULE:SERVICE",
    help="Where the service is declared, or its full name if the server hosts several.  [default: ask the server]",
)
@click.option(
    "--codec", default="msgpack", show_default=True, metavar="NAME", help="pipe, msgpack, protobuf or another."
)
@click.option("--seed", type=int, help="Of everything that is chosen; the same seed sends the same.  [default: random]")
@click.option("-n", "--connections", type=click.IntRange(min=1), metavar="N", help="Stop after N connections.")
@click.option("--seconds", type=TIMEOUT, metavar="TIME", help="Stop after so long.  [default: 30s, without -n]")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only this kind; repeat it.  [default: all]"
)
@click.option(
    "--timeout",
    type=TIMEOUT,
    default=10.0,
    metavar="TIME",
    help="After so long without answer or end a server hangs; more than its own time-outs.  [default: 10s]",
)
@click.option(
    "--findings",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where reproducers are written.  [default: here]",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Send what a reproducer holds, and nothing else.",
)
@click.option("--pid", type=click.IntRange(min=1), help="The server's process: its threads, descriptors and memory.")
@click.option("--allow-remote", is_flag=True, help="Fuzz a server that is not on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    address: str,
    service: str | None,
    codec: str,
    seed: int | None,
    connections: int | None,
    seconds: float | None,
    kinds: tuple[str, ...],
    timeout: float,
    findings: Path,
    replay: Path | None,
    pid: int | None,
    allow_remote: bool,
    as_json: bool,
) -> None:
    """Send the server at HOST:PORT what nobody should, and judge what it answers by docs/wire.md.

    It sends wrong first bytes, HELLOs, frames, metadata and payloads, and valid calls with random values of every
    method: never point it at data that somebody needs. What may come back is in that page: a documented reason, never a
    hang, never an answer to nothing, the connection alive behind a bad payload, a fresh one always served.

    \b
    wireproto fuzz 127.0.0.1:7411 --seconds 60
    wireproto fuzz 127.0.0.1:7411 -n 100000 --seed 1 --kind payload --codec pipe
    wireproto fuzz 127.0.0.1:7411 --replay wireproto-fuzz-1-4711.json

    Each finding leaves a file that --replay sends again.

    Exit status: 0 when nothing was found, 1 when something was, 2 wrong usage, 10 + n when the server refused with n.
    """
    where = Address.parse(address)
    target = _resolved(where, allow_remote=allow_remote)
    if replay is not None:
        finding = _load(replay)
        _replay(ctx, target, finding, _service(where, service or finding.service, finding.codec, timeout), timeout)
        return
    codecs.get(codec)
    if seed is None:
        seed = secrets.randbelow(1_000_000)
    if connections is None and seconds is None:
        seconds = SECONDS
    declared = _service(where, service, codec, timeout)
    campaign = Campaign(target, declared, codec=codec, seed=seed, kinds=list(kinds) or None, timeout=timeout)
    summary = _Run(campaign, findings, pid).run(connections, seconds)
    if as_json:
        click.echo(dumps(summary, indent=2 if sys.stdout.isatty() else None))
    else:
        _print(summary)
    if summary["findings"]:
        ctx.exit(1)


def _resolved(address: Address, *, allow_remote: bool) -> tuple[str, int]:
    """An address of the host, which must be this machine's own unless the user said otherwise."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(f"{address} cannot be found: {error.strerror}", 2) from error
    host: str = str(found[0][4][0])
    if not allow_remote and not is_loopback(host):
        raise ConfigError(
            f"{address} is not on this machine; what is sent does harm where people rely on a server. "
            "If it is yours to harm, say --allow-remote"
        )
    return host, address.port


def _service(address: Address, wanted: str | None, codec: str, timeout: float) -> Service:
    if wanted is not None and ":" in wanted:
        return resolve(wanted, Service)
    services = hosted(address, closing(connect(address, CONTROL, codec=codec, timeout=timeout)), timeout)
    names = [each.full_name for each in services]
    chosen = [each for each in services if wanted in (None, each.full_name)]
    if len(chosen) == 1:
        return chosen[0]
    there = " and ".join(names) or "no service"
    raise ConfigError(f"{address} hosts {there}; say with --service which one is meant")


# A campaign -------------------------------------------------------------------------------------------------------


class _Run:
    """One campaign, shown and written down."""

    def __init__(self, campaign: Campaign, folder: Path, pid: int | None) -> None:
        self.campaign = campaign
        self.folder = folder
        self.pid = pid
        self.findings = 0
        self.files: list[str] = []
        self.seen: Counter[str] = Counter()
        self.before: Resources | None = None
        self.after: Resources | None = None
        self.ended = ""
        """Why the process cannot be measured any more."""

    def run(self, connections: int | None, seconds: float | None) -> dict[str, Any]:
        """Send, and say on stderr how far it is; the summary."""
        began = time.monotonic()
        if self.pid is not None:
            _measured(self.pid)  # whether it can be, before anything is sent
        warm_up = min(WARM_UP, (connections or WARM_UP * 4) // 4)
        with _FuzzProgress(self, began) as progress:
            for number, finding in enumerate(self.campaign.run(connections, seconds)):
                if finding is not None:
                    self._keep(finding, progress)
                if number == warm_up and self.pid is not None and not self.ended:
                    self.before = self._look(self.pid)
                if number % 64 == 0:
                    progress.show()
        if self.pid is not None and not self.ended:
            self.after = self._look(self.pid)
        return self._summary(time.monotonic() - began)

    def _look(self, pid: int) -> Resources | None:
        """What the process holds; None, which is a finding, when it has ended under what it was sent."""
        try:
            return _measured(pid)
        except Failure as error:
            self.ended = error.message
            return None

    def _keep(self, finding: Finding, progress: "_FuzzProgress") -> None:
        self.findings += 1
        # Alike but for numbers: the same finding again.
        alike = re.sub(r"\d+|0x[0-9a-f]+", "#", finding.problems[0])
        self.seen[alike] += 1
        if self.seen[alike] <= 3 and len(self.files) < MOST_FILES:
            path = save(finding, self.folder)
            self.files.append(str(path))
            progress.say(f"finding: {finding.problems[0]}\n  {path}")

    def _summary(self, elapsed: float) -> dict[str, Any]:
        campaign = self.campaign
        summary: dict[str, Any] = {
            "seed": campaign.seed,
            "codec": campaign.codec,
            "service": campaign.table.service.full_name,
            "connections": campaign.connections,
            "calls": campaign.calls,
            "cases": dict(sorted(campaign.cases.items())),
            "probes_answered": campaign.answered,
            "seconds": round(elapsed, 1),
            "findings": self.findings,
            "problems": dict(self.seen.most_common()),
            "files": self.files,
        }
        if self.before is not None and self.after is not None:
            problems = drift(self.before, self.after)
            summary["before"], summary["after"] = self.before._asdict(), self.after._asdict()
            summary["findings"] += len(problems)
            summary["problems"].update(dict.fromkeys(problems, 1))
        if self.ended:
            summary["findings"] += 1
            summary["problems"][self.ended] = 1
        return summary


def _measured(pid: int) -> Resources:
    try:
        return resources(pid)
    except OSError as error:
        raise Failure(f"process {pid} cannot be measured: {reason(error)}") from error


class _FuzzProgress:
    """A line on stderr: redrawn on a terminal, every ten seconds in a pipe."""

    def __init__(self, run: _Run, began: float) -> None:
        self._run = run
        self._began = began
        self._tidy = sys.stderr.isatty()
        self._next = time.monotonic() + (0 if self._tidy else 10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.2 if self._tidy else 10)
        campaign = self._run.campaign
        rate = campaign.connections / max(now - self._began, 0.001)
        line = f"{campaign.connections:,} connections, {rate:,.0f}/s, {campaign.calls:,} calls, "
        line += f"{self._run.findings} findings"
        click.echo(f"\r{line}\x1b[K" if self._tidy else line, err=True, nl=not self._tidy)

    def clear(self) -> None:
        if self._tidy:
            click.echo("\r\x1b[K", err=True, nl=False)

    def say(self, text: str) -> None:
        self.clear()
        click.echo(text, err=True)


def _print(summary: dict[str, Any]) -> None:
    cases = ", ".join(f"{count} {kind}" for kind, count in summary["cases"].items())
    click.echo(f"{summary['service']} in {summary['codec']}, seed {summary['seed']}")
    click.echo(f"{summary['connections']} connections in {summary['seconds']} s: {cases}")
    click.echo(f"{summary['calls']} calls; {summary['probes_answered']} fresh connections served in between")
    for label in ("before", "after"):
        if label in summary:
            click.echo(f"{label}: {_resources_text(Resources(**summary[label]))}")
    click.echo(f"{summary['findings'] or 'no'} findings")
    for problem, count in summary["problems"].items():
        click.echo(f"  {count} x {problem}")
    for path in summary["files"]:
        click.echo(f"  {path}")


def _resources_text(found: Resources) -> str:
    return f"{found.threads} threads, {found.descriptors} descriptors, {found.memory / 2**20:.1f} MiB"


# One finding again --------------------------------------------------------------------------------------------------


def _load(path: Path) -> Finding:
    try:
        return load(read_text(path, status=2))
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is no reproducer: {error}") from error


def _replay(ctx: click.Context, target: tuple[str, int], finding: Finding, service: Service, timeout: float) -> None:
    campaign = Campaign(target, service, codec=finding.codec, seed=finding.seed, timeout=timeout)
    _echo(line for case in finding.cases for line in show(case))
    problems = campaign.replay(finding)
    _echo(problems)
    click.echo("it is still there" if problems else "nothing is wrong with the answer any more")
    if problems:
        ctx.exit(1)


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
