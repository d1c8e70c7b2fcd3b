"""What another distribution would bring to the command line: commands and applications, right ones and wrong ones."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from tests.cli.services import OTHER, SHOP, shop
from wireproto.cli import Application, Served
from wireproto.cli.command import Command, Failure
from wireproto.errors import ConfigError

COMMANDS = {"greet": (__name__, "Greet somebody.")}
CLASH = {"serve": (__name__, "Not ours."), "wave": (__name__, "Wave."), "bad": "no pair"}
NO_MAPPING = ["greet"]
BROKEN = {
    "gone": ("no_such_module", "Not there."),
    "empty": ("tests.cli.services", "No command."),
    "leaving": ("tests.cli.leaving", "Leaves."),
}

REFUSALS: dict[str, Exception] = {
    "config": ConfigError("the shelf is full"),
    "failure": Failure("the shelf is wet", 9),
    "missing": ModuleNotFoundError("No module named 'grpc'", name="grpc"),
}


@click.command(cls=Command)
@click.argument("name")
def command(name: str) -> None:
    """Greet NAME."""
    click.echo(f"hello, {name}")


@contextlib.contextmanager
def _open(settings: Mapping[str, Any], stop: Callable[[BaseException], None]) -> Iterator[Served]:
    """Serve the shop, and end it at once."""
    if refusal := os.environ.get("REFUSAL"):
        raise REFUSALS[refusal]
    stop(RuntimeError("the shelf fell down"))
    yield Served([shop], None, tuple(f"{name}={value}" for name, value in settings.items()))
    click.echo("the shelf is closed", err=True)


SHELF = Application(SHOP, _open, [click.Option(["--shelf"], default="pine", help="What the shelf is made of.")])
BARE = Application(OTHER, _open)
CLASHING = Application(OTHER, _open, [click.Option(["--port"])])
