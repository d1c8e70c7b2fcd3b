"""The chat's commands in every trouble around them: a sentence each, and a status that the command's help names."""

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chat_cli.processes import environment, wireproto
from chat_client.fake import PASSWORD
from wireproto import Server, Status, connect
from wireproto_chat.cli import COMMANDS
from wireproto_chat.cli.chat import command
from wireproto_chat.opcodes import CHAT, CREATE_ACCOUNT, CreateAccountRequest
from wireproto_chat.service.handlers import open_chat

pytestmark = pytest.mark.slow

CONVERSATION = f"0|alice|{PASSWORD}\n/send bob hello\n/list\nbye\n"

SAMPLES: list[dict[str, Any]] = [
    {"words": "chat SERVER", "stdin": CONVERSATION},
    {"words": "chat SERVER --user alice --password-file NEW", "well": 2, "prints": False, "tried": "names"},
    {"words": "serve --port 0 --no-grpc", "stays": True},
    {"words": "serve --store NEW --port 0 --no-grpc", "stays": True, "tried": "names"},
    {"words": "serve --store NEW --port 0 --grpc-port 0", "stays": True, "tried": "seldom"},
    {"words": "db check --store STORE"},
    {"words": "db check --store NEW", "well": 2, "prints": False, "tried": "names"},
    {"words": "db upgrade --store STORE"},
    {"words": "db backup NEW --store STORE"},
    {"words": "ops"},
    {"words": "proto --out NEW", "prints": False, "tried": "names"},
]
"""SERVER is the address of a chat, STORE the path of one's database, and NEW one where nothing is."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A chat with two accounts, and its database."""
    store = tmp_path_factory.mktemp("chat") / "chat.db"
    app = open_chat(str(store))
    try:
        with Server(app.handlers, authenticate=app.authenticate) as running:
            with connect(running.address, CHAT) as client:
                for name in ("alice", "bob"):
                    client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
            yield str(running.address), store
    finally:
        app.close()


@functools.cache
def help_of(command: str) -> str:
    return wireproto(*command.split(), "--help").stdout


def statuses(command: str, documented: Callable[[str, Sequence[int]], set[int]]) -> Collection[int]:
    """Those that a command's help names, or else that of the group."""
    calls = [status.value for status in Status if status is not Status.OK]
    return documented(help_of(command), calls) or documented(help_of(""), calls)


def test_every_command_has_samples() -> None:
    """A command that is added is tried in all troubles, with words that make it do its work."""
    tried = {sample["words"].split()[0] for sample in SAMPLES}
    assert COMMANDS.keys() <= tried
    listed = help_of("db").partition("Commands:")[2].split("\n")
    verbs = {line.split()[0] for line in listed if line[:2] == "  " and line[2:3].isalpha()}
    assert verbs == {sample["words"].split()[1] for sample in SAMPLES if sample["words"].startswith("db ")}


@pytest.mark.samples(SAMPLES)
def test_a_command_says_a_sentence(
    sample: Any,
    trouble: Any,
    run_in: Callable[..., Any],
    documented: Callable[[str, Sequence[int]], set[int]],
    server: tuple[str, Path],
    tmp_path: Path,
) -> None:
    """No traceback of Python's and no status that is not documented, whatever the system refuses."""
    address, served = server
    store = tmp_path / "store.db"
    if "STORE" in sample.words:
        shutil.copy(served, store)
        for suffix in ("-wal", "-shm"):
            if (beside := served.with_name(served.name + suffix)).exists():
                shutil.copy(beside, tmp_path / (store.name + suffix))
    words = sample.words.replace("SERVER", address).replace("STORE", str(store)).split()
    home = environment(HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path / "state"))
    done = run_in(trouble, [sys.executable, "-m", "wireproto", *words], sample, home)
    assert done.faults(sample, trouble, statuses(words[0], documented)) == [], done


def test_the_chats_own_program_is_the_command() -> None:
    """`wireproto-chat` ends as `wireproto chat` does, and says its own name."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wireproto_chat", "--help"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "wireproto-chat: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("door", ["", "--grpc"], ids=["tcp", "grpc"])
@pytest.mark.parametrize("host", ["a..b", "n" * 255, "gr\udcfc", "[::1%nowhere]"])
def test_a_name_that_no_host_has_is_a_sentence(host: str, door: str) -> None:
    """A host's name that is too long, or no text at all, ends the client in words."""
    words = [*[door] * bool(door), f"{host}:7411", "--allow-plaintext"]
    done = CliRunner().invoke(command, words, prog_name="wireproto-chat")
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (2, 24), done.output
    assert done.stderr.startswith("wireproto-chat: ")
