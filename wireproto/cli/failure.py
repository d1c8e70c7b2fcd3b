"""How commands fail: which exception is which sentence and which exit status. Everything else is a bug's traceback."""

import errno
import sys
from collections.abc import Mapping
from typing import IO, Any, Final

import click

from wireproto.errors import CallError, ConfigError, DeclarationError, DecodeError, EncodeError
from wireproto.status import Retry

__all__ = ["CALL_STATUS", "INTERRUPTED", "Failure", "advice", "explained", "metadata_lines", "missing", "reason"]

CALL_STATUS: Final = 10
"""Exit status of a call that was answered with an error: this plus the status's number."""

INTERRUPTED: Final = 130
"""... and of one that was stopped by SIGINT: 128 plus its number, as shells have it."""

_EXTRAS: Final = {"google": "grpc", "grpc": "grpc"}
"""What a command needs beyond the extra `cli`, by the name of the missing module."""

_LIMIT: Final = "the limit of processes and threads is reached (ulimit -u, or that of the container)"

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Why a file, or the output, takes no more."""


class Failure(click.ClickException):
    """Ends the command with a sentence on stderr.

    Args:
        message: the sentence; further lines are shown below it.
        status: the exit status.

    Attributes:
        program: in front of the sentence.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click declares it on the class and reads it here
        self.program = "wireproto"

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it the way Unix commands do, behind the name of the program."""
        click.echo(f"{self.program}: {self.message}", file=file or sys.stderr)


def explained(error: BaseException) -> Failure | None:
    """``error`` as a sentence and a status, where it tells of something outside of the program; None for a bug.

    Errors of the framework's are all of that kind, and so is whatever the operating system refuses: a descriptor, a
    thread, memory, room on a disk. A command that knows more says more, and raises `Failure` itself.
    """
    match error:
        case CallError():
            return Failure(f"{error}{_beside(error)}{advice(error)}", CALL_STATUS + error.status)
        case ConfigError() | DeclarationError() | EncodeError():
            return Failure(str(error), 2)
        case DecodeError():
            return Failure(f"the answer cannot be read: {error}")
        case UnicodeError():
            # Texts are read and written so that nothing of them is refused. What remains is a word of the command line.
            return Failure(f"a name on the command line is no text, or none of a host: {error}", 2)
        case MemoryError():
            return Failure("there is not enough memory for that")
        case OSError():
            return Failure(_refused(error))
        case ImportError() if error.path and not error.path.endswith(".py"):
            # A library, and not a module in Python: neither absent nor wrong, but not to be had just now.
            return Failure(f"a part of the program cannot be loaded: {error}")
        case RuntimeError() if str(error).startswith("can't start new thread"):
            return Failure(f"no further thread could be started: {_LIMIT}")
    return None


def _beside(error: CallError) -> str:
    """What came with an error, on lines of its own: its details, and what the server said beside it."""
    if error.details is None and not error.metadata:
        return ""
    from wireproto.cli.values import dumps, to_json  # not needed by the commands that never fail so

    lines = [] if error.details is None else [f"details {type(error.details).__name__} {dumps(to_json(error.details))}"]
    return "".join(f"\n{line}" for line in (*lines, *metadata_lines(error.metadata)))


def metadata_lines(metadata: Mapping[str, str]) -> list[str]:
    """What stands beside an answer, a line for each; what a server says must not write on the terminal as it likes."""
    return [f"{name}: {ascii(value)[1:-1] if not value.isprintable() else value}" for name, value in metadata.items()]


def reason(error: OSError) -> str:
    """Why the operating system refused, in its own words."""
    return error.strerror or str(error) or type(error).__name__


def _refused(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"no further file or connection could be opened: {reason(error)} (ulimit -n raises the limit)"
    if error.errno == errno.EAGAIN:
        return f"no further process could be started: {_LIMIT}"
    if error.filename is not None:
        name = error.filename if isinstance(error.filename, str) else repr(error.filename)
        return f"{name}: {reason(error)}"
    if error.errno in _NO_ROOM:
        return f"the output cannot be written: {reason(error)}"
    return f"the system refused that: {reason(error)}"


def missing(error: ModuleNotFoundError) -> Exception:
    """``error`` as a sentence that says which extra to install; itself when none would help."""
    name = error.name or ""
    extra = _EXTRAS.get(name.split(".")[0])
    if extra is None:
        return error
    return Failure(f"{name} is not installed; run: pip install 'wireproto[{extra}]'", status=2)


def advice(error: CallError) -> str:
    """A second line that says whether trying again makes sense; nothing when it does not."""
    if error.retry is Retry.NEVER:
        return ""
    later = f" in {error.retry_after_ms} ms" if error.retry_after_ms else ""
    if error.retry is Retry.NOT_PROCESSED:
        return f"\nThe call was not processed: it is safe to try again{later}."
    return f"\nThe call may have been processed: try again{later} only if doing it twice does no harm."
