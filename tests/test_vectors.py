"""The vectors in ``tests/vectors`` and the code agree, in both directions."""

import enum
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import new_class
from typing import Any

import pytest

from tests.pages import WIRE_PAGE
from tests.vectors import messages
from tests.wire.peers import (
    OFFERS,
    Pair,
    attempt,
    drain,
    greeted,
    in_call,
    in_stream,
    opened,
    plain,
    started,
)
from wireproto import codecs
from wireproto.codecs.pipe_values import read_value, write_value
from wireproto.control import DescribeResponse, declare, describe
from wireproto.errors import CallError, DecodeError, HandshakeError, PackedDetails, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.schema import Field, Message, Scalar, UInt64, fields
from wireproto.status import Retry, Status
from wireproto.wire.answers import Beside, pack_answer, pack_dropped, unpack_answer
from wireproto.wire.connection import Connection, State
from wireproto.wire.events import (
    CallOver,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    FlaggedRequestReceived,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    OneWayCreditReceived,
    PackedItemReceived,
    PackedResponseReceived,
    PingReceived,
    PongReceived,
    RequestEnded,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import KINDS, PREAMBLE, Credit, Kind, pack_details, pack_error, unpack, unpack_error
from wireproto.wire.handshake import Hello, Welcome, negotiate
from wireproto.wire.metadata import Metadata, pack_metadata, unpack_metadata
from wireproto.wire.packing import Packed, Payload

VECTORS = Path(__file__).parent / "vectors"
Vector = dict[str, Any]


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def each(vectors: list[Vector]) -> pytest.MarkDecorator:
    """Run a test once for each of the vectors."""
    return pytest.mark.parametrize(
        "vector", vectors, ids=[f"{v.get('codec', '')} {v['name']}".strip() for v in vectors]
    )


# Conversations: each step is sent by one side, as what it means, and reported by the other as that.


def error_of(means: Vector, kind: type[CallError] = CallError) -> CallError:
    return kind(
        Status[means["status"]],
        means["reason"],
        means["message"],
        retry=Retry[means["retry"]],
        retry_after_ms=means["retry_after_ms"],
    )


def metadata_of(means: Vector) -> Metadata:
    values = dict(means)
    for name in ("idempotency_key", "resume_after"):
        if name in values:
            values[name] = bytes.fromhex(values[name])
    if "credit" in values:
        values["credit"] = Credit(*values["credit"])
    return Metadata(**values)


def handshake_of(means: Vector) -> Vector:
    """The attributes of HELLO or WELCOME."""
    values = {name: value for name, value in means.items() if name != "kind"}
    if "first_credit" in values:
        values["first_credit"] = Credit(*values["first_credit"])
    return {**values, "digests": dict(values.get("digests", [])), "packing": tuple(values.get("packing", []))}


def hello_of(means: Vector) -> Hello:
    values = handshake_of(means)
    values["codecs"] = tuple((number, name) for number, name in values["codecs"])
    return Hello(**values)


def welcome_of(means: Vector) -> Welcome:
    return Welcome(**handshake_of(means))


def payload_of(means: Vector, algorithm: int) -> Payload:
    """What a frame carries: the payload, or what it travels as where that is packed."""
    payload = bytes.fromhex(means.get("payload", ""))
    if "packed" not in means:
        return payload
    packed = Packed(algorithm, bytes.fromhex(means["packed"]))
    assert packed.unpack() == payload
    return packed


def send(side: Connection, means: Vector) -> None:
    """Let ``side`` send what a step means."""
    kind, call_id = means["kind"], means.get("call_id", 0)
    payload = payload_of(means, side.packing)
    ways: dict[str, Callable[[], object]] = {
        "HELLO": lambda: side.send_hello(hello_of(means)),
        "WELCOME": lambda: side.send_welcome(welcome_of(means)),
        "REQUEST": lambda: send_request(side, means, payload),
        "RESPONSE": lambda: (
            side.send_response(call_id, payload)
            if isinstance(payload, bytes)
            else side.send_packed_response(call_id, payload)
        ),
        "ITEM": lambda: side.send_item(call_id, payload),
        "END": lambda: side.send_end(call_id),
        "ERROR": lambda: side.send_error(call_id, error_of(means)) if call_id else side.refuse(error_of(means)),
        "CANCEL": lambda: side.send_cancel(call_id),
        "CREDIT": lambda: (
            side.send_credit(call_id, *means["credit"]) if call_id else side.send_one_way_credit(means["calls"])
        ),
        "PING": lambda: side.send_ping(bytes.fromhex(means["data"])),
        "PONG": lambda: None,  # it was queued when the PING came
        "GOAWAY": lambda: side.send_goaway(error_of(means)),
    }
    ways[kind]()


def send_request(side: Connection, means: Vector, payload: Payload) -> None:
    metadata = metadata_of(means.get("metadata", {}))
    block = pack_metadata(metadata)
    if "flags" in means:
        call_id = side.send_flagged_request(means["flags"], means["opcode"], payload, block, credit=metadata.credit)
    else:
        call_id = side.send_request(means["opcode"], payload, block)
    assert call_id == means["call_id"]


def request_event(means: Vector, payload: Payload) -> Event:
    metadata = metadata_of(means.get("metadata", {}))
    if "flags" in means or not isinstance(payload, bytes):
        return FlaggedRequestReceived(means["call_id"], means["opcode"], means.get("flags", 0), metadata, payload)
    return RequestReceived(means["call_id"], means["opcode"], metadata, payload)


def error_event(means: Vector, final: type[CallError]) -> Event:
    if means.get("final"):
        return ConnectionEnded(error_of(means, final))
    return CallOver(means["call_id"]) if means.get("over") else ErrorReceived(means["call_id"], error_of(means))


def event_of(means: Vector, *, handshaking: bool) -> Event:
    """The event that the other side must report."""
    kind, call_id = means["kind"], means.get("call_id", 0)
    payload = payload_of(means, 1)  # in the conversations it is zlib
    final = HandshakeError if handshaking else CallError
    ways: dict[str, Callable[[], Event]] = {
        "HELLO": lambda: HelloReceived(hello_of(means)),
        "WELCOME": lambda: WelcomeReceived(welcome_of(means)),
        "REQUEST": lambda: request_event(means, payload),
        "RESPONSE": lambda: (
            ResponseReceived(call_id, means["opcode"], payload)
            if isinstance(payload, bytes)
            else PackedResponseReceived(call_id, means["opcode"], payload)
        ),
        "ITEM": lambda: (
            ItemReceived(call_id, payload) if isinstance(payload, bytes) else PackedItemReceived(call_id, payload)
        ),
        "END": lambda: RequestEnded(call_id) if means.get("of") == "request" else EndReceived(call_id),
        "ERROR": lambda: error_event(means, final),
        "CANCEL": lambda: CancelReceived(call_id),
        "CREDIT": lambda: (
            CreditReceived(call_id, Credit(*means["credit"])) if call_id else OneWayCreditReceived(means["calls"])
        ),
        "PING": lambda: PingReceived(bytes.fromhex(means["data"])),
        "PONG": lambda: PongReceived(bytes.fromhex(means["data"])),
        "GOAWAY": lambda: GoAwayReceived(means["last_call_id"], error_of(means)),
    }
    return ways[kind]()


CONVERSATIONS: list[Vector] = [*load("conversations.json"), *load("shapes.json")]


@each(CONVERSATIONS)
def test_conversations_are_spoken_and_understood(vector: Vector) -> None:
    """Each side sends exactly these bytes for what they mean, and the other reports exactly that."""
    pair = started()
    for number, step in enumerate(vector["steps"]):
        sender = pair.client if step["from"] == "client" else pair.server
        wire = bytes.fromhex(step["hex"])
        send(sender, step["means"])
        assert sender.data_to_send() == wire
        receiver = pair.other(sender)
        receiver.receive_data(wire)
        expected = event_of(step["means"], handshaking=number == 1)
        assert [plain(event) for event in drain(receiver)] == [plain(expected)]


@each(CONVERSATIONS)
def test_conversations_show_what_their_frames_say(vector: Vector) -> None:
    """Every step is one frame, of the kind, call and opcode it is said to be."""
    for number, step in enumerate(vector["steps"]):
        wire, means = bytes.fromhex(step["hex"]), step["means"]
        assert wire.startswith(PREAMBLE) is (number < 2)
        frame = unpack(wire.removeprefix(PREAMBLE))
        assert Kind(frame.kind).name == means["kind"]
        assert (frame.call_id, frame.opcode) == (means.get("call_id", 0), means.get("opcode", 0))


def test_conversations_have_every_kind() -> None:
    """Every kind is in some conversation."""
    steps = [step for vector in CONVERSATIONS for step in vector["steps"]]
    assert {Kind[step["means"]["kind"]] for step in steps} == KINDS


def test_refusals_say_what_negotiation_says() -> None:
    """The refused handshakes are what this server answers to those HELLOs."""
    refused = [vector for vector in CONVERSATIONS if vector["steps"][1]["means"].get("final")]
    assert len(refused) == 3
    for vector in refused:
        hello = hello_of(vector["steps"][0]["means"])
        with pytest.raises(HandshakeError) as caught:
            negotiate(hello, OFFERS, Limits(), "")
        assert plain(caught.value) == plain(error_of(vector["steps"][1]["means"], HandshakeError))


AFTER: dict[str, Callable[[], Pair]] = {
    "start": started,
    "greeting": greeted,
    "open": opened,
    "unary call": in_call,
    "stream": in_stream,
}


@each(load("invalid.json"))
def test_invalid_bytes_end_the_connection(vector: Vector) -> None:
    """The receiver ends the connection for this reason."""
    pair = AFTER[vector["after"]]()
    receiver = pair.client if vector["to"] == "client" else pair.server
    receiver.receive_data(bytes.fromhex(vector["hex"]))
    *_, last = drain(receiver)
    assert isinstance(last, ConnectionEnded)
    assert isinstance(last.error, RemoteProtocolError)
    assert last.error.reason == vector["reason"]


def behind(vector: Vector) -> Connection:
    """The side that a vector is sent to, behind the first steps of its conversation."""
    (conversation,) = (each for each in CONVERSATIONS if each["name"] == vector["conversation"])
    pair = started()
    for step in conversation["steps"][: vector["steps"]]:
        sender = pair.client if step["from"] == "client" else pair.server
        send(sender, step["means"])
        pair.deliver(sender)
    assert not pair.client.bytes_pending
    assert not pair.server.bytes_pending
    return pair.client if vector["to"] == "client" else pair.server


@each(load("invalid_shapes.json"))
def test_invalid_bytes_behind_a_conversation_end_the_connection(vector: Vector) -> None:
    """Behind the first steps of a conversation, the receiver ends the connection for this reason."""
    receiver = behind(vector)
    receiver.receive_data(bytes.fromhex(vector["hex"]))
    *_, last = drain(receiver)
    assert isinstance(last, ConnectionEnded)
    assert isinstance(last.error, RemoteProtocolError)
    assert last.error.reason == vector["reason"]


@each(load("dropped.json"))
def test_what_has_crossed_is_dropped(vector: Vector) -> None:
    """The receiver reports nothing, and the connection goes on."""
    receiver = behind(vector)
    receiver.receive_data(bytes.fromhex(vector["hex"]))
    assert drain(receiver) == []
    assert receiver.state is State.OPEN
    receiver.receive_data(bytes.fromhex("000000140a0000000000000000000000 0001020304050607"))
    assert drain(receiver) == [PingReceived(bytes(range(8)))]


@each(load("packed.json"))
def test_packed_payloads_are_read_so(vector: Vector) -> None:
    """A packed payload stands for these bytes, or for none."""
    packed = Packed(vector["algorithm"], bytes.fromhex(vector["hex"]))
    if "means" in vector:
        assert packed.unpack() == bytes.fromhex(vector["means"])
        assert len(packed) == len(bytes.fromhex(vector["means"]))
    else:
        with pytest.raises(DecodeError):
            packed.unpack()


def test_each_reason_that_ends_a_connection_has_a_vector() -> None:
    """There are bytes for every reason that the page lists, unless it takes a clock, a rate or the end of the input."""
    found = {vector["reason"] for vector in (*load("invalid.json"), *load("invalid_shapes.json"))}
    listed = set(re.findall(r"^\| ([A-Z_]+) \| (?:both|server|client) \|", WIRE_PAGE, re.MULTILINE))
    by_time = {"FRAME_TIMEOUT", "HELLO_TIMEOUT", "TOO_MANY_CANCELS", "TOO_MANY_ERRORS", "TOO_MANY_PINGS"}
    assert found == listed - by_time - {"TRUNCATED_FRAME"}


@each(load("metadata.json"))
def test_metadata_are_read_and_written_so(vector: Vector) -> None:
    """A block means this, or fails its call like this."""
    block = bytes.fromhex(vector["hex"])
    got = attempt(unpack_metadata, block)
    if isinstance(got, Metadata):
        expected = metadata_of(vector["means"])
        assert got == expected
        assert (pack_metadata(expected) == block) is vector.get("canonical", True)
    else:
        assert isinstance(got, CallError)
        assert (got.status.name, got.reason) == (vector["status"], vector["reason"])


@each(load("answers.json"))
def test_what_stands_beside_answers_is_read_and_written_so(vector: Vector) -> None:
    """A block in a frame of this kind means this, or fails its call like this."""
    block = bytes.fromhex(vector["hex"])
    try:
        found = unpack_answer(Kind[vector["kind"]], block)
    except CallError as error:
        told = error.status.name, error.reason
        assert told == (vector["status"], vector["reason"])
        return
    assert found == Beside(**vector["means"])
    assert (pack_answer(found.metadata) + pack_dropped(found.dropped) == block) is vector.get("canonical", True)


@each(load("errors.json"))
def test_errors_are_read_and_written_so(vector: Vector) -> None:
    """The body of an ERROR is read as this error; a canonical one is what the error is written as."""
    body = bytes.fromhex(vector["hex"])
    expected = error_of(vector["means"])
    found = unpack_error(body)
    assert plain(found) == plain(expected)
    name, payload = vector["means"].get("details", ("", ""))
    details = PackedDetails(name, bytes.fromhex(payload)) if name else None
    assert found.packed_details == details
    written = pack_error(expected) + (pack_details(details) if details is not None else b"")
    assert (written == body) is vector.get("canonical", True)


# Codecs.

CODECS: dict[str, Any] = load("codecs.json")
CLASSES: dict[str, type[Message]] = {cls.__name__: cls for cls in messages.MESSAGES}
LIMITS = Limits()


def to_json(value: object) -> object:
    """A value of a message, as the vectors write it."""
    if isinstance(value, Message):
        return {name: to_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return [[to_json(key), to_json(item)] for key, item in value.items()]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, bool | enum.IntEnum):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, float) and (not math.isfinite(value) or str(value) == "-0.0"):
        return str(value)
    return value


