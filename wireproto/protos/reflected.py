"""The descriptors that gRPC's reflection answers from: the services' own, and those of the standard services."""

from collections.abc import Sequence
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from wireproto.protos.descriptor import pool_for, service_file
from wireproto.schema import Service

__all__ = ["ALPHA", "STABLE", "MethodsToo", "parsed", "reflection_pool"]

ALPHA, STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"
"""The two packages in which gRPC's tools look for reflection."""


class MethodsToo:
    """A pool that knows the file of a method by the method's full name, too; tools ask for that of what they call."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the servicer calls it so
        """See ``DescriptorPool``."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file


def parsed(message_type: Any, payload: bytes) -> Any:
    """A generated message from its bytes.

    Raises:
        ValueError: they are none of it.
    """
    try:
        return message_type.FromString(payload)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def reflection_pool(services: Sequence[Service], health: bytes, reflection: bytes) -> MethodsToo:
    """A pool of its own with everything a gateway serves, or reflection could not describe itself.

    The details of errors, ``google.rpc``, are in it: a tool that does not find them prints their bytes.

    Args:
        services: the newest version of each is described.
        health: the serialized file of ``grpc.health.v1``.
        reflection: that of ``grpc.reflection.v1alpha``. No package has the one of ``v1``, so it is made of this one.

    Raises:
        DeclarationError: two services define the same name.
    """
    alpha = FileDescriptorProto.FromString(reflection)
    own = [service_file(service) for service in services]
    others = (any_pb2, duration_pb2, error_details_pb2, status_pb2)
    details = [FileDescriptorProto.FromString(each.DESCRIPTOR.serialized_pb) for each in others]
    return MethodsToo(pool_for([*details, *own, FileDescriptorProto.FromString(health), alpha, _stable(alpha)]))


def _stable(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """The same file under the other name, which is all that the two differ in."""
    made = FileDescriptorProto()
    made.CopyFrom(alpha)
    made.name = "grpc/reflection/v1/reflection.proto"
    made.package = STABLE
    for message in made.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _renamed(field.type_name)
    for service in made.service:
        for method in service.method:
            method.input_type = _renamed(method.input_type)
            method.output_type = _renamed(method.output_type)
    return made


def _renamed(type_name: str) -> str:
    return type_name.replace(f".{ALPHA}.", f".{STABLE}.")
