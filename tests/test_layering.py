"""Who may import whom: the layers of docs/design.md, read from the source, so lazy and type-only imports count."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import wireproto

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "wireproto"

# Everything of ours that a module may import, by module or by folder ("codecs" covers wireproto/codecs/*). A folder's
# modules may import one another, but for those of wire/, each of which is a layer. `__init__` of the whole package is
# the public face and may import all but the command.
BASE = {"errors", "limits", "reasons", "status"}
WIRE = {
    "wire/answers",
    "wire/buffer",
    "wire/calls",
    "wire/early",
    "wire/events",
    "wire/frame",
    "wire/handshake",
    "wire/metadata",
    "wire/packing",
    "wire/private",
    "wire/state",
}
CORE = BASE | WIRE
BOTH_ROLES = {"wire/connection", "wire/liveness"}
ALLOWED: dict[str, set[str]] = {
    "status": set(),
    "limits": set(),
    "uncopied": set(),
    "futures": set(),
    "version": set(),
    "bucket": set(),
    "log_limit": set(),
    "identity": set(),
    "poller": {"errors"},
    "errors": {"status"},
    "address": {"errors"},
    "reasons": {"errors", "status"},
    "schema": {"errors", "wire/frame", "wire/private"},
    "wire/buffer": set(),
    "wire/private": set(),
    "wire/frame": {"errors", "status"},
    "wire/metadata": {"errors", "reasons", "status", "wire/frame"},
    "wire/handshake": BASE | {"wire/frame"},
    "wire/answers": {"errors", "status", "wire/frame", "wire/metadata"},
    "wire/events": {"errors", "wire/answers", "wire/frame", "wire/handshake", "wire/metadata", "wire/packing"},
    "wire/packing": {"errors", "wire/frame"},
    "wire/early": {"errors", "wire/frame", "wire/handshake"},
    "wire/state": {"errors", "wire/frame"},
    "wire/calls": {"wire/frame", "wire/state"},
    "wire/framing": CORE,
    "wire/hurried": CORE | {"wire/framing"},
    "wire/connection": CORE | {"wire/framing", "wire/hurried"},
    "control": {"codecs", "errors", "schema", "wire/frame"},
    "protos": {"errors", "schema", "status", "wire/frame"},
    "codecs": {"errors", "limits", "protos", "schema"},
    "contract": {"codecs", "control", "errors", "limits", "schema"},
    "resuming": {"errors", "reasons", "schema"},
    "binding": {"codecs", "control", "errors", "limits", "reasons", "schema", "status", "wire/frame", "wire/packing"},
    "connected": {"errors", "futures", "schema", "uncopied", "wire/metadata"},
    "handling": {
        "connected",
        "errors",
        "identity",
        "resuming",
        "schema",
        "status",
        "uncopied",
        "wire/metadata",
    },
    "dispatch": BASE
    | {
        "codecs",
        "handling",
        "identity",
        "resuming",
        "schema",
        "uncopied",
        "wire/frame",
        "wire/metadata",
        "wire/packing",
    },
    "wire/liveness": BASE | {"wire/connection"},
    "topic": {"dispatch", "errors", "handling", "reasons", "resuming", "schema", "uncopied", "wire/packing"},
    "answering": CORE | {"connected", "topic", "dispatch", "handling", "identity", "schema", *BOTH_ROLES},
    "server": CORE
    | {
        "address",
        "answering",
        "binding",
        "bucket",
        "codecs",
        "connected",
        "control",
        "dispatch",
        "futures",
        "handling",
        "identity",
        "log_limit",
        "poller",
        "protos",
        "schema",
        "uncopied",
        *BOTH_ROLES,
    },
    "client": CORE
    | {
        "address",
        "answering",
        "binding",
        "bucket",
        "codecs",
        "connected",
        "control",
        "dispatch",
        "futures",
        "handling",
        "identity",
        "log_limit",
        "poller",
        "protos",
        "schema",
        "uncopied",
        "version",
        *BOTH_ROLES,
    },  # protos: client/grpc.py only
    # Of wire/ only what an implementation that is judged takes: the judges read the page by themselves.
    "conformance": BASE
    | {
        "client",
        "codecs",
        "connected",
        "control",
        "dispatch",
        "handling",
        "identity",
        "schema",
        "topic",
        "wire/metadata",
    },
    "testing": CORE
    | {
        "address",
        "binding",
        "client",
        "codecs",
        "conformance",
        "connected",
        "dispatch",
        "futures",
        "handling",
        "identity",
        "schema",
    }
    | {"server"}
    | {"server", "wire/connection", "wire/framing"},
}
PUBLIC_FACE = {
    "topic",
    "version",
    "address",
    "client",
    "connected",
    "dispatch",
    "errors",
    "futures",
    "handling",
    "identity",
    "limits",
    "log_limit",
    "schema",
    "server",
    "status",
    "wire/frame",
    "wire/metadata",
}
FRAMEWORK = set(ALLOWED)
COMMAND = "cli"
HEAVY = {
    "click": ("cli",),
    "google": ("codecs/protobuf", "protos"),
    "grpc": ("server/gateway", "client/grpc"),
    "grpc_health": ("server/gateway",),
    "grpc_reflection": ("server/gateway",),
    "grpc_status": ("server/gateway", "client/grpc"),
    "hypothesis": ("testing/",),
    "msgpack": (),
    "pytest": ("testing/",),
}
NAMED = re.compile(r"(import|from|:)\s*wireproto_chat|wireproto_chat[.:]")
"""The chat's package in a program or a target that a string holds."""
CORE_ONLY = CORE | {"wire/connection", "wire/framing", "wire/hurried", "wire/liveness"}
SANS_IO = CORE_ONLY | {"codecs", "contract", "control", "dispatch", "handling", "protos", "schema"}
IO_MODULES = {"asyncio", "select", "selectors", "socket", "socketserver", "ssl", "subprocess"}
CLOCKS_AND_LOGS = {"logging", "threading", "time", "_thread"}

