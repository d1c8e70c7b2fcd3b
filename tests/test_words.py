"""One name, one meaning: no two classes of the framework are called alike."""

import ast
import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "wireproto"

# Words of the list in docs/design.md whose class is called a little otherwise, and those that are no class at all.
CALLED_OTHERWISE = {
    "face": "ClientFace",
    "queue": "CallQueue",
    "handler": "Handlers",
    "limit": "Limits",
    "position": "Positions",
}
NO_CLASS = {"call id", "chatter", "close", "deadline", "drain", "opcode", "shutdown", "timeout", "watermark"}


def class_names() -> dict[str, set[str]]:
    """Where each class name of the framework is defined."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(path.relative_to(PACKAGE).as_posix())
    return found


def test_a_class_name_has_one_meaning() -> None:
    """No two classes have one name, private ones included."""
    assert {name: places for name, places in class_names().items() if len(places) > 1} == {}


def test_each_word_of_the_design_is_one_class() -> None:
    """What the list of words calls a thing is a class of that name, in one place; the other words are no class."""
    section = (PACKAGE.parent / "docs" / "design.md").read_text("utf-8").partition("### Words")[2].partition("\n## ")[0]
    words = re.findall(r"\*\*([^*]+)\*\*", section)
    assert len(words) == len(set(words)) > 20
    classes = class_names()
    places = {word: classes.get(CALLED_OTHERWISE.get(word, word.capitalize()), set()) for word in words}
    assert {word for word in words if not places[word]} == NO_CLASS
    assert {word: where for word, where in places.items() if len(where) > 1} == {}
