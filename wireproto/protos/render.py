"""Descriptors as ``.proto`` text, with the comments that the declarations carry, and the files kept of it."""

import ast
import enum
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

from wireproto.errors import ConfigError
from wireproto.protos.descriptor import enum_prefix, service_file
from wireproto.schema import (
    MISSING,
    Bounds,
    Field,
    Operation,
    Scalar,
    Service,
    Shape,
    StreamMethod,
    UploadMethod,
    fields,
    reachable,
)

__all__ = ["generate", "render"]

_WIDTH = 110

_HEADER = """\
Generated from the opcode table of {service}, version {version}. Do not edit: `wireproto proto` writes it anew.

A field without `optional` is zero or empty when it is absent; but messages, timestamps and enums must be present unless
they are `optional`. Unknown fields and enum numbers are refused. Timestamps are cut to the microsecond."""

_BUF_YAML = """\
# Generated: a module of buf's, so that `buf lint` and `buf build` work here.
version: v2
lint:
  use:
    - STANDARD
"""

# buf wants a message of its own behind every rpc, which one-way methods have not.
_BUF_ONE_WAY = "  rpc_allow_google_protobuf_empty_responses: true\n"

_SLOW = {
    "drop_oldest": "A slow caller misses the oldest items.",
    "end": "A slow caller is ended: SLOW_CONSUMER.",
}

_SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_UINT64: "uint64",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
}

Comments = dict[str, str]
"""Text by the thing it stands above: ``Message``, ``Message.field``, ``Enum``, ``ENUM_MEMBER``, ``Service.Method``."""


def render(service: Service, version: int | None = None) -> str:
    """The ``.proto`` file of a service.

    Docstrings become comments. Those of fields and enum members stand in the source code only, so they are left out
    where there is no source to read.

    Args:
        service: the opcode table.
        version: the service version whose methods and fields are wanted; None is the newest.

    Raises:
        DeclarationError: two names of the file are the same.
    """
    file = service_file(service, version)
    version = service.version if version is None else version
    return "\n".join(
        _file(file, _comments(service, version), _HEADER.format(service=service.full_name, version=version))
    )


def generate(root: Path, services: Iterable[Service], *, check: bool = False) -> list[Path]:
    """Write a module of ``.proto`` files: one file for each service, and the ``buf.yaml`` that makes it a module.

    Args:
        root: the folder of the module.
        services: what to write.
        check: write nothing, only compare.

    Returns:
        The files that were not as they should be, with ``check`` or before they were written. That includes ``.proto``
        files of no service, which are deleted.

    Raises:
        ConfigError: two services have the same file.
        DeclarationError: two names of one file are the same.
    """
    services = list(services)
    one_way = any(
        method.shape is Shape.ONE_WAY and method.by == "client" for service in services for method in service.methods
    )
    wanted = {root / "buf.yaml": _BUF_YAML + (_BUF_ONE_WAY if one_way else "")}
    for service in services:
        path = root / service_file(service).name
        if path in wanted:
            raise ConfigError(f"{service.full_name} and another service both have the file {path}; leave one out")
        wanted[path] = render(service)
    stale = [path for path in root.rglob("*.proto") if path not in wanted]
    wrong = [path for path, text in wanted.items() if not path.is_file() or path.read_bytes() != text.encode()]
    if not check:
        for path in stale:
            path.unlink()
        for path in wrong:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], "utf-8")
    return sorted(wrong + stale)


# Descriptors to lines -----------------------------------------------------------------------------------------------


def _file(file: FileDescriptorProto, comments: Comments, header: str) -> Iterator[str]:
    yield from _comment(header, "")
    yield ""
    yield f'syntax = "{file.syntax}";'
    yield ""
    yield f"package {file.package};"
    yield ""
    for path in file.dependency:
        yield f'import "{path}";'
    if file.dependency:
        yield ""
    for option, value in sorted((option.name, value) for option, value in file.options.ListFields()):
        yield f"option {option} = {json.dumps(value)};"
    yield ""
    for service in file.service:
        yield from _service(service, comments)
        yield ""
    for message in file.message_type:
        yield from _message(message, comments)
        yield ""
    for described in file.enum_type:
        yield from _enum(described, comments)
        yield ""