HOMES = {name: getattr(wireproto, name).__module__ for name in wireproto.__all__ if name != "__version__"}
"""Where the public names are defined."""


class Import(NamedTuple):
    """One import statement: who, of what, and whether it runs when the importing module is loaded."""

    source: str  # "server/session", relative to the package, without .py
    target: str  # "wireproto.codecs.base" or "socket"
    line: int
    at_load: bool


def imports_of(path: Path) -> Iterator[Import]:
    """Every import in a file, wherever it stands."""
    source = path.relative_to(PACKAGE).with_suffix("").as_posix()
    package = ["wireproto", *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, at_load: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(source, alias.name, child.lineno, at_load)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    base = ".".join([*package[: len(package) - child.level + 1], *([base] if base else [])])
                for alias in child.names:
                    # `from wireproto.codecs import base` names a module, `from wireproto.codecs import get` a function;
                    # `from wireproto import Server` is an import of the module that has it.
                    home = HOMES.get(alias.name, base) if base == "wireproto" else base
                    yield Import(source, f"{home}.{alias.name}", child.lineno, at_load)
            elif isinstance(child, ast.Call) and _is_import_call(child):
                (first, *_) = child.args
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield Import(source, first.value, child.lineno, at_load)
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            type_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from visit(child, at_load and not deferred and not type_only)

    yield from visit(ast.parse(path.read_text("utf-8"), str(path)), True)


def _is_import_call(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("import_module", "__import__") and bool(call.args)


def part_of(path: str) -> str:
    """The layer of a source path or of a dotted name below the package: "server/session" -> "server"."""
    first, *rest = path.replace(".", "/").split("/")
    return f"wire/{rest[0]}" if first == "wire" and rest else first


def module_of(target: str) -> str:
    """The module that has a dotted name: "wireproto.codecs.base.Codec" -> "codecs/base", a package's own "codecs"."""
    parts = target.split(".")[1:]
    while parts and not (PACKAGE.joinpath(*parts).with_suffix(".py").exists() or PACKAGE.joinpath(*parts).is_dir()):
        parts.pop()
    return "/".join(parts) or "__init__"


def circle_among(imports: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last one the first; [] when there is no such circle."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for each in sorted(imports.get(module, ())):
            if circle := search(each, [*path, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(imports) if (circle := search(module, []))), [])


EVERY_IMPORT = [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports_of(path)]
OURS = [found for found in EVERY_IMPORT if found.target.split(".")[0] == "wireproto"]


def _shown(offences: list[Import]) -> str:
    return "\n".join(f"wireproto/{each.source}.py:{each.line} imports {each.target}" for each in offences)


def test_every_module_is_in_a_layer() -> None:
    """A new module gets its place in the table above before it lands."""
    parts = {part_of(path.relative_to(PACKAGE).with_suffix("").as_posix()) for path in PACKAGE.rglob("*.py")}
    assert parts - {"__init__", "__main__", "wire/__init__"} <= FRAMEWORK | {COMMAND}


def test_the_page_names_every_module() -> None:
    """docs/design.md has a place for each in its Layout, and a row for each layer."""
    page = (PACKAGE.parent / "docs" / "design.md").read_text("utf-8")
    layout = page.partition("## Layout")[2].split("```")[1]
    rows = page.partition("| module | imports of ours |")[2].partition("\n\n")[0]
    modules = {path.stem for path in PACKAGE.rglob("*.py") if path.parent.name not in ("servers", "clients", "fuzzing")}
    assert not {name for name in modules if name[:2] != "__" and not re.search(rf"\b{name}\b", layout)}
    layers = {re.sub(r"^wire/.*", "wire/", layer) for layer in (*FRAMEWORK, COMMAND)}
    assert not {
        layer for layer in layers if f"`{layer}`" not in "".join(row.split("|")[1] for row in rows.splitlines()[2:])
    }


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_layer_imports_only_what_it_may(part: str) -> None:
    """A module of the framework imports the layers below it and no other."""
    offences = [
        each
        for each in OURS
        if part_of(each.source) == part
        and not each.source.endswith("__main__")
        and part_of(each.target.removeprefix("wireproto.")) not in ALLOWED[part] | {part}
    ]
    assert not offences, _shown(offences)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Each module can be read after those that it names: what one asks of a later one is a Protocol or a callable.

    Imports for types only are counted, and so are those within a function.
    """
    imports: dict[str, set[str]] = {}
    for each in OURS:
        source, target = each.source.removesuffix("/__init__"), module_of(each.target)
        if source != target:
            imports.setdefault(source, set()).add(target)
    circle = circle_among(imports)
    assert not circle, " imports ".join(circle)


def test_a_circle_is_found() -> None:
    """The search tells a circle from two ways to one module."""
    assert circle_among({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) == []
    assert circle_among({"a": {"b"}, "b": {"c", "d"}, "d": {"b"}}) == ["b", "d"]
    assert circle_among({"a": {"b"}, "b": {"a"}}) == ["a", "b"]


def test_the_public_face_imports_the_framework_only() -> None:
    """The package's __init__ names neither the command nor anything that is not public."""
    targets = {part_of(each.target.removeprefix("wireproto.")) for each in OURS if each.source == "__init__"}
    assert targets <= PUBLIC_FACE


def test_only_the_main_module_names_the_command() -> None:
    """The framework can be used without the command line."""
    offences = [
        each
        for each in OURS
        if part_of(each.source) not in {COMMAND, "__main__"}
        and part_of(each.target.removeprefix("wireproto.")) == COMMAND
    ]
    assert not offences, _shown(offences)


def test_nothing_of_the_framework_names_the_chat() -> None:
    """No module, test, tool, benchmark or example of the framework imports the chat, nor a program in a string."""
    folders = ("wireproto", "tests", "tools", "benchmarks", "fuzz", "examples")
    offences = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path)))
        if (isinstance(node, ast.Import | ast.ImportFrom) and "wireproto_chat" in ast.unparse(node))
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.search(node.value))
    ]
    assert not offences, "\n".join(offences)


