"""Change the code in one place at a time and see whether a test notices: ``make mutants N=500 SEED=1``.

    python -m tools.mutants [-n 500] [--seed 1] [--only MODULE] [--show FILE]

Places are comparisons, arithmetic, constants, conditions, ``and`` and ``or``, returned values, whole statements, and in
the templates of generated code their tokens and lines. Texts that people read, annotations and declarations of names
are left alone. The sample is drawn from the seed. Each mutant lives in a forked process that imports the changed module
from memory and runs the module's tests, the likeliest first, until one fails; nothing is written to the tree.

A survivor that ``docs/mutants.md`` explains is counted apart. Exit status: 0 when at least 85 % are killed.
"""

import argparse
import ast
import contextlib
import copy
import functools
import gc
import importlib.abc
import importlib.machinery
import math
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["MODULES", "Mutant", "explained", "main", "mutants_of", "mutants_of_file"]

ROOT: Final = Path(__file__).parent.parent
EXPLAINED: Final = ROOT / "docs" / "mutants.md"
WANTED: Final = 0.85

_QUICK: Final = [
    "tests/wire/test_connection.py",
    "tests/wire/test_hurried.py",
    "tests/test_vectors.py",
    "tests/wire/test_connection_events.py",
    "tests/test_fuzz_targets.py",
]
_LONGER: Final = [
    "tests/wire/test_state.py",
    "tests/wire/test_framing.py",
    "tests/properties/test_connection_machine.py",
]

_PIPE: Final = [
    "tests/test_vectors.py",
    "tests/codecs/test_every_codec.py",
    "tests/test_fuzz_targets.py",
    "tests/codecs/test_pipe.py",
    "tests/codecs/test_pipe_scalars.py",
    "tests/codecs/test_pipe_values.py",
    "tests/properties/test_codecs.py",
]

# Of each module: the tests that are run. First those that notice most in least time.
MODULES: Final[dict[str, list[str]]] = {
    "wireproto.wire.frame": [*_QUICK, "tests/wire/test_frame.py", *_LONGER],
    "wireproto.wire.calls": [
        *_QUICK,
        "tests/wire/test_calls.py",
        "tests/wire/test_connection_calls.py",
        "tests/wire/test_connection_ends.py",
        *_LONGER,
    ],
    "wireproto.wire.connection": [
        *_QUICK,
        "tests/wire/test_connection_calls.py",
        "tests/wire/test_connection_ends.py",
        *_LONGER,
    ],
    "wireproto.wire.hurried": [*_QUICK, *_LONGER],
    "wireproto.wire.framing": [*_QUICK, *_LONGER],
    "wireproto.wire.state": [*_QUICK, *_LONGER],
    "wireproto.codecs.pipe": _PIPE,
    "wireproto.codecs.pipe_values": _PIPE,
}

KILLED, SURVIVED, BROKEN = "killed", "survived", "broken"


@dataclass
class Mutant:
    """One change to one module.

    Attributes:
        module: its dotted name.
        line: where.
        label: function, what was there and what is there now; the name of the mutant in ``docs/mutants.md``.
        make: the whole module, changed. Made where it is used: a thousand trees would slow down every collection of
            garbage in every child.
    """

    module: str
    line: int
    label: str
    make: Callable[[], ast.Module] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.label}"


