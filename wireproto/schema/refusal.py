"""The compiled refusal: generated code that raises for a message that is not what its class declares.

It runs twice per call in every codec, so a message that is fine costs one generated function without a loop over its
fields. Whatever that function does not like is walked again, slowly, by `_explain`, which finds the words.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, cast

from wireproto.errors import CodecError
from wireproto.schema.declarations import fields
from wireproto.schema.generated import compile_source, source_title
from wireproto.schema.messages import Bounds, Field, FieldType, Message, Scalar
from wireproto.schema.names import type_name
from wireproto.schema.values import INT64, PYTHON_TYPES, has_surrogate, problem_with, size_problem

__all__ = ["Refuse", "Refused", "compile_refusal", "inline_refusal"]

Refuse = Callable[[Message, type[CodecError]], None]
"""``refuse(message, error)`` raises ``error(path, problem)`` for a message that is not fine; it returns nothing."""

Accepts = Callable[[Message], bool]

_CALLED: Final[dict[str, object]] = {"datetime": datetime, "UTC": UTC, "has_surrogate": has_surrogate}
"""What the generated code of any message may name."""


class Refused(Exception):
    """A value that is not what was declared, on its way to the function that knows the whole path.

    Attributes:
        problem: what is wrong, for a peer to read.
        path: where, as seen from the last function it left.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path


def compile_refusal(message_type: type[Message], version: int | None, *, request: bool) -> Refuse:
    """What refuses the wrong messages of a class in one version: ``refuse(message, error)``, with a class of error.

    Types are exact: no bool for an int, no int for a float, no subclass, no naive datetime. Integers are within 64 bits
    and bounds, text has no surrogates, enums and nested messages are of their class. The text of an error never holds a
    value, which may be a secret. The function is made once per argument set and safe to call from any thread.

    Args:
        message_type: a subclass of `Message`.
        version: the service version, 1 to 255; None is the newest.
        request: a value other than the default in a field newer than the version is refused, unless the field is
            ignorable. With False such fields are not looked at, as the codec leaves them out.

    Raises:
        DeclarationError: the class is declared wrong, or does not exist in that version.
    """
    return _compile_refusal(message_type, version, request)


def inline_refusal(
    message_type: type[Message],
    version: int,
    *,
    request: bool,
    error: str,
    made: bool = False,
    held: bool = False,
) -> tuple[list[str], dict[str, object]]:
    """The same as lines for the function of a codec, where they cost no call, and the names they use.

    They look at ``message`` and call ``refuse_wrong(message, error)``, which is to be what `compile_refusal` gives, for
    whatever they do not like. They assign to ``v`` and ``k``, and each field they look at to ``f`` and its number.

    Args:
        message_type, version, request: as for `compile_refusal`.
        error: the name of the error's class in that function.
        made: the codec made the message itself, of the types that are declared: ranges, bounds and sizes are looked at.
        held: the codec has the fields in ``f1``, ``f2``, ... already.
    """
    names = dict(_CALLED)
    bad = f"refuse_wrong(message, {error})"
    if not made:
        names["Checked"] = message_type
        lines = ["if type(message) is not Checked:", f"    {bad}"]
        return [*lines, *_body(message_type, version, request, names, bad, "message", held=held)], names
    open_fields = [each for each in fields(message_type, version) if not _is_proven(each.type, version)]
    return list(_fields_body(open_fields, version, request, names, bad, "message", made=True, held=held)), names


def _is_proven(kind: FieldType, version: int | None) -> bool:
    """Whether a value of the declared type, those inside it included, can be nothing but fine."""
    if kind.bounds is not None or kind.size is not None or kind.key is Scalar.INT:
        return False
    if kind.scalar is Scalar.MESSAGE:
        return all(_is_proven(each.type, version) for each in fields(cast(type[Message], kind.cls), version))
    return kind.scalar is not Scalar.INT and kind.scalar is not Scalar.UINT


@functools.cache
def _compile_refusal(message_type: type[Message], version: int | None, request: bool) -> Refuse:
    def fail(message: object, error: type[CodecError]) -> NoReturn:
        _explain(message, message_type, version, request, message_type.__name__, error)
        raise error(message_type.__name__, "changed while it was checked; a message being sent must be left alone")

    names: dict[str, object] = {"fail": fail, "Checked": message_type}
    body = _body(message_type, version, request, names, "return fail(m, error)")
    source = "\n    ".join(
        ["def refuse(m, error):", "if type(m) is not Checked:", "    return fail(m, error)", *body, "return None"]
    )
    title = source_title("refusal", message_type, version, request=request)
    return cast(Refuse, compile_source(title, source, _CALLED | names)["refuse"])


