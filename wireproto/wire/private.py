"""The numbers that this protocol never uses for itself: an extension of somebody's own may have them.

A receiver that does not know one treats it like any number of a later day, so there is nothing to do here but to keep
away. ``docs/wire.md``, section 14, has every number space, and what is taken, free, private and grease in it.
"""

from typing import Final

__all__ = ["ALGORITHMS", "ERROR_FIELDS", "FEATURES", "GREETING_FIELDS", "KINDS", "METADATA_KEYS", "REASONS"]

KINDS: Final = range(0xC0, 0xF0)
"""Of frames; ignorable, as their top bit is set."""

ALGORITHMS: Final = range(0xC0, 0xF0)
"""By which payloads are packed."""

METADATA_KEYS: Final = range(0x60, 0x78)
"""Without the bit that says they must be understood."""

FEATURES: Final = range(48, 56)
"""Bits of HELLO and WELCOME."""

GREETING_FIELDS: Final = range(0x8000, 0xFF00)
"""Types of the fields at the end of HELLO and WELCOME."""

ERROR_FIELDS: Final = range(0xC0, 0xF0)
"""... and at the end of ERROR and GOAWAY."""

REASONS: Final = "X_"
"""How the reason of an ERROR begins that no service declares: a proxy's, or an extension's."""
