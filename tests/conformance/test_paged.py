"""The server built from the pages alone: the kit passes it, and ``wireproto call`` calls it without any source."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import ROOT, wireproto
from tests.conformance.paged import msgpack, pipe
from wireproto import CallError, connect
from wireproto.conformance.case import Verdict
from wireproto.conformance.processes import ServerProcess
from wireproto.conformance.runner import Selection
from wireproto.conformance.server import judge_server
from wireproto.conformance.servers import calling
from wireproto.control import CONTROL, DESCRIBE, DescribeRequest, declare
from wireproto.schema import MISSING, fields

FOLDER = Path(__file__).parent / "paged"
ALONE = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules["wireproto"] = None
runpy.run_module("tests.conformance.paged")
"""


def paged(service: str) -> ServerProcess:
    """A server of that service, in a process of its own in which wireproto cannot be imported."""
    return ServerProcess([sys.executable, "-c", ALONE, service])


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    with paged("pages.v1.PageService") as server:
        yield "{}:{}".format(*server.address)


def test_it_is_built_from_the_page_alone() -> None:
    """Its modules import the standard library and one another, and nothing else."""
    imported: set[str] = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(each.name for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or ".")
    others = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others
    assert all(f"{name}.".startswith("tests.conformance.paged.") for name in others)


def test_it_conforms() -> None:
    """It passes every case of both its codecs, its end included."""
    service = "wireconformance.v1.ConformanceService"
    with paged(service) as server:
        runs = judge_server(server.address, Selection(versions=[3]), start=lambda: paged(service))
    assert {run.codec for run in runs} == {"", "pipe", "msgpack"}
    # It begins no calls, and says so to whoever asks it to.
    without_ask = [run for run in runs if run.verdict is Verdict.SKIPPED and "does not implement Ask" in run.detail]
    assert {run.case.run.__module__ for run in without_ask} == {calling.__name__}
    not_passed = [run for run in runs if run.verdict is not Verdict.PASSED and run not in without_ask]
    assert [f"{run.name}: {run.detail}" for run in not_passed] == []
    assert len(runs) > 600


# wireproto call -----------------------------------------------------------------------------------------------------

DEFAULTS: dict[str, Any] = {
    "flag": False,
    "yes": True,
    "zero": 0,
    "minus": -(2**63),
    "most": 2**64 - 1,
    "real": 0.0,
    "tie": 900719925474099.25,
    "endless": "inf",
    "tiny": 5e-324,
    "nothing": "",
    "text": "a|b\\c\nd\re,:()[]{} \\N \u2028é😀",
    "octets": "00ff7c",
    "none": "",
    "moment": "2024-02-29T12:34:56.000789Z",
    "paper": "SQUARED",
    "maybe": None,
    "part": None,
    "numbers": [],
    "parts": [],
    "by_name": {},
    "by_number": {},
    "small": 7,
    "short": "x",
    "newer": True,
}
"""What its one message has where nobody set it, as ``wireproto call`` prints it."""