@functools.cache
def _accepts(message_type: type[Message], version: int | None, request: bool) -> Accepts:
    """The same for a nested message, whose class was looked at: whether it is fine, without words."""
    names: dict[str, object] = {}
    body = _body(message_type, version, request, names, "return False")
    source = "\n    ".join(["def accepts(m):", *body, "return True"])
    title = source_title("acceptance", message_type, version, request=request)
    return cast(Accepts, compile_source(title, source, _CALLED | names)["accepts"])


# Writing the code -----------------------------------------------------------------------------------------------


def _body(
    message_type: type[Message],
    version: int | None,
    request: bool,
    names: dict[str, object],
    bad: str,
    message: str = "m",
    *,
    held: bool = False,
) -> Iterator[str]:
    """Lines that leave by ``bad`` when the message is not fine."""
    present = fields(message_type, version)
    yield from _fields_body(present, version, request, names, bad, message, held=held)
    if request:
        for each in _unsendable(message_type, present):
            names[f"default{each.number}"] = each.default
            yield f"if {message}.{each.name} != default{each.number}:"
            yield f"    {bad}"


def _fields_body(
    every: Iterable[Field],
    version: int | None,
    request: bool,
    names: dict[str, object],
    bad: str,
    message: str,
    *,
    made: bool = False,
    held: bool,
) -> Iterator[str]:
    for each in every:
        if not held:
            yield f"f{each.number} = {message}.{each.name}"
        yield from _field_code(each.type, _nested(each, version, request, names), bad, f"f{each.number}", made)


def _unsendable(message_type: type[Message], present: tuple[Field, ...]) -> tuple[Field, ...]:
    """The fields that a version lacks and that a request must not lose."""
    return tuple(each for each in fields(message_type)[len(present) :] if not each.ignorable)


def _nested(each: Field, version: int | None, request: bool, names: dict[str, object]) -> str:
    """Put what the field's class needs into the namespace; gives the suffix under which it is found there."""
    kind = each.type
    suffix = str(each.number)
    if kind.cls is not None:
        names[f"Class{suffix}"] = kind.cls
    if kind.scalar is Scalar.MESSAGE:
        names[f"accepts{suffix}"] = _accepts(cast(type[Message], kind.cls), version, request)
    return suffix


def _field_code(kind: FieldType, suffix: str, bad: str, field: str, made: bool) -> Iterator[str]:
    """Lines that leave by ``bad`` when the variable ``field`` is not what the field holds."""
    if kind.shape == "single":
        wrong = " or ".join(_wrong(kind, suffix, field, made))
        if wrong:
            yield f"if {field} is not None and ({wrong}):" if kind.optional else f"if {wrong}:"
            yield f"    {bad}"
        return
    container = "list" if kind.shape == "list" else "dict"
    outside = [] if made else [f"type({field}) is not {container}"]
    if kind.size is not None:
        outside += _wrong_length(kind.size, field)
    if outside:
        yield f"if {' or '.join(outside)}:"
        yield f"    {bad}"
    inside = _wrong(kind, suffix, "v", made)
    loop = f"for v in {field}:"
    if kind.key is not None:
        inside = [*_wrong(FieldType("single", kind.key), suffix, "k", made), *inside]
        loop = f"for k, v in {field}.items():"
    if inside:
        yield loop
        yield f"    if {' or '.join(inside)}:"
        yield f"        {bad}"


# What may be wrong with one value ---------------------------------------------------------------------------------
#
# Each function gives conditions, texts of Python about a variable. The value in it is wrong when any of them is true,
# and they are asked in their order: those of the range rely on the type.


def _wrong(kind: FieldType, suffix: str, v: str, made: bool) -> list[str]:
    """For a value of a field, an element of a list, or a key or value of a map; none when nothing can be wrong.

    Args:
        kind: the type; of a list or map, its elements are meant.
        suffix: of the names ``Class...`` and ``accepts...``, which an enum or a message needs.
        v: the variable.
        made: a codec made the value itself, so it has the declared type, and only its range is asked for.
    """
    of_type = _wrong_type(kind.scalar, suffix, v)
    if kind.scalar is Scalar.MESSAGE:
        # Whoever made it: there are ranges inside.
        return [*of_type, f"not accepts{suffix}({v})"]
    return _wrong_range(kind, v) if made else [*of_type, *_wrong_range(kind, v)]


