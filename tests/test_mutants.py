"""tools/mutants.py: what it changes, what it leaves alone, and that it knows the killed from the survivors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutants import EXPLAINED, MODULES, explained, mutants_of, mutants_of_file

ROOT = Path(__file__).parent.parent

SOURCE = '''"""Text."""
from x import y
__all__ = ["f"]
LIMIT: int = 10

def f(a: int) -> str:
    """More text."""
    if a < LIMIT and not a == 3:
        a += 1
        raise ValueError(f"{a} is too small")
    return "ok" if a else ""
'''


def test_each_mutant_differs_in_one_place() -> None:
    """A mutant is the module with one change, and says what it is."""
    plain = ast.dump(ast.parse(SOURCE))
    mutants = mutants_of("m", SOURCE)
    assert len({ast.dump(mutant.make()) for mutant in mutants}) == len(mutants)
    assert all(ast.dump(mutant.make()) != plain for mutant in mutants)
    for mutant in mutants:
        compile(mutant.make(), "m.py", "exec")


def test_all_kinds_of_places_are_changed() -> None:
    """Comparisons, conditions, arithmetic, constants, returned values and statements have a mutant each."""
    labels = [mutant.label for mutant in mutants_of("m", SOURCE)]
    for label in (
        "module: 10 -> 11",
        "f: a < LIMIT -> a <= LIMIT",
        "f: a < LIMIT and (not a == 3) -> a < LIMIT or not a == 3",
        "f: not a == 3 -> a == 3",
        "f: a == 3 -> a != 3",
        "f: 3 -> 4",
        "f: a += 1 -> a -= 1",
        "f: a += 1 -> pass",
        "f: raise ValueError(f'{a} is too small') -> pass",
        "f: return 'ok' if a else '' -> return None",
        "f: 'ok' -> 'okX'",
    ):
        assert label in labels, labels


def test_texts_and_declarations_are_left_alone() -> None:
    """Docstrings, imports, exports and sentences have no mutant: no test needs to notice."""
    assert not any(
        word in mutant.label for mutant in mutants_of("m", SOURCE) for word in ("text", "__all__", "is too smallX")
    )


def test_templates_of_code_are_changed() -> None:
    """Of a template of generated code, tokens and lines have a mutant each; places for other code have none."""
    source = 'T = """\ndef f({x}):\n    if not {x}:\n        take()\n        {y}\n"""\n'
    labels = [mutant.label for mutant in mutants_of("m", source)]
    assert labels == [
        "module: template -> `if not {x}:` -> `if {x}:`",
        "module: template -> `take()` -> `pass`",
    ]


def test_the_page_quotes_mutants_that_there_are() -> None:
    """Each mutant that docs/mutants.md explains is made of today's code, and compiles."""
    made = {mutant.label: mutant for module in MODULES for mutant in mutants_of_file(module)}
    quoted = explained(EXPLAINED.read_text("utf-8"))
    assert len(quoted) > 10
    assert not quoted - set(made), "gone from the code; take them off the page, or quote what they are called now"
    for label in quoted:
        compile(made[label].make(), made[label].module, "exec")


def test_what_the_page_quotes_is_read_from_its_first_columns() -> None:
    """A row may explain two mutants; what else is in backticks is no mutant."""
    page = "Of `f: 1 -> 2`.\n\n| mutant | why |\n|---|---|\n| `f: 3 -> 4` and `f: 4 -> 5` | as `g: 0 -> 1` says |\n"
    assert explained(page) == {"f: 3 -> 4", "f: 4 -> 5"}


@pytest.mark.slow
def test_what_a_test_notices_is_killed() -> None:
    """A change that a test notices is killed, one that none does survives, and both are counted."""
    program = """
import sys
from tools import mutants
mutants.MODULES = {"wireproto.wire.state": ["tests/wire/test_state.py"]}
sys.exit(mutants.main(["-n", "1000", "--match", "Direction: "]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1, done.stderr  # 50 % are not 85
    assert "survived: wireproto.wire.state:40 Direction: 'send' -> 'sendX'" in done.stdout
    assert "wireproto.wire.state: 2 of 4 killed" in done.stdout
