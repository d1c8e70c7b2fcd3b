"""The translation from declarations to descriptors, judged by protoc."""

import enum
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from tests.lending import LENDING
from tests.protos.declarations import EVERY, Deep, EverythingRequest, Point
from tests.protos.protoc import compiled
from tests.shapes import BEEP, SHAPES
from wireproto.conformance.service import CONFORMANCE
from wireproto.control import CONTROL
from wireproto.errors import DeclarationError
from wireproto.protos import file_name, message_file, pool_for, render, service_file
from wireproto.protos.descriptor import EMPTY, EMPTY_FILE, TIMESTAMP_FILE, enum_prefix
from wireproto.protos.reflected import reflection_pool
from wireproto.schema import Message, Method, OneWayMethod, Service, UploadMethod


@pytest.mark.parametrize("version", [1, 2])
def test_protoc_makes_the_same_descriptor_of_the_text(version: int, tmp_path: Path) -> None:
    """protoc makes of the rendered text what is in use here, field for field, in every version."""
    file = service_file(EVERY, version)
    assert compiled({file.name: render(EVERY, version)}, tmp_path) == {file.name: file}


@pytest.mark.parametrize("service", [LENDING, SHAPES, CONTROL, CONFORMANCE], ids=lambda service: service.name)
def test_protoc_makes_the_same_descriptor_of_whole_services(service: Service, tmp_path: Path) -> None:
    """A whole application and the services in the box are described as protoc understands their text."""
    file = service_file(service)
    assert compiled({file.name: render(service)}, tmp_path) == {file.name: file}


def test_each_shape_is_an_rpc() -> None:
    """Items are streams of the rpc, one way or the other, and a one-way method answers google.protobuf.Empty."""
    rpcs = service_file(SHAPES).service[0].method
    assert [(rpc.name, rpc.client_streaming, rpc.server_streaming) for rpc in rpcs] == [
        ("Probe", False, False),
        ("Follow", False, True),
        ("Store", True, False),
        ("Average", True, False),
        ("Convert", True, True),
        ("Beep", False, False),
        ("Reset", False, False),
    ]
    assert {rpc.name for rpc in rpcs if rpc.output_type == EMPTY} == {"Beep", "Reset"}


class Blank(Message):
    """Has no fields, and needs no import."""


def test_what_is_imported_is_what_is_used() -> None:
    """Empty is imported for one-way methods alone, before the timestamp, as formatters sort; and each by itself."""
    sent = OneWayMethod(opcode=1, name="Send", request=Blank)
    kept = UploadMethod(opcode=2, name="Keep", request=Blank, response=Blank)
    assert list(service_file(SHAPES).dependency) == [EMPTY_FILE, TIMESTAMP_FILE]
    assert list(service_file(Service("a.v1.OneService", methods=[sent])).dependency) == [EMPTY_FILE]
    assert list(service_file(Service("a.v1.OneService", methods=[kept])).dependency) == []
    with_empty = service_file(EVERY)  # has a message of its own that is called so
    assert "Empty" in {message.name for message in with_empty.message_type}
    assert EMPTY_FILE not in with_empty.dependency


def test_pools_know_the_shapes() -> None:
    """A pool, and that of reflection, has what a one-way method answers, and which way items go."""
    alpha = FileDescriptorProto(name="alpha.proto", package="grpc.reflection.v1alpha", syntax="proto3")
    health = FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    reflected = reflection_pool([SHAPES], health.SerializeToString(), alpha.SerializeToString())
    for pool in (pool_for([service_file(SHAPES)]), reflected):
        methods = pool.FindServiceByName(SHAPES.full_name).methods_by_name
        assert methods[BEEP.name].output_type.full_name == "google.protobuf.Empty"
        assert methods["Convert"].input_type.full_name == "example.shapes.v1.ConvertRequest"
        assert (methods["Store"].client_streaming, methods["Store"].server_streaming) == (True, False)


def test_a_file_lies_where_its_package_says() -> None:
    """A file is named after the service, in the folder of its package."""
    assert file_name("test.lending.v1", "LendingService") == "test/lending/v1/lending.proto"
    assert file_name("a.v1", "UserHTTPGatewayService") == "a/v1/user_http_gateway.proto"
    assert file_name("a.v1", "Service") == "a/v1/service.proto"


