"""What all commands share: how they begin and how they end. `failure` says which exception is which sentence."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TextIO

import click

from wireproto.cli.failure import CALL_STATUS, INTERRUPTED, Failure, advice, explained, missing
from wireproto.cli.text import show_anything

__all__ = [
    "CALL_STATUS",
    "CONTEXT",
    "INTERRUPTED",
    "Command",
    "Failure",
    "Group",
    "advice",
    "drop_output",
    "explained",
    "missing",
    "run_as_program",
]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Of every command, whether it runs below ``wireproto`` or by itself."""


class _Explaining(click.Command):
    """Ends in a sentence and a documented status, whatever is wrong outside of the program.

    click by itself shows its own exceptions only, and a traceback when what it shows cannot be written: a full disk
    below ``--help``, or below the sentence about a wrong option.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings.setdefault("context_settings", CONTEXT)
        super().__init__(*arguments, **settings)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read the command line; see ``click.Command.make_context``."""
        with _explaining():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> None:
        """Run it; see ``click.Command.invoke``. What it returns means nothing."""
        with _explaining():
            super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run it on a command line and exit with its status; see ``click.Command.main``."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            with _explaining():
                status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or 0
                sys.stdout.flush()
        except click.ClickException as error:
            status = error.exit_code
            if isinstance(error, Failure):
                error.program = prog_name or error.program
            with contextlib.suppress(OSError):  # the status is right though nobody can read the sentence
                error.show()
        except click.exceptions.Exit as ending:
            status = ending.exit_code
        except click.Abort:  # somebody was asked something, and pressed Ctrl-C or Ctrl-D
            status = INTERRUPTED
        finally:
            drop_output()
        sys.exit(status)


class Command(_Explaining):
    """A command whose framework exceptions become sentences, and so do those of the operating system."""


class Group(_Explaining, click.Group):
    """A group of commands with the same manners, whatever class its commands are of."""


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    """Turn what is explained into what click shows, or exits with."""
    try:
        yield
    except BrokenPipeError:  # whoever read it has had enough, as `head` does
        raise click.exceptions.Exit(0) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except Exception as error:
        failure = explained(error)
        if failure is None:
            raise
        raise failure from error


def drop_output() -> None:
    """Let standard output and error lead nowhere where they cannot be written any more.

    What could not be written is kept, and Python would try it once more at exit, complain, and change the status.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    number = stream.fileno()
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:  # not one descriptor is left; that of the stream is of no use
        os.close(number)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def run_as_program(command: click.Command, name: str, prefix: str) -> NoReturn:
    """Run a command on this process's command line, and exit with its status.

    Args:
        command: of any class; one of ``Command`` tells the framework's exceptions in sentences.
        name: what the program is called.
        prefix: of the environment variables that give its options, ``PREFIX_OPTION``.
    """
    _open_streams()
    show_anything(sys.stdout)
    command(prog_name=name, auto_envvar_prefix=prefix)
    sys.exit(0)  # click exits by itself, which a checker does not know


def _open_streams() -> None:
    """Give a process that was started with a standard stream closed one that leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Never closed: it is there for as long as the process lives, as the others are.
            stream = open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
