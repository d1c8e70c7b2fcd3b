"""The chat from JavaScript: a client of another language, over the protocol's page and the opcode table alone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from chat_cli.processes import PATIENCE
from wireproto import Server
from wireproto_chat.service.handlers import open_chat

CLIENT = Path(__file__).parents[2] / "examples" / "node" / "chat.mjs"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"the client wants Node 20 or newer; here is {version.strip()}")
    return found


def test_it_chats(node: str, tmp_path: Path) -> None:
    """It makes accounts, lists them, sends, receives, and says why it was refused."""
    with open_chat(str(tmp_path / "chat.db")) as app, Server(app.handlers, authenticate=app.authenticate) as server:

        def chat(*words: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [node, str(CLIENT), str(server.address), *words],
                env={"WIREPROTO_PASSWORD": "correct horse 1"},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )

        for name in ("ann", "bob"):
            assert chat("create", name).returncode == 0
        assert chat("list", "ann", "?o*").stdout == "bob never\n"
        assert chat("send", "ann", "bob", "a|b\\ ☕").stdout == "sent to bob as number 1\n"
        assert chat("receive", "bob", "1").stdout.endswith(" ann: a|b\\ ☕\n")
        refused = chat("send", "ann", "nobody", "x")
        assert refused.returncode == 1
        assert refused.stderr.startswith("UNKNOWN_RECIPIENT: ")
