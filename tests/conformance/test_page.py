"""The judges' reading of the pages: it agrees with them, and shares nothing with what it judges."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import wireproto.conformance
from tests.pages import section
from wireproto.conformance import page
from wireproto.conformance.case import Deviation
from wireproto.conformance.clients import CLIENT_CASES
from wireproto.conformance.servers import SERVER_CASES
from wireproto.status import Status
from wireproto.wire import calls
from wireproto.wire import frame as ours
from wireproto.wire.connection import MAX_STRAY_ANSWERS
from wireproto.wire.liveness import CHATTER_PER_FRAME, MAX_CHATTER

FOLDER = Path(wireproto.conformance.__file__).parent

# Modules of the kit that import wireproto.wire, and why each may: none of them judges.
OF_THE_JUDGED = {
    "adapter.py": "our client as a program under test, whose calls take Metadata",
    "service.py": "our server under test, whose authenticate is given Metadata",
}


def test_the_judges_import_nothing_of_the_wire() -> None:
    """No module that judges imports wireproto.wire, at load or later; page.py imports none that does."""
    found = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "wireproto.wire" in ast.unparse(node)
    }
    assert found == set(OF_THE_JUDGED)
    text = (FOLDER / "page.py").read_text("utf-8")
    assert set(re.findall(r"^\s*(?:from|import) (wireproto[\w.]*)", text, re.MULTILINE)) == {
        "wireproto.conformance.case"
    }


def test_the_header_is_the_one_of_the_page() -> None:
    """Offsets and sizes of the header's fields are those of the table in section 2."""
    rows = re.findall(r"^\| (\d+) \| (\d) \|", section(2), re.MULTILINE)
    sizes = [int(size) for _, size in rows]
    assert [int(at) for at, _ in rows] == [sum(sizes[:number]) for number in range(len(sizes))]
    assert page.HEADER.size == sum(sizes) == page.AFTER_LENGTH + 4
    assert [int(code == "I") * 4 or int(code == "H") * 2 or 1 for code in page.HEADER.format[1:]] == sizes


def test_the_reasons_are_those_of_the_page() -> None:
    """The tables of reasons are those of section 9, each with who finds it and its status."""
    connection, calls = section(9).split("**Reasons of calls**")
    found = re.findall(r"^\| ([A-Z_]+) \| (both|server|client) \| (.*) \|$", connection, re.MULTILINE)
    names = {name: number for number, name in page.STATUS_NAMES.items()}
    for reason, by, text in found:
        stated = [names[word] for word in re.findall(r"; ([A-Z_]+)$", text)] or [page.INVALID_ARGUMENT]
        assert [page.SERVER_REASONS[reason]] == stated, reason
        assert by == ("both" if reason in page.REASONS_OF_BOTH else "server"), reason
    assert len(found) == len(page.SERVER_REASONS)
    rows = re.findall(r"^\| ([A-Z_]+) \| ([A-Z_]+) \| ([A-Z_]+) \|", calls, re.MULTILINE)
    assert {reason: status for reason, status, _ in rows} == {
        reason: page.STATUS_NAMES[status] for reason, status in page.CALL_REASONS.items()
    }
    retries = ("NEVER", "NOT_PROCESSED", "MAYBE_PROCESSED")
    assert {reason: retry for reason, _, retry in rows} == {
        reason: retries[retry] for reason, retry in page.RETRY_OF_CALLS.items()
    }
    instead = dict(re.findall(r"^\| ([A-Z_]+) \| [A-Z_]+ \| [A-Z_]+ \| ([A-Z_]+)", calls, re.MULTILINE))
    assert instead == {reason: retries[retry] for reason, retry in page.INSTEAD_OF_CALLS.items()}
    for reason, _, stated in rows:
        said = {retries[retry] for retry in range(3) if page.may_say(reason, retry)}
        assert said == {stated, instead.get(reason, stated)}


def test_who_knows_better_says_so() -> None:
    """Instead of "maybe processed" it may be "not processed", and of SHUTTING_DOWN the other way round; no more."""
    retries = (page.NEVER, page.NOT_PROCESSED, page.MAYBE_PROCESSED)
    allowed = {
        reason: {retry for retry in retries if page.may_say(reason, retry)}
        for reason in ("BAD_PAYLOAD", "WRONG_SHAPE", "CANCELLED", "SHUTTING_DOWN")
    }
    both = {page.NOT_PROCESSED, page.MAYBE_PROCESSED}
    assert allowed == {
        "BAD_PAYLOAD": {page.NEVER},
        "WRONG_SHAPE": {page.NOT_PROCESSED},
        "CANCELLED": both,
        "SHUTTING_DOWN": both,
    }


