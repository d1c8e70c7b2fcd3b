"""The client cases: ours passes them, and a client that breaks a rule fails the case of that rule."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conformance.mutants import (
    Change,
    Mutant,
    all_but_the_first,
    call_error,
    changed,
    chatting,
    crossing,
    drop,
    drop_if,
    every,
    far_ids,
    final_error,
    first_credit,
    instead,
    of_the_server,
    on,
    on_if,
    twice,
    twice_if,
)
from wireproto.conformance import adapter
from wireproto.conformance.callee import Trial
from wireproto.conformance.case import SECTIONS, Deviation, Needs, Verdict
from wireproto.conformance.client import judge_client
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.page import TOP_BIT, CreditBody, credit_body, credit_fields
from wireproto.conformance.raw import RawFrame, frame, pack_hello, pack_welcome
from wireproto.conformance.runner import Selection
from wireproto.conformance.service import CONFORMANCE
from wireproto.wire.frame import Kind

OURS = [sys.executable, "-m", "wireproto.conformance.adapter"]


def test_our_client_conforms() -> None:
    """Our client passes every case in every codec, in its newest version."""
    runs = judge_client(OURS, Selection(versions=[3]), jobs=3)
    assert [f"{run.name}: {run.detail}" for run in runs if run.verdict is not Verdict.PASSED] == []


@pytest.mark.long
def test_our_client_conforms_in_every_version() -> None:
    """Our client passes every case in every codec and version."""
    runs = judge_client(OURS, jobs=3)
    assert [f"{run.name}: {run.detail}" for run in runs if run.verdict is not Verdict.PASSED] == []


def test_there_are_enough_cases() -> None:
    """Every section that says something of clients has cases, and each case is a sentence."""
    assert {case.section for case in CLIENT_CASES.cases.values()} == set(SECTIONS) - {13}
    assert len(CLIENT_CASES.cases) >= 200


class Broken:
    """Our client in this process, with a proxy between it and its server, or a wrong idea of what happened.

    Args:
        said: changes what it says.
        changes: of ``Mutant``.
    """

    def __init__(self, said: Callable[[dict[str, Any]], dict[str, Any]] | None = None, **changes: Any) -> None:
        self._said = said
        self._changes = changes

    @contextmanager
    def borrow(self) -> Iterator["Broken"]:
        yield self
        self._thread.join(20)

    def tell(self, instruction: dict[str, Any]) -> None:
        self._answer: dict[str, Any] | None = None
        self._thread = threading.Thread(target=self._perform, args=(instruction,), daemon=True)
        self._thread.start()

    def _perform(self, instruction: dict[str, Any]) -> None:
        with Mutant((instruction["host"], instruction["port"]), **self._changes) as mutant:
            host, port = mutant.address
            self._answer = adapter.perform({**instruction, "host": host, "port": port})

    def answer(self, timeout: float) -> dict[str, Any] | None:
        self._thread.join(timeout)
        if self._answer is not None and self._said is not None:
            return self._said(self._answer)
        return self._answer


def said(step: int, **changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A step of which something else is said; in an error where there is one."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        results = answer.get("results")
        if results:
            into = results[step].get("error", results[step].get("response", results[step]))
            into.update(changes)
        return answer

    return change


def says(step: int, result: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A step of which only this is said."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        if answer.get("results"):
            answer["results"][step] = result
        return answer

    return change


def same_ids() -> Callable[[RawFrame], list[bytes] | None]:
    return lambda each: [changed(each, call_id=1)] if each.kind == Kind.REQUEST else None


def welcoming(items: int, size: int, one_way: int = 0) -> bytes:
    """A WELCOME with other credit than the judge's."""
    return pack_welcome(version=3, fields=credit_fields(CreditBody(items, size), one_way))


def all_but_one(kind: int) -> Callable[[], Change]:
    """The second frame of a kind is lost."""
    return numbered(kind, lambda number, each: [] if number == 2 else None)


