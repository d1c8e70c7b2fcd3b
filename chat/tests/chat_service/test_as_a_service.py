"""The chat as a service like any other: its codecs agree, its lock and its .proto file say what the table says."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_tools import protoc  # type: ignore[import-untyped]

from chat_cli.processes import PATIENCE, wireproto
from chat_service.fakes import PASSWORD, QUICK
from wireproto.testing import DifferentialSuite, RoundTripSuite, running
from wireproto_chat.opcodes import CHAT
from wireproto_chat.service.handlers import open_chat
from wireproto_chat.service.passwords import Passwords

CHAT_FOLDER = Path(__file__).parents[2]
PROTOS = CHAT_FOLDER / "protos"
"""Where the committed .proto file is, in the folder of its package."""


class TestAgreement(DifferentialSuite):
    """Each message of the chat, right and nearly right, gets one verdict from all codecs."""

    service = CHAT


@pytest.mark.slow
class TestRoundTrips(RoundTripSuite):
    """Each message of the chat is the same message, and the same bytes, after any codec."""

    service = CHAT


def test_it_is_what_its_lock_says() -> None:
    """`wireproto check` finds the chat as its lock has it: table, digests, and the bytes of each message."""
    done = wireproto("check", "--lock", str(CHAT_FOLDER / "contract"), "wireproto_chat.opcodes:CHAT")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_its_proto_is_what_the_table_says() -> None:
    """`wireproto proto --check` finds nothing to write anew in the committed folder."""
    done = wireproto("proto", "--check", "--out", str(PROTOS), "wireproto_chat.opcodes:CHAT")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [("lint",), ("format", "--diff")], ids=["lint", "format"])
def test_buf_finds_nothing_to_change_in_its_proto(words: tuple[str, ...]) -> None:
    """`buf lint`, with its standard rules, and `buf format` have nothing to say about the chat's file."""
    folder = CHAT_FOLDER.parent / "tests" / "node" / "node_modules" / ".bin"
    buf = shutil.which("buf", path=str(folder)) or shutil.which("buf")
    if buf is None:
        pytest.skip("buf is not installed: it comes with npm install --prefix tests/node, and with no Python package")
    done = subprocess.run([buf, *words], cwd=PROTOS, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules of Python that protoc makes of the committed .proto file."""
    folder = tmp_path_factory.mktemp("compiled")
    (file,) = PROTOS.rglob("*.proto")
    known = Path(protoc.__file__).parent / "_proto"
    made = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    status = protoc.main(["protoc", f"-I{PROTOS}", f"-I{known}", *made, str(file.relative_to(PROTOS))])
    assert status == 0, "protoc refused the file; its reasons are on stderr"
    return folder


@pytest.fixture
def stubs(compiled: Path) -> Iterator[tuple[Any, Any]]:
    """The modules of the package ``wirechat.v1``, beside the library and the chat."""
    sys.path.insert(0, str(compiled))
    try:
        yield importlib.import_module("wirechat.v1.chat_pb2"), importlib.import_module("wirechat.v1.chat_pb2_grpc")
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
