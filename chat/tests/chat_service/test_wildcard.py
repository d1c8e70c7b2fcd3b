"""The pattern matcher against a matcher that is too simple to be wrong."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireproto_chat.wildcard import MAX_STARS, Pattern

names = st.text("ab-._1", min_size=1, max_size=32)
patterns = st.text("ab-.*?_1", min_size=1, max_size=24).filter(lambda text: text.count("*") <= MAX_STARS)


def oracle(pattern: str, name: str) -> bool:
    """The definition: a table of whether the first i of the pattern match the first j of the name."""
    row = [True] + [False] * len(name)
    for char in pattern:
        before = row
        row = [before[0] and char == "*"]
        for j, letter in enumerate(name, 1):
            row.append(before[j] or row[j - 1] if char == "*" else before[j - 1] and char in (letter, "?"))
    return row[-1]


@given(patterns, names)
def test_a_pattern_matches_what_its_definition_says(pattern: str, name: str) -> None:
    """Pattern.matches agrees with the table, for any pattern and name."""
    assert Pattern(pattern).matches(name) == oracle(pattern, name)


@given(patterns, names)
def test_a_name_that_matches_lies_within_the_bounds(pattern: str, name: str) -> None:
    """Pattern.first and Pattern.end exclude no name that matches."""
    compiled = Pattern(pattern)
    if compiled.matches(name):
        assert compiled.first <= name < compiled.end


@given(names, st.data())
def test_a_name_with_pieces_replaced_matches_itself(name: str, data: st.DataObject) -> None:
    """Putting ? for some characters and * for others keeps the match."""
    stars = 0
    pattern = ""
    for char in name:
        choice = data.draw(st.sampled_from([char, "?", "*"]))
        stars += choice == "*"
        pattern += choice if stars <= MAX_STARS else char
    assert Pattern(pattern).matches(name)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a*a*a*a*a*a*a*b",
        "*" + "?" * 20 + "a*" + "?" * 20 + "b",
        "*" + "a" * 20 + "*b*" + "a" * 20,
        "?" * 64,
        "a*" * 8 + "b",
    ],
)
def test_the_worst_patterns_cost_microseconds(pattern: str) -> None:
    """A pattern made to backtrack takes under 100 us for a name, measured over a thousand."""
    matches = Pattern(pattern).matches
    start = time.process_time()
    for _ in range(1000):
        matches("a" * 32)
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize("pattern", ["", "a" * 65, "Bob*", "a%", "a b", "é*", "a\n", "[ab]", "\\*", "*" * 9])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """Anything outside the grammar raises a ValueError that says what a pattern is."""
    with pytest.raises(ValueError, match=r"a pattern (is 1 to 64|has at most 8 stars)"):
        Pattern(pattern)


def test_a_percent_or_underscore_has_no_meaning() -> None:
    """What means something to a database's LIKE stands for itself."""
    assert Pattern("a_b*").matches("a_bc")
    assert not Pattern("a_b*").matches("axbc")