def test_each_reason_of_both_sides_has_cases() -> None:
    """Of each reason with which either side ends a connection there is a case for servers and one for clients."""
    judged = {
        side: set(re.findall(r"[A-Z_]{5,}", " ".join(case.text for case in cases.values())))
        for side, cases in (("s", SERVER_CASES.cases), ("c", CLIENT_CASES.cases))
    }
    assert page.REASONS_OF_BOTH.keys() - judged["s"] == set()
    # A client that finds no server of its kind says nothing to it, and ends the connection: c1.04 to c1.06.
    assert page.REASONS_OF_BOTH.keys() - judged["c"] == {"FOREIGN_PROTOCOL", "UNSUPPORTED_MAJOR"}


def test_numbers_agree_with_ours() -> None:
    """Two readings of the page, made apart, give kinds and statuses the same numbers."""
    assert {int(kind): kind.name for kind in ours.Kind} == page.KIND_NAMES
    assert {name: getattr(page, name) for name in page.KIND_NAMES.values()} == ours.Kind.__members__
    assert {int(status): status.name for status in Status} == page.STATUS_NAMES
    assert ours.PREAMBLE == page.PREAMBLE
    assert set(map(int, ours.OF_MESSAGES)) == set(page.OF_MESSAGES)
    assert set(map(int, ours.OF_CALLS)) == set(page.OF_CALLS)
    flags = (ours.Flag.ONE_WAY, ours.Flag.ITEMS_FOLLOW, ours.Flag.ITEMS_COME_BACK)
    assert tuple(map(int, flags)) == (page.ONE_WAY, page.ITEMS_FOLLOW, page.ITEMS_COME_BACK)
    assert (ours.TOP_BIT, ours.U32_MAX) == (page.TOP_BIT, page.U32_MOST)
    assert page.credit_body(7, 9) == ours.pack_credit(7, 9)
    assert (calls.CIRCLE, calls.MAX_CROSSED, calls.REFILL) == (page.LAST_NUMBER + 1, page.MOST_CROSSED, page.REFILL)
    assert page.FURTHEST == calls.CIRCLE // 2 - 1
    assert page.MOST_STRAYS == MAX_STRAY_ANSWERS
    assert (page.MOST_CHATTER, page.CHATTER_PER_FRAME) == (MAX_CHATTER, CHATTER_PER_FRAME)


def test_the_credit_of_a_handshake_is_read() -> None:
    """The two fields of credit are read of HELLO and of WELCOME; without them nothing is granted."""
    for pack, read in ((page.pack_hello, page.read_hello), (page.pack_welcome, page.read_welcome)):
        found = read(pack(fields=page.credit_fields(page.CreditBody(16, 65_536), 9) + page.tlv(99, b"later")))
        assert (found.first_credit, found.one_way_credit) == ((16, 65_536), 9)
        assert (read(pack()).first_credit, read(pack()).one_way_credit) == (page.NOTHING, 0)


