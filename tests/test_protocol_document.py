"""The pages of the protocol say what the code does: tables, numbers, reasons and examples are compared with it."""

import ast
import dataclasses
import enum
import itertools
import json
import keyword
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.pages import ALL as TEXT
from tests.pages import PAGES, table
from tests.wire.peers import attempt
from wireproto import codecs, control
from wireproto.errors import DeclarationError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, MAX_FRAME_CEILING, MIN_HEARTBEAT, Limits
from wireproto.reasons import REASONS
from wireproto.schema import (
    DuplexMethod,
    Field,
    Message,
    Method,
    OneWayMethod,
    Scalar,
    Service,
    StreamMethod,
    UploadMethod,
    fields,
    message_types,
)
from wireproto.status import Retry, Status
from wireproto.testing import grease
from wireproto.wire import private
from wireproto.wire.answers import MAX_ANSWER, Beside, pack_answer, pack_dropped, unpack_answer
from wireproto.wire.calls import MAX_CROSSED, REFILL, STATES_OF_A_CALL, CallPart, CallState
from wireproto.wire.connection import MAX_STRAY_ANSWERS
from wireproto.wire.frame import (
    FIRST_FRAMEWORK_OPCODE,
    HEADER,
    HEADER_AFTER_LENGTH,
    IGNORABLE,
    MAX_DETAILS,
    MAX_ERROR_MESSAGE,
    MAX_REASON,
    OF_CALLS,
    OF_MESSAGES,
    PREAMBLE,
    Credit,
    Flag,
    Frame,
    Kind,
    check_header,
)
from wireproto.wire.handshake import KNOWN_FIELDS, Hello, Welcome
from wireproto.wire.liveness import CHATTER_PER_FRAME, CHATTER_PER_SECOND, MAX_CHATTER
from wireproto.wire.metadata import (
    AUTHORIZATION,
    CREDIT,
    DEADLINE_MS,
    DROPPED,
    EMPTY,
    ENTRY,
    IDEMPOTENCY_KEY,
    RESUME_AFTER,
    TRACEPARENT,
    Metadata,
    pack_metadata,
    unpack_metadata,
)
from wireproto.wire.packing import ALGORITHMS, PACKED_FROM
from wireproto.wire.state import END_OF_INPUT, FINAL, TRANSITIONS, Direction, Role, State

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "wireproto"


def test_the_preamble_is_the_codes() -> None:
    """The preamble is written out, and every example that begins a direction begins with it."""
    assert f"`{PREAMBLE.hex(' ')}`" in TEXT


def test_the_header_is_the_codes() -> None:
    """The offsets and sizes of the header's fields are those of the struct."""
    rows = table("offset", "size", "field")
    formats = {"4": "I", "2": "H", "1": "B"}
    assert ">" + "".join(formats[row[1]] for row in rows) == HEADER.format
    offset = 0
    for row in rows:
        assert int(row[0]) == offset
        offset += int(row[1])
    assert offset == HEADER.size == 16
    assert f"{HEADER_AFTER_LENGTH} + metadata + payload" in rows[0][3]


def test_the_kinds_are_the_codes() -> None:
    """Number, name, sender, codec and call id of every kind are those of the code."""
    rows = table("number", "kind", "sent by")
    assert [(int(row[0]), row[1]) for row in rows] == [(int(kind), kind.name) for kind in Kind]
    for row in rows:
        kind = Kind[row[1]]
        assert (row[3] == "the connection's") is (kind in OF_MESSAGES)
        assert row[4].startswith("the call's") is (kind in OF_CALLS)
        senders = {
            role.value
            for (role, _, direction), moves in TRANSITIONS.items()
            if direction is Direction.SEND and (kind in moves or (kind == Kind.ERROR and FINAL in moves))
        }
        assert senders == ({"client", "server"} if row[2] == "both" else {row[2]})


