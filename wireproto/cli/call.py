"""``wireproto call``: one call from the shell, by a service's own source or by what the server says of itself."""

import contextlib
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import click

from wireproto import codecs
from wireproto.address import Address
from wireproto.cli.command import Command
from wireproto.cli.failure import metadata_lines
from wireproto.cli.units import TIMEOUT
from wireproto.cli.values import dumps, to_json
from wireproto.cli.wanted import (
    DATA,
    HEADER,
    SERVICE,
    ask,
    declared,
    read_items,
    read_metadata,
    read_position,
    read_request,
    shown_position,
)
from wireproto.client import Client, Gap, ItemStream, connect
from wireproto.client.face import Answered
from wireproto.control import CONTROL
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.schema import (
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Position,
    Service,
    StreamMethod,
    UploadMethod,
)
from wireproto.testing import greasing

__all__ = ["command"]


CONNECT_TIMEOUT = 10.0
"""Seconds for connecting, and for an answer, when --timeout is not given."""
GOODBYE = 1.0
"""Seconds that the server has for ending its side when a call is given up."""


class _Call(NamedTuple):
    """What the command line asks for, apart from the request."""

    address: Address
    codec: str
    timeout: float | None
    metadata: Mapping[str, str]
    most: int | None
    verbose: bool
    grease: int | None
    follow: bool
    after: str | None


@click.command("call", cls=Command)
@click.argument("address", metavar="HOST:PORT")
@click.argument("method")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@SERVICE
@click.option(
    "--codec", default="msgpack", show_default=True, metavar="NAME", help="pipe, msgpack, protobuf or another."
)
@DATA
@HEADER
@click.option(
    "--timeout",
    type=TIMEOUT,
    metavar="TIME",
    help="For connecting and for the whole call.  [default: 10, a call with items as long as it likes]",
)
@click.option("-n", "--items", type=click.IntRange(min=1), metavar="N", help="Leave a stream after N items.")
@click.option("--follow", is_flag=True, help="Open a resumable stream again, behind its last item, when it is lost.")
@click.option(
    "--resume-after", metavar="POSITION", help="Begin behind the item of that position, bytes as hex; means --follow."
)
@click.option("--grease", is_flag=True, help="Say what nobody knows beside it, which the server must read over.")
@click.option(
    "--seed", type=int, metavar="N", help="What to say of that; with -v the one taken is shown.  [default: random]"
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Say on stderr what is sent, what came beside the answer, and how long it took.",
)
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
    follow: bool,
    resume_after: str | None,
    grease: bool,
    seed: int | None,
    verbose: bool,
) -> None:
    """Call METHOD of the server at HOST:PORT and print the answer as JSON; of a stream, one line for each item.

    A method that takes items has one for each line of JSON in --data or, without it, on stdin; they are read as the
    server takes them. KEY=VALUE alone is one item. Of a one-way method nothing is printed.

    KEY=VALUE sets a field of the request, read as the field's type: text as it is, numbers, true and false, bytes as
    hex, times as 2026-01-31T12:00:00Z, enums by name; lists, maps and messages as JSON. It wins over --data. What is
    printed follows the same rules.

    \b
    wireproto call localhost:7411 Add left=2 right=3 --service calculator:CALCULATOR
    wireproto call localhost:7411 LogIn -d '{"username": "ann", "password": "secret"}'
    wireproto call localhost:7411 Import -d @readings.jsonl
    wireproto call localhost:7411 Check

    Where several services have the METHOD, write Service.Method. The framework's own are there on every server: Check,
    Describe, Echo; ControlService.Check where the service has a Check of its own.

    An error answer goes to stderr, with its details and what was said beside it, and the exit status is then 10 plus
    its number. Methods that the server calls cannot be called.
    """
    if seed is not None and not grease:
        raise ConfigError("--seed belongs to --grease")
    if grease and seed is None:
        seed = secrets.randbits(32)
    followed = follow or resume_after is not None
    call = _Call(
        Address.parse(address), codec, timeout, read_metadata(header), items, verbose, seed, followed, resume_after
    )
    codecs.get(codec)
    if service is None:
        wanted = ask(call.address, lambda: _connected(call, CONTROL), method, timeout or CONNECT_TIMEOUT)
    else:
        wanted = declared(service, method)
    operation = wanted.method
    after = read_position(operation, resume_after) if followed else None
    if operation.items_follow:
        given = read_items(operation.request, data, words)
    else:
        given = iter([read_request(operation.request, data, words)])
    with _connected(call, wanted.service) as client:
        began = time.monotonic()
        shown = _shown(client, operation, given, call) if verbose else given
        said = _make(client, operation, shown, call, after)
        if verbose:
            for line in metadata_lines(said):
                click.echo(f"< {line}", err=True)
            click.echo(f"< {operation.name} ended after {_milliseconds(began)}", err=True)


