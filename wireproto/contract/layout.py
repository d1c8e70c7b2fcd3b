"""How the lock is set: JSON, one line for each thing that can change by itself."""

import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

import msgspec

from wireproto.control import (
    EnumDescription,
    FieldDescription,
    MessageDescription,
    MethodDescription,
    ServiceDescription,
)
from wireproto.schema import Message, Scalar, fields

__all__ = ["FORMAT", "Document", "description", "write"]

M = TypeVar("M", bound=Message)

FORMAT: Final = 3
"""Of the file; a release that cannot read another one says so."""

_NOTE: Final = "The contract: see docs/contract.md. `wireproto check --write` writes it."


class Document(msgspec.Struct, kw_only=True):
    """The file as it is; the rows of the table are looked at when it is declared."""

    format: int
    service: str
    version: int
    oldest: int
    released: int
    codecs: list[str]
    fingerprints: dict[int, str]
    methods: list[dict[str, Any]]
    enums: dict[str, dict[str, int]]
    messages: dict[str, list[dict[str, Any]]]
    golden: dict[str, list[dict[str, str]]]


def description(document: Document) -> ServiceDescription:
    """The table in a file; raises whatever comes of rows that are none."""
    return ServiceDescription(
        full_name=document.service,
        version=document.version,
        oldest=document.oldest,
        methods=[_message(MethodDescription, each) for each in document.methods],
        enums=[EnumDescription(name=name, members=members) for name, members in document.enums.items()],
        messages=[
            MessageDescription(
                name=name,
                fields=[_message(FieldDescription, {"number": at, **each}) for at, each in enumerate(rows, 1)],
            )
            for name, rows in document.messages.items()
        ],
    )


def write(table: ServiceDescription, rest: Mapping[str, Any]) -> str:
    """The file: the table, and beside it ``released``, ``codecs``, ``fingerprints`` and ``golden``."""
    messages = {
        each.name: [_json(_object(row, leave_out=("number",))) for row in each.fields] for each in table.messages
    }
    parts = {
        "note": _json(_NOTE),
        "format": _json(FORMAT),
        "service": _json(table.full_name),
        "version": _json(table.version),
        "oldest": _json(table.oldest),
        "released": _json(rest["released"]),
        "codecs": _json(rest["codecs"]),
        "fingerprints": _block("{}", _members(rest["fingerprints"]), 2),
        "methods": _block("[]", (_json(_object(each, leave_out=("doc",))) for each in table.methods), 2),
        "enums": _block("{}", _members({each.name: each.members for each in table.enums}), 2),
        "messages": _block("{}", (f"{_json(name)}: {_block('[]', rows, 4)}" for name, rows in messages.items()), 2),
        "golden": _block(
            "{}", (f"{_json(key)}: {_block('[]', map(_json, rows), 4)}" for key, rows in rest["golden"].items()), 2
        ),
    }
    return _block("{}", (f"{_json(name)}: {text}" for name, text in parts.items()), 0) + "\n"


def _block(brackets: str, rows: Iterable[str], indent: int) -> str:
    inside = ",\n".join(f"{' ' * (indent + 2)}{row}" for row in rows)
    return f"{brackets[0]}\n{inside}\n{' ' * indent}{brackets[1]}" if inside else brackets


def _members(rows: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_json(name)}: {_json(value)}" for name, value in rows.items())


def _json(value: object) -> str:
    # Escaped, where it is not ASCII: a diff of what cannot be seen helps nobody.
    return json.dumps(value)


# Flat messages as objects; what has its default is left out.


def _object(message: Message, leave_out: tuple[str, ...]) -> dict[str, Any]:
    return {
        field.name: value.name if isinstance(value, enum.Enum) else value
        for field in fields(type(message))
        if field.name not in leave_out and ((value := getattr(message, field.name)) != field.default)
    }


def _message(message_type: type[M], row: dict[str, Any]) -> M:
    given = {
        field.name: cast(Any, field.type.cls)[row[field.name]] if field.type.scalar is Scalar.ENUM else row[field.name]
        for field in fields(message_type)
        if field.name in row
    }
    return message_type(**given)
