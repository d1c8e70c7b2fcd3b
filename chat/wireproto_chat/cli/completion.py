"""Tab: the commands, then the names of accounts, those seen so far and those the server knows."""

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from wireproto_chat.client.commands import COMMANDS, TAKES_NAME

__all__ = ["ChatCompleter"]

PATIENCE = 1.0
"""Seconds that Tab waits for the server; what it answers later is there at the next Tab."""

_COMMAND = re.compile(r"[ \t]*(/[a-z-]*)", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[ \t]*(?:(/[a-z-]+)[ \t]+|[0235]\|)([a-z0-9._-]*)", re.ASCII)
_TAKES_TEXT = frozenset({"/send", "/msg", "/broadcast"})


class ChatCompleter(Completer):
    """Completes what is typed in front of the cursor. Lives on the event loop's thread and never blocks it.

    Args:
        suggest: ``ChatSession.suggest``.
    """

    def __init__(self, suggest: Callable[..., list[str]]) -> None:
        self._suggest = suggest

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What is known without asking."""
        text = document.text_before_cursor
        if found := _COMMAND.fullmatch(text):
            yield from _commands(found[1])
        elif (typed := _name_in(text)) is not None:
            yield from _names(text, typed, self._suggest(typed, ask=False))

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """The same, after the server was asked for further names."""
        text = document.text_before_cursor
        typed = _name_in(text)
        if typed is not None:
            await self._ask(typed)
        for completion in self.get_completions(document, complete_event):
            yield completion

    async def _ask(self, typed: str) -> None:
        # In a daemon thread of its own: the loop's executor would be waited for at the end of the program.
        loop = asyncio.get_running_loop()
        answered = asyncio.Event()

        def ask() -> None:
            self._suggest(typed, ask=True)
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # closed: nobody waits any more
                return

        threading.Thread(target=ask, name="wireproto-chat-names", daemon=True).start()
        try:
            await asyncio.wait_for(answered.wait(), PATIENCE)
        except TimeoutError:
            return


def _name_in(text: str) -> str | None:
    """The beginning of a name that the cursor stands behind; None when no name belongs there."""
    found = _NAME.fullmatch(text)
    if found is None or (found[1] is not None and found[1] not in TAKES_NAME):
        return None
    return found[2]


def _commands(typed: str) -> Iterator[Completion]:
    for command in COMMANDS:
        if command.startswith(typed.lower()):
            yield Completion(f"{command} " if command in TAKES_NAME else command, -len(typed), display=command)


def _names(text: str, typed: str, names: Iterable[str]) -> Iterator[Completion]:
    before = text.split(maxsplit=1)[0] if text.strip() else ""
    behind = " " if before in _TAKES_TEXT else "|" if text.lstrip().startswith("3|") else ""
    for name in names:
        yield Completion(name + behind, -len(typed), display=name)
