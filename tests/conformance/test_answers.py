"""Servers that say something wrong beside their answers, or have wrong details of errors: each fails its case."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.mutants import Change, Mutant, call_error, changed, every, on
from wireproto.conformance import page
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import Deviation
from wireproto.conformance.raw import RawFrame
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.servers.answers import NAME
from wireproto.conformance.service import CONFORMANCE
from wireproto.wire.frame import Kind


def without_trace(each: RawFrame) -> list[bytes]:
    """Key 2 is left out of answers."""
    block, kept = each.metadata, b""
    while block:
        size = 3 + int.from_bytes(block[1:3])
        kept += block[:size] if block[0] != page.TRACEPARENT_KEY else b""
        block = block[size:]
    return [changed(each, metadata=kept)]


def misspelt(each: RawFrame) -> list[bytes]:
    """What is not ASCII is question marks."""
    return [changed(each, metadata=each.metadata.replace("ë".encode(), b"??"))]


def said_again() -> Change:
    """What was said once is said beside every answer that follows."""
    said = b""

    def change(each: RawFrame) -> list[bytes] | None:
        nonlocal said
        if each.kind not in (Kind.RESPONSE, Kind.END, Kind.ERROR):
            return None
        said = each.metadata or said
        return [changed(each, metadata=said)]

    return change


def with_details(payload: bytes, name: bytes = NAME) -> Callable[[], Change]:
    """Every ERROR of a call has these details."""
    field = page.field(page.DETAILS_FIELD, bytes([len(name)]) + name + payload)

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind != Kind.ERROR or not each.call_id:
            return None
        read = page.read_error(each.payload)
        reason, message = read.reason.encode(), read.message.encode()
        body = page.error_body(read.status, reason, message, read.retry, read.retry_after_ms, field)
        return [changed(each, payload=body)]

    return every(change)


def zeros(size: int) -> bytes:
    """A Refusal in msgpack with so many bytes of data, 256 or more."""
    return b"\x91\xc5" + size.to_bytes(2) + bytes(size)


BARE = every(call_error)
"""No ERROR has details."""

ANSWER_MUTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing beside a RESPONSE": ("5.53", {"down": on(Kind.RESPONSE, metadata=b"")}),
    "no trace beside a RESPONSE": ("5.53", {"down": every(without_trace)}),
    "ASCII alone": ("5.53", {"down": every(misspelt)}),
    "nothing beside END": ("5.54", {"down": on(Kind.END, metadata=b"")}),
    "entries beside items": ("5.54", {"down": on(Kind.ITEM, metadata=page.entry(b"region", b"eu"))}),
    "nothing beside an ERROR": ("5.55", {"down": on(Kind.ERROR, metadata=b"")}),
    "no trace beside an ERROR": ("5.55", {"down": every(without_trace)}),
    "said again": ("5.56", {"down": said_again}),
    "details left out too soon": ("5.57", {"down": BARE}),
    "details beside any metadata": ("5.57", {"down": with_details(zeros(3470))}),
    "no details": ("6.14", {"down": BARE}),
    "details with a short name": ("6.14", {"down": with_details(b"\x91\xc4\x00", b"Refusal")}),
    "details that say nothing": ("6.14", {"down": with_details(b"\x90")}),
    "details of 4096 bytes left out": ("6.15", {"down": BARE}),
    "details of any length": ("6.15", {"down": with_details(zeros(4066))}),
    "details in any frame": ("6.16", {"down": with_details(zeros(4065))}),
    "no details in a small frame": ("6.16", {"down": BARE}),
}


@pytest.mark.parametrize("name", ANSWER_MUTANTS)
def test_a_server_that_answers_wrongly_fails(name: str, address: tuple[str, int]) -> None:
    """A server that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = ANSWER_MUTANTS[name]
    case = SERVER_CASES.cases["s" + number]
    right = Bench(address, (2, "msgpack"), 3, CONFORMANCE.full_name, 3)
    case.run(right)
    with Mutant(address, **changes) as mutant, pytest.raises(Deviation):
        case.run(replace(right, address=mutant.address, patience=0.3))