def called(*words: str) -> list[Any]:
    """What the real command prints, a JSON value a line."""
    done = wireproto("call", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("codec", ["pipe", "msgpack"])
def test_a_method_is_called_with_the_defaults_described(pages: str, codec: str) -> None:
    """From what the server describes a request has the default of every kind of field there is."""
    assert called(pages, "Fill", "title=x", "--codec", codec) == [{"title": "x", **DEFAULTS}]


@pytest.mark.parametrize("codec", ["pipe", "msgpack"])
def test_every_kind_of_field_is_sent_and_read(pages: str, codec: str) -> None:
    """A value other than the default, in every field, comes back from a method that sends its request back."""
    given = {
        "title": "a|b",
        "flag": True,
        "yes": False,
        "zero": 2**63 - 1,
        "minus": 0,
        "most": 0,
        "real": -1.5e300,
        "tie": 0.1,
        "endless": "nan",
        "tiny": "-inf",
        "nothing": "\\N",
        "text": "",
        "octets": "",
        "none": "ff",
        "moment": "0001-01-01T00:00:00Z",
        "paper": "WHITE",
        "maybe": 0,
        "part": {"name": "(,)", "weight": 1.5},
        "numbers": [1, -1, 300],
        "parts": [{"name": "", "weight": 0.0}, {"name": "\n", "weight": 2.5}],
        "by_name": {"": 1.0, "k:": -0.5},
        "by_number": {"-7": "LINED", "9": "SQUARED"},
        "small": 255,
        "short": "😀😀😀😀😀",
        "newer": False,
    }
    assert set(given) == {"title", *DEFAULTS}
    assert called(pages, "Fill", "-d", json.dumps(given), "--codec", codec) == [given]


@pytest.mark.parametrize("codec", ["pipe", "msgpack"])
def test_a_stream_is_called(pages: str, codec: str) -> None:
    """Items come as there is credit for them, with the default number of them and with another one."""
    assert called(pages, "Turn", "--codec", codec) == [{"page": 0}, {"page": 1}, {"page": 2}]
    assert called(pages, "pages.v1.PageService/Turn", "pages=200", "--codec", codec) == [
        {"page": n} for n in range(200)
    ]
    assert called(pages, "Turn", "pages=1000000", "-n", "3", "--codec", codec) == [{"page": n} for n in range(3)]


@pytest.mark.parametrize("codec", ["pipe", "msgpack"])
def test_the_frameworks_own_methods_are_called(pages: str, codec: str) -> None:
    """Check, Echo and Describe are there in each codec; Describe of all leaves the framework's own service out."""
    assert called(pages, "Check", "--codec", codec)[0]["health"] == "SERVING"
    assert called(pages, "Check", "service=wirecontrol.v1.ControlService", "--codec", codec)[0]["health"] == "SERVING"
    assert called(pages, "Echo", "payload=00ff", "--codec", codec) == [{"payload": "00ff"}]
    (described,) = called(pages, "Describe", "--codec", codec)
    assert [service["full_name"] for service in described["services"]] == ["pages.v1.PageService"]
    texts = {field["name"]: field["default"] for field in described["services"][0]["messages"][0]["fields"]}
    assert (texts["title"], texts["tie"], texts["maybe"]) == ("", "900719925474099.2", "\\N")


def test_what_it_refuses_is_told(pages: str) -> None:
    """An error of a stream, a service that is not there, and a codec that the server lacks are sentences."""
    torn = wireproto("call", pages, "Turn", "pages=1", "fail=true")
    assert (torn.stdout, torn.returncode) == ('{"page": 0}\n', 20)
    assert "TORN: a page is torn" in torn.stderr
    nobody = wireproto("call", pages, "Check", "service=nobody.v1.NobodyService")
    assert nobody.returncode == 15
    assert "UNKNOWN_SERVICE" in nobody.stderr
    other = wireproto("call", pages, "Check", "--codec", "protobuf")
    assert other.returncode == 19
    assert "UNSUPPORTED_CODEC" in other.stderr


def test_bounds_described_are_known_before_anything_is_sent(pages: str) -> None:
    """A value out of the bounds that the server describes is refused by the command."""
    done = wireproto("call", pages, "Fill", "title=x", "small=256")
    assert done.returncode == 2
    assert "FillRequest.small: is not within 0 to 255" in done.stderr


def test_the_digests_of_what_it_describes_are_its_own(pages: str) -> None:
    """A client lists the digests of what it declared from the description, and the server, which computes its own by
    the page, agrees; with another default it does not."""
    with connect(pages, CONTROL) as client:
        (described,) = client.call(DESCRIBE, DescribeRequest()).services
    service = declare(described)
    for version in (1, 2):
        with connect(pages, service, version=version) as client:
            assert client.version == version
    (fill,) = [each for each in described.messages if each.name == "FillRequest"]
    assert len(fill.fields) == 1 + len(DEFAULTS)
    assert [field.name for field in fields(service.by_name("Fill").request) if field.default is MISSING] == ["title"]
    other = [msgspec.structs.replace(each, default="8") if each.name == "small" else each for each in fill.fields]
    messages = [msgspec.structs.replace(each, fields=other) if each is fill else each for each in described.messages]
    with pytest.raises(CallError, match="CONTRACT_MISMATCH"):
        connect(pages, declare(msgspec.structs.replace(described, messages=messages))).open()


# The vectors --------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value of the vectors as this server has it: maps are dicts."""
    if isinstance(value, dict):
        return {name: dict(each) if name == "members" else plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def test_its_descriptions_are_those_of_the_vectors() -> None:
    """What its codecs, written from the page, make of the answer in the vectors are the vectors' bytes, and back."""
    vectors = json.loads((ROOT / "tests" / "vectors" / "descriptions.json").read_text("utf-8"))
    response = plain(vectors["response"])
    for codec, payload in ((pipe, vectors["pipe"].encode()), (msgpack, bytes.fromhex(vectors["msgpack"]))):
        assert codec.encode("DescribeResponse", response, 1) == payload
        assert codec.decode("DescribeResponse", payload, 1) == response
