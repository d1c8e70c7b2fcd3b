"""A disk that returns another bit than it was given: what is shown is what was stored, or an error says so."""

import random
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from argon2 import PasswordHasher

from chat_service.fakes import PASSWORD, Chat, Clock, FakeContext
from wireproto import CallError, ConfigError, Status
from wireproto_chat.opcodes import (
    BROADCAST,
    DELETE_ACCOUNT,
    DELETE_MESSAGE,
    LIST_CONVERSATION,
    LOG_IN,
    WHO_AM_I,
    WILD_CARD,
    BroadcastRequest,
    DeleteAccountRequest,
    DeleteMessageRequest,
    ListConversationRequest,
    LogInRequest,
    WhoAmIRequest,
    WildCardRequest,
)
from wireproto_chat.service.passwords import Passwords
from wireproto_chat.store import maintenance, opening
from wireproto_chat.store.sums import SUMMED, RowSum
from wireproto_chat.store.tables import CHECKSUM

NAMES: Final = ("ann", "bob", "cyd", "dan")
PEOPLE: Final = ("ann", "bob", "cyd")
TEXTS: Final = [f"{number:02} " + "to bob " * 20 for number in range(20)]


class FixedHasher(PasswordHasher):
    """Hashes a password to the same each time, so that a file is the same each time."""

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        return super().hash(password, salt=salt or b"0123456789abcdef")


def opened(path: Path, clock: Clock) -> Chat:
    return Chat(path, clock, passwords=Passwords(hasher=FixedHasher(time_cost=1, memory_cost=8, parallelism=1)))


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Makes all that is random in a store the same in each run."""
    found = random.Random(20261121)
    monkeypatch.setattr(secrets, "token_bytes", found.randbytes)
    return found


class Filled:
    """A store with something in every table, as it is on the disk, and the tokens of two people."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        chat = opened(path, clock)
        ann, bob, _, dan = (chat.account(name) for name in NAMES)
        for number, text in enumerate(TEXTS):
            chat.send(ann, "bob", text, key=b"key %d" % number)
        for number in range(5):
            chat.send(bob, "ann", f"{number} to ann")
        chat.send(dan, "bob", "from one who is gone")
        chat.pop(bob, 2)
        chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=5), ann)
        chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=1), ann)
        chat.call(DELETE_ACCOUNT, DeleteAccountRequest(username="dan", force=True), dan)
        chat.refused(LOG_IN, LogInRequest(username="cyd", password="is it this one?"), FakeContext())
        self.tokens = {name: chat.log_in(name, FakeContext()).token for name in ("ann", "bob")}
        chat.close()
        self.content = path.read_bytes()


@pytest.fixture
def filled(tmp_path: Path, clock: Clock, chance: random.Random) -> Filled:
    return Filled(tmp_path / "chat.db", clock)


Answer = Any


def undelivered(chat: Chat, name: str, context: FakeContext, token: str = "") -> int:
    return chat.log_in(name, context, token=token).undelivered


def sent(chat: Chat, caller: FakeContext, to: str) -> int:
    return chat.send(caller, to, "new").sequence


def conversation(chat: Chat, caller: FakeContext, other: str, oldest: bool) -> Answer:
    request = ListConversationRequest(username=other, oldest_first=oldest)
    return chat.call(LIST_CONVERSATION, request, caller).messages