def from_json(field: Field, value: Any) -> object:
    """The value of a field that the vectors write so."""
    kind = field.type
    if kind.key is not None:
        return {int(key) if kind.key is Scalar.INT else key: one(kind.scalar, kind.cls, item) for key, item in value}
    if kind.shape == "list":
        return [one(kind.scalar, kind.cls, item) for item in value]
    return one(kind.scalar, kind.cls, value)


def one(scalar: Scalar, cls: type[Any] | None, value: Any) -> object:
    if value is None:
        return None
    if scalar is Scalar.MESSAGE or scalar is Scalar.ENUM:
        assert cls is not None
        return message_of(cls, value) if scalar is Scalar.MESSAGE else cls(value)
    if scalar is Scalar.DATETIME:
        return datetime.fromisoformat(value).astimezone(UTC)
    if scalar is Scalar.BYTES:
        return bytes.fromhex(value)
    if scalar is Scalar.FLOAT:
        return float(value)
    return int(value) if scalar in (Scalar.INT, Scalar.UINT) else value


def message_of(cls: type[Message], value: Vector) -> Message:
    return cls(**{field.name: from_json(field, value[field.name]) for field in fields(cls) if field.name in value})


def test_the_messages_are_those_declared() -> None:
    """The vectors list fields and enums as this package's classes have them."""
    declared = {}
    for cls in messages.MESSAGES:
        listed = []
        for field in fields(cls):
            text = f"{field.name}: {field.type}"
            if not field.required:
                text += " = " + ("{}" if field.type.shape == "map" else json.dumps(to_json(field.default)))
            listed.append(text + (f" (since version {field.since})" if field.since > 1 else ""))
        declared[cls.__name__] = listed
    assert CODECS["messages"] == declared
    assert CODECS["enums"] == {"Color": {member.name: int(member) for member in messages.Color}}


