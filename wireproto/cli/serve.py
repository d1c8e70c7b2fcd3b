"""``wireproto serve``: one process that serves handlers until it is told to stop."""

import contextlib
import gc
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
from click.core import ParameterSource

from wireproto.address import is_loopback
from wireproto.cli.application import Application, Served
from wireproto.cli.command import Command, Failure, drop_output, missing
from wireproto.cli.ending import asked_to_end, die_of_signals
from wireproto.cli.failure import explained
from wireproto.cli.plugins import applications, only_application
from wireproto.cli.room import look_for_room
from wireproto.cli.target import resolve
from wireproto.cli.text import check_host
from wireproto.dispatch import Handlers
from wireproto.errors import ConfigError
from wireproto.server import Server
from wireproto.version import __version__

if TYPE_CHECKING:
    from wireproto.server.gateway import GrpcGateway

__all__ = ["command"]

log = logging.getLogger("wireproto.serve")

DRAIN = 10.0
"""Seconds that calls in flight get to finish after the first signal."""

OTHERS = 2
"""Threads of the server beside its workers: the watchdog, and the one that drains the second door."""

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter while others want it; Python's default is ten times that.

Beside two handlers that compute, a quick call's median fell from 12 ms to 0.64 ms with it.
"""

_APPLICATIONS: Final = "wireproto.cli.serve.applications"
"""Where the context of a command line keeps what was found."""

Reason: TypeAlias = int | BaseException
"""Why the server is to stop: the number of a signal, or what it cannot go on after."""


class _Serve(Command):
    """Takes the options of the applications that are installed beside its own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        if _APPLICATIONS not in ctx.meta:
            ctx.meta[_APPLICATIONS] = applications(own)  # asked for more than once while a command line is read
        found: dict[str, Application] = ctx.meta[_APPLICATIONS]
        theirs = [option for application in found.values() for option in application.options]
        return [*own[:-1], *theirs, *own[-1:]]  # --help stays the last


@click.command(cls=_Serve)
@click.argument("handlers", nargs=-1, metavar="[MODULE:HANDLERS]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7411, show_default=True, help="0 picks a free one.")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    default=50051,
    show_default=True,
    help="The same handlers over gRPC; 0 picks a free one.",
)
@click.option("--no-grpc", is_flag=True, help="No gRPC.")
@click.option("--codec", multiple=True, metavar="NAME", help="Allow this codec; repeat for several.  [default: all]")
@click.option(
    "--compression",
    type=click.Choice(["zlib", "zstd", "none"]),
    multiple=True,
    metavar="NAME",
    help="How messages of methods with compress may be packed: zlib, zstd, repeated for both, or none.  "
    "[default: zlib]",
)
@click.option(
    "--authenticate",
    metavar="MODULE:FUNCTION",
    help="Asked with (metadata, peer) about every call that brings authorization; gives an Identity or None.",
)
@click.option("--workers", type=click.IntRange(2, 1024), default=30, show_default=True, help="Threads for handlers.")
@click.option("--allow-plaintext", is_flag=True, help="Serve other machines although nothing is encrypted.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to each connection, too.")
def command(
    handlers: tuple[str, ...],
    host: str,
    port: int,
    grpc_port: int,
    no_grpc: bool,
    codec: tuple[str, ...],
    compression: tuple[str, ...],
    authenticate: str | None,
    workers: int,
    allow_plaintext: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    """Run a server: of your own handlers, or of the application that is installed when none are named.

    MODULE:HANDLERS is a Handlers object in an importable module; several are hosted together. Where several
    applications are installed, the name of one says which. When the server is ready, one line says so on stdout, and
    from then on it logs to stderr:

        ready tcp=127.0.0.1:7411 codecs=pipe,msgpack,protobuf grpc=127.0.0.1:50051

    SIGTERM or SIGINT lets calls in flight finish for at most 10 seconds and exits 0; a second one ends it at once.
    """
    _log_to_stderr(verbose)
    check_host(host)
    if not allow_plaintext and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines connect, and nothing is encrypted; listen on 127.0.0.1 behind a tunnel "
            "or a proxy, or give --allow-plaintext on a network you trust"
        )
    application = _application(handlers)
    _check_options(application)
    if authenticate is not None and application is not None:
        raise ConfigError(
            f"the application {application} knows its own accounts; --authenticate belongs to handlers that are named"
        )
    if "none" in compression and len(set(compression)) > 1:
        raise ConfigError("--compression none leaves no room for another one; leave one of them out")
    sys.setswitchinterval(SWITCH_INTERVAL)
    stop: queue.SimpleQueue[Reason] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        stack.enter_context(asked_to_end(stop.put))
        stack.callback(signal.signal, signal.SIGPIPE, signal.signal(signal.SIGPIPE, signal.SIG_IGN))
        if application is None:
            asked_of = None if authenticate is None else resolve(authenticate, FunctionType)
            app = Served([resolve(target, Handlers) for target in handlers], asked_of)
        else:
            app = stack.enter_context(_opened(application, settings, stop))
        name = f"wireproto/{__version__}"
        server = Server(
            app.handlers,
            host=host,
            port=port,
            codecs=codec or None,
            compression=() if "none" in compression else compression or ("zlib",),
            workers=workers,
            authenticate=app.authenticate,
            name=name,
        )
        asked = click.get_current_context().get_parameter_source("grpc_port") is not ParameterSource.DEFAULT
        gateway = None if no_grpc else _gateway(app, host, grpc_port, workers, name, asked=asked)
        gateway = _start(server, gateway, asked)
        # What was made up to here stays: the collector need not look through it again at every full collection.
        gc.collect()
        gc.freeze()
        grpc = () if gateway is None else (f"grpc={gateway.address}",)
        _announce(["ready", f"tcp={server.address}", f"codecs={','.join(server.codecs)}", *grpc, *app.ready_words])
        log.info("serving %s", " and ".join(each.service.full_name for each in app.handlers))
        reason = stop.get()
        die_of_signals()
        log.info("%s: finishing the calls in flight, for at most %g s; a signal ends it now", _named(reason), DRAIN)
        survivors = _drain(server, gateway)
        if survivors:
            log.warning("cut off inside a handler: %s", ", ".join(survivors))
    log.info("stopped")
    if isinstance(reason, BaseException):
        raise Failure(f"the server stopped by itself: {reason}")


