"""The group of all subcommands. Each is imported when it is run, so that ``wireproto --help`` is quick."""

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from wireproto import __version__
from wireproto.cli.command import CONTEXT, INTERRUPTED, Failure

__all__ = ["run", "wireproto"]

# Name, module and one line for `--help`, which must not import the module to get it.
_COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("wireproto.cli.serve", "Run a server: the chat, or your own handlers."),
    "chat": ("wireproto.chat.cli.chat", "Talk to other people on a chat server."),
    "call": ("wireproto.cli.call", "Call one method of a server and print the answer as JSON."),
    "ops": ("wireproto.cli.ops", "Print a service's opcode table."),
    "bench": ("wireproto.cli.bench", "Measure a server: calls a second, latency, CPU, bytes."),
    "check": ("wireproto.cli.check", "Say what a change of a service breaks, and for whom."),
    "db": ("wireproto.chat.cli.db", "Upgrade, check or back up the chat's database."),
    "proto": ("wireproto.cli.proto", "Print a service as a .proto file."),
    "proxy": ("wireproto.cli.proxy", "Put a network with faults between a client and a server."),
    "fuzz": ("wireproto.cli.fuzz", "Send a server what nobody should, and judge its answers."),
    "conformance": ("wireproto.cli.conformance", "Judge a server or a client by the protocol's rules."),
}

# What a command needs beyond the extra `cli`, by the name of the missing module.
_EXTRAS = {
    "alembic": "chat",
    "argon2": "chat",
    "google": "grpc",
    "grpc": "grpc",
    "prompt_toolkit": "chat",
    "sqlalchemy": "chat",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while the command was imported; `Command` has it while it runs
            ctx.exit(INTERRUPTED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in _COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click suggests from the commands that are loaded, and here that is none.
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.NoSuchCommand(name, possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


def load(name: str) -> click.Command:
    """Import the command called ``name``."""
    module, _ = _COMMANDS[name]
    try:
        command: click.Command = importlib.import_module(module).command
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return command


def missing(error: ModuleNotFoundError) -> Exception:
    """``error`` as a sentence that says what to install; itself when no extra would help."""
    name = error.name or ""
    if name.startswith("wireproto.chat"):
        return Failure("the chat is not part of this installation; name a service of your own", status=2)
    extra = _EXTRAS.get(name.split(".")[0])
    if extra is None:
        return error
    return Failure(f"{name} is not installed; run: pip install 'wireproto[{extra}]'", status=2)


@click.command(cls=_Lazy, context_settings=CONTEXT)
@click.version_option(__version__, message=f"wireproto {__version__} (Python {sys.version.split()[0]})")
def wireproto() -> None:
    """A wire protocol of your own: one typed opcode table, served in any codec.

    Data goes to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 10 + n when a call was
    answered with status n. An option can also be set in the environment: --port of serve is WIREPROTO_SERVE_PORT.
    """


def _open_streams() -> None:
    """Give a process that was started with a standard stream closed one that leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Never closed: it is there for as long as the process lives, as the others are.
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, closefd=False))  # noqa: SIM115


def run(name: str | None) -> NoReturn:
    """Run the process's command line with click, and exit; see ``wireproto.cli``."""
    _open_streams()
    if name is None:
        wireproto(prog_name="wireproto", auto_envvar_prefix="WIREPROTO")
    else:
        # A command run by itself reads the same variables as below `wireproto`.
        program = {"serve": "python -m wireproto.server", "chat": "python -m wireproto.client"}[name]
        try:
            command = load(name)
        except click.ClickException as failure:
            failure.show()
            sys.exit(failure.exit_code)
        command(prog_name=program, auto_envvar_prefix=f"WIREPROTO_{name.upper()}")
    sys.exit(0)  # click exits by itself, which a checker does not know
