"""The verdicts against judges that know nothing of their rules: the codecs, on samples, and buf."""

import enum
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import pytest
from google.protobuf import empty_pb2, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from tests.contract.editing import BASE, build, edited
from tests.contract.edits import EDITS, Edit
from tests.outside import buf
from wireproto import codecs
from wireproto.contract import compare, samples
from wireproto.control import describe
from wireproto.errors import DeclarationError, DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.protos.descriptor import pool_for, service_file
from wireproto.schema import Field, Message, Method, Operation, Scalar, Service, compile_refusal, fields

AnyMethod = Operation[Any, Any]

OLD = build(BASE)
LIMITS = Limits()
CODECS = ("pipe", "msgpack", "protobuf")
RULES = ["WIRE", "PACKAGE_NO_DELETE", "PACKAGE_SERVICE_NO_DELETE", "RPC_NO_DELETE"]
"""gRPC calls by name, of which buf's WIRE knows nothing."""


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("edit", [pytest.param(edit, id=edit.name) for edit in EDITS if edit.bytes_only])
def test_the_codecs_agree(edit: Edit, codec: str) -> None:
    """A codec that is said to break loses a sample between the old and the new declaration, and no other codec does."""
    new = build(edited(edit.changes))
    said = {each for change in compare(OLD, new) for each in change.breaks}
    lost = next(losses(OLD, new, codec), None)
    assert (codec in said) == (lost is not None), lost


def together(random: Random) -> Service:
    """The base with two or three edits made at once, of those that can be."""
    while True:
        text = BASE
        for edit in random.sample([edit for edit in EDITS if edit.bytes_only], random.choice([2, 2, 3])):
            for before, after in edit.changes.items():
                text = text.replace(before, after)
        try:
            return build(text)
        except (DeclarationError, TypeError, NameError):
            continue  # one took away what the other needs


def agree_both_ways(new: Service) -> None:
    for old, changed in ((OLD, new), (new, OLD)):
        # What is said of a version that is gone, no payload shows.
        if changed.version < old.version:
            continue
        said = {each for change in compare(old, changed) for each in change.breaks}
        for codec in CODECS:
            lost = next(losses(old, changed, codec), None)
            assert (codec in said) == (lost is not None), (codec, lost)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_codecs_agree_about_edits_together(seed: int) -> None:
    """Several edits at once, and the way back, break the codecs that they are said to."""
    agree_both_ways(together(Random(seed)))


@pytest.mark.long
def test_the_codecs_agree_about_many_edits_together() -> None:
    """The same, many times."""
    random = Random(0)
    for _ in range(1000):
        agree_both_ways(together(random))


def losses(old: Service, new: Service, codec: str) -> Iterator[str]:
    """Samples that the other side refuses or takes for another message, of those that matter."""
    for version in range(1, min(old.version, new.version) + 1):
        for opcode, was in old.at(version).items():
            now = new.at(version)[opcode]
            for request in (True, False):
                before, after = (was.request, now.request) if request else (was.response, now.response)
                if declared(before) == declared(after):
                    continue
                for writer, reader, service in ((before, after, old), (after, before, new)):
                    for message, payload in written(service, writer, version, codec, request):
                        # A new client sends a new value when it is told to; nothing that worked depends on it.
                        if request and writer is after and not expressible(message, reader, version):
                            continue
                        problem = lost(message, payload, reader, version, codec, request)
                        if problem:
                            yield f"{was.name}, version {version}: {message}: {problem}"


def declared(message_type: type[Message]) -> object:
    """All that a message says of itself."""
    service = Service(
        "example.v1.OneService",
        version=255,
        methods=[Method(opcode=0, name="One", request=message_type, response=message_type, since=255)],
    )
    return describe(service)


def written(
    service: Service, message_type: type[Message], version: int, codec: str, request: bool
) -> Iterator[tuple[Message, bytes]]:
    """Samples and their payloads; of protobuf requests also what a stock client leaves out."""
    encode = codecs.get(codec).plan(message_type, version, LIMITS, request=request).encode
    for message in samples(message_type, version):
        yield message, encode(message)
        set_by_default = {
            each.name: each.default
            for each in fields(message_type, version)
            if each.presence == "explicit" and not each.type.optional
        }
        if codec == "protobuf" and request and set_by_default:
            message = msgspec.structs.replace(message, **set_by_default)
            file = service_file(service, version)
            found = pool_for([file]).FindMessageTypeByName(f"{file.package}.{message_type.__name__}")
            stock = message_factory.GetMessageClass(found).FromString(encode(message))
            for name in set_by_default:
                stock.ClearField(name)
            yield message, stock.SerializeToString()


def lost(
    message: Message, payload: bytes, reader: type[Message], version: int, codec: str, request: bool
) -> str | None:
    try:
        found = codecs.get(codec).plan(reader, version, LIMITS, request=request).decode(payload)
    except DecodeError as error:
        return f"refused: {error}"
    return None if same_message(message, found, version) else f"read as {found}"