def test_the_flags_are_the_codes() -> None:
    """The flags are those of the code, and of all others the page says that they must be zero; so the code has it."""
    rows = table("flag", "name")
    assert [(int(row[0], 16), row[1]) for row in rows] == [(int(flag), flag.name) for flag in Flag]
    shapes = {0, int(Flag.ONE_WAY), *(number for number in range(256) if number & 0b1100 == number)}
    for kind, packing in itertools.product(Kind, (0, 1)):
        good = shapes if kind is Kind.REQUEST else {0}
        if packing and kind in OF_MESSAGES:
            good = good | {flags | 0x02 for flags in good}
        for flags in range(256):
            codec, version = (2, 1) if kind in OF_MESSAGES else (0, 0)
            of_call = int(kind in OF_CALLS)
            frame = Frame(kind, flags, codec, version, of_call, of_call, b"", b"")
            found = attempt(partial(check_header, codec=2, version=1, packing=packing), frame)
            refused = isinstance(found, RemoteProtocolError) and found.reason == "RESERVED_FLAGS"
            assert refused is (flags not in good), (kind, flags)


def test_the_algorithms_are_the_codes() -> None:
    """The algorithms of the page are those of the code, and the window and the least length as well."""
    rows = table("number", "algorithm", "a stream")
    assert {row[1]: int(row[0]) for row in rows} == {each.name: each.number for each in ALGORITHMS.values()}
    assert f"at most {2**20} bytes" in rows[1][2]
    assert f"none below {PACKED_FROM} bytes" in TEXT


def test_the_shapes_are_the_flags() -> None:
    """The five shapes are all that the flags can say."""
    rows = table("shape", "flags")
    streams = {"ITEMs, then END"}
    told = {int(row[1], 0): (row[2] in streams, row[3] in streams, row[3] == "nothing") for row in rows}
    assert told == {
        int(flags): (bool(flags & Flag.ITEMS_FOLLOW), bool(flags & Flag.ITEMS_COME_BACK), flags == Flag.ONE_WAY)
        for flags in (
            Flag.NONE,
            Flag.ONE_WAY,
            Flag.ITEMS_FOLLOW,
            Flag.ITEMS_COME_BACK,
            Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK,
        )
    }


def test_every_reason_of_the_header_check_is_listed_in_order() -> None:
    """The checks come in the order in which the code makes them."""
    reasons = [row[1] for row in table("check", "reason")]
    source = (PACKAGE / "wire/frame.py").read_text()
    source = (
        source[source.index("def total_length") : source.index("def unpack")] + source[source.index("def unpack(") :]
    )
    framing = (PACKAGE / "wire/framing.py").read_text()
    received = framing[framing.index("def _receive(") :]
    assert reasons[:3] == re.findall(r'"([A-Z]+_[A-Z_]+)"', source)[:3]
    assert received.index("UNKNOWN_KIND") < received.index("self._receiving(move)") < received.index("check_header(")
    checked = source[source.index("def check_header") : source.index("def flags_problem")]
    raised = list(dict.fromkeys(re.findall(r'RemoteProtocolError\(\s*"([A-Z_]+)"', checked)))
    assert reasons[3:] == ["UNKNOWN_KIND", "UNEXPECTED_KIND", *raised, "BAD_BODY"]


def cell(role: Role, state: State, direction: Direction) -> str:
    """A cell of the state table."""
    end = "end of output" if direction is Direction.SEND else "end of input"
    special = {FINAL: "final ERROR", END_OF_INPUT: end, IGNORABLE: "ignorable"}
    moves = TRANSITIONS.get((role, state, direction), {})
    groups: dict[State, list[str]] = {}
    for move in sorted(moves, key=lambda move: (move <= 0, abs(move))):
        groups.setdefault(moves[move], []).append(special.get(move) or Kind(move).name)
    return "; ".join(
        ", ".join(names) + ("" if following is state else f" → {following.value}")
        for following, names in groups.items()
    )


