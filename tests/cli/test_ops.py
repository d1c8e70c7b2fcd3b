"""`wireproto ops`: the opcode table for people and for programs."""

import json

from tests.cli.conftest import run
from tests.cli.services import SHOP
from tests.client.resumed import LOGS
from tests.shapes import SHAPES
from wireproto.cli import ops
from wireproto.control import describe
from wireproto.schema import Service


def test_piped_it_is_tab_separated() -> None:
    """One line per method under a heading, in opcode order, a dash for nothing."""
    done = run("ops", "tests.cli.services:SHOP")
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert head[:3] == ["OPCODE", "METHOD", "SHAPE"]
    assert rows[0][:6] == ["0x0001", "Paint", "unary", "PaintRequest", "PaintResponse", "1"]
    assert set(rows[0][6:]) == {"-"}
    assert rows[1][2] == "stream"
    assert rows[2][-1] == "TOLD_TO"
    assert {len(row) for row in rows} == {len(head)}


def test_for_people_it_is_aligned() -> None:
    """Columns line up, and those without a value are left out."""
    lines = ops._aligned(ops._rows(describe(SHOP)))
    assert lines[0].split() == ["OPCODE", "METHOD", "SHAPE", "REQUEST", "RESPONSE", "SINCE"]
    assert {line.index(word) for line, word in zip(lines, ["SHAPE", "unary", "stream", "unary"], strict=False)} == {16}
    assert all(line == line.rstrip() for line in lines)


def test_streams_that_drain_are_told() -> None:
    """A method whose streams go on while the server drains has a "yes" in its column, and others a dash."""
    rows = [line.split("\t") for line in run("ops", "wireproto.conformance.service:CONFORMANCE").stdout.splitlines()]
    drains = {row[1]: row[rows[0].index("DRAINS")] for row in rows[1:]}
    assert (drains["Reflect"], drains["Count"], drains["Mirror"]) == ("yes", "-", "-")


def test_methods_that_compress_are_told() -> None:
    """A method whose messages may be packed has a "yes" in its column, and others a dash."""
    rows = [line.split("\t") for line in run("ops", "wireproto.conformance.service:CONFORMANCE").stdout.splitlines()]
    compress = {row[1]: row[rows[0].index("COMPRESS")] for row in rows[1:]}
    assert (compress["Mirror"], compress["Short"]) == ("yes", "-")


def test_each_shape_has_its_word() -> None:
    """The shapes are those of the digests, and a one-way method has a dash for what it answers."""
    rows = [line.split("\t") for line in run("ops", "tests.shapes:SHAPES").stdout.splitlines()[1:]]
    assert [row[1:5] for row in rows] == [
        ["Probe", "unary", "ProbeRequest", "ProbeResponse"],
        ["Follow", "stream", "FollowRequest", "FollowResponse"],
        ["Store", "upload", "StoreRequest", "StoreResponse"],
        ["Average", "upload", "AverageRequest", "AverageResponse"],
        ["Convert", "duplex", "ConvertRequest", "ConvertResponse"],
        ["Beep", "oneway", "BeepRequest", "-"],
        ["Reset", "oneway", "ResetRequest", "-"],
    ]
    shapes = [method["shape"] for method in json.loads(run("ops", "tests.shapes:SHAPES", "--json").stdout)["methods"]]
    assert shapes == ["UNARY", "SERVER_STREAM", "UPLOAD", "UPLOAD", "DUPLEX", "ONE_WAY", "ONE_WAY"]
    assert "oneway  BeepRequest     -" in "\n".join(ops._aligned(ops._rows(describe(SHAPES))))


def test_the_position_of_a_resumable_stream_is_told() -> None:
    """The field of the items that a caller can go on behind, for people and for programs."""
    rows = [line.split("\t") for line in run("ops", "tests.client.resumed:LOGS").stdout.splitlines()]
    at = rows[0].index("RESUMABLE")
    assert {row[1]: row[at] for row in rows[1:]} == {
        "ReadNumbered": "cursor",
        "ReadCounted": "cursor",
        "ReadNamed": "cursor",
        "ReadMarked": "cursor",
        "ReadPlain": "-",
    }
    assert "RESUMABLE" in ops._aligned(ops._rows(describe(LOGS)))[0]
    rows = [line.split("\t") for line in run("ops", "tests.server.newsroom:NEWSROOM").stdout.splitlines()]
    assert [row[rows[0].index("SLOW")] for row in rows[1:]] == ["drop_oldest", "end", "drop_oldest"]
    assert "RESUMABLE" not in ops._aligned(ops._rows(describe(SHOP)))[0]


def test_for_people_the_oldest_version_is_told() -> None:
    """The versions are told where there is an end to them below as well."""
    assert ops._versions(describe(SHOP)) == "version 1"
    assert ops._versions(describe(Service("example.v1.AgedService", version=5, oldest=3))) == "versions 3 to 5"


def test_json_has_everything() -> None:
    """--json prints the whole description, with the fields of the messages and the members of the enums."""
    described = json.loads(run("ops", "tests.cli.services:SHOP", "--json").stdout)
    assert described["full_name"] == "example.v1.ShopService"
    assert [method["name"] for method in described["methods"]] == ["Paint", "Count", "Fail", "Wait"]
    assert described["messages"][0]["fields"][0]["name"] == "name"
    assert described["enums"] == [{"name": "Colour", "members": {"RED": 1, "BLUE": 2}, "doc": "A colour of paint."}]


def test_a_wrong_service_is_explained() -> None:
    """Handlers are no service; the error names what is."""
    done = run("ops", "tests.cli.services:shop")
    assert done.exit_code == 2
    assert "tests.cli.services:SHOP" in done.stderr


def test_who_calls_is_in_the_word() -> None:
    """A method that the server calls has that before its shape."""
    rows = [line.split("\t") for line in run("ops", "tests.agents.service:AGENTS").stdout.splitlines()[1:]]
    assert [row[2] for row in rows][:3] == ["unary", "server-unary", "server-stream"]