class Visit:
    """What everybody is shown by one server, and then what becomes of what they write.

    Attributes:
        answers: by the name of what was done; a ``CallError`` where it failed.
        refused: why the server did not start.
    """

    def __init__(self, filled: Filled, clock: Clock) -> None:
        self.answers: dict[str, Answer] = {}
        self.refused = ""
        try:
            chat = opened(filled.path, clock)
        except ConfigError as error:
            self.refused = str(error)
            return
        try:
            people = {name: FakeContext() for name in PEOPLE}
            for name, tried in people.items():
                self._note(f"log in {name}", partial(undelivered, chat, name, tried))
            for name, token in filled.tokens.items():
                context = people[name] if people[name].identity is None else FakeContext()
                self._note(f"resume {name}", partial(undelivered, chat, name, context, token))
                people[name] = context if people[name].identity is None else people[name]
            for name, caller in people.items():
                if caller.identity is not None:
                    self._read(chat, name, caller)
            for name, caller in people.items():
                if caller.identity is not None:
                    self._write(chat, name, caller)
        finally:
            chat.close()

    def _note(self, what: str, do: Callable[[], Answer]) -> None:
        try:
            self.answers[what] = do()
        except CallError as error:
            self.answers[what] = error

    def _read(self, chat: Chat, name: str, caller: FakeContext) -> None:
        ask = partial(chat.call, WHO_AM_I, WhoAmIRequest(), caller)
        self._note(f"{name} is who", lambda: msgspec.structs.replace(ask(), sessions=0))
        self._note(f"{name} counts sessions", lambda: ask().sessions)
        self._note(f"{name} lists", lambda: chat.call(WILD_CARD, WildCardRequest(pattern="*"), caller).accounts)
        for other in PEOPLE:
            for oldest in (False, True):
                self._note(f"{name} reads {other} {oldest}", partial(conversation, chat, caller, other, oldest))
        reader = chat.receive(caller)
        self._note(f"{name} receives", lambda: [(item.sequence, item.sender, item.text) for item in reader.take()])
        reader.close()

    def _write(self, chat: Chat, name: str, caller: FakeContext) -> None:
        if name == "ann":
            for number in (0, 4, 19):
                repeat = partial(chat.send, caller, "bob", TEXTS[number], key=b"key %d" % number)
                self._note(f"ann repeats {number}", repeat)
        for other in PEOPLE:
            self._note(f"{name} sends {other}", partial(sent, chat, caller, other))
        self._note(f"{name} pops", lambda: chat.pop(caller))
        self._note(
            f"{name} broadcasts",
            lambda: chat.call(BROADCAST, BroadcastRequest(pattern="*", text="all"), caller).recipients,
        )


def shown(answer: Answer) -> set[str]:
    """The single things in an answer that is a list."""
    return {repr(item) for item in answer}


def untrue(truth: Visit, visit: Visit, *, may_miss: bool) -> list[str]:
    """What somebody was shown that is not so.

    Args:
        truth: what is shown of the whole file.
        visit: what is shown of the damaged one.
        may_miss: whether something may not be found that is there.
    """
    found = []
    failed_writes = failed_log_ins = False
    for what, answer in visit.answers.items():
        right = truth.answers[what]
        writes = any(word in what for word in (" sends ", " repeats ", " pops", " broadcasts"))
        if isinstance(answer, CallError):
            if answer.reason != "STORE_FAILED" and not may_miss:
                found.append(f"{what}: {answer}")
            failed_writes |= writes
            failed_log_ins |= "log in" in what
        elif repr(answer) == repr(right):
            continue
        elif what.endswith(" counts sessions") and failed_log_ins:
            continue  # the sessions are others
        elif isinstance(answer, list) and shown(answer) < shown(right):
            # Up to what is damaged, which fails whoever reads on; of a list of accounts nothing may be missing.
            if not may_miss and "lists" in what:
                found.append(f"{what}: {answer} and not {right}")
        elif not (writes and failed_writes) and not may_miss:
            # A write that failed changes what the next one answers.
            found.append(f"{what}: {answer} and not {right}")
        elif isinstance(answer, list) and "pops" not in what:
            found.append(f"{what}: {answer} and not {right}")
    return found


def flipped(content: bytes, chance: random.Random) -> bytes:
    """The same with one bit changed, where something is: not in what a page leaves empty."""
    found = bytearray(content)
    while True:
        place = chance.randrange(len(found))
        if found[place] or chance.random() < 0.02:
            found[place] ^= 1 << chance.randrange(8)
            return bytes(found)


def checked(path: Path) -> list[str]:
    try:
        return maintenance.check(str(path))
    except ConfigError as error:
        return [str(error)]