def test_an_older_version_has_its_own_methods_and_fields() -> None:
    """A version's file has the methods and fields of that version, and no types that only later ones use."""
    old, new = service_file(EVERY, 1), service_file(EVERY)
    assert [method.name for method in old.service[0].method] == ["Everything", "Watch", "Old"]
    assert [method.name for method in new.service[0].method] == ["Everything", "Keywords", "Watch"]
    assert "OldRequest" in {message.name for message in old.message_type}
    assert {"OldRequest", "KeywordsRequest"} & {message.name for message in new.message_type} == {"KeywordsRequest"}


def test_a_type_inside_a_newer_field_is_left_out_of_older_files() -> None:
    """A message that only a field of version 2 holds is not described for version 1."""
    from tests.protos.versions import GROWING

    assert [message.name for message in service_file(GROWING, 1).message_type] == ["GrowRequest", "GrowResponse"]
    assert "Leaf" in {message.name for message in service_file(GROWING).message_type}


def test_presence_is_optional_in_the_descriptor() -> None:
    """Fields that may be None and defaults other than zero are optional; the rest is not."""
    (request,) = (each for each in message_file([EverythingRequest], "a.v1").message_type if "Every" in each.name)
    optional = {field.name for field in request.field if field.proto3_optional}
    assert optional == {field.name for field in request.field if field.name.startswith(("no_", "some_"))}


def test_integers_have_64_bits() -> None:
    """No field is narrower than 64 bits: a narrower one is cut in silence."""
    used = {field.type for message in service_file(EVERY).message_type for field in message.field}
    assert FieldDescriptorProto.TYPE_INT64 in used
    assert FieldDescriptorProto.TYPE_UINT64 in used
    assert not used & {
        FieldDescriptorProto.TYPE_INT32,
        FieldDescriptorProto.TYPE_UINT32,
        FieldDescriptorProto.TYPE_SINT32,
        FieldDescriptorProto.TYPE_FIXED32,
        FieldDescriptorProto.TYPE_SFIXED32,
        FieldDescriptorProto.TYPE_FLOAT,
    }


def test_messages_are_described_once_in_order_of_first_use() -> None:
    """A type that several messages hold is described where it is first needed."""
    file = message_file([Deep, Point], "a.v1")
    assert [message.name for message in file.message_type] == ["Deep", "Point"]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("Color", "COLOR_"),
        ("DeliveryState", "DELIVERY_STATE_"),
        ("HTTPCode", "HTTP_CODE_"),
        ("Color2D", "COLOR2D_"),
        ("OAuth2Token", "O_AUTH2_TOKEN_"),
        ("X", "X_"),
    ],
)
def test_enum_members_begin_with_the_name_of_their_enum(name: str, prefix: str) -> None:
    """An enum's name becomes the prefix that buf's lint expects."""
    assert enum_prefix(name) == prefix


def test_a_pool_is_apart_from_the_process_wide_one() -> None:
    """A pool has the service, its messages and what they import; the default pool stays as it was."""
    pool = pool_for([service_file(EVERY), service_file(LENDING)])
    assert pool.FindServiceByName(EVERY.full_name).methods_by_name["Watch"].server_streaming
    assert pool.FindMessageTypeByName("google.protobuf.Timestamp").fields_by_name["nanos"].number == 2
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindServiceByName(EVERY.full_name)


class Shared(Message):
    """In two services."""

    number: int


def test_two_services_of_a_package_cannot_share_a_message() -> None:
    """A pool refuses a second file with the same name in it, and says what to do."""
    services = [
        Service(f"a.v1.{name}Service", methods=[Method(opcode=0, name="Do", request=Shared, response=Shared)])
        for name in ("One", "Two")
    ]
    with pytest.raises(DeclarationError, match=r"a\.v1\.Shared is in a/v1/one\.proto and in a/v1/two\.proto"):
        pool_for(map(service_file, services))


class HttpCode(enum.IntEnum):
    """Its members are called as HTTPCode's are."""

    OK = 200


class TwoEnums(Message):
    """Fields of both."""

    one: HttpCode
    two: "HTTPCode"


class HTTPCode(enum.IntEnum):
    """The other."""

    OK = 1


def test_names_that_meet_in_a_file_are_refused() -> None:
    """Two enums whose members are spelled alike in a .proto are refused by name."""
    with pytest.raises(DeclarationError, match="HTTP_CODE_UNSPECIFIED"):
        message_file([TwoEnums], "a.v1")
