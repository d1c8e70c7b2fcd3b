"""Where codecs and readers are likely to be wrong: numbers, characters and pieces of payloads."""

from typing import Final

__all__ = ["EDGES", "PIECES", "SPECIAL"]

EDGES: Final = sorted({
    sign * (2**bits + near) for bits in (0, 7, 8, 15, 16, 31, 32, 53, 63, 64) for near in (-1, 0, 1) for sign in (-1, 1)
})  # fmt: skip
"""Integers where widths, signs and exactness as a double end."""

SPECIAL: Final = "\\|,:()[]{}\"'\n\r\tpnrexN0\0\x1c\x85\u2028\ufeff\u0660é€😀"
"""Characters that mean something in some codec, or to a reader who is careless with lines and widths."""

PIECES: Final = [
    *(bytes([each]) for each in b"\\|,:()[]{}\n\r\0\"'0-+._"),
    b"\\N", b"\\e", b"\\x2c", b"nan", b"1e400", b"9" * 4301, "\uff11".encode(), "\u2028".encode(),
    b"\x80", b"\x90", b"\xc0", b"\xc1", b"\xc2", b"\xc3", b"\xff", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xd4\xff\x00", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x00", b"\x08\x01", b"\x0b", b"\x0c",
]  # fmt: skip
"""Bytes that, put into a payload, are likely to be refused in an interesting way: delimiters, huge claims, half
characters."""
