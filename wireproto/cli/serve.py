"""``wireproto serve``: one process that serves handlers until it is told to stop."""

import contextlib
import logging
import queue
import shlex
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from wireproto import __version__
from wireproto.cli.command import Command, Failure, drop_output
from wireproto.cli.target import resolve
from wireproto.dispatch import Authenticate, Handlers
from wireproto.errors import ConfigError
from wireproto.server import Server

if TYPE_CHECKING:
    from wireproto.chat import ChatApp

__all__ = ["command"]

log = logging.getLogger("wireproto.serve")

DRAIN = 10.0
"""Seconds that calls in flight get to finish after the first signal."""

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter while others want it; Python's default is ten times that.

Beside two handlers that compute, a quick call's median fell from 12 ms to 0.64 ms with it.
"""


class App(NamedTuple):
    """What is served: the handlers, who may call them, and what to say of it in the ready line."""

    handlers: list[Handlers]
    authenticate: Authenticate | None = None
    words: tuple[str, ...] = ()


@click.command(cls=Command)
@click.argument("handlers", nargs=-1, metavar="[MODULE:HANDLERS]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7411, show_default=True, help="0 picks a free one.")
@click.option(
    "--codec", "codecs", multiple=True, metavar="NAME", help="Allow this codec; repeat for several.  [default: all]"
)
@click.option("--store", metavar="URL", help="Where the chat keeps its data: a file, or a database URL.")
@click.option("--workers", type=click.IntRange(2, 1024), default=32, show_default=True, help="Threads for handlers.")
@click.option("--allow-plaintext", is_flag=True, help="Serve other machines although nothing is encrypted.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to each connection, too.")
def command(
    handlers: tuple[str, ...],
    host: str,
    port: int,
    codecs: tuple[str, ...],
    store: str | None,
    workers: int,
    allow_plaintext: bool,
    verbose: bool,
) -> None:
    """Run a server: of your own handlers, or of the chat when none are named.

    MODULE:HANDLERS is a Handlers object in an importable module; several are hosted together. When the server is ready,
    one line says so on stdout, and from then on it logs to stderr:

        ready tcp=127.0.0.1:7411 codecs=pipe,msgpack,protobuf

    SIGTERM or SIGINT lets calls in flight finish for at most 10 seconds and exits 0; a second one ends it at once.
    """
    _log_to_stderr(verbose)
    if not allow_plaintext and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines connect, and nothing is encrypted; listen on 127.0.0.1 behind a tunnel "
            "or a proxy, or give --allow-plaintext on a network you trust"
        )
    if handlers and store is not None:
        raise ConfigError(
            "--store belongs to the chat, which is served when no MODULE:HANDLERS is given; leave one out"
        )
    sys.setswitchinterval(SWITCH_INTERVAL)
    stop = _catch_signals()
    with contextlib.ExitStack() as stack:
        app = App([resolve(target, Handlers) for target in handlers]) if handlers else stack.enter_context(_chat(store))
        server = Server(
            app.handlers,
            host=host,
            port=port,
            codecs=codecs or None,
            workers=workers,
            authenticate=app.authenticate,
            name=f"wireproto/{__version__}",
        )
        try:
            server.start()
        except ConfigError as error:
            raise Failure(str(error)) from error
        _announce(["ready", f"tcp={server.address}", f"codecs={','.join(server.codecs)}", *app.words])
        name = signal.Signals(stop.get()).name
        log.info("%s: finishing the calls in flight, for at most %g s; once more ends it now", name, DRAIN)
        survivors = server.shutdown(timeout=DRAIN)
        if survivors:
            log.warning("cut off inside a handler: %s", ", ".join(survivors))
        log.info("stopped")


@contextlib.contextmanager
def _chat(store: str | None) -> Iterator[App]:
    """The chat service, open for as long as it is served."""
    from wireproto.cli.root import missing

    try:
        from wireproto.chat import open_chat
    except ModuleNotFoundError as error:
        raise missing(error) from error
    app: ChatApp = open_chat(store)
    try:
        yield App([app.handlers], app.authenticate, (f"store={shlex.quote(str(app.store_path))}",))
    finally:
        app.close()


def _announce(words: list[str]) -> None:
    """The one line on stdout, for whoever waits for the server. Nobody need be there to read it."""
    try:
        click.echo(" ".join(words))
    except BrokenPipeError:
        drop_output()


def _catch_signals() -> "queue.SimpleQueue[int]":
    """A queue that gets the first signal to stop; the second one does what it does to any program.

    A SimpleQueue, because its `put` may interrupt its own `get` in the same thread, where an Event would deadlock.
    """
    caught: queue.SimpleQueue[int] = queue.SimpleQueue()

    def stop(number: int, frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        caught.put(number)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return caught


class _Format(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_to_stderr(verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Format("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
