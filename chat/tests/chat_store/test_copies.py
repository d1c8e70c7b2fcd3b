"""Copies of a database: what has the name of one is whole, whenever its process is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chat_service.fakes import Chat, Clock
from chat_store.test_files import everything
from wireproto import ConfigError
from wireproto_chat.store import copies, maintenance

KILLED = """
import os, resource, signal, sys
from pathlib import Path
from wireproto_chat.store import copies, maintenance
import wireproto_chat.store.files as files
import wireproto_chat.store.opening as opening
import wireproto_chat.store.reading as reading

store, step, count, later = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def at(module, name, before=True):
    real, calls = getattr(module, name), 0
    def dying(*words, **named):
        nonlocal calls
        calls += 1
        if before and calls == count:
            die()
        result = real(*words, **named)
        if calls == count:
            die()
        return result
    setattr(module, name, dying)

if step == "size":  # of a file: the kernel ends the process in the middle of the write that goes beyond it
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
elif step == "after link":
    at(os, "link", before=False)
elif step == "unlink":
    Path.unlink = die
else:
    at(next(module for module in (maintenance, copies, os) if hasattr(module, step)), step)
if later:
    maintenance.MIGRATIONS = Path(later)
    for module in (maintenance, files, opening, reading):
        module.SCHEMA_VERSION = 2
    maintenance.upgrade(store)
else:
    maintenance.backup(store, store + ".copy")
"""

STEPS = [
    ("size", 0),
    ("size", 1),
    ("size", 4096),
    ("size", 20_000),
    ("size", 60_000),
    ("truncate", 1),
    ("pwrite", 1),
    ("fill", 1),
    ("_make_durable", 1),
    ("fsync", 1),
    ("link", 1),
    ("after link", 1),
    ("sync_directory", 1),
    ("unlink", 1),
]


@pytest.fixture
def filled(store_path: Path, clock: Clock) -> Path:
    """A database of some 30 pages."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for number in range(100):
        chat.send(ann, "ann", f"{number} " * 100)
    chat.close()
    return store_path


@pytest.mark.parametrize("verb", ["backup", "upgrade"])
@pytest.mark.parametrize(("step", "count"), STEPS)
def test_what_is_killed_leaves_no_half_copy(
    filled: Path, clock: Clock, tmp_path: Path, verb: str, step: str, count: int
) -> None:
    """Wherever the process is killed there is no file of the copy's name, or a whole one; a server says in words that
    the unfinished one is none, and the store is what it was."""
    content = filled.read_bytes()
    copy = filled.with_name("chat.db.copy" if verb == "backup" else "chat.db.schema1")
    later = str(tmp_path / "migrations") if verb == "upgrade" else ""
    if (verb, step) == ("upgrade", "pwrite"):
        count += 1  # the first one is that of the lock
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(filled), step, str(count), later],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (-signal.SIGKILL, -signal.SIGXFSZ), done.stderr
    assert filled.read_bytes() == content
    part = copy.with_name(copy.name + ".part")
    if copy.exists():
        assert maintenance.check(str(copy)) == []
        assert step in ("after link", "sync_directory", "unlink")
    else:
        assert part.exists() or verb == "upgrade"  # one byte too much for the lock file
        assert {path.name for path in filled.parent.iterdir()} <= {
            part.name, "chat.db", "chat.db.lock", "chat.db.reserve", "chat.db-wal", "chat.db-shm",
        }  # fmt: skip
    if part.exists():
        before = everything(filled.parent)
        with pytest.raises(ConfigError, match="is an unfinished copy of a database, by its name; give another"):
            Chat(part, clock)
        with pytest.raises(ConfigError, match="is an unfinished copy"):
            maintenance.check(str(part))
        if not copy.exists():
            with pytest.raises(ConfigError, match=r"\.part exists: a copy is being made there, or was when"):
                maintenance.backup(str(filled), copy)
        assert everything(filled.parent) == before
        part.unlink()
    if not copy.exists():
        assert maintenance.backup(str(filled), copy) == copy
        assert maintenance.check(str(copy)) == []


def test_a_copy_replaces_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that gets the name while the copy is made keeps it, and the copy is gone."""
    copy = filled.with_name("copy")

    def fill(*words: object) -> None:
        copy.write_text("mine")

    monkeypatch.setattr(maintenance, "fill", fill)
    with pytest.raises(ConfigError, match="copy exists; give another name, or remove it"):
        maintenance.backup(str(filled), copy)
    assert copy.read_text() == "mine"
    assert not filled.with_name("copy.part").exists()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_copy_is_not_put_beside_anothers_log(filled: Path, suffix: str) -> None:
    """SQLite would read that log into the copy."""
    filled.with_name(f"copy{suffix}").write_text("old")
    with pytest.raises(ConfigError, match=f"copy{suffix} is left of another database"):
        maintenance.backup(str(filled), filled.with_name("copy"))
    assert not filled.with_name("copy").exists()


def test_a_copy_has_no_unfinished_name(filled: Path) -> None:
    """A file called so would be no store."""
    with pytest.raises(ConfigError, match=r"give one that does not end in \.part"):
        maintenance.backup(str(filled), filled.with_name("copy.part"))


def test_a_file_system_without_links_takes_a_copy(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the file is renamed, and that replaces nothing, either."""

    def link(*words: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    copy = filled.with_name("copy")
    maintenance.backup(str(filled), copy)
    assert maintenance.check(str(copy)) == []
    assert not filled.with_name("copy.part").exists()
    monkeypatch.setattr(copies, "_check", lambda _: None)
    content = copy.read_bytes()
    with pytest.raises(ConfigError, match="copy exists"):
        maintenance.backup(str(filled), copy)
    assert copy.read_bytes() == content


def test_a_copy_is_one_private_file(filled: Path) -> None:
    """It needs no log beside it, and is opened without one being made."""
    copy = maintenance.backup(str(filled), filled.with_name("copy"))
    assert copy.stat().st_mode & 0o777 == 0o600
    before = everything(filled.parent)
    assert maintenance.check(str(copy)) == []
    assert everything(filled.parent) == before
    assert copy.read_bytes()[18:20] == b"\x01\x01"


@pytest.mark.parametrize("name", ["n" * 251, "no/such/folder", "n" * 300])
def test_a_copy_that_cannot_be_made_is_a_sentence(filled: Path, name: str) -> None:
    """The system's reason, and what to do."""
    with pytest.raises(ConfigError, match=r"cannot be made \(.*\); give a "):
        maintenance.backup(str(filled), filled.parent / name)
