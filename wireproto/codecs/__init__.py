"""The codecs by name: the three of the framework, and those that other packages offer under an entry point.

A package offers one as ``[project.entry-points."wireproto.codecs"]`` with ``name = "package.module:CodecClass"``.
Nothing of a codec is imported before somebody asks for it.
"""

import difflib
import importlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wireproto.codecs.base import Codec, PlainCodec, Plan, checked_plan
from wireproto.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Codec", "PlainCodec", "Plan", "checked_plan", "get", "names", "select"]

_GROUP = "wireproto.codecs"

_BUILT_IN = {
    "pipe": ("wireproto.codecs.pipe", "PipeCodec"),
    "msgpack": ("wireproto.codecs.msgpack", "MsgpackCodec"),
    "protobuf": ("wireproto.codecs.protobuf", "ProtobufCodec"),
}

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_loaded: dict[str, Codec] = {}


def names() -> list[str]:
    """The names ``get`` accepts: pipe, msgpack, protobuf, then those of installed packages in alphabetical order.

    A package whose codec does not load is left out, with a warning in the log: it must not stop a server that can do
    without. Asking ``get`` for it tells why.
    """
    found = list(_BUILT_IN)
    points = _entry_points()
    for name in sorted(points):
        try:
            if name in _BUILT_IN:
                raise ConfigError(f"{points[name][0].value} is called {name!r}, which is {'.'.join(_BUILT_IN[name])}")
            get(name)
        except ConfigError as error:
            import logging

            logging.getLogger(__name__).warning("codec left out: %s", error)
        else:
            found.append(name)
    return found


def get(codec: str | Codec) -> Codec:
    """The codec of that name; a codec object is checked and given back.

    Raises:
        ConfigError: there is none, its package does not load, or its name or id belongs to another. The text says what
            there is to choose from.
    """
    if isinstance(codec, Codec):
        return _checked(codec, f"{type(codec).__module__}.{type(codec).__qualname__}")
    known = _loaded.get(codec)
    if known is not None:
        return known
    if codec in _BUILT_IN:
        module, attribute = _BUILT_IN[codec]
        made: Codec = getattr(importlib.import_module(module), attribute)()
    else:
        points = _entry_points()
        if codec not in points:
            raise ConfigError(_unknown(codec, [*_BUILT_IN, *sorted(points)]))
        made = _load(codec, points)
    # setdefault: threads that ask at the same time must end up with the same object, and its plans.
    return _loaded.setdefault(codec, made)


def select(codecs: Iterable[str | Codec] | None = None) -> list[Codec]:
    """Several codecs in order of preference, for one server or one client; None for all there are.

    Raises:
        ConfigError: as ``get``; two of them share a name or an id; there is none.
    """
    if isinstance(codecs, str | Codec):
        codecs = [codecs]
    chosen: list[Codec] = []
    for codec in map(get, names() if codecs is None else codecs):
        for other in chosen:
            if codec is not other and (codec.id == other.id or codec.name == other.name):
                raise ConfigError(
                    f"codecs {_where(other)} and {_where(codec)} cannot be used together: "
                    f"both have {f'id {codec.id}' if codec.id == other.id else f'the name {codec.name!r}'}"
                )
        if codec not in chosen:
            chosen.append(codec)
    if not chosen:
        raise ConfigError(f"no codec is left to choose; name at least one of {', '.join(_BUILT_IN)}")
    return chosen


def _entry_points() -> dict[str, list["EntryPoint"]]:
    """Entry points by name; several of one name are kept, to be named in the refusal."""
    from importlib.metadata import entry_points

    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=_GROUP):
        points.setdefault(point.name, []).append(point)
    return points


def _load(name: str, points: dict[str, list["EntryPoint"]]) -> Codec:
    """Import one package's codec, and refuse it if its name or id is somebody else's."""
    same_name = sorted({point.value for point in points[name]})
    if len(same_name) > 1:
        raise ConfigError(f"codec {name!r} is offered by {' and '.join(same_name)}; uninstall all but one")
    point = points[name][0]
    label = f"entry point {name!r} ({point.value})"
    try:
        target = point.load()
        codec = target() if isinstance(target, type) else target
    except Exception as error:  # A package of somebody else's may raise anything while it is imported.
        raise ConfigError(f"{label} does not load: {type(error).__name__}: {error}") from error
    if not isinstance(codec, Codec):
        raise ConfigError(f"{label} is no codec; it must be a subclass of wireproto.codecs.Codec, or an instance")
    _checked(codec, label)
    if codec.name != name:
        raise ConfigError(f"{label} calls itself {codec.name!r}; write that name in the entry point")
    for other in list(_loaded.values()):
        if other.id == codec.id:
            raise ConfigError(f"{label} has id {codec.id}, which {_where(other)} has already; one of them must change")
    return codec


def _checked(codec: Codec, label: str) -> Codec:
    """Refuse a name that cannot travel in the handshake and an id that belongs to the framework."""
    name, number = getattr(codec, "name", None), getattr(codec, "id", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{label} has the name {name!r}; write lower case letters, digits, _ and -, at most 32")
    if _BUILT_IN.get(name) == (type(codec).__module__, type(codec).__qualname__):
        return codec
    if name in _BUILT_IN:
        raise ConfigError(f"{label} has the name {name!r}, which is {'.'.join(_BUILT_IN[name])}; choose another")
    if isinstance(number, bool) or not isinstance(number, int) or not 128 <= number <= 255:
        raise ConfigError(f"{label} has the id {number!r}; codecs outside the framework take 128 to 255")
    return codec


def _where(codec: Codec) -> str:
    return f"{codec.name!r} ({type(codec).__module__}.{type(codec).__qualname__}, id {codec.id})"


def _unknown(name: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}? Known" if close else "; known"
    return f"there is no codec {name!r}{hint} are {', '.join(known)}."