def test_the_main_module_imports_the_command_and_nothing_else() -> None:
    """`python -m wireproto` is the command and has no code of its own."""
    targets = [each.target for each in EVERY_IMPORT if each.source == "__main__"]
    assert targets == ["wireproto.cli.main"]


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_a_heavy_library_is_imported_in_one_place(library: str) -> None:
    """Each third-party library has one home, so that leaving out an extra costs one feature."""
    offences = [
        each
        for each in EVERY_IMPORT
        if each.target.split(".")[0] == library and not each.source.startswith(HEAVY[library])
    ]
    assert not offences, _shown(offences)


def test_no_library_is_missing_from_the_table() -> None:
    """Whatever is neither ours nor the standard library's is msgspec or stands in the table above."""
    known = {*HEAVY, "wireproto", "msgspec", "typing_extensions"} | sys.stdlib_module_names
    offences = [each for each in EVERY_IMPORT if each.target.split(".")[0] not in known]
    assert not offences, _shown(offences)


def test_the_core_does_no_input_or_output() -> None:
    """The protocol and the codecs know no socket; the connection knows no thread, clock or log either."""
    offences = [
        each
        for each in EVERY_IMPORT
        if (part_of(each.source) in SANS_IO and each.target.split(".")[0] in IO_MODULES)
        or (part_of(each.source) in CORE_ONLY and each.target.split(".")[0] in CLOCKS_AND_LOGS)
    ]
    assert not offences, _shown(offences)


def test_nothing_reads_code_from_bytes() -> None:
    """No pickle, marshal or shelve anywhere: bytes of a peer never become code."""
    forbidden = {"marshal", "pickle", "shelve", "yaml"}
    offences = [each for each in EVERY_IMPORT if each.target.split(".")[0] in forbidden]
    assert not offences, _shown(offences)