def _service(service: ServiceDescriptorProto, comments: Comments) -> Iterator[str]:
    yield from _comment(comments.get(service.name, ""), "")
    if not service.method:
        yield f"service {service.name} {{}}"
        return
    yield f"service {service.name} {{"
    for at, method in enumerate(service.method):
        if at:
            yield ""
        yield from _comment(comments.get(f"{service.name}.{method.name}", ""), "  ")
        yield from _method(method)
    yield "}"


def _method(method: MethodDescriptorProto) -> Iterator[str]:
    many, items = "stream " * method.client_streaming, "stream " * method.server_streaming
    line = f"  rpc {method.name}({many}{method.input_type}) returns ({items}{method.output_type})"
    if method.options.idempotency_level == MethodOptions.IDEMPOTENT:
        yield f"{line} {{"
        yield "    option idempotency_level = IDEMPOTENT;"
        yield "  }"
    else:
        yield f"{line};"


def _message(message: DescriptorProto, comments: Comments) -> Iterator[str]:
    yield from _comment(comments.get(message.name, ""), "")
    if not message.field:
        yield f"message {message.name} {{}}"
        return
    yield f"message {message.name} {{"
    entries = {entry.name: entry for entry in message.nested_type}
    for field in message.field:
        yield from _comment(comments.get(f"{message.name}.{field.name}", ""), "  ")
        # Full names begin with a dot: without it an inner name of the same spelling would be found first.
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None and field.type_name.endswith(f".{message.name}.{entry.name}"):
            key, value = entry.field
            kind = f"map<{_type(key)}, {_type(value)}>"
        elif field.label == FieldDescriptorProto.LABEL_REPEATED:
            kind = f"repeated {_type(field)}"
        elif field.proto3_optional:
            kind = f"optional {_type(field)}"
        else:
            kind = _type(field)
        yield f"  {kind} {field.name} = {field.number};"
    yield "}"


def _enum(described: EnumDescriptorProto, comments: Comments) -> Iterator[str]:
    yield from _comment(comments.get(described.name, ""), "")
    yield f"enum {described.name} {{"
    for value in described.value:
        yield from _comment(comments.get(value.name, ""), "  ")
        yield f"  {value.name} = {value.number};"
    yield "}"


def _type(field: FieldDescriptorProto) -> str:
    return field.type_name or _SCALARS[field.type]


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in text.split("\n") if text else ():
        yield f"{indent}// {line}".rstrip()


# Declarations to comments -------------------------------------------------------------------------------------------


def _comments(service: Service, version: int) -> Comments:
    comments: Comments = {service.name: _filled(service.doc)}
    for method in service.at(version).values():
        comments[f"{service.name}.{method.name}"] = _filled(method.doc, _method_notes(method))
    types = [cls for method in service.at(version).values() for cls in method.messages]
    for cls in reachable(types, version):
        comments[cls.__name__] = _filled(_doc(cls))
        docs = _attribute_docs(cls)
        for field in fields(cls, version):
            comments[f"{cls.__name__}.{field.name}"] = _filled(f"{docs.get(field.name, '')} {_field_notes(field)}")
            if field.type.scalar is Scalar.ENUM and field.type.cls is not None:
                comments.update(_enum_comments(field.type.cls))
    return comments


def _enum_comments(cls: type[Any]) -> Comments:
    prefix = enum_prefix(cls.__name__)
    docs = _attribute_docs(cls)
    return {
        cls.__name__: _filled(_doc(cls)),
        f"{prefix}UNSPECIFIED": "Never sent: a field that may be absent is `optional`.",
        **{f"{prefix}{member.name}": _filled(docs.get(member.name, "")) for member in cls},
    }


