"""How much the chat's objects may know of each other: read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

CHAT = Path(__file__).parents[2]
PACKAGE = CHAT / "wireproto_chat"
TREES = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def own(node: ast.expr) -> bool:
    """Whether an expression is the object itself, or its class."""
    return (isinstance(node, ast.Name) and node.id in ("self", "cls")) or ast.unparse(node) == "super()"


def test_an_underscore_means_private() -> None:
    """No object looks at a private attribute of another."""
    wrong = [
        f"{path.relative_to(CHAT)}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not own(node.value)
    ]
    assert not wrong, "\n".join(wrong)


HELD_BY_THE_SERVER = {"take"}
"""Methods of a subscription that the framework calls with the object's own lock, ``giving``, held."""


def own_calls(node: ast.AST, held: bool) -> Iterator[tuple[ast.Call, str, bool]]:
    """The calls of the object's own methods in a function: the call, the method, whether a lock of the object is held.

    To enter an attribute of the object by ``with`` is to hold a lock. A function that is defined in it runs later.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and own(node.func.value):
        yield node, node.func.attr, held
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        held = False
    if isinstance(node, ast.With):
        entered = [item.context_expr for item in node.items]
        held = held or any(isinstance(each, ast.Attribute) and own(each.value) for each in entered)
    for child in ast.iter_child_nodes(node):
        yield from own_calls(child, held)


def test_a_method_that_wants_the_lock_held_says_so() -> None:
    """What ends in ``_locked`` is called with the object's lock held; a private method that always is ends so."""
    wrong: list[str] = []
    for path, tree in TREES.items():
        for cls in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
            methods = [node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            calls: dict[str, list[bool]] = {}
            for method in methods:
                begins_held = method.name.endswith("_locked") or method.name in HELD_BY_THE_SERVER
                for statement in method.body:
                    for call, name, held in own_calls(statement, begins_held):
                        calls.setdefault(name, []).append(held)
                        if name.endswith("_locked") and not held:
                            wrong.append(f"{path.relative_to(CHAT)}:{call.lineno}: {name} is called without a lock")
            for method in methods:
                name = method.name
                if name.startswith("_") and not name.endswith("_locked") and all(calls.get(name, [False])):
                    wrong.append(f"{path.relative_to(CHAT)}:{method.lineno}: {name} is only called with a lock held")
    assert not wrong, "\n".join(wrong)