def numbered(kind: int, change: Callable[[int, RawFrame], list[bytes] | None]) -> Callable[[], Change]:
    """The frames of one kind, changed by how many of them came."""

    def made() -> Change:
        seen = 0

        def changing(each: RawFrame) -> list[bytes] | None:
            nonlocal seen
            if each.kind != kind:
                return None
            seen += 1
            return change(seen, each)

        return changing

    return made


def before(kind: int, other: int) -> Callable[[], Change]:
    """Before each frame of a kind but the first comes another one, of the first one's call."""

    def made() -> Change:
        first: list[RawFrame] = []

        def change(each: RawFrame) -> list[bytes] | None:
            if each.kind != kind:
                return None
            first.append(each)
            if len(first) == 1:
                return None
            return [frame(other, call_id=first[0].call_id, opcode=first[0].opcode), changed(each)]

        return change

    return made


def cancelled_at_once() -> Change:
    """Behind a one-way call comes its CANCEL."""
    return lambda each: (
        [changed(each), frame(Kind.CANCEL, call_id=each.call_id, opcode=each.opcode)] if each.flags == 1 else None
    )


def asked_behind(written: bytes, read: bytes) -> Callable[[], Change]:
    """One position is sent in place of another one."""
    was, now = (b"\x07" + len(each).to_bytes(2) + each for each in (written, read))
    return every(
        lambda each: (
            [changed(each, metadata=each.metadata.replace(was, now))]
            if each.kind == Kind.REQUEST and was in each.metadata
            else None
        )
    )


