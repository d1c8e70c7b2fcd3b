"""The one translation from declared messages and methods to protobuf descriptors.

The codec, the gRPC gateway, reflection and the ``.proto`` files all start from what is made here, so they cannot
disagree. What protoc makes of a rendered file equals the descriptor made here, field for field.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf import empty_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodOptions,
)
from google.protobuf.descriptor_pool import DescriptorPool

from wireproto.errors import DeclarationError
from wireproto.schema import Field, Message, Scalar, Service, Shape, fields, reachable

__all__ = ["enum_prefix", "file_name", "message_file", "pool_for", "service_file"]

TIMESTAMP = ".google.protobuf.Timestamp"
TIMESTAMP_FILE = "google/protobuf/timestamp.proto"
EMPTY = ".google.protobuf.Empty"
EMPTY_FILE = "google/protobuf/empty.proto"

# Every integer has 64 bits on the wire: a narrower type would cut 2**40 to 0 while decoding, where no check sees it.
_TYPES: dict[Scalar, FieldDescriptorProto.Type.ValueType] = {
    Scalar.BOOL: FieldDescriptorProto.TYPE_BOOL,
    Scalar.INT: FieldDescriptorProto.TYPE_INT64,
    Scalar.UINT: FieldDescriptorProto.TYPE_UINT64,
    Scalar.FLOAT: FieldDescriptorProto.TYPE_DOUBLE,
    Scalar.STR: FieldDescriptorProto.TYPE_STRING,
    Scalar.BYTES: FieldDescriptorProto.TYPE_BYTES,
    Scalar.DATETIME: FieldDescriptorProto.TYPE_MESSAGE,
    Scalar.ENUM: FieldDescriptorProto.TYPE_ENUM,
    Scalar.MESSAGE: FieldDescriptorProto.TYPE_MESSAGE,
}


def file_name(package: str, name: str) -> str:
    """Where a file lies in a module of ``.proto`` files: ``example/v1/shop.proto`` for example.v1.ShopService."""
    return f"{package.replace('.', '/')}/{_snake_case(name.removesuffix('Service') or name)}.proto"


def _set_options(file: FileDescriptorProto, name: str) -> None:
    """Where Go, Java and C# find what is generated from the file, by the names that buf gives when it is asked to.

    Without them protoc refuses to write Go at all, and Java puts every message into one class.
    """
    words = file.package.split(".")
    file.options.go_package = f"{'/'.join(words)};{''.join(words[-2:])}"
    file.options.java_package = f"com.{file.package}"
    file.options.java_multiple_files = True
    file.options.java_outer_classname = f"{name.removesuffix('Service') or name}Proto"
    file.options.csharp_namespace = ".".join(_pascal_case(word) for word in words)


def _pascal_case(word: str) -> str:
    return "".join(f"{part[:1].upper()}{part[1:]}" for part in word.split("_"))


def message_file(
    types: Iterable[type[Message]], package: str, version: int | None = None, *, name: str = "Messages"
) -> FileDescriptorProto:
    """A file with ``types``, the messages and enums inside them, and nothing else.

    Args:
        types: message classes; each is written once, in order of first use.
        package: the protobuf package.
        version: the service version whose fields are wanted; None is the newest.
        name: what the file is named after.

    Raises:
        DeclarationError: two names of the file are the same.
    """
    file = FileDescriptorProto(name=file_name(package, name), package=package, syntax="proto3")
    enums: dict[type[Any], None] = {}
    for cls in reachable(types, version):
        message = file.message_type.add(name=cls.__name__)
        for field in fields(cls, version):
            _add_field(message, field, package)
            if field.type.scalar is Scalar.ENUM:
                assert field.type.cls is not None
                enums[field.type.cls] = None
            elif field.type.scalar is Scalar.DATETIME and not file.dependency:
                file.dependency.append(TIMESTAMP_FILE)
    for cls in enums:
        _add_enum(file.enum_type.add(name=cls.__name__), cls)
    _check_names(file)
    return file


def service_file(service: Service, version: int | None = None) -> FileDescriptorProto:
    """The file of one service: its messages, its enums, and the methods that clients call as rpcs.

    Args:
        service: the opcode table.
        version: the service version whose methods and fields are wanted; None is the newest.

    Raises:
        DeclarationError: two names of the file are the same.
    """
    version = service.version if version is None else version
    types = [cls for method in service.at(version).values() for cls in method.messages]
    methods = service.called_by("client", version).values()
    file = message_file(types, service.package, version, name=service.name)
    _set_options(file, service.name)
    described = file.service.add(name=service.name)
    if any(method.shape is Shape.ONE_WAY for method in methods):
        file.dependency.insert(0, EMPTY_FILE)  # in the order of the alphabet, as formatters want it
    for method in methods:
        rpc = described.method.add(
            name=method.name,
            input_type=f".{service.package}.{method.request.__name__}",
            output_type=EMPTY if method.shape is Shape.ONE_WAY else f".{service.package}.{method.response.__name__}",
        )
        if method.items_follow:
            rpc.client_streaming = True
        if method.items_come_back:
            rpc.server_streaming = True
        if method.idempotent:
            rpc.options.idempotency_level = MethodOptions.IDEMPOTENT
    _check_names(file)
    return file


def pool_for(files: Iterable[FileDescriptorProto]) -> DescriptorPool:
    """A pool of its own with ``files`` and what they import; the process-wide pool is never touched.

    Raises:
        DeclarationError: two files define the same name, such as two services of one package that share a message.
    """
    pool = DescriptorPool()
    for known in (empty_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    owners: dict[str, str] = {}
    for file in files:
        for symbol in _symbols(file):
            full_name = f"{file.package}.{symbol}"
            owner = owners.setdefault(full_name, file.name)
            if owner != file.name:
                raise DeclarationError(
                    f"{full_name} is in {owner} and in {file.name}; "
                    "declare these methods in one service, or give the services different packages"
                )
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: DescriptorProto, field: Field, package: str) -> None:
    kind = field.type
    made = message.field.add(name=field.name, number=field.number, json_name=_json_name(field.name))
    if kind.key is not None:
        # A map is a repeated message of pairs, nested beside the field; protoc and every reader go by the option.
        entry = message.nested_type.add(name=f"{_capitalized(field.name)}Entry")
        entry.options.map_entry = True
        key = entry.field.add(name="key", number=1, json_name="key", label=FieldDescriptorProto.LABEL_OPTIONAL)
        key.type = _TYPES[kind.key]
        value = entry.field.add(name="value", number=2, json_name="value", label=FieldDescriptorProto.LABEL_OPTIONAL)
        _set_type(value, field, package)
        made.type = FieldDescriptorProto.TYPE_MESSAGE
        made.type_name = f".{package}.{message.name}.{entry.name}"
        made.label = FieldDescriptorProto.LABEL_REPEATED
        return
    _set_type(made, field, package)
    made.label = FieldDescriptorProto.LABEL_REPEATED if kind.shape == "list" else FieldDescriptorProto.LABEL_OPTIONAL
    if field.presence == "explicit":
        made.proto3_optional = True
        made.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field.name}")


def _set_type(made: FieldDescriptorProto, field: Field, package: str) -> None:
    made.type = _TYPES[field.type.scalar]
    if field.type.scalar is Scalar.DATETIME:
        made.type_name = TIMESTAMP
    elif field.type.cls is not None:
        made.type_name = f".{package}.{field.type.cls.__name__}"


def _add_enum(made: EnumDescriptorProto, cls: type[Any]) -> None:
    prefix = enum_prefix(cls.__name__)
    made.value.add(name=f"{prefix}UNSPECIFIED", number=0)
    for member in cls:
        made.value.add(name=f"{prefix}{member.name}", number=member.value)


def _check_names(file: FileDescriptorProto) -> None:
    seen: set[str] = set()
    for symbol in _symbols(file):
        if symbol in seen:
            raise DeclarationError(
                f"{symbol} would be defined twice in {file.name}; rename one of the two messages, enums or enum members"
            )
        seen.add(symbol)


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Every name that shares the package's scope; the members of an enum stand beside it, not inside."""
    named: Sequence[Any] = [*file.message_type, *file.service]
    yield from (each.name for each in named)
    for enum in file.enum_type:
        yield enum.name
        yield from (value.name for value in enum.value)


# Names are made as protoc and buf make them: descriptors are compared with theirs, and buf lints by its own rules.


def _capitalized(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + _capitalized("_".join(rest))


def enum_prefix(name: str) -> str:
    """What the members of enum ``name`` begin with: ``DELIVERY_STATE_`` for ``DeliveryState``."""
    return f"{_snake_case(name).upper()}_"


def _snake_case(name: str) -> str:
    """``http_code`` for ``HTTPCode`` and ``color2d`` for ``Color2D``: words as buf's lint breaks them."""
    made = ""
    for at, char in enumerate(name):
        if at and char.isupper():
            following = name[at + 1 : at + 2]
            if name[at - 1].islower() or following.islower():
                made += "_"
        made += char.lower()
    return made
