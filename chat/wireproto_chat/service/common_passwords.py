"""Passwords that are tried first: the 10,000 of ``common_passwords.txt``, and what people make of them to comply.

A rule that asks for length is met with ``password1234``, ``passwordpassword`` and ``123456789012``. So what is looked
up is also a password without the digits and signs around it, and what it repeats.
"""

import re
from functools import cache
from importlib.resources import files

__all__ = ["common_passwords", "is_common"]

_FRINGE = re.compile(r"[^a-z]*(.*?)[^a-z]*", re.DOTALL)
_REPEATED = re.compile(r"(.+?)\1+.?", re.DOTALL)

_ROWS = "1234567890" * 13, "abcdefghijklmnopqrstuvwxyz" * 5, "qwertyuiop", "asdfghjkl", "zxcvbnm"


@cache
def common_passwords() -> frozenset[str]:
    """The list, in lower case."""
    text = (files(__package__) / "common_passwords.txt").read_text("ascii")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))


def is_common(password: str) -> bool:
    """Whether a password, in its normal form, is one that is tried first."""
    text = password.lower()
    core = _FRINGE.fullmatch(text)
    looked_up = {text}
    # With more around it than in it, what is around is the password.
    if core is not None and 2 * len(core[1]) >= len(text):
        looked_up.add(core[1])
    for each in list(looked_up):
        repeated = _REPEATED.fullmatch(each)
        if repeated is not None:
            looked_up.add(repeated[1])
    known = common_passwords()
    return any(each in known or len(set(each)) < 3 or _is_row(each) for each in looked_up)


def _is_row(text: str) -> bool:
    """Whether it is a piece of the alphabet, of the digits, or of a row of keys, either way."""
    return any(text in row or text[::-1] in row for row in _ROWS)
