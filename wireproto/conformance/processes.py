"""Programs under test: a server that says where it listens, and asked to go by SIGTERM."""

import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import Self

from wireproto.conformance.lines import LineReader
from wireproto.errors import ConfigError

__all__ = ["START_TIMEOUT", "STOP_TIMEOUT", "ServerProcess"]

START_TIMEOUT = 30.0
"""Seconds until a server must have said where it listens."""

STOP_TIMEOUT = 15.0
"""Seconds that a program gets to end by itself once it was told to."""

_ADDRESS = re.compile(r"(?<![\w.])(\[[0-9a-f:]+\]|[\w.-]+):([0-9]{1,5})(?!\w)")


class ServerProcess:
    """A server program, as a context.

    Args:
        command: the program and its arguments. It writes a line to stdout with the HOST:PORT where it listens, once it
            does; what it writes afterwards is read and dropped.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: it cannot be started, or says no address within ``START_TIMEOUT``.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # Its log is nobody's report; only when it does not start is its end shown.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``close``
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
            )
        except OSError as error:
            self._log.close()
            raise ConfigError(f"{command[0]} cannot be started: {error.strerror}") from error
        assert self._process.stdout is not None
        self._told = threading.Event()
        self._found: list[tuple[str, int]] = []
        self._reader = LineReader(
            self._process.stdout.fileno(), self._listen, "wireproto-conformance-server", self._told.set
        )
        self._told.wait(START_TIMEOUT)
        if not self._found:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
            self._log.seek(0)
            said = self._log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.close()
            raise ConfigError(
                f"{command[0]} did not write a line with its HOST:PORT to stdout; the last it said: {said or 'nothing'}"
            )
        self.address = self._found[0]

    def _listen(self, line: str) -> None:
        if not self._found and (found := _ADDRESS.search(line)):
            self._found.append((found[1].strip("[]"), int(found[2])))
            self._told.set()

    def terminate(self) -> None:
        """Ask it to finish what is in flight and to go."""
        self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it: by SIGTERM, and by force when that does not help."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
        self._reader.stop()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
