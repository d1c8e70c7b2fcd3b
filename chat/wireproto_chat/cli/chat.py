"""``wireproto chat``: talk to other people on a server, by hand or by script."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import click

from wireproto import Address, CallError, ConfigError, HandshakeError, Status, connect
from wireproto.cli.command import CALL_STATUS, Command, Failure, explained, missing
from wireproto.cli.text import decoded, write_utf8
from wireproto.cli.units import SECONDS
from wireproto_chat.client.commands import LogIn
from wireproto_chat.client.display import visible
from wireproto_chat.client.reconnect import PATIENCE, ChatClient
from wireproto_chat.client.sentences import PASSWORD_RULE
from wireproto_chat.client.session import ChatSession
from wireproto_chat.opcodes import CHAT

__all__ = ["command"]

DEFAULT_ADDRESS = "127.0.0.1:7411"

CATCH_UP = 2.0
"""Seconds a script waits for each message that waited for it at log-in."""

CLOSE = 5.0
"""Seconds that leaving waits for what still comes."""

NOT_SIGNED_IN = CALL_STATUS + Status.UNAUTHENTICATED
SERVER_GONE = CALL_STATUS + Status.UNAVAILABLE


class AddressedClient(ChatClient, Protocol):
    """A connection that can say what it is, for the greeting."""

    @property
    def address(self) -> Address: ...

    @property
    def codec(self) -> str: ...


class _Farewell:
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
@click.option(
    "--new-password-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take what /password changes to from the first line of FILE instead of asking.",
)
@click.option(
    "--reconnect",
    metavar="TIME",
    type=SECONDS,
    default=PATIENCE,
    help=f"How long to try to get a lost connection back; 0 to give up at once.  [default: {PATIENCE:g}s]",
)
@click.option("--allow-plaintext", is_flag=True, help="Talk to another machine although nothing is encrypted.")
def command(
    address: str,
    codec: str,
    grpc: str,
    user: str,
    password_file: Path | None,
    new_password_file: Path | None,
    reconnect: float,
    allow_plaintext: bool,
) -> None:
    """Chat with the people on a server, 127.0.0.1:7411 if no other is given.

    Type /help for what can be typed, bye or quit to leave. With input or output that is not a terminal it is
    scriptable: lines in, lines out, each command's answer in order.

    A lost connection is made again by itself, signed in as before, and nothing is shown or sent twice.

    \b
    Exit status:
      0   you left: bye, quit, or the end of the input
      1   this machine said no: a file that cannot be read, output that cannot be written
      2   asked wrongly: an unknown option or codec, an address that is none, a script's line that is no command
      24  the server could not be reached, or went away and did not come back
      26  signing in failed: that of --user, of which nothing is carried out then, or a script's line
      10 + n  the server refused the connection, or a script's line, with status n
      130 interrupted
    All lines of a script are tried; the first one that fails is what the status tells of.
    """
    where = Address.parse(grpc or address)
    if not (allow_plaintext or where.on_this_machine):
        raise ConfigError(
            f"nothing is encrypted on the way to {where.host}, passwords included; connect through a tunnel, "
            "or give --allow-plaintext on a network you trust"
        )
    secret = _read_password(password_file, "--password-file") if password_file is not None else None
    new = _read_password(new_password_file, "--new-password-file") if new_password_file is not None else None
    # A terminal that cannot move its cursor gets lines, like a pipe.
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if user and secret is None and not sys.stdin.isatty():
        raise click.UsageError("--user needs --password-file FILE when the input is not a terminal")
    farewell = _Farewell()
    client = _connect(where, codec, grpc=bool(grpc))
    try:
        run = _by_terminal if interactive else _by_pipe
        passwords = _PasswordSource(secret, new, user, ask=sys.stdin.isatty() and not interactive)
        code = run(client, farewell, user, passwords, reconnect)
    finally:
        client.close()
    if farewell.sentence:
        raise Failure(visible(farewell.sentence), SERVER_GONE)
    sys.exit(code)


class _PasswordSource:
    """Who knows passwords: the files (that of ``--user`` only, if given), or a person to ask."""

    def __init__(self, secret: str | None, new: str | None, user: str, *, ask: bool) -> None:
        self._secret = secret
        self._new = new
        self._user = user
        self._ask = ask

    def of(self, name: str) -> str | None:
        """The password for a name."""
        if self._knows(name):
            return self._secret
        return self._prompt(f"Password for {visible(name)}")

    def chosen(self, name: str) -> str | None:
        """The password that a new account is to have."""
        if self._knows(name):
            return self._secret
        return self._prompt(f"Choose a password for {visible(name)} ({PASSWORD_RULE})", confirm=True)

    def new(self) -> str | None:
        """What /password changes to."""
        if self._new is not None:
            return self._new
        return self._prompt(f"Choose a new password ({PASSWORD_RULE})", confirm=True)

    def _knows(self, name: str) -> bool:
        return self._secret is not None and name == (self._user or name)

    def _prompt(self, text: str, *, confirm: bool = False) -> str | None:
        if not self._ask:
            return None
        # It is asked for on the terminal itself, so the piped output stays clean.
        return str(click.prompt(text, hide_input=True, err=True, confirmation_prompt=confirm))


def _by_terminal(
    client: AddressedClient, farewell: _Farewell, user: str, passwords: _PasswordSource, reconnect: float
) -> int:
    try:
        from wireproto_chat.cli.terminal import Terminal
    except ModuleNotFoundError as error:
        raise missing(error) from error
    terminal = Terminal(passwords.of, passwords.new)
    farewell.stop = terminal.stop
    server = f"The server at {client.address}"
    session = ChatSession(client, terminal.show, farewell.lost, server=server, patience=reconnect)
    greeting = f"Connected to {client.address} by {client.codec}. Type /help to see what you can type."
    return terminal.run(session, greeting, user)


def _by_pipe(
    client: AddressedClient, farewell: _Farewell, user: str, passwords: _PasswordSource, reconnect: float
) -> int:
    from wireproto_chat.cli.piped import Piped

    write_utf8(sys.stdout)  # as the lines that are read
    piped = Piped(sys.stdin.fileno(), sys.stdout, passwords.of, passwords.new, passwords.chosen)
    farewell.stop = piped.stop
    server = f"The server at {client.address}"
    session = ChatSession(client, piped.show, farewell.lost, server=server, patience=reconnect)
    try:
        if user:
            session.execute(LogIn(user, passwords.of(user)))
            if not session.user:
                return _status_of(session.failure) or NOT_SIGNED_IN
            session.catch_up(CATCH_UP)
        piped.run(session, CATCH_UP)
        if not (session.gone or piped.broken):
            session.close(CLOSE)
    finally:
        piped.close()
    if piped.broken:
        raise piped.broken  # `Command` knows how a program ends that nobody listens to
    return _status_of(piped.failure)


def _status_of(failure: Exception | None) -> int:
    """The exit status that tells why a line was not carried out."""
    if failure is None:
        return 0
    told = explained(failure)
    return 2 if told is None else told.exit_code  # the line is no command, no text, or nothing that can be sent


def _connect(where: Address, codec: str, *, grpc: bool) -> AddressedClient:
    try:
        if not grpc:
            return connect(where, CHAT, codec=codec)
        from wireproto_chat.client.over_grpc import GrpcChatClient

        return GrpcChatClient(where)
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


def _read_password(path: Path, option: str) -> str:
    """The first line of ``path``; never from the command line, where every process could read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            line = file.readline(4096)
    except OSError as error:
        raise Failure(f"{option} {path} cannot be read: {error.strerror}") from error
    text = decoded(line, f"{option} {path}").rstrip("\r\n")
    if not text:
        raise click.BadParameter(f"{path} begins with an empty line", param_hint=option)
    if stat.S_ISREG(mode) and mode & 0o077:
        click.echo(f"Warning: others can read {path}; `chmod 600 {path}` ends that.", err=True)
    return text
