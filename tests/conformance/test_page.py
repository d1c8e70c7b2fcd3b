"""The judges' reading of docs/protocol.md: it agrees with the page, and shares nothing with what it judges."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import wireproto.conformance
from wireproto.conformance import page
from wireproto.conformance.case import Deviation
from wireproto.status import Status
from wireproto.wire import frame as ours

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
FOLDER = Path(wireproto.conformance.__file__).parent

# Modules of the kit that import wireproto.wire, and why each may: none of them judges.
OF_THE_JUDGED = {
    "adapter.py": "our client as a program under test, whose calls take Metadata",
    "service.py": "our server under test, whose authenticate is given Metadata",
}


def section(number: int) -> str:
    """The text of a section of the page."""
    return TEXT[TEXT.index(f"## {number}. ") : TEXT.index(f"## {number + 1}. ")]


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
        table = page.CLIENT_REASONS if by == "client" else page.SERVER_REASONS
        assert [table[reason]] == stated, reason
    assert len(found) == len(page.CLIENT_REASONS) + len(page.SERVER_REASONS)
    statuses = dict(re.findall(r"^\| ([A-Z_]+) \| ([A-Z_]+) \|", calls, re.MULTILINE))
    assert statuses == {reason: page.STATUS_NAMES[status] for reason, status in page.CALL_REASONS.items()}


def test_numbers_agree_with_ours() -> None:
    """Two readings of the page, made apart, give kinds and statuses the same numbers."""
    assert {int(kind): kind.name for kind in ours.Kind} == page.KIND_NAMES
    assert {name: getattr(page, name) for name in page.KIND_NAMES.values()} == ours.Kind.__members__
    assert {int(status): status.name for status in Status} == page.STATUS_NAMES
    assert ours.PREAMBLE == page.PREAMBLE
    assert set(map(int, ours.OF_MESSAGES)) == set(page.OF_MESSAGES)
    assert set(map(int, ours.OF_CALLS)) == set(page.OF_CALLS)


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
        (page.read_hello, page.pack_hello(versions=(2, 1)), "the versions are 2 to 1"),
        (page.read_hello, page.pack_hello(codecs=[]), "no codec is offered"),
        (page.read_hello, page.pack_hello(codecs=[(0, "x")]), "codec 0 is called 'x'"),
        (page.read_hello, page.pack_hello(fields=page.tlv(1, b"12345")), "the list of methods is no list of pairs"),
        (page.read_metadata, page.field(5, page.u32(1)) * 2, "metadata key 5 is there 2 times"),
    ],
)
def test_what_breaks_its_layout_is_a_deviation(read: Callable[[bytes], object], body: bytes, problem: str) -> None:
    """A body that the page does not allow is refused in words that say where it stopped making sense."""
    with pytest.raises(Deviation, match=re.escape(problem)):
        read(body)


def test_a_reader_takes_a_longer_message() -> None:
    """Who sends an ERROR cuts its message at 2048 bytes; who reads one takes what there is."""
    body = page.error_body(message=b"x" * 3000)
    assert len(page.read_error(body, longest=3000).message) == 3000


@pytest.mark.parametrize(
    ("last", "call_id", "ahead"),
    [(0, 1, True), (5, 5, False), (5, 4, False), (0, 2**31 - 1, True), (0, 2**31, False), (2**32 - 1, 1, True)],
)
def test_ids_go_round(last: int, call_id: int, ahead: bool) -> None:
    """An id is ahead of another when it is less than half the circle away; after the last comes 1."""
    assert page.is_ahead(call_id, last) is ahead
    assert page.next_id(2**32 - 1) == 1
    assert page.next_id(7) == 8