@each(CODECS["canonical"])
@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_canonical_payloads_are_written_and_read(vector: Vector, codec: str) -> None:
    """The message is these bytes in each codec, and these bytes are the message."""
    plan = codecs.get(codec).plan(CLASSES[vector["message"]], vector["version"], LIMITS)
    message = message_of(CLASSES[vector["message"]], vector["value"])
    payload = vector[codec].encode() if codec == "pipe" else bytes.fromhex(vector[codec])
    assert plan.encode(message) == payload
    # Compared as written, so that not a number equals itself and minus zero is not zero.
    assert plan.encode(plan.decode(payload)) == payload
    got = to_json(plan.decode(payload))
    assert sorted_maps(got) == sorted_maps(to_json(message))


def sorted_maps(value: object) -> object:
    """The same with lists of pairs in one order."""
    if isinstance(value, dict):
        return {name: sorted_maps(item) for name, item in value.items()}
    if isinstance(value, list):
        return sorted((sorted_maps(item) for item in value), key=repr)
    return value


@each(CODECS["accepted"])
def test_accepted_payloads_are_read(vector: Vector) -> None:
    """These bytes, which nobody writes, are read as the message."""
    plan = codecs.get(vector["codec"]).plan(CLASSES[vector["message"]], vector["version"], LIMITS)
    payload = bytes.fromhex(vector["hex"])
    message = plan.decode(payload)
    assert message == message_of(CLASSES[vector["message"]], vector["value"])
    assert plan.encode(message) != payload


