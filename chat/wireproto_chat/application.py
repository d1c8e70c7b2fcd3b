"""The chat as an application that ``wireproto serve`` serves: its options, and how it is opened."""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from wireproto.cli import Application, Served
from wireproto_chat.opcodes import CHAT

__all__ = ["CHAT_APPLICATION"]

_OPTIONS = (
    click.Option(["--store"], metavar="URL", help="Where the chat keeps its data: a file, or a database URL."),
    click.Option(
        ["--minimum-password"],
        type=click.IntRange(1, 128),
        default=12,
        show_default=True,
        help="Characters that a new password of the chat must have.",
    ),
    click.Option(
        ["--keep-free"],
        type=click.IntRange(0, 1024 * 1024),
        metavar="MIB",
        default=64,
        show_default=True,
        help="With less than this left on its disk the chat accepts no more messages and accounts; 0 to use all of it.",
    ),
)


@contextlib.contextmanager
def _open(settings: Mapping[str, Any], stop: Callable[[BaseException], None]) -> Iterator[Served]:
    from wireproto_chat.service.handlers import (
        open_chat,  # loads the database's packages, which `serve --help` does not need
    )

    app = open_chat(
        settings["store"],
        minimum_password=settings["minimum_password"],
        keep_free=settings["keep_free"] * 2**20,
        on_fatal=stop,
    )
    try:
        yield Served([app.handlers], app.authenticate, (f"store={shlex.quote(str(app.store_path))}",))
    finally:
        app.close()


CHAT_APPLICATION = Application(CHAT, _open, _OPTIONS)
"""What the entry point ``chat`` of the group ``wireproto.applications`` stands for."""