def test_the_states_are_the_codes() -> None:
    """The state table is the table of transitions, cell by cell, and complete."""
    expected = [
        [role.value, state.value, *(cell(role, state, direction) or "nothing" for direction in Direction)]
        for role in Role
        for state in State
        if any((role, state, direction) in TRANSITIONS for direction in Direction)
    ]
    assert table("role", "state", "sends", "receives") == expected


def steps_of_a_call(part: CallPart, state: CallState, direction: Direction) -> str:
    """A cell of the table of the states of a call."""
    told = []
    for kind, step in sorted(STATES_OF_A_CALL.get((part, state, direction), {}).items()):
        condition = f" (0x{step.only:02x})" * bool(step.only) + f" (not 0x{step.never:02x})" * bool(step.never)
        told.append(Kind(kind).name + condition + (f" → {step.then.value}" if step.then is not None else ""))
    return "; ".join(told) or "nothing"


def test_the_states_of_a_call_are_the_codes() -> None:
    """The table of the states of a call is that of the code, cell by cell, and complete."""
    assert table("side", "call", "sends", "receives") == [
        [part.value, state.value, *(steps_of_a_call(part, state, direction) for direction in Direction)]
        for part in CallPart
        for state in CallState
        if any((part, state, direction) in STATES_OF_A_CALL for direction in Direction)
    ]


@pytest.mark.parametrize(("values", "name"), [(Status, "status"), (Retry, "retry")])
def test_statuses_and_retries_are_the_codes(values: type[enum.IntEnum], name: str) -> None:
    """Numbers and names are those of the enums."""
    assert [(int(row[0]), row[1]) for row in table("number", name)] == [(int(v), v.name) for v in values]


def test_limits_are_the_codes() -> None:
    """Every number among the limits is the default in the code, and no limit that a peer meets is missing."""
    constants = {
        "HELLO_MAX_FRAME": HELLO_MAX_FRAME,
        "MAX_STRAY_ANSWERS": MAX_STRAY_ANSWERS,
        "MAX_CROSSED": MAX_CROSSED,
        "REFILL": REFILL,
        "MAX_CHATTER": MAX_CHATTER,
        "CHATTER_PER_SECOND": CHATTER_PER_SECOND,
        "CHATTER_PER_FRAME": CHATTER_PER_FRAME,
        "MIN_HEARTBEAT": MIN_HEARTBEAT,
        "MAX_FRAME_CEILING": MAX_FRAME_CEILING,
        "MAX_ANSWER": MAX_ANSWER,
        "MAX_DETAILS": MAX_DETAILS,
    }
    rows = table("limit", "value")
    for row in rows:
        expected = constants[row[0]] if row[0] in constants else getattr(Limits(), row[0])
        assert float(row[1].split()[0]) == expected, row[0]
    # What concerns only the inside of a server or of a client is for docs/design.md.
    inside = {"high_watermark", "low_watermark", "turn_bytes", "turn_calls", "backlog", "max_handshaking"}
    inside |= {"max_connections", "max_connections_per_address", "run_queue", "run_queue_per_connection"}
    inside |= {"start_queue"}
    assert {row[0] for row in rows} == set(constants) | (set(Limits.__slots__) - inside)
    assert f"a sender cuts it at {MAX_ERROR_MESSAGE} bytes" in TEXT


def test_metadata_keys_are_the_codes() -> None:
    """Each key of the table is the one under which that attribute is packed."""
    values: dict[str, object] = {
        "deadline_ms": 1,
        "traceparent": "x",
        "authorization": "x",
        "idempotency_key": b"x",
        "credit": Credit(1, 1),
        "entries": {"x": "x"},
        "resume_after": b"x",
    }
    rows = table("key", "name", "value")
    assert [row[1] for row in rows] == list(values) == list(EMPTY.__struct_fields__)
    for row in rows:
        block = pack_metadata(Metadata(**{row[1]: values[row[1]]}))  # type: ignore[arg-type]
        assert block[0] == int(row[0])


