"""Client programs under test: told by lines of JSON what to do, and asked by lines of JSON what came of it."""

import json
import os
import queue
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from wireproto.conformance.case import Deviation
from wireproto.conformance.lines import LineReader
from wireproto.errors import ConfigError

__all__ = ["Lender", "Program", "Programs", "Talker"]

STOP_TIMEOUT = 10.0
"""Seconds that a program gets to end once its input has."""

TELL_TIMEOUT = 10.0
"""Seconds in which a program must have read an instruction."""

FINISH_TIMEOUT = 3.0
"""Seconds for the answer of a client whose case is over because it broke a rule; its connection is closed by then."""


class Program:
    """One process.

    Args:
        command: the program and its arguments.

    Raises:
        ConfigError: it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``close``
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
            )
        except OSError as error:
            self._log.close()
            raise ConfigError(f"{command[0]} cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._owed = False  # an instruction was given, and its answer not read
        self._reader = LineReader(
            self._process.stdout.fileno(),
            self._lines.put,
            "wireproto-conformance-client",
            lambda: self._lines.put(None),
        )

    def tell(self, instruction: dict[str, Any]) -> None:
        """Give it one instruction; one at a time.

        Raises:
            Deviation: it does not read what it is told.
        """
        self._owed = True
        data = memoryview(json.dumps(instruction).encode() + b"\n")
        deadline = time.monotonic() + TELL_TIMEOUT
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while data:
                left = deadline - time.monotonic()
                if left < 0 or not selector.select(left):
                    raise Deviation("the client's process does not read what it is told")
                try:
                    data = data[os.write(self._stdin, data) :]
                except BlockingIOError:
                    continue  # there was room for less than the pipe writes as one
                except OSError:
                    return  # it has ended, which ``answer`` will say

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """Its answer; None when there is none within ``timeout`` seconds.

        Raises:
            Deviation: it has ended, or its line is no answer.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if line is None:
            self._lines.put(None)
            self._log.seek(0)
            lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if "rror" in line]
            raise Deviation(f"the client's process has ended{': ' + lines[0].strip() if lines else ''}")
        self._owed = False
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Deviation(f"the client's process wrote a line that is no JSON object: {line[:200]!r}")
        return found

    def finishes(self, timeout: float) -> bool:
        """Wait until it has answered; whether it can be told something else."""
        try:
            return not self._owed or self.answer(timeout) is not None
        except Deviation:
            return False

    def close(self, timeout: float = STOP_TIMEOUT) -> None:
        """End its input, and then the process, by force when it does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended with a line of ours unread
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
        self._reader.stop()
        self._process.stdout.close()
        self._log.close()


class Talker(Protocol):
    """What carries out instructions, one at a time."""

    def tell(self, instruction: dict[str, Any]) -> None:
        """Give it one."""

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """What it says when it is done; None when that is not within ``timeout`` seconds.

        Raises:
            Deviation: it will say nothing.
        """


class Lender(Protocol):
    """Where a case gets a client from."""

    def borrow(self) -> AbstractContextManager[Talker]:
        """One for one case."""


class Programs:
    """As many processes of one program as there are runs at once; each is used again and again."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._idle: queue.SimpleQueue[Program] = queue.SimpleQueue()
        Program(command).close(0.0)  # one that cannot be started is found out before anything is judged

    @contextmanager
    def borrow(self) -> Iterator[Program]:
        """A process for one case. One that did not finish its case is ended, and not used again."""
        try:
            program = self._idle.get_nowait()
        except queue.Empty:
            program = Program(self._command)
        try:
            yield program
        finally:
            if program.finishes(FINISH_TIMEOUT):
                self._idle.put(program)
            else:
                program.close(0.0)

    def close(self) -> None:
        """End all that are idle."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return
