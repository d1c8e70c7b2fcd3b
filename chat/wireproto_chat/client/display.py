r"""What other people wrote, made safe to print: every character is shown, none is executed.

One gate for all foreign text: message bodies, names, the server's sentences, and what the person at the
keyboard pasted into a wrong command. Its rules:

- A control, format or line-breaking character (C0, C1, DEL, bidi controls, zero-width ones, U+2028, lone
  surrogates ...) is written as its escape: ``\x1b``, ``\r``, ``\u202e``. Joiners stay between visible characters.
- LF, and nothing else, starts a new row. Every row but the first begins with ``MARKER``; on a terminal so does
  every row that had to be wrapped, because a sender who counts columns could otherwise begin a row as somebody else.
- The first row begins with a prefix no sender controls: ``name: `` for a legal name, ``"name": `` for any other.
- At most eight combining marks stand on one character; ``\+92`` stands for ninety-two more.
- On a terminal a row with right-to-left letters is wrapped in an isolate, so it cannot reorder what is around it.
"""

import dataclasses
import enum
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "MARKER",
    "MAX_MARKS",
    "NARROWEST",
    "ROOMY",
    "DisplayLine",
    "DisplayRow",
    "LineKind",
    "Unit",
    "rows",
    "units",
    "visible",
]

MARKER = "  | "
"""Begins every row that continues the one above. No name may begin with a space, so no first row looks like it."""

MAX_MARKS = 8
"""Combining marks shown on one character; what real scripts need is less."""

NARROWEST = 16
"""Columns that the marker and the longest escape need beside each other."""

ROOMY = 60
"""Columns below which a message of the past stands without its time."""

LAST_COLUMN = 24
"""Columns that the last one of a table needs, to be wrapped beside the others and not below them."""

_LAST_COLUMN = re.compile(r"(.*\S {2,})(\S.*)", re.DOTALL)
_GAP = re.compile(" {2,}")
_PLAIN = re.compile(r"[ -~]*", re.ASCII)
_NAME = re.compile(r"[a-z0-9._-]{1,32}", re.ASCII)

_SHORT = {"\t": r"\t", "\r": r"\r", "\n": r"\n"}
# Letters and symbols by category, but nothing to see: a row of them would pass for an empty one.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_JOINERS = frozenset("\u200c\u200d")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_DOTTED_CIRCLE = "\u25cc"
_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


class LineKind(enum.Enum):
    """Who speaks on a line."""

    MESSAGE = "message"
    """Another person; the prefix is the sender's name."""
    HISTORY = "history"
    """Another person, or this one, in the past; the prefix is in brackets where and when, then the sender's name."""
    SERVER = "server"
    """The server; ``Server: ``."""
    NOTICE = "notice"
    """This program, about itself; ``* ``."""
    PROBLEM = "problem"
    """This program, about a line it could not carry out; ``! ``."""


@dataclass(frozen=True, slots=True)
class DisplayLine:
    """One thing to print; may take several rows.

    Attributes:
        kind: who speaks.
        text: what they say, as received: not safe before it went through `rows`.
        sender: the name in front of a MESSAGE or of HISTORY, as received.
        place: what HISTORY calls the message, ``#7`` or ``bob#7``.
        when: its time, in ours; left out where the terminal is narrow.
        reason: the UPPER_SNAKE reason of a refusal, for scripts; empty when there is none.
        tabular: whether the rows of the text have columns, two spaces or more apart; where they do not fit a terminal
            the last one is wrapped below itself. For texts of our own: one that is foreign is not laid out by itself.
    """

    kind: LineKind
    text: str
    sender: str = ""
    reason: str = ""
    place: str = ""
    when: str = ""
    tabular: bool = False

    @property
    def prefix(self) -> str:
        """What the first row begins with; safe to print."""
        match self.kind:
            case LineKind.MESSAGE:
                return f"{_name(self.sender)}: "
            case LineKind.HISTORY:
                # No name begins with a bracket, so nobody's message looks like this.
                return f"[{' '.join(filter(None, (visible(self.place), self.when)))}] {_name(self.sender)}: "
            case LineKind.SERVER:
                return "Server: "
            case LineKind.NOTICE:
                return "* "
            case LineKind.PROBLEM:
                return "! "


class Unit(NamedTuple):
    """One visible thing that wrapping must not split: a character with its marks, or an escape."""

    text: str
    escaped: bool


class DisplayRow(NamedTuple):
    """One row of output, in the parts a terminal may style apart."""

    prefix: str
    units: tuple[Unit, ...]

    @property
    def body(self) -> str:
        return "".join([unit.text for unit in self.units])

    def __str__(self) -> str:
        return self.prefix + self.body


def _name(name: str) -> str:
    """A legal name as it is; any other, and one that would pass for the server, in quotes.

    The server keeps to legal names; this is for one that does not. Letters that could reorder what follows the
    prefix, and quotes that would end it early, are spelled out.
    """
    if _NAME.fullmatch(name) and name != "server":
        return name
    spelled = [
        _escape(char) if char == '"' or unicodedata.bidirectional(char) in _RIGHT_TO_LEFT else char
        for char in visible(name)
    ]
    return f'"{"".join(spelled)}"'


