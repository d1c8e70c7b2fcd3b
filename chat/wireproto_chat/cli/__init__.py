"""The chat's commands, which ``wireproto`` finds by the entry points of the group ``wireproto.commands``."""

from typing import Final, NoReturn

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "chat": ("wireproto_chat.cli.chat", "Talk to other people on a chat server."),
    "db": ("wireproto_chat.cli.db", "Upgrade, check or back up the chat's database."),
}
"""Module and line of help of each, so that ``wireproto --help`` imports none of them."""


def main() -> NoReturn:
    """The command ``wireproto-chat``, which is ``wireproto chat``."""
    from wireproto.cli.command import run_as_program
    from wireproto_chat.cli.chat import command

    run_as_program(command, "wireproto-chat", "WIREPROTO_CHAT")
