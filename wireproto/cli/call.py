"""``wireproto call``: one call from the shell, by a service's own source or by what the server says of itself."""

import contextlib
import difflib
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from wireproto import codecs
from wireproto.address import Address
from wireproto.cli.command import Command
from wireproto.cli.reflect import hosted
from wireproto.cli.target import resolve
from wireproto.cli.text import read_input, read_text
from wireproto.cli.units import TIMEOUT
from wireproto.cli.values import dumps, from_json, loads, pairs, to_json
from wireproto.client import Client, connect
from wireproto.control import CONTROL
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Operation, Service, StreamMethod
from wireproto.testing import greasing

__all__ = ["command"]


CONNECT_TIMEOUT = 10.0
"""Seconds for connecting, and for an answer, when --timeout is not given."""


class _Call(NamedTuple):
    """What the command line asks for, apart from the request."""

    address: Address
    codec: str
    timeout: float | None
    metadata: dict[str, str]
    most: int | None
    verbose: bool
    grease: int | None


@click.command("call", cls=Command)
@click.argument("address", metavar="HOST:PORT")
@click.argument("method")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--service", metavar="MODULE:SERVICE", help="Where the service is declared.  [default: ask the server]")
@click.option(
    "--codec", default="msgpack", show_default=True, metavar="NAME", help="pipe, msgpack, protobuf or another."
)
@click.option("-d", "--data", metavar="JSON", help="The request as JSON; @FILE reads it from a file, @- from stdin.")
@click.option("-H", "--header", multiple=True, metavar="KEY:VALUE", help="Metadata of the call; repeat it.")
@click.option(
    "--timeout",
    type=TIMEOUT,
    metavar="TIME",
    help="For connecting and for the whole call.  [default: 10, a stream as long as it likes]",
)
@click.option("-n", "--items", type=click.IntRange(min=1), metavar="N", help="Leave a stream after N items.")
@click.option("--grease", is_flag=True, help="Say what nobody knows beside it, which the server must read over.")
@click.option(
    "--seed", type=int, metavar="N", help="What to say of that; with -v the one taken is shown.  [default: random]"
)
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is sent, and how long it takes.")
def command(
    address: str,
    method: str,
    words: tuple[str, ...],
    service: str | None,
    codec: str,
    data: str | None,
    header: tuple[str, ...],
    timeout: float | None,
    items: int | None,
    grease: bool,
    seed: int | None,
    verbose: bool,
) -> None:
    """Call METHOD of the server at HOST:PORT and print the answer as JSON; of a stream, one line for each item.

    KEY=VALUE sets a field of the request, read as the field's type: text as it is, numbers, true and false, bytes as
    hex, times as 2026-01-31T12:00:00Z, enums by name; lists, maps and messages as JSON. It wins over --data. What is
    printed follows the same rules.

    \b
    wireproto call localhost:7411 Add left=2 right=3 --service calculator:CALCULATOR
    wireproto call localhost:7411 LogIn -d '{"username": "ann", "password": "secret"}'
    wireproto call localhost:7411 Check

    The framework's own methods are there on every server: Check, Describe, Echo. An error answer goes to stderr, and
    the exit status is then 10 plus its number.
    """
    if seed is not None and not grease:
        raise ConfigError("--seed belongs to --grease")
    if grease and seed is None:
        seed = secrets.randbits(32)
    call = _Call(Address.parse(address), codec, timeout, _metadata(header), items, verbose, seed)
    codecs.get(codec)
    declared, operation = _ask(call, method) if service is None else _find([resolve(service, Service)], method)
    request = _request(operation.request, data, words)
    with _connected(call, declared) as client:
        if verbose:
            _show_request(client, operation, request, call)
        began = time.monotonic()
        if isinstance(operation, StreamMethod):
            _print_items(client, operation, request, call)
        elif isinstance(operation, Method):
            answer = client.call(operation, request, timeout=timeout or CONNECT_TIMEOUT, metadata=call.metadata)
            click.echo(dumps(to_json(answer), indent=2 if sys.stdout.isatty() else None))
        if verbose:
            click.echo(f"< {operation.name} ended after {_milliseconds(began)}", err=True)


