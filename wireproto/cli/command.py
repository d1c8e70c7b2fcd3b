"""What all commands share: how they fail. One place turns exceptions into a sentence and an exit status."""

import errno
import os
import sys
from typing import IO, Any, NoReturn

import click

from wireproto.errors import CallError, ConfigError, DeclarationError, DecodeError, EncodeError
from wireproto.status import Retry

__all__ = [
    "CALL_STATUS",
    "CONTEXT",
    "INTERRUPTED",
    "Command",
    "Failure",
    "advice",
    "drop_output",
    "missing",
    "run_as_program",
]

CALL_STATUS = 10
"""Exit status of a call that was answered with an error: this plus the status's number."""

INTERRUPTED = 130
"""... and of one that was stopped by SIGINT: 128 plus its number, as shells have it."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Of every command, whether it runs below ``wireproto`` or by itself."""


_EXTRAS = {"google": "grpc", "grpc": "grpc"}
"""What a command needs beyond the extra `cli`, by the name of the missing module."""


class Failure(click.ClickException):
    """Ends the command with a sentence on stderr.

    Args:
        message: the sentence; further lines are shown below it.
        status: the exit status.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click declares it on the class and reads it here

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it the way Unix commands do, behind the name of the program."""
        context = click.get_current_context(silent=True)
        program = (context.find_root().info_name if context is not None else None) or "wireproto"
        click.echo(f"{program}: {self.message}", file=file or sys.stderr)


class Command(click.Command):
    """A command whose framework exceptions become sentences."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings.setdefault("context_settings", CONTEXT)
        super().__init__(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; see ``click.Command.invoke``."""
        try:
            return super().invoke(ctx)
        except CallError as error:
            raise Failure(f"{error}{advice(error)}", CALL_STATUS + error.status) from error
        except (ConfigError, DeclarationError, EncodeError) as error:
            raise Failure(str(error), 2) from error
        except DecodeError as error:
            raise Failure(f"the answer cannot be read: {error}") from error
        except BrokenPipeError:
            drop_output()  # whoever read it has had enough, as `head` does
            ctx.exit(0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
                raise
            drop_output()
            raise Failure(f"the output cannot be written: {error.strerror}") from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def run_as_program(command: click.Command, name: str, prefix: str) -> NoReturn:
    """Run a command on this process's command line, and exit with its status.

    Args:
        command: of any class; one of ``Command`` tells the framework's exceptions in sentences.
        name: what the program is called.
        prefix: of the environment variables that give its options, ``PREFIX_OPTION``.
    """
    _open_streams()
    command(prog_name=name, auto_envvar_prefix=prefix)
    sys.exit(0)  # click exits by itself, which a checker does not know


def _open_streams() -> None:
    """Give a process that was started with a standard stream closed one that leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Never closed: it is there for as long as the process lives, as the others are.
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, closefd=False))  # noqa: SIM115


def missing(error: ModuleNotFoundError) -> Exception:
    """``error`` as a sentence that says which extra to install; itself when none would help."""
    name = error.name or ""
    extra = _EXTRAS.get(name.split(".")[0])
    if extra is None:
        return error
    return Failure(f"{name} is not installed; run: pip install 'wireproto[{extra}]'", status=2)


def drop_output() -> None:
    """Let stdout lead nowhere: its reader has gone, and Python would flush it once more, and complain, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def advice(error: CallError) -> str:
    """A second line that says whether trying again makes sense; nothing when it does not."""
    if error.retry is Retry.NEVER:
        return ""
    later = f" in {error.retry_after_ms} ms" if error.retry_after_ms else ""
    if error.retry is Retry.NOT_PROCESSED:
        return f"\nThe call was not processed: it is safe to try again{later}."
    return f"\nThe call may have been processed: try again{later} only if doing it twice does no harm."