def _method_notes(method: Operation[Any, Any]) -> str:
    notes = [f"Opcode 0x{method.opcode:02x}."]
    if method.since > 1:
        notes.append(f"Since version {method.since}.")
    if method.until is not None:
        notes.append(f"Until version {method.until}.")
    if isinstance(method, UploadMethod) and method.collect is not None:
        notes.append(f"At most {method.collect} {'messages' if method.collect > 1 else 'message'}.")
    if method.shape is Shape.ONE_WAY:
        notes.append("Answered before it runs: nobody is told what became of it.")
    if isinstance(method, StreamMethod):
        if method.resumable is not None:
            notes.append(f"Resumable: the position of an item is its `{method.resumable}`.")
        if method.slow in _SLOW:
            notes.append(_SLOW[method.slow])
    if method.requires is not None:
        notes.append(f"Requires `{method.requires}`.")
    if method.reasons:
        notes.append(f"Reasons: {', '.join(method.reasons)}.")
    if method.errors:
        notes.append(f"Details of errors: {', '.join(each.__name__ for each in method.errors)}.")
    return " ".join(notes)


def _field_notes(field: Field) -> str:
    notes = []
    kind = field.type
    if kind.shape == "single":
        notes.append(_bounds(kind.bounds, kind.scalar))
    else:
        unit = "elements" if kind.shape == "list" else "entries"
        notes.append(_range(kind.size, unit) if kind.size else "")
        inner = _bounds(kind.bounds, kind.scalar)
        notes.append(f"Each: {inner[:1].lower()}{inner[1:]}" if inner else "")
    if field.presence == "explicit" and field.default is not None and field.default is not MISSING:
        notes.append(f"Absent means {_shown(field)}.")
    if field.since > 1:
        notes.append(f"Since version {field.since}.")
    return " ".join(filter(None, notes))


def _bounds(bounds: Bounds | None, scalar: Scalar) -> str:
    if bounds is None:
        return ""
    return _range(bounds, {Scalar.STR: "characters", Scalar.BYTES: "bytes"}.get(scalar, ""))


def _range(bounds: Bounds, unit: str) -> str:
    low, high = (bounds.min_length, bounds.max_length) if unit else (bounds.ge, bounds.le)
    if low is None:
        text = f"At most {high}"
    elif high is None:
        text = f"At least {low}"
    else:
        text = f"Exactly {low}" if low == high else f"From {low} to {high}"
    if unit and (low if high is None else high) == 1:
        unit = {"entries": "entry"}.get(unit, unit.removesuffix("s"))
    return f"{text} {unit}".rstrip() + "."


def _shown(field: Field) -> str:
    default = field.default
    if isinstance(default, enum.IntEnum):
        return f"{enum_prefix(type(default).__name__)}{default.name}"
    if isinstance(default, bytes):
        return f"0x{default.hex()}"
    if isinstance(default, datetime):
        return default.isoformat().replace("+00:00", "Z")
    return json.dumps(default)


def _filled(*parts: str) -> str:
    """Paragraphs joined and broken into lines; code and lists, which are indented, stay as they are."""
    # Docstrings mark code the way reStructuredText does, readers of .proto files know Markdown.
    cleaned = [inspect.cleandoc(part).replace("``", "`") for part in parts]
    paragraphs = [each for part in cleaned for each in part.split("\n\n") if each.strip()]
    return "\n\n".join(
        each if "\n " in each or each.startswith(" ") else textwrap.fill(each, _WIDTH, break_long_words=False)
        for each in paragraphs
    )


def _doc(cls: type[Any]) -> str:
    # An enum's default docstring is Python's own; a class's `__doc__` is never its base's.
    doc = vars(cls).get("__doc__")
    return doc if isinstance(doc, str) and doc != enum.IntEnum.__doc__ else ""


def _attribute_docs(cls: type[Any]) -> dict[str, str]:
    """The strings that stand below the fields of a class, or the members of an enum, in its source code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}  # made at run time, or its source is not there
    found = {}
    for definition in tree.body:
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for node, following in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign):
                target: ast.expr = node.target
            elif isinstance(node, ast.Assign):
                target = node.targets[0]
            else:
                continue
            if isinstance(target, ast.Name) and isinstance(following, ast.Expr):
                value = following.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[target.id] = value.value
    return found
