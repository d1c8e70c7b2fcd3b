"""The .proto text: its comments, its style, and the committed files."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from tests.agents.service import AGENTS
from tests.lending import LENDING
from tests.outside import buf, run
from tests.protos.declarations import EVERY
from tests.protos.versions import GROWING
from tests.shapes import SHAPES
from wireproto.conformance.service import CONFORMANCE
from wireproto.control import CONTROL, declare, describe
from wireproto.errors import ConfigError
from wireproto.protos import generate, render, service_file

ROOT = Path(__file__).parents[2]
SERVICES = [LENDING, CONTROL, EVERY, GROWING, SHAPES]


def test_the_committed_files_are_those_of_the_table() -> None:
    """`protos/` holds what the framework's opcode tables say now; `make generate` writes it anew."""
    assert generate(ROOT / "protos", [CONTROL, CONFORMANCE], check=True) == []


def test_docs_and_policy_become_comments() -> None:
    """Docstrings, reasons, capabilities, bounds, defaults and versions can be read in the text."""
    text = render(EVERY)
    for expected in (
        "// Has everything.\nservice EveryService {",
        "  // Opcode 0x10. Requires `everything`. Reasons: TOO_MUCH, TOO_LITTLE.\n  rpc Everything(",
        "  // Watches `it`.\n  //\n  // Opcode 0x12.\n  rpc Watch(",
        "// Two paragraphs, and code that keeps its lines:\n//\n//     x ->\n//     y ^\nmessage Point {",
        "  // Four levels of messages, with this one and its points.\n  .example.every.v1.Deep deep = 12;",
        '  // Absent means "tea | \\u2615".\n  optional string some_text = 32;',
        "  // Absent means 0x00ff.\n",
        "  // Absent means 2024-01-02T03:04:05.678901Z.\n",
        "  // Where it listens. From 1 to 65535.\n  int64 port = 1;",
        '  // At most 64 characters. Absent means "none".\n',
        "  // Exactly 16 bytes.\n",
        "  // At least 1 element. Each: at least 0.\n",
        "  // Goes first. Since version 2.\n",
        "  // The page is there.\n  HTTP_CODE_OK = 200;",
    ):
        assert expected in text


def test_each_shape_is_rendered() -> None:
    """Items are `stream`, and a one-way method says that its answer means nothing."""
    text = render(SHAPES).replace(".example.shapes.v1.", "")
    imports = 'import "google/protobuf/empty.proto";\nimport "google/protobuf/timestamp.proto";\n'
    nobody = "Answered before it runs: nobody is told what became of it."
    for expected in (
        f"package example.shapes.v1;\n\n{imports}\noption ",
        "  rpc Probe(ProbeRequest) returns (ProbeResponse);",
        "  rpc Follow(FollowRequest) returns (stream FollowResponse);",
        "  // Opcode 0x12. Reasons: FULL.\n  rpc Store(stream StoreRequest) returns (StoreResponse);",
        "  // Opcode 0x13. At most 3 messages.\n  rpc Average(stream AverageRequest) returns (AverageResponse);",
        "  rpc Convert(stream ConvertRequest) returns (stream ConvertResponse) {\n    option idempotency_level",
        f"  // Opcode 0x16. Since version 2. {nobody}\n  rpc Reset(ResetRequest) returns (.google.protobuf.Empty);",
    ):
        assert expected in text
    assert "message Empty" not in text


def test_a_stream_says_what_becomes_of_who_is_late() -> None:
    """Whether it can be gone on with, and by what, and what a slow caller has to expect."""
    text = render(CONFORMANCE).replace(".wireconformance.v1.", "")
    for expected in (
        "  // Opcode 0x14. Since version 3. Resumable: the position of an item is its `position`.\n  rpc Tail(",
        "  // Opcode 0x15. Since version 3. A slow caller misses the oldest items.\n  rpc Flood(",
        "  // Opcode 0x16. Since version 3. A slow caller is ended: SLOW_CONSUMER.\n  rpc Burst(",
    ):
        assert expected in text
    assert "slow" not in render(SHAPES)


def test_an_older_version_says_until_when() -> None:
    """A method that has ended is in the files of its versions only, and they say when it ends."""
    assert "  // Opcode 0x13. Until version 1.\n  rpc Old(" in render(EVERY, 1)
    assert "rpc Old(" not in render(EVERY)