def _gateway(app: Served, host: str, port: int, workers: int, name: str, *, asked: bool) -> "GrpcGateway | None":
    """The second door; None, and a line that says how to have it, when its packages are not installed.

    So it is where the system has no room for it, unless somebody asked for it.
    """
    try:
        # gRPC's core writes what strangers sent to stderr by itself, as often as they like; who looks for that says so.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from wireproto.server.gateway import GrpcGateway
    except ConfigError as error:
        log.warning("no gRPC: %s; --no-grpc leaves this line out", error)
        return None
    try:
        look_for_room(workers + OTHERS)
    except (OSError, RuntimeError) as error:
        failure = explained(error)
        if failure is None or asked:
            raise
        log.warning("no gRPC: %s; --no-grpc leaves this line out", failure.message)
        return None
    return GrpcGateway(app.handlers, host=host, port=port, workers=workers, authenticate=app.authenticate, name=name)


def _start(server: Server, gateway: "GrpcGateway | None", asked: bool) -> "GrpcGateway | None":
    """Open the doors, and return the second one.

    Nobody need have asked for that one: a second server on the default port then goes without, as it does without the
    packages. What was asked for is there or nothing is.

    Raises:
        Failure: one of the addresses cannot be had.
    """
    try:
        server.start()
    except ConfigError as error:
        raise Failure(str(error)) from error
    if gateway is None:
        return None
    try:
        gateway.start()
    except ConfigError as error:
        if not asked:
            log.warning("no gRPC: %s; --grpc-port chooses it, --no-grpc leaves this line out", error)
            return None
        server.shutdown(0.0)
        raise Failure(f"{error}\n--grpc-port chooses it, --no-grpc serves without gRPC.") from error
    server.hint = f"gRPC is spoken on {gateway.address}."
    return gateway


def _drain(server: Server, gateway: "GrpcGateway | None") -> list[str]:
    """Shut both doors at the same time; the names of the threads that are still inside a handler."""
    survivors: list[str] = []
    if gateway is None:
        return server.shutdown(timeout=DRAIN)
    other = threading.Thread(
        target=lambda: survivors.extend(gateway.shutdown(timeout=DRAIN)), name="wireproto-serve-drain", daemon=True
    )
    try:
        other.start()
    except RuntimeError:  # there is no thread to be had: one after the other, then
        return gateway.shutdown(timeout=DRAIN) + server.shutdown(timeout=0.0)
    own = server.shutdown(timeout=DRAIN)
    other.join(DRAIN)
    return own + survivors


def _application(targets: tuple[str, ...]) -> str | None:
    """The name of the application that the command line means; None when it names handlers.

    Raises:
        Failure: nothing is named, and there is not exactly one application.
        ConfigError: an application is named beside something else.
    """
    found = _installed()
    if not targets:
        return only_application(found, "serve", "MODULE:HANDLERS")[0]
    named = [target for target in targets if target in found]
    if named and len(targets) > 1:
        raise ConfigError(f"the application {named[0]} is served by itself; leave the others out")
    return named[0] if named else None


def _check_options(served: str | None) -> None:
    """Refuse an option of an application that is not served: somebody expects it to do something."""
    context = click.get_current_context()
    for name, application in _installed().items():
        for option in () if name == served else application.options:
            if context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT:
                raise ConfigError(
                    f"{option.opts[0]} belongs to the application {name}, which is not served here; leave one out"
                )


def _installed() -> dict[str, Application]:
    """None when another command invokes this one: it names handlers."""
    found: dict[str, Application] = click.get_current_context().meta.get(_APPLICATIONS, {})
    return found


@contextlib.contextmanager
def _opened(name: str, settings: dict[str, Any], stop: "queue.SimpleQueue[Reason]") -> Iterator[Served]:
    """An application, open for as long as it is served."""
    application = _installed()[name]
    own = {option.name or "": settings[option.name or ""] for option in application.options}
    with contextlib.ExitStack() as stack:
        try:
            served = stack.enter_context(application.open(own, stop.put))
        except ConfigError as error:
            raise Failure(str(error)) from error
        except ModuleNotFoundError as error:
            raise missing(error) from error
        yield served


def _announce(words: list[str]) -> None:
    """The one line on stdout, for whoever waits for the server. Nobody need be there to read it."""
    try:
        click.echo(" ".join(words))
    except OSError:
        drop_output()


def _named(reason: Reason) -> str:
    return signal.Signals(reason).name if isinstance(reason, int) else str(reason)


class _Format(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_to_stderr(verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Format("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.raiseExceptions = False  # a log on a full disk has no room for the traceback that says so
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
