"""Every MUST of the pages names what judges it, and every case of the conformance kit is named by a rule."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import DOCS, PAGES, table
from wireproto.conformance.case import sort_key
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.servers import SERVER_CASES

ROOT = DOCS.parent
CASES = sorted({*SERVER_CASES.cases, *CLIENT_CASES.cases}, key=sort_key)

_NAME = r"(?:[sc]\d+\.\d+|t\d+)"
_BRACKET = re.compile(rf"\[({_NAME}(?: to {_NAME})?(?:, {_NAME}(?: to {_NAME})?)*)\]")


def without_examples(text: str) -> str:
    """A page without what stands between fences, comments and the words of BCP 14 as such."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`\[s4\.21, c4\.18\]`|^The key words MUST.*?$", "", text, flags=re.MULTILINE)


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, items of lists, and rows of tables, each on one line."""
    for block in re.split(r"\n\s*\n|\n(?=\||- |\d+\. )", without_examples(text)):
        yield " ".join(block.split())


def sentences(text: str) -> Iterator[str]:
    """What ends with a full stop, or with its block."""
    for block in blocks(text):
        yield from re.split(r"(?<=\.)\**\s+(?=[A-Z`*(\[])", block)


def named(text: str) -> list[str]:
    """The cases and tests that the brackets of a text name, ranges written out."""
    found: list[str] = []
    for bracket in _BRACKET.findall(text):
        for part in bracket.split(", "):
            first, _, last = part.partition(" to ")
            found += between(first, last) if last else [first]
    return found


def between(first: str, last: str) -> list[str]:
    """The cases of a range, of one side and section, whose ends there are."""
    assert first in CASES, f"{first} is no case"
    assert last in CASES, f"{last} is no case"
    assert first.partition(".")[0] == last.partition(".")[0], f"{first} to {last} is no range"
    assert sort_key(first) < sort_key(last), f"{first} to {last} is no range"
    return CASES[CASES.index(first) : CASES.index(last) + 1]


TESTS = {row[0]: row[2] for row in table("number", "what is held", "test")}


@pytest.mark.parametrize("page", PAGES)
def test_every_must_names_what_judges_it(page: str) -> None:
    """A sentence with MUST has a bracket: write the case, or the test of section 16, behind the rule."""
    bare = [each for each in sentences(PAGES[page]) if re.search(r"\bMUST\b", each) and not _BRACKET.search(each)]
    assert bare == [], "write the number of a case, or of a test in section 16, behind each: [s4.21]"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_exists(page: str) -> None:
    """Each number in a bracket is a case of the kit, or a test of the table in section 16."""
    assert [each for each in named(PAGES[page]) if each not in CASES and each not in TESTS] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_bracket_is_written_otherwise(page: str) -> None:
    """What looks like a case stands in a bracket that is read, so that a slip of the pen is no rule without a judge."""
    left = _BRACKET.sub("", without_examples(PAGES[page]))
    assert re.findall(r"\b[sc]\d{1,2}\.\d+\b", left) == []


def test_every_case_is_named_by_a_rule() -> None:
    """A case judges a rule that the pages have: name it behind the rule, or write the rule."""
    of_rules = {case for text in PAGES.values() for case in named(text)}
    bare = [case for case in CASES if case not in of_rules]
    assert bare == [], "write each behind its rule on docs/wire.md, values.md or control.md: [s4.21]"


@pytest.mark.parametrize("head", [("check", "reason"), ("reason", "status", "retry")])
def test_every_check_and_every_reason_of_a_call_names_what_judges_it(head: tuple[str, ...]) -> None:
    """Each row of the two tables has its cases or its test in the last column."""
    assert [row for row in table(*head) if not _BRACKET.search(row[-1])] == []


def test_the_tests_of_the_table_exist() -> None:
    """Each test of the table is there under its name and is named by a rule, or says why there is none."""
    of_rules = {each for text in PAGES.values() for each in named(text)}
    for number, name in TESTS.items():
        assert number in of_rules, number
        if not name.startswith("none: "):
            path, _, function = name.partition("::")
            tree = ast.parse((ROOT / Path(path)).read_text("utf-8"))
            assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A side MUST close [s4.21].", ["s4.21"]),
        ("It is so [s2.41 to s2.43, c2.10, t1].", ["s2.41", "s2.42", "s2.43", "c2.10", "t1"]),
        ("A list of [s2] or [2.41] is none.", []),
    ],
)
def test_brackets_are_read(text: str, found: list[str]) -> None:
    """A bracket has single cases, ranges, and tests."""
    assert named(text) == found


def test_a_rule_without_a_judge_is_found() -> None:
    """A MUST in a paragraph whose other sentence has a bracket is found, in an item and in a row, too."""
    text = "It MUST go. It MUST stay [s4.21].\n\n- A MUST\n- B MUST [t1]\n\n| x MUST | y |\n"
    bare = [each for each in sentences(text) if "MUST" in each and not _BRACKET.search(each)]
    assert bare == ["It MUST go.", "- A MUST", "| x MUST | y |"]
