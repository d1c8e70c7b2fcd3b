"""Early requests in the kit: a server or a client that breaks a rule of theirs fails the case of that rule."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.mutants import Change, Mutant, all_but_the_first, changed, drop, every, final_error, on, on_if
from tests.conformance.test_clients import Broken, said
from wireproto.conformance import page
from wireproto.conformance.callee import Trial
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import Deviation, NotJudged
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.raw import RawFrame
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import CONFORMANCE
from wireproto.wire.frame import Kind

_FIELD = re.compile(rb"\x00\x03\x00\x02..", re.DOTALL)


def field_unread(each: RawFrame) -> list[bytes] | None:
    """As of a server that does not know of early requests: what follows HELLO is too much."""
    return [changed(each, payload=_FIELD.sub(b"", each.payload))] if each.kind == Kind.HELLO else None


def answered_before_welcome() -> Change:
    """WELCOME comes behind the frame that follows it."""
    held: list[bytes] = []

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind == Kind.WELCOME:
            held.append(changed(each))
            return []
        frames = [changed(each), *held]
        held.clear()
        return frames

    return change


def another_reason(each: RawFrame) -> list[bytes] | None:
    return final_error(each, reason="UNKNOWN_KIND")


SERVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "waits for nothing of them": ("3.110", {"up": drop(Kind.REQUEST)}),
    "answers before WELCOME": ("3.110", {"down": answered_before_welcome}),
    "loses its answer": ("3.110", {"down": drop(Kind.RESPONSE)}),
    "answers the first alone": ("3.111", {"down": all_but_the_first(Kind.RESPONSE)}),
    "gives a stream no credit": ("3.112", {"down": drop(Kind.ITEM)}),
    "takes no items of an early upload": ("3.113", {"up": drop(Kind.ITEM)}),
    "reads what is in another codec": ("3.114", {"up": every(field_unread)}),
    "reads what is in another version": ("3.115", {"up": every(field_unread)}),
    "does not wait for them": ("3.116", {"down": drop(Kind.RESPONSE)}),
    "takes a byte more": ("3.117", {"down": every(another_reason)}),
    "takes a part of one": ("3.118", {"down": every(another_reason)}),
    "runs a one-way call": ("3.119", {"up": on_if(lambda each: each.flags == page.ONE_WAY, flags=0)}),
    "takes other kinds": ("3.120", {"down": every(another_reason)}),
    "takes what is packed": ("3.125", {"down": every(another_reason)}),
    "takes any length": ("3.121", {"down": every(another_reason)}),
    "takes less than 4096": ("3.122", {"down": on(Kind.WELCOME, kind=Kind.ERROR, payload=page.error_body(3))}),
    "takes a number of one byte": ("3.124", {"down": every(another_reason)}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_takes_early_requests_otherwise_fails(name: str, address: tuple[str, int]) -> None:
    """A server that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = SERVERS[name]
    case = SERVER_CASES.cases["s" + number]
    right = Bench(address, (2, "msgpack"), 3, CONFORMANCE.full_name, 3)
    case.run(right)
    with Mutant(address, **changes) as mutant, pytest.raises(Deviation):
        case.run(replace(right, address=mutant.address, patience=0.3))


def with_credential() -> Callable[[], Change]:
    """An early request that carries a credential, announced as such."""
    credential = page.field(page.AUTHORIZATION_KEY, b"secret")

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind == Kind.HELLO:
            found = _FIELD.search(each.payload)
            assert found is not None
            size = int.from_bytes(found[0][4:]) + len(credential)
            field = page.tlv(page.EARLY_FIELD, page.u16(size))
            return [changed(each, payload=each.payload.replace(found[0], field))]
        return [changed(each, metadata=credential)] if each.kind == Kind.REQUEST else None

    return lambda: change


CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "announces and sends nothing": ("3.90", {"up": drop(Kind.REQUEST)}),
    "sends a one-way call": ("3.90", {"up": on(Kind.REQUEST, flags=page.ONE_WAY)}),
    "sends another kind": ("3.90", {"up": on(Kind.REQUEST, kind=Kind.ITEM)}),
    "writes in another codec": ("3.90", {"up": on(Kind.REQUEST, codec=1)}),
    "writes in another version": ("3.90", {"up": on(Kind.REQUEST, version=1)}),
    "sends a credential": ("3.90", {"up": with_credential()}),
    "announces a part of it": ("3.90", {"up": on(Kind.REQUEST, payload=bytes(100))}),
    "sends it once": ("3.91", {"up": all_but_the_first(Kind.REQUEST)}),
    "is certain that it was lost": ("3.92", {"said": said(0, retry=1)}),
    "doubts what it was told": ("3.93", {"said": said(0, retry=2)}),
    "says nothing of it": ("3.93", {"said": said(0, retry=None)}),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_sends_early_requests_otherwise_fails(name: str) -> None:
    """A client that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = CLIENTS[name]
    case = CLIENT_CASES.cases["c" + number]
    case.run(Trial((2, "msgpack"), 3, Broken()))
    with pytest.raises(Deviation):
        case.run(Trial((2, "msgpack"), 3, Broken(**changes), patience=0.3, slow_patience=1.0))


class Cautious(Broken):
    """A client that sends nothing early, whatever it may."""

    def tell(self, instruction: dict[str, Any]) -> None:
        super().tell({**instruction, "early": False})


@pytest.mark.parametrize("number", ["3.90", "3.92", "3.93"])
def test_a_client_that_sends_nothing_early_is_not_judged(number: str) -> None:
    """It is a client's own choice."""
    with pytest.raises(NotJudged):
        CLIENT_CASES.cases["c" + number].run(Trial((2, "msgpack"), 3, Cautious()))


def test_each_case_of_early_requests_has_a_broken_peer() -> None:
    """Of every rule of early requests there is a server or a client that breaks it."""
    of_servers = {f"s3.{number}" for number in range(110, 126) if number != 123}
    assert set(SERVER_CASES.cases) >= of_servers
    assert of_servers == {"s" + number for number, _ in SERVERS.values()}
    assert {"c3.90", "c3.91", "c3.92", "c3.93"} == {"c" + number for number, _ in CLIENTS.values()}