@each(CODECS["refused"])
def test_refused_payloads_are_no_message(vector: Vector) -> None:
    """These bytes are a DecodeError."""
    plan = codecs.get(vector["codec"]).plan(CLASSES[vector["message"]], vector["version"], LIMITS)
    with pytest.raises(DecodeError):
        plan.decode(bytes.fromhex(vector["hex"]))


# Descriptions.

DESCRIPTIONS: dict[str, Any] = load("descriptions.json")
TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "UInt64": UInt64,
    "float": float,
    "str": str,
    "bytes": bytes,
    "datetime": datetime,
    "Color": messages.Color,
    "int | None": int | None,
    "str | None": str | None,
    "Point | None": messages.Point | None,
    "list[str]": list[str],
    "list[Point]": list[messages.Point],
    "dict[str, int]": dict[str, int],
    "dict[int, Color]": dict[int, messages.Color],
}


def only_field(annotation: Any) -> Field:
    """The field of a message that has no other one."""
    body = {"__annotations__": {"value": annotation}}
    (found,) = fields(new_class("Only", (Message,), exec_body=lambda namespace: namespace.update(body)))
    return found


@pytest.mark.parametrize("vector", DESCRIPTIONS["defaults"], ids=str)
def test_defaults_are_described_and_declared_so(vector: Vector) -> None:
    """A default of the type is this text, and the text is this default."""
    field = only_field(TYPES[vector["type"]])
    value = from_json(field, vector["value"])
    assert write_value(value, field.type) == vector["default"]
    again = read_value(vector["default"], field.type)
    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize("vector", DESCRIPTIONS["refused"], ids=str)
