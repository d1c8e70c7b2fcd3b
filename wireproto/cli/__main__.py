"""``python -m wireproto.cli`` is ``wireproto``."""

from wireproto.cli import main

main()
