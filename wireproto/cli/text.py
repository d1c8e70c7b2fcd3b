"""Text that comes from a file or from standard input: UTF-8 whatever the locale says, without a byte order mark.

Some editors write such a mark in front of UTF-8. Left there it would become a part of the first password or the first
name, where nobody sees it; no text has one on purpose.
"""

import codecs
import sys
from pathlib import Path
from typing import Any, Final, TextIO

from wireproto.cli.failure import Failure

__all__ = ["check_host", "decoded", "read_input", "read_text", "show_anything", "without_mark", "write_utf8"]

_AS_SHOWN: Final = "wireproto.as-shown"
"""The error handler of ``show_anything``."""


def without_mark(data: bytes) -> bytes:
    """``data``, the beginning of a text in UTF-8, without its byte order mark."""
    return data.removeprefix(codecs.BOM_UTF8)


def decoded(data: bytes, name: str, status: int = 1) -> str:
    """The text that ``data`` holds, without its byte order mark.

    Args:
        data: the first bytes of a file, or all of them.
        name: what the text is called in the sentence, such as its path.
        status: how the command ends that cannot read it.

    Raises:
        Failure: it is not UTF-8.
    """
    try:
        return without_mark(data).decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
        raise Failure(f"{name} cannot be read: {problem}", status) from error


def read_text(path: Path, name: str = "", status: int = 1) -> str:
    """The text of a file.

    Args:
        path: of the file.
        name: what it is called in the sentence; its path when not given.
        status: how the command ends that cannot read it: 2 where 1 is a verdict.

    Raises:
        Failure: it cannot be read, or is not UTF-8. The cause is the ``OSError``, if there was one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Failure(f"{name or path} cannot be read: {error.strerror}", status) from error
    return decoded(data, name or str(path), status)


def read_input(name: str = "the standard input") -> str:
    """All of standard input; what somebody types at a terminal is in the terminal's own encoding.

    Raises:
        Failure: it cannot be read, or is not UTF-8.
    """
    try:
        if sys.stdin.isatty():
            return sys.stdin.read()
        data = sys.stdin.buffer.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{name} cannot be read: {error}") from error
    return decoded(data, name)


def write_utf8(stream: TextIO) -> None:
    """Have ``stream`` write UTF-8, unless it is a terminal: what a program reads is the same in every locale."""
    reconfigure = getattr(stream, "reconfigure", None)  # a stream that stands in for the real one may have none
    if reconfigure is not None and not stream.isatty():
        reconfigure(encoding="utf-8")


def check_host(host: str) -> None:
    """See that a name to listen on can be looked up at all.

    Raises:
        UnicodeError: it holds bytes that are no text.
    """
    host.encode("utf-8")


def show_anything(stream: TextIO) -> None:
    """Have ``stream`` write letters that its encoding lacks as escapes, and the bytes of a file's name as they are."""
    codecs.register_error(_AS_SHOWN, _as_shown)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=_AS_SHOWN)


def _as_shown(error: UnicodeError) -> tuple[Any, int]:
    assert isinstance(error, UnicodeEncodeError)
    error.end = error.start + 1  # each character by itself: a run of them may hold both kinds
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
