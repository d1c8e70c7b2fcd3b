"""``python -m wireproto.client`` is ``wireproto chat``."""

from wireproto.cli import main

main("chat")
