"""Too little room on the disk, and a disk that refuses: what is said, what goes on, and that nothing is lost."""

import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from chat_service.fakes import PASSWORD, WAIT, Chat, Clock, FakeContext
from wireproto import CallError, Client, Metadata, Retry, Status, connect
from wireproto.schema import Method
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    BROADCAST,
    CHANGE_PASSWORD,
    CHAT,
    CREATE_ACCOUNT,
    DELETE_ACCOUNT,
    DELETE_MESSAGE,
    LIST_CONVERSATION,
    LOG_IN,
    LOG_OUT,
    POP_UNDELIVERED,
    SEND_MESSAGE,
    WHO_AM_I,
    WILD_CARD,
    AcknowledgeRequest,
    BroadcastRequest,
    ChangePasswordRequest,
    CreateAccountRequest,
    DeleteAccountRequest,
    DeleteMessageRequest,
    ListConversationRequest,
    LogInRequest,
    LogOutRequest,
    PopUndeliveredRequest,
    SendMessageRequest,
    WhoAmIRequest,
    WildCardRequest,
)
from wireproto_chat.store.space import LOOK, Space

MIB = 2**20


class Disk:
    """A disk that has as much room as it is told."""

    def __init__(self) -> None:
        self.free = 1024 * MIB
        self.asked = 0
        self.now = 1000.0

    def room(self, directory: Path) -> int:
        self.asked += 1
        return self.free

    def clock(self) -> float:
        return self.now

    def space(self, path: Path, keep_free: int = 64 * MIB) -> Space:
        space = Space(path, keep_free=keep_free, free=self.room, clock=self.clock)
        space.find()
        space.open()
        return space


def is_low(space: Space) -> bool:
    return space.low


@pytest.fixture
def disk() -> Disk:
    return Disk()


# ---------------------------------------------------------------------- what is watched


def test_the_reserve_is_a_quarter_of_what_is_kept_free(disk: Disk, tmp_path: Path) -> None:
    """Beside the database lies a private file that takes up a quarter of what is kept free, really allocated."""
    space = disk.space(tmp_path / "chat.db")
    found = (tmp_path / "chat.db.reserve").stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode), space.low) == (16 * MIB, 0o600, False)
    assert found.st_blocks * 512 >= 16 * MIB


def test_without_anything_to_keep_free_there_is_no_reserve(disk: Disk, tmp_path: Path) -> None:
    """With keep_free 0 the disk may be used up, and no file is made."""
    disk.free = 0
    assert not disk.space(tmp_path / "chat.db", 0).low
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_looked_at_now_and_then(disk: Disk, tmp_path: Path) -> None:
    """While there is room the system is asked every quarter of a second, however many transactions there are."""
    space = disk.space(tmp_path / "chat.db")
    for _ in range(100):
        space.look()
    assert disk.asked == 1
    disk.free = 64 * MIB - 1
    assert not space.look()
    disk.now += LOOK
    assert space.look()
    assert space.low