def _make(
    client: Client,
    method: Operation[Any, Any],
    given: Iterator[Message],
    call: _Call,
    after: Position | None,
) -> Mapping[str, str]:
    """Make the call as its shape wants it, and print what is answered.

    Returns:
        What was said beside the answer, and how many items were left out of a stream if any were.
    """
    # No more credit than there are items wanted: the rest stays with the server.
    credit = 64 if call.most is None else min(64, call.most)
    timeout, metadata = call.timeout, call.metadata
    if isinstance(method, StreamMethod):
        items: ItemStream[Any]
        if call.follow:
            items = client.follow(
                method, next(given), after=after, timeout=timeout, metadata=metadata, credit=credit, batch=1
            )
        else:
            items = client.stream(method, next(given), timeout=timeout, metadata=metadata, credit=credit, batch=1)
        return _print_items(client, items, call.most)
    if isinstance(method, DuplexMethod):
        both = client.duplex(method, given, timeout=timeout, metadata=metadata, credit=credit, batch=1)
        return _print_items(client, both, call.most)
    if isinstance(method, UploadMethod):
        return _print_answer(client.upload_with_metadata(method, given, timeout=timeout, metadata=metadata))
    if isinstance(method, OneWayMethod):
        client.post(method, next(given), timeout=timeout, metadata=metadata)
        client.close(drain=timeout or CONNECT_TIMEOUT)  # the server has read it when it has ended its side as well
    elif isinstance(method, Method):
        seconds = timeout or CONNECT_TIMEOUT
        return _print_answer(client.call_with_metadata(method, next(given), timeout=seconds, metadata=metadata))
    return {}


def _print_answer(answer: Answered[Any]) -> Mapping[str, str]:
    click.echo(dumps(to_json(answer.message), indent=2 if sys.stdout.isatty() else None))
    return answer.metadata


def _print_items(client: Client, items: ItemStream[Any], most: int | None) -> Mapping[str, str]:
    number = 0
    with items as stream:
        for item in stream:
            if isinstance(item, Gap):
                behind = "" if item.after is None else f" behind {shown_position(item.after)}"
                click.echo(f"* items may be missing{behind}", err=True)
                continue
            click.echo(dumps(to_json(item)))
            number += 1
            if number == most:
                stream.acknowledge()
                break
        else:
            left_out = {"items left out": str(stream.dropped)} if stream.dropped else {}
            return {**stream.metadata, **left_out}
    _leave(client)
    return {}


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
        try:
            yield client
        except Exception:
            _leave(client)
            raise


def _leave(client: Client) -> None:
    """Hear the end of a call that was given up: the server's last word, unread, would reset the connection."""
    client.close(drain=GOODBYE)


def _shown(client: Client, method: Operation[Any, Any], given: Iterable[Message], call: _Call) -> Iterator[Message]:
    """What is given, each of it said on stderr when it is asked for to be sent."""
    for request in given:
        _show_request(client, method, request, call)
        yield request


def _show_request(client: Client, method: Operation[Any, Any], request: Message, call: _Call) -> None:
    """The request's payload as it goes out."""
    version = CONTROL.version if CONTROL.by_opcode.get(method.opcode) is method else client.version
    payload = codecs.get(client.codec).plan(method.request, version, Limits()).encode(request)
    shown = payload[:64].hex(" ")
    more = f" ... {len(payload)} bytes" if len(payload) > 64 else ""
    click.echo(f"> {method.name} opcode {method.opcode:#06x}, payload {shown or 'empty'}{more}", err=True)


def _milliseconds(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.1f} ms"
