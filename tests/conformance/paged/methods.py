"""Section 13: the framework's own methods, and those of the services of docs/conformance.md and of this test."""

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.conformance.paged import pipe
from tests.conformance.paged.declared import (
    CONTROL,
    ENUMS,
    MESSAGES,
    NO_DEFAULT,
    SERVICES,
    SHAPES,
    Field,
    Method,
    element,
)
from tests.conformance.paged.frames import Metadata, field, text8
from tests.conformance.paged.numbers import (
    INTERNAL,
    MAYBE_PROCESSED,
    NOT_FOUND,
    NOT_PROCESSED,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNIMPLEMENTED,
    Failure,
)

__all__ = ["NAME", "Later", "Sum", "answer", "items", "note", "reflected", "said"]

NAME = "a server built from the page"


NOTES: dict[str, list[int]] = {}
"""What was noted, by key: of every connection."""


class Later(NamedTuple):
    """An answer that comes after a time."""

    seconds: float
    response: dict[str, Any]


def answer(
    hosted: str, method: Method, request: dict[str, Any], metadata: Metadata, deadline: float | None
) -> dict[str, Any] | Later:
    """What a unary method answers."""
    match method.name:
        case "Check":
            known(request["service"], hosted)
            return {"health": 1, "server": NAME}
        case "Describe":
            names = known(request["service"], hosted) or [hosted]
            return {"server": NAME, "services": [described(each) for each in names]}
        case "Fail":
            after, retry = request["retry_after_ms"], request["retry"]
            raise Failure(request["status"], "AS_ASKED", request["message"], retry, after)
        case "Sleep":
            return Later(request["milliseconds"] / 1000, {})
        case "Blob":
            return {"data": bytes(request["size"])}
        case "Inspect":
            left = None if deadline is None else round((deadline - time.monotonic()) * 1000)
            return {"remaining_ms": left, **metadata._asdict()}
        case "Private":
            return {"subject": caller(metadata.authorization)}
        case "Short":
            return {"length": len(request["text"])}
        case "Noted":
            numbers = NOTES.get(request["key"], [])
            return {"count": len(numbers), "total": sum(numbers)}
        case "Say":
            refused(request)
            return {"number": 0}
        case "Crash":
            raise Failure(INTERNAL, "INTERNAL", "incident 1", MAYBE_PROCESSED)
        case "Unserved":
            raise Failure(UNIMPLEMENTED, "NO_HANDLER", "declared, and not served")
    return request  # Echo, Mirror, Fill, and those whose messages are empty


def refused(request: dict[str, Any]) -> None:
    """Fail with details, if that is asked for."""
    if request["fail"]:
        failure = Failure(10, "AS_ASKED", "as asked")
        failure.details = ("Refusal", {"data": bytes(request["size"])})
        raise failure


def said(method: Method, request: dict[str, Any]) -> bytes:
    """The metadata of what ends a call."""
    if method.name not in ("Say", "Recite"):
        return b""
    trace = request["traceparent"].encode()
    entries = (field(6, text8(name) + value.encode()) for name, value in request["entries"].items())
    return (field(2, trace) if trace else b"") + b"".join(entries)


def note(request: dict[str, Any]) -> None:
    """What becomes of a one-way call."""
    NOTES.setdefault(request["key"], []).append(request["number"])


class Sum:
    """What the items of an upload come to."""

    def __init__(self) -> None:
        self.total = self.size = self.items = 0

    def take(self, item: dict[str, Any]) -> bool:
        """One more item; whether the call is answered with it."""
        self.total += item["number"]
        self.size += len(item["data"])
        self.items += 1
        if item["fail"]:
            raise Failure(10, "AS_ASKED", "as asked")
        return bool(item["answer"])

    def response(self) -> dict[str, Any]:
        return {"total": self.total, "size": self.size, "items": self.items}


def reflected(item: dict[str, Any]) -> dict[str, Any] | None:
    """What comes back for an item of a duplex call; None for the end."""
    if item["fail"]:
        raise Failure(10, "AS_ASKED", "as asked")
    return None if item["end"] else {"number": item["number"], "data": item["data"]}


def caller(authorization: str) -> str:
    if authorization == "Bearer other":
        raise Failure(PERMISSION_DENIED, "NOT_PERMITTED", "not for others")
    if authorization != "Bearer conformance":
        raise Failure(UNAUTHENTICATED, "SIGN_IN_REQUIRED", "sign in")
    return "tester"


def items(method: Method, request: dict[str, Any], after: bytes) -> Iterator[dict[str, Any]]:
    """What a stream gives behind a position; b"" for all of it."""
    if method.name == "Tail":
        first = request["forgotten"]
        if after:
            first = gone_on_behind(after) + 3
            if not max(1, request["forgotten"]) <= first <= request["items"]:
                raise LOST
        return ({"number": number, "position": number - 2} for number in range(first, request["items"]))
    if after:
        raise LOST
    if method.slow:
        return ({"number": number} for number in range(max(0, request["items"] - request["keep"]), request["items"]))
    return plain_items(method, request)


