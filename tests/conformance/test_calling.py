"""The cases about calls of the server: ours passes them, and whoever breaks one of their rules fails its case."""

import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.mutants import Change, Mutant, changed, drop, drop_if, every, of_the_server, twice_if
from tests.conformance.test_clients import Broken
from wireproto.conformance.callee import Trial
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import Deviation
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.clients import calling as of_clients
from wireproto.conformance.page import TOP_BIT, error_body, read_error
from wireproto.conformance.raw import RawFrame
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.servers import calling as of_servers
from wireproto.conformance.service import CONFORMANCE
from wireproto.wire.frame import Kind


def theirs(kind: Kind) -> Callable[[RawFrame], bool]:
    """Frames of one kind of calls that the server began."""
    return lambda each: each.kind == kind and of_the_server(each)


def hello(*, max_calls: int | None = None, one_way: int | None = None) -> Callable[[], Change]:
    """A HELLO that says something else of the server's calls."""

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind != Kind.HELLO:
            return None
        payload = each.payload
        if max_calls is not None:
            payload = payload[:6] + struct.pack(">I", max_calls) + payload[10:]
        if one_way is not None:
            payload = payload.replace(struct.pack(">HHI", 6, 4, 3), struct.pack(">HHI", 6, 4, one_way))
        return [changed(each, payload=payload)]

    return every(change)


def other_error(chosen: Callable[[RawFrame], bool], of: str, **fields: Any) -> Callable[[], Change]:
    """ERRORs with that reason say something else."""

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind != Kind.ERROR or not chosen(each) or (found := read_error(each.payload)).reason != of:
            return None
        said = {"status": found.status, "reason": found.reason.encode(), "retry": found.retry, **fields}
        return [changed(each, payload=error_body(**said))]

    return every(change)


def without_the_bit(each: RawFrame) -> list[bytes] | None:
    return [changed(each, call_id=each.call_id & ~TOP_BIT)] if each.kind == Kind.REQUEST else None


BrokenPeers = dict[str, tuple[str, dict[str, Any]]]

SERVERS: BrokenPeers = {
    "ids without the top bit": (
        "4.200",
        {
            "down": every(
                lambda each: [changed(each, call_id=each.call_id & ~TOP_BIT)] if each.kind == Kind.REQUEST else None
            )
        },
    ),
    "another reason is told": ("4.201", {"up": other_error(of_the_server, "AS_ASKED", reason=b"OTHER")}),
    "no credit for a stream": ("4.202", {"down": drop_if(theirs(Kind.CREDIT))}),
    "each item twice": ("4.203", {"down": twice_if(theirs(Kind.ITEM))}),
    "no end of a half": ("4.204", {"down": drop_if(theirs(Kind.END))}),
    "one-way calls without credit": ("4.205", {"up": hello(one_way=100)}),
    "calls where none are accepted": ("4.206", {"up": hello(max_calls=8)}),
    "more calls than are accepted": ("4.207", {"up": hello(max_calls=8)}),
    "wrong advice about the wrong side": ("4.208", {"down": other_error(lambda each: True, "UNKNOWN_OPCODE", retry=0)}),
    "no CANCEL at the deadline": ("4.209", {"down": drop(Kind.CANCEL)}),
    "calls behind GOAWAY": ("4.210", {"up": drop(Kind.GOAWAY)}),
    "silence about what is lost": ("8.200", {"down": drop(Kind.RESPONSE)}),
}

CLIENTS: BrokenPeers = {
    "each answer twice": ("4.200", {"up": twice_if(theirs(Kind.RESPONSE))}),
    "wrong advice about the wrong side": ("4.201", {"up": other_error(of_the_server, "UNKNOWN_OPCODE", retry=0)}),
    "items without credit": ("4.202", {"up": twice_if(theirs(Kind.ITEM))}),
    "no credit for an upload": ("4.203", {"up": drop_if(theirs(Kind.CREDIT))}),
    "no end of a half": ("4.204", {"up": drop_if(theirs(Kind.END))}),
    "no credit for one-way calls": (
        "4.205",
        {"up": drop_if(lambda each: each.kind == Kind.CREDIT and not each.call_id)},
    ),
    "no word behind CANCEL": ("4.206", {"up": drop_if(theirs(Kind.ERROR))}),
    "more calls than it accepts": ("4.207", {"up": hello(max_calls=2)}),
    "silence behind GOAWAY": ("4.208", {"up": drop_if(theirs(Kind.RESPONSE))}),
}


def of_module(cases: Iterable[Any], module: Any) -> set[str]:
    return {case.id[1:] for case in cases if case.run.__module__ == module.__name__}


def test_each_case_has_somebody_who_breaks_its_rule() -> None:
    """Of every rule of the server's calls there is a server, or a client, that breaks it."""
    assert of_module(SERVER_CASES.cases.values(), of_servers) == {number for number, _ in SERVERS.values()}
    assert of_module(CLIENT_CASES.cases.values(), of_clients) == {number for number, _ in CLIENTS.values()}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_calls_wrongly_fails(address: tuple[str, int], name: str) -> None:
    """A server that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = SERVERS[name]
    case = SERVER_CASES.cases["s" + number]
    bench = Bench(address, (2, "msgpack"), 3, CONFORMANCE.full_name, 3)
    case.run(bench)
    with Mutant(address, **changes) as mutant, pytest.raises(Deviation):
        case.run(replace(bench.at(mutant.address), patience=0.7, slow_patience=1.0))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_answers_wrongly_fails(name: str) -> None:
    """A client that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = CLIENTS[name]
    case = CLIENT_CASES.cases["c" + number]
    case.run(Trial((2, "msgpack"), 3, Broken()))
    with pytest.raises(Deviation):
        case.run(Trial((2, "msgpack"), 3, Broken(**changes), patience=0.7, slow_patience=1.0))
