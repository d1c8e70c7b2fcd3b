"""``python -m wireproto_chat`` is the command ``wireproto-chat``."""

from wireproto_chat.cli import main

main()
