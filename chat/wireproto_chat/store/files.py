"""A store's files before SQLite sees them: where they are, whether they are the chat's, who has them, and who may read.

A name that was given by mistake belongs to somebody else. So a file is looked at before anything is done to it, and
what is refused stays as it was: its bytes, its mode and its times, and nothing is made beside it or above it.

No file is opened here while this process may have it open as a database. POSIX gives a process's locks on a file up
as soon as the process closes any descriptor of the file, SQLite's locks among them.
"""

import errno
import fcntl
import logging
import os
import shlex
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from wireproto import ConfigError
from wireproto_chat.store.tables import SCHEMA_VERSION

__all__ = [
    "APPLICATION_ID",
    "NEW_STORE",
    "UNFINISHED",
    "claim",
    "default_path",
    "look",
    "make_private",
    "newer",
    "no_store",
    "older",
    "path_of",
    "real_path",
    "refusal",
    "sync_directory",
    "unclaim",
]

log = logging.getLogger("wireproto_chat.store")

APPLICATION_ID: Final = 0x57504348
"""``WPCH`` in the file's header: tells a chat database from another program's."""

NEW_STORE: Final = 0
"""The schema of a store that is to be made: there is no file, or an empty one, as ``touch`` makes it."""

UNFINISHED: Final = ".part"
"""How the name of a copy ends that is being made, or was when its process was killed."""

_MAGIC: Final = b"SQLite format 3\0"
_HEADER: Final = 100
_CONSTANT: Final = {
    18: (b"\2\2\0\x40\x20\x20", b"\1\1\0\x40\x20\x20"),  # with a write-ahead log, or a copy that never had one
    44: (b"\0\0\0\4", b"\0\0\0\0"),  # the format of the schema, none while there is no table
    52: (b"\0\0\0\0",),  # no vacuuming by itself
    56: (b"\0\0\0\1", b"\0\0\0\0"),  # UTF-8, once there is a table
    64: (b"\0\0\0\0",),
    72: (bytes(20),),
}
"""What a header of ours can have at each of these places."""

_OWNER: Final = 20
"""Bytes of a lock file: a process's number, padded, and the end of the line."""

_LONGEST_SUFFIX: Final = len("-journal")
"""Of the names of the files that lie beside a database; ``.reserve`` is as long."""

_LONGEST_PATH: Final = 504
"""Bytes of a path that SQLite takes, which are 8 less than its buffer has."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link that leads nowhere",
}

# Neither waits for the other end of a pipe, nor follows a link that was put there since the path was resolved.
_CAUTION: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

_MOMENTS: Final = (0.01, 0.02, 0.04, 0.0)
"""Seconds to wait between two tries for a lock, which has no timeout of its own."""

# Of this process: the descriptors that hold locks, and what they lock.
_claims: dict[int, Path] = {}

# Databases, by device and number, that a parent had open when it forked. SQLite still takes its parent's locks for its
# own there, and would go without.
_inherited: set[tuple[int, int]] = set()

# Held from the look at a file until it is locked, so that no other thread opens it as a database in between.
_looking = threading.Lock()


def default_path() -> Path:
    """``$XDG_STATE_HOME/wireproto/chat.db``; ``~/.local/state`` when that is not set to an absolute path."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path(os.path.expanduser("~/.local/state"))
    if not base.is_absolute():
        raise ConfigError("this user has no home directory; give --store")
    return base / "wireproto" / "chat.db"


def path_of(url: str | None) -> Path:
    """The file a store URL names: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a plain path; None: the
    default.

    Raises:
        ConfigError: another kind of database, or one in memory, which no restart would survive.
    """
    if url is None:
        return default_path()
    scheme, separator, rest = url.partition("://")
    if not separator:
        rest = url
    elif scheme != "sqlite" or not rest.startswith("/") or "?" in rest:
        raise ConfigError(
            f"{url!r} is not a store; give sqlite:///PATH or a path, for example sqlite:////var/lib/chat.db"
        )
    else:
        rest = unquote(rest[1:])
    if rest in ("", ":memory:") or "\0" in rest:
        raise ConfigError(f"{url!r} names no file; give sqlite:///PATH or a path: the chat keeps its messages on disk")
    return Path(os.path.abspath(os.path.expanduser(rest)))


def real_path(url: str | None) -> Path:
    """What ``path_of`` says, with links resolved, so that one file has one lock, whatever it is called by."""
    return Path(os.path.realpath(path_of(url)))