CLIENT_MUTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no codec offered": ("3.01", {"up": on(Kind.HELLO, payload=pack_hello(codecs=[]))}),
    "another service": ("3.01", {"up": on(Kind.HELLO, payload=pack_hello(service="other.v1.OtherService"))}),
    "HELLO with flags": ("3.01", {"up": on(Kind.HELLO, flags=1)}),
    "impatient": ("3.02", {"up": instead(Kind.HELLO, frame(Kind.HELLO, pack_hello()), frame(Kind.PING, bytes(8)))}),
    "HELLO cut": ("1.01", {"up": on(Kind.HELLO, payload=b"\x01\x01")}),
    "WELCOME believed": ("3.15", {"down": on(Kind.WELCOME, kind=200)}),
    "flags on a REQUEST": ("2.01", {"up": on(Kind.REQUEST, flags=2)}),
    "the flags of another shape": ("2.01", {"up": on(Kind.REQUEST, flags=8)}),
    "a stream as a unary call": ("4.40", {"up": on(Kind.REQUEST, flags=0)}),
    "an END of no call": ("4.09", {"up": on(Kind.PONG, kind=Kind.END, payload=b"")}),
    "an ITEM of a call whose items do not follow": (
        "4.03",
        {"up": on(Kind.CANCEL, kind=Kind.ITEM, codec=2, version=3)},
    ),
    "calls taken that nobody answers": (
        "3.07",
        {"up": on(Kind.HELLO, payload=pack_hello(service=CONFORMANCE.full_name, versions=(1, 3), max_calls=5))},
    ),
    "half a credit in WELCOME read": ("3.26", {"down": on(Kind.WELCOME, payload=pack_welcome(version=3))}),
    "half a one-way credit in WELCOME read": ("3.27", {"down": on(Kind.WELCOME, payload=pack_welcome(version=3))}),
    "flags of a REQUEST unseen on others": ("2.29", {"down": on(Kind.RESPONSE, flags=0)}),
    "flags that exclude each other": ("2.30", {"down": on(Kind.REQUEST, flags=0)}),
    "unknown flags unseen": ("2.31", {"down": on(Kind.REQUEST, flags=0)}),
    "a call without its id": ("2.32", {"down": drop(Kind.CANCEL)}),
    "opcode of a one-way credit unseen": ("2.33", {"down": on(Kind.CREDIT, opcode=0)}),
    "a payload before items read": ("2.34", {"down": on(Kind.REQUEST, payload=b"")}),
    "another codec": ("2.01", {"up": on(Kind.REQUEST, codec=1)}),
    "version 0": ("2.01", {"up": on(Kind.REQUEST, version=0)}),
    "another opcode": ("2.01", {"up": on(Kind.REQUEST, opcode=0x0B)}),
    "another payload": ("2.01", {"up": on(Kind.REQUEST, payload=b"\x91\xa1!")}),
    "one id for all": ("4.01", {"up": same_ids}),
    "flags unseen": ("2.15", {"down": on(Kind.RESPONSE, flags=0)}),
    "version unseen": ("2.19", {"down": on(Kind.RESPONSE, version=3)}),
    "opcode unseen": ("2.23", {"down": on(Kind.RESPONSE, opcode=0x08)}),
    "metadata unseen": ("2.26", {"down": on(Kind.ERROR, metadata=b"")}),
    "unknown kinds dropped": ("2.14", {"down": drop(13)}),
    "ignorable kinds refused": ("2.04", {"down": on(200, kind=13)}),
    "ITEM of a unary call taken": ("4.07", {"down": drop(Kind.ITEM)}),
    "END of a unary call taken": ("4.08", {"down": drop(Kind.END)}),
    "RESPONSE of a stream taken": ("4.47", {"down": drop(Kind.RESPONSE)}),
    "RESPONSE behind CANCEL taken": ("4.57", {"down": drop(Kind.RESPONSE)}),
    "CREDIT of a stream taken": ("4.58", {"down": drop(Kind.CREDIT)}),
    "its own call taken for the server's": ("7.02", {"down": drop(Kind.REQUEST)}),
    "CANCEL of its own call taken": ("7.03", {"down": drop(Kind.CANCEL)}),
    "CREDIT of its own call taken": ("7.04", {"down": drop(Kind.CREDIT)}),
    "a call of the server's unanswered": ("4.18", {"up": drop(Kind.ERROR)}),
    "a call of the server's refused without advice": ("4.18", {"up": every(lambda each: call_error(each, retry=0))}),
    "a call of the server's answered": (
        "4.18",
        {"up": on_if(of_the_server, kind=Kind.RESPONSE, codec=2, version=3, payload=b"")},
    ),
    "top bit unseen": ("4.19", {"down": on(Kind.REQUEST, call_id=TOP_BIT | 7)}),
    "top bit taken for an id": ("4.20", {"down": on(Kind.REQUEST, call_id=TOP_BIT | 7)}),
    "far ids taken": ("4.21", {"down": far_ids}),
    "ids behind taken": ("4.22", {"down": all_but_the_first(Kind.REQUEST)}),
    "ids end at their last one": ("4.23", {"down": on_if(lambda each: each.call_id == TOP_BIT | 1, call_id=TOP_BIT)}),
    "one-way calls taken": ("4.24", {"down": drop(Kind.REQUEST)}),
    "calls of a server that goes unanswered": ("4.25", {"up": drop(Kind.ERROR)}),
    "a bucket that is too small": ("4.26", {"down": crossing(999)}),
    "a bucket that is not refilled": ("4.26", {"down": crossing(1000)}),
    "no bucket": ("4.27", {"down": drop(Kind.END)}),
    "less chatter allowed": ("4.90", {"down": chatting(999)}),
    "no chatter for other frames": ("4.90", {"down": chatting(1000)}),
    "a flood of PINGs ended for another reason": (
        "10.03",
        {"up": every(lambda each: final_error(each, reason="TOO_MANY_FRAMES"))},
    ),
    "chatter without a limit": ("4.91", {"down": drop(200, Kind.PONG)}),
    "an ITEM of a refused call dropped": ("4.28", {"down": drop(Kind.ITEM)}),
    "answers of the server dropped": ("4.29", {"down": drop_if(of_the_server)}),
    "one-way credit refused": ("4.30", {"down": on(Kind.CREDIT, kind=13)}),
    "bytes of one-way credit unseen": ("4.31", {"down": on(Kind.CREDIT, payload=credit_body(1, 0))}),
    "one-way credit without a limit": ("4.32", {"down": drop(Kind.CREDIT)}),
    "another reason": ("2.14", {"up": every(lambda each: final_error(each, reason="BAD_BODY"))}),
    "another status": ("2.14", {"up": every(lambda each: final_error(each, status=14))}),
    "no final ERROR": ("2.14", {"up": drop(Kind.ERROR)}),
    "CANCEL not sent": ("4.03", {"up": drop(Kind.CANCEL)}),
    "CANCEL twice": ("4.03", {"up": twice(Kind.CANCEL)}),
    "CANCEL of another opcode": ("4.03", {"up": on(Kind.CANCEL, opcode=0x01)}),
    "CANCEL with a payload": ("4.03", {"up": on(Kind.CANCEL, payload=b"!")}),
    "no PONG": ("4.09", {"up": drop(Kind.PONG)}),
    "another PONG": ("4.09", {"up": on(Kind.PONG, payload=b"my bytes")}),
    "no heartbeat": ("4.11", {"up": drop(Kind.PING)}),
    "GOAWAY unheard": ("4.12", {"down": drop(Kind.GOAWAY)}),
    "GOAWAY twice": ("4.14", {"down": every(lambda each: [] if each.kind == Kind.GOAWAY else None)}),
    "advice lost": ("4.15", {"said": said(0, retry=0)}),
    "excluded calls in doubt": ("4.13", {"said": said(3, retry=2)}),
    "no first credit": ("4.40", {"up": on(Kind.REQUEST, metadata=b"")}),
    "no CREDIT": ("4.41", {"up": drop(Kind.CREDIT)}),
    "CREDIT of 0": ("4.41", {"up": on(Kind.CREDIT, payload=bytes(8))}),
    "CREDIT of items alone": ("4.41", {"up": on(Kind.CREDIT, payload=b"\0\0\0\1")}),
    "a first credit of no bytes": ("4.40", {"up": first_credit(8, 0)}),
    "bytes not granted again": ("4.53", {"up": on(Kind.CREDIT, payload=credit_body(4, 0))}),
    "bytes held to strictly": ("4.54", {"down": twice(Kind.ITEM)}),
    "bytes of credit unseen": ("4.55", {"down": all_but_the_first(Kind.ITEM)}),
    "items of credit unseen": ("4.56", {"down": all_but_the_first(Kind.ITEM)}),
    "items lost": ("4.40", {"said": said(0, items=[{"number": 0}, {"number": 2}])}),
    "items that are no objects": ("4.40", {"said": said(0, items=[0, 1, 2])}),
    "items that are no list": ("4.40", {"said": said(0, items=None)}),
    "an answer that is no object": ("11.49", {"said": says(0, {"response": ["x"]})}),
    "a result that is no object": ("2.01", {"said": says(0, ["x"])}),
    "positions not sent": ("4.100", {"up": on(Kind.REQUEST, metadata=b"\x05\x00\x08" + credit_body(8, 1 << 20))}),
    "positions of another item": ("4.101", {"up": asked_behind(b"-2", b"-1")}),
    "a given position not sent": ("4.102", {"up": asked_behind(b"1", b"2")}),
    "a gap not told": ("4.103", {"said": said(0, items=[{"number": n} for n in (0, 1, 7, 8)])}),
    "a gap before the first item not told": ("4.104", {"said": said(0, items=[{"number": 1}])}),
    "a gap told where there is none": (
        "4.100",
        {"said": said(0, items=[{"gap": 1}, *({"number": n} for n in range(5))])},
    ),
    "every error followed": ("4.105", {"said": said(0, status=14)}),
    "END not told": ("4.40", {"said": said(0, end=False)}),
    "left without CANCEL": ("4.44", {"up": drop(Kind.CANCEL)}),
    "an upload as a unary call": ("4.60", {"up": on(Kind.REQUEST, flags=0)}),
    "an upload with a payload": ("4.60", {"up": on_if(lambda each: each.flags == 4, payload=b"\x90")}),
    "an item lost": ("4.60", {"up": all_but_one(Kind.ITEM)}),
    "items twice": ("4.60", {"up": twice(Kind.ITEM)}),
    "no END of the items": ("4.60", {"up": drop(Kind.END)}),
    "END with a payload": ("4.60", {"up": on(Kind.END, payload=b"!")}),
    "END twice": ("4.60", {"up": twice(Kind.END)}),
    "ITEM of another opcode": ("4.60", {"up": on(Kind.ITEM, opcode=0x0E)}),
    "an upload's RESPONSE misread": ("4.60", {"said": said(0, total=11)}),
    "no END without items": ("4.61", {"up": drop(Kind.END)}),
    "items without credit": ("4.62", {"down": on(Kind.WELCOME, payload=welcoming(100, 1 << 20))}),
    "CREDIT for items unheard": ("4.62", {"down": drop(Kind.CREDIT)}),
    "no PONG while it waits": ("4.62", {"up": drop(Kind.PONG)}),
    "items without bytes": ("4.63", {"down": on(Kind.WELCOME, payload=welcoming(100, 1 << 20))}),
    "bytes of CREDIT unread": ("4.63", {"down": on(Kind.CREDIT, payload=credit_body(1, 0))}),
    "a first credit of its own": ("4.64", {"down": on(Kind.WELCOME, payload=welcoming(16, 1 << 16))}),
    "goes on behind an early answer": ("4.65", {"down": on(Kind.WELCOME, payload=welcoming(100, 1 << 20))}),
    "END behind an early answer": ("4.65", {"up": before(Kind.REQUEST, Kind.END)}),
    "goes on behind an early error": ("4.66", {"up": before(Kind.REQUEST, Kind.END)}),
    "an early error not told": ("4.66", {"said": said(0, reason="OTHER")}),
    "an upload left with END": ("4.67", {"up": on(Kind.CANCEL, kind=Kind.END)}),
    "an upload left without a word": ("4.67", {"up": drop(Kind.CANCEL)}),
    "a late upload not cancelled": ("4.68", {"up": drop(Kind.CANCEL)}),
    "a late upload without a deadline": ("4.68", {"up": on(Kind.REQUEST, metadata=b"")}),
    "credit of a request half without a limit": ("4.69", {"down": drop(Kind.CREDIT)}),
    "CREDIT behind END refused": ("4.70", {"down": on(Kind.CREDIT, kind=13)}),
    "ITEM of an upload taken": ("4.71", {"down": drop(Kind.ITEM)}),
    "END of an upload taken": ("4.71", {"down": drop(Kind.END)}),
    "a lost upload is not in doubt": ("4.72", {"said": said(0, retry=0)}),
    "uploads end with GOAWAY": ("4.73", {"up": all_but_the_first(Kind.ITEM)}),
    "an excluded upload in doubt": ("4.74", {"said": said(0, retry=2)}),
    "no first credit of a duplex call": ("4.75", {"up": on(Kind.REQUEST, metadata=b"")}),
    "no END of its half": ("4.75", {"up": drop(Kind.END)}),
    "END of a duplex call not told": ("4.75", {"said": said(0, end=False)}),
    "items that come back lost": ("4.75", {"said": said(0, items=[])}),
    "no CREDIT for what comes back": ("4.76", {"up": drop(Kind.CREDIT)}),
    "CREDIT of a duplex call unheard": ("4.76", {"down": drop(Kind.CREDIT)}),
    "goes on behind the other half's END": ("4.77", {"up": before(Kind.REQUEST, Kind.END)}),
    "an error of a duplex call not told": ("4.78", {"said": said(0, status=2)}),
    "a duplex call left without CANCEL": ("4.79", {"up": drop(Kind.CANCEL)}),
    "RESPONSE of a duplex call taken": ("4.80", {"down": drop(Kind.RESPONSE)}),
    "a one-way call as a unary one": ("4.85", {"up": on(Kind.REQUEST, flags=0)}),
    "a one-way call cancelled": ("4.85", {"up": cancelled_at_once}),
    "a one-way call twice": ("4.85", {"up": twice_if(lambda each: each.flags == 1)}),
    "one-way calls without credit": ("4.86", {"down": on(Kind.WELCOME, payload=welcoming(0, 0, 100))}),
    "one-way CREDIT unheard": ("4.86", {"down": drop(Kind.CREDIT)}),
    "a one-way credit of its own": ("4.87", {"down": on(Kind.WELCOME, payload=welcoming(0, 0, 100))}),
    "an answer of a one-way call refused": ("4.88", {"down": on(Kind.ERROR, kind=13, call_id=0, opcode=0)}),
    "metadata not sent": ("5.02", {"up": on(Kind.REQUEST, metadata=b"")}),
    "metadata of a RESPONSE lost": ("5.10", {"down": on(Kind.RESPONSE, metadata=b"")}),
    "dropped of an ITEM lost": ("5.11", {"down": on(Kind.ITEM, metadata=b"")}),
    "metadata of END lost": ("5.12", {"down": on(Kind.END, metadata=b"")}),
    "metadata spoil an ERROR": ("5.13", {"said": said(0, reason="BAD_METADATA")}),
    "broken metadata read over": ("5.14", {"down": on(Kind.RESPONSE, metadata=b"")}),
    "a name twice read over": ("5.15", {"down": on(Kind.END, metadata=b"")}),
    "a key not understood read over": ("5.16", {"down": on(Kind.ERROR, metadata=b"")}),
    "a broken ITEM read over": ("5.17", {"down": on(Kind.ITEM, metadata=b"")}),
    "a broken stream left without CANCEL": ("5.17", {"up": drop(Kind.CANCEL)}),
    "broken metadata end the connection": ("5.17", {"up": on(Kind.CANCEL, kind=7, call_id=0, opcode=0)}),
    "a key of ITEMs understood beside a RESPONSE": ("5.18", {"down": on(Kind.RESPONSE, metadata=b"")}),
    "a number of three bytes read": ("5.19", {"down": on(Kind.END, metadata=b"")}),
    "details of nobody spoil an ERROR": ("5.20", {"said": said(0, status=13)}),
    "broken details spoil an ERROR": ("5.21", {"said": said(0, status=13)}),
    "ERROR misread": ("9.01", {"said": said(0, retry_after_ms=0)}),
    "reason misread": ("9.01", {"said": said(0, reason="OTHER")}),
    "bad payload read": ("8.03", {"down": on(Kind.RESPONSE, payload=b"\x91\x05")}),
    "truncation unseen": ("8.02", {"up": drop(Kind.ERROR)}),
    "value misread": ("11.03", {"said": said(0, number=9223372036854775807.0)}),
}


def test_each_case_about_shapes_has_a_broken_client() -> None:
    """Of every rule of uploads, duplex and one-way calls there is a client that breaks it."""
    of_shapes = {number for number, case in CLIENT_CASES.cases.items() if case.needs is Needs.SHAPES}
    of_shapes -= {number for number in of_shapes if int(number.partition(".")[2]) >= 200}  # test_calling.py
    of_shapes -= {"c2.62"}  # of packed payloads: test_packing.py
    assert of_shapes
    assert of_shapes - {"c" + number for number, _ in CLIENT_MUTANTS.values()} == set()


@pytest.mark.parametrize("name", CLIENT_MUTANTS)
def test_a_broken_client_fails(name: str) -> None:
    """A client that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = CLIENT_MUTANTS[name]
    case = CLIENT_CASES.cases["c" + number]
    case.run(Trial((2, "msgpack"), 3, Broken()))
    with pytest.raises(Deviation):
        case.run(Trial((2, "msgpack"), 3, Broken(**changes), patience=0.3, slow_patience=1.0))
