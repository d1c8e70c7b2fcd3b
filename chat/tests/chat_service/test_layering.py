"""How the chat's modules may know each other, and its objects: read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

CHAT = Path(__file__).parents[2]
PACKAGE = CHAT / "wireproto_chat"
TREES = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(CHAT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): tree for path, tree in TREES.items()}


def imports(tree: ast.Module) -> set[str]:
    """The chat's modules that a module imports, wherever the import stands and for types only, too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {node.module}
    return found & MODULES.keys()


IMPORTS = {module: imports(tree) - {module} for module, tree in MODULES.items()}

ALLOWED = {
    "opcodes": set[str](),
    "wildcard": set[str](),
    "store": {"opcodes", "wildcard"},
    "service": {"opcodes", "wildcard", "store"},
    "client": {"opcodes", "wildcard"},
    "application": {"opcodes", "service"},
    "cli": {"opcodes", "client", "store"},
    "__main__": {"cli"},
}
"""What each part of the package imports of the others; docs/design.md says why."""


def test_no_modules_import_each_other() -> None:
    """There is no circle of imports, however long."""

    def circle(module: str, way: tuple[str, ...]) -> Iterator[str]:
        if module in way:
            yield " -> ".join((*way[way.index(module) :], module))
        elif module not in done:
            for imported in sorted(IMPORTS[module]):
                yield from circle(imported, (*way, module))
            done.add(module)

    done: set[str] = set()
    assert not [found for module in sorted(MODULES) for found in circle(module, ())]


def test_each_part_imports_what_it_may() -> None:
    """Of the chat: the store only the opcodes and the wildcard, the service never the client, the client neither."""
    parts = {module: module.split(".")[1] for module in MODULES if "." in module}
    assert set(parts.values()) == ALLOWED.keys()
    wrong = [
        f"{module} imports {imported}"
        for module, part in parts.items()
        for imported in sorted(IMPORTS[module])
        if parts.get(imported, part) not in {part, *ALLOWED[part]}
    ]
    assert not wrong, "\n".join(wrong)


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
