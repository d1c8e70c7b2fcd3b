r"""Pipe text: the fields in order, separated by ``|``. It can be read on the wire and typed by hand.

    ann|hello \p\p world|3|true|[1,2]|(x,\e)|{a:1,b:2}|\N

In every string ``\``, ``|``, LF and CR are written ``\\``, ``\p``, ``\n``, ``\r``, so a ``|`` always ends a field.
Lists, messages and maps are in brackets, where ``, : ( ) [ ] { }`` in strings are written ``\xHH`` and nothing is
empty: the empty string is ``\e``. So in there a bracket or comma is structure, always, and one pattern cuts text into
tokens. Only times have a colon that is not structure, and they are no keys: the first colon of a pair ends its key.

Two functions are generated per message type and version. Those that read remember in ``at`` which field they are at: it
costs nothing, and when one is wrong, it is the path.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast

from wireproto.codecs import pipe_values
from wireproto.codecs.base import Codec, M, Plan, element_refusal, explain
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Field, FieldType, Message, Scalar, compile_refusal, fields, inline_refusal, reachable
from wireproto.schema.generated import compile_source, source_title
from wireproto.schema.refusal import Refused

__all__ = ["PipeCodec"]


class PipeCodec(Codec):
    """Pipe text in UTF-8."""

    name = "pipe"
    id = 1

    def compile(self, message_type: type[M], version: int, limits: Limits, *, request: bool) -> Plan[M]:
        """Generate the two functions. A list or map is refused at the first element beyond ``limits.max_elements``."""
        source = _PipeSource(message_type, version)
        refuse_long = element_refusal(message_type, version, limits.max_elements)
        before, names = inline_refusal(message_type, version, request=request, error="EncodeError")
        after, more = inline_refusal(message_type, version, request=request, error="DecodeError", made=True, held=True)
        if refuse_long:
            before.append("refuse_long(message, EncodeError)")
        namespace: dict[str, object] = {
            **_CALLED,
            **names,
            **more,
            **source.classes,
            "refuse_wrong": compile_refusal(message_type, version, request=request),
            "refuse_long": refuse_long,
            "failed": _failure(message_type.__name__, len(source.fields[message_type])),
            "most": limits.max_elements,
        }
        text = source.text(message_type, before, after)
        title = source_title(self.name, message_type, version, request=request, most=limits.max_elements)
        made = compile_source(title, text, namespace)
        return Plan(made["encode"], made["decode"])


# The generated code ---------------------------------------------------------------------------------------------

_ENCODE = """
def encode(message):
    try:
        {refusals}
        {values}
        return {payload}
    except EncodeError:
        raise
    except Exception as error:
        raise EncodeError("{name}", explain(error)) from None
"""

# One look at all strings together, as hardly any has something to escape; but for bars, of which the text has others.
_ESCAPE = r"""
        text = f"{searched}"
        if "\\" in text or "\n" in text or "\r" in text or {bars}:
            {escaped}"""

_DECODE = """
def decode(payload):
    at = ""
    try:
        text = payload.decode()
        {split}
        {values}
        message = {label}({arguments})
        {refusals}
        return message
    except DecodeError:
        raise
    except Exception as error:
        raise failed(error, at) from None
"""

_UNESCAPE = r"""
        if "\\" in text or "\n" in text or "\r" in text:
            if "\n" in text or "\r" in text:
                refuse("has a raw line break; write \\n and \\r for those in strings, and end with none")
            {unescaped}"""

_WRITE_NESTED = """
def write_{label}(message):
    {values}
    return f"({joined})"
"""

_READ_NESTED = """
def read_{label}(token, take):
    at = ""
    try:
        if token != "(":
            refuse("is no message; write it as (field,field)")
        {values}
        if take() != ")":
            at = ""
            refuse("does not have exactly {count} fields")
        return {label}({arguments})
    except Exception as error:
        raise inside(error, at) from None
"""

_READ_LIST = """
def read_{label}(token, take):
    if token != "[":
        refuse("is no list; write it as [a,b]")
    made = []
    token = take()
    if token == "]":
        return made
    try:
        while True:
            if len(made) == most:
                refuse_size(most)
            made.append({item})
            token = take()
            if token == "]":
                return made
            if token != ",":
                refuse("is not followed by a comma or the list's ]")
            token = take()
    except Exception as error:
        raise inside(error, f"[{{len(made)}}]") from None
