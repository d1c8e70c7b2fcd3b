"""A store's files: what is looked at and refused stays as it was, and nothing is made beside it or above it."""

import fcntl
import os
import socket
import sqlite3
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from chat_service.fakes import Chat, Clock
from wireproto import ConfigError
from wireproto_chat.store import files, maintenance
from wireproto_chat.store.files import NEW_STORE, claim, look, path_of, unclaim
from wireproto_chat.store.tables import SCHEMA_VERSION

Made = Callable[[Path], None]


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a folder: kind and mode, size, time of the last change, and what is in it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        found[str(path.relative_to(folder))] = (status.st_mode, size, status.st_mtime_ns, content)
    return found


def make_chat(path: Path) -> None:
    Chat(path, Clock()).close()
    for suffix in (".lock", ".reserve"):
        path.with_name(path.name + suffix).unlink()


def edit(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        database.execute(statement)
    database.close()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def a_link_to_a_directory(path: Path) -> None:
    path.symlink_to(".")


def a_link_in_a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def a_text(path: Path) -> None:
    path.write_text("shopping list")


def a_long_text(path: Path) -> None:
    path.write_text("shopping list\n" * 10_000)


def another_database(path: Path) -> None:
    edit(path, "CREATE TABLE shopping (item TEXT)")


def another_database_with_a_log(path: Path) -> None:
    edit(path, "PRAGMA journal_mode = WAL", "CREATE TABLE shopping (item TEXT)")


def a_truncated_chat(path: Path) -> None:
    make_chat(path)
    os.truncate(path, 9000)


def the_beginning_of_a_chat(path: Path) -> None:
    make_chat(path)
    os.truncate(path, 60)


def a_newer_chat(path: Path) -> None:
    make_chat(path)
    edit(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def a_lock_of_somebody_else(path: Path) -> None:
    path.with_name(path.name + ".lock").write_text("a diary with a lock")


def a_lock_that_is_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name(path.name + ".lock"))


def a_chat_in_anothers_lock(path: Path) -> None:
    make_chat(path)
    a_lock_of_somebody_else(path)


FOREIGN: list[tuple[Made, str]] = [
    (a_pipe, "chat.db is a pipe, where no chat can be kept"),
    (a_socket, "chat.db is a socket, where"),
    (a_directory, "chat.db is a directory, where"),
    (a_link_to_a_pipe, "pipe is a pipe, where"),
    (a_link_to_a_directory, " is a directory, where"),
    (a_link_in_a_circle, "chat.db is a symbolic link that leads nowhere, where"),
    (a_text, "is damaged or no database; it was left as it is"),
    (a_long_text, "is damaged or no database; it was left as it is"),
    (another_database, "is another program's database, or not a chat's database any more"),
    (another_database_with_a_log, "is another program's database"),
    (a_truncated_chat, "is damaged, 9000 of its [0-9]+ bytes are there"),
    (the_beginning_of_a_chat, "is damaged or no database"),
    (a_newer_chat, r"written by a newer wireproto \(schema 2, this one knows 1\)"),
]
BESIDE: list[tuple[Made, str]] = [
    (a_lock_of_somebody_else, "chat.db.lock is another program's file, and the chat needs that name"),
    (a_lock_that_is_a_pipe, "chat.db.lock is another program's file"),
    (a_chat_in_anothers_lock, "chat.db.lock is another program's file"),
]


def refused(folder: Path, path: Path, said: str, use: Callable[[], object]) -> None:
    """See that it is refused in words, and that nothing in the folder has changed."""
    before = everything(folder)
    with pytest.raises(ConfigError, match=said):
        use()
    assert everything(folder) == before


@pytest.mark.parametrize(("made", "said"), FOREIGN + BESIDE)
def test_a_server_leaves_what_it_refuses(tmp_path: Path, clock: Clock, made: Made, said: str) -> None:
    """A file that no chat can be kept in keeps its mode, its bytes and its times, and has nothing beside it."""
    path = tmp_path / "chat.db"
    made(path)
    if path.is_file():
        path.chmod(0o664)
    refused(tmp_path, path, said, lambda: Chat(path, clock))


@pytest.mark.parametrize("verb", ["check", "backup", "upgrade"])
@pytest.mark.parametrize(("made", "said"), FOREIGN)
def test_a_command_leaves_what_it_refuses(tmp_path: Path, made: Made, said: str, verb: str) -> None:
    """So do check, backup and upgrade, and no copy is made."""
    path = tmp_path / "chat.db"
    made(path)
    if path.is_file():
        path.chmod(0o664)
    do: dict[str, Callable[[], object]] = {
        "check": lambda: maintenance.check(str(path)),
        "backup": lambda: maintenance.backup(str(path), tmp_path / "copy"),
        "upgrade": lambda: maintenance.upgrade(str(path)),
    }
    refused(tmp_path, path, said, do[verb])


def test_an_empty_file_becomes_a_store(store_path: Path, clock: Clock) -> None:
    """What `touch` makes is nobody's content: a server takes it, and makes it private."""
    store_path.parent.mkdir()
    store_path.touch(0o644)
    assert look(store_path) == NEW_STORE
    with pytest.raises(ConfigError, match="there is no store"):
        maintenance.check(str(store_path))
    chat = Chat(store_path, clock)
    chat.account("ann")
    chat.close()
    assert (look(store_path), stat.S_IMODE(store_path.stat().st_mode)) == (SCHEMA_VERSION, 0o600)


def test_a_store_that_was_killed_while_it_was_made_is_made(store_path: Path, clock: Clock) -> None:
    """A database that says whose it is and has no tables yet gets them at the next start."""
    store_path.parent.mkdir()
    edit(store_path, f"PRAGMA application_id = {files.APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}")
    chat = Chat(store_path, clock)
    chat.account("ann")
    chat.close()
    assert maintenance.check(str(store_path)) == []


@pytest.mark.parametrize("size", [246, 247, 248, 250, 255, 256, 300])
def test_no_folder_is_made_for_a_name_that_is_too_long(tmp_path: Path, clock: Clock, size: int) -> None:
    """A name that leaves no room for those beside it, or is none, is refused with how long it may be."""
    path = tmp_path / "new" / ("n" * size)
    if size <= 247:
        Chat(path, clock).close()
        assert maintenance.check(str(path)) == []
    else:
        refused(
            tmp_path, path, rf"the store's name has {size} bytes, of which 247 are possible", lambda: Chat(path, clock)
        )
        for verb in (maintenance.check, maintenance.upgrade):
            refused(tmp_path, path, "give --store a shorter name", partial(verb, str(path)))


def test_a_folder_whose_name_is_too_long_is_refused(tmp_path: Path, clock: Clock) -> None:
    """So is a store in a folder whose name is none."""
    path = tmp_path / "new" / ("n" * 256) / "chat.db"
    refused(tmp_path, path, r"cannot be opened \(File name too long\); give a shorter name", lambda: Chat(path, clock))


@pytest.mark.parametrize("size", [504, 505, 1000])
def test_a_path_that_is_too_long_is_refused(tmp_path: Path, clock: Clock, size: int) -> None:
    """A path of more bytes than SQLite takes is refused before a folder is made."""
    folder = tmp_path
    while len(str(folder)) + 102 < size:
        folder /= "d" * 100
    path = folder / ("n" * (size - len(str(folder)) - 1))
    if size <= 504:
        Chat(path, clock).close()
    else:
        said = rf"the store's path has {size} bytes, of which SQLite takes 504"
        refused(tmp_path, path, said, lambda: Chat(path, clock))


@pytest.mark.parametrize("url", ["a\0b", "sqlite:////tmp/a%00b"])
def test_a_name_with_a_nul_is_refused(url: str) -> None:
    """A URL may spell what no file is called."""
    with pytest.raises(ConfigError, match="names no file"):
        path_of(url)


def test_a_pipe_is_not_opened(tmp_path: Path, clock: Clock) -> None:
    """Whoever waits to write into a pipe still does when its name was refused."""
    path = tmp_path / "chat.db"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is a pipe"):
        Chat(path, clock)
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("content", [b"a photograph of a reserve" * 1000, b"\0" * 8000 + b"an end"])
def test_a_reserve_of_somebody_else_is_let_be(store_path: Path, clock: Clock, content: bytes) -> None:
    """A file that has the reserve's name and is not one stays as it is, also when there is no room."""
    store_path.parent.mkdir()
    reserve = store_path.with_name("chat.db.reserve")
    reserve.write_bytes(content)
    chat = Chat(store_path, clock)
    chat.account("ann")
    assert not chat.app._store._writer._space.give_up_reserve() or reserve.read_bytes() == content
    chat.close()
    assert reserve.read_bytes() == content


def test_a_reserve_that_is_a_link_is_let_be(store_path: Path, clock: Clock, tmp_path: Path) -> None:
    """What a link leads to is neither taken for a reserve nor cut."""
    blank = tmp_path / "blank"
    blank.write_bytes(b"\0" * 20 * 2**20)
    store_path.parent.mkdir()
    store_path.with_name("chat.db.reserve").symlink_to(blank)
    chat = Chat(store_path, clock)
    chat.app._store._writer._space.give_up_reserve()
    chat.close()
    assert blank.stat().st_size == 20 * 2**20


def test_looking_does_not_take_a_lock_away(store_path: Path, chat: Chat, clock: Clock) -> None:
    """A second opener of this process does not open the file of the first: closing it would end SQLite's locks."""

    def locks() -> list[str]:
        inode = f":{store_path.stat().st_ino} "
        return sorted(line.split(":", 1)[1] for line in Path("/proc/locks").read_text().splitlines() if inode in line)

    chat.account("ann")
    before = locks()
    assert before
    with pytest.raises(ConfigError, match="in use"):
        Chat(store_path, clock)
    maintenance.check(str(store_path))
    with pytest.raises(ConfigError, match="in use"):
        maintenance.upgrade(str(store_path))
    assert locks() == before


def test_a_check_keeps_no_server_from_starting(store_path: Path, clock: Clock) -> None:
    """Who looks whether a store is in use holds its lock for a moment, and a server that starts then waits it out."""
    Chat(store_path, clock).close()
    descriptor = os.open(store_path.with_name("chat.db.lock"), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    timer = threading.Timer(0.005, os.close, (descriptor,))
    timer.start()
    Chat(store_path, clock).close()
    timer.join()


def test_a_lock_that_another_made_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that make the lock file at once, the second finds that of the first."""
    path = tmp_path / "chat.db"
    looked = files.look

    def look_late(at: Path) -> int:
        schema = looked(at)
        path.with_name("chat.db.lock").touch(0o600)
        return schema

    monkeypatch.setattr(files, "look", look_late)
    unclaim(claim(path))
    assert path.with_name("chat.db.lock").read_text().strip() == str(os.getpid())