def test_metadata_keys_of_answers_are_the_codes() -> None:
    """Each key of the table of answers is the one under which it is packed, and read in the kinds that are named."""
    rows = table("key of an answer", "name", "value", "in")
    blocks = {"traceparent": {"traceparent": "x"}, "entries": {"x": "y"}}
    assert [row[1] for row in rows] == [*blocks, "dropped"]
    for key, name, _, kinds in rows:
        block = pack_answer(blocks[name]) if name in blocks else pack_dropped(1)
        assert block[0] == int(key)
        for kind in (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR):
            read = unpack_answer(kind, block) != Beside({}, 0)
            assert read == (kind.name in re.findall("[A-Z]+", kinds.partition("[")[0])), (name, kind)


def literals(path: Path, names: set[str], position: int) -> Iterator[str]:
    """The string that is the n-th argument of every call of these names in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and len(node.args) > position:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = node.args[position]
            if name in names and isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value


def raised(*paths: str, names: set[str], position: int) -> set[str]:
    files = [file for path in paths for file in sorted(PACKAGE.glob(path))]
    assert files
    return {reason for file in files for reason in literals(file, names, position)}


CORE = "wire/*.py"


def test_the_reasons_of_connections_are_those_in_the_code() -> None:
    """Every reason that ends a connection is listed, with its status, and no other."""
    sides = ("server/*.py", "answering/*.py", "client/*.py")
    too_much = {"_fail_connection_locked", "_fail_locked"}
    limited = raised(*sides, names=too_much, position=0)
    expected = raised(CORE, *sides, names={"RemoteProtocolError", "_end_connection_locked"}, position=0) | limited
    rows = table("reason", "found by")
    assert [row[0] for row in rows] == sorted(expected)
    of_the_core = statuses_in_the_core()
    for reason, finder, text in rows:
        told = re.search(r"; ([A-Z_]+)$", text)
        status = Status[told[1]] if told else Status.INVALID_ARGUMENT
        found = of_the_core.get(reason, set()) | ({Status.RESOURCE_EXHAUSTED} if reason in limited else set())
        if finder != "server" or found:
            assert found == {status}, reason


def statuses_in_the_core() -> dict[str, set[Status]]:
    """Of each reason that the core ends a connection with, the statuses that it does so with."""
    found: dict[str, set[Status]] = {}
    for path in PACKAGE.glob(CORE):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RemoteProtocolError":
                reason = node.args[0]
                if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                    status = ast.unparse(node.args[2]) if len(node.args) > 2 else "Status.INVALID_ARGUMENT"
                    found.setdefault(reason.value, set()).add(Status[status.removeprefix("Status.")])
    return found


def test_the_reasons_of_refused_handshakes_are_those_in_the_code() -> None:
    """Every reason of negotiation is listed with its status."""
    expected = raised("wire/handshake.py", names={"HandshakeError"}, position=1)
    rows = table("reason", "status", "when")
    assert {row[0] for row in rows} == expected
    source = (PACKAGE / "wire/handshake.py").read_text()
    for row in rows:
        assert re.search(rf'Status\.{row[1]},\s*"{row[0]}"', source), row[0]


def test_the_reasons_of_calls_are_those_in_the_code() -> None:
    """Every reason that the framework answers calls with is listed with its status and its advice."""
    ours = raised(CORE, names={"CallError", "_refuse_call"}, position=1)
    ours |= raised(CORE, names={"_refuse_call"}, position=2)
    rows = table("reason", "status", "retry")
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    listed = {row[0]: (Status[row[1]], Retry[row[2]]) for row in rows}
    assert listed == {reason: tuple(advice) for reason, advice in REASONS.items()}
    assert {reason for reason in ours if reason.isupper()} <= set(listed)


def test_the_order_of_refusals_has_every_reason_of_a_request() -> None:
    """A reason that refuses a REQUEST stands in exactly one step, and the steps are numbered."""
    rows = table("step", "what is looked at", "reason")
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    (of_the_header, *reasons) = (row[2] for row in rows)
    assert of_the_header == "those of section 2"
    told = [reason for cell in reasons for reason in cell.split(", ")]
    # What is left is said of calls that were begun, or of the connection.
    begun = {"ALREADY_SIGNED_IN", "CANCELLED", "INTERNAL", "ITEM_TIMEOUT", "RESPONSE_TOO_LARGE", "SLOW_CONSUMER"}
    assert sorted(told) == sorted((set(REASONS) - begun) | {"BAD_BODY", "CALL_ID", "CREDIT_EXCEEDED"})


def test_codecs_are_the_codes() -> None:
    """The ids and names of the codecs are those built in."""
    listed = {int(row[0]): row[1] for row in table("id", "name") if row[0] in "123"}
    assert listed == {codecs.get(name).id: name for name in ("pipe", "msgpack", "protobuf")}


def test_framework_opcodes_are_the_codes() -> None:
    """The framework's opcodes and methods are those of the control service."""
    listed = {int(row[0], 16): row[1] for row in table("opcode", "method")}
    assert listed == {opcode: method.name for opcode, method in control.CONTROL.by_opcode.items()}
    assert f"`{control.CONTROL.full_name}`" in TEXT