def _escape(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_hidden(char: str) -> bool:
    """Whether ``char`` does something or shows nothing, instead of showing itself."""
    if char in _BLANK:
        return True
    category = unicodedata.category(char)
    if category in _HIDDEN:
        return True
    if category == "Cn":
        # Not assigned in this Python's tables. Newer letters and emoji are harmless; non-characters and the
        # ranges Unicode keeps for invisible ones are not.
        code = ord(char)
        return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF or 0xFFF0 <= code <= 0xFFF8 or code >= 0xE0000
    return False


def units(text: str) -> Iterator[Unit]:
    """Split one row of foreign text into what is seen; LF is escaped like any other control character."""
    if _PLAIN.fullmatch(text):
        yield from (Unit(char, False) for char in text)
        return
    base = ""  # the character being built, with its marks; "" when there is none to put a mark on
    marks = dropped = 0
    last = len(text) - 1
    for index, char in enumerate(text):
        joins = (
            char in _JOINERS
            and base != ""
            and not base[-1].isspace()
            and base[-1] not in _JOINERS
            and index < last
            and not text[index + 1].isspace()
            and text[index + 1] not in _JOINERS
            and not _is_hidden(text[index + 1])
        )
        if joins or unicodedata.category(char) in ("Mn", "Me"):
            if not base:
                base, marks = _DOTTED_CIRCLE, 0
            if marks < MAX_MARKS:
                base += char
            else:
                dropped += 1
            marks += 1
            continue
        if base:
            yield Unit(base, False)
        if dropped:
            yield Unit(f"\\+{dropped}", True)
        marks = dropped = 0
        if _is_hidden(char):
            yield Unit(_escape(char), True)
            base = ""
        else:
            base = char
    if base:
        yield Unit(base, False)
    if dropped:
        yield Unit(f"\\+{dropped}", True)


def visible(text: str) -> str:
    r"""``text`` on one row, safe to print anywhere: ``visible("a\x1b[2J\nb")`` is ``a\x1b[2J\nb`` spelled out."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join([unit.text for unit in units(text)])


def rows(line: DisplayLine, *, columns: int | None = None, measure: Callable[[str], int] = len) -> list[DisplayRow]:
    """The rows to print for ``line``.

    Args:
        line: what to print.
        columns: width of the terminal, taken for 16 if less; None for a pipe, where rows are as long as they are and
            carry no isolates.
        measure: columns that one unit's text takes.
    """
    found: list[DisplayRow] = []
    if line.when and columns is not None and columns < ROOMY:
        line = dataclasses.replace(line, when="")
    prefix = line.prefix
    texts = line.text.split("\n")
    if line.tabular and columns is not None:
        # The last column is for the cursor, see `_wrapped`.
        room = max(columns, NARROWEST) - len(MARKER) - 1
        texts = [part for text in texts for part in _laid_out(text, room)]
    for text in texts:
        if columns is None:
            found.append(DisplayRow(prefix, tuple(units(text))))
        else:
            found.extend(_wrapped(prefix, text, max(columns, NARROWEST), measure))
        prefix = MARKER
    return found


def _laid_out(text: str, room: int) -> list[str]:
    """One row of columns as rows that are no longer than ``room``."""
    split = _LAST_COLUMN.fullmatch(text)
    if len(text) <= room or split is None:
        return [text]
    before, last = split[1], split[2]
    if room - len(before) >= LAST_COLUMN:
        parts = _fill(last, room - len(before))
        return [before + parts[0], *(" " * len(before) + part for part in parts[1:])]
    indent = "    "
    return [_GAP.sub("  ", before.rstrip(" ")), *(indent + part for part in _fill(last, room - len(indent)))]


def _fill(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, max(room, 1), expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)


def _wrapped(prefix: str, text: str, columns: int, measure: Callable[[str], int]) -> Iterator[DisplayRow]:
    """Cut one row where it must be, at a space where there is one in the last third."""
    row: list[Unit] = []
    used = measure(prefix)
    space = 0  # index behind the last space in the row
    for unit in units(text):
        width = measure(unit.text)
        # The last column is for the blank behind a word, which then need not begin the next row.
        # A name that leaves too little room has a row of its own.
        if (row or prefix != MARKER) and used + width > (columns if unit.text == " " else columns - 1):
            cut = space if space > 2 * len(row) // 3 else len(row)
            yield _isolated(prefix, row[:cut])
            prefix, row, space = MARKER, row[cut:], 0
            used = measure(prefix) + sum(measure(kept.text) for kept in row)
        row.append(unit)
        used += width
        if unit.text == " ":
            space = len(row)
    yield _isolated(prefix, row)


def _isolated(prefix: str, row: list[Unit]) -> DisplayRow:
    for unit in row:
        if unicodedata.bidirectional(unit.text[0]) in _RIGHT_TO_LEFT:
            return DisplayRow(prefix, (Unit(_ISOLATE, False), *row, Unit(_POP_ISOLATE, False)))
    return DisplayRow(prefix, tuple(row))