def left_out(method: Method, request: dict[str, Any]) -> int:
    """How many items of a stream are not kept; those of one that ends the slow fail it."""
    if not method.slow:
        return 0
    count: int = max(0, request["items"] - request["keep"])
    if count and method.slow == "end":
        raise Failure(RESOURCE_EXHAUSTED, "SLOW_CONSUMER", "too slow", MAYBE_PROCESSED)
    return count


LOST = Failure(11, "POSITION_LOST", "begin it without one", NOT_PROCESSED)


def gone_on_behind(after: bytes) -> int:
    """A position that is a number."""
    if not re.fullmatch(rb"0|-?[1-9][0-9]*", after) or not -(2**63) <= int(after) < 2**63:
        raise LOST
    return int(after)


def plain_items(method: Method, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a stream without positions gives."""
    if method.name == "Turn":
        for page in range(request["pages"]):
            yield {"page": page}
        if request["fail"]:
            raise Failure(10, "TORN", "a page is torn")
    elif method.name == "Recite":
        for number in range(request["items"]):
            yield {"number": number}
        refused(request)
    else:
        for number in range(request["items"]):
            yield {"number": number, "padding": bytes(request["padding"])}
        if request["fail"]:
            raise Failure(10, "AS_ASKED", "as asked")


def known(service: str, hosted: str) -> list[str]:
    """The service asked for; none for all."""
    if service not in ("", hosted, CONTROL):
        raise Failure(NOT_FOUND, "UNKNOWN_SERVICE", f"hosted here: {hosted}, {CONTROL}")
    return [service] if service else []


# Describe ---------------------------------------------------------------------------------------------------------

KINDS = ENUMS["ValueKind"]


def reached(methods: list[Method]) -> tuple[list[str], list[str]]:
    """Every message that the methods reach, and every enum."""
    messages: list[str] = []
    enums: list[str] = []
    waiting = [name for method in methods for name in (method.request, method.response, *method.errors) if name]
    while waiting:
        name = waiting.pop(0)
        if name in messages:
            continue
        messages.append(name)
        for each in MESSAGES[name]:
            one = element(each.type)
            if one[0] == "message":
                waiting.append(one[1])
            elif one[0] == "enum" and one[1] not in enums:
                enums.append(one[1])
    return messages, enums


def described(full_name: str) -> dict[str, Any]:
    version, methods = SERVICES[full_name]
    messages, enums = reached(methods)
    return {
        "full_name": full_name,
        "version": version,
        "methods": [described_method(each) for each in methods],
        "messages": [
            {
                "name": name,
                "fields": [described_field(*each) for each in enumerate(MESSAGES[name], 1)],
                "doc": "",
            }
            for name in messages
        ],
        "enums": [{"name": name, "members": ENUMS[name], "doc": ""} for name in enums],
        "oldest": 1,
    }


def described_method(method: Method) -> dict[str, Any]:
    return {
        "opcode": method.opcode,
        "name": method.name,
        "shape": list(SHAPES).index(method.flags) + 1,
        "request": method.request,
        "response": method.response,
        "since": method.since,
        "until": method.until,
        "requires": None,
        "reasons": list(method.reasons),
        "idempotent": False,
        "timeout_ms": None,
        "max_request": method.max_request,
        "doc": f"{method.name}, as the page has it.",
        "by_server": False,
        "errors": list(method.errors),
        "compress": method.compress,
        "resumable": method.resumable,
        "drains": method.drains,
        "slow": method.slow,
    }


def described_field(number: int, field: Field) -> dict[str, Any]:
    shape = field.type[0] if field.type[0] in ("optional", "list", "map") else ""
    one = element(field.type)
    more = field.more
    required = field.default is NO_DEFAULT
    return {
        "number": number,
        "name": field.name,
        "container": {"list": 2, "map": 3}.get(shape, 1),
        "kind": KINDS[(one if isinstance(one, str) else one[0]).upper()],
        "key": KINDS[field.type[1].upper()] if shape == "map" else None,
        "type_name": "" if isinstance(one, str) else one[1],
        "optional": shape == "optional",
        "required": required,
        "default": "" if required else pipe.written(field.type, field.default, 1, False),
        "since": field.since,
        "ignorable": more.get("ignorable", False),
        "ge": more.get("ge", ""),
        "le": more.get("le", ""),
        "min_length": more.get("min_length"),
        "max_length": more.get("max_length"),
        "min_size": more.get("min_size"),
        "max_size": more.get("max_size"),
    }
