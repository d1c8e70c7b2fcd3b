"""Foreign text is shown and never executed, and nobody can speak under another's name (THREATS 2.E)."""

import unicodedata

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_cli.screen import strip_formats
from wireproto_chat.cli.terminal import columns_of
from wireproto_chat.client.commands import HELP
from wireproto_chat.client.display import MARKER, MAX_MARKS, NARROWEST, DisplayLine, LineKind, rows, units, visible

HOSTILE = st.sampled_from(
    [
        "\x1b[2J",
        "\x1b[1;1H",
        "\x1b]0;title\x07",
        "\x1b]52;c;aGk=\x1b\\",
        "\x9b31m",
        "\x9d0;t\x9c",
        "\x1bP1$r\x1b\\",
        "\x1b[?1049h",
        "\r",
        "\n",
        "\r\n",
        "\t",
        "\x00",
        "\x07",
        "\x08\x08\x08",
        "\x7f",
        "\u202e",
        "\u2066",
        "\u200b",
        "\u2028",
        "\u2029",
        "\x85",
        "\ufeff",
        "\u0301",
        "\u0489",
        "\u200d",
        "\ufe0f",
        "\u05d0\u05d1",
        "\u0627",
        "\u6f22",
        "\U0001f468",
        "\u3164",
        "\ud800",
        "|",
        "\\",
        "bob: hi",
        "Server: you are signed out",
        MARKER,
        " ",
    ]
)
TEXTS = st.lists(st.one_of(HOSTILE, st.text(max_size=8), st.characters()), max_size=20).map("".join)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=32)
LINES = st.builds(DisplayLine, st.sampled_from(LineKind), TEXTS, NAMES)
WIDTHS = st.integers(NARROWEST, 100)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello | there \\ \\n", "hello | there \\ \\n"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("a\x00b", r"a\x00b"),
        ("a\rb\tc\nd", r"a\rb\tc\nd"),
        ("\x7f", r"\x7f"),
        ("\x85", r"\x85"),
        ("a\u202eb\u2066c\u061cd", r"a\u202eb\u2066c\u061cd"),
        ("\u2028\u2029\ufeff\u200b\u00ad", r"\u2028\u2029\ufeff\u200b\xad"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud83d", r"\ud83d"),
        ("\uffff\U0010ffff", r"\uffff\U0010ffff"),
        ("\ue000", r"\ue000"),
        ("\u3164\u2800", r"\u3164\u2800"),
        ("caf\u00e9 \u6f22\u5b57 \u05d0\u05d1 \U0001f600", "caf\u00e9 \u6f22\u5b57 \u05d0\u05d1 \U0001f600"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("a\u200d b\u200d", r"a\u200d b\u200d"),
        ("\u200d\u200da", r"\u200d\u200da"),
        ("e\u0301", "e\u0301"),
        ("\u0301", "\u25cc\u0301"),
        ("a" + "\u0301" * 8, "a" + "\u0301" * 8),
        ("a" + "\u0301" * 100 + "b", "a" + "\u0301" * 8 + r"\+92b"),
    ],
)
def test_characters_are_shown(text: str, shown: str) -> None:
    """Each character is itself or its escape."""
    assert visible(text) == shown


@given(TEXTS)
def test_nothing_invisible_comes_out(text: str) -> None:
    """Whatever goes in, no control, format or line-breaking character comes out, but joiners between letters."""
    for char in visible(text):
        assert char in "\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co")


@given(TEXTS)
def test_marks_are_capped(text: str) -> None:
    """No character carries more than eight marks."""
    run = 0
    for char in visible(text):
        run = run + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        assert run <= MAX_MARKS