def pairs(one: type[Message], other: type[Message], version: int) -> Iterator[tuple[Field, Field | None]]:
    """The fields of a class with their twins: those of the same name, or else at the same place under a new one."""
    theirs = {each.name: each for each in fields(other, version)}
    ours = {each.name for each in fields(one, version)}
    numbered = {each.number: each for each in theirs.values() if each.name not in ours}
    for field in fields(one, version):
        yield field, theirs.get(field.name) or numbered.get(field.number)


def same_message(one: Message, other: Message, version: int) -> bool:
    for field, twin in pairs(type(one), type(other), version):
        if twin is not None and not same(getattr(one, field.name), field, getattr(other, twin.name), twin, version):
            return False
    return True


def same(one: Any, field: Field, other: Any, twin: Field, version: int) -> bool:
    if field.type.shape != twin.type.shape or field.type.key != twin.type.key:
        return False
    if field.type.shape == "single":
        return same_value(one, other, version)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_value(one[key], other[key], version) for key in one)
    return len(one) == len(other) and all(map(same_value, one, other, [version] * len(one)))


def same_value(one: Any, other: Any, version: int) -> bool:
    if isinstance(one, Message) and isinstance(other, Message):
        return same_message(one, other, version)
    if isinstance(one, enum.IntEnum) and isinstance(other, enum.IntEnum):
        renamed = one.name not in type(other).__members__ and other.name not in type(one).__members__
        return one == other and (one.name == other.name or renamed)
    return bool(plain(one) == plain(other))


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if isinstance(value, str):
        return value.encode()
    return "nan" if value != value else value


def expressible(message: Message, other: type[Message], version: int) -> bool:
    """Whether another declaration has the message, too."""
    try:
        twin = converted(message, other, version)
        compile_refusal(other, version, request=True)(twin, EncodeError)
    except (EncodeError, TypeError, ValueError, OverflowError, KeyError, AttributeError):
        return False
    return same_message(message, twin, version)


def converted(message: Message, other: type[Message], version: int) -> Message:
    given: dict[str, Any] = {}
    for field, twin in pairs(type(message), other, version):
        value = getattr(message, field.name)
        if twin is not None:
            given[twin.name] = convert(value, twin, version)
        elif value != field.default:
            raise ValueError("there is no such field")
    return other(**given)


def convert(value: Any, twin: Field, version: int) -> Any:
    if isinstance(value, list):
        return [convert(each, twin, version) for each in value]
    if isinstance(value, dict):
        return {key: convert(each, twin, version) for key, each in value.items()}
    kind = twin.type
    if value is None or type(value) is kind.cls:
        return value
    if kind.scalar is Scalar.MESSAGE:
        return converted(value, cast(type[Message], kind.cls), version)
    if kind.scalar is Scalar.ENUM:
        return cast(type[enum.IntEnum], kind.cls)(value)
    if kind.scalar in (Scalar.INT, Scalar.UINT, Scalar.FLOAT, Scalar.BOOL) and isinstance(value, int | float):
        return {Scalar.FLOAT: float, Scalar.BOOL: bool}.get(kind.scalar, int)(value)
    if kind.scalar is Scalar.STR and isinstance(value, bytes):
        return value.decode()
    return value.encode() if kind.scalar is Scalar.BYTES and isinstance(value, str) else value


@pytest.mark.slow
def test_buf_agrees_about_protobuf(tmp_path: Path) -> None:
    """``buf breaking`` says what is said here of protobuf and gRPC, or the table says why not."""
    # One image with each edit in a package of its own: buf takes its time to begin.
    images: dict[str, FileDescriptorSet] = {}
    for name, texts in {"old": [BASE] * len(EDITS), "new": [edited(edit.changes) for edit in EDITS]}.items():
        imported = [
            FileDescriptorProto.FromString(each.DESCRIPTOR.serialized_pb) for each in (empty_pb2, timestamp_pb2)
        ]
        images[name] = FileDescriptorSet(file=imported)
        for number, text in enumerate(texts):
            images[name].file.append(service_file(build(text.replace("example.", f"case{number}."))))
        (tmp_path / f"{name}.binpb").write_bytes(images[name].SerializeToString())
    found = subprocess.run(
        [
            *(buf(), "breaking", "new.binpb", "--against", "old.binpb", "--error-format", "json"),
            *("--config", json.dumps({"version": "v2", "breaking": {"use": RULES}})),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 100, found.stderr
    texts_of: dict[int, list[str]] = {}
    for line in found.stdout.splitlines():
        row = json.loads(line)
        where = row.get("path") or row["message"]
        texts_of.setdefault(int(where.partition("case")[2].partition("/")[0].partition(".")[0]), []).append(
            row["message"]
        )
    wrong = []
    for number, edit in enumerate(EDITS):
        changes = compare(OLD, build(edited(edit.changes)))
        ours = any("protobuf" in each.breaks or each.grpc for each in changes)
        wanted = ours if edit.buf is None else edit.buf[0]
        if (number in texts_of) != wanted or (edit.buf is not None and wanted == ours):
            wrong.append(f"{edit.name}: ours {ours}, expected of buf {wanted}, buf {texts_of.get(number)}")
    assert not wrong, "\n".join(wrong)