def test_text_needs_no_source_code() -> None:
    """A service made at run time renders to the same declarations, with the comments it has."""
    for service in (LENDING, SHAPES):
        made = declare(describe(service))
        declared, described = (
            [line for line in render(each).split("\n") if "//" not in line] for each in (service, made)
        )
        assert described == declared


def test_names_are_fully_qualified() -> None:
    """No type is named relatively: a method or field of the same name would hide it."""
    for service in (LENDING, SHAPES):
        for line in render(service).replace(".google.protobuf.Empty", f".{service.package}.").split("\n"):
            if line.startswith("  rpc "):
                assert line.count(f"(.{service.package}.") + line.count(f"(stream .{service.package}.") == 2, line


def test_generate_writes_repairs_and_removes(tmp_path: Path) -> None:
    """Files that are missing, edited or of no service are reported, and put right when asked to."""
    library, module = tmp_path / "test/lending/v1/lending.proto", tmp_path / "buf.yaml"
    assert generate(tmp_path, [LENDING], check=True) == [module, library]
    assert not library.exists()
    assert generate(tmp_path, [LENDING]) == [module, library]
    assert generate(tmp_path, [LENDING], check=True) == []
    library.write_text(library.read_text("utf-8") + "\n", "utf-8")
    stale = tmp_path / "old.proto"
    stale.write_text("", "utf-8")
    assert generate(tmp_path, [LENDING], check=True) == [stale, library]
    assert stale.exists()
    generate(tmp_path, [LENDING])
    assert not stale.exists()
    assert library.read_text("utf-8") == render(LENDING)


def test_a_module_with_one_way_methods_lets_them_answer_empty(tmp_path: Path) -> None:
    """buf's rules want a response of its own for every rpc, but for what the module allows."""
    generate(tmp_path / "with", [LENDING, SHAPES])
    generate(tmp_path / "without", [LENDING])
    line = "  rpc_allow_google_protobuf_empty_responses: true\n"
    lenient, strict = ((tmp_path / each / "buf.yaml").read_text("utf-8") for each in ("with", "without"))
    assert lenient == strict + line


def test_generate_refuses_two_services_of_one_file(tmp_path: Path) -> None:
    """Two services that would be written to one file are refused before anything is written."""
    with pytest.raises(ConfigError, match="both have the file"):
        generate(tmp_path, [LENDING, LENDING])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module with every service that the tests have."""
    generate(tmp_path, SERVICES)
    return tmp_path


def test_buf_finds_nothing_to_lint(module: Path) -> None:
    """`buf lint` with its standard rules, which the module asks for, is silent."""
    assert run(buf(), "lint", cwd=module) == ""


def test_buf_lint_can_find_something(module: Path) -> None:
    """`buf lint` sees the rules: a field in the wrong case is found."""
    file = module / "test/lending/v1/lending.proto"
    file.write_text(file.read_text("utf-8").replace(" oldest_first = 4;", " oldestFirst = 4;"), "utf-8")
    assert "oldestFirst" in run(buf(), "lint", cwd=module, ok=False)


def test_buf_formats_nothing(module: Path) -> None:
    """`buf format` would change no line."""
    assert run(buf(), "format", "--diff", cwd=module) == ""


def test_buf_builds_the_same_descriptors(module: Path) -> None:
    """`buf build` makes the descriptors that are in use here."""
    run(buf(), "build", "--exclude-source-info", "-o", "built.binpb", cwd=module)
    built = FileDescriptorSet.FromString((module / "built.binpb").read_bytes()).file
    expected = {file.name: file for file in map(service_file, SERVICES)}
    found = {file.name: _without_extras(file) for file in built if file.name in expected}
    assert found == expected


def _without_extras(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file without what buf adds in a field of its own."""
    file.DiscardUnknownFields()
    return file


def test_what_the_server_calls_is_no_rpc() -> None:
    """gRPC has no calls of a server; their messages are there, for whoever speaks the codec protobuf."""
    text = render(AGENTS)
    assert text.count("  rpc ") == 1
    assert "message Order {" in text
    assert "google/protobuf/empty.proto" not in text
