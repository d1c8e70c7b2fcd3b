"""The fuzzer's rules, by the judges' reading of docs/wire.md, agree with the test vectors."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.codecs.everything import EVERYTHING, GROWING
from wireproto import codecs
from wireproto.conformance.fuzzing.cases import Generator, mutated
from wireproto.conformance.fuzzing.judge import Methods, Observed, judge
from wireproto.conformance.fuzzing.messages import random_message
from wireproto.conformance.fuzzing.rules import Expected, expect_frames, expect_opening
from wireproto.conformance.page import HEADER, PING, PONG, PREAMBLE, read_welcome
from wireproto.conformance.raw import Ending, frame
from wireproto.limits import Limits

ROOT = Path(__file__).parents[3]
INVALID = json.loads((ROOT / "tests" / "vectors" / "invalid.json").read_text())
INVALID_SHAPES = json.loads((ROOT / "tests" / "vectors" / "invalid_shapes.json").read_text())
DROPPED = json.loads((ROOT / "tests" / "vectors" / "dropped.json").read_text())
SHAPES = {each["name"]: each for each in json.loads((ROOT / "tests" / "vectors" / "shapes.json").read_text())}
CONVERSATIONS = json.loads((ROOT / "tests" / "vectors" / "conversations.json").read_text())

# What went before on these connections, as tests/vectors/README.md says: REQUEST 1 with opcode 0x0010.
BEFORE = {
    "open": b"",
    "unary call": bytes.fromhex("0000000c 03 00 02 01 0010 0000 00000001"),
    "stream": bytes.fromhex("00000017 03 08 02 01 0010 000b 00000001 05 0008 00000002 00000064"),
}


def _id(vector: dict[str, Any]) -> str:
    name: str = vector["name"]
    return name


@pytest.mark.parametrize(
    "vector", [each for each in INVALID if each["to"] == "server" and each["after"] == "start"], ids=_id
)
def test_refused_openings_are_expected(vector: dict[str, Any]) -> None:
    """Of every vector that a server refuses at the start, the reason is among those expected, and it must end."""
    expected = expect_opening(bytes.fromhex(vector["hex"]))
    assert vector["reason"] in expected.reasons
    assert not expected.lives or vector["reason"] == "BAD_BODY"


@pytest.mark.parametrize(
    "vector", [each for each in INVALID if each["to"] == "server" and each["after"] in BEFORE], ids=_id
)
def test_refused_frames_are_expected(vector: dict[str, Any]) -> None:
    """Of every vector that a server refuses later, the reason is among those expected."""
    sent = BEFORE[vector["after"]] + bytes.fromhex(vector["hex"])
    expected = expect_frames(sent, max_frame=2**20, codec=2, version=1)
    assert vector["reason"] in expected.reasons
    # What depends on whether a call is still in flight need not end it.
    assert not expected.lives or vector["reason"] in ("WRONG_OPCODE", "WRONG_HALF", "CREDIT_OVERFLOW", "CALL_ID")


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=_id)
def test_what_a_good_client_sends_ends_nothing(conversation: dict[str, Any]) -> None:
    """Of every conversation of the vectors, what the client sends is expected to live."""
    first, *rest = [bytes.fromhex(step["hex"]) for step in conversation["steps"] if step["from"] == "client"]
    assert expect_opening(first).lives
    assert expect_frames(b"".join(rest), max_frame=2**20, codec=2, version=1).lives


# The fuzzer takes no calls of the server's, so that it need not know what may come of one.
OF_THE_SERVER = "calls that the server begins"


def behind(vector: dict[str, Any]) -> Expected:
    """Of what the client sends in the first steps of a conversation, and then."""
    steps = (SHAPES | {each["name"]: each for each in CONVERSATIONS})[vector["conversation"]]["steps"]
    _, *sent = [bytes.fromhex(step["hex"]) for step in steps[: vector["steps"]] if step["from"] == "client"]
    welcome = bytes.fromhex(next(step["hex"] for step in steps if step["from"] == "server"))
    found = read_welcome(welcome[len(PREAMBLE) + HEADER.size :])
    return expect_frames(
        b"".join(sent) + bytes.fromhex(vector["hex"]),
        max_frame=found.max_frame,
        codec=found.codec,
        version=found.version,
        first_credit=found.first_credit,
        one_way_credit=found.one_way_credit,
        packing=sum(found.packing),
    )


def of_clients(vectors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in vectors if each["to"] == "server" and each["conversation"] != OF_THE_SERVER]


@pytest.mark.parametrize("vector", of_clients(INVALID_SHAPES), ids=_id)
def test_refused_frames_of_every_shape_are_expected(vector: dict[str, Any]) -> None:
    """Behind calls of every shape the reason for which a server ends the connection is among those expected."""
    assert vector["reason"] in behind(vector).reasons


@pytest.mark.parametrize("vector", of_clients(DROPPED), ids=_id)
def test_what_has_crossed_ends_nothing(vector: dict[str, Any]) -> None:
    """What has crossed the end of a call is expected to be dropped."""
    assert behind(vector).lives


@pytest.mark.parametrize("each", [frame(PONG, bytes(8)), frame(0xF0)], ids=["PONG", "unknown"])
def test_a_server_may_have_enough_of_chatter(each: bytes) -> None:
    """Beyond what it must read over, with what other frames allow, a server may end the connection, or be too late."""

    def expected(data: bytes) -> Expected:
        return expect_frames(data, max_frame=65_536, codec=2, version=1)

    ping = frame(PING, bytes(8))
    assert expected(each * 1000).reasons == set()
    assert expected(each * 1000 + ping * 2 + each * 8).reasons == set()
    for data in (each * 1001, each * 1000 + ping * 2 + each * 9):
        assert expected(data).reasons == {"TOO_MANY_FRAMES"}
        assert expected(data).lives


@pytest.mark.parametrize("codec", ["pipe", "msgpack", "protobuf"])
def test_random_messages_are_messages(codec: str) -> None:
    """Every random message is within its bounds, in each version of the service."""
    rng = random.Random(codec)
    for service in (EVERYTHING, GROWING):
        for version in range(1, service.version + 1):
            for method in service.at(version).values():
                plan = codecs.get(codec).plan(method.request, version, Limits())
                for _ in range(20):
                    plan.decode(plan.encode(random_message(rng, method.request, version)))


def test_mutated_bytes_differ() -> None:
    """Mutations of a payload are nearly all other bytes, of all lengths."""
    rng = random.Random(1)
    made = {mutated(rng, b"0123456789" * 3) for _ in range(300)}
    assert len(made) > 200
    assert {len(each) for each in made} >= {0, 29, 30, 31}


def test_an_answer_cut_short_is_wrong() -> None:
    """A server whose output ends within a frame is found out."""
    table = Methods.of(EVERYTHING, "msgpack", 1)
    case = Generator(table, "msgpack", 0, ["valid"]).probe()
    observed = Observed(b"\xf5WP\x01\0\0\0\x29\2", None, Ending.EOF)
    assert judge(case.opening, b"", observed, table)[0] == "the server's output ends within a frame"
