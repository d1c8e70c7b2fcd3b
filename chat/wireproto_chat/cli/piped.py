"""The chat for scripts: lines in, lines out, each command's answer in order, no prompts, no colours.

Used whenever standard input or output is not a terminal. Standard output carries one line per answer or message
(rows that continue one begin with four characters no name can begin with); a refusal ends in its reason in
brackets. Only why the program ended goes to standard error.
"""

import dataclasses
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from wireproto.cli.text import without_mark
from wireproto_chat.client.commands import PASSWORD_ON_LINE, ChangePassword, Create, LogIn, Misunderstood, Quit, parse
from wireproto_chat.client.display import DisplayLine, LineKind, rows
from wireproto_chat.client.session import ChatSession

__all__ = ["Piped"]

READ_SIZE = 65_536

IDLE = 5
"""Seconds without input after which the server is asked whether it is there."""


class Piped:
    """Reads commands from a descriptor until ``bye``, the end of the input, or the end of the server.

    Args:
        source: descriptor of the input: a pipe, a file, or a terminal whose output is piped away.
        out: where lines are printed; made to escape what its encoding lacks.
        password: gives the password for a name when the line has none; None when there is none to be had.
        new_password: gives the one that /password changes to, likewise.
        chosen: gives the one that a new account is to have, likewise; ``password`` when not given.
    """

    def __init__(
        self,
        source: int,
        out: TextIO,
        password: Callable[[str], str | None],
        new_password: Callable[[], str | None] = lambda: None,
        chosen: Callable[[str], str | None] | None = None,
    ) -> None:
        self._source = source
        self._out = out
        self._password = password
        self._new_password = new_password
        self._chosen = chosen or password
        self._typed = os.isatty(source)
        self._broken: OSError | None = None
        self._failure: Exception | None = None
        self._wake_out, self._wake = os.pipe()
        self._waking = threading.Lock()

    def show(self, line: DisplayLine) -> None:
        """Print one line at once; any thread."""
        text = "\n".join([str(row) for row in rows(line)])
        reason = f" [{line.reason}]" if line.reason else ""
        try:
            self._out.write(f"{text}{reason}\n")
            self._out.flush()
        except OSError as error:
            self._broken = error
            self.stop()

    def stop(self) -> None:
        """Make `run` return: there is nobody to talk to, or nobody to listen. Any thread."""
        with self._waking:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    @property
    def broken(self) -> OSError | None:
        """Why the output leads nowhere: whoever read it has gone, or the disk is full. None while it does not."""
        return self._broken

    @property
    def failure(self) -> Exception | None:
        """Why the first line of a script that was not carried out was not; None when all were.

        None, too, when somebody types the lines, who sees what comes of each.
        """
        return None if self._typed else self._failure

    def close(self) -> None:
        self.stop()
        os.close(self._wake_out)

    def run(self, session: ChatSession, patience: float) -> None:
        """Carry out the input's lines, one after the other.

        After a log-in the messages that waited are printed before the next line is read, so that a script meets them
        at a place it knows; at most ``patience`` seconds are spent waiting for each.
        """
        for number, raw in enumerate(self._lines(session.check), 1):
            if session.gone or self._broken:
                return
            try:
                # Only LF ends a line; one CR before it is a file's from elsewhere, and so is a mark before the first.
                line = raw.removesuffix(b"\r")
                command = parse((without_mark(line) if number == 1 else line).decode("utf-8"))
                if isinstance(command, LogIn | Create):
                    command = dataclasses.replace(command, password=self._password_for(command))
                elif isinstance(command, ChangePassword) and session.user:
                    command = self._passwords_for(session.user)
            except UnicodeDecodeError as error:
                self._failure = self._failure or error
                self.show(
                    DisplayLine(LineKind.PROBLEM, f"Line {number} is not UTF-8; nothing was done.", reason="NOT_UTF8")
                )
                continue
            except Misunderstood as error:
                self._failure = self._failure or error
                self.show(DisplayLine(LineKind.PROBLEM, str(error), reason="MISUNDERSTOOD"))
                continue
            if isinstance(command, Quit):
                break
            if command is not None:
                session.execute(command)
                self._failure = self._failure or session.failure
            if isinstance(command, LogIn):
                session.catch_up(patience)
        session.catch_up(patience)

    def _password_for(self, command: LogIn | Create) -> str:
        if command.password is not None:
            if self._typed:
                raise Misunderstood(PASSWORD_ON_LINE)
            return command.password
        password = (self._password if isinstance(command, LogIn) else self._chosen)(command.name)
        if password is None:
            option = "0" if isinstance(command, LogIn) else "1"
            raise Misunderstood(
                f"The password is missing: write {option}|{command.name}|PASSWORD, or start with --password-file FILE."
            )
        return password

    def _passwords_for(self, user: str) -> ChangePassword:
        password = self._password(user)
        new = self._new_password() if password is not None else None
        if password is None or new is None:
            raise Misunderstood(
                "The passwords are missing: start with --password-file FILE and --new-password-file FILE."
            )
        return ChangePassword(password, new)

    def _lines(self, idle: Callable[[], None]) -> Iterator[bytes]:
        """The input's lines as they come; ends early when `stop` is called. ``idle`` is called while nothing comes."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        rest = bytearray()
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(IDLE * 1000)}
            if self._wake_out in ready:
                return
            if not ready:
                idle()
                continue
            piece = os.read(self._source, READ_SIZE)
            if not piece:
                break
            rest += piece
            *whole, last = rest.split(b"\n")
            rest = last
            for line in whole:
                yield bytes(line)
        if rest:
            yield bytes(rest)
