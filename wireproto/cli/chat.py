"""``wireproto chat``: talk to other people on a server, by hand or by script."""

import ipaddress
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import click

from wireproto.address import Address
from wireproto.chat.client import ChatSession, Connection
from wireproto.chat.commands import LogIn
from wireproto.chat.contract import CHAT
from wireproto.chat.display import visible
from wireproto.cli.command import CALL_STATUS, Command, Failure
from wireproto.cli.root import missing
from wireproto.client import connect
from wireproto.errors import CallError, ConfigError, HandshakeError
from wireproto.status import Status

__all__ = ["command"]

DEFAULT_ADDRESS = "127.0.0.1:7411"

SETTLE = 2.0
"""Seconds a script waits for each message that waited for it at log-in."""

CLOSE = 5.0
"""Seconds that leaving waits for what still comes."""

NOT_SIGNED_IN = CALL_STATUS + Status.UNAUTHENTICATED
SERVER_GONE = CALL_STATUS + Status.UNAVAILABLE


class Line(Connection, Protocol):
    """A connection that can say what it is, for the greeting."""

    @property
    def address(self) -> Address: ...

    @property
    def codec(self) -> str: ...


class _Ending:
    """How the conversation ended, told from any thread."""

    def __init__(self) -> None:
        self.sentence = ""
        self.stop: Callable[[], None] = lambda: None

    def lost(self, sentence: str) -> None:
        self.sentence = sentence
        self.stop()


@click.command("chat", cls=Command)
@click.argument("address", metavar="[HOST:PORT]", default=DEFAULT_ADDRESS)
@click.option("--codec", metavar="NAME", default="msgpack", show_default=True, help="pipe, msgpack or protobuf.")
@click.option("--grpc", metavar="HOST:PORT", default="", help="Go through a server's gRPC gateway instead.")
@click.option("--user", metavar="NAME", default="", help="Sign in as NAME at once.")
@click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take passwords from the first line of FILE instead of asking.",
)
@click.option("--allow-plaintext", is_flag=True, help="Talk to another machine although nothing is encrypted.")
def command(address: str, codec: str, grpc: str, user: str, password_file: Path | None, allow_plaintext: bool) -> None:
    """Chat with the people on a server, 127.0.0.1:7411 if no other is given.

    Type /help for what can be typed, bye or quit to leave. With input or output that is not a terminal it is
    scriptable: lines in, lines out, each command's answer in order.

    \b
    Exit status:
      0   you left: bye, quit, or the end of the input
      2   asked wrongly: an unknown option or codec, an address that is none
      24  the server could not be reached, or went away
      26  --user could not sign in, and there was nobody to ask again
      10 + n  the server refused the connection with status n
      130 interrupted
    """
    where = Address.parse(grpc or address)
    if not (allow_plaintext or _is_loopback(where.host)):
        raise ConfigError(
            f"nothing is encrypted on the way to {where.host}, passwords included; connect through a tunnel, "
            "or give --allow-plaintext on a network you trust"
        )
    secret = _read_password(password_file) if password_file is not None else None
    # A terminal that cannot move its cursor gets lines, like a pipe.
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if user and secret is None and not sys.stdin.isatty():
        raise click.UsageError("--user needs --password-file FILE when the input is not a terminal")
    ending = _Ending()
    client = _connect(where, codec, grpc=bool(grpc))
    try:
        run = _by_terminal if interactive else _by_pipe
        code = run(client, ending, user, _password_source(secret, user, ask=sys.stdin.isatty() and not interactive))
    finally:
        client.close()
    if ending.sentence:
        raise Failure(visible(ending.sentence), SERVER_GONE)
    sys.exit(code)


def _by_terminal(client: Line, ending: _Ending, user: str, password: Callable[[str], str | None]) -> int:
    try:
        from wireproto.cli.chat_terminal import Terminal
    except ModuleNotFoundError as error:
        raise missing(error) from error
    terminal = Terminal(password)
    ending.stop = terminal.stop
    session = ChatSession(client, terminal.show, ending.lost, server=f"The server at {client.address}")
    greeting = f"Connected to {client.address} by {client.codec}. Type /help to see what you can type."
    return terminal.run(session, greeting, user)


def _by_pipe(client: Line, ending: _Ending, user: str, password: Callable[[str], str | None]) -> int:
    from wireproto.cli.chat_piped import Piped

    if hasattr(sys.stdout, "reconfigure"):
        # One message in letters the locale lacks must not end the program.
        sys.stdout.reconfigure(errors="backslashreplace")
    piped = Piped(sys.stdin.fileno(), sys.stdout, password)
    ending.stop = piped.stop
    session = ChatSession(client, piped.show, ending.lost, server=f"The server at {client.address}")
    try:
        if user:
            session.execute(LogIn(user, password(user)))
            if not session.user:
                return NOT_SIGNED_IN
            session.settle(SETTLE)
        piped.run(session, SETTLE)
        if not (session.gone or piped.broken):
            session.close(CLOSE)
    finally:
        piped.close()
    if piped.broken:
        raise piped.broken  # `Command` knows how a program ends that nobody listens to
    return 0


def _is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _connect(where: Address, codec: str, *, grpc: bool) -> Line:
    try:
        if not grpc:
            return connect(where, CHAT, codec=codec)
        from wireproto.chat.over_grpc import GrpcConnection

        return GrpcConnection(where)
    except HandshakeError as error:
        # Before CallError: there is a server, so the advice would be wrong.
        raise Failure(
            visible(error.message) if error.message else f"{where} refused the connection: {error.status.name}",
            CALL_STATUS + error.status,
        ) from error
    except CallError as error:
        raise Failure(
            f"{visible(error.message or f'{where} cannot be reached')}\n"
            "Is a server running there? `wireproto serve` starts one.",
            CALL_STATUS + error.status,
        ) from error


def _password_source(secret: str | None, user: str, *, ask: bool) -> Callable[[str], str | None]:
    """Who knows the password for a name: the file (that of ``--user`` only, if given), or a person to ask."""

    def password(name: str) -> str | None:
        if secret is not None and name == (user or name):
            return secret
        if ask:
            # It is asked for on the terminal itself, so the piped output stays clean.
            return str(click.prompt(f"Password for {visible(name)}", hide_input=True, err=True))
        return None

    return password


def _read_password(path: Path) -> str:
    """The first line of ``path``; never from the command line, where every process could read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.readline(4096).rstrip(b"\r\n").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot be read: {error}", param_hint="--password-file") from None
    if not text:
        raise click.BadParameter(f"{path} begins with an empty line", param_hint="--password-file")
    if stat.S_ISREG(mode) and mode & 0o077:
        click.echo(f"Warning: others can read {path}; `chmod 600 {path}` ends that.", err=True)
    return text
