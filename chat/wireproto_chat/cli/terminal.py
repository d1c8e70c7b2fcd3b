"""The chat for people: a prompt at the bottom of the terminal, messages above it, and no garbling between the two.

Everything that touches the terminal runs on one thread, the event loop's: the prompt, and the printing of lines
that other threads hand over. A line is printed by taking the prompt away, writing, and drawing the prompt again
with what was typed so far, in one step and without leaving raw mode: a key pressed meanwhile is neither echoed nor
lost. Commands are carried out in order by a thread each, so the prompt is never blocked by the server.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import DummyHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.output import Output
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from wireproto_chat.cli.completion import ChatCompleter
from wireproto_chat.client.commands import (
    PASSWORD_ON_LINE,
    ChangePassword,
    ChatCommand,
    Create,
    LogIn,
    Misunderstood,
    Quit,
    hides_password,
    parse,
    split,
)
from wireproto_chat.client.display import DisplayLine, DisplayRow, LineKind, rows, visible
from wireproto_chat.client.sentences import PASSWORD_RULE
from wireproto_chat.client.session import ChatSession

__all__ = ["Terminal"]

P = ParamSpec("P")

CATCH_UP = 1.0
"""Seconds that leaving waits for each message known to be coming."""

CLOSE = 5.0
"""Seconds that leaving waits for the connection to end."""

LEAVE = 5.0
"""Seconds that leaving gives a lost connection to come back, if there are lines to be carried out."""

MENU = 5
"""Rows that the completions take at the most."""

IDLE = 5.0
"""Seconds between two looks at whether the server is there."""

STYLE = Style.from_dict(
    {
        "message": "bold ansicyan",
        "history": "ansicyan",
        "server": "bold ansigreen",
        "notice": "ansiyellow",
        "problem": "bold ansired",
        "marker": "ansibrightblack",
        "escape": "reverse",
        "prompt": "bold",
    }
)

# Wrapping is ours (display.rows). Where the terminal counts a character wider than we do it must cut the row
# rather than begin one that no marker stands before.
_NO_WRAP = ("[ZeroWidthEscape]", "\x1b[?7l")
_WRAP = ("[ZeroWidthEscape]", "\x1b[?7h")
_WIDE_VARIANT = "\ufe0f"


class _TypedLines(InMemoryHistory):
    """What was typed, for the arrow keys; in memory only, and without passwords."""

    def append_string(self, string: str) -> None:
        if not any(map(hides_password, string.split("\n"))):
            super().append_string(string)


class _Unseen(Processor):
    """Shows nothing of what is typed: stars would tell how long a password is."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        return Transformation([], source_to_display=lambda _: 0, display_to_source=lambda _: 0)


class _Ended(Exception):
    """Ends a prompt from outside: the server is gone, or the process was asked to end."""


def columns_of(text: str) -> int:
    """Columns that ``text`` takes, at the most: a symbol followed by an emoji selector may become two wide."""
    return sum(max(get_cwidth(char), 0) for char in text) + text.count(_WIDE_VARIANT)


