"""zstd for the tests, from wherever this Python has it: a part of it from 3.14 on, a package before."""

import sys
from importlib import import_module
from typing import Any, Final

__all__ = ["PACKAGE", "zstd"]

PACKAGE: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

zstd: Any = import_module(PACKAGE)
"""The module. What it has is the same under either name."""
