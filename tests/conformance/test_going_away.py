"""The server cases about its end, in this process: ours goes as it must, and one that goes otherwise is found out."""

import threading
from typing import Any, Self

import pytest

from tests.conformance.mutants import (
    Mutant,
    all_but_the_first,
    call_error,
    drop,
    drop_if,
    every,
    final_error,
    on,
    on_if,
)
from wireproto import codecs
from wireproto.conformance import page
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import Deviation, Needs
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import CONFORMANCE, CountResponse, make_handlers
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.wire.frame import Kind

CASES = [case for case in SERVER_CASES.cases.values() if case.needs is Needs.PROCESS]


class Leaving:
    """A server that a case asks to go, with a proxy before it that breaks a rule.

    Args:
        changes: of ``Mutant``; none for a right server.
    """

    def __init__(self, **changes: Any) -> None:
        self._server = Server(make_handlers(), port=0)
        self._server.start()
        self._mutant = Mutant((self._server.address.host, self._server.address.port), **changes)
        self._stopper = threading.Thread(target=self._server.shutdown, args=(7.0,))
        self.address = self._mutant.address

    def terminate(self) -> None:
        self._stopper.start()

    def __enter__(self) -> Self:
        self._mutant.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._stopper.ident:
            self._stopper.start()
        self._stopper.join(20)
        self._mutant.__exit__()


def bench(patience: float = 10.0, **changes: Any) -> Bench:
    return Bench(
        ("127.0.0.1", 1),
        (2, "msgpack"),
        3,
        CONFORMANCE.full_name,
        3,
        start=lambda: Leaving(**changes),
        patience=patience,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_our_server_goes_as_it_must(case: Any) -> None:
    """Our server passes every case that ends it."""
    case.run(bench())


WRONG = page.goaway_body(77, page.error_body(14, b"SHUTTING_DOWN"))

FIRST = codecs.get("msgpack").plan(CountResponse, 3, Limits(), request=False).encode(CountResponse(number=0))
"""The item of a stream that comes before the server is asked to go."""

MUTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no GOAWAY": ("4.70", {"down": drop(Kind.GOAWAY)}),
    "another last call": ("4.71", {"down": on(Kind.GOAWAY, payload=WRONG)}),
    "an empty GOAWAY": ("4.70", {"down": on(Kind.GOAWAY, payload=b"")}),
    "GOAWAY of a call": ("4.70", {"down": on(Kind.GOAWAY, call_id=1)}),
    "resets": ("4.70", {"reset": True}),
    "a one-way call behind GOAWAY ends the connection": ("4.75", {"up": on_if(lambda each: each.flags == 1, kind=13)}),
    "a one-way call behind GOAWAY is answered": ("4.75", {"up": on_if(lambda each: each.flags == 1, flags=0)}),
    "an upload behind GOAWAY is dropped": ("4.75", {"up": drop_if(lambda each: each.flags == 4)}),
    "items behind GOAWAY are lost": ("4.76", {"up": all_but_the_first(Kind.ITEM)}),
    "uploads end with GOAWAY": (
        "4.76",
        {"down": on(Kind.RESPONSE, kind=Kind.ERROR, codec=0, version=0, payload=page.error_body(14, b"SHUTTING_DOWN"))},
    ),
    "what comes to a call that drains is lost": ("4.77", {"up": all_but_the_first(Kind.ITEM)}),
    "a stream that drains is cut short": ("4.77", {"down": all_but_the_first(Kind.ITEM)}),
    "a stream that has an end is cut short": (
        "4.155",
        {"down": drop_if(lambda each: each.kind == Kind.ITEM and each.payload != FIRST)},
    ),
    "a stream ends with GOAWAY": (
        "4.155",
        {
            "down": on_if(
                lambda each: each.kind == Kind.ITEM and each.payload != FIRST,
                kind=Kind.ERROR,
                payload=page.error_body(14, b"SHUTTING_DOWN"),
            )
        },
    ),
    "credit behind GOAWAY is lost": ("4.155", {"up": drop(Kind.CREDIT)}),
    "is silent while it greets": ("3.123", {"down": drop(Kind.ERROR)}),
    "leaves early calls in doubt": ("3.123", {"down": every(lambda each: final_error(each, retry=2))}),
    "streams end otherwise": ("4.74", {"down": every(lambda each: call_error(each, reason="CANCELLED"))}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_server_that_goes_otherwise_fails(name: str) -> None:
    """A server that breaks a rule when it goes fails the case of that rule."""
    number, changes = MUTANTS[name]
    with pytest.raises(Deviation):
        SERVER_CASES.cases["s" + number].run(bench(1.0, **changes))