class Terminal:
    """One person at one terminal.

    Args:
        password: gives the password for a name without asking, or None.
        new_password: gives the one that /password changes to, likewise.
    """

    def __init__(
        self, password: Callable[[str], str | None], new_password: Callable[[], str | None] = lambda: None
    ) -> None:
        self._password = password
        self._new_password = new_password
        keys = KeyBindings()
        keys.add("c-z")(lambda event: self._suspend())
        self._prompt: PromptSession[str] = PromptSession(
            history=_TypedLines(),
            key_bindings=keys,
            style=STYLE,
            complete_while_typing=False,  # each key would ask the server
            complete_style=CompleteStyle.COLUMN,
            reserve_space_for_menu=MENU,
        )
        self._secret: PromptSession[str] = PromptSession(
            history=DummyHistory(), key_bindings=keys, input_processors=[_Unseen()], style=STYLE
        )
        self._output: Output = self._prompt.app.output
        self._active: PromptSession[str] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._signal = 0

    # From any thread

    def show(self, line: DisplayLine) -> None:
        """Print a line above the prompt; returns once it was written, so that only then it is acknowledged."""
        loop = self._loop
        if loop is None:
            return
        printed = threading.Event()
        try:
            loop.call_soon_threadsafe(self._print, line, printed)
        except RuntimeError:  # the loop has closed, and with it the program, but for this thread
            return
        printed.wait()

    def stop(self) -> None:
        """Make `run` return: there is nobody to talk to."""
        loop = self._loop
        if loop is None:
            self._over = True
            return
        try:
            loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # closed: it is over already
            return

    # From here on everything runs on the loop's thread

    def run(self, session: ChatSession, greeting: str, user: str) -> int:
        """Talk until the person leaves or `stop` is called.

        Args:
            session: what carries out the commands.
            greeting: the first line.
            user: who signs in at once; empty for nobody.

        Returns:
            0, or 128 and the number of the signal that ended it.
        """
        with patch_stdout():  # a stray warning must not garble the prompt either
            try:
                return asyncio.run(self._main(session, greeting, user))
            except KeyboardInterrupt:  # the second one, while leaving took its time
                return 128 + signal.SIGINT

    async def _main(self, session: ChatSession, greeting: str, user: str) -> int:
        self._loop = asyncio.get_running_loop()
        self._prompt.completer = ChatCompleter(session.suggest)
        for number in (signal.SIGTERM, signal.SIGHUP):  # unhandled they would leave the terminal raw
            self._loop.add_signal_handler(number, self._signalled, number)
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        commands: asyncio.Queue[ChatCommand] = asyncio.Queue()
        tasks = [asyncio.create_task(self._work(session, commands)), asyncio.create_task(_watch(session))]
        # Between two prompts the terminal stays raw: a key pressed just then is read by the next one, not echoed.
        with self._prompt.app.input.raw_mode():
            self._print(DisplayLine(LineKind.NOTICE, greeting))
            with contextlib.suppress(_Ended):
                if user:
                    await self._take(LogIn(user), session, commands)
                await self._converse(session, commands)
        if not session.gone:
            session.hurry(LEAVE)
            await commands.join()
            await _in_thread(session.catch_up, CATCH_UP)
            await _in_thread(session.close, CLOSE)
        for task in tasks:
            task.cancel()
        return 128 + self._signal if self._signal else 0

    async def _converse(self, session: ChatSession, commands: "asyncio.Queue[ChatCommand]") -> None:
        """Read lines until the person leaves."""
        warned = False
        while True:
            try:
                line = await self._ask(self._prompt, lambda: _prompt_text(session.user))
            except EOFError:
                return
            except KeyboardInterrupt:
                if self._prompt.default_buffer.text:
                    continue  # what was being typed is dropped, as in a shell
                if warned:
                    return
                warned = True
                self._print(DisplayLine(LineKind.NOTICE, "To leave type /quit, or press Ctrl-D, or Ctrl-C again."))
                continue
            warned = False
            for text in split(line):
                try:
                    command = parse(text)
                except Misunderstood as error:
                    self._print(DisplayLine(LineKind.PROBLEM, str(error)))
                    continue
                if isinstance(command, Quit):
                    return
                if command is not None:
                    await self._take(command, session, commands)

    async def _take(self, command: ChatCommand, session: ChatSession, commands: "asyncio.Queue[ChatCommand]") -> None:
        """Queue one command, after its password was asked for."""
        if isinstance(command, ChangePassword):
            await commands.join()
            if session.user:  # else the answer is a refusal, whatever was typed
                changed = await self._passwords_for(session.user)
                if changed is None:
                    self._print(DisplayLine(LineKind.NOTICE, "Nothing was done."))
                    return
                command = changed
        elif isinstance(command, LogIn | Create):
            if command.password is not None:
                self._print(DisplayLine(LineKind.PROBLEM, PASSWORD_ON_LINE))
                return
            await commands.join()  # so that who is signed in is known before anybody types a password
            if isinstance(command, Create) or not session.user:
                password = await self._password_for(command)
                if password is None:
                    self._print(DisplayLine(LineKind.NOTICE, "Nothing was done."))
                    return
                command = dataclasses.replace(command, password=password)
        commands.put_nowait(command)

    async def _password_for(self, command: LogIn | Create) -> str | None:
        """The password, typed without echo and, for a new account, twice; None when the person thought better."""
        if (known := self._password(command.name)) is not None:
            return known
        name = visible(command.name)
        if isinstance(command, LogIn):
            return await self._ask_password(f"Password for {name}: ")
        return await self._choose_password(f"Choose a password for {name}")

    async def _passwords_for(self, user: str) -> ChangePassword | None:
        """The password there is and the one to be, or None when the person thought better."""
        password = self._password(user) or await self._ask_password("Your password: ")
        if password is None:
            return None
        new = self._new_password() or await self._choose_password("Choose a new password")
        return None if new is None else ChangePassword(password, new)

    async def _choose_password(self, message: str) -> str | None:
        password = await self._ask_password(f"{message} ({PASSWORD_RULE}): ")
        if password is None:
            return None
        again = await self._ask_password("Type it again: ")
        if again is not None and again != password:
            self._print(DisplayLine(LineKind.PROBLEM, "The two passwords differ."))
        return password if again == password else None

    async def _ask_password(self, message: str) -> str | None:
        try:
            return await self._ask(self._secret, message) or None
        except (EOFError, KeyboardInterrupt):
            return None

    async def _ask(self, prompt: "PromptSession[str]", message: AnyFormattedText) -> str:
        if self._over:
            raise _Ended
        self._active = prompt
        try:
            return await prompt.prompt_async(message)
        finally:
            self._active = None

    async def _work(self, session: ChatSession, commands: "asyncio.Queue[ChatCommand]") -> None:
        """Carry out the commands in order, each in a thread that may wait for the server."""
        while True:
            command = await commands.get()
            try:
                if not session.gone:
                    await _in_thread(session.execute, command)
            finally:
                commands.task_done()
            if self._active is not None:
                self._active.app.invalidate()  # the prompt names who is signed in

    def _signalled(self, number: int) -> None:
        self._signal = number
        self._end()

    def _suspend(self) -> None:
        """Stop as any program does on Ctrl-Z; `fg` brings the prompt back, with what was typed."""
        if self._active is not None and self._active.app.is_running:
            run_in_terminal(self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        """Be stopped, with the whole group of processes that the shell knows as one job, until it is continued."""
        assert self._loop is not None
        self._loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(0, signal.SIGTSTP)
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)

    def _end(self) -> None:
        self._over = True
        if self._active is not None and self._active.app.is_running and not self._active.app.is_done:
            self._active.app.exit(exception=_Ended())

    def _print(self, line: DisplayLine, printed: threading.Event | None = None) -> None:
        app = self._active.app if self._active is not None and self._active.app.is_running else None
        if app is not None:
            app.renderer.erase()
        columns = self._output.get_size().columns
        fragments: list[tuple[str, str]] = [_NO_WRAP]
        style = f"class:{line.kind.value}"
        for row in rows(line, columns=columns, measure=columns_of):
            fragments += _fragments(row, style)
            style = "class:marker"
        print_formatted_text(self._output, [*fragments, _WRAP], STYLE)
        if app is not None:
            app.renderer.reset()
            app.invalidate()
        if printed is not None:
            printed.set()


def _prompt_text(user: str) -> AnyFormattedText:
    return [("class:prompt", f"{visible(user)}> ")]


def _fragments(row: DisplayRow, style: str) -> Iterator[tuple[str, str]]:
    """One row as styled text; runs of one style are one piece."""
    yield style, row.prefix
    for escaped, run in itertools.groupby(row.units, key=lambda unit: unit.escaped):
        yield "class:escape" if escaped else "", "".join([unit.text for unit in run])
    yield "", "\n"


async def _watch(session: ChatSession) -> None:
    """Notice a server that goes away while nobody types."""
    while True:
        await asyncio.sleep(IDLE)
        await _in_thread(session.check)


async def _in_thread(function: Callable[P, None], *arguments: P.args, **options: P.kwargs) -> None:
    """Run a function in a daemon thread: one that hangs must not keep the program from ending."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        try:
            function(*arguments, **options)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="wireproto-chat-command", daemon=True).start()
    await done.wait()