def test_room_must_be_well_above_the_limit_again(disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is looked at each time while there is too little; an eighth more than the limit ends that, and both are
    logged once."""
    disk.free = 63 * MIB
    space = disk.space(tmp_path / "chat.db")
    assert space.low
    assert not (tmp_path / "chat.db.reserve").exists()
    for free, low in ((63, True), (64, True), (72, True), (103, True), (104, False), (70, False)):
        disk.free = free * MIB
        assert not space.look()  # it is news only once
        assert space.low is low, free
    assert (tmp_path / "chat.db.reserve").stat().st_size == 16 * MIB
    assert [record.message.partition(" left")[0].rpartition(" has ")[2] for record in caplog.records] == [
        "63.0 MiB",
        f"there is room on the disk of {tmp_path} again: everything is accepted",
    ]


def test_the_reserve_is_given_up_once(disk: Disk, tmp_path: Path) -> None:
    """When SQLite finds no room the reserve is let go and something has changed; a second time nothing has."""
    space = disk.space(tmp_path / "chat.db")
    disk.free = 0
    assert [space.give_up_reserve(), is_low(space), space.give_up_reserve()] == [True, True, False]
    assert (tmp_path / "chat.db.reserve").stat().st_blocks == 0
    seen = []
    for free in (16, 103, 104):
        disk.free = free * MIB
        space.look()
        seen.append(is_low(space))
    assert seen == [True, True, False]
    assert (tmp_path / "chat.db.reserve").stat().st_size == 16 * MIB


def test_a_disk_that_does_not_tell_refuses_nothing(disk: Disk, tmp_path: Path) -> None:
    """A file system that does not say how much room it has is taken to have some."""

    def fails(directory: Path) -> int:
        raise OSError(38, "Function not implemented")

    space = Space(tmp_path / "chat.db", free=fails)
    space.open()
    assert not space.low


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def filled(store_path: Path, clock: Clock, disk: Disk) -> Iterator[Chat]:
    chat = Chat(store_path, clock, free=disk.room)
    yield chat
    chat.close()
    assert not chat.fatal


def test_with_little_room_only_what_grows_is_refused(filled: Chat, disk: Disk) -> None:
    """Sends, broadcasts and accounts answer STORE_FULL, "not processed"; reading, acknowledging, deleting, logging in
    and out go on; a repeated send has its old answer; with room again the next call is done."""
    chat = filled
    ann, bob = chat.account("ann"), chat.account("bob")
    sent = [chat.send(ann, "bob", f"kept {i}", key=b"key %d" % i) for i in range(5)]
    disk.free = 0
    chat.app._store._writer._space._next_look = 0.0  # it would look within a quarter of a second
    grows: list[tuple[Method[Any, Any], Any]] = [
        (SEND_MESSAGE, SendMessageRequest(recipient="bob", text="lost")),
        (BROADCAST, BroadcastRequest(pattern="*", text="lost")),
        (CREATE_ACCOUNT, CreateAccountRequest(username="eve", password=PASSWORD)),
    ]
    for method, request in grows:
        error = chat.refused(method, request, ann)
        assert (error.status, error.reason) == (Status.RESOURCE_EXHAUSTED, "STORE_FULL")
        assert (error.retry, error.retry_after_ms) == (Retry.NOT_PROCESSED, 5000)
    again = chat.send(ann, "bob", "kept 3", key=b"key 3")
    assert (again.message_id, again.duplicate) == (sent[3].message_id, True)
    reader = chat.receive(bob)
    assert reader.texts(2) == ["kept 0", "kept 1"]
    chat.call(ACKNOWLEDGE, AcknowledgeRequest(sequence=2), bob)
    chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=4), ann)
    assert reader.texts() == ["kept 2", "kept 4"]
    reader.close()
    chat.log_out(bob)
    assert chat.log_in("bob", bob).undelivered == 2
    disk.free = 200 * MIB
    for method, request in grows:
        chat.call(method, request, ann)
    texts = [m.text for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob).messages]
    assert texts == ["kept 2", "kept 4", "lost", "lost"]


# ---------------------------------------------------------------------- every failure, every method


class Refusing:
    """A database that answers each statement with an error while it has one."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.code = 0

    def exec_driver_sql(self, statement: str, parameters: Any = None) -> Any:
        if self.code and statement != "ROLLBACK":
            origin = sqlite3.OperationalError("made up")
            if self.code > 0:
                origin.sqlite_errorcode = self.code
            raise OperationalError(statement, (), origin)
        return self.real.exec_driver_sql(statement, parameters)

    def close(self) -> None:
        self.real.close()

    @property
    def connection(self) -> Any:
        return self.real.connection


CALLS: list[tuple[Method[Any, Any], Any]] = [
    (CREATE_ACCOUNT, CreateAccountRequest(username="eve", password=PASSWORD)),
    (LOG_IN, LogInRequest(username="bob", password=PASSWORD)),
    (LOG_IN, LogInRequest(username="bob", password="a wrong password")),
    (WILD_CARD, WildCardRequest(pattern="*")),
    (SEND_MESSAGE, SendMessageRequest(recipient="bob", text="x")),
    (POP_UNDELIVERED, PopUndeliveredRequest()),
    (ACKNOWLEDGE, AcknowledgeRequest(sequence=1)),
    (LIST_CONVERSATION, ListConversationRequest(username="bob")),
    (DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=1)),
    (BROADCAST, BroadcastRequest(pattern="*", text="x")),
    (CHANGE_PASSWORD, ChangePasswordRequest(password=PASSWORD, new_password="another pass phrase")),
    (WHO_AM_I, WhoAmIRequest()),
    (DELETE_ACCOUNT, DeleteAccountRequest(username="ann", force=True)),
    (LOG_OUT, LogOutRequest()),
]
READONLY, CORRUPT, FULL, NOTADB, IOERR_READ, IOERR_WRITE, IOERR_FSYNC = 8, 11, 13, 26, 266, 778, 1034
UNTOLD = -1  # what Python raises by itself, for a name that is no UTF-8