def explained(page: str) -> set[str]:
    """The labels that the tables of a page like ``docs/mutants.md`` explain: what its first columns quote."""
    rows = (line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `"))
    return {label for row in rows for label in re.findall("`([^`]+)`", row)}


# What is changed ----------------------------------------------------------------------------------------------------

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_SIMPLE: Final = (ast.Expr, ast.Assign, ast.AugAssign, ast.Delete, ast.Raise, ast.Break, ast.Continue)

# In a template of generated code, tokens and what they become.
_TOKENS: Final[list[tuple[re.Pattern[str], str]]] = [
    (re.compile(r"(?<![=!])=="), "!="),
    (re.compile(r"!="), "=="),
    (re.compile(r"\bnot "), ""),
    (re.compile(r" or "), " and "),
    (re.compile(r" in (?=made|text)"), " not in "),
    (re.compile(r"\bif (?!not )"), "if not "),
]
_TEMPLATE_LINE: Final = re.compile(r"^( +)(?!(?:try|except|else|while|if|for|def|return message)\b)(\S.*)$", re.M)


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    made: list[Mutant] = []
    for path, change in _sites(tree):
        before, line = _text(_at(tree, path)), getattr(_at(tree, path), "lineno", 0)
        after = change(_copied(tree, path), path)
        label = f"{_owner(tree, path)}: {before} -> {after}"
        made.append(Mutant(module, line, label, functools.partial(_changed, source, path, change)))
    return made


def mutants_of_file(module: str) -> list[Mutant]:
    """Every mutant of a module as it is in this checkout."""
    return mutants_of(module, _file_of(module).read_text("utf-8"))


def _changed(source: str, path: "_Path", change: "_Change") -> ast.Module:
    tree = ast.parse(source)
    change(tree, path)
    return tree


_Path = tuple[tuple[str, int | None], ...]
_Change = Callable[[ast.Module, _Path], str]


def _sites(tree: ast.Module) -> Iterator[tuple[_Path, _Change]]:
    """Where something can be changed, and how."""

    def visit(node: ast.AST, path: _Path) -> Iterator[tuple[_Path, _Change]]:
        yield from ((path, change) for change in _changes(node, path))
        for name, value in ast.iter_fields(node):
            if _left_alone(node, name):
                continue
            if isinstance(value, ast.AST):
                yield from visit(value, (*path, (name, None)))
            elif isinstance(value, list):
                for index, each in enumerate(value):
                    if isinstance(each, ast.AST) and not _is_declaration(each) and not _is_text(node, each):
                        yield from visit(each, (*path, (name, index)))

    yield from visit(tree, ())


def _left_alone(node: ast.AST, name: str) -> bool:
    # Of an f-string the texts: they are sentences or code, and to spoil code is no test of the tests.
    return name in ("annotation", "returns", "decorator_list", "bases", "cause", "format_spec")


def _is_declaration(node: ast.AST) -> bool:
    """Docstrings, imports and names for the module's users."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(each, ast.Name) and each.id in ("__all__", "__slots__") for each in targets)


def _is_text(node: ast.AST, part: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) and isinstance(part, ast.Constant)


def _changes(node: ast.AST, path: _Path) -> Iterator[_Change]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield _with(_set_list_item("ops", index, _COMPARISONS[type(operator)]))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        yield _with(_set("op", _OPERATORS[type(node.op)]))
    elif isinstance(node, ast.BoolOp):
        yield _with(_set("op", ast.Or if isinstance(node.op, ast.And) else ast.And))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _replaced(lambda old: old.operand if isinstance(old, ast.UnaryOp) else old)
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        if not isinstance(node.test, ast.Constant | ast.Compare | ast.UnaryOp):  # those are changed themselves
            yield _with(_negate_test)
    elif isinstance(node, ast.Constant):
        yield from _constant_changes(node)
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield _with(_set_value_none)
    if isinstance(node, _SIMPLE) and path and path[-1][1] is not None and len(path) > 1:
        yield _replaced(lambda old: ast.copy_location(ast.Pass(), old))


def _constant_changes(node: ast.Constant) -> Iterator[_Change]:
    value = node.value
    if isinstance(value, bool):
        yield _with(_set_constant(not value))
    elif isinstance(value, int):
        yield _with(_set_constant(value + 1))
    elif isinstance(value, bytes):
        yield _with(_set_constant(value + b"X"))
    elif isinstance(value, str):
        if "\n" in value and "{" in value:
            yield from _template_changes(value)
        elif value and " " not in value and len(value) < 30:
            # Without a space: a reason, a name, a delimiter. What has spaces are sentences.
            yield _with(_set_constant(value + "X"))


def _template_changes(text: str) -> Iterator[_Change]:
    for pattern, instead in _TOKENS:
        for found in pattern.finditer(text):
            changed = text[: found.start()] + instead + text[found.end() :]
            yield _template(_line_of(text, found.start()), _line_of(changed, found.start()), changed)
    for found in _TEMPLATE_LINE.finditer(text):
        if "{" in found[2] and "{{" not in found[2] and found[2].startswith("{"):
            continue  # a place for other code
        changed = text[: found.start(2)] + "pass" + text[found.end(2) :]
        yield _template(found[2], "pass", changed)


def _line_of(text: str, at: int) -> str:
    return text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)].strip()


def _template(before: str, after: str, changed: str) -> _Change:
    def change(tree: ast.Module, path: _Path) -> str:
        node = _at(tree, path)
        assert isinstance(node, ast.Constant)
        node.value = changed
        return f"`{before}` -> `{after}`"

    return change


def _with(apply: Callable[[ast.AST], None]) -> _Change:
    def change(tree: ast.Module, path: _Path) -> str:
        node = _at(tree, path)
        apply(node)
        ast.fix_missing_locations(node)
        return _text(node)

    return change


def _replaced(make: Callable[[ast.AST], ast.AST]) -> _Change:
    def change(tree: ast.Module, path: _Path) -> str:
        parent, (name, index) = _at(tree, path[:-1]), path[-1]
        made = make(_at(tree, path))
        if index is None:
            setattr(parent, name, made)
        else:
            getattr(parent, name)[index] = made
        return _text(made)

    return change


def _set(name: str, kind: type[ast.AST]) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, name, kind())


def _set_list_item(name: str, index: int, kind: type[ast.AST]) -> Callable[[ast.AST], None]:
    return lambda node: getattr(node, name).__setitem__(index, kind())


def _set_constant(value: object) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, "value", value)


def _set_value_none(node: ast.AST) -> None:
    assert isinstance(node, ast.Return)
    node.value = ast.Constant(None)


def _negate_test(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.While | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _at(tree: ast.AST, path: _Path) -> ast.AST:
    for name, index in path:
        value = getattr(tree, name)
        tree = value if index is None else value[index]
    return tree


def _copied(tree: ast.Module, path: _Path) -> ast.Module:
    """The tree with copies of the nodes along a path, the last one whole; the rest is shared, as it is not changed."""
    made = copy.copy(tree)
    node: ast.AST = made
    for step, (name, index) in enumerate(path, 1):
        copied: Callable[[ast.AST], ast.AST] = copy.deepcopy if step == len(path) else copy.copy
        value = getattr(node, name)
        child = copied(value if index is None else value[index])
        if index is None:
            setattr(node, name, child)
        else:
            setattr(node, name, [*value[:index], child, *value[index + 1 :]])
        node = child
    return made


def _owner(tree: ast.AST, path: _Path) -> str:
    names = []
    for name, index in path:
        value = getattr(tree, name)
        tree = value if index is None else value[index]
        if isinstance(tree, ast.FunctionDef | ast.ClassDef):
            names.append(tree.name)
    return ".".join(names) or "module"


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"{type(node).__name__.lower()} {ast.unparse(node.test)}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
        return "template"
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."


# How one is tried -----------------------------------------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(_file_of(fullname)))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(_file_of(self._mutant.module))
        exec(compile(self._mutant.make(), module.__file__, "exec"), module.__dict__)  # noqa: S102 - this is the mutant


def _file_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def _try(mutant: Mutant | None, limits: dict[str, int]) -> str:
    """Fork, import, run the tests one file after another, each with a limit of seconds; what became of it."""
    child = os.fork()
    if not child:
        status = 70
        try:
            status = _child(mutant, limits)
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60 + 20 * sum(limits.values())  # for what waits instead of working
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    if os.WIFEXITED(status):
        return {0: SURVIVED, 1: KILLED}.get(os.WEXITSTATUS(status), BROKEN)
    return KILLED  # by a signal: it used up its time or its memory


def _child(mutant: Mutant | None, limits: dict[str, int]) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    if "WIREPROTO_MUTANTS_VERBOSE" not in os.environ:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
    import hypothesis.configuration
    import pytest

    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    with tempfile.TemporaryDirectory() as folder:
        # Failing examples of mutants are no examples for anybody else.
        hypothesis.configuration.set_hypothesis_home_dir(folder)
        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--timeout=0"]
        # Hypothesis was imported before pytest could rewrite it, which is nothing to fail for.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        # Under a limit of processor time some kernels count it in ticks, too coarse for what compares costs.
        options += ["-k", "not linear"]
        for test, seconds in limits.items():
            # A mutant that goes round in circles is ended by the signal that this sends.
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, resource.RLIM_INFINITY))
            code = pytest.main([*options, test])
            if code != pytest.ExitCode.OK:
                # A mutant that cannot be imported was noticed, too: collection fails.
                return 1
    return 0


# The whole run -------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Draw the sample, try each, and report; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description="See whether a test notices a change.")
    parser.add_argument("-n", type=int, default=500, help="mutants to try (500)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--only", choices=sorted(MODULES), help="mutants of one module alone")
    parser.add_argument("--match", default="", help="only those of the sample whose name has this in it")
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="write the names of the survivors there")
    asked = parser.parse_args(arguments)
    os.chdir(ROOT)
    _preload()
    modules = [asked.only] if asked.only else list(MODULES)
    every = [each for module in modules for each in mutants_of_file(module)]
    sample = random.Random(asked.seed).sample(every, min(asked.n, len(every)))
    sample = [each for each in sample if asked.match in str(each)]
    sys.stdout.write(f"{len(sample)} of {len(every)} mutants, seed {asked.seed}\n")
    gc.freeze()
    files = dict.fromkeys(test for each in sample for test in MODULES[each.module])
    outcomes = _run(sample, {test: _baseline(test) for test in files})
    return _report(outcomes, asked.survivors)


def _preload() -> None:
    """Import what every child needs and no mutant changes."""
    import google.protobuf.descriptor_pb2
    import hypothesis.strategies
    import msgspec
    import pytest

    assert all((google.protobuf.descriptor_pb2, hypothesis.strategies, msgspec, pytest))
    assert not any(name.split(".")[0] == "wireproto" for name in sys.modules), "a mutant could not be imported"


def _baseline(test: str) -> int:
    """Seconds of processor time that a file of tests may take: several times what it takes unchanged."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if _try(None, {test: 600}) != SURVIVED:
        sys.exit(f"{test} fails without any change")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return math.ceil(2 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)) + 2


def _run(sample: list[Mutant], limits: dict[str, int]) -> list[tuple[Mutant, str]]:
    outcomes: list[tuple[Mutant, str]] = []
    began = time.monotonic()
    tidy = sys.stderr.isatty()
    for number, mutant in enumerate(sample, 1):
        outcome = _try(mutant, {test: limits[test] for test in MODULES[mutant.module]})
        outcomes.append((mutant, outcome))
        if outcome != KILLED:
            sys.stdout.write(("\r\x1b[K" if tidy else "") + f"{outcome}: {mutant}\n")
            sys.stdout.flush()
        killed = sum(each == KILLED for _, each in outcomes)
        line = f"{number}/{len(sample)} mutants, {killed} killed, {time.monotonic() - began:.0f} s"
        if tidy or number % 25 == 0:
            sys.stderr.write(f"\r{line}\x1b[K" if tidy else f"{line}\n")
    if tidy:
        sys.stderr.write("\r\x1b[K")
    return outcomes


def _report(outcomes: list[tuple[Mutant, str]], survivors: Path | None) -> int:
    known = explained(EXPLAINED.read_text("utf-8"))
    left = [mutant for mutant, outcome in outcomes if outcome == SURVIVED]
    left.sort(key=lambda each: (each.module, each.line))
    unexplained = [mutant for mutant in left if mutant.label not in known]
    killed = sum(outcome == KILLED for _, outcome in outcomes)
    for module in MODULES:
        own = [outcome for mutant, outcome in outcomes if mutant.module == module]
        if own:
            sys.stdout.write(f"{module}: {own.count(KILLED)} of {len(own)} killed\n")
    share = killed / len(outcomes) if outcomes else 1.0
    sys.stdout.write(
        f"{killed} of {len(outcomes)} killed, {share:.1%}; {len(left)} survived, "
        f"{len(left) - len(unexplained)} of them explained in {EXPLAINED.relative_to(ROOT)}\n"
    )
    if survivors is not None:
        survivors.write_text("".join(f"{mutant}\n" for mutant in left), "utf-8")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
