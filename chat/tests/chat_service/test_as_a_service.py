"""The chat as a service like any other: its codecs agree, its lock and its .proto file say what the table says."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


def buf() -> str:
    """The path of ``buf``, which lints and builds .proto files."""
    folder = CHAT_FOLDER.parent / "tests" / "node" / "node_modules" / ".bin"
    found = shutil.which("buf", path=str(folder)) or shutil.which("buf")
    if found is None:
        pytest.skip("buf is not installed: it comes with npm install --prefix tests/node, and with no Python package")
    return found


def run(*command: str, cwd: Path) -> None:
    """Run a program that must succeed and say nothing."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("lint",), ("format", "--diff")], ids=["lint", "format"])
def test_buf_finds_nothing_to_change_in_its_proto(words: tuple[str, ...]) -> None:
    """`buf lint`, with its standard rules, and `buf format` have nothing to say about the chat's file."""
    run(buf(), *words, cwd=PROTOS)


def by_protoc(folder: Path, *made: str) -> None:
    """What `python -m grpc_tools.protoc` makes of the committed .proto file."""
    (file,) = PROTOS.rglob("*.proto")
    run(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *made, str(file.relative_to(PROTOS)), cwd=folder)


BUF_GEN = """
version: v2
plugins:
  - protoc_builtin: python
    protoc_path: [{python}, -m, grpc_tools.protoc]
    out: {folder}
"""


def messages_by_protoc(folder: Path) -> None:
    by_protoc(folder, f"--python_out={folder}")


def messages_by_buf(folder: Path) -> None:
    template = folder / "buf.gen.yaml"
    template.write_text(BUF_GEN.format(python=sys.executable, folder=folder))
    run(buf(), "generate", "--template", str(template), str(PROTOS), cwd=folder)


PROGRAM = """
import sys

import grpc
from wirechat.v1 import chat_pb2 as pb, chat_pb2_grpc

import wireproto
import wireproto_chat

address, password = sys.argv[1:]


def refused(call, *arguments, **settings):
    try:
        call(*arguments, **settings)
    except grpc.RpcError as error:
        return error.code()


with grpc.insecure_channel(address) as channel:
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    chat.CreateAccount(pb.CreateAccountRequest(username="stub", password=password))
    login = chat.LogIn(pb.LogInRequest(username="stub", password=password))
    signed = (("authorization", f"Bearer {login.token}"),)
    sent = chat.SendMessage(pb.SendMessageRequest(recipient="stub", text="hello"), metadata=signed)
    assert (sent.sequence, len(sent.message_id)) == (1, 16)
    stream = chat.ReceiveMessages(pb.ReceiveMessagesRequest(), metadata=signed)
    item = next(stream)
    assert (item.sequence, item.sender, item.text, item.message_id) == (1, "stub", "hello", sent.message_id)
    stream.cancel()
    (popped,) = chat.PopUndelivered(pb.PopUndeliveredRequest(), metadata=signed).messages
    assert popped.sent_at == item.sent_at
    nobody = pb.SendMessageRequest(recipient="nobody", text="x")
    assert refused(chat.SendMessage, nobody, metadata=signed) is grpc.StatusCode.NOT_FOUND
    anonymous = pb.SendMessageRequest(recipient="stub", text="x")
    assert refused(chat.SendMessage, anonymous) is grpc.StatusCode.UNAUTHENTICATED
"""


@pytest.mark.parametrize("messages", [messages_by_protoc, messages_by_buf], ids=["protoc", "buf"])
def test_generated_stubs_chat(messages: Callable[[Path], None], tmp_path: Path) -> None:
    """Stubs made from the committed .proto create, log in, send, receive, pop, and get the status of a refusal."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    messages(folder)
    by_protoc(folder, f"--grpc_python_out={folder}")  # buf has no such plugin of its own
    with (
        open_chat(str(tmp_path / "chat.db"), passwords=Passwords(hasher=QUICK)) as app,
        running(app.handlers, authenticate=app.authenticate, codecs=["pipe"], grpc=True, leaks=False) as doors,
    ):
        # A process of its own: protoc and buf do not write the same descriptor, and a process takes one.
        run(sys.executable, "-c", PROGRAM, str(doors["grpc"].address), PASSWORD, cwd=folder)