def _print_items(client: Client, method: StreamMethod[Any, Any], request: Message, call: _Call) -> None:
    # No more credit than there are items wanted: the rest stays with the server.
    credit = 64 if call.most is None else min(64, call.most)
    with client.stream(method, request, timeout=call.timeout, metadata=call.metadata, credit=credit, batch=1) as stream:
        for number, item in enumerate(stream, 1):
            click.echo(dumps(to_json(item)))
            if number == call.most:
                stream.acknowledge()
                return


# What is called -------------------------------------------------------------------------------------------------


def _find(services: list[Service], method: str) -> tuple[Service, Operation[Any, Any]]:
    """The method called ``method``, or ``full.name/method``, and the service it is of; the framework's come last."""
    wanted_service, slash, name = method.rpartition("/")
    services = [each for each in services if not slash or each.full_name == wanted_service] or services
    found = [(each, operation) for each in services for operation in each.methods if operation.name == name]
    if len(found) > 1:
        choices = ", ".join(f"{service.full_name}/{name}" for service, _ in found)
        raise ConfigError(f"several services have a method {name!r}; write one of {choices}")
    if found:
        return found[0]
    for operation in CONTROL.methods:
        if operation.name == name:
            return services[0], operation
    names = [operation.name for service in services for operation in service.methods]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(dict.fromkeys(names))}"
    hosts = [each.full_name for each in services]
    raise ConfigError(f"{' and '.join(hosts)} {'has' if len(hosts) == 1 else 'have'} no method {name!r}; {hint}")


def _ask(call: _Call, method: str) -> tuple[Service, Operation[Any, Any]]:
    """The same by reflection: what the server says of the services it hosts is enough to call them."""
    if any(operation.name == method for operation in CONTROL.methods):
        return _find([CONTROL], method)
    return _find(hosted(call.address, _connected(call, CONTROL), call.timeout or CONNECT_TIMEOUT), method)


@contextlib.contextmanager
def _connected(call: _Call, service: Service) -> Iterator[Client]:
    began = time.monotonic()
    timeout = call.timeout or CONNECT_TIMEOUT
    connections = None if call.grease is None else greasing(call.grease)
    with connect(call.address, service, codec=call.codec, timeout=timeout, connections=connections) as client:
        if call.verbose:
            greased = "" if call.grease is None else f", greased with --seed {call.grease}"
            click.echo(
                f"* {client.address} {service.full_name} version {client.version} codec {client.codec}, "
                f"connected in {_milliseconds(began)}{greased}",
                err=True,
            )
        yield client


# What is sent ---------------------------------------------------------------------------------------------------


def _request(message_type: type[Message], data: str | None, words: tuple[str, ...]) -> Message:
    given: Any = {} if data is None else loads(_read(data))
    found = pairs(message_type, words)
    if found and isinstance(given, dict):
        given = {**given, **found}
    return from_json(message_type, given)


def _read(data: str) -> str:
    if not data.startswith("@"):
        return data
    return read_input(f"--data {data}") if data == "@-" else read_text(Path(data[1:]), f"--data {data}")


def _metadata(headers: tuple[str, ...]) -> dict[str, str]:
    """``KEY:VALUE`` words; the client knows which names have a place of their own."""
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


def _show_request(client: Client, method: Operation[Any, Any], request: Message, call: _Call) -> None:
    """The request's payload as it goes out."""
    version = CONTROL.version if CONTROL.by_opcode.get(method.opcode) is method else client.version
    payload = codecs.get(client.codec).plan(method.request, version, Limits()).encode(request)
    shown = payload[:64].hex(" ")
    more = f" ... {len(payload)} bytes" if len(payload) > 64 else ""
    click.echo(f"> {method.name} opcode {method.opcode:#06x}, payload {shown or 'empty'}{more}", err=True)


def _milliseconds(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.1f} ms"