def numbers(cell: str) -> set[int]:
    """The numbers of a cell such as `0, 7 to 0x5F`."""
    found: set[int] = set()
    for part in cell.split(", ") if cell != "none" else []:
        first, _, last = part.partition(" to ")
        found.update(range(int(first, 0), int(last or first, 0) + 1))
    return found


def test_every_number_is_taken_free_private_or_grease() -> None:
    """Each number space is parted without a gap and without a number twice, as the code has it."""
    opcodes = set(control.CONTROL.by_opcode)
    codec_ids = {0, *(codecs.get(name).id for name in ("pipe", "msgpack", "protobuf"))}
    keys = {DEADLINE_MS, TRACEPARENT, AUTHORIZATION, IDEMPOTENCY_KEY, CREDIT, ENTRY, RESUME_AFTER, DROPPED}
    spaces: dict[str, tuple[int, set[int], range, range]] = {
        "kinds of frames": (256, set(map(int, Kind)), private.KINDS, grease.KINDS),
        "codecs": (256, codec_ids, range(128, 256), range(0)),
        "algorithms": (
            256,
            {each.number for each in ALGORITHMS.values()},
            private.ALGORITHMS,
            grease.ALGORITHMS,
        ),
        "opcodes": (65_536, opcodes, range(FIRST_FRAMEWORK_OPCODE), range(0)),
        "metadata keys, without the top bit": (128, keys, private.METADATA_KEYS, grease.METADATA_KEYS),
        "feature bits": (64, set(), private.FEATURES, grease.FEATURES),
        "fields of HELLO and of WELCOME": (65_536, set(KNOWN_FIELDS), private.GREETING_FIELDS, grease.FIELDS),
        "fields of ERROR and of GOAWAY": (256, {1}, private.ERROR_FIELDS, grease.ERROR_FIELDS),
        "statuses": (256, set(map(int, Status)), range(0), range(0)),
        "retries": (256, set(map(int, Retry)), range(0), range(0)),
    }
    rows = table("number space", "taken", "free", "private", "grease")
    assert [row[0] for row in rows] == list(spaces)
    for name, *cells in rows:
        size, taken, kept, greased = spaces[name]
        said = [numbers(cell) for cell in cells]
        assert [said[0], said[2], said[3]] == [taken, set(kept), set(greased)], name
        assert sorted(itertools.chain(*said)) == list(range(size)), name


def test_no_reason_of_the_framework_is_private() -> None:
    """Reasons that begin with X_ are left to proxies and extensions, in the code and on the page."""
    listed = {row[0] for head in (("found by",), ("status", "when")) for row in table("reason", *head)}
    declared = {reason for method in control.CONTROL.methods for reason in method.reasons}
    assert not [each for each in {*listed, *REASONS, *declared} if each.startswith(private.REASONS)]
    assert f"begin with `{private.REASONS}`" in TEXT


