"""The cases about packed payloads: ours passes them, and whoever breaks one of their rules fails its case."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.mutants import Change, Mutant, changed, drop, drop_if, every, on, on_if
from tests.conformance.test_clients import Broken
from wireproto.conformance.callee import Trial
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import Deviation
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.page import PACKED, PACKING_FIELD, packed_body, tlv
from wireproto.conformance.raw import RawFrame
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import CONFORMANCE
from wireproto.wire.frame import Kind

MESSAGES = (Kind.REQUEST, Kind.RESPONSE, Kind.ITEM)


def is_packed(each: RawFrame) -> bool:
    return bool(each.flags & PACKED) and each.kind in MESSAGES


def field(value: bytes, times: int = 1) -> bytes:
    return tlv(PACKING_FIELD, value) * times


def without(*fields: bytes, kind: Kind = Kind.HELLO) -> Callable[[], Change]:
    """A greeting without these fields, as if they were not looked at."""

    def change(each: RawFrame) -> list[bytes] | None:
        payload = each.payload
        if each.kind != kind:
            return None
        for one in fields:
            payload = payload.removesuffix(one)
        return [changed(each, payload=payload)]

    return every(change)


def careless(*kinds: Kind) -> Callable[[], Change]:
    """Packed payloads are unpacked whatever their streams are like, and whether or not that was agreed on."""

    def change(each: RawFrame) -> list[bytes] | None:
        if not (is_packed(each) and each.kind in kinds):
            return None
        try:
            data = zlib.decompressobj().decompress(each.payload[4:])
        except zlib.error:
            data = b""
        return [changed(each, flags=each.flags & ~PACKED, payload=data)]

    return every(change)


def blind(*kinds: Kind) -> Callable[[], Change]:
    """The flag is not looked at: a packed payload is read as it is."""
    return every(
        lambda each: [changed(each, flags=each.flags & ~PACKED)] if each.kind in kinds and each.flags & PACKED else None
    )


def tailed(*kinds: Kind) -> Callable[[], Change]:
    """Whatever is packed has a byte behind its stream."""
    return every(
        lambda each: [changed(each, payload=each.payload + b"x")] if is_packed(each) and each.kind in kinds else None
    )


def shortened(each: RawFrame) -> list[bytes] | None:
    """The unpacked length is not held to max frame."""
    if is_packed(each) and int.from_bytes(each.payload[:4], "big") > 1_000_000:
        return [changed(each, payload=b"\0\0\0\1" + each.payload[4:])]
    return None


SERVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a list that begins with an unknown algorithm is passed over": ("3.80", {"up": without(field(b"\xf7\1"))}),
    "an algorithm that was not offered": (
        "3.81",
        {"down": every(lambda each: [changed(each, payload=each.payload + field(b"\1"))] if each.kind == 2 else None)},
    ),
    "an empty list taken": ("3.82", {"up": without(field(b""))}),
    "algorithm 0 taken": ("3.83", {"up": without(field(b"\1\0"))}),
    "an algorithm twice taken": ("3.84", {"up": without(field(b"\1\2\1"))}),
    "two lists taken": ("3.85", {"up": without(field(b"\1"), field(b"\1"))}),
    "a packed REQUEST read as it is": ("2.70", {"up": blind(Kind.REQUEST)}),
    "a packed ITEM read as it is": ("2.71", {"up": blind(Kind.ITEM)}),
    "a packed stream REQUEST read as it is": ("2.71", {"up": blind(Kind.REQUEST)}),
    "packed without an algorithm": ("2.72", {"up": careless(*MESSAGES)}),
    "the flag on other kinds": ("2.73", {"up": blind(Kind.END, Kind.CANCEL, Kind.CREDIT, Kind.PING)}),
    "an empty packed payload taken": ("2.74", {"up": careless(Kind.REQUEST)}),
    "packed before items": ("2.75", {"up": on_if(lambda each: each.flags == 0x06, flags=0x04, payload=b"")}),
    "the unpacked length not looked at": ("2.76", {"up": every(shortened)}),
    "broken streams taken": ("2.77", {"up": careless(Kind.REQUEST)}),
    "broken items taken": ("2.78", {"up": careless(Kind.ITEM)}),
    "a longest request of packed bytes": (
        "2.79",
        {"up": on_if(lambda each: is_packed(each) and each.payload[3] == 65, payload=packed_body(b"x"))},
    ),
    "credit of packed bytes": (
        "2.80",
        {"up": drop_if(lambda each: is_packed(each) and each.kind == Kind.ITEM and len(each.payload) < 60)},
    ),
    "answers packed wrongly": ("2.81", {"down": tailed(Kind.RESPONSE)}),
    "items packed wrongly": ("2.81", {"down": tailed(Kind.ITEM)}),
}

CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "an algorithm offered twice": (
        "3.60",
        {"up": every(lambda each: [changed(each, payload=each.payload + field(b"\1"))] if each.kind == 1 else None)},
    ),
    "an algorithm that was not offered taken": ("3.61", {"down": without(field(b"\xf7"), kind=Kind.WELCOME)}),
    "two algorithms taken": ("3.62", {"down": without(field(b"\1\1"), kind=Kind.WELCOME)}),
    "algorithm 0 taken": ("3.63", {"down": without(field(b"\0"), kind=Kind.WELCOME)}),
    "an empty choice taken": ("3.64", {"down": without(field(b""), kind=Kind.WELCOME)}),
    "a packed RESPONSE read as it is": ("2.60", {"down": blind(Kind.RESPONSE)}),
    "a packed ITEM read as it is": ("2.61", {"down": blind(Kind.ITEM)}),
    "requests packed wrongly": ("2.62", {"up": tailed(Kind.REQUEST)}),
    "items packed wrongly": ("2.62", {"up": tailed(Kind.ITEM)}),
    "packed without an algorithm": ("2.63", {"down": careless(Kind.RESPONSE)}),
    "the flag on an ERROR": ("2.64", {"down": on(Kind.ERROR, flags=0)}),
    "four bytes taken": ("2.65", {"down": careless(Kind.RESPONSE)}),
    "no bytes taken": ("2.66", {"down": careless(Kind.RESPONSE)}),
    "the unpacked length not looked at": ("2.67", {"down": every(shortened)}),
    "broken answers taken": ("2.68", {"down": careless(Kind.RESPONSE)}),
    "a stream left without CANCEL": ("2.69", {"up": drop(Kind.CANCEL)}),
}


def of_packing(cases: dict[str, Any]) -> set[str]:
    """The numbers of the cases that the modules about packing have."""
    return {number[1:] for number, case in cases.items() if case.run.__module__.endswith(".packing")}


def test_each_case_has_somebody_who_breaks_its_rule() -> None:
    """Of every rule of packed payloads there is a server, or a client, that breaks it."""
    assert of_packing(SERVER_CASES.cases) == {number for number, _ in SERVERS.values()}
    assert of_packing(CLIENT_CASES.cases) == {number for number, _ in CLIENTS.values()}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_packs_carelessly_fails(address: tuple[str, int], name: str) -> None:
    """A server that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = SERVERS[name]
    case = SERVER_CASES.cases["s" + number]
    bench = Bench(address, (2, "msgpack"), 3, CONFORMANCE.full_name, 3)
    case.run(bench)
    with Mutant(address, **changes) as mutant, pytest.raises(Deviation):
        case.run(replace(bench.at(mutant.address), patience=0.5, slow_patience=1.0))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_packs_carelessly_fails(name: str) -> None:
    """A client that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = CLIENTS[name]
    case = CLIENT_CASES.cases["c" + number]
    case.run(Trial((2, "msgpack"), 3, Broken()))
    with pytest.raises(Deviation):
        case.run(Trial((2, "msgpack"), 3, Broken(**changes), patience=0.5, slow_patience=1.0))