def refusal(
    what: str, error: OSError, otherwise: str = "give a --store in a directory you may write to"
) -> ConfigError:
    """What a command is told when the system refuses something: the system's reason, and what to do about it."""
    match error.errno:
        case errno.EMFILE | errno.ENFILE:
            advice = "close files, or raise the limit (ulimit -n)"
        case errno.ENOSPC | errno.EDQUOT:
            advice = "make room on that disk, then try again"
        case errno.ENAMETOOLONG:
            advice = "give a shorter name"
        case _:
            advice = otherwise
    return ConfigError(f"{what} ({error.strerror}); {advice}")


def no_store(path: Path) -> ConfigError:
    """What a command is told that needs a store where there is none."""
    return ConfigError(f"there is no store {path}; give --store, or start a server, which makes one")


def newer(path: Path, schema: int) -> ConfigError:
    """What a command is told about a database of a later release."""
    return ConfigError(
        f"{path} was written by a newer wireproto (schema {schema}, this one knows {SCHEMA_VERSION}); "
        "install that version or give another --store"
    )


def older(path: Path, schema: int) -> ConfigError:
    """What a server is told about a database of an earlier release."""
    return ConfigError(
        f"{path} was written by an older wireproto (schema {schema}, this one needs {SCHEMA_VERSION}); "
        f"run: wireproto db upgrade --store {shlex.quote(str(path))}"
    )


def look(path: Path) -> int:
    """See what a file is, without changing anything; the schema that it says it has, or ``NEW_STORE``.

    Args:
        path: with links resolved; this process has it open nowhere, see above.

    Raises:
        ConfigError: it is no regular file, not the chat's, of a later release, unfinished, cut short, or unreadable.
    """
    if path.name.endswith(UNFINISHED):
        raise ConfigError(
            f"{path} is an unfinished copy of a database, by its name; give another --store, or make the copy again"
        )
    try:
        _check_name(path)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return NEW_STORE
        # By its name first: a pipe that is opened, if only to be looked at, wakes whoever waits to write into it.
        _check_kind(path, mode)
        descriptor = os.open(path, os.O_RDONLY | _CAUTION)
        try:
            found = os.fstat(descriptor)
            _check_kind(path, found.st_mode)
            _check_inherited(path, found)
            header = os.pread(descriptor, _HEADER, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise refusal(f"the store {path} cannot be opened", error) from error
    return _schema(path, header, found.st_size)


def _check_name(path: Path) -> None:
    """See that the names of the files beside a database fit, too, before a directory is made for it."""
    above = next((parent for parent in path.parents if parent.is_dir()), Path("/"))
    longest = os.pathconf(above, "PC_NAME_MAX")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            f"the store's path has {len(os.fsencode(path))} bytes, of which SQLite takes {_LONGEST_PATH}; "
            "give --store a shorter path"
        )
    sizes = [len(os.fsencode(part)) for part in path.relative_to(above).parts]
    if any(size > longest for size in sizes[:-1]):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if sizes and sizes[-1] > longest - _LONGEST_SUFFIX:
        raise ConfigError(
            f"the store's name has {sizes[-1]} bytes, of which {longest - _LONGEST_SUFFIX} are possible there; "
            "give --store a shorter name"
        )


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise ConfigError(f"{path} is {kind}, where no chat can be kept; give another --store")


def _check_inherited(path: Path, found: os.stat_result) -> None:
    if (found.st_dev, found.st_ino) in _inherited:
        raise ConfigError(
            f"the store {path} was open in the parent process when this one was forked; use it in a program of its own"
        )


def _schema(path: Path, header: bytes, size: int) -> int:
    """What the first bytes of a file of this size say."""
    if not size:
        return NEW_STORE
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise ConfigError(
            f"{path} is damaged or no database; it was left as it is. Restore a backup or give another --store"
        )

    def number(at: int, end: int) -> int:
        return int.from_bytes(header[at:end], "big")

    if number(68, 72) != APPLICATION_ID:
        raise ConfigError(
            f"{path} is another program's database, or not a chat's database any more; it was left as it is. "
            "Give another --store, or restore a backup"
        )
    # What SQLite notices late or not at all, and would write a database differently for.
    if any(header[start : start + len(words[0])] not in words for start, words in _CONSTANT.items()):
        raise ConfigError(f"{path} is damaged (its header); restore a backup or give another --store")
    schema = number(60, 64)
    if schema > SCHEMA_VERSION:
        raise newer(path, schema)
    # While there is a log, pages may be in it and not yet in the database.
    whole = number(28, 32) * (number(16, 18) or 65536)
    if size < whole and not _size_of(f"{path}-wal"):
        raise ConfigError(
            f"{path} is damaged, {size} of its {whole} bytes are there; it was left as it is. "
            "Restore a backup or give another --store"
        )
    return schema


