"""Checking and copying write nothing: not into the database, nor beside it, whoever has it and however it was left."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chat_service.fakes import Chat, Clock
from chat_store.test_files import everything
from chat_store.test_store import as_nobody
from wireproto import ConfigError
from wireproto_chat.store import maintenance, reading

CRASH = """
import os, signal, sys
from pathlib import Path
from chat_service.fakes import Chat, Clock
chat = Chat(Path(sys.argv[1]), Clock())
ann = chat.account("ann")
for number in range(50):
    chat.send(ann, "ann", f"{number} " * 50)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crashed(path: Path) -> None:
    """A server was killed, and all that it had written is in the log."""
    command = [sys.executable, "-c", CRASH, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], timeout=60, check=False)
    assert done.returncode < 0
    assert path.with_name("chat.db-wal").stat().st_size > 50_000


def closed(path: Path) -> None:
    chat = Chat(path, Clock())
    ann = chat.account("ann")
    for number in range(50):
        chat.send(ann, "ann", f"{number} " * 50)
    chat.close()


def damaged(path: Path) -> None:
    closed(path)
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def crashed_and_damaged(path: Path) -> None:
    crashed(path)
    content = bytearray(path.read_bytes())
    content[200:4096] = b"\xa5" * 3896
    path.write_bytes(content)


def a_log_alone(path: Path) -> None:
    """What somebody has copied who did not copy the shared memory."""
    crashed(path)
    path.with_name("chat.db-shm").unlink()


def with_an_empty_log(path: Path) -> None:
    closed(path)
    path.with_name("chat.db-wal").touch(0o600)


STATES: list[tuple[Callable[[Path], None], bool]] = [
    (closed, True),
    (damaged, False),
    (crashed, True),
    (crashed_and_damaged, True),  # the log has each of its pages
    (a_log_alone, True),
    (with_an_empty_log, True),
]


@pytest.mark.parametrize(("make", "whole"), STATES)
def test_a_check_writes_nothing(store_path: Path, make: Callable[[Path], None], whole: bool) -> None:
    """Names, modes, bytes and times of all files are what they were, and what is in the log was read."""
    make(store_path)
    before = everything(store_path.parent)
    found = maintenance.check(str(store_path))
    assert everything(store_path.parent) == before
    assert (found == []) is whole, found


@pytest.mark.parametrize("make", [closed, damaged, crashed, a_log_alone])
def test_a_check_needs_no_right_to_write(make: Callable[[Path], None]) -> None:
    """Whoever may only read a store and its folder can have it checked."""
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        store = Path(folder) / "state" / "chat.db"
        make(store)
        for path in store.parent.iterdir():
            path.chmod(0o444)
        for directory in (store.parent, Path(folder)):
            directory.chmod(0o555)
        before = everything(store.parent)
        with as_nobody():
            found = maintenance.check(str(store))
        assert everything(store.parent) == before
        assert (found == []) is (make is not damaged)
        for directory in (store.parent, Path(folder)):
            directory.chmod(0o700)


@pytest.mark.parametrize("make", [closed, crashed, a_log_alone])
def test_a_backup_writes_only_the_copy(store_path: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The copy has all that was answered, also what is in the log only."""
    make(store_path)
    before = everything(store_path.parent)
    copy = maintenance.backup(str(store_path), tmp_path / "copy")
    assert everything(store_path.parent) == before
    database = sqlite3.connect(copy)
    assert database.execute("SELECT count(*) FROM messages").fetchone() == (50,)
    database.close()


def without_shared_memory(path: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a store's folder, but what the server itself writes into its memory when it reads."""
    found = everything(path.parent)
    mode, size, *_ = found[f"{path.name}-shm"]
    found[f"{path.name}-shm"] = (mode, size)
    return found


def test_a_check_beside_a_server_writes_nothing(store_path: Path, chat: Chat) -> None:
    """It reads what the server has answered, out of its log, and the server goes on."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "one")
    for _ in range(3):
        before = without_shared_memory(store_path)
        command = [sys.executable, "-m", "wireproto", "db", "check", "--store", str(store_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
        assert without_shared_memory(store_path) == before
        chat.send(ann, "ann", "more")
    command = [sys.executable, "-m", "wireproto", "db", "backup", "--store", str(store_path), f"{store_path}.copy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    database = sqlite3.connect(f"{store_path}.copy")
    assert database.execute("SELECT count(*) FROM messages").fetchone() == (4,)
    database.close()


def test_a_server_that_starts_meanwhile_is_noticed(store_path: Path, clock: Clock) -> None:
    """What was read while a server came is read again, from what that one has."""
    closed(store_path)
    seen: list[int] = []
    chats: list[Chat] = []

    def work(database: sqlite3.Connection) -> int:
        if not chats:
            chats.append(Chat(store_path, clock))
            chats[0].account("bob")
        seen.append(database.execute("SELECT count(*) FROM accounts").fetchone()[0])
        return seen[-1]

    assert reading.read(store_path, work) == 2
    assert seen == [1, 2]
    chats[0].close()


def test_a_store_that_never_rests_is_told(store_path: Path) -> None:
    """A file that another program writes all the time is not read for ever."""
    closed(store_path)

    def work(database: sqlite3.Connection) -> None:
        os.utime(store_path, ns=(0, store_path.stat().st_mtime_ns + 1))

    with pytest.raises(ConfigError, match="changes while it is read; try again when that is over"):
        reading.read(store_path, work)


def test_a_log_that_cannot_be_copied_is_told(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the copy is a sentence that says what to do."""
    a_log_alone(store_path)

    def copyfile(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(ConfigError, match=r"cannot be copied to be read \(No space left on device\); set TMPDIR"):
        maintenance.check(str(store_path))


LIMITED = """
import os, resource, sys
free = int(sys.argv[1])
from wireproto.cli import main
import wireproto_chat.cli.db, wireproto_chat.store.maintenance, wireproto_chat.service.handlers
import alembic.command, alembic.config, tempfile
held = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (held - 1 + free, held - 1 + free))
sys.argv = ["wireproto", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize("free", range(8))
@pytest.mark.parametrize("words", ["db check", "db backup COPY", "db upgrade", "serve --port 0 --no-grpc"])
def test_too_few_descriptors_are_no_damage(store_path: Path, words: str, free: int) -> None:
    """A process that may open no more files says so, and not that the store is damaged; no copy is left."""
    closed(store_path)
    copy = store_path.with_name("copy")
    command = [word.replace("COPY", str(copy)) for word in words.split()]
    process = subprocess.Popen(
        [sys.executable, "-c", LIMITED, str(free), *command, "--store", str(store_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    if first.startswith("ready "):
        process.terminate()
    output, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    assert "damaged" not in first + output + errors
    if process.returncode:
        assert "Too many open files" in errors, errors
        assert "ulimit -n" in errors or str(store_path) not in errors  # the store's own sentences say what to do
        assert not copy.exists()
    assert not copy.with_name("copy.part").exists()
    assert maintenance.check(str(store_path)) == []