def truth_of(filled: Filled, clock: Clock) -> Visit:
    truth = Visit(filled, clock)
    assert not truth.refused
    assert not [answer for answer in truth.answers.values() if isinstance(answer, CallError)]
    assert len(truth.answers) > 40
    return truth


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["checked at the start", "too large for that"])
@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_is_never_shown_as_truth(
    filled: Filled, clock: Clock, seed: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever one bit of the file is changed, the server refuses it in words, or answers truly, or fails with a typed
    error, and whenever it does not answer, check says why. Of a store that is too large to be looked through at the
    start something may not be found, if an index says so; but nothing is shown that is not so."""
    truth = truth_of(filled, clock)
    if not whole:
        monkeypatch.setattr(opening, "CHECKED_BYTES", 0)
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(25):
        damaged = flipped(filled.content, chance)
        place = next(at for at, (old, new) in enumerate(zip(filled.content, damaged, strict=True)) if old != new)
        bit = damaged[place] ^ filled.content[place]
        filled.path.write_bytes(damaged)
        found = checked(filled.path)
        assert filled.path.read_bytes() == damaged
        visit = Visit(filled, clock)
        where = f"byte {place} ^ {bit:#x}: {found}"
        assert untrue(truth, visit, may_miss=not whole) == [], where
        errors = [answer for answer in visit.answers.values() if isinstance(answer, CallError)]
        if visit.refused:
            outcomes["refused"] += 1
            words = ("restore a backup", "give another --store", "db upgrade", "install that")
            assert any(word in visit.refused for word in words), visit.refused
            assert found, (where, visit.refused)
        elif errors:
            outcomes["failed"] += 1
            assert found, (where, errors)
            if any(error.status is Status.DATA_LOSS for error in errors) and whole:
                assert any(" with the key " in sentence for sentence in found), (where, errors)
        else:
            outcomes["served"] += 1
    assert sum(outcomes.values()) == 25
    assert outcomes["served"] < 25, outcomes


COLUMNS: Final = [
    pytest.param(sums, column, id=f"{sums.table}.{column}")
    for sums in SUMMED.values()
    for column in (*sums.columns, CHECKSUM)
]


def changed(value: object) -> object:
    """The same with one bit changed."""
    match value:
        case int():
            return value ^ (1 << 20)
        case bytes():
            return bytes([value[0] ^ 1, *value[1:]]) if value else b"x"
        case str():
            return chr(ord(value[0]) ^ 1) + value[1:] if value else "x"
    return b"something"


@pytest.mark.parametrize(("sums", "column"), COLUMNS)
def test_every_value_is_covered(filled: Filled, clock: Clock, sums: RowSum, column: str) -> None:
    """Whatever is changed in whichever column, check names the row by its table and key, and nobody is shown it."""
    truth = truth_of(filled, clock)
    filled.path.write_bytes(filled.content)
    with closing(sqlite3.connect(filled.path)) as database, database:
        row = database.execute(f"SELECT * FROM {sums.table} ORDER BY 1 DESC LIMIT 1").fetchone()
        named = dict(zip((*sums.columns, CHECKSUM), row, strict=True))
        where = " AND ".join(f"{key} = ?" for key in sums.key)
        database.execute(
            f"UPDATE {sums.table} SET {column} = ? WHERE {where}",
            (changed(named[column]), *(named[key] for key in sums.key)),
        )
        named[column] = changed(named[column])
    expected = sums.name_of([*(named[name] for name in sums.columns), 0])
    found = checked(filled.path)
    assert f"{expected} is not what was stored" in found
    visit = Visit(filled, clock)
    # An UPDATE moves the row in the indexes, too, so it may not be found where it was.
    assert untrue(truth, visit, may_miss=column in (*sums.key, "name", "account_id")) == []
    if sums.table == "notes":
        assert "restore a backup" in visit.refused


def test_others_go_on_beside_a_damaged_row(filled: Filled, clock: Clock) -> None:
    """One message that is not what was stored costs its mailbox a call that fails; all else is answered."""
    truth = truth_of(filled, clock)
    filled.path.write_bytes(filled.content)
    with closing(sqlite3.connect(filled.path)) as database, database:
        database.execute("UPDATE messages SET body = x'68' WHERE mailbox_id = 2 AND seq = 7")
    visit = Visit(filled, clock)
    failed = {what for what, answer in visit.answers.items() if isinstance(answer, CallError)}
    partly = {what for what, answer in visit.answers.items() if repr(answer) != repr(truth.answers[what])} - failed
    assert failed == set()
    assert partly == {
        "ann reads bob False", "ann reads bob True", "bob reads ann False", "bob reads ann True", "bob receives",
        "bob pops",
    }  # fmt: skip


def test_a_missing_message_is_noticed(filled: Filled, clock: Clock) -> None:
    """Sequences are dense, so whoever reads a mailbox is told that one is not there, and can read on behind it."""
    with closing(sqlite3.connect(filled.path)) as database, database:
        database.execute("DELETE FROM messages WHERE mailbox_id = 2 AND seq = 7")
    chat = opened(filled.path, clock)
    bob = FakeContext()
    chat.log_in("bob", bob)
    reader = chat.receive(bob)
    assert [item.sequence for item in reader.take()] == [3, 4, 6]
    for read in (reader.take, lambda: chat.pop(bob) and chat.pop(bob)):
        with pytest.raises(CallError, match="message 7 cannot be read; delete that message, or read on behind it"):
            read()
    reader.close()
    request = DeleteMessageRequest(recipient="bob", sequence=7)
    assert chat.refused(DELETE_MESSAGE, request, bob).status is Status.DATA_LOSS
    behind = chat.receive(bob, after=7)
    assert behind.take()[0].sequence == 8
    behind.acknowledge(8)
    assert chat.pop(bob)[0] == TEXTS[8]
    chat.close()


@pytest.mark.parametrize("column", ["body", "sender_id", "sent_at", "message_id", "bytes_through", "checksum"])
def test_a_damaged_message_can_be_deleted_by_its_recipient(filled: Filled, clock: Clock, column: str) -> None:
    """Its sender is not known, so only the recipient may; then the mailbox reads on, no conversation shows who might
    have sent it, and check finds nothing any more."""
    with closing(sqlite3.connect(filled.path)) as database, database:
        ((old,),) = database.execute(f"SELECT {column} FROM messages WHERE mailbox_id = 2 AND seq = 7")
        database.execute(f"UPDATE messages SET {column} = ? WHERE mailbox_id = 2 AND seq = 7", (changed(old),))
    chat = opened(filled.path, clock)
    ann, bob, cyd = FakeContext(), FakeContext(), FakeContext()
    for name, context in (("ann", ann), ("bob", bob), ("cyd", cyd)):
        chat.log_in(name, context)
    request = DeleteMessageRequest(recipient="bob", sequence=7)
    for other in (ann, cyd):
        assert chat.refused(DELETE_MESSAGE, request, other).status is Status.DATA_LOSS
    before = chat.call(WHO_AM_I, WhoAmIRequest(), bob).undelivered
    chat.call(DELETE_MESSAGE, request, bob)
    assert chat.call(WHO_AM_I, WhoAmIRequest(), bob).undelivered == before - 1
    page = chat.call(LIST_CONVERSATION, ListConversationRequest(username="ann", oldest_first=True), bob).messages
    assert 7 not in [message.sequence for message in page if message.recipient == "bob"]
    assert len(chat.pop(bob)) == before - 1
    assert chat.call(WHO_AM_I, WhoAmIRequest(), bob).undelivered == 0
    chat.close()
    found = checked(filled.path)
    assert found == [] if column != "sender_id" else all("sender" not in sentence for sentence in found)


def test_an_index_that_leads_elsewhere_deletes_nothing_there(filled: Filled, clock: Clock, monkeypatch: Any) -> None:
    """A damaged index is no reason to clear the message that it leads to."""
    monkeypatch.setattr(opening, "CHECKED_BYTES", 0)
    with closing(sqlite3.connect(filled.path)) as database, database:
        # Two messages get each other's places in the table, while SQLite takes the index for one of other columns.
        (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'messages'").fetchone()
        query = "SELECT id FROM messages WHERE mailbox_id = 2 AND seq IN (8, 9) ORDER BY seq"
        (first,), (second,) = database.execute(query).fetchall()
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE (mailbox_id, seq)', 'UNIQUE (id, mailbox_id)') "
            "WHERE name = 'messages'"
        )
    copied = "(seq, message_id, sent_at, bytes_through, body, checksum)"
    with closing(sqlite3.connect(filled.path)) as database, database:
        rows = {
            key: database.execute(f"SELECT {copied[1:-1]} FROM messages WHERE id = ?", (key,)).fetchone()
            for key in (first, second)
        }
        for key, other in ((first, second), (second, first)):
            database.execute(f"UPDATE messages SET {copied} = (?, ?, ?, ?, ?, ?) WHERE id = ?", (*rows[other], key))
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'messages'", (sql,))
    chat = opened(filled.path, clock)
    bob = FakeContext()
    chat.log_in("bob", bob)
    request = DeleteMessageRequest(recipient="bob", sequence=8)
    assert "and not be deleted" in chat.refused(DELETE_MESSAGE, request, bob).message
    chat.close()
    with closing(sqlite3.connect(filled.path)) as database:
        query = "SELECT body FROM messages WHERE id IN (?, ?)"
        assert (None,) not in database.execute(query, (first, second)).fetchall()


def test_housekeeping_deletes_nothing_by_a_wrong_age(filled: Filled, clock: Clock) -> None:
    """A session or a key whose age is not what was stored is not over."""
    with closing(sqlite3.connect(filled.path)) as database, database:
        database.execute("UPDATE sessions SET used_age = -1000000000000000")
        database.execute("UPDATE idempotency_keys SET used_age = -1000000000000000")
        counts = database.execute("SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM idempotency_keys)")
        before = counts.fetchone()
    chat = opened(filled.path, clock)
    while chat.app._store._writer._expire():
        pass
    chat.close()
    with closing(sqlite3.connect(filled.path)) as database:
        counts = database.execute("SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM idempotency_keys)")
        assert counts.fetchone() == before


def test_a_count_of_guesses_that_is_damaged_is_forgotten(filled: Filled, clock: Clock) -> None:
    """It holds nobody up for ever."""
    with closing(sqlite3.connect(filled.path)) as database, database:
        assert database.execute("UPDATE guesses SET failures = 1000, failed_age = failed_age + 100000000000").rowcount
    chat = opened(filled.path, clock)
    chat.log_in("cyd", FakeContext())
    chat.refused(LOG_IN, LogInRequest(username="cyd", password=f"{PASSWORD}?"), FakeContext())
    chat.close()
    assert not [sentence for sentence in checked(filled.path) if " cyd" in sentence]


def test_a_page_of_deleted_messages_is_read_over(store_path: Path, clock: Clock) -> None:
    """However many messages were deleted in a row, those behind them come, by a stream and by a page."""
    chat = Chat(store_path, clock)
    ann, bob = chat.filled(300)
    for sequence in range(1, 300):
        chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=sequence), ann)
    reader = chat.receive(bob)
    assert [item.sequence for item in reader.take(1)] == [300]
    assert reader.take(1) == []
    assert chat.pop(bob, 1) == ["300"]
    assert chat.call(WHO_AM_I, WhoAmIRequest(), bob).undelivered == 0
    chat.close()
    assert maintenance.check(str(store_path)) == []


def test_acknowledging_counts_what_was_deleted(store_path: Path, clock: Clock) -> None:
    """The number of undelivered messages is right on either side of an acknowledgement, and after a restart."""
    chat = Chat(store_path, clock)
    ann, bob = chat.filled(10)
    for sequence in (2, 4, 8):
        chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient="bob", sequence=sequence), ann)
    chat.receive(bob).take()
    assert chat.acknowledge(bob, 4).undelivered == 5
    chat.close()
    chat = Chat(store_path, clock)
    assert chat.log_in("bob", FakeContext()).undelivered == 5
    chat.close()
    assert maintenance.check(str(store_path)) == []


def test_a_schema_that_was_changed_is_refused(filled: Filled, clock: Clock) -> None:
    """One letter of the words that the tables were made with is found, by check and at the start."""
    content = filled.content
    at = content.index(b"CREATE TABLE accounts") + len("CREATE TABLE accounts (\n\tid INTEGER NOT NULL PRIMARY KEY ")
    filled.path.write_bytes(content[:at] + bytes([content[at] ^ 0x20]) + content[at + 1 :])
    with pytest.raises(ConfigError, match="the schema is not the one that the tables were made with"):
        opened(filled.path, clock)
    assert "the schema is not the one that the tables were made with" in checked(filled.path)