def _size_of(name: str) -> int:
    try:
        return os.stat(name).st_size
    except FileNotFoundError:
        return 0


def claim(path: Path, *, existing: bool = False) -> int:
    """Look at a file, and lock it for this process if it is the chat's, or there is none yet.

    Args:
        path: with links resolved.
        existing: whether there must be a store already; one of an earlier release will do then.

    Returns:
        The descriptor that holds the lock.

    Raises:
        ConfigError: ``look`` refuses it, it is in use, or it cannot be locked.
    """
    with _looking:
        try:
            # If the lock file is there, somebody of this process may have the database open. If it is not, nobody has.
            descriptor = _lock(path)
        except OSError as error:
            raise refusal(f"the store {path} cannot be opened", error) from error
        try:
            schema = look(path)
            if existing and schema == NEW_STORE:
                raise no_store(path)
            if not existing and NEW_STORE < schema < SCHEMA_VERSION:
                raise older(path, schema)
            if descriptor is None:
                descriptor = _make_lock(path)
        except BaseException:
            unclaim(descriptor)
            raise
    _claims[descriptor] = path
    try:
        # In one write, and padded over a longer number: a full disk must not keep anybody from reading.
        os.pwrite(descriptor, f"{os.getpid():<{_OWNER - 1}}\n".encode(), 0)
    except OSError as error:
        log.warning("%s.lock does not say who has it: %s", path, error.strerror)
    return descriptor


def unclaim(descriptor: int | None) -> None:
    """Let go of a lock. The file stays: whoever waits for it would else hold a lock that nobody sees."""
    if descriptor is not None:
        _claims.pop(descriptor, None)
        os.close(descriptor)


def _after_fork() -> None:
    global _looking
    _looking = threading.Lock()
    for descriptor, path in _claims.items():
        with suppress(OSError):
            found = os.stat(path)
            _inherited.add((found.st_dev, found.st_ino))
        os.close(descriptor)
    _claims.clear()


os.register_at_fork(after_in_child=_after_fork)


def _make_lock(path: Path) -> int:
    missing = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
    try:
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):  # another process has just made it
            os.close(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | _CAUTION, 0o600))
        descriptor = _lock(path)
    except OSError as error:
        raise refusal(f"the store {path} cannot be opened", error) from error
    if descriptor is None:
        raise ConfigError(f"the file {path}.lock was removed just now; let it be, and try again")
    return descriptor


def _lock(path: Path) -> int | None:
    """Lock the file beside a database; None if it is not there."""
    name = f"{path}.lock"
    try:
        if not stat.S_ISREG(os.lstat(name).st_mode):
            raise _not_ours(name)
        descriptor = os.open(name, os.O_RDWR | _CAUTION)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None  # which ``look`` says better
        raise
    try:
        content = os.pread(descriptor, _OWNER + 1, 0)
        owner = content.decode("ascii", "replace").strip()
        if content and (len(content) != _OWNER or not owner.isdigit()):
            raise _not_ours(name)
        # Whoever checks a store holds the lock for a moment, to see whether anybody has it.
        for wait in _MOMENTS:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not wait:
                    raise ConfigError(
                        f"the store {path} is in use by process {owner or 'unknown'}; "
                        "stop that server or give another --store"
                    ) from error
                time.sleep(wait)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _not_ours(name: str) -> ConfigError:
    return ConfigError(f"{name} is another program's file, and the chat needs that name; give another --store")


def make_private(path: Path) -> None:
    """Create the database file, or tighten one that others may read: it holds messages and password hashes.

    Args:
        path: of a file that was claimed.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CAUTION, 0o600)
        try:
            found = os.fstat(descriptor)
            _check_kind(path, found.st_mode)
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        # A new file is durable only once its directory is.
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(
            f"the store {path} cannot be written ({error.strerror}); make it yours or give another --store"
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the names of a directory's files durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
