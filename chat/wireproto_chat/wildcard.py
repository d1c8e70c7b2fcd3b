"""Patterns over user names: ``*`` for any characters, ``?`` for exactly one, everything else for itself."""

import re

__all__ = ["MAX_PATTERN", "MAX_STARS", "Pattern"]

MAX_PATTERN = 64
"""Characters in a pattern, twice the longest name."""

MAX_STARS = 8
"""Stars in a pattern."""

_GRAMMAR = re.compile(r"[a-z0-9._*?-]{1,64}")


class Pattern:
    """One pattern, compiled.

    The text between two stars is looked for once, at the first place where it fits, and never again: if a name matches
    at all, it matches so. Atomic groups, ``(?>...)``, keep the regular expression engine from trying the other places,
    which is what makes naive translations take seconds; here a name costs at most its length times the pattern's.

    Args:
        text: 1 to 64 of ``a-z 0-9 . _ - * ?`` with at most 8 ``*``.

    Attributes:
        first: no name before this one matches.
        end: no name from this one on matches.

    Raises:
        ValueError: the text is no pattern; the message says what is.
    """

    __slots__ = ("_match", "end", "first")

    def __init__(self, text: str) -> None:
        if _GRAMMAR.fullmatch(text) is None:
            raise ValueError(
                "a pattern is 1 to 64 of a-z 0-9 . _ - with * for any characters and ? for one; * lists all"
            )
        if text.count("*") > MAX_STARS:
            raise ValueError(f"a pattern has at most {MAX_STARS} stars; this one has {text.count('*')}")
        pieces = [re.escape(piece).replace(r"\?", ".") for piece in text.split("*")]
        source = pieces[0]
        if len(pieces) > 1:
            source += "".join(f"(?>.*?{piece})" for piece in pieces[1:-1] if piece)
            # What follows the last star must end the name, so that one is looked for from behind.
            source += f".*{pieces[-1]}"
        self._match = re.compile(source, re.DOTALL).fullmatch
        literal = re.split(r"[*?]", text, maxsplit=1)[0]
        self.first = literal
        # Names are ASCII below DEL.
        self.end = literal + "\x7f"

    def matches(self, name: str) -> bool:
        """Whether the whole of ``name`` matches."""
        return self._match(name) is not None
