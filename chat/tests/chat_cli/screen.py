"""A terminal without a person: the program runs on a pseudo-terminal, pyte keeps the screen it would show."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import pexpect
import pyte
import wcwidth

__all__ = ["Screen", "strip_formats"]


def strip_formats(text: str) -> str:
    """``text`` as pyte can draw it: without zero-width characters, behind most of which it drops the rest.

    Terminals draw these on the character before, or skip them; no column is taken by any.
    """
    if text.isascii():
        return text
    return "".join([char for char in text if wcwidth.wcwidth(char) != 0 or char < " "])


class _Answering(pyte.HistoryScreen):
    """Answers the program's questions about the cursor, as a terminal does."""

    answer: Callable[[str], object]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Screen:
    """One program on one terminal.

    Args:
        command: the program and its arguments.
        rows, columns: size of the terminal.
        environment: added to this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        rows: int = 24,
        columns: int = 80,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        ours = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        env = {**ours, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(environment or {})}
        self.child = pexpect.spawn(
            command[0], list(command[1:]), env=env, dimensions=(rows, columns), encoding="utf-8", timeout=20
        )
        self.child.delaybeforesend = None
        self.screen = _Answering(columns, rows, history=100_000, ratio=0.5)
        self.screen.answer = self.child.send
        self._stream = pyte.Stream(self.screen)
        self.raw = ""
        """Everything the program has written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close(force=True)

    def send(self, text: str) -> None:
        """Press keys."""
        self.child.send(text)

    def line(self, text: str) -> None:
        """Type a line and press Enter."""
        self.child.send(text + "\r")

    def read(self, timeout: float = 0.05) -> bool:
        """Take in what the program has written; False when it has ended."""
        try:
            piece = self.child.read_nonblocking(65_536, timeout)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += piece
        self._stream.feed(strip_formats(piece))
        return True

    @property
    def rows(self) -> list[str]:
        """The screen's rows, without blanks at their ends."""
        return [row.rstrip(" ") for row in self.screen.display]

    @property
    def everything(self) -> list[str]:
        """The rows that scrolled away and those on the screen, up to the last that is not empty."""
        columns = range(self.screen.columns)
        gone = ["".join([row[x].data for x in columns]).rstrip(" ") for row in self.screen.history.top]
        rows = [*gone, *self.rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def until(self, done: Callable[["Screen"], bool], timeout: float = 20.0) -> None:
        """Read until the screen satisfies ``done``."""
        deadline = time.monotonic() + timeout
        while not done(self):
            alive = self.read()
            if done(self):
                return
            assert alive, f"the program has ended; its screen:\n{self}"
            assert time.monotonic() < deadline, f"the screen never came to it:\n{self}"

    def shows(self, text: str, timeout: float = 20.0) -> None:
        """Wait until some row holds ``text``."""
        self.until(lambda screen: any(text in row for row in screen.screen.display), timeout)

    def ends(self, timeout: float = 20.0) -> int:
        """Wait until the program has ended; its exit status, negative for a signal."""
        deadline = time.monotonic() + timeout
        while self.read():
            assert time.monotonic() < deadline, f"the program never ended:\n{self}"
        self.child.wait()
        return self.child.exitstatus if self.child.exitstatus is not None else -(self.child.signalstatus or 0)

    def __str__(self) -> str:
        return "\n".join(self.everything)