def test_a_reason_is_as_long_as_the_page_says() -> None:
    """The longest reason that an ERROR has is the longest that a method may declare."""
    assert f"1 to {MAX_REASON} characters of `A-Z 0-9 _`" in TEXT
    longest = "A" * MAX_REASON
    assert Method(opcode=1, name="Do", request=AddRequest, response=AddResponse, reasons=[longest]).reasons == (
        longest,
    )
    with pytest.raises(DeclarationError, match=f"at most {MAX_REASON} characters"):
        Method(opcode=1, name="Do", request=AddRequest, response=AddResponse, reasons=[longest + "A"])


def told(field: Field) -> str:
    """A field as section 13 writes it, its enum's numbers left out."""
    kind = field.type
    if kind.shape == "map":
        assert kind.key is not None
        return f"{field.name} map of {kind.key.value} to {kind.scalar.value}"
    name = kind.cls.__name__ if kind.scalar is Scalar.MESSAGE and kind.cls is not None else kind.scalar.value
    return f"{field.name} {f'[{name}]' if kind.shape == 'list' else name}{'?' if kind.optional else ''}"


def test_the_messages_of_the_framework_are_the_codes() -> None:
    """Every field of the control service's messages is listed in its order, with its type."""
    (found,) = re.findall(r"^\| message \| fields \|\n\|[-|]+\|\n((?:\|[^\n]*\n)+)", TEXT, re.MULTILINE)
    listed: dict[str, list[str]] = {}
    for row in found.strip().split("\n"):
        names, text = (cell.strip() for cell in row.strip("|").split("|"))
        # What stands in brackets or behind a colon explains: 1 serving, 2 not serving.
        plain = re.sub(r" \([^)]*\)|: (?=\d|what|a full)[^;]*", "", text).replace(
            "key the same enum or None", "key enum?"
        )
        listed.update({name: re.split(r", |; ", plain) for name in names.split(", ")})
    assert listed == {cls.__name__: [told(field) for field in fields(cls)] for cls in message_types(control.CONTROL)}


NAMES = "\n".join(TEXT[TEXT.index("**Names**") : TEXT.index("**Presence.**")].splitlines())


def test_the_names_are_those_that_can_be_declared() -> None:
    """The words that no field may be called are Python's, and the page lists every one that a field could be."""
    (listed,) = re.findall(r"a keyword of Python: `([a-z\s]*)`", NAMES)
    assert listed.split() == [word for word in keyword.kwlist if word.islower()]
    for word in ("NAME", "UNSPECIFIED", "32 of them one inside the other", "1 to 2147483647"):
        assert word in TEXT


def sizes(head: str) -> list[str]:
    (found,) = re.findall(
        rf"^\*\*{head}\*\*\n\n\| size \| field \| \|\n\|[-|]+\|\n((?:\|[^\n]*\n)+)", TEXT, re.MULTILINE
    )
    return [row.split("|")[1].strip() for row in found.strip().split("\n")]


def test_hello_and_welcome_have_the_sizes_of_the_code() -> None:
    """The fixed part of HELLO and WELCOME is as long as the table says."""
    hello = Hello(min_version=1, max_version=1, codecs=((1, "p"),), max_frame=4096)
    fixed = sum(int(size) for size in sizes("HELLO") if size)
    assert len(hello.encode()) == fixed + len(b"\x01\x01p") + len(b"\x00") + len(b"\x00")
    answer = Welcome(version=1, codec=1, max_frame=4096, max_calls=1)
    assert len(answer.encode()) == sum(int(size) for size in sizes("WELCOME") if size) + len(b"\x00")


