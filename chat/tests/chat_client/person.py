"""A session over a fake client, with somebody who remembers what it showed."""

import threading
from collections.abc import Callable

from chat_client.fake import PASSWORD, FakeClient, FakeServer
from wireproto_chat.client.commands import LogIn
from wireproto_chat.client.display import DisplayLine, rows
from wireproto_chat.client.session import ChatSession

__all__ = ["PATIENCE", "Person"]

PATIENCE = 5.0
"""Seconds that a test waits for what must come."""


class Person:
    """A session over a fake client, and everything it showed."""

    def __init__(self, server: FakeServer, name: str = "", *, patience: float = 0) -> None:
        self.client = FakeClient(server)
        self.lines: list[DisplayLine] = []
        self.farewells: list[str] = []
        self._grown = threading.Condition()
        self.session = ChatSession(self.client, self._show, self._lost, server="The server", patience=patience)
        if name:
            self.session.execute(LogIn(name, PASSWORD))
            self.session.catch_up(PATIENCE)

    def _show(self, line: DisplayLine) -> None:
        with self._grown:
            self.lines.append(line)
            self._grown.notify_all()

    def _lost(self, sentence: str) -> None:
        with self._grown:
            self.farewells.append(sentence)
            self._grown.notify_all()

    @property
    def texts(self) -> list[str]:
        """What was shown, as a pipe would print it."""
        return ["\n".join(str(row) for row in rows(line)) for line in self.lines]

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until what was shown, or said in farewell, satisfies ``done``."""
        with self._grown:
            assert self._grown.wait_for(done, 10), self.texts