def test_these_are_all_the_methods() -> None:
    """No unary method of the table is left out below."""
    unary = {method.name for method in CHAT.methods if isinstance(method, Method)}
    assert {method.name for method, _ in CALLS} == unary


@pytest.mark.parametrize("code", [READONLY, CORRUPT, FULL, NOTADB, IOERR_READ, IOERR_WRITE, IOERR_FSYNC, UNTOLD])
def test_every_failure_of_the_store_has_a_reason(store_path: Path, clock: Clock, code: int) -> None:
    """Whatever the database answers, each method fails with a reason that it declares, tells nothing of the inside,
    and says whether it was done; when the fault passes, the next call works, unless it is one that must not."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    chat.account("bob")
    chat.send(ann, "bob", "before")
    store = chat.app._store
    transaction = store._writer._tx
    writing = transaction._connection = Refusing(transaction._connection)  # type: ignore[assignment]
    # One reader, which fails: nobody makes another.
    store._readers[:] = [reading := Refusing(store._readers[0])]  # type: ignore[list-item]
    writing.code = reading.code = code
    for method, request in CALLS:
        context = FakeContext() if method in (LOG_IN, CREATE_ACCOUNT) else ann
        error = chat.refused(method, request, context)
        assert error.reason in method.reasons, (method.name, error)
        assert error.reason in ("STORE_FULL", "STORE_FAILED")
        assert "made up" not in error.message
        assert error.status in (Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED)
    with pytest.raises(CallError, match="STORE_F"):
        chat.receive(ann).take()
    writing.code = reading.code = 0
    fatal = code in (CORRUPT, NOTADB, IOERR_READ, IOERR_FSYNC)
    assert bool(chat.fatal) is fatal
    assert len(chat.fatal) <= 1
    request = SendMessageRequest(recipient="bob", text="after")
    if fatal:
        assert chat.refused(SEND_MESSAGE, request, ann).reason == "STORE_FAILED"
    else:
        assert chat.call(SEND_MESSAGE, request, ann).sequence == 2
    chat.close()


def test_the_same_failure_is_logged_once(store_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails each call leaves one line in the log, not one for each."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    transaction = chat.app._store._writer._tx
    writing = transaction._connection = Refusing(transaction._connection)  # type: ignore[assignment]
    writing.code = READONLY
    for _ in range(20):
        chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="x"), ann)
    assert [record.message for record in caplog.records] == ["a write of the store failed: made up"]
    writing.code = 0
    chat.close()


@pytest.mark.parametrize("body", [b"\xff\xfe", "text", 17])
def test_a_text_that_is_none_is_not_given_out(store_path: Path, clock: Clock, body: object) -> None:
    """A damaged text fails whoever reads it, DATA_LOSS, naming its number; what lies before it is delivered, and what
    lies behind it once it is deleted."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for i in range(1, 6):
        chat.send(ann, "ann", f"text {i}")
    chat.close()
    database = sqlite3.connect(store_path)
    with database:
        database.execute("UPDATE messages SET body = ? WHERE seq = 3", (body,))
    database.close()
    chat = Chat(store_path, clock)
    ann = FakeContext()
    chat.log_in("ann", ann)
    reader = chat.receive(ann)
    assert reader.texts() == ["text 1", "text 2"]
    newest = chat.call(LIST_CONVERSATION, ListConversationRequest(username="ann"), ann)
    assert ([m.text for m in newest.messages], newest.more) == (["text 5", "text 4"], True)
    conversation = ListConversationRequest(username="ann", before=newest.messages[-1].position)
    for read in (lambda: reader.take(), lambda: chat.call(LIST_CONVERSATION, conversation, ann)):
        with pytest.raises(CallError, match=r"message 3( to ann)? cannot be read; delete that") as caught:
            read()
        assert (caught.value.status, caught.value.reason) == (Status.DATA_LOSS, "STORE_FAILED")
    page = chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), ann)
    assert ([m.text for m in page.messages], page.remaining) == (["text 1", "text 2"], 3)
    assert chat.refused(POP_UNDELIVERED, PopUndeliveredRequest(), ann).status is Status.DATA_LOSS
    chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="ann", sequence=3), ann)
    assert reader.texts() == ["text 4", "text 5"]
    chat.close()


