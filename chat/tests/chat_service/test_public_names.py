"""The chat is an application like anybody's: it takes public names of the framework and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FRAMEWORK = ROOT / "wireproto"
FILES = sorted((ROOT / "chat").rglob("*.py"))
PUBLIC = {
    "wireproto",
    "wireproto.cli",
    "wireproto.cli.command",
    "wireproto.cli.text",
    "wireproto.cli.units",
    "wireproto.client",
    "wireproto.client.grpc",
    "wireproto.codecs",
    "wireproto.schema",
    "wireproto.server.gateway",
    "wireproto.testing",
}
"""The modules whose ``__all__`` is the framework's public face."""
OF_TUPLES = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
"""Public names of a ``NamedTuple``: the underscore keeps them apart from its fields."""


WHOLE = ""
"""In place of a name: the module as a whole is imported."""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FILES:
        yield path, ast.parse(path.read_text("utf-8"), str(path))


def names_of_ours(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} imports relatively"
            for alias in node.names:
                yield node.lineno, node.module or "", alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, WHOLE


def test_only_public_names_are_imported() -> None:
    """Each import of the framework is a name in ``__all__`` of a public module."""
    public = {module: set(_all_of(module)) for module in PUBLIC}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: from {module} import {name}"
        for path, tree in trees()
        for line, module, name in names_of_ours(tree)
        if module.split(".")[0] in ("wireproto", "tests", "tools", "benchmarks", "fuzz", "examples")
        and name not in public.get(module, ())
        and f"{module}.{name}" not in PUBLIC
        and not (name == WHOLE and module in PUBLIC)
    ]
    assert not wrong, "\n".join(wrong)


def _all_of(module: str) -> list[str]:
    """``__all__`` of a module, read from its source: an optional package need not be there."""
    path = ROOT / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"{module} has no __all__")


def test_no_private_attribute_of_the_framework_is_used() -> None:
    """An attribute with an underscore is one that the chat defines itself."""
    private = {name for path in FRAMEWORK.rglob("*.py") for name in _defined(ast.parse(path.read_text("utf-8")))}
    own = {name for _, tree in trees() for name in _defined(tree)}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in private - own - OF_TUPLES
    ]
    assert not wrong, "\n".join(wrong)


def _defined(tree: ast.Module) -> Iterator[str]:
    """The private names that a module makes: functions, classes, attributes and slots."""
    for node in ast.walk(tree):
        found = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found = node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = node.value  # in __slots__
        if found.startswith("_") and not found.startswith("__") and found.isidentifier():
            yield found


def test_a_class_name_means_one_class() -> None:
    """No two classes of the chat share a name, and none has the name of a class of the framework."""
    found: dict[str, list[str]] = {}
    for folder in (FRAMEWORK, ROOT / "chat" / "wireproto_chat"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    # An underscore says that a class is private, and so tells it from no other.
                    found.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    shared = [f"{name}: {', '.join(places)}" for name, places in sorted(found.items()) if len(places) > 1]
    assert not [line for line in shared if "chat/wireproto_chat/" in line]