def test_the_fields_of_the_handshake_are_the_codes() -> None:
    """Each field of the table has the number and the length under which the code writes it, in HELLO and in WELCOME."""
    rows = {int(row[0]): row for row in table("field", "in HELLO", "in WELCOME")}
    hello = Hello(min_version=1, max_version=1, codecs=((1, "p"),), max_frame=4096)
    answer = Welcome(version=1, codec=1, max_frame=4096, max_calls=1)
    examples: dict[str, object] = {
        "digests": {16: 0xDEADBEEF},
        "packing": (1,),
        "early": 5,
        "control": 2,
        "first_credit": Credit(1, 2),
        "one_way_credit": 3,
    }
    assert set(rows) == set(KNOWN_FIELDS)
    for number, known in KNOWN_FIELDS.items():
        # "likewise" in the column of WELCOME says that the layout is that of HELLO.
        length = sum(int(bits) // 8 for bits in re.findall(r"\bu(8|16|32)\b", rows[number][1]))
        assert rows[number][2].startswith(("likewise", "u8", "a u8") if Welcome in known.of else "unknown")
        for greeting in (hello, answer) if Welcome in known.of else (hello,):
            written = msgspec.structs.replace(greeting, **{known.name: examples[known.name]}).encode()
            field = written.removeprefix(greeting.encode())
            assert field[:4] == number.to_bytes(2) + length.to_bytes(2)
            assert len(field) == 4 + length


class AddRequest(Message):
    left: int
    right: int


class AddResponse(Message):
    total: int


ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse)
CALCULATOR = Service("example.v1.CalculatorService", version=1, methods=[ADD])


class Took(Message):
    total: int


SHAPED = Service(
    "example.v1.ShapedService",
    methods=[
        kind(opcode=number, name=name, request=AddRequest, **({} if kind is OneWayMethod else {"response": Took}))
        for number, (name, kind) in enumerate(
            {
                "Ask": Method,
                "Watch": StreamMethod,
                "Send": UploadMethod,
                "Talk": DuplexMethod,
                "Tell": OneWayMethod,
            }.items(),
            1,
        )
    ],
)


def test_the_digests_of_all_shapes_are_computed_as_described() -> None:
    """The digest of a method of each shape is the one of the text's recipe, with the words that it has for them."""
    listed = re.search(
        r"opcode\s+in\s+decimal,\s+(.*?),\s+with\s+`server-`\s+before\s+it\s+if\s+the\s+server\s+calls", TEXT, re.DOTALL
    )
    assert listed is not None
    words = re.findall(r"`(\w+)`", listed[1])
    request, response = zlib.crc32(b"1:INT,2:INT"), zlib.crc32(b"1:INT")
    assert "`00000000`" in TEXT
    assert words == [method.shape.value for method in SHAPED.methods]
    for method, word in zip(SHAPED.methods, words, strict=True):
        answer = 0 if word == "oneway" else response
        text = f"{method.opcode} {word} {request:08x} {answer:08x}"
        assert zlib.crc32(text.encode()) == SHAPED.digest(method, 1)
        turned = dataclasses.replace(method, by="server")
        text = f"{method.opcode} server-{word} {request:08x} {answer:08x}"
        assert zlib.crc32(text.encode()) == SHAPED.digest(turned, 1)


def test_the_digest_example_is_computed_as_described() -> None:
    """The digest of Add is what the text says, by its own recipe and by the code."""
    request, response = zlib.crc32(b"1:INT,2:INT"), zlib.crc32(b"1:INT")
    text = f"16 unary {request:08x} {response:08x}"
    assert zlib.crc32(text.encode()) == CALCULATOR.digest(ADD, 1)
    flat = " ".join(TEXT.split())
    assert (
        f"`1:INT,2:INT` is {request:08x}, `1:INT` is {response:08x}, `{text}` is {zlib.crc32(text.encode()):08x}"
        in flat
    )


