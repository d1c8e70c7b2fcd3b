"""The gateway before clients that nobody here wrote: generated stubs, grpc-requests, buf curl and grpc-js.

They are given what a stranger is given: the address, and the .proto file or reflection.
"""

import base64
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_requests import Client as RequestsClient
from grpc_status import rpc_status
from grpc_tools import protoc  # type: ignore[import-untyped]

from tests import outside
from tests.lending import LENDING
from tests.librarian import Library
from tests.outside import buf, run
from tests.server.peer import until
from tests.server.test_uploads import UPLOADS, Desk
from wireproto.protos import generate, service_file
from wireproto.protos.status import from_rpc_status
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Retry, Status

PASSWORD = "correct horse 1"
NAME = LENDING.full_name
PATIENCE = 30.0


@pytest.fixture(scope="module")
def gateway() -> Iterator[GrpcGateway]:
    """The library over gRPC."""
    library = Library()
    with GrpcGateway(library.handlers, port=0, authenticate=library.authenticate) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `protos/`, with the library's .proto file."""
    folder = tmp_path_factory.mktemp("protos")
    generate(folder, [LENDING])
    return folder


# Stubs that protoc and its gRPC plugin make of the .proto file


@pytest.fixture(scope="module")
def stubs(protos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The modules `lending_pb2` and `lending_pb2_grpc`, generated from the .proto file."""
    folder = tmp_path_factory.mktemp("stubs")
    known = Path(protoc.__file__).parent / "_proto"
    words = ["protoc", f"-I{protos / 'test/lending/v1'}", f"-I{known}", f"--python_out={folder}"]
    assert protoc.main([*words, f"--grpc_python_out={folder}", "lending.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("lending_pb2"), importlib.import_module("lending_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


def test_generated_stubs(gateway: GrpcGateway, stubs: tuple[Any, Any]) -> None:
    """Stubs made from the .proto file join, log in, send, follow, take, and read the details of an error."""
    pb, services = stubs
    with grpc.insecure_channel(str(gateway.address)) as channel:
        library = services.LendingServiceStub(channel)
        library.Join(pb.JoinRequest(name="stub", password=PASSWORD, favourites=[pb.GENRE_TRAVEL]))
        login = library.LogIn(pb.LogInRequest(name="stub", password=PASSWORD))
        signed = (("authorization", f"Bearer {login.token}"),)
        sent = library.SendNotice(pb.SendNoticeRequest(recipient="stub", text="hello"), metadata=signed)
        assert (sent.number, len(sent.notice_id)) == (1, 16)
        stream = library.FollowNotices(pb.FollowNoticesRequest(), metadata=signed)
        item = next(stream)
        assert (item.number, item.sender, item.text, item.notice_id) == (1, "stub", "hello", sent.notice_id)
        library.SendNotice(pb.SendNoticeRequest(recipient="stub", text="live"), metadata=signed)
        assert next(stream).text == "live"
        stream.cancel()
        taken, _ = library.TakeNotices(pb.TakeNoticesRequest(), metadata=signed).notices
        assert taken.sent_at == item.sent_at
        with pytest.raises(grpc.RpcError) as caught:
            library.SendNotice(pb.SendNoticeRequest(recipient="nobody", text="x"), metadata=signed)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        error = from_rpc_status(rpc_status.from_call(caught.value))
        assert (error.status, error.reason, error.retry) == (Status.NOT_FOUND, "UNKNOWN_RECIPIENT", Retry.NEVER)


# Reflection, by Python


def test_reflection_describes_everything_it_lists(gateway: GrpcGateway) -> None:
    """Each service that is listed can be described, reflection and health included, the library as it is declared."""
    with grpc.insecure_channel(str(gateway.address)) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        listed = set(database.get_services())
        assert listed == {
            NAME,
            "wirecontrol.v1.ControlService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = DescriptorPool(database)
        for name in sorted(listed):
            described = pool.FindServiceByName(name)
            assert described.methods, name
            for method in described.methods:
                assert method.input_type.full_name
        file = FileDescriptorProto()
        pool.FindServiceByName(NAME).file.CopyToProto(file)
        assert file == service_file(LENDING)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:grpc_requests", "ignore::DeprecationWarning:google")
def test_grpc_requests(gateway: GrpcGateway) -> None:
    """A client that knows nothing but the address calls by reflection: unary, stream, and an error."""
    client = RequestsClient.get_by_endpoint(str(gateway.address))
    client.request(NAME, "Join", {"name": "reqs", "password": PASSWORD})
    token = client.request(NAME, "LogIn", {"name": "reqs", "password": PASSWORD})["token"]
    signed = [("authorization", f"Bearer {token}")]
    sent = client.request(NAME, "SendNotice", {"recipient": "reqs", "text": "hi"}, metadata=signed)
    assert int(sent["number"]) == 1
    stream = client.request(NAME, "FollowNotices", {}, metadata=signed, timeout=PATIENCE)
    assert next(iter(stream))["text"] == "hi"
    with pytest.raises(grpc.RpcError) as caught:
        client.request(NAME, "SendNotice", {"recipient": "reqs", "text": "hi"})
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    client.channel.close()


# buf curl


class Curl:
    """`buf curl` without a schema: it asks the gateway's reflection."""

    def __init__(self, gateway: GrpcGateway, folder: Path) -> None:
        self._gateway = gateway
        self._folder = folder
        self._buf = buf()

    def __call__(self, path: str, request: object = None, *words: str, ok: bool = True) -> str:
        """The output of one call; `path` is service and method."""
        data = ["-d", json.dumps(request)] if request is not None else []
        url = f"http://{self._gateway.address}{path}"
        options = ["--protocol", "grpc", "--http2-prior-knowledge", *words, *data]
        return run(self._buf, "curl", *options, url, cwd=self._folder, ok=ok)


@pytest.fixture
def curl(gateway: GrpcGateway, tmp_path: Path) -> Curl:
    return Curl(gateway, tmp_path)


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl_lists(curl: Curl, protocol: str) -> None:
    """Both versions of reflection list the services and their methods."""
    reflect = ("--reflect-protocol", protocol)
    assert {NAME, "grpc.health.v1.Health"} <= set(curl("", None, "--list-services", *reflect).split())
    methods = curl("", None, "--list-methods", *reflect).split()
    assert f"{NAME}/LogIn" in methods


def test_buf_curl_calls(curl: Curl) -> None:
    """Unary calls, a stream, and an error with its details, from Go."""
    curl(f"/{NAME}/Join", {"name": "curl", "password": PASSWORD})
    token = json.loads(curl(f"/{NAME}/LogIn", {"name": "curl", "password": PASSWORD}))["token"]
    signed = ("-H", f"authorization: Bearer {token}")
    for number in range(3):
        curl(f"/{NAME}/SendNotice", {"recipient": "curl", "text": str(number)}, *signed)
    # The stream goes on for ever: it ends by the caller's deadline.
    out = curl(f"/{NAME}/FollowNotices", {"after": 1}, *signed, "--timeout", "2s", ok=False)
    assert re.findall(r'"text":\s*"(\d)"', out) == ["1", "2"], out
    error = json.loads(curl(f"/{NAME}/SendNotice", {"recipient": "no", "text": "x"}, *signed, ok=False))
    assert error["code"] == "not_found"
    (detail,) = error["details"]
    assert detail["type"] == "google.rpc.ErrorInfo"
    assert b"UNKNOWN_RECIPIENT" in base64.b64decode(detail["value"] + "==")


def test_buf_curl_asks_for_health(curl: Curl) -> None:
    """The standard health service answers for each service, and for the whole."""
    for request in ({}, {"service": NAME}):
        assert json.loads(curl("/grpc.health.v1.Health/Check", request)) == {"status": "SERVING"}
    assert json.loads(curl("/grpc.health.v1.Health/Check", {"service": "x"}, ok=False))["code"] == "not_found"


# JavaScript and Go


def test_grpc_js(gateway: GrpcGateway, protos: Path) -> None:
    """grpc-js, an HTTP/2 of its own, makes calls, a stream and an error from the .proto file."""
    done = subprocess.run(
        [*outside.node("gateway.mjs"), str(gateway.address), str(protos)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["joined"] == {}
    assert found["sent"]["number"] == found["again"]["number"] == 1
    assert found["again"] == {**found["sent"], "duplicate": True}
    assert found["refused"]["code"] == Status.UNAUTHENTICATED
    assert found["refused"]["rich"] == 1
    assert found["followed"] == "from JavaScript \u2615"


@pytest.mark.timeout(400)  # grpc-go is built
@pytest.mark.parametrize("engine", ["core", "public"])
@pytest.mark.parametrize("stack", ["grpc-js", "grpc-go"])
def test_uploads_and_duplex_calls_of_other_stacks(stack: str, engine: Any, tmp_path: Path) -> None:
    """Each HTTP/2 is answered alike: whole uploads, early answers, cancels, refusals, duplex and one-way calls."""
    command = outside.node("shapes.mjs") if stack == "grpc-js" else outside.go("shapes", tmp_path)
    desk = Desk()
    with GrpcGateway(desk.handlers, port=0, engine=engine) as gateway:
        found = json.loads(run(*command, str(gateway.address), UPLOADS.full_name, cwd=tmp_path))
        until(lambda: desk.notes == [9], "the one-way call has run", PATIENCE)
        assert found == {
            "AddUp whole": "080f",
            "AddUp none": "",
            "AddUp early": "08e807",
            "AddUp cancelled": "CANCELLED",
            "Iterate whole": "080f",
            "Iterate none": "",
            "Iterate early": "08e807",
            "Iterate cancelled": "CANCELLED",
            "refused": "INVALID_ARGUMENT",
            "EchoSink": ["1001", "1002", "1003"],
            "EchoAll": ["1002", "1004", "1006"],
            "posted": "",
        }
        # Node says END_STREAM before it resets a stream, so of grpc-js the end of a cancelled upload may come first.
        ends = ["CANCELLED"] * 2 + ["TOO_BIG", "closed"] + ["finished"] * 4
        if stack == "grpc-go":
            until(lambda: sorted(desk.ends) == ends, "each end is told, once", PATIENCE)
        else:
            until(lambda: desk.ends.count("closed") == desk.ends.count("TOO_BIG") == 1, "those are told", PATIENCE)