# ---------------------------------------------------------------------- a real disk


class Machine:
    """Runs a server on a store, and another one whenever it was killed; all in a session of their own.

    Args:
        store: its database.
        keep_free: MiB.
        disk: MiB of a file system that is made for it, and that only it sees; 0 to use the one there is.
    """

    def __init__(self, store: Path, *, keep_free: int, disk: int = 0) -> None:
        serve = [sys.executable, "-m", "wireproto", "serve", "--no-grpc", "--port", "0", "--store", str(store)]
        script = '"$@"; "$@"'
        command = ["sh", "-c", script, "sh"]
        if disk:
            command = ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size={disk}m tmpfs "$0" && {{ {script}; }}']
            command.append(str(store.parent))
        self.process = subprocess.Popen(
            [*command, *serve, "--keep-free", str(keep_free)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # A log that nobody reads would stop the server once the pipe is full.
        self._log = threading.Thread(target=self._read_log)
        self._log.start()
        self.address = ""

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.process.stderr.read()

    def wait(self) -> None:
        """Wait until a server is ready."""
        assert self.process.stdout is not None
        ready = self.process.stdout.readline().split()
        assert ready[:1] == ["ready"]
        self.address = next(word[4:] for word in ready if word.startswith("tcp="))

    @property
    def server(self) -> int:
        """The process that serves."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def seen(self, path: Path) -> Path:
        """A path of its file systems, as seen from here."""
        return Path(f"/proc/{self.process.pid}/root") / path.relative_to("/")

    def restart(self) -> None:
        os.kill(self.server, signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT)
        self._log.join(WAIT)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def machine(store: Path, *, keep_free: int, disk: int = 0) -> Iterator[Machine]:
    found = Machine(store, keep_free=keep_free, disk=disk)
    try:
        found.wait()
        with connect(found.address, CHAT) as client:
            client.call(CREATE_ACCOUNT, CreateAccountRequest(username="ann", password=PASSWORD))
        yield found
    finally:
        found.end()


class Sent:
    """What was sent to ann, by ann, and answered."""

    def __init__(self) -> None:
        self.answered: dict[int, str] = {}
        self.tries = 0

    def send(self, client: Client, most: int) -> CallError | None:
        """Send so many messages, or until one is refused; why it was."""
        for _ in range(most):
            self.tries += 1
            text = f"{self.tries} " + "x" * 8000
            try:
                answer = client.call(
                    SEND_MESSAGE,
                    SendMessageRequest(recipient="ann", text=text),
                    metadata=Metadata(idempotency_key=b"%d" % self.tries),
                )
            except CallError as error:
                return error
            self.answered[answer.sequence] = text
        return None


def signed_in(stack: ExitStack, address: str) -> Client:
    client = stack.enter_context(connect(address, CHAT, timeout=WAIT * 3))
    client.call(LOG_IN, LogInRequest(username="ann", password=PASSWORD))
    return client


def drained(client: Client) -> dict[int, str]:
    """Everything that waits, by its number."""
    found: dict[int, str] = {}
    while messages := client.call(POP_UNDELIVERED, PopUndeliveredRequest()).messages:
        found.update((message.sequence, message.text) for message in messages)
    return found


def can_mount(on: Path) -> bool:
    """Whether this user may mount a file system in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(on)]
    return subprocess.run(command, capture_output=True, timeout=WAIT, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("keep_free", [0, 2])
def test_a_disk_that_fills_up(tmp_path: Path, keep_free: int) -> None:
    """On a file system of 12 MiB that others fill up, sends are refused, STORE_FULL, while messages can be read; when
    there is room again sends go on by themselves; nothing that was answered is lost, though the server is killed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("this user may not mount a file system")
    sent = Sent()
    with ExitStack() as stack:
        server = stack.enter_context(machine(disk / "chat.db", keep_free=keep_free, disk=12))
        inside = server.seen(disk)
        ann = signed_in(stack, server.address)
        assert sent.send(ann, 20) is None
        filler = inside / "filler"
        left = os.statvfs(inside)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (left.f_bavail - 8) * left.f_frsize)
        for _ in range(3):
            error = sent.send(ann, 100)
            assert error is not None
            assert (error.reason, error.retry) == ("STORE_FULL", Retry.NOT_PROCESSED)
        count = len(sent.answered)
        assert ann.call(WHO_AM_I, WhoAmIRequest()).undelivered == count
        page = ann.call(LIST_CONVERSATION, ListConversationRequest(username="ann"))
        assert page.messages[0].text == sent.answered[count]
        if keep_free:
            # The reserve is what lets people make room.
            ann.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="ann", sequence=count))
            del sent.answered[count]
            server.restart()
            ann = signed_in(stack, server.address)
            error = sent.send(ann, 1)
            assert error is not None
            assert error.reason == "STORE_FULL"
        filler.unlink()
        assert sent.send(ann, 20) is None
        if not keep_free:
            server.restart()
            ann = signed_in(stack, server.address)
        assert drained(ann) == sent.answered


@pytest.mark.slow
def test_a_system_that_refuses_to_write(tmp_path: Path) -> None:
    """Writes that the system refuses for another reason, here a limit on file sizes, answer STORE_FAILED, "not
    processed"; reading goes on; when the reason has gone writes go on; nothing that was answered is lost."""
    store = tmp_path / "chat.db"
    sent = Sent()
    with ExitStack() as stack:
        server = stack.enter_context(machine(store, keep_free=0))
        ann = signed_in(stack, server.address)
        assert sent.send(ann, 20) is None
        _, hard = resource.prlimit(server.server, resource.RLIMIT_FSIZE)
        size = Path(f"{store}-wal").stat().st_size + 20_000
        resource.prlimit(server.server, resource.RLIMIT_FSIZE, (size, hard))
        for _ in range(3):
            error = sent.send(ann, 100)
            assert error is not None
            assert (error.reason, error.retry) == ("STORE_FAILED", Retry.NOT_PROCESSED)
        assert ann.call(WHO_AM_I, WhoAmIRequest()).undelivered == len(sent.answered)
        resource.prlimit(server.server, resource.RLIMIT_FSIZE, (hard, hard))
        assert sent.send(ann, 20) is None
        server.restart()
        assert drained(signed_in(stack, server.address)) == sent.answered
