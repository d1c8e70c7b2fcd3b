"""The gateway before clients that nobody here wrote: generated stubs, grpc-requests, buf curl and grpc-js."""

import base64
import importlib
import json
import re
import shutil
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

from tests.outside import NODE_MODULES, buf, run
from wireproto.chat.contract import CHAT
from wireproto.chat.handlers import ChatApp, open_chat
from wireproto.protos import service_file
from wireproto.protos.status import from_rpc_status
from wireproto.server.gateway import GrpcGateway
from wireproto.status import Retry, Status

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse 1"
CHAT_NAME = CHAT.full_name
PATIENCE = 30.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcGateway]:
    """The chat over gRPC, on a store of its own."""
    app: ChatApp = open_chat(str(tmp_path_factory.mktemp("store") / "chat.db"))
    with app, GrpcGateway(app.handlers, port=0, authenticate=app.authenticate) as gateway:
        yield gateway


# Stubs that protoc and its gRPC plugin make of the committed file


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The modules `chat_pb2` and `chat_pb2_grpc`, generated from `protos/`."""
    folder = tmp_path_factory.mktemp("stubs")
    known = Path(protoc.__file__).parent / "_proto"
    words = ["protoc", f"-I{ROOT / 'protos' / 'wireproto/chat/v1'}", f"-I{known}", f"--python_out={folder}"]
    assert protoc.main([*words, f"--grpc_python_out={folder}", "chat.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("chat_pb2"), importlib.import_module("chat_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


def test_generated_stubs(gateway: GrpcGateway, stubs: tuple[Any, Any]) -> None:
    """Stubs made from the committed .proto create, log in, send, receive, and read the details of an error."""
    pb, services = stubs
    with grpc.insecure_channel(str(gateway.address)) as channel:
        chat = services.ChatServiceStub(channel)
        chat.CreateAccount(pb.CreateAccountRequest(username="stub", password=PASSWORD))
        login = chat.LogIn(pb.LogInRequest(username="stub", password=PASSWORD))
        signed = (("authorization", f"Bearer {login.token}"),)
        sent = chat.SendMessage(pb.SendMessageRequest(recipient="stub", text="hello"), metadata=signed)
        assert (sent.sequence, len(sent.message_id)) == (1, 16)
        stream = chat.ReceiveMessages(pb.ReceiveMessagesRequest(), metadata=signed)
        item = next(stream)
        assert (item.sequence, item.sender, item.text, item.message_id) == (1, "stub", "hello", sent.message_id)
        stream.cancel()
        (popped,) = chat.PopUndelivered(pb.PopUndeliveredRequest(), metadata=signed).messages
        assert popped.sent_at == item.sent_at
        with pytest.raises(grpc.RpcError) as caught:
            chat.SendMessage(pb.SendMessageRequest(recipient="nobody", text="x"), metadata=signed)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        error = from_rpc_status(rpc_status.from_call(caught.value))
        assert (error.status, error.reason, error.retry) == (Status.NOT_FOUND, "UNKNOWN_RECIPIENT", Retry.NEVER)


# Reflection, by Python


def test_reflection_describes_everything_it_lists(gateway: GrpcGateway) -> None:
    """Each service that is listed can be described, reflection and health included, and the chat as it is declared."""
    with grpc.insecure_channel(str(gateway.address)) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        listed = set(database.get_services())
        assert listed == {
            CHAT_NAME,
            "wireproto.control.v1.ControlService",
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
        pool.FindServiceByName(CHAT_NAME).file.CopyToProto(file)
        assert file == service_file(CHAT)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:grpc_requests", "ignore::DeprecationWarning:google")
def test_grpc_requests(gateway: GrpcGateway) -> None:
    """A client that knows nothing but the address calls by reflection: unary, stream, and an error."""
    client = RequestsClient.get_by_endpoint(str(gateway.address))
    client.request(CHAT_NAME, "CreateAccount", {"username": "reqs", "password": PASSWORD})
    token = client.request(CHAT_NAME, "LogIn", {"username": "reqs", "password": PASSWORD})["token"]
    signed = [("authorization", f"Bearer {token}")]
    sent = client.request(CHAT_NAME, "SendMessage", {"recipient": "reqs", "text": "hi"}, metadata=signed)
    assert int(sent["sequence"]) == 1
    stream = client.request(CHAT_NAME, "ReceiveMessages", {}, metadata=signed, timeout=PATIENCE)
    assert next(iter(stream))["text"] == "hi"
    with pytest.raises(grpc.RpcError) as caught:
        client.request(CHAT_NAME, "SendMessage", {"recipient": "reqs", "text": "hi"})
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
    assert {CHAT_NAME, "grpc.health.v1.Health"} <= set(curl("", None, "--list-services", *reflect).split())
    methods = curl("", None, "--list-methods", *reflect).split()
    assert f"{CHAT_NAME}/LogIn" in methods


def test_buf_curl_calls(curl: Curl) -> None:
    """Unary calls, a stream, and an error with its details, from Go."""
    curl(f"/{CHAT_NAME}/CreateAccount", {"username": "curl", "password": PASSWORD})
    token = json.loads(curl(f"/{CHAT_NAME}/LogIn", {"username": "curl", "password": PASSWORD}))["token"]
    signed = ("-H", f"authorization: Bearer {token}")
    for number in range(3):
        curl(f"/{CHAT_NAME}/SendMessage", {"recipient": "curl", "text": str(number)}, *signed)
    # The stream goes on for ever: it ends by the caller's deadline.
    out = curl(f"/{CHAT_NAME}/ReceiveMessages", {"after": 1}, *signed, "--timeout", "2s", ok=False)
    assert re.findall(r'"text":\s*"(\d)"', out) == ["1", "2"], out
    error = json.loads(curl(f"/{CHAT_NAME}/SendMessage", {"recipient": "no", "text": "x"}, *signed, ok=False))
    assert error["code"] == "not_found"
    (detail,) = error["details"]
    assert detail["type"] == "google.rpc.ErrorInfo"
    assert b"UNKNOWN_RECIPIENT" in base64.b64decode(detail["value"] + "==")


def test_buf_curl_asks_for_health(curl: Curl) -> None:
    """The standard health service answers for each service, and for the whole."""
    for request in ({}, {"service": CHAT_NAME}):
        assert json.loads(curl("/grpc.health.v1.Health/Check", request)) == {"status": "SERVING"}
    assert json.loads(curl("/grpc.health.v1.Health/Check", {"service": "x"}, ok=False))["code"] == "not_found"


# JavaScript


def test_grpc_js(gateway: GrpcGateway) -> None:
    """grpc-js, an HTTP/2 of its own, makes calls, a stream and an error from the committed .proto."""
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "@grpc" / "grpc-js").is_dir():
        pytest.skip("grpc-js is not installed: it comes with npm install --prefix tests/node")
    script = NODE_MODULES.parent / "gateway.mjs"
    done = subprocess.run(
        [node, str(script), str(gateway.address), str(ROOT / "protos")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["created"] == {}
    assert found["sent"]["sequence"] == found["again"]["sequence"] == 1
    assert found["again"] == {**found["sent"], "duplicate": True}
    assert found["refused"]["code"] == Status.UNAUTHENTICATED
    assert found["refused"]["rich"] == 1
    assert found["received"] == "from JavaScript \u2615"