def test_texts_that_are_no_defaults_are_refused(vector: Vector) -> None:
    """These texts are no default of the type."""
    with pytest.raises(DecodeError):
        read_value(vector["default"], only_field(TYPES[vector["type"]]).type)


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_the_description_is_what_is_answered(codec: str) -> None:
    """A service declared from the description is described by these bytes, in each codec."""
    response = message_of(DescribeResponse, DESCRIPTIONS["response"])
    assert isinstance(response, DescribeResponse)
    plan = codecs.get(codec).plan(DescribeResponse, 1, LIMITS, request=False)
    written = DESCRIPTIONS[codec]
    payload = written.encode() if codec == "pipe" else bytes.fromhex(written)
    assert plan.encode(response) == payload
    assert plan.decode(payload) == response
    services = [describe(declare(each)) for each in response.services]
    assert plan.encode(DescribeResponse(server=response.server, services=services)) == payload


def test_the_description_has_the_default_of_every_kind() -> None:
    """Its fields have a default of each kind and shape, and one has none."""
    (service,) = DESCRIPTIONS["response"]["services"]
    shown = [field for message in service["messages"] for field in message["fields"]]
    with_default = {(field["container"], field["kind"]) for field in shown if not field["required"]}
    assert {kind for container, kind in with_default if container == 1} == set(range(1, 10))
    assert {container for container, _ in with_default} == {1, 2, 3}
    assert any(field["required"] and not field["default"] for field in shown)
