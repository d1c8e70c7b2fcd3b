"""What a command line wants called: which method of which service, with which request and metadata."""

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from wireproto.address import Address
from wireproto.cli.failure import Failure
from wireproto.cli.reflect import hosted
from wireproto.cli.target import resolve
from wireproto.cli.text import decoded, read_input, read_text
from wireproto.cli.values import from_json, loads, pairs
from wireproto.client import BlockingClient
from wireproto.control import CONTROL
from wireproto.errors import CallError, ConfigError, ConnectionLost, DeclarationError, DecodeError, EncodeError
from wireproto.schema import Message, Operation, Position, Positions, Scalar, Service, StreamMethod, fields

__all__ = [
    "DATA",
    "HEADER",
    "SERVICE",
    "Wanted",
    "ask",
    "declared",
    "find",
    "read_items",
    "read_metadata",
    "read_position",
    "read_request",
    "shown_position",
]

M = TypeVar("M", bound=Message)

SERVICE = click.option(
    "--service", metavar="MODULE:SERVICE", help="Where the service is declared.  [default: ask the server]"
)
DATA = click.option(
    "-d", "--data", metavar="JSON", help="The request as JSON; @FILE reads it from a file, @- from stdin."
)
HEADER = click.option("-H", "--header", multiple=True, metavar="KEY:VALUE", help="Metadata of the call; repeat it.")


class Wanted(NamedTuple):
    """A method.

    Attributes:
        service: whom to connect for: the one that the method is of, or any with which the framework's own come.
        method: of it.
    """

    service: Service
    method: Operation[Any, Any]


def ask(
    address: Address, connected: Callable[[], AbstractContextManager[BlockingClient]], name: str, timeout: float
) -> Wanted:
    """Find a method by what a server says of the services it hosts, which is enough to call it.

    Args:
        address: of the server.
        connected: opens a client of the control service there, and closes it.
        name: see ``find``.
        timeout: seconds for the answer.

    Raises:
        ConfigError: there is no such method there, there are several, or the server calls it.
        Failure: the server does not describe itself.
    """
    try:
        services = hosted(address, connected(), timeout)
    except ConnectionLost:
        raise
    except (CallError, DeclarationError, DecodeError, Failure):
        # The framework's own methods are there all the same, and health is asked of a server with other troubles, too.
        if not any(_is_called(CONTROL, method, name) for method in CONTROL.methods):
            raise
        services = []
    found = find(services or [CONTROL], name)
    return Wanted(CONTROL, found.method) if found.method in CONTROL.methods else found


def find(services: Sequence[Service], name: str) -> Wanted:
    """The method called ``name``; a service's own comes before one of the framework's with the same name.

    Args:
        services: those that may be meant, one at least.
        name: ``Method``; or ``Service.Method`` or ``full.name.v1.Service/Method``, with either sign, where several
            services have one.

    Raises:
        ConfigError: there is none, there are several, or the server calls it; the text says what there is.
    """
    named = [Wanted(each, method) for each in services for method in each.methods if _is_called(each, method, name)]
    found = [each for each in named if each.method.by == "client"]
    if len(found) > 1:
        choices = ", ".join(f"{each.service.full_name}/{each.method.name}" for each in found)
        raise ConfigError(f"several services have a method {name!r}; write one of {choices}")
    if found:
        return found[0]
    for method in CONTROL.methods:
        if _is_called(CONTROL, method, name):
            return Wanted(services[0], method)
    if named:
        raise ConfigError(f"{named[0].method.name} is called by the server; a client answers it and cannot call it")
    raise ConfigError(_no_method(services, name))


def _is_called(service: Service, method: Operation[Any, Any], name: str) -> bool:
    return name in (
        method.name,
        *[f"{of}{sign}{method.name}" for of in (service.name, service.full_name) for sign in "./"],
    )


def _no_method(services: Sequence[Service], name: str) -> str:
    hosts = [each.full_name for each in services]
    names = list(dict.fromkeys(method.name for each in services for method in each.methods if method.by == "client"))
    last = name.replace("/", ".").rpartition(".")[2]
    if close := difflib.get_close_matches(last, [*names, *(method.name for method in CONTROL.methods)], n=1):
        hint = f"did you mean {close[0]}?"
    else:
        hint = f"there are {', '.join(names)}" if names else "there are none but the framework's"
    return f"{' and '.join(hosts)} {'has' if len(hosts) == 1 else 'have'} no method {name!r}; {hint}"


