"""`wireproto serve` without handlers: the chat, its store, and its end."""

import subprocess
import sys
from pathlib import Path

from chat_cli.processes import PATIENCE, Serve, environment, wireproto

FATAL = """
import sys
import wireproto_chat.service.handlers as handlers
from wireproto.cli import main
opened = handlers.open_chat

def open_chat(*words, on_fatal, **settings):
    on_fatal(RuntimeError("the disk is on fire"))
    return opened(*words, on_fatal=on_fatal, **settings)

handlers.open_chat = open_chat
main()
"""


def test_the_ready_line_names_the_store(serve: Serve, tmp_path: Path) -> None:
    """--store takes a path, and the line says which it is."""
    store = tmp_path / "people.db"
    serving = serve("--store", str(store))
    assert serving.ready["store"] == str(store)
    assert store.exists()


def test_the_store_has_a_default(serve: Serve, tmp_path: Path) -> None:
    """Without --store it is chat.db in the user's state folder."""
    serving = serve(XDG_STATE_HOME=str(tmp_path))
    assert serving.ready["store"] == str(tmp_path / "wireproto" / "chat.db")


def test_the_store_can_come_from_the_environment(serve: Serve, tmp_path: Path) -> None:
    """WIREPROTO_SERVE_STORE is --store."""
    assert serve(WIREPROTO_SERVE_STORE=str(tmp_path / "a.db")).ready["store"] == str(tmp_path / "a.db")


def test_a_store_in_use_is_said_so(serve: Serve, tmp_path: Path) -> None:
    """A second server on the same file ends with status 1 and a sentence; the first one goes on."""
    first = serve("--store", str(tmp_path / "a.db"))
    done = wireproto("serve", "--port", "0", "--store", str(tmp_path / "a.db"))
    assert done.returncode == 1
    assert "a.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert first.process.poll() is None


def test_a_store_that_cannot_be_trusted_ends_the_server(tmp_path: Path) -> None:
    """When the store says it cannot go on, the server drains and exits 1 with the reason."""
    done = subprocess.run(
        [sys.executable, "-c", FATAL, "serve", "--port", "0", "--store", str(tmp_path / "a.db")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "the server stopped by itself: the disk is on fire" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_can_be_called_from_the_shell(serve: Serve, tmp_path: Path) -> None:
    """An account is made by `wireproto call`, with no schema at hand."""
    serving = serve("--store", str(tmp_path / "a.db"), "--minimum-password", "4")
    done = wireproto("call", serving.address, "CreateAccount", "username=ann", "password=zq7x")
    assert done.returncode == 0, done.stderr
    again = wireproto("call", serving.address, "CreateAccount", "username=ann", "password=zq7x")
    assert again.returncode == 16
    assert "NAME_TAKEN" in again.stderr