CONVERSATIONS = {
    vector["name"]: vector
    for name in ("conversations", "shapes")
    for vector in json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text())
}
EXAMPLES = re.findall(r"<!-- example: (.*) (\d+) -->\n```text\n((?:[^`]*\n)+?)```", TEXT)


@pytest.mark.parametrize(("name", "number", "block"), EXAMPLES, ids=[f"{name} {step}" for name, step, _ in EXAMPLES])
def test_examples_are_the_vectors(name: str, number: str, block: str) -> None:
    """The bytes of every example are those of the vector it names, and its lengths are said right."""
    listed = "".join(re.match(r"(?:[0-9a-f]{2}(?: |$))+", line)[0] for line in block.splitlines())  # type: ignore[index]
    step = CONVERSATIONS[name]["steps"][int(number) - 1]
    assert bytes.fromhex(listed) == bytes.fromhex(step["hex"])
    body = bytes.fromhex(listed).removeprefix(PREAMBLE)
    for said in re.findall(r"length (\d+),", block):
        assert int(said) == len(body) - 4
    assert step["means"]["kind"] in block + TEXT[: TEXT.index(block)].splitlines()[-3]


def test_every_hex_block_is_an_example() -> None:
    """No block of bytes escapes the comparison."""
    assert TEXT.count("```text") == len(EXAMPLES) >= 12


def test_every_kind_is_in_an_example() -> None:
    """The examples show every kind of frame."""
    shown = {CONVERSATIONS[name]["steps"][int(number) - 1]["means"]["kind"] for name, number, _ in EXAMPLES}
    assert shown == {kind.name for kind in Kind}


class Example(Message):
    text: str
    names: list[str]
    scores: dict[str, int]
    maybe: int | None = None


def test_the_codec_examples_are_what_the_codecs_write() -> None:
    """The example message has these bytes in each codec."""
    message = Example(text="a|b", names=["", "x,y"], scores={"k": -1})
    rows = re.findall(r"^\| (pipe|msgpack|protobuf) \| `([0-9a-f ]+)`(?: which is `(.*)`)? \|$", TEXT, re.MULTILINE)
    assert len(rows) == 3
    for name, listed, text in rows:
        payload = codecs.get(name).plan(Example, 1, Limits()).encode(message)
        assert payload == bytes.fromhex(listed)
        if text:
            assert text.replace("\\|", "|") == payload.decode()


def test_metadata_examples_in_the_request_are_read() -> None:
    """The metadata of the example REQUEST are what its comments say."""
    step = CONVERSATIONS["a call with metadata"]["steps"][2]
    frame = bytes.fromhex(step["hex"])
    metadata = unpack_metadata(frame[16 : 16 + int.from_bytes(frame[10:12])])
    assert (metadata.deadline_ms, metadata.entries) == (1500, {"region": "eu", "user.name": "Zoë"})


def anchors(text: str) -> set[str]:
    """What a link to a heading of a page says behind its #."""
    return {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#{2,3} (.*)$", text, re.MULTILINE)
    }


def test_links_between_the_pages_lead_somewhere() -> None:
    """Every link to a heading, of the page itself or of another of the three, is one that there is."""
    for name, text in PAGES.items():
        for target, anchor in re.findall(r"\((\w*\.?\w*)#([^)]*)\)", text):
            assert anchor in anchors(PAGES[target or name]), (name, target, anchor)


def test_the_contents_are_the_sections_of_the_three_pages() -> None:
    """The first page lists every section of the three once, in the order of their numbers, without a gap."""
    listed = re.findall(r"^(\d+)\. \[([^]]*)\]\((\w*\.?\w*)#", PAGES["wire.md"], re.MULTILINE)
    there = [
        (number, heading, "" if name == "wire.md" else name)
        for name, text in PAGES.items()
        for number, heading in re.findall(r"^## (\d+)\. (.*)$", text, re.MULTILINE)
    ]
    assert listed == sorted(there, key=lambda each: int(each[0]))
    assert [int(number) for number, *_ in listed] == list(range(1, len(listed) + 1))
