"""One name, one meaning: no two classes of the framework are called alike, but for those that are one thing twice."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "wireproto"

# Why a name may stand several times. Whoever makes one of them unique takes it off the list.
TWICE = {
    "Application": "what `serve` takes, and what a ServerSuite does: handlers and who may call them",
    "Budget": "what a peer may still send: of PINGs, of anything",
    "EchoRequest": "a message of wirecontrol.v1, and one of wireconformance.v1",
    "EchoResponse": "the same",
    "Sample": "one measured latency, and one method to be tried",
    "Stage": "where a fault strikes, and handlers that stand in for real ones",
    "_Call": "private to their modules",
    "_Progress": "private to their modules",
    "_Source": "what generates the code of one codec, in each of the three",
}


def test_a_class_name_has_one_meaning() -> None:
    """Two classes have one name only where the table above says why."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(path.relative_to(PACKAGE).as_posix())
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in TWICE} == {}
    assert TWICE.keys() - twice.keys() == set()  # the table lists nothing that is gone