def declared(target: str, name: str) -> Wanted:
    """The method called ``name`` of the service that MODULE:SERVICE names."""
    return find([resolve(target, Service)], name)


def read_request(message_type: type[Message], data: str | None, words: Sequence[str]) -> Message:
    """The request that ``--data`` and KEY=VALUE words make; the words win.

    Raises:
        ConfigError: they are no request of that type.
        Failure: the file that ``--data`` names cannot be read.
    """
    given: Any = {} if data is None else loads(_read(data))
    found = pairs(message_type, words)
    if found and isinstance(given, dict):
        given = {**given, **found}
    return from_json(message_type, given)


def read_position(method: Operation[Any, Any], text: str | None) -> Position | None:
    """The position that a word of the command line means for a stream of ``method``; None for none.

    Raises:
        ConfigError: the method is not resumable, or it is no position of its items.
    """
    if not isinstance(method, StreamMethod) or method.resumable is None:
        raise ConfigError(f"{method.name} cannot be followed: it is no stream whose items have positions")
    if text is None:
        return None
    field = next(each for each in fields(method.response) if each.name == method.resumable)
    positions = Positions(method.response, method.resumable)
    try:
        if field.type.scalar is Scalar.BYTES:
            position: Position = _bytes_of(text, field.path)
        else:
            # As it is written on the wire.
            position = positions.read(text.encode(errors="surrogateescape"))
        positions.write(position)
    except (DecodeError, EncodeError) as error:
        raise ConfigError(f"--resume-after {text!r} is no position of {method.name}: {error}") from error
    return position


def _bytes_of(text: str, path: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise DecodeError(path, "the position is written in hex, two digits for each byte") from None


def shown_position(position: Position) -> str:
    """A position as ``read_position`` reads it."""
    return position.hex() if isinstance(position, bytes) else str(position)


def _read(data: str) -> str:
    if not data.startswith("@"):
        return data
    return read_input(f"--data {data}") if data == "@-" else read_text(Path(data[1:]), f"--data {data}")


def read_items(message_type: type[M], data: str | None, words: Sequence[str]) -> Iterator[M]:
    """The items that lines of JSON make, read as they are asked for; the words win in each, and alone are one item.

    Args:
        message_type: of each item.
        data: the lines, or @FILE, or @- for standard input; None for standard input, too, unless there are words.
        words: KEY=VALUE.

    Raises:
        ConfigError: the words, or a line, are no item of that type; the latter by the iterator.
        Failure: by the iterator: the file, or standard input, cannot be read.
    """
    found = pairs(message_type, words)
    if data is None and words:
        return iter([from_json(message_type, found)])
    return _items_of_lines(message_type, _lines(data), found)


def _items_of_lines(message_type: type[M], lines: Iterable[str], found: Mapping[str, Any]) -> Iterator[M]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            given = loads(line)
            if found and isinstance(given, dict):
                given = {**given, **found}
            item = from_json(message_type, given)
        except ConfigError as error:
            raise ConfigError(f"line {number}: {error}") from error
        yield item


def _lines(data: str | None) -> Iterator[str]:
    """The lines of ``--data``, each when it is asked for: whoever writes them may wait for an answer in between."""
    if data is not None and not data.startswith("@"):
        yield from data.splitlines()
        return
    name = "the standard input" if data is None else f"--data {data}"
    try:
        if data is None or data == "@-":
            # What somebody types at a terminal is in the terminal's own encoding.
            yield from sys.stdin if sys.stdin.isatty() else (decoded(line, name) for line in sys.stdin.buffer)
        else:
            with Path(data[1:]).open("rb") as file:
                yield from (decoded(line, name) for line in file)
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}") from error


def read_metadata(headers: Sequence[str]) -> Mapping[str, str]:
    """``KEY:VALUE`` words; the client knows which names have a place of their own.

    Raises:
        ConfigError: one is no such word, or a key is there twice.
    """
    entries: dict[str, str] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        name = name.strip().lower()
        if not colon or not name:
            raise ConfigError(f"{header!r} is not KEY:VALUE")
        if name in entries:
            raise ConfigError(f"the metadata {name!r} is given twice")
        entries[name] = value.strip()
    return entries