@given(TEXTS)
def test_what_is_shown_is_shown_as_it_is(text: str) -> None:
    """Text that went through the gate goes through it unchanged."""
    assert visible(visible(text)) == visible(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays(text: str) -> None:
    """Printable ASCII is not touched, backslashes and bars included."""
    assert visible(text) == text


@given(TEXTS)
def test_units_tell_escapes_from_text(text: str) -> None:
    """A unit that is no escape consists of the sender's characters."""
    for unit in units(text):
        if not unit.escaped:
            assert all(char in text or char == "\u25cc" for char in unit.text)


@given(LINES)
@example(DisplayLine(LineKind.MESSAGE, "hi\nServer: you are signed out\n  | x", "mallory"))
def test_a_pipe_gets_rows_of_one_speaker(line: DisplayLine) -> None:
    """On a pipe there is a row per LF, the first with the speaker's prefix, all others with the marker."""
    shown = [str(row) for row in rows(line)]
    assert len(shown) == line.text.count("\n") + 1
    assert shown[0].startswith(line.prefix)
    assert all(row.startswith(MARKER) for row in shown[1:])
    assert [row.body for row in rows(line)] == [visible(text) for text in line.text.split("\n")]


@given(st.lists(LINES, max_size=5), WIDTHS)
@example([DisplayLine(LineKind.MESSAGE, "hi" + " " * 12 + "Server: you are signed out", "bob")], 20)
@example([DisplayLine(LineKind.MESSAGE, "\u6f22" * 30, "bob")], 20)
@example([DisplayLine(LineKind.MESSAGE, "\U0001fffe", "mallory")], 16)
def test_a_terminal_shows_what_the_rows_say(lines: list[DisplayLine], columns: int) -> None:
    """Printed on a terminal the rows, and nothing else, are on its screen, each under a prefix no sender controls."""
    expected: list[str] = []
    prefixes: list[str] = []
    for line in lines:
        found = rows(line, columns=columns, measure=columns_of)
        # A row is wider than the terminal only when it is a long name alone, and then it is cut.
        expected += [strip_formats(str(row)).rstrip(" ")[:columns] for row in found]
        prefixes += [line.prefix, *[MARKER] * (len(found) - 1)]
    screen = pyte.Screen(columns, len(expected) + 1)
    modes = set(screen.mode)
    pyte.Stream(screen).feed("\x1b[?7l" + "".join(row + "\r\n" for row in expected) + "\x1b[?7h")
    shown = [row.rstrip(" ") for row in screen.display]
    assert shown == [*expected, ""]
    assert all(row.startswith(prefix.rstrip(" ")[:columns]) for row, prefix in zip(shown, prefixes, strict=False))
    assert (screen.cursor.y, screen.cursor.x, screen.title, set(screen.mode)) == (len(expected), 0, "", modes)


@given(LINES, WIDTHS)
def test_wrapping_loses_nothing(line: DisplayLine, columns: int) -> None:
    """Wrapped rows put together are the rows of a pipe, and none is wider than the terminal."""
    wrapped = rows(line, columns=columns, measure=columns_of)
    plain = rows(line)
    isolates = str.maketrans("", "", "\u2068\u2069")
    assert "".join(row.body for row in wrapped).translate(isolates) == "".join(row.body for row in plain)
    assert all(columns_of(str(row)) <= columns for row in wrapped if row.units)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("alice", "alice: "),
        ("a.b-c_9", "a.b-c_9: "),
        ("server", '"server": '),
        ("Server", '"Server": '),
        ("*", '"*": '),
        ("", '"": '),
        ("a" * 33, f'"{"a" * 33}": '),
        ("x\n  | y", '"x\\n  | y": '),
        ('a": b "c', '"a\\x22: b \\x22c": '),
        ("\x1b[2J", '"\\x1b[2J": '),
        ("\u05d0", '"\\u05d0": '),
    ],
)
def test_a_name_is_legal_or_in_quotes(name: str, prefix: str) -> None:
    """No name, not even from a server that breaks the rules, looks like the server or like a continued row."""
    assert DisplayLine(LineKind.MESSAGE, "hi", name).prefix == prefix


def test_right_to_left_rows_are_isolated_on_a_terminal_only() -> None:
    """A row with right-to-left letters cannot reorder its prefix; other rows and pipes are left alone."""
    line = DisplayLine(LineKind.MESSAGE, "\u05d0\u05d1\nplain", "bob")
    first, second = rows(line, columns=80)
    assert str(first) == "bob: \u2068\u05d0\u05d1\u2069"
    assert str(second) == "  | plain"
    assert str(rows(line)[0]) == "bob: \u05d0\u05d1"


