"""``wireproto conformance``: numbered cases from the pages of the protocol, run against anybody's server or client."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import click

from wireproto.address import Address
from wireproto.cli.command import Command, Failure
from wireproto.cli.text import read_text
from wireproto.cli.values import dumps
from wireproto.conformance import runner
from wireproto.conformance.case import Case, Run, Verdict
from wireproto.conformance.report import Known, Report, listing
from wireproto.errors import ConfigError

__all__ = ["command"]

SERVICE_MODULE = "wireproto.conformance.service"

CLIENTS = 4
"""Processes of a client under test at once, at most."""

_STYLES: dict[str, dict[str, Any]] = {
    "head": {"bold": True},
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "known": {"fg": "yellow"},
    "note": {"fg": "yellow"},
}


@click.command("conformance", cls=Command)
@click.argument("words", nargs=-1, metavar="[HOST:PORT | COMMAND...]")
@click.option("--server", "mode", flag_value="server", help="Judge the server that COMMAND starts, its end included.")
@click.option("--client", "mode", flag_value="client", help="Judge the client that COMMAND is; the kit is its server.")
@click.option("--serve", "mode", flag_value="serve", help="Serve the conformance service, and judge nothing.")
@click.option("--list", "mode", flag_value="list", help="List the cases and judge nothing.")
@click.option("--case", "cases", multiple=True, metavar="ID", help="Only this case, as 2.07; repeat for several.")
@click.option("--section", "sections", multiple=True, type=int, metavar="N", help="Only this section; repeat it.")
@click.option("--codec", "codecs", multiple=True, metavar="NAME", help="Only this codec; repeat it.  [default: all]")
@click.option("--version", "versions", multiple=True, type=int, metavar="N", help="Only this version of the service.")
@click.option(
    "--known",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Deviations that are known, one case a line: they are run, and their failing is expected.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--jobs", type=click.IntRange(1, 64), default=runner.JOBS, show_default=True, help="Runs at once.")
@click.option("--port", type=click.IntRange(0, 65535), default=7411, show_default=True, help="Of --serve; 0 for any.")
@click.pass_context
def command(
    ctx: click.Context,
    words: tuple[str, ...],
    mode: str | None,
    cases: tuple[str, ...],
    sections: tuple[int, ...],
    codecs: tuple[str, ...],
    versions: tuple[int, ...],
    known: Path | None,
    as_json: bool,
    jobs: int,
    port: int,
) -> None:
    """Judge an implementation of the protocol by its pages: a server at HOST:PORT, or what COMMAND starts.

    \b
    wireproto conformance 127.0.0.1:7411
    wireproto conformance --server -- ./my-server --port 0
    wireproto conformance --client -- node my-client.mjs
    wireproto conformance --serve

    A server that hosts the conformance service is judged by every case, any other one by those that need only the
    framework's own opcodes. docs/conformance.md has the service, and what a client under test is told and answers.

    Exit status: 0 when nothing failed that was not known to, 1 when something did, 2 when nothing could be judged.
    """
    selection = runner.Selection(cases, sections, codecs, versions)
    if mode == "serve":
        _serve(ctx, port)
    elif mode == "list":
        _list(selection)
    else:
        report = _judge(words, mode, selection, known, jobs)
        if as_json:
            click.echo(dumps(report.as_json(), indent=2 if sys.stdout.isatty() else None))
        else:
            _print(report)
        if report.unexpected:
            ctx.exit(1)
        if all(run.verdict is Verdict.SKIPPED for run in report.runs):
            raise Failure("nothing could be judged", 2)


def _serve(ctx: click.Context, port: int) -> None:
    from wireproto.cli.serve import command as serve

    ctx.invoke(
        serve,
        handlers=(f"{SERVICE_MODULE}:handlers",),
        authenticate=f"{SERVICE_MODULE}:authenticate",
        port=port,
        no_grpc=True,
    )


def _cases_of_servers() -> Mapping[str, Case[Any]]:
    from wireproto.conformance.servers import SERVER_CASES

    return SERVER_CASES.cases


def _cases_of_clients() -> Mapping[str, Case[Any]]:
    from wireproto.conformance.clients import CLIENT_CASES

    return CLIENT_CASES.cases


def _list(selection: runner.Selection) -> None:
    rows = listing(selection.of({**_cases_of_servers(), **_cases_of_clients()}))
    if sys.stdout.isatty():
        for case_id, over, needs, text in rows:
            click.echo(f"{click.style(case_id, bold=True)}  {text}\n        over {over}; needs {needs}")
    else:
        for row in rows:
            click.echo("\t".join(row))


def _judge(
    words: tuple[str, ...], mode: str | None, selection: runner.Selection, known: Path | None, jobs: int
) -> Report:
    from wireproto.conformance.client import judge_client
    from wireproto.conformance.processes import ServerProcess
    from wireproto.conformance.server import judge_server

    if mode is not None and not words:
        raise ConfigError(f"--{mode} takes the command that starts it: wireproto conformance --{mode} -- COMMAND...")
    if mode is None and len(words) != 1:
        raise ConfigError("name the server to judge, as HOST:PORT; or give --server, --client, --serve or --list")
    began = time.monotonic()
    cases = _cases_of_clients() if mode == "client" else _cases_of_servers()
    expected = _known(known, cases)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_CasesDone())
        if mode == "server":
            server: ServerProcess = stack.enter_context(ServerProcess(words))
            runs = judge_server(
                server.address, selection, start=lambda: ServerProcess(words), jobs=jobs, progress=progress
            )
        elif mode == "client":
            runs = judge_client(words, selection, jobs=min(jobs, CLIENTS), progress=progress)
        else:
            address = Address.parse(words[0])
            runs = judge_server((address.host, address.port), selection, jobs=jobs, progress=progress)
    return Report(" ".join(words), runs, expected, time.monotonic() - began)


def _known(path: Path | None, cases: Mapping[str, Case[Any]]) -> Known:
    if path is None:
        return Known("", cases)
    return Known(read_text(path, status=2), cases)


class _CasesDone:
    """A line on a terminal that says how far it is; nothing anywhere else."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self.shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __call__(self, run: Run, of: int) -> None:
        self.done += 1
        self.failed += run.verdict is Verdict.FAILED
        if self.shown:
            click.echo(f"\r{self.done} of {of} runs, {self.failed} failed ", nl=False, err=True)

    def __exit__(self, *exception: object) -> None:
        if self.shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def _print(report: Report) -> None:
    # click leaves the colours out where stdout is no terminal.
    colour = False if os.environ.get("NO_COLOR") else None
    for kind, line in report.lines():
        click.echo(click.style(line, **_STYLES[kind]) if kind else line, color=colour)
