"""Names for completion: what is learnt, what is asked, and what Tab makes of it."""

import asyncio

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from wireproto_chat.cli.completion import ChatCompleter
from wireproto_chat.client import names
from wireproto_chat.client.names import Names


def test_the_server_is_asked_again_only_after_a_while() -> None:
    """One beginning is asked once in thirty seconds, and never what no name can begin with."""
    asked: list[str] = []
    now = [0.0]

    def ask(text: str) -> list[str]:
        asked.append(text)
        return [f"{text}{len(asked)}"]

    known = Names(ask, clock=lambda: now[0])
    known.look_up("a")
    known.look_up("a")
    known.look_up("A b*")
    now[0] = names.FRESH
    known.look_up("a")
    assert asked == ["a", "a"]
    assert known.beginning("a") == ["a1", "a2"]


def test_no_more_names_are_kept_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one not seen for longest goes; what is no legal name is never kept."""
    monkeypatch.setattr(names, "MOST", 2)
    known = Names(lambda text: [])
    known.learn(["a", "b", "\x1b[2J", ""])
    known.learn(["a", "c"])
    assert known.beginning("") == ["a", "c"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/hi", ["/history "]),
        ("/WHOA", ["/whoami"]),
        ("/pop ", []),
        ("/send ", ["bob ", "bobby "]),
        ("/msg bobb", ["bobby "]),
        ("/history bo", ["bob", "bobby"]),
        ("3|bobb", ["bobby|"]),
        ("0|bobb", ["bobby"]),
        ("/send bob b", []),
        ("/logout b", []),
        ("hello", []),
        ("", []),
    ],
)
def test_what_tab_offers(typed: str, offered: list[str]) -> None:
    """Commands come first, then names where one belongs, and nothing inside a message's text."""

    def suggest(text: str, *, ask: bool) -> list[str]:
        return [name for name in ("bob", "bobby") if name.startswith(text)]

    async def complete() -> list[str]:
        completer = ChatCompleter(suggest)
        document = Document(typed)
        return [each.text async for each in completer.get_completions_async(document, CompleteEvent())]

    assert asyncio.run(complete()) == offered
