"""Section 13: what Describe tells of a service, by which a client without its source calls it."""

from typing import Any, NamedTuple

from wireproto.conformance.caller import SERVER_CASES, Bench
from wireproto.conformance.case import Deviation, Needs, Over
from wireproto.conformance.service import CONFORMANCE, LONGEST_SHORT, SHAPED
from wireproto.control import (
    CHECK,
    CONTROL,
    DESCRIBE,
    CheckRequest,
    DescribeRequest,
    Health,
    MessageDescription,
    ServiceDescription,
)

case = SERVER_CASES.case

SINGLE, LIST, MAP = 1, 2, 3
BOOL, INT, UINT, FLOAT, STR, BYTES, DATETIME, ENUM, MESSAGE = range(1, 10)
NONE = r"\N"


class Told(NamedTuple):
    """What must be told of a field of Mirror. One whose default is its zero may be said to have none."""

    name: str
    container: int
    kind: int
    default: str
    optional: bool = False
    key: int | None = None
    explicit: bool = False
    since: int = 1


_MIRROR = (
    Told("flag", SINGLE, BOOL, "false"),
    Told("number", SINGLE, INT, "0"),
    Told("large", SINGLE, UINT, "0"),
    Told("real", SINGLE, FLOAT, "0.0"),
    Told("text", SINGLE, STR, ""),
    Told("data", SINGLE, BYTES, ""),
    Told("moment", SINGLE, DATETIME, NONE, optional=True, explicit=True),
    Told("color", SINGLE, ENUM, NONE, optional=True, explicit=True),
    Told("inner", SINGLE, MESSAGE, NONE, optional=True, explicit=True),
    Told("maybe", SINGLE, INT, NONE, optional=True, explicit=True),
    Told("seven", SINGLE, INT, "7", explicit=True),
    Told("small", SINGLE, INT, "0"),
    Told("numbers", LIST, INT, "[]"),
    Told("texts", LIST, STR, "[]"),
    Told("inners", LIST, MESSAGE, "[]"),
    Told("by_text", MAP, INT, "{}", key=STR),
    Told("by_number", MAP, STR, "{}", key=INT),
    Told("recent", SINGLE, STR, "", since=2),
)


def _described(bench: Bench, service: str) -> list[ServiceDescription]:
    with bench.open() as caller:
        found: list[ServiceDescription] = caller.call(DESCRIBE, DescribeRequest(service=service)).services
        return found


def _conformance(bench: Bench) -> ServiceDescription:
    found = _described(bench, CONFORMANCE.full_name)
    if len(found) != 1:
        raise Deviation(f"{len(found)} services are described; one was asked for")
    return found[0]


def _request_of(service: ServiceDescription, method: str) -> MessageDescription:
    """The message that a method takes."""
    names = [each.request for each in service.methods if each.name == method]
    found = [each for each in service.messages if [each.name] == names]
    if len(found) != 1:
        raise Deviation(f"{method} takes {names}, and {len(found)} messages are described so")
    return found[0]


def _equal(what: str, found: object, due: object) -> None:
    if found != due:
        raise Deviation(f"{what} is {found!r}; it must be {due!r}")


@case("13.09", over=Over.CODECS, needs=Needs.SERVICE)
def describe_fields(bench: Bench) -> None:
    """Describe tells of each field its number, its name and its type, also of one that came later."""
    service = _conformance(bench)
    found = _request_of(service, "Mirror").fields
    _equal("the names of Mirror's fields", [each.name for each in found], [each.name for each in _MIRROR])
    types = {each.name for each in service.messages} | {each.name for each in service.enums}
    for number, (field, due) in enumerate(zip(found, _MIRROR, strict=True), 1):
        told: tuple[Any, ...] = (field.number, field.container, field.kind, field.key, field.optional, field.since)
        _equal(f"what is told of {due.name}", told, (number, due.container, due.kind, due.key, due.optional, due.since))
        if due.kind in (ENUM, MESSAGE) and field.type_name not in types:
            raise Deviation(f"the type of {due.name} is called {field.type_name!r}, and is not described")
        if due.kind not in (ENUM, MESSAGE):
            _equal(f"the type_name of {due.name}", field.type_name, "")


@case("13.10", over=Over.CODECS, needs=Needs.SERVICE)
def describe_defaults(bench: Bench) -> None:
    """A default is described as the codec pipe writes it, outside of brackets; a field without one is required."""
    for field, due in zip(_request_of(_conformance(bench), "Mirror").fields, _MIRROR, strict=False):
        if field.required and not due.explicit:
            _equal(f"the default of {due.name}, which is required,", field.default, "")
        else:
            _equal(f"whether {due.name} is required", field.required, False)
            _equal(f"the default of {due.name}", field.default, due.default)


@case("13.11", over=Over.CODECS, needs=Needs.SERVICE)
def describe_limits(bench: Bench) -> None:
    """The versions, reasons, longest request, position and `drains` of a method are described, and a field's bounds as
    numbers in pipe."""
    service = _conformance(bench)
    _equal("the oldest version", service.oldest, 1)
    methods = {each.name: each for each in service.methods}
    _equal("until of Retired", methods["Retired"].until, 1)
    _equal("since of Recent", methods["Recent"].since, 2)
    _equal("until of Recent", methods["Recent"].until, None)
    _equal("the reasons of Fail", methods["Fail"].reasons, ["AS_ASKED"])
    _equal("max_request of Short", methods["Short"].max_request, LONGEST_SHORT)
    _equal("the shape of Count", methods["Count"].shape, 2)
    _equal("drains of Count", methods["Count"].drains, False)
    if service.version >= SHAPED:
        _equal("drains of Reflect", methods["Reflect"].drains, True)
        _equal("resumable of Tail", methods["Tail"].resumable, "position")
    bounds = {each.name: (each.ge, each.le) for each in _request_of(service, "Mirror").fields}
    _equal("ge and le of small", bounds["small"], ("0", "255"))
    _equal("ge and le of number", bounds["number"], ("", ""))


@case("13.12", over=Over.CODECS)
def own_service(bench: Bench) -> None:
    """The framework's own service is hosted by every server, and described when it is asked for by name alone."""
    hosted = [each.full_name for each in _described(bench, "")]
    if CONTROL.full_name in hosted or not hosted:
        raise Deviation(f"Describe of all answers {hosted}")
    own = [each.full_name for each in _described(bench, CONTROL.full_name)]
    _equal("the service described", own, [CONTROL.full_name])
    with bench.open() as caller:
        found = caller.call(CHECK, CheckRequest(service=CONTROL.full_name)).health
    _equal("its health", found, Health.SERVING)
