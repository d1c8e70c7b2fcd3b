"""Compiles generated source under a file name of its own, by which tracebacks and debuggers find its lines."""

import functools
import itertools
import linecache
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from wireproto.schema.messages import Message

__all__ = ["compile_source", "source_title"]

_numbers: Final["defaultdict[str, itertools.count[int]]"] = defaultdict(functools.partial(itertools.count, 1))
"""By title: the number of the next source that has it."""


def source_title(
    what: str, message_type: type[Message], version: int | None, *, request: bool, most: int | None = None
) -> str:
    """What tells one generated source from any other: who generated it, and from which arguments.

    Args:
        what: the codec's name, or what the function is for.
        message_type, version, request: of the messages; version None is the newest.
        most: elements of a list or map, where the code counts them.
    """
    role = "request" if request else "response"
    shown = "newest version" if version is None else f"version {version}"
    name = f"{message_type.__module__}.{message_type.__qualname__}"
    return f"{what} {role} {name}, {shown}" + ("" if most is None else f", at most {most} elements")


def compile_source(title: str, source: str, namespace: Mapping[str, object]) -> dict[str, Any]:
    """Execute generated ``source`` in a copy of ``namespace``, and give back what it defines, and the copy.

    Its file name is ``<wireproto TITLE>``, with a number behind it when another source has the title already: two
    classes of one name, say. The same title and source have the same name, so compiling again takes no more memory. The
    lines stay in `linecache` for the life of the process, as the functions do; a traceback may be printed much later.
    """
    filename = _filename(title, source)
    # A size without a modification time tells linecache that there is no file to compare with.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names: dict[str, Any] = dict(namespace)
    exec(compile(source, filename, "exec"), names)
    return names


# Two threads that compile the same source at once may get two names for it, which does no harm.
@functools.cache
def _filename(title: str, source: str) -> str:
    number = next(_numbers[title])
    return f"<wireproto {title}>" if number == 1 else f"<wireproto {title}, {number}>"
