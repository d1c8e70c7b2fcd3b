"""The server cases: ours passes them, and a server that breaks a rule fails the case of that rule."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.conftest import QUICK
from tests.conformance.mutants import Change, Mutant, call_error, changed, drop, every, final_error, on, twice
from tests.server.service import Stage
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import SECTIONS, Deviation, Needs, Run, Verdict
from wireproto.conformance.raw import RawFrame, frame, pack_welcome
from wireproto.conformance.runner import Selection
from wireproto.conformance.server import judge_server
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import CONFORMANCE, RETIRED
from wireproto.control import CONTROL
from wireproto.server import Server
from wireproto.wire.frame import Kind


def not_passed(runs: list[Run]) -> list[str]:
    return [f"{run.name}: {run.case.text}\n    {run.detail}" for run in runs if run.verdict is not Verdict.PASSED]


def test_our_server_conforms_in_its_newest_version(address: tuple[str, int]) -> None:
    """Our server passes every case in every codec."""
    runs = judge_server(address, Selection(versions=[2]))
    ended = [run for run in runs if run.case.needs is Needs.PROCESS]
    assert not_passed([run for run in runs if run not in ended]) == []
    assert {run.verdict for run in ended} == {Verdict.SKIPPED}


@pytest.mark.long
def test_our_server_conforms(address: tuple[str, int]) -> None:
    """Our server passes every case in every codec and version."""
    runs = judge_server(address)
    assert not_passed([run for run in runs if run.case.needs is not Needs.PROCESS]) == []


def test_another_server_is_judged_by_what_every_server_has() -> None:
    """A server without the conformance service passes what needs only the framework, and the rest is not judged."""
    with Server(Stage().handlers, port=0, limits=QUICK) as server:
        runs = judge_server((server.address.host, server.address.port), Selection(codecs=["msgpack"]))
    assert {run.case.id for run in runs if run.verdict is Verdict.SKIPPED} == {
        run.case.id for run in runs if run.case.needs is not Needs.NOTHING
    }
    assert sum(run.verdict is Verdict.PASSED for run in runs) > 100
    assert [run for run in runs if run.verdict is Verdict.FAILED] == []


def test_there_are_enough_cases() -> None:
    """Every section of the document has cases, and each case is a sentence."""
    assert {case.section for case in SERVER_CASES.cases.values()} == set(SECTIONS)
    assert len(SERVER_CASES.cases) >= 150
    assert len({case.text for case in SERVER_CASES.cases.values()}) == len(SERVER_CASES.cases)


# What a careless server does --------------------------------------------------------------------------------------


def generous() -> Change:
    """Each CREDIT is taken for one more than it is."""

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind != Kind.CREDIT or len(each.payload) != 4:
            return None
        (amount,) = struct.unpack(">I", each.payload)
        return [changed(each, payload=struct.pack(">I", min(amount + 1, 0xFFFF_FFFF)))]

    return change


def renumbered() -> Change:
    """Ids that are not ahead are given ones that are."""
    last = 0

    def change(each: RawFrame) -> list[bytes] | None:
        nonlocal last
        if each.kind != Kind.REQUEST:
            return None
        last = max(last + 1, each.call_id)
        return [changed(each, call_id=last)]

    return change


def swapped() -> Change:
    """Every second item comes before the first one."""
    held: list[bytes] = []

    def change(each: RawFrame) -> list[bytes] | None:
        if each.kind != Kind.ITEM:
            return None
        held.append(changed(each))
        if len(held) < 2:
            return []
        pair = held[::-1]
        held.clear()
        return pair

    return change


def described(payload: bytes) -> Callable[[], Change]:
    """Every answer of Describe is this one."""
    return every(
        lambda each: [changed(each, payload=payload)] if (each.kind, each.opcode) == (Kind.RESPONSE, 0xF001) else None
    )


def taken_for(written: bytes, read: bytes) -> Callable[[], Change]:
    """One text in a request is taken for another one."""
    return every(lambda each: [changed(each, payload=each.payload.replace(written, read))])


SMALL = pack_welcome(max_frame=4095)

SERVER_MUTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no preamble": ("1.01", {"preamble": b""}),
    "another preamble": ("1.01", {"preamble": b"\xf5WP\x02"}),
    "flags unseen": ("2.18", {"up": on(Kind.REQUEST, flags=0)}),
    "codec unseen": ("2.20", {"up": on(Kind.REQUEST, codec=2)}),
    "version unseen": ("2.26", {"up": on(Kind.REQUEST, version=2)}),
    "codec of CANCEL unseen": ("2.22", {"up": on(Kind.CANCEL, codec=0)}),
    "ids of PING unseen": ("2.33", {"up": on(Kind.PING, call_id=0)}),
    "opcode of PING unseen": ("2.35", {"up": on(Kind.PING, opcode=0)}),
    "metadata of PING unseen": ("2.38", {"up": on(Kind.PING, metadata=b"")}),
    "unknown kinds dropped": ("2.13", {"up": drop(13)}),
    "ignorable kinds refused": ("2.15", {"up": on(200, kind=13)}),
    "metadata overrun cut": ("2.10", {"up": every(lambda each: [changed(each)])}),
    "wrong call id": ("2.01", {"down": on(Kind.RESPONSE, call_id=77)}),
    "wrong opcode in answers": ("2.01", {"down": on(Kind.RESPONSE, opcode=77)}),
    "wrong codec in answers": ("2.01", {"down": on(Kind.RESPONSE, codec=0)}),
    "version 0 in answers": ("2.01", {"down": on(Kind.RESPONSE, version=0)}),
    "flags in answers": ("2.01", {"down": on(Kind.RESPONSE, flags=1)}),
    "metadata in answers": ("2.01", {"down": on(Kind.RESPONSE, metadata=b"\x07\x00\x00")}),
    "answers empty": ("2.01", {"down": on(Kind.RESPONSE, payload=b"")}),
    "answers twice": ("2.01", {"down": twice(Kind.RESPONSE)}),
    "no answers": ("2.01", {"down": on(Kind.RESPONSE, kind=200)}),
    "WELCOME too small": ("3.01", {"down": on(Kind.WELCOME, payload=SMALL)}),
    "WELCOME cut": ("3.01", {"down": on(Kind.WELCOME, payload=SMALL[:9])}),
    "favourite codec": ("3.02", {"down": on(Kind.WELCOME, payload=pack_welcome(version=2, codec=1))}),
    "features granted": ("3.12", {"down": on(Kind.WELCOME, payload=pack_welcome(version=2, codec=2, features=1))}),
    "early frames read": ("3.45", {"up": drop(Kind.PING)}),
    "ids unseen": ("4.06", {"up": renumbered}),
    "CANCEL unheard": ("4.12", {"up": drop(Kind.CANCEL)}),
    "CANCEL wrongly answered": ("4.12", {"down": every(lambda each: call_error(each, reason="ABORTED"))}),
    "DEADLINE with another status": ("4.18", {"down": every(lambda each: call_error(each, status=1))}),
    "DEADLINE without advice": ("4.19", {"down": every(lambda each: call_error(each, retry=0))}),
    "TOO_MANY_CALLS without advice": ("4.21", {"down": every(lambda each: call_error(each, retry=2))}),
    "no PONG": ("4.23", {"down": drop(Kind.PONG)}),
    "another PONG": ("4.23", {"down": on(Kind.PONG, payload=b"my bytes")}),
    "items out of order": ("4.40", {"down": swapped}),
    "no END": ("4.40", {"down": drop(Kind.END)}),
    "END twice": ("4.40", {"down": twice(Kind.END)}),
    "END with a payload": ("4.40", {"down": on(Kind.END, payload=b"!")}),
    "credit overdrawn": ("4.41", {"up": generous}),
    "items twice": ("4.41", {"down": twice(Kind.ITEM)}),
    "CREDIT unheard": ("4.41", {"up": drop(Kind.CREDIT)}),
    "CREDIT of 0 read": ("4.55", {"up": on(Kind.CREDIT, payload=b"\0\0\0\1")}),
    "metadata unread": ("5.05", {"up": on(Kind.REQUEST, metadata=b"")}),
    "bad metadata read": ("5.16", {"up": on(Kind.REQUEST, metadata=b"")}),
    "metadata that must be understood unread": ("5.11", {"up": on(Kind.REQUEST, metadata=b"")}),
    "a client's final ERROR answered": ("6.01", {"up": on(Kind.ERROR, kind=13)}),
    "a call's ERROR read": ("7.06", {"up": drop(Kind.ERROR)}),
    "resets": ("8.06", {"reset": True}),
    "final ERROR lost": ("8.07", {"down": every(lambda each: [] if each.kind == Kind.ERROR else None)}),
    "another reason": ("2.18", {"down": every(lambda each: final_error(each, reason="BAD_BODY"))}),
    "another status": ("2.18", {"down": every(lambda each: final_error(each, status=13))}),
    "an ERROR without its message": ("2.18", {"down": on(Kind.ERROR, payload=b"\x03\0\0\0\0\0\0")}),
    "goes on behind a final ERROR": (
        "8.07",
        {"down": every(lambda each: [changed(each), frame(Kind.PONG, bytes(8))] if each.kind == Kind.ERROR else None)},
    ),
    "opcodes confused": ("9.03", {"up": on(Kind.REQUEST, opcode=RETIRED.opcode)}),
    "nothing described": ("13.05", {"down": described(b"\x92\xa0\x90")}),
    "defaults in JSON": ("13.10", {"down": taken_for(b"\xa2\\N", b"\xa4null")}),
    "fields renamed": ("13.09", {"down": taken_for(b"\xa7by_text", b"\xa7by_word")}),
    "bounds in brackets": ("13.11", {"down": taken_for(b"\xa3255", b"\xa5[255]")}),
    "its own service described": ("13.12", {"up": taken_for(b"\x91\xa0", b"\x91\xbd" + CONTROL.full_name.encode())}),
    "digits cut off": ("12.06", {"up": taken_for(b"0.1000000000000000055511151231257827", b"0.10000000000000002")}),
    "rounded up": ("12.07", {"up": taken_for(b"9007199254740993", b"9007199254740994")}),
    "only its own text read": ("12.08", {"up": taken_for(b"900719925474099.3", b"900719925474099.375")}),
    "bad payload read": ("12.51", {"up": on(Kind.REQUEST, payload=b"\x90")}),
}


@pytest.mark.parametrize("name", SERVER_MUTANTS)
def test_a_broken_server_fails(name: str, address: tuple[str, int]) -> None:
    """A server that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = SERVER_MUTANTS[name]
    case = SERVER_CASES.cases["s" + number]
    codec = (1, "pipe") if case.only == ("pipe",) else (2, "msgpack")
    right = Bench(address, codec, 2, CONFORMANCE.full_name, 2)
    case.run(right)
    with Mutant(address, **changes) as mutant, pytest.raises(Deviation):
        case.run(replace(right, address=mutant.address, patience=0.3))