@pytest.mark.parametrize(
    ("read", "body", "problem"),
    [
        (page.read_error, b"", "1 bytes are declared and 0 are left"),
        (page.read_error, page.error_body(status=0), "the status is 0"),
        (page.read_error, page.error_body(status=17), "the status is 17"),
        (page.read_error, page.error_body(retry=3), "retry is 3"),
        (page.read_error, page.error_body(reason=b"lower"), "the reason is b'lower'"),
        (page.read_error, page.error_body(reason=b"A" * 65), "the reason is"),
        (page.read_error, page.error_body(message=b"\xff"), "a text is not UTF-8"),
        (page.read_error, page.error_body(message=b"x" * 2049), "the message is longer than 2048 bytes"),
        (page.read_error, page.error_body(tail=b"\1\0"), "2 bytes are declared and 1 are left"),
        (page.read_goaway, b"\0\0", "the body of GOAWAY has 2 bytes"),
        (page.read_welcome, page.pack_welcome(version=0), "WELCOME chooses version 0 and codec 2"),
        (page.read_welcome, page.pack_welcome(max_frame=4095), "WELCOME's max frame is 4095"),
        (page.read_welcome, page.pack_welcome(max_calls=0), "WELCOME's max calls is 0"),
        (page.read_welcome, page.pack_welcome(heartbeat_ms=999), "WELCOME's heartbeat is 999 ms"),
        (page.read_hello, page.pack_hello(heartbeat_ms=1), "the heartbeat is 1 ms"),
        (page.read_hello, page.pack_hello(versions=(2, 1)), "the versions are 2 to 1"),
        (page.read_hello, page.pack_hello(codecs=[]), "no codec is offered"),
        (page.read_hello, page.pack_hello(codecs=[(0, "x")]), "codec 0 is called 'x'"),
        (page.read_hello, page.pack_hello(fields=page.tlv(1, b"12345")), "the list of methods is no list of pairs"),
        (page.read_welcome, page.pack_welcome(fields=page.tlv(5, bytes(4))), "the fields of credit have 4 and 4 bytes"),
        (page.read_hello, page.pack_hello(fields=page.tlv(6, bytes(8))), "the fields of credit have 8 and 8 bytes"),
        (page.read_credit, bytes(4), "the body of CREDIT has 4 bytes"),
        (page.read_credit, bytes(8), "CREDIT grants nothing"),
        (lambda body: page.read_credit(body, 0), page.credit_body(1, 1), "CREDIT of one-way calls grants 1 bytes"),
        (page.read_welcome, page.pack_welcome(fields=page.tlv(1, bytes(12))), "an opcode is listed twice"),
        (page.read_welcome, page.pack_welcome(fields=page.tlv(1, b"") * 2), "field 1 is there twice"),
        (page.read_hello, page.pack_hello(fields=page.tlv(5, bytes(8)) * 2), "field 5 is there twice"),
        (page.read_welcome, page.pack_welcome(fields=page.tlv(6, bytes(4)) * 2), "field 6 is there twice"),
        (page.read_hello, page.pack_hello(fields=page.tlv(4, b"\0")), "the control version is b'\\x00'"),
        (page.read_hello, page.pack_hello(fields=page.tlv(4, b"12")), "the control version is b'12'"),
        (page.read_metadata, page.field(5, page.u32(1)) * 2, "metadata key 5 is there 2 times"),
    ],
)
def test_what_breaks_its_layout_is_a_deviation(read: Callable[[bytes], object], body: bytes, problem: str) -> None:
    """A body that the page does not allow is refused in words that say where it stopped making sense."""
    with pytest.raises(Deviation, match=re.escape(problem)):
        read(body)


@pytest.mark.parametrize(
    "body",
    [
        page.error_body(message=b"x" * 3000),
        page.error_body(status=17),
        page.error_body(retry=3),
        page.error_body(reason=b"lower"),
        page.error_body(reason=b"\xff"),
        page.error_body(reason=b"A" * 65),
    ],
)
def test_a_reader_takes_what_no_sender_may_say(body: bytes) -> None:
    """A longer message, an unknown status or retry and a reason outside its alphabet are read, and are not sent."""
    page.read_error(body, sent=False)
    with pytest.raises(Deviation):
        page.read_error(body)


def test_no_reader_takes_status_0() -> None:
    """OK is no error, for a reader either."""
    with pytest.raises(Deviation, match="the status is 0"):
        page.read_error(page.error_body(status=0), sent=False)


@pytest.mark.parametrize(
    ("last", "call_id", "ahead"),
    [
        (0, 1, True),
        (0, 0, False),
        (5, 5, False),
        (5, 4, False),
        (0, 2**30 - 1, True),
        (0, 2**30, False),
        (2**31 - 1, 1, True),
        (2**31 - 1, 0, False),
        (2**31 - 1, 2**31 + 1, False),
        (2**31 - 1, 2**30 - 2, True),
        (2**31 - 1, 2**30 - 1, False),
    ],
)
def test_ids_go_round(last: int, call_id: int, ahead: bool) -> None:
    """An id is ahead of another when it is less than half the circle away; after the last comes 1, and 0 is none."""
    assert page.is_ahead(call_id, last) is ahead
    assert page.next_id(2**31 - 1) == 1
    assert page.next_id(7) == 8
