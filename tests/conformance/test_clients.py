"""The client cases: ours passes them, and a client that breaks a rule fails the case of that rule."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conformance.mutants import Mutant, changed, drop, every, final_error, instead, on, twice
from wireproto.conformance import adapter
from wireproto.conformance.callee import Trial
from wireproto.conformance.case import SECTIONS, Deviation, Verdict
from wireproto.conformance.client import judge_client
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.raw import RawFrame, frame, pack_hello
from wireproto.conformance.runner import Selection
from wireproto.wire.frame import Kind

OURS = [sys.executable, "-m", "wireproto.conformance.adapter"]


def test_our_client_conforms() -> None:
    """Our client passes every case in every codec, in its newest version."""
    runs = judge_client(OURS, Selection(versions=[2]), jobs=3)
    assert [f"{run.name}: {run.detail}" for run in runs if run.verdict is not Verdict.PASSED] == []


@pytest.mark.long
def test_our_client_conforms_in_every_version() -> None:
    """Our client passes every case in every codec and version."""
    runs = judge_client(OURS, jobs=3)
    assert [f"{run.name}: {run.detail}" for run in runs if run.verdict is not Verdict.PASSED] == []


def test_there_are_enough_cases() -> None:
    """Every section that says something of clients has cases, and each case is a sentence."""
    assert {case.section for case in CLIENT_CASES.cases.values()} == set(SECTIONS) - {10, 13}
    assert len(CLIENT_CASES.cases) >= 150


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


CLIENT_MUTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no codec offered": ("3.01", {"up": on(Kind.HELLO, payload=pack_hello(codecs=[]))}),
    "another service": ("3.01", {"up": on(Kind.HELLO, payload=pack_hello(service="other.v1.OtherService"))}),
    "HELLO with flags": ("3.01", {"up": on(Kind.HELLO, flags=1)}),
    "impatient": ("3.02", {"up": instead(Kind.HELLO, frame(Kind.HELLO, pack_hello()), frame(Kind.PING, bytes(8)))}),
    "HELLO cut": ("1.01", {"up": on(Kind.HELLO, payload=b"\x01\x01")}),
    "WELCOME believed": ("3.15", {"down": on(Kind.WELCOME, kind=200)}),
    "flags on a REQUEST": ("2.01", {"up": on(Kind.REQUEST, flags=2)}),
    "another codec": ("2.01", {"up": on(Kind.REQUEST, codec=1)}),
    "version 0": ("2.01", {"up": on(Kind.REQUEST, version=0)}),
    "another opcode": ("2.01", {"up": on(Kind.REQUEST, opcode=0x0B)}),
    "another payload": ("2.01", {"up": on(Kind.REQUEST, payload=b"\x91\xa1!")}),
    "one id for all": ("4.01", {"up": same_ids}),
    "flags unseen": ("2.15", {"down": on(Kind.RESPONSE, flags=0)}),
    "version unseen": ("2.19", {"down": on(Kind.RESPONSE, version=2)}),
    "opcode unseen": ("2.23", {"down": on(Kind.RESPONSE, opcode=0x08)}),
    "metadata unseen": ("2.26", {"down": on(Kind.RESPONSE, metadata=b"")}),
    "unknown kinds dropped": ("2.14", {"down": drop(13)}),
    "ignorable kinds refused": ("2.04", {"down": on(200, kind=13)}),
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
    "CREDIT of 0": ("4.41", {"up": on(Kind.CREDIT, payload=bytes(4))}),
    "items lost": ("4.40", {"said": said(0, items=[{"number": 0}, {"number": 2}])}),
    "items that are no objects": ("4.40", {"said": said(0, items=[0, 1, 2])}),
    "items that are no list": ("4.40", {"said": said(0, items=None)}),
    "an answer that is no object": ("11.49", {"said": says(0, {"response": ["x"]})}),
    "a result that is no object": ("2.01", {"said": says(0, ["x"])}),
    "END not told": ("4.40", {"said": said(0, end=False)}),
    "left without CANCEL": ("4.44", {"up": drop(Kind.CANCEL)}),
    "metadata not sent": ("5.02", {"up": on(Kind.REQUEST, metadata=b"")}),
    "ERROR misread": ("9.01", {"said": said(0, retry_after_ms=0)}),
    "reason misread": ("9.01", {"said": said(0, reason="OTHER")}),
    "bad payload read": ("8.03", {"down": on(Kind.RESPONSE, payload=b"\x91\x05")}),
    "truncation unseen": ("8.02", {"up": drop(Kind.ERROR)}),
    "value misread": ("11.03", {"said": said(0, number=9223372036854775807.0)}),
}


@pytest.mark.parametrize("name", CLIENT_MUTANTS)
def test_a_broken_client_fails(name: str) -> None:
    """A client that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = CLIENT_MUTANTS[name]
    case = CLIENT_CASES.cases["c" + number]
    case.run(Trial((2, "msgpack"), 2, Broken()))
    with pytest.raises(Deviation):
        case.run(Trial((2, "msgpack"), 2, Broken(**changes), patience=0.3, slow_patience=1.0))