def _wrong_type(scalar: Scalar, suffix: str, v: str) -> list[str]:
    match scalar:
        case Scalar.MESSAGE | Scalar.ENUM:
            return [f"type({v}) is not Class{suffix}"]
        case Scalar.DATETIME:
            return [f"type({v}) is not datetime", f"{v}.tzinfo is not UTC"]
        case Scalar.STR:
            # isascii is one flag of the string; only other text is searched.
            return [f"type({v}) is not str", f"not {v}.isascii() and has_surrogate({v})"]
        case _:
            return [f"type({v}) is not {PYTHON_TYPES[scalar].__name__}"]


def _wrong_range(kind: FieldType, v: str) -> list[str]:
    bounds = kind.bounds or Bounds()
    if kind.scalar is Scalar.INT or kind.scalar is Scalar.UINT:
        return _wrong_integer(kind.scalar, bounds, v)
    # `not >=` rather than `<`: NaN is within no bounds.
    low = [] if bounds.ge is None else [f"not {v} >= {bounds.ge!r}"]
    high = [] if bounds.le is None else [f"not {v} <= {bounds.le!r}"]
    return [*low, *high, *_wrong_length(bounds, v)]


def _wrong_integer(scalar: Scalar, bounds: Bounds, v: str) -> list[str]:
    """An end with a bound is compared with that, which lies within 64 bits; an end without one is held by the length.

    `bit_length` takes half the time of a comparison with a number of 64 bits.
    """
    least, low, high = INT64[0], bounds.ge, bounds.le
    if scalar is Scalar.UINT:
        low, too_long = low or 0, f"{v}.bit_length() > 64"
    elif low is None or low == least:
        # Of 64 bits is also the least integer, and it is fine.
        low, too_long = None, f"{v}.bit_length() > 63 and {v} != {least}"
    else:
        too_long = f"{v}.bit_length() > 63"
    below = [] if low is None else [f"{v} < {low}"]
    above = [] if high is None else [f"{v} > {high}"]
    return [*below, *above] if below and above else [*below, *above, too_long]


def _wrong_length(bounds: Bounds, v: str) -> list[str]:
    low = [f"len({v}) < {bounds.min_length}"] if bounds.min_length else []
    high = [] if bounds.max_length is None else [f"len({v}) > {bounds.max_length}"]
    return [*low, *high]


# Finding the words ----------------------------------------------------------------------------------------------


def _explain(
    message: object,
    message_type: type[Message],
    version: int | None,
    request: bool,
    path: str,
    error: type[CodecError],
) -> None:
    if type(message) is not message_type:
        raise error(path, f"is {type_name(type(message))}, not {message_type.__name__}")
    present = fields(message_type, version)
    for each in present:
        for where, value in _values(each, getattr(message, each.name), f"{path}.{each.name}", error):
            if each.type.scalar is Scalar.MESSAGE and value is not None:
                nested = cast(type[Message], each.type.cls)
                _explain(value, nested, version, request, where, error)
    if request:
        for each in _unsendable(message_type, present):
            if getattr(message, each.name) != each.default:
                raise error(
                    f"{path}.{each.name}",
                    f"is new in version {each.since}, and the peer speaks version {version}; leave it at its default",
                )


def _values(each: Field, value: Any, path: str, error: type[CodecError]) -> Iterator[tuple[str, object]]:
    """The field's value, or its elements, with their paths; raises for what is wrong with one but its inside."""
    kind = each.type
    element = kind.element
    items: Iterable[tuple[str, object]]
    if kind.shape == "single":
        element, items = kind, [(path, value)]
    else:
        container: type[Any] = list if kind.shape == "list" else dict
        if type(value) is not container:
            raise error(path, f"is {type_name(type(value))}, not {kind}")
        problem = size_problem(value, kind.size)
        if problem:
            raise error(path, problem)
        if kind.key is None:
            items = [(f"{path}[{number}]", each) for number, each in enumerate(value)]
        else:
            # Keys are values, too: the path counts entries instead of naming them.
            items = [(f"{path}[#{number}]", each) for number, each in enumerate(value.values())]
            for number, key in enumerate(value):
                problem = problem_with(key, FieldType("single", kind.key))
                if problem:
                    raise error(f"{path}[#{number}]", f"the key {problem}")
    for where, item in items:
        problem = problem_with(item, element)
        if problem:
            raise error(where, problem)
        yield where, item
