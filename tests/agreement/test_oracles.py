"""Programs that nobody here wrote agree about the bytes: two of MessagePack, protoc's generated code, and buf."""

import importlib
import json
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from grpc_tools import protoc  # type: ignore[import-untyped]

from tests.agreement.test_million import kinds, message
from tests.codecs.everything import EVERYTHING
from tests.outside import NODE_MODULES, buf, run
from tests.protos.values import _fill
from wireproto import codecs
from wireproto.limits import Limits
from wireproto.protos import generate
from wireproto.schema import FieldType, Message, Scalar, Service, fields, to_plain
from wireproto.testing.differential import meaning
from wireproto.testing.foreign import Pairs, Record, Stamp, loose

ORACLE = Service("oracle.v1.OracleService", methods=EVERYTHING.methods)
"""Everything once more, under a name that generated code may have for itself."""


def cases(count: int, seed: int) -> Iterator[Message]:
    rng = random.Random(seed)
    every = list(kinds(ORACLE))
    for _ in range(count):
        cls, version = rng.choice(every)
        yield message(rng, cls, version)


def written(codec: str, each: Message) -> bytes:
    return codecs.get(codec).plan(type(each), 1, Limits()).encode(each)


def read(codec: str, cls: type[Message], payload: bytes) -> Message:
    return codecs.get(codec).plan(cls, 1, Limits()).decode(payload)


# MessagePack ------------------------------------------------------------------------------------------------------


def in_order(value: Any) -> Any:
    """Plain data with the maps in the order of canonical bytes, and one NaN."""
    if isinstance(value, list):
        return [in_order(each) for each in value]
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return float("nan") if value != value else value


def test_msgspec_writes_the_same_bytes() -> None:
    """Plain data, without any of our plans, are the same bytes in msgspec."""
    for each in cases(2000, seed=1):
        payload = written("msgpack", each)
        assert msgspec.msgpack.encode(in_order(to_plain(each))) == payload
        assert msgspec.msgpack.encode(msgspec.msgpack.decode(payload)) == payload