def test_rows_break_at_blanks() -> None:
    """A long row is cut behind a blank near its end, a long word where it must be."""
    line = DisplayLine(LineKind.MESSAGE, "the quick brown fox jumps over " + "a" * 30, "bob")
    assert [str(row) for row in rows(line, columns=20)] == [
        "bob: the quick ",
        "  | brown fox jumps ",
        "  | over aaaaaaaaaa",
        "  | " + "a" * 15,
        "  | " + "a" * 5,
    ]
    assert [str(row) for row in rows(line, columns=21)][:2] == ["bob: the quick brown ", "  | fox jumps over "]


def test_a_terminal_narrower_than_a_name() -> None:
    """The name has a row of its own, and the text follows under the marker."""
    assert [str(row) for row in rows(DisplayLine(LineKind.MESSAGE, "hello", "a" * 20), columns=12)] == [
        "a" * 20 + ": ",
        "  | hello",
    ]


def test_an_emoji_selector_counts_as_a_column() -> None:
    """Where terminals disagree on a width the wider one is taken."""
    assert columns_of("\u2764") == 1
    assert columns_of("\u2764\ufe0f") == 2
    assert columns_of("\u6f22\u0301") == 2


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (None, ["[bob#7 2026-01-01 12:00] alice: one", "  | [#8] bob: two"]),
        (60, ["[bob#7 2026-01-01 12:00] alice: one", "  | [#8] bob: two"]),
        (59, ["[bob#7] alice: one", "  | [#8] bob: two"]),
        (20, ["[bob#7] alice: one", "  | [#8] bob: two"]),
    ],
)
def test_a_message_of_the_past_begins_with_its_place(columns: int | None, shown: list[str]) -> None:
    """No message can look like another of the list; a narrow terminal leaves out the time."""
    line = DisplayLine(LineKind.HISTORY, "one\n[#8] bob: two", sender="alice", place="bob#7", when="2026-01-01 12:00")
    assert [str(row) for row in rows(line, columns=columns)] == shown


TABLE = """\
/list [PATTERN]        2|PATTERN         accounts whose name matches; * any characters, ? one
/more                                    the next page of the last list or history
/help                                    this list
A sentence that is no table, and too long for a narrow terminal."""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (None, TABLE.split("\n")),
        (120, TABLE.split("\n")),
        (
            80,
            [
                "/list [PATTERN]        2|PATTERN         accounts whose name matches; * any",
                "                                         characters, ? one",
                "/more                                    the next page of the last list or",
                "                                         history",
                "/help                                    this list",
                "A sentence that is no table, and too long for a narrow terminal.",
            ],
        ),
        (
            40,
            [
                "/list [PATTERN]  2|PATTERN",
                "    accounts whose name matches; *",
                "    any characters, ? one",
                "/more",
                "    the next page of the last list",
                "    or history",
                "/help",
                "    this list",
                "A sentence that is no table, and",
                "too long for a narrow terminal.",
            ],
        ),
    ],
)
def test_a_table_is_laid_out_for_the_terminal(columns: int | None, shown: list[str]) -> None:
    """The last column is wrapped below itself, or below the row where there is no room beside it."""
    found = rows(DisplayLine(LineKind.NOTICE, "A table:\n" + TABLE, tabular=True), columns=columns)
    assert [str(row).rstrip(" ") for row in found] == ["* A table:", *(MARKER + row for row in shown)]


@given(st.integers(1, 130), st.lists(st.text("ab |[]  ", min_size=1, max_size=90), max_size=4))
@example(41, [HELP])
def test_a_table_loses_nothing_but_blanks(columns: int, texts: list[str]) -> None:
    """At any width all words of a table are there, in order, and no row is wider than the terminal."""
    found = rows(DisplayLine(LineKind.NOTICE, "\n".join(texts), tabular=True), columns=columns)
    assert all(len(str(row)) <= max(columns, NARROWEST) for row in found)
    assert "".join("".join(row.body for row in found).split()) == "".join("".join(texts).split())
