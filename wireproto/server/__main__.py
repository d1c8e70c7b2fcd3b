"""``python -m wireproto.server`` is ``wireproto serve``."""

from wireproto.cli import main

main("serve")