def described(value: Any) -> Any:
    """A tree for msgpack.mjs; KeyError for what JavaScript has no way to hold."""
    match value:
        case None | bool():
            return value
        case int():
            return {"i": str(value)}
        case float():
            return {"f": struct.pack(">d", value).hex()}
        case str():
            return {"s": value}
        case bytes():
            return {"b": value.hex()}
        case Stamp():
            return described(value.seconds * 1_000_000 + value.nanos // 1000)
        case Record() | list():
            return {"a": [described(each) for each in (value.fields if isinstance(value, Record) else value)]}
        case Pairs():
            # An object's keys are texts, and those that look like an index come first, whatever their order.
            if any(not isinstance(key, str) or key.isdigit() or key == "__proto__" for key, _ in value.items):
                raise KeyError(value)
            return {"m": [[key, described(each)] for key, each in sorted(value.items)]}
    raise KeyError(value)


def same(ours: Any, theirs: Any) -> bool:
    """Whether JavaScript read what was meant: all its numbers of 32 bits and less are doubles."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if "i" in ours and "f" in theirs:
            return bool(struct.pack(">d", float(int(ours["i"]))).hex() == theirs["f"])
        if "a" in ours and "a" in theirs:
            return len(ours["a"]) == len(theirs["a"]) and all(map(same, ours["a"], theirs["a"]))
        if "m" in ours and "m" in theirs:
            pairs = zip(ours["m"], theirs["m"], strict=True)
            return all(bool(mine[0] == other[0]) and same(mine[1], other[1]) for mine, other in pairs)
        if "f" in ours and "f" in theirs:
            mine, other = (struct.unpack(">d", bytes.fromhex(each["f"]))[0] for each in (ours, theirs))
            return bool(ours == theirs or (mine != mine and other != other))
    return bool(ours == theirs)


def has_whole_float(value: Any) -> bool:
    """Whether JavaScript, which has one type for both, writes one of the floats as an integer."""
    match value:
        case float():
            return value.is_integer() and abs(value) < 2**53
        case Record() | list():
            return any(map(has_whole_float, value.fields if isinstance(value, Record) else value))
        case Pairs():
            return any(has_whole_float(each) for _, each in value.items)
    return False


@pytest.mark.slow
def test_javascript_reads_and_writes_the_same_bytes() -> None:
    """@msgpack/msgpack reads what is meant, and writes the same bytes, but for floats that it takes for integers."""
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "@msgpack").exists():
        pytest.skip("@msgpack/msgpack is not installed: npm install --prefix tests/node")
    said, sent = [], []
    for each in cases(2500, seed=2):
        tree = loose(each)
        try:
            said.append({"payload": written("msgpack", each).hex(), "value": described(tree)})
        except KeyError:
            continue
        sent.append(each)
    script = NODE_MODULES.parent / "msgpack.mjs"
    done = subprocess.run(
        [node, script], input=json.dumps(said), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    exact = 0
    for each, given, got in zip(sent, said, json.loads(done.stdout), strict=True):
        assert same(given["value"], got["read"]), each
        if has_whole_float(loose(each)):
            # Its 1.0 is 1 on the wire, and its -0.0 is 0: a float for us, but another one.
            read("msgpack", type(each), bytes.fromhex(got["written"]))
        else:
            assert got["written"] == given["payload"], each
            exact += 1
    assert exact > 1000


# Protobuf ---------------------------------------------------------------------------------------------------------


def one_entry_at_most(each: Message) -> bool:
    """Whether no map leaves it to the writer in which order its entries come."""

    def holds(value: Any, kind: FieldType) -> bool:
        if kind.key is not None:
            return len(value) < 2 and all(holds(item, kind.element) for item in value.values())
        if kind.shape == "list":
            return all(holds(item, kind.element) for item in value)
        return kind.scalar is not Scalar.MESSAGE or value is None or one_entry_at_most(value)

    return all(holds(getattr(each, field.name), field.type) for field in fields(type(each)))


def no_nan(each: Message) -> bool:
    return "nan" not in repr(each)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module that protoc generates from the printed .proto."""
    folder = tmp_path_factory.mktemp("stubs")
    generate(folder, [ORACLE])
    (source,) = folder.rglob("*.proto")
    name = source.relative_to(folder)
    known = files("grpc_tools") / "_proto"
    assert protoc.main(["protoc", f"-I{folder}", f"-I{known}", f"--python_out={folder}", str(name)]) == 0
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(".".join(name.with_suffix("").parts) + "_pb2")
    finally:
        sys.path.remove(str(folder))


def test_protocs_code_reads_and_writes_the_same_bytes(stubs: Any) -> None:
    """Generated code filled with the message writes our bytes, and reads them as that."""
    exact = 0
    for each in cases(1500, seed=3):
        payload = written("protobuf", each)
        theirs = getattr(stubs, type(each).__name__)()
        _fill(each, theirs)
        parsed = type(theirs).FromString(payload)
        assert meaning(loose(read("protobuf", type(each), theirs.SerializeToString()))) == meaning(loose(each))
        if no_nan(each):
            assert parsed == theirs
            if one_entry_at_most(each):
                assert theirs.SerializeToString() == payload
                exact += 1
    assert exact > 500


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and contents of a message whose fields all have a length."""

    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift, last = at + 1, shift + 7, data[at] < 128
            if last:
                return value, at

    at = 0
    while at < len(data):
        tag, at = number(at)
        size, at = number(at)
        yield tag >> 3, data[at : at + size]
        at += size


@pytest.mark.slow
def test_buf_converts_our_bytes_and_back(tmp_path: Path) -> None:
    """Of 200 messages buf makes JSON by the printed .proto, and of that bytes that mean the same."""
    program = buf()
    generate(tmp_path, [ORACLE])
    (source,) = tmp_path.rglob("*.proto")
    classes = sorted({cls for cls, _ in kinds(ORACLE)}, key=lambda cls: cls.__name__)
    listed = "".join(f"  repeated {cls.__name__} field_{n} = {n};\n" for n, cls in enumerate(classes, 1))
    batch = source.with_name("batch.proto")
    name = source.relative_to(tmp_path)
    batch.write_text(
        f'syntax = "proto3";\npackage oracle.v1;\nimport "{name}";\nmessage Batch {{\n{listed}}}\n', "utf-8"
    )
    sent = sorted(cases(200, seed=4), key=lambda each: classes.index(type(each)))
    payloads = [(classes.index(type(each)) + 1, written("protobuf", each)) for each in sent]
    (tmp_path / "in.binpb").write_bytes(
        b"".join(varint(number << 3 | 2) + varint(len(payload)) + payload for number, payload in payloads)
    )
    convert = (program, "convert", ".", "--type", "oracle.v1.Batch")
    run(*convert, "--from", "in.binpb", "--to", "out.json", cwd=tmp_path)
    told = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert sum(map(len, told.values())) == 200
    run(*convert, "--from", "out.json", "--to", "back.binpb", cwd=tmp_path)
    back = list(split((tmp_path / "back.binpb").read_bytes()))
    assert [number for number, _ in back] == [number for number, _ in payloads]
    for each, (_, payload) in zip(sent, back, strict=True):
        assert meaning(loose(read("protobuf", type(each), payload))) == meaning(loose(each))