"""

_READ_MAP = """
def read_{label}(token, take):
    if token != "{{":
        refuse("is no map; write it as {{key:value,key:value}}")
    made = {{}}
    token = take()
    if token == "}}":
        return made
    try:
        while True:
            if len(made) == most:
                refuse_size(most)
            key, colon, token = token.partition(":")
            if not colon:
                refuse("has no colon after its key")
            key = {key}
            if key in made:
                refuse("has a key that is there already")
            if not token:
                token = take()
            made[key] = {item}
            token = take()
            if token == "}}":
                return made
            if token != ",":
                refuse("is not followed by a comma or the map's }}")
            token = take()
    except Exception as error:
        raise inside(error, f"[#{{len(made)}}]") from None
"""


class _PipeSource:
    """The generated code for one message type and those nested in it.

    ``write_X`` and ``read_X`` are made for each nested message X, ``read_X_field`` for each list and map. Readers take
    the token they begin with and a function that gives the next one.
    """

    def __init__(self, message_type: type[Message], version: int) -> None:
        self.fields = {cls: fields(cls, version) for cls in reachable([message_type], version)}
        # Numbered, since two classes of one name may meet where no service has looked at them.
        self.labels = {cls: f"{cls.__name__}_{index}" for index, cls in enumerate(self.fields)}
        self.classes: dict[str, object] = {label: cls for cls, label in self.labels.items()}
        self.enums: dict[type[Any], str] = {}
        for each in self.fields.values():
            for field in each:
                if field.type.scalar is Scalar.ENUM:
                    label = self.enums.setdefault(_class(field.type), f"enum_{len(self.enums)}")
                    self.classes[label] = pipe_values.enum_reader(_class(field.type))

    def text(self, message_type: type[Message], before: list[str], after: list[str]) -> str:
        """All of it; with the lines that refuse a wrong message before it is encoded and after it was decoded."""
        nested = [cls for cls in self.fields if cls is not message_type]
        return "".join(
            [
                *map(self._write_nested, nested),
                *map(self._read_nested, nested),
                *(
                    self._read_container(cls, field)
                    for cls, each in self.fields.items()
                    for field in each
                    if field.type.shape != "single"
                ),
                self._encode(message_type, before),
                self._decode(message_type, after),
            ]
        )

    # Writing

    def _encode(self, cls: type[Message], refusals: list[str]) -> str:
        own = self.fields[cls]
        lines: list[str] = []
        if own and all(_is_number(field.type) for field in own):
            # Numbers alone are joined as the bytes that msgspec makes, without a text between.
            items = [_written_number(field.type, f"f{field.number}") for field in own]
            payload = f'b"|".join(({", ".join(items)},))'
        else:
            lines, payload = self._written_text(own)
        return _ENCODE.format(
            name=cls.__name__, refusals="\n        ".join(refusals), values="\n        ".join(lines), payload=payload
        )

    def _written_text(self, own: tuple[Field, ...]) -> tuple[list[str], str]:
        """Lines that make of each field what stands in the text, and the expression for the payload."""
        names = [f"f{field.number}" for field in own]
        values = [self._written_field(field, name, inside=False) for field, name in zip(own, names, strict=True)]
        lines = [f"{name} = {value}" for name, value in zip(names, values, strict=True) if value != name]
        joined = "|".join(f"{{{name}}}" for name in names)
        strings = [f"f{field.number}" for field in own if _is_plain_string(field.type)]
        if not strings:
            return lines, f'f"{joined}".encode()'
        # Where no other field has backslashes of its own, the text to look at is the one to be sent.
        whole = all(_is_plain_string(field.type) or _has_no_backslash(field.type) for field in own)
        escaped = [f"{name} = escape({name})" for name in strings]
        if whole:
            escaped.append(f'text = f"{joined}"')
        escape = _ESCAPE.format(
            searched=joined if whole else "|".join(f"{{{name}}}" for name in strings),
            bars=" or ".join(f'"|" in {name}' for name in strings),
            escaped="\n            ".join(escaped),
        )
        return [*lines, escape.strip()], "text.encode()" if whole else f'f"{joined}".encode()'

    def _write_nested(self, cls: type[Message]) -> str:
        own = self.fields[cls]
        return _WRITE_NESTED.format(
            label=self.labels[cls],
            values="\n    ".join(
                f"f{field.number} = {self._written_field(field, f'message.{field.name}', inside=True)}" for field in own
            ),
            joined=",".join(f"{{f{field.number}}}" for field in own),
        )

    def _written_field(self, field: Field, value: str, *, inside: bool) -> str:
        kind = field.type
        if kind.shape == "list":
            return f'"[" + ",".join([{self._written(kind, "x")} for x in {value}]) + "]"'
        if kind.key is not None:
            key = self._written(FieldType("single", kind.key), "k")
            pairs = f'{key} + ":" + {self._written(kind, "x")} for k, x in sorted({value}.items())'
            return f'"{{" + ",".join([{pairs}]) + "}}"'
        if kind.optional:
            item = self._written(kind, "x") if inside else self._written_outside(kind, "x")
            return f"NONE if (x := {value}) is None else {item}"
        if kind.scalar in (Scalar.INT, Scalar.UINT):
            return value  # the f-string that joins the fields writes it like repr, without a call
        if inside:
            return self._written(kind, value)
        return value if kind.scalar is Scalar.STR else self._written_outside(kind, value)

    def _written_outside(self, kind: FieldType, x: str) -> str:
        if kind.scalar is Scalar.STR:
            return f"escape({x})"
        return f"{x}.hex()" if kind.scalar is Scalar.BYTES else self._written(kind, x)

    def _written(self, kind: FieldType, x: str) -> str:
        """One value inside brackets, as an expression of type str."""
        match kind.scalar:
            case Scalar.STR:
                return f"({x} if {x}.isalnum() else escape_inside({x}))"
            case Scalar.BYTES:
                return f"({x}.hex() or EMPTY)"
            case Scalar.BOOL:
                return f"(TRUE if {x} else FALSE)"
            case Scalar.ENUM:
                return f"str({x}._value_)"
            case Scalar.DATETIME:
                return f"stamp({x})"
            case Scalar.MESSAGE:
                return f"write_{self.labels[_class(kind)]}({x})"
            case Scalar.FLOAT:
                return f"(json({x}).decode() if 1e-4 <= {x} < 1e16 else digits({x}))"
            case _:
                return f"repr({x})"

    # Reading

    def _decode(self, cls: type[Message], refusals: list[str]) -> str:
        own = self.fields[cls]
        names = "".join(f"f{field.number}, " for field in own)
        split = f'{names}= text.split("|", {len(own)})' if own else "() = text"
        if any(Scalar.STR in (field.type.scalar, field.type.key) for each in self.fields.values() for field in each):
            unescaped = [
                f'if "\\\\" in f{field.number}: at = ".{field.name}"; f{field.number} = {self._unescaped(field)}'
                for field in own
                if field.type.shape == "single" and field.type.scalar is Scalar.STR
            ]
            split += _UNESCAPE.format(unescaped="\n            ".join(unescaped))
        lines = [
            f'at = ".{field.name}"; f{field.number} = {self._read_field(cls, field)}'
            for field in own
            if field.type.shape != "single" or field.type.scalar is not Scalar.STR
        ]
        return _DECODE.format(
            split=split,
            values="\n        ".join(lines),
            label=self.labels[cls],
            arguments=_arguments(own),
            refusals="\n        ".join(refusals),
        )

    def _unescaped(self, field: Field) -> str:
        name = f"f{field.number}"
        return f"None if {name} == NONE else unescape({name})" if field.type.optional else f"unescape({name})"

    def _read_field(self, cls: type[Message], field: Field) -> str:
        kind, name = field.type, f"f{field.number}"
        if kind.shape != "single":
            return f"whole(read_{self.labels[cls]}_{field.name}, {name})"
        if kind.scalar is Scalar.MESSAGE:
            read = f"whole(read_{self.labels[_class(kind)]}, {name})"
        elif kind.scalar is Scalar.BYTES:
            read = f"octets({name})"
        else:
            read = self._read(kind, name)
        return f"None if {name} == NONE else {read}" if kind.optional else read

    def _read_nested(self, cls: type[Message]) -> str:
        count = len(self.fields[cls])
        lines: list[str] = []
        for field in self.fields[cls]:
            if lines:
                lines.append(f'if take() != ",": at = ""; refuse("does not have exactly {count} fields")')
            lines.append(f'at = ".{field.name}"; token = take()')
            if field.type.shape != "single":
                read = f"read_{self.labels[cls]}_{field.name}(token, take)"
            else:
                read = self._read(field.type, "token")
            lines.append(f"f{field.number} = {f'None if token == NONE else {read}' if field.type.optional else read}")
        return _READ_NESTED.format(
            label=self.labels[cls],
            values="\n        ".join(lines),
            count=count,
            arguments=_arguments(self.fields[cls]),
        )

    def _read_container(self, cls: type[Message], field: Field) -> str:
        kind, label = field.type, f"{self.labels[cls]}_{field.name}"
        if kind.key is None:
            return _READ_LIST.format(label=label, item=self._read(kind, "token"))
        key = self._read(FieldType("single", kind.key), "key")
        return _READ_MAP.format(label=label, key=key, item=self._read(kind, "token"))

    def _read(self, kind: FieldType, token: str) -> str:
        """One value inside brackets, of a token that may be a delimiter: the functions called refuse those."""
        match kind.scalar:
            case Scalar.STR:
                return f"({token} if {token}.isalnum() else unescape_inside({token}))"
            case Scalar.BYTES:
                return f"octets_inside({token})"
            case Scalar.BOOL:
                return f"truth({token})"
            case Scalar.INT | Scalar.UINT:
                return f"integer({token})"
            case Scalar.FLOAT:
                return f"real({token})"
            case Scalar.ENUM:
                return f"{self.enums[_class(kind)]}({token})"
            case Scalar.DATETIME:
                return f"instant({token})"
            case _:
                return f"read_{self.labels[_class(kind)]}({token}, take)"


def _is_plain_string(kind: FieldType) -> bool:
    return kind.shape == "single" and kind.scalar is Scalar.STR and not kind.optional


def _has_no_backslash(kind: FieldType) -> bool:
    return kind.shape == "single" and not kind.optional and kind.scalar not in (Scalar.STR, Scalar.MESSAGE)


def _is_number(kind: FieldType) -> bool:
    return _has_no_backslash(kind) and kind.scalar in (Scalar.INT, Scalar.UINT, Scalar.FLOAT)


def _written_number(kind: FieldType, x: str) -> str:
    """A number as an expression of type bytes."""
    real = kind.scalar is Scalar.FLOAT
    return f"json({x}) if 1e-4 <= {x} < 1e16 else digits({x}).encode()" if real else f"json({x})"


def _arguments(own: tuple[Field, ...]) -> str:
    return ", ".join(f"{field.name}=f{field.number}" for field in own)


def _class(kind: FieldType) -> type[Any]:
    """The enum or message class of a field type that has one."""
    return cast(type[Any], kind.cls)


# Errors on their way out ----------------------------------------------------------------------------------------


def _refuse_size(most: int) -> NoReturn:
    raise Refused(f"is one more than the {most} elements allowed")


def _inside(error: Exception, where: str) -> Refused:
    """The same error, as seen from one level further out."""
    if isinstance(error, Refused):
        error.path = where + error.path
        return error
    if isinstance(error, StopIteration):
        return Refused("ends before its bracket is closed", where)
    return Refused(explain(error), where)


def _failure(name: str, count: int) -> Callable[[Exception, str], DecodeError]:
    def failed(error: Exception, at: str) -> DecodeError:
        if not at and type(error) is ValueError:
            return DecodeError(name, f"does not have exactly {count} fields")
        refused = _inside(error, at)
        return DecodeError(name + refused.path, refused.problem)

    return failed


# What the generated code calls ----------------------------------------------------------------------------------

_tokens = re.compile(r"[,()\[\]{}]|[^,()\[\]{}]+").findall


def _whole(read: Callable[[str, Callable[[], str]], object], text: str) -> object:
    tokens = iter(_tokens(text))
    value = read(next(tokens), tokens.__next__)
    if next(tokens, None) is not None:
        pipe_values.refuse("goes on behind its closing bracket")
    return value


_CALLED: Final[dict[str, object]] = {
    "DecodeError": DecodeError,
    "EMPTY": pipe_values.EMPTY,
    "EncodeError": EncodeError,
    "FALSE": pipe_values.FALSE,
    "NONE": pipe_values.NONE,
    "TRUE": pipe_values.TRUE,
    "digits": pipe_values.digits,
    "escape": pipe_values.escape,
    "escape_inside": pipe_values.escape_inside,
    "explain": explain,
    "inside": _inside,
    "instant": pipe_values.instant,
    "integer": pipe_values.integer,
    "json": pipe_values.json,
    "octets": pipe_values.octets,
    "octets_inside": pipe_values.octets_inside,
    "real": pipe_values.real,
    "refuse": pipe_values.refuse,
    "refuse_size": _refuse_size,
    "stamp": pipe_values.stamp,
    "truth": pipe_values.truth,
    "unescape": pipe_values.unescape,
    "unescape_inside": pipe_values.unescape_inside,
    "whole": _whole,
}
