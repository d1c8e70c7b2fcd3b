"""The server cases: ours passes them, and a server that breaks a rule fails the case of that rule."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.conftest import QUICK
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
    of_the_server,
    on,
    on_if,
    same_or_behind,
    twice,
    twice_if,
)
from tests.conformance.test_answers import ANSWER_MUTANTS
from tests.server.service import Stage
from wireproto.conformance.caller import Bench
from wireproto.conformance.case import SECTIONS, Deviation, Needs, Run, Verdict
from wireproto.conformance.page import TOP_BIT, credit_body, error_body, goaway_body, tlv
from wireproto.conformance.raw import RawFrame, frame, pack_hello, pack_welcome
from wireproto.conformance.runner import Selection
from wireproto.conformance.server import judge_server
from wireproto.conformance.servers import SERVER_CASES
from wireproto.conformance.service import CONFORMANCE, COUNT, RETIRED
from wireproto.control import CONTROL
from wireproto.server import Server
from wireproto.wire.frame import Kind


def not_passed(runs: list[Run]) -> list[str]:
    return [f"{run.name}: {run.case.text}\n    {run.detail}" for run in runs if run.verdict is not Verdict.PASSED]


def test_our_server_conforms_in_its_newest_version(address: tuple[str, int]) -> None:
    """Our server passes every case in every codec."""
    runs = judge_server(address, Selection(versions=[3]))
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
        if each.kind != Kind.CREDIT or len(each.payload) != 8:
            return None
        items, size = struct.unpack(">II", each.payload)
        return [changed(each, payload=credit_body(min(items + 1, 0xFFFF_FFFF), size))]

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


def unasked(*frames: Callable[[RawFrame], bytes]) -> Callable[[], Change]:
    """Before each RESPONSE come these, of the same call or of none."""
    return every(lambda each: [*(made(each) for made in frames), changed(each)] if each.kind == Kind.RESPONSE else None)


def a_one_way_credit(each: RawFrame) -> bool:
    return each.kind == Kind.CREDIT and not each.call_id


def a_credit_of_a_call(each: RawFrame) -> bool:
    return each.kind == Kind.CREDIT and bool(each.call_id)


def a_large_item(each: RawFrame) -> bool:
    return each.kind == Kind.ITEM and len(each.payload) > 1000


def an_early_item(each: RawFrame) -> bool:
    """Whether it asks for an answer, as msgpack has it."""
    return each.kind == Kind.ITEM and each.payload.endswith(b"\xc2\xc3\x00")


def a_failing_item(each: RawFrame) -> bool:
    return each.kind == Kind.ITEM and each.payload.endswith(b"\xc3\xc2\x00")


def all_but(kind: int, every_so_many: int = 1000) -> Callable[[], Change]:
    """The first frame of a kind is lost, and then each of so many."""

    def made() -> Change:
        seen = 0

        def change(each: RawFrame) -> list[bytes] | None:
            nonlocal seen
            seen += each.kind == kind
            return [] if each.kind == kind and seen % every_so_many == 1 else None

        return change

    return made


def lent(items: int) -> Callable[[], Change]:
    """Every REQUEST without credit has some."""
    block = b"\x05\x00\x08" + credit_body(items, 1 << 20)
    return on_if(lambda each: each.kind == Kind.REQUEST and not each.metadata, metadata=block)


def position(value: bytes) -> bytes:
    """The metadata that ask to go on behind a position."""
    return b"\x07" + len(value).to_bytes(2) + value


def left_out(items: int) -> bytes:
    """The metadata that say how many items were left out."""
    return b"\x08\x00\x04" + items.to_bytes(4)


def asked_behind(written: bytes, read: bytes) -> Callable[[], Change]:
    """One position is taken for another one."""
    return every(
        lambda each: (
            [changed(each, metadata=each.metadata.replace(position(written), position(read)))]
            if position(written) in each.metadata
            else None
        )
    )


def without_position() -> Callable[[], Change]:
    """Key 7 is read over."""

    def change(each: RawFrame) -> list[bytes] | None:
        kept, block = b"", each.metadata
        while block:
            size = 3 + int.from_bytes(block[1:3])
            kept += block[:size] if block[0] != 7 else b""
            block = block[size:]
        return [changed(each, metadata=kept)]

    return every(change)


def lent_more(items: int) -> Callable[[], Change]:
    """Every first credit of 2 items is taken for this one."""
    return every(
        lambda each: [
            changed(each, metadata=each.metadata.replace(credit_body(2, 1 << 20), credit_body(items, 1 << 20)))
        ]
    )


def behind_the_first(each: RawFrame) -> bytes:
    """A REQUEST that asks to go on behind the position of the first item."""
    return changed(each, metadata=each.metadata + position(b"-2"))


def again_with_the_next_id() -> Change:
    """Each one-way call comes twice; all ids move on so that nobody minds."""

    def change(each: RawFrame) -> list[bytes] | None:
        if each.flags != 1:
            return None
        return [changed(each, call_id=each.call_id), changed(each, call_id=each.call_id + 100)]

    return change


def late_credit() -> bytes:
    """For the first call, which is an upload."""
    return frame(Kind.CREDIT, credit_body(1, 1), call_id=1, opcode=0x0D)


SMALL = pack_welcome(max_frame=4095)
HALF_A_CREDIT = pack_welcome(version=3, codec=2, fields=tlv(5, bytes(4)))
GREETING = pack_hello(service=CONFORMANCE.full_name, versions=(3, 3))

SERVER_MUTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no preamble": ("1.01", {"preamble": b""}),
    "another preamble": ("1.01", {"preamble": b"\xf5WP\x02"}),
    "flags unseen": ("2.18", {"up": on(Kind.REQUEST, flags=0)}),
    "codec unseen": ("2.20", {"up": on(Kind.REQUEST, codec=2)}),
    "version unseen": ("2.26", {"up": on(Kind.REQUEST, version=3)}),
    "codec of CANCEL unseen": ("2.22", {"up": on(Kind.CANCEL, codec=0)}),
    "ids of PING unseen": ("2.33", {"up": on(Kind.PING, call_id=0)}),
    "opcode of PING unseen": ("2.35", {"up": on(Kind.PING, opcode=0)}),
    "metadata of ITEM unseen": ("2.60", {"up": on(Kind.ITEM, metadata=b"")}),
    "metadata of END unseen": ("2.61", {"up": on(Kind.END, metadata=b"")}),
    "metadata of PING unseen": ("2.38", {"up": on(Kind.PING, metadata=b"")}),
    "flags of a one-way call unseen": ("2.53", {"up": on(Kind.REQUEST, flags=0)}),
    "flags of CANCEL unseen": ("2.54", {"up": on(Kind.CANCEL, flags=0)}),
    "opcode of a one-way credit unseen": ("2.32", {"up": on(Kind.CREDIT, opcode=0)}),
    "ids of GOAWAY unseen": ("2.58", {"up": on(Kind.GOAWAY, call_id=0)}),
    "opcode of GOAWAY unseen": ("2.59", {"up": on(Kind.GOAWAY, opcode=0)}),
    "an ITEM without a call dropped": ("2.56", {"up": drop(Kind.ITEM)}),
    "a RESPONSE without a call dropped": ("2.55", {"up": drop(Kind.RESPONSE)}),
    "an END without a call dropped": ("2.57", {"up": drop(Kind.END)}),
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
    "half a credit in WELCOME": ("3.01", {"down": on(Kind.WELCOME, payload=HALF_A_CREDIT)}),
    "first credit of HELLO unread": ("3.61", {"up": on(Kind.HELLO, payload=GREETING)}),
    "one-way credit of HELLO unread": ("3.62", {"up": on(Kind.HELLO, payload=GREETING)}),
    "calls of its own": (
        "2.01",
        {"down": unasked(lambda each: frame(Kind.REQUEST, codec=2, version=3, opcode=1, call_id=TOP_BIT | 1))},
    ),
    "credit for what does not come": (
        "2.01",
        {"down": unasked(lambda each: changed(each, kind=Kind.CREDIT, codec=0, version=0, payload=credit_body(1, 1)))},
    ),
    "WELCOME cut": ("3.01", {"down": on(Kind.WELCOME, payload=SMALL[:9])}),
    "favourite codec": ("3.02", {"down": on(Kind.WELCOME, payload=pack_welcome(version=3, codec=1))}),
    "features granted": ("3.12", {"down": on(Kind.WELCOME, payload=pack_welcome(version=3, codec=2, features=1))}),
    "early frames read": ("3.45", {"up": drop(Kind.PING)}),
    "ids unseen": ("4.06", {"up": renumbered}),
    "far ids taken": ("4.05", {"up": far_ids}),
    "ids do not begin again": ("4.08", {"up": same_or_behind}),
    "ids end at their last one": ("4.32", {"up": same_or_behind}),
    "top bit unseen": ("4.33", {"up": on_if(of_the_server, call_id=5)}),
    "top bit taken for an id": ("4.34", {"up": on_if(of_the_server, call_id=5)}),
    "two errors behind CANCEL": ("4.35", {"down": twice(Kind.ERROR)}),
    "another end behind CANCEL": ("4.35", {"down": every(lambda each: call_error(each, reason="DEADLINE"))}),
    "items behind CANCEL": ("4.36", {"up": drop(Kind.CANCEL)}),
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
    "CREDIT of 0 read": ("4.55", {"up": on(Kind.CREDIT, payload=credit_body(1, 1))}),
    "CREDIT without bytes read": ("4.61", {"up": on(Kind.CREDIT, payload=credit_body(1, 1))}),
    "credit without a limit": ("4.50", {"up": drop(Kind.CREDIT)}),
    "bytes of credit unseen": ("4.62", {"up": first_credit(100, 1 << 30)}),
    "items of credit unseen": ("4.63", {"up": first_credit(100, 1 << 20)}),
    "bytes held to strictly": ("4.64", {"down": drop(Kind.ITEM)}),
    "bytes not taken": ("4.64", {"up": first_credit(10, 1 << 20)}),
    "bytes of CREDIT unread": (
        "4.65",
        {"up": on(Kind.CREDIT, payload=credit_body(1, 0))},
    ),
    "END held back for bytes": ("4.66", {"down": drop(Kind.END)}),
    "shapes unseen": ("4.80", {"up": on(Kind.REQUEST, flags=0)}),
    "WRONG_SHAPE without advice": ("4.80", {"down": every(lambda each: call_error(each, retry=0))}),
    "WRONG_SHAPE with another status": ("4.80", {"down": every(lambda each: call_error(each, status=3))}),
    "WRONG_SHAPE ends the connection": ("4.80", {"up": on_if(lambda each: each.flags == 8, flags=2)}),
    "a stream as a unary call": ("4.81", {"up": on_if(lambda each: each.opcode == COUNT.opcode, flags=8)}),
    "items that follow unseen": ("4.82", {"up": on(Kind.REQUEST, flags=0)}),
    "a payload before items read": ("4.83", {"up": on(Kind.REQUEST, payload=b"")}),
    "one-way calls taken": ("4.84", {"up": drop_if(lambda each: each.flags == 1)}),
    "the first item lost": ("4.100", {"up": all_but(Kind.ITEM)}),
    "an upload without items unanswered": ("4.101", {"up": drop(Kind.END)}),
    "no CREDIT for what was taken": ("4.102", {"down": drop(Kind.CREDIT)}),
    "an item lost": ("4.102", {"up": all_but(Kind.ITEM, 100)}),
    "items cut to their credit": ("4.103", {"up": on_if(a_large_item, payload=b"\x95\x01\xc4\x00\xc2\xc2\x00")}),
    "bytes not granted again": ("4.103", {"down": on_if(a_credit_of_a_call, payload=credit_body(8, 0))}),
    "an early answer held back": ("4.104", {"up": on_if(an_early_item, payload=b"\x95\x02\xc4\x00\xc2\xc2\x00")}),
    "what crosses an early answer refused": ("4.104", {"down": twice(Kind.RESPONSE)}),
    "an upload that never fails": ("4.105", {"up": on_if(a_failing_item, payload=b"\x95\x00\xc4\x00\xc2\xc2\x00")}),
    "a bad item read": (
        "4.106",
        {"up": on_if(lambda each: each.payload == b"\xff" * 3, payload=b"\x95\x00\xc4\x00\xc2\xc2\x00")},
    ),
    "a bad item ends the connection": ("4.106", {"up": on_if(lambda each: each.payload == b"\xff" * 3, kind=13)}),
    "CANCEL of an upload unheard": ("4.107", {"up": drop(Kind.CANCEL)}),
    "CANCEL heard with the next item": ("4.108", {"up": drop(Kind.CANCEL)}),
    "deadline of an upload unread": ("4.109", {"up": on(Kind.REQUEST, metadata=b"")}),
    "credit for what was not taken": ("4.110", {"up": on(Kind.ITEM, payload=b"\x95\x00\xc4\x00\xc2\xc2\x00")}),
    "items beyond the credit dropped": ("4.110", {"up": all_but_the_first(Kind.ITEM)}),
    "bytes beyond the credit taken": ("4.111", {"up": on_if(a_large_item, payload=b"\x95\x00\xc4\x00\xc2\xc2\x00")}),
    "items that cross refused": ("4.112", {"up": twice(Kind.ITEM)}),
    "items that cross all dropped": ("4.113", {"up": all_but_the_first(Kind.ITEM)}),
    "shapes of uploads unseen": ("4.114", {"up": on_if(lambda each: each.opcode == 0x0D, flags=4)}),
    "uploads mixed up": ("4.115", {"up": on(Kind.ITEM, call_id=1)}),
    "items of a duplex call kept": ("4.120", {"down": drop(Kind.ITEM)}),
    "END of a half ends the call": ("4.121", {"up": on(Kind.END, kind=Kind.CANCEL)}),
    "answers without credit": ("4.121", {"up": lent(10)}),
    "no CREDIT for a duplex call": ("4.122", {"down": drop(Kind.CREDIT)}),
    "CREDIT of a duplex call unheard": ("4.122", {"up": drop(Kind.CREDIT)}),
    "END of the answer half waits for the other": ("4.123", {"up": on(Kind.ITEM, payload=b"\x94\x01\xc4\x00\xc2\xc2")}),
    "a duplex call that never fails": ("4.124", {"up": on(Kind.ITEM, payload=b"\x94\x01\xc4\x00\xc2\xc2")}),
    "CANCEL of a duplex call unheard": ("4.125", {"up": drop(Kind.CANCEL)}),
    "a stream that begins behind its first item": (
        "4.140",
        {"up": every(lambda each: [behind_the_first(each)] if each.kind == Kind.REQUEST else None)},
    ),
    "positions unread": ("4.141", {"up": without_position()}),
    "a stream that is gone on with begins anew at its end": ("4.142", {"up": without_position()}),
    "no more than what is kept": ("4.143", {"up": asked_behind(b"0", b"-9")}),
    "positions never lost": ("4.144", {"up": without_position()}),
    "POSITION_LOST without advice": ("4.144", {"down": every(lambda each: call_error(each, retry=0))}),
    "POSITION_LOST with another status": ("4.144", {"down": every(lambda each: call_error(each, status=5))}),
    "numbers written in any way": ("4.145", {"up": asked_behind(b"+1", b"1")}),
    "positions where there are none": ("4.146", {"up": without_position()}),
    "positions of unary calls": ("4.147", {"up": asked_behind(b"1", b"")}),
    "positions before payloads": ("4.148", {"down": every(lambda each: call_error(each, reason="POSITION_LOST"))}),
    "credit for a stream that is gone on with": ("4.149", {"up": lent_more(4)}),
    "an empty position read": ("5.50", {"up": asked_behind(b"", b"1")}),
    "a long position read": ("5.51", {"up": asked_behind(bytes(65), b"1")}),
    "two positions read": ("5.52", {"up": without_position()}),
    "nothing told of what was left out": ("4.150", {"down": on(Kind.ITEM, metadata=b"")}),
    "something told of nothing left out": ("4.151", {"down": on(Kind.ITEM, metadata=left_out(1))}),
    "told again and again": ("4.152", {"down": on(Kind.ITEM, metadata=left_out(4))}),
    "SLOW_CONSUMER with another status": ("4.153", {"down": every(lambda each: call_error(each, status=14))}),
    "SLOW_CONSUMER without advice": ("4.153", {"down": every(lambda each: call_error(each, retry=0))}),
    "the last item of the slow lost": ("4.154", {"down": all_but(Kind.ITEM)}),
    "a one-way call answered": ("4.130", {"up": on_if(lambda each: each.flags == 1, flags=0)}),
    "one-way calls lost": ("4.130", {"up": drop_if(lambda each: each.flags == 1)}),
    "one-way calls carried out twice": ("4.130", {"up": again_with_the_next_id}),
    "no one-way credit": ("4.131", {"down": drop_if(a_one_way_credit)}),
    "bytes in one-way credit": ("4.131", {"down": on_if(a_one_way_credit, payload=credit_body(1, 1))}),
    "a bad one-way call ends the connection": (
        "4.132",
        {"up": on_if(lambda each: each.payload == b"\xff" * 3, kind=13)},
    ),
    "a bad one-way call refused": ("4.132", {"up": on_if(lambda each: each.payload == b"\xff" * 3, flags=0)}),
    "a one-way call of no method refused": ("4.133", {"up": on_if(lambda each: each.flags == 1, flags=0)}),
    "a late one-way call carried out": ("4.134", {"up": on(Kind.REQUEST, metadata=b"")}),
    "one-way credit refused": ("4.85", {"up": on_if(a_one_way_credit, kind=13)}),
    "bytes of one-way credit unseen": ("4.86", {"up": on_if(a_one_way_credit, payload=credit_body(1, 0))}),
    "one-way credit without a limit": ("4.87", {"up": drop_if(a_one_way_credit)}),
    "strays refused": ("4.88", {"up": twice_if(of_the_server)}),
    "strays uncounted": ("4.89", {"up": drop_if(of_the_server)}),
    "an ITEM of a call that never was dropped": ("4.90", {"up": drop(Kind.ITEM)}),
    "an ITEM of a call that is over dropped": ("4.91", {"up": drop(Kind.ITEM)}),
    "END of a refused call refused": ("4.92", {"up": on(Kind.END, kind=Kind.ITEM, codec=2, version=3)}),
    "ITEMs of a refused call all dropped": ("4.93", {"up": drop(Kind.ITEM)}),
    "a bucket that is too small": ("4.94", {"up": crossing(999)}),
    "a bucket that is not refilled": ("4.94", {"up": crossing(1000)}),
    "no bucket": ("4.95", {"up": drop(Kind.END)}),
    "less chatter allowed": ("4.136", {"up": chatting(999)}),
    "no chatter for other frames": ("4.136", {"up": chatting(1000)}),
    "chatter without a limit": ("4.137", {"up": drop(200, Kind.PONG)}),
    "END of a unary half taken": ("7.04", {"up": drop(Kind.END)}),
    "CREDIT of a unary call taken": ("7.05", {"up": drop(Kind.CREDIT)}),
    "ITEM of a unary call taken": ("7.06", {"up": drop(Kind.ITEM)}),
    "a client's ERROR taken": ("7.07", {"up": drop(Kind.ERROR)}),
    "a client's RESPONSE dropped": ("7.08", {"up": drop(Kind.RESPONSE)}),
    "ITEM behind END dropped": ("7.09", {"up": all_but_the_first(Kind.ITEM)}),
    "END behind END dropped": ("7.09", {"up": all_but_the_first(Kind.END)}),
    "RESPONSE of an upload dropped": ("7.10", {"up": drop(Kind.RESPONSE)}),
    "CREDIT of an upload's answer taken": ("7.10", {"up": drop(Kind.CREDIT)}),
    "opcode of an ITEM unseen": ("7.11", {"up": on(Kind.ITEM, opcode=0x0D)}),
    "opcode of an END unseen": ("7.11", {"up": on(Kind.END, opcode=0x0D)}),
    "an open upload is answered": (
        "8.13",
        {
            "down": on_if(
                lambda each: each.kind == Kind.ERROR, kind=Kind.RESPONSE, codec=2, version=3, payload=b"\x93\0\0\0"
            )
        },
    ),
    "CREDIT behind END": (
        "7.12",
        {"down": every(lambda each: [changed(each), late_credit()] if each.kind == Kind.PONG else None)},
    ),
    "a whole duplex call is cancelled": (
        "8.15",
        {"down": on(Kind.ITEM, kind=Kind.ERROR, codec=0, version=0, payload=error_body(1, b"CANCELLED"))},
    ),
    "a whole upload is cancelled": (
        "8.14",
        {"down": on(Kind.RESPONSE, kind=Kind.ERROR, codec=0, version=0, payload=error_body(1, b"CANCELLED"))},
    ),
    "GOAWAY refused": ("7.02", {"up": on(Kind.GOAWAY, kind=13)}),
    "GOAWAY twice": ("7.03", {"up": drop(Kind.GOAWAY)}),
    "the error of GOAWAY unread": ("6.13", {"up": on(Kind.GOAWAY, payload=goaway_body(0, error_body()))}),
    "credit of HELLO refused": ("3.60", {"up": on(Kind.HELLO, payload=GREETING + tlv(5, bytes(4)))}),
    "streams end with the client's output": ("8.05", {"down": drop(Kind.ITEM)}),
    "streams without credit are complete": (
        "8.05",
        {"down": on_if(lambda each: each.kind == Kind.ERROR, kind=Kind.END, payload=b"")},
    ),
    "streams at their end are cancelled": (
        "8.11",
        {"down": on(Kind.END, kind=Kind.ERROR, payload=error_body(1, b"CANCELLED"))},
    ),
    "a PING to whoever cannot answer": ("8.12", {"down": unasked(lambda each: frame(Kind.PING, bytes(8)))}),
    "GOAWAY unread": ("6.12", {"up": on(Kind.GOAWAY, payload=goaway_body(0, error_body()))}),
    "shape judged before the opcode": ("9.19", {"down": every(lambda each: call_error(each, reason="WRONG_SHAPE"))}),
    "BAD_PAYLOAD in doubt": ("9.17", {"down": every(lambda each: call_error(each, retry=2))}),
    "RESPONSE_TOO_LARGE of a call that ran, as not processed": (
        "9.10",
        {"down": every(lambda each: call_error(each, retry=1))},
    ),
    "UNKNOWN_OPCODE in doubt": ("9.01", {"down": every(lambda each: call_error(each, retry=2))}),
    "shape judged last": ("9.20", {"up": on(Kind.REQUEST, flags=0)}),
    "metadata unread": ("5.05", {"up": on(Kind.REQUEST, metadata=b"")}),
    "bad metadata read": ("5.16", {"up": on(Kind.REQUEST, metadata=b"")}),
    "metadata that must be understood unread": ("5.11", {"up": on(Kind.REQUEST, metadata=b"")}),
    "a client's final ERROR answered": ("6.01", {"up": on(Kind.ERROR, kind=13)}),
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


def test_each_case_about_shapes_has_a_broken_server() -> None:
    """Of every rule of uploads, duplex and one-way calls there is a server that breaks it."""
    of_shapes = {number for number, case in SERVER_CASES.cases.items() if case.needs is Needs.SHAPES}
    of_shapes -= {number for number in of_shapes if int(number.partition(".")[2]) >= 200}  # test_calling.py
    of_shapes -= {"s2.71", "s2.78", "s2.80"}  # of packed payloads: test_packing.py
    of_shapes -= {"s3.113"}  # of early requests: test_early.py
    of_shapes -= {"s" + number for number, _ in ANSWER_MUTANTS.values()}  # test_answers.py
    assert of_shapes
    assert of_shapes - {"s" + number for number, _ in SERVER_MUTANTS.values()} == set()


@pytest.mark.parametrize("name", SERVER_MUTANTS)
def test_a_broken_server_fails(name: str, address: tuple[str, int]) -> None:
    """A server that breaks one rule fails the case of that rule, which the right one passes."""
    number, changes = SERVER_MUTANTS[name]
    case = SERVER_CASES.cases["s" + number]
    codec = (1, "pipe") if case.only == ("pipe",) else (2, "msgpack")
    right = Bench(address, codec, 3, CONFORMANCE.full_name, 3)
    case.run(right)
    with Mutant(address, **changes) as mutant, pytest.raises(Deviation):
        case.run(replace(right, address=mutant.address, patience=0.3))
