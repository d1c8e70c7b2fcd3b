"""The descriptors that gRPC's reflection answers from: the services' own, and those of the standard services."""

from collections.abc import Sequence

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from wireproto.protos.descriptor import pool_for, service_file
from wireproto.schema import Service

__all__ = ["ALPHA", "STABLE", "reflection_pool"]

ALPHA, STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"
"""The two packages in which gRPC's tools look for reflection."""


def reflection_pool(services: Sequence[Service], health: bytes, reflection: bytes) -> DescriptorPool:
    """A pool of its own with everything a gateway serves, or reflection could not describe itself.

    Args:
        services: the newest version of each is described.
        health: the serialized file of ``grpc.health.v1``.
        reflection: that of ``grpc.reflection.v1alpha``. No package has the one of ``v1``, so it is made of this one.

    Raises:
        DeclarationError: two services define the same name.
    """
    alpha = FileDescriptorProto.FromString(reflection)
    own = [service_file(service) for service in services]
    return pool_for([*own, FileDescriptorProto.FromString(health), alpha, _stable(alpha)])


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
