"""The chat's commands, which ``wireproto`` finds by the entry points of the group ``wireproto.commands``."""

from typing import Final

__all__ = ["COMMANDS"]

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "chat": ("wireproto_chat.cli.chat", "Talk to other people on a chat server."),
    "db": ("wireproto_chat.cli.db", "Upgrade, check or back up the chat's database."),
}
"""Module and line of help of each, so that ``wireproto --help`` imports none of them."""
