"""``python -m wireproto`` is the command ``wireproto``."""

from wireproto.cli import main

main()
