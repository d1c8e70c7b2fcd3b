"""The chat as a service like any other: its codecs agree, its lock and its .proto file say what the table says."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]
from wireproto_chat.contract import CHAT
from wireproto_chat.service.handlers import open_chat
from wireproto_chat.service.passwords import Passwords

from chat_service.fakes import PASSWORD, QUICK
from tests.outside import buf, run
from wireproto.contract import Lock, compare
from wireproto.protos import generate, render, service_file
from wireproto.testing import DifferentialSuite, RoundTripSuite, running

PROTOS = Path(__file__).parents[2] / "protos"
"""Where the committed .proto file is, in the folder of its package."""


class TestAgreement(DifferentialSuite):
    """Each message of the chat, right and nearly right, gets one verdict from all codecs."""

    service = CHAT


@pytest.mark.slow
class TestRoundTrips(RoundTripSuite):
    """Each message of the chat is the same message, and the same bytes, after any codec."""

    service = CHAT


def test_its_lock_is_read_as_it_was_written() -> None:
    """A lock of the chat, written and read again, has the chat's table and no problem with it."""
    text = Lock.of(CHAT).text()
    found = Lock.parse(text)
    assert found.text() == text
    assert compare(found.service, CHAT) == []
    assert found.problems(CHAT) == []


def test_the_committed_proto_is_that_of_the_table() -> None:
    """The committed .proto file is what the table says now."""
    assert (PROTOS / service_file(CHAT).name).read_text("utf-8") == render(CHAT)


def test_buf_finds_nothing_to_change_in_its_proto(tmp_path: Path) -> None:
    """`buf lint`, with its standard rules, and `buf format` have nothing to say about the chat's file."""
    generate(tmp_path, [CHAT])
    assert run(buf(), "lint", cwd=tmp_path) == ""
    assert run(buf(), "format", "--diff", cwd=tmp_path) == ""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what protoc makes of the committed .proto file: a descriptor, and modules of Python."""
    folder = tmp_path_factory.mktemp("compiled")
    file = PROTOS / service_file(CHAT).name
    known = Path(protoc.__file__).parent / "_proto"
    made = [f"--descriptor_set_out={folder / 'chat.binpb'}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    status = protoc.main(["protoc", f"-I{file.parent}", f"-I{known}", *made, file.name])
    assert status == 0, "protoc refused the file; its reasons are on stderr"
    return folder


def test_protoc_understands_its_proto(compiled: Path) -> None:
    """protoc makes of the chat's file the descriptor that is in use here, field for field."""
    (file,) = FileDescriptorSet.FromString((compiled / "chat.binpb").read_bytes()).file
    expected = service_file(CHAT)
    expected.name = file.name  # protoc was called in the folder of the file
    assert file == expected


@pytest.fixture
def stubs(compiled: Path) -> Iterator[tuple[Any, Any]]:
    """The modules ``chat_pb2`` and ``chat_pb2_grpc``."""
    sys.path.insert(0, str(compiled))
    try:
        yield importlib.import_module("chat_pb2"), importlib.import_module("chat_pb2_grpc")
    finally:
        sys.path.remove(str(compiled))


def test_generated_stubs_chat(stubs: tuple[Any, Any], tmp_path: Path) -> None:
    """Stubs made from the committed .proto create, log in, send, receive, pop, and get the status of a refusal."""
    pb, services = stubs
    with (
        open_chat(str(tmp_path / "chat.db"), passwords=Passwords(hasher=QUICK)) as app,
        running(app.handlers, authenticate=app.authenticate, codecs=["pipe"], grpc=True, leaks=False) as doors,
        grpc.insecure_channel(str(doors["grpc"].address)) as channel,
    ):
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
        with pytest.raises(grpc.RpcError) as caught:
            chat.SendMessage(pb.SendMessageRequest(recipient="stub", text="x"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
