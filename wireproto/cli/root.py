"""The group of all subcommands. Each is imported when it is run, so that ``wireproto --help`` is quick."""

import functools
import importlib
import sys
from typing import Final, NoReturn

import click

from wireproto.cli.command import Failure, Group, missing, run_as_program
from wireproto.version import __version__

__all__ = ["run", "wireproto"]

# Name, module and one line for `--help`, which must not import the module to get it. A table and no entry points, for a
# source tree has none. Those of other distributions come behind.
_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("wireproto.cli.serve", "Run a server: your handlers, or an installed application."),
    "call": ("wireproto.cli.call", "Call one method of a server and print the answer as JSON."),
    "ops": ("wireproto.cli.ops", "Print a service's opcode table."),
    "bench": ("wireproto.cli.bench", "Measure a server: calls a second, latency, CPU, bytes."),
    "check": ("wireproto.cli.check", "Say what a change of a service breaks, and for whom."),
    "proto": ("wireproto.cli.proto", "Print a service as a .proto file."),
    "proxy": ("wireproto.cli.proxy", "Put a network with faults between a client and a server."),
    "fuzz": ("wireproto.cli.fuzz", "Send a server what nobody should, and judge its answers."),
    "conformance": ("wireproto.cli.conformance", "Judge a server or a client by the protocol's rules."),
}


class _NoSuchCommand(click.NoSuchCommand):
    """Says, beside the nearest name, where further commands come from."""

    def format_message(self) -> str:
        return (
            f"{super().format_message()}\nFurther commands come with other distributions: pip install wireproto-chat."
        )


class _Lazy(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_every())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # Whoever names one of ours does not wait for a look at what is installed, which takes 12 ms.
        if cmd_name in _COMMANDS:
            return load(_COMMANDS[cmd_name][0])
        place = _every().get(cmd_name)
        if place is None:
            return None
        try:
            return load(place[0])
        except (Exception, SystemExit) as error:
            if isinstance(error, click.ClickException):
                raise
            raise Failure(
                f"the command {cmd_name}, which another distribution brings, cannot be loaded: "
                f"{place[0]}: {type(error).__name__}: {error}"
            ) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click suggests from the commands that are loaded, and here that is none.
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing and name not in _every():
            raise _NoSuchCommand(name, possibilities=_every(), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _every().items()])


@functools.cache
def _every() -> dict[str, tuple[str, str]]:
    """All commands, those of other distributions included."""
    from wireproto.cli.plugins import commands  # 20 ms, which a command of ours does not pay

    return {**_COMMANDS, **commands(_COMMANDS)}


def load(module: str) -> click.Command:
    """Import the command that ``module`` has."""
    try:
        command: click.Command = importlib.import_module(module).command
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return command


@click.command(cls=_Lazy)
@click.version_option(__version__, message=f"wireproto {__version__} (Python {sys.version.split()[0]})")
def wireproto() -> None:
    """A wire protocol of your own: one typed opcode table, served in any codec.

    Data goes to stdout, everything else to stderr. An option can also be set in the environment: --port of serve is
    WIREPROTO_SERVE_PORT.

    Exit status: 0 done, 1 failed, 2 wrong usage, 10 + n when a call was answered with status n, 130 interrupted.
    """


def run() -> NoReturn:
    """Run the process's command line with click, and exit; see ``wireproto.cli``."""
    run_as_program(wireproto, "wireproto", "WIREPROTO")
