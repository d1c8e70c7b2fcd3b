"""Section 5: the metadata that a client sends."""

from typing import Any

from wireproto.conformance import page
from wireproto.conformance.callee import CLIENT_CASES, Trial, call
from wireproto.conformance.case import Deviation
from wireproto.conformance.service import SHORT, ShortResponse

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _sent(number: str, text: str, told: dict[str, Any], key: int, *values: bytes) -> None:
    """A case in which the caller gives metadata that must be in the REQUEST."""

    def run(trial: Trial) -> None:
        with trial.client(call("Short", told, text="hello")) as callee:
            request = callee.request(SHORT)
            found = request.metadata.get(key, [])
            if sorted(found) != sorted(values):
                raise Deviation(f"metadata key {key} has {found}; {list(values)} were due")
            callee.respond(request, ShortResponse(length=5))
            callee.answered(length=5)

    CLIENT_CASES.add(number, text, run)


_sent("5.02", "The traceparent is key 2.", {"traceparent": TRACE}, 2, TRACE.encode())
_sent("5.03", "The authorization is key 3.", {"authorization": "Bearer x"}, 3, b"Bearer x")
_sent("5.04", "The idempotency key is key 4.", {"idempotency_key": "00ff10"}, 4, b"\x00\xff\x10")
_sent(
    "5.05",
    "Each entry of the caller's is a key 6 of its own.",
    {"entries": {"region": "eu", "user.name": "Zoë", "empty": ""}},
    6,
    b"\x06regioneu",
    b"\x09user.name" + "Zoë".encode(),
    b"\x05empty",
)


@CLIENT_CASES.case("5.01")
def deadline(trial: Trial) -> None:
    """The deadline is key 1: the milliseconds that are left of the caller's time."""
    with trial.client(call("Short", {"deadline_ms": 20_000}, text="hello")) as callee:
        request = callee.request(SHORT)
        found = [int.from_bytes(value, "big") for value in request.metadata.get(1, [])]
        if len(found) != 1 or not 10_000 < found[0] <= 20_000 or len(request.metadata[1][0]) != 4:
            raise Deviation(f"of a time of 20000 ms the deadlines sent are {found}")
        callee.respond(request, ShortResponse(length=5))
        callee.answered(length=5)


@CLIENT_CASES.case("5.06")
def deadline_passes(trial: Trial) -> None:
    """A call whose time is over fails with DEADLINE_EXCEEDED, though the server says nothing, and is sent CANCEL."""
    with trial.client(call("Short", {"deadline_ms": 100}, text="hello")) as callee:
        request = callee.request(SHORT)
        callee.expect(page.CANCEL, request.call_id)
        callee.failed(status=4)
