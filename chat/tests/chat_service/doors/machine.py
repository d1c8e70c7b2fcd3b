"""The real server against the model: whatever people do at its doors, in any order, the answers are the model's.

After each step the ten invariants of the service are what they should be:

I1 what was answered is there (``i1_i3_i5_what_was_answered_is_there``, over every restart)
I2 one key, one message (``send`` and ``broadcast``: a repetition answers the first answer and says so)
I3 sequences are dense (``i1_i3_i5_what_was_answered_is_there``, and every answer to a send)
I4 a stream gives what it should, in order, without a gap (``take``)
I5 nothing comes after it was deleted (``take``, ``pop``, ``i1_i3_i5_what_was_answered_is_there``)
I6 the sender is who signed in (``i6_i7_it_is_this_message``)
I7 nobody gets what another one was sent (``i6_i7_it_is_this_message``)
I8 what waits is what is not acknowledged, after each step (``i8_what_waits_is_what_is_not_acknowledged``)
I9 what was refused does not happen (the model does not do it, so any trace of it is a difference)
I10 in the end everything has come to everybody (``teardown``)
"""

import itertools
import shutil
import sys
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chat_service.doors.model import PASSWORD, Account, Message, Model, Refused, Session
from chat_service.doors.people import PATIENCE, Door, House, Inbox, Person, eventually
from chat_service.fakes import WAIT, Clock
from wireproto import CallError
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob

__all__ = ["WINDOW", "Crashing", "People"]

WINDOW = 4
"""What the server is told its window is, so that short runs fill it."""

KEYS = (b"", b"", b"one", b"two")
NAMES = ("a", "b", "c")

_numbers = itertools.count(1)


class Crashing:
    """A house with a clock of its own, which may crash: another server finds the files as they were at that moment."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self._folder = folder
        self._lives = itertools.count(1)
        self.house = House(self._path(), clock=self.clock)

    def _path(self) -> Path:
        return self._folder / f"life{next(self._lives)}.db"

    def crash(self) -> None:
        """Go on with what is in the files, without a word to the server that wrote them."""
        old, path = self.house, self._path()
        still = _Still()
        old.app._store.submit(still)
        assert still.entered.wait(WAIT)
        # The log first: pages that a checkpoint has copied from it into the database are no harm when it is read again.
        for ending in ("-wal", ""):
            shutil.copyfile(f"{old.path}{ending}", f"{path}{ending}")
        still.leave.set()
        old.stop()
        self.house = House(path, clock=self.clock)
        for ending in ("", ".lock"):
            Path(f"{old.path}{ending}").unlink()

    def close(self) -> None:
        self.house.stop()


class _Still(WriteJob[None]):
    """Holds the writer between two transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.leave = threading.Event()

    def apply(self, tx: Transaction) -> None:
        self.entered.set()
        assert self.leave.wait(WAIT)


class Visit:
    """A session of the model, and the connection of whoever has it now."""

    def __init__(self, session: Session, person: Person) -> None:
        self.session = session
        self.person = person

    @property
    def account(self) -> Account:
        return self.session.account


class Reader:
    """An open stream, and what must and may come by it."""

    def __init__(self, visit: Visit, inbox: Inbox, after: int, credit: int) -> None:
        self.visit = visit
        self.inbox = inbox
        self.came: list[int] = []
        self._mailbox = visit.account.mailbox
        self._last = max(after, visit.account.acknowledged)  # it begins behind this, or what is acknowledged until then
        self._ahead = credit if visit.person.door != "grpc" else WINDOW
        self._gone = {message.sequence for message in self._mailbox if message.deleted}
        self._on_their_way: set[int] = set()  # deleted when the server may have sent them already

    def deleted(self, message: Message) -> None:
        left = [each for each in self._mailbox[self._last :] if each.sequence not in self._gone]
        if message in left[: self._ahead]:
            self._on_their_way.add(message.sequence)
        self._gone.add(message.sequence)

    def due(self) -> tuple[set[int], int]:
        """The sequences that may come now, and the one that must, behind them; 0 when none must."""
        acknowledged = self.visit.account.acknowledged
        held = sum(sequence > acknowledged for sequence in self.came)
        may: set[int] = set()
        for message in self._mailbox[self._last :]:
            sequence = message.sequence
            if sequence in self._gone:
                if sequence in self._on_their_way:
                    may.add(sequence)
                    held += sequence > acknowledged
            elif not self.came and sequence <= acknowledged:
                may.add(sequence)
            elif held >= WINDOW:
                return may | {sequence}, 0
            else:
                return may, sequence
        return may, 0

    def note(self, sequence: int) -> None:
        self.came.append(sequence)
        self._last = sequence


def all_pages(person: Person, other: str, *, limit: int, oldest_first: bool) -> list[Any]:
    """A conversation, read page by page from one end or the other; its oldest message first in any case."""
    found: list[Any] = []
    more = True
    while more:
        where = {"after" if oldest_first else "before": found[-1].position if found else 0}
        page = person.conversation(other, limit=limit, oldest_first=oldest_first, **where)
        found += page.messages
        more = page.more
    return found if oldest_first else found[::-1]


class People(RuleBasedStateMachine):
    """A few people who come in by some doors, and do all that can be done."""

    crashing: ClassVar[Crashing]
    doors: ClassVar[tuple[Door, ...]]
    patience: ClassVar[float] = PATIENCE
    """Seconds for a message that must come."""
    steps: ClassVar[int] = 0
    """Steps taken, by all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.people: list[Person] = []  # to be sent home in the end, wherever a run breaks off
        self.visits: list[Visit] = []
        self.readers: list[Reader] = []
        self.watchers: dict[str, Visit] = {}
        self.prefix = f"x{next(_numbers)}."
        self.texts = itertools.count(1)
        self.ids: dict[bytes, Message] = {}
        self.given: dict[str, int] = {}  # what may be acknowledged, by name: given out, or older than the server
        self.streamed: set[str] = set()  # who has had a stream in this life of the server

    # ------------------------------------------------------------------ helpers

    def some(self, data: st.DataObject) -> Visit:
        """Anybody who has a session."""
        return data.draw(st.sampled_from(self.visits))

    def a_name(self, data: st.DataObject) -> str:
        """Of an account, mostly; else of one that was deleted, or never was."""
        live = [account.name for account in self.model.live()]
        return data.draw(st.sampled_from([*live, *live, *(self.prefix + name for name in (*NAMES, "nobody"))]))

    def both(self, real: Callable[[], Any], model: Callable[[], Any]) -> tuple[Any, Any] | None:
        """The real answer and the model's; None if both refuse, for the same reason."""
        reason = ""
        expected = None
        try:
            expected = model()
        except Refused as refused:
            reason = refused.reason
        if not reason:
            return real(), expected
        assert self.refusal(real) == reason
        return None

    def refusal(self, real: Callable[[], object]) -> str:
        try:
            answer = real()
        except CallError as error:
            return error.reason
        return f"answered {answer!r}"

    def enter(self, data: st.DataObject | None, name: str) -> Person:
        return self.meet(self.doors[-1] if data is None else data.draw(st.sampled_from(self.doors)), name)

    def meet(self, door: Door, name: str) -> Person:
        person = self.crashing.house.addresses.person(door, name)
        self.people.append(person)
        return person

    def pass_time(self, seconds: float) -> None:
        self.crashing.clock.move(seconds=seconds)
        self.model.pass_time(seconds)

    def watcher(self, account: Account) -> Person:
        """Somebody signed in as this account who only looks."""
        found = self.watchers.get(account.name)
        if found is None or found.session.ended:
            if found is not None:
                found.person.close()
            if account.failures >= 5:
                self.pass_time(900)
            person = self.meet("msgpack", account.name)
            person.log_in(account.password)
            found = self.watchers[account.name] = Visit(self.model.log_in(account.name, account.password), person)
        return found.person

    def i6_i7_it_is_this_message(self, got: Any, message: Message) -> None:
        """Text, sender, place and id are those of the message in this mailbox, and no other's."""
        assert got.sequence == message.sequence, "I4"
        assert got.sender == message.sender.name, "I6"
        assert got.text == message.text, "I7"
        self.learn(got.message_id, message)

    def learn(self, message_id: bytes, message: Message) -> None:
        message.message_id = message.message_id or message_id
        assert message.message_id == message_id, "I2"
        assert self.ids.setdefault(message_id, message) is message, "I2"

    # ------------------------------------------------------------------ accounts and sessions

    @initialize(data=st.data())
    def two_people(self, data: st.DataObject) -> None:
        for name in NAMES[:2]:
            self.create(data, name)
            self.log_in(data, name, "right")
            self.open(data, WINDOW)

    def retire(self) -> None:
        """Those whose session has just ended are nobody: their calls are refused, and their streams end."""
        for visit in [visit for visit in self.visits if visit.session.ended]:
            assert self.refusal(visit.person.pop) == "SIGN_IN_REQUIRED"
            for reader in [reader for reader in self.readers if reader.visit is visit]:
                self.take_the_end(reader)
            visit.person.close()
            self.visits.remove(visit)

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def create(self, data: st.DataObject, name: str) -> None:
        with self.enter(data, self.prefix + name) as person:
            self.both(lambda: person.create(PASSWORD), lambda: self.model.create(person.name))

    @precondition(lambda self: len(self.visits) < 6)
    @rule(data=st.data(), name=st.sampled_from(NAMES), password=st.sampled_from(("right", "right", "wrong")))
    def log_in(self, data: st.DataObject, name: str, password: str) -> None:
        account = self.model.accounts.get(self.prefix + name)
        if account is None:
            return
        text = account.password if password == "right" else "not that one"
        person = self.enter(data, account.name)
        pair = self.both(lambda: person.log_in(text), lambda: self.model.log_in(account.name, text))
        if pair is None:
            person.close()
            return
        answer, session = pair
        assert answer.undelivered == len(account.waiting()), "I8"
        self.visits.append(Visit(session, person))

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def log_out(self, data: st.DataObject) -> None:
        visit = self.some(data)
        self.both(visit.person.log_out, lambda: self.model.log_out(visit.session))
        self.retire()

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        """The connection is gone without a word; its owner comes in again, perhaps by another door, with the token."""
        self.come_again(self.some(data), data)

    def come_again(self, visit: Visit, data: st.DataObject | None) -> None:
        visit.person.close()
        self.readers = [reader for reader in self.readers if reader.visit is not visit]
        token, person = visit.person.token, self.enter(data, visit.account.name)
        visit.person = person
        self.both(lambda: person.log_in(token=token), lambda: self.model.resume(visit.session))
        assert person.token == token

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), right=st.booleans(), new=st.sampled_from(("second password", "third password")))
    def change_password(self, data: st.DataObject, right: bool, new: str) -> None:
        visit = self.some(data)
        old = visit.account.password if right else "not that one"
        pair = self.both(
            lambda: visit.person.change_password(old, new), lambda: self.model.change_password(visit.session, old, new)
        )
        if pair is not None:
            assert pair[0] == pair[1]
            self.retire()

    @precondition(lambda self: len(self.model.live()) > 1 and self.visits)
    @rule(data=st.data(), force=st.booleans())
    def delete_account(self, data: st.DataObject, force: bool) -> None:
        visit = self.some(data)
        pair = self.both(
            lambda: visit.person.delete_account(force=force),
            lambda: self.model.delete_account(visit.session, force=force),
        )
        if pair is not None:
            assert pair[0] == pair[1], "I8"
            self.watchers.pop(visit.account.name).person.close()
            self.retire()

    @rule(seconds=st.sampled_from((1, 60, 900)))
    def wait(self, seconds: int) -> None:
        self.pass_time(seconds)

    @rule(really=st.sampled_from((False, False, True)))
    def crash(self, really: bool) -> None:
        """Every connection is gone; another server goes on with the files. All come again, with their tokens."""
        if not really:
            return
        self.readers.clear()
        for visit in (*self.visits, *self.watchers.values()):
            visit.person.close()
        self.crashing.crash()
        self.given = {account.name: account.head for account in self.model.live()}
        self.streamed.clear()
        for visit in list(self.visits):
            self.come_again(visit, None)
        for name, visit in self.watchers.items():
            token = visit.person.token
            visit.person = self.meet("msgpack", name)
            if not visit.session.ended:
                visit.person.log_in(token=token)

    # ------------------------------------------------------------------ messages

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def send(self, data: st.DataObject, key: bytes) -> None:
        self.send_one(self.some(data), self.a_name(data), f"text {next(self.texts)}", key)

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), count=st.integers(2, WINDOW + 2))
    def send_some(self, data: st.DataObject, count: int) -> None:
        """Several to one mailbox, which fills windows."""
        visit, to = self.some(data), data.draw(st.sampled_from(self.model.live())).name
        for _ in range(count):
            self.send_one(visit, to, f"text {next(self.texts)}", b"")

    def send_one(self, visit: Visit, to: str, text: str, key: bytes) -> None:
        pair = self.both(
            lambda: visit.person.send(to, text, key), lambda: self.model.send(visit.session, to, text, key)
        )
        if pair is not None:
            answer, (message, duplicate) = pair
            assert answer.sequence == message.sequence, "I3"
            assert answer.duplicate == duplicate, "I2"
            self.learn(answer.message_id, message)

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), key=st.sampled_from(KEYS), pattern=st.sampled_from(("*", "?", "a*", "b")))
    def broadcast(self, data: st.DataObject, key: bytes, pattern: str) -> None:
        self.broadcast_one(self.some(data), self.prefix + pattern, f"text {next(self.texts)}", key)

    @precondition(lambda self: any(visit.account.keys for visit in self.visits))
    @rule(data=st.data(), same=st.booleans())
    def use_a_key_again(self, data: st.DataObject, same: bool) -> None:
        """For what it was used for, which happens once, or for another text, which is refused."""
        visit = data.draw(st.sampled_from([visit for visit in self.visits if visit.account.keys]))
        key = data.draw(st.sampled_from(sorted(visit.account.keys)))
        kind, to, text = visit.account.keys[key].content
        again = self.send_one if kind == "send" else self.broadcast_one
        again(visit, to, text if same else f"text {next(self.texts)}", key)

    def broadcast_one(self, visit: Visit, to: str, text: str, key: bytes) -> None:
        pair = self.both(
            lambda: visit.person.broadcast(to, text, key), lambda: self.model.broadcast(visit.session, to, text, key)
        )
        if pair is not None:
            answer, (count, duplicate) = pair
            assert (answer.recipients, answer.full) == (count, 0)
            assert answer.duplicate == duplicate, "I2"

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def pop(self, data: st.DataObject, limit: int) -> None:
        visit = self.some(data)
        pair = self.both(lambda: visit.person.pop(limit), lambda: self.model.pop(visit.session, limit))
        if pair is not None:
            answer, (page, remaining) = pair
            assert [got.sequence for got in answer.messages] == [message.sequence for message in page], "I4 or I5"
            for got, message in zip(answer.messages, page, strict=True):
                self.i6_i7_it_is_this_message(got, message)
            assert answer.remaining == remaining, "I8"

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        visit = self.some(data)
        account = visit.account
        sequence = data.draw(st.integers(0, account.head + 1))
        given = self.given.get(account.name, 0)
        if account.name in self.streamed and max(given, account.acknowledged) < sequence <= account.head:
            return  # whether a stream has given it out already is not to be known from here
        self.acknowledge_one(visit, sequence, given)

    @precondition(lambda self: any(reader.came for reader in self.readers))
    @rule(data=st.data())
    def acknowledge_what_came(self, data: st.DataObject) -> None:
        """Any message that a stream has brought; not always the last one, so that acknowledgements come late, too."""
        reader = data.draw(st.sampled_from([reader for reader in self.readers if reader.came]))
        sequence = data.draw(st.sampled_from(reader.came))
        self.acknowledge_one(reader.visit, sequence, self.given[reader.visit.account.name])

    def acknowledge_one(self, visit: Visit, sequence: int, given: int) -> None:
        pair = self.both(
            lambda: visit.person.acknowledge(sequence), lambda: self.model.acknowledge(visit.session, sequence, given)
        )
        if pair is not None:
            assert (pair[0].acknowledged, pair[0].undelivered) == pair[1], "I8"

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def delete_message(self, data: st.DataObject) -> None:
        visit, recipient = self.some(data), self.a_name(data)
        box = self.model.accounts[recipient].mailbox if recipient in self.model.accounts else []
        sequence = data.draw(st.integers(0, len(box) + 1))
        pair = self.both(
            lambda: visit.person.delete_message(recipient, sequence),
            lambda: self.model.delete_message(visit.session, recipient, sequence),
        )
        if pair is not None:
            for reader in self.readers:
                if reader.visit.account is pair[1].recipient:
                    reader.deleted(pair[1])

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), limit=st.integers(1, 5), oldest_first=st.booleans())
    def read_a_conversation(self, data: st.DataObject, limit: int, oldest_first: bool) -> None:
        visit, other = self.some(data), self.a_name(data)

        pair = self.both(
            lambda: all_pages(visit.person, other, limit=limit, oldest_first=oldest_first),
            lambda: self.model.conversation(visit.session, other),
        )
        if pair is not None:
            self.same_conversation(*pair)

    def same_conversation(self, found: list[Any], messages: list[Message]) -> None:
        shown = [(got.sender, got.recipient, got.sequence, got.text, got.deleted) for got in found]
        assert shown == [
            (each.sender.name, each.recipient.name, each.sequence, "" if each.deleted else each.text, each.deleted)
            for each in messages
        ]
        assert sorted({got.position for got in found}) == [got.position for got in found]
        for got, message in zip(found, messages, strict=True):
            self.learn(got.message_id, message)

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), pattern=st.sampled_from(("*", "?", "a", "*c")))
    def list_accounts(self, data: st.DataObject, pattern: str) -> None:
        visit = self.some(data)
        online = {reader.visit.account.name for reader in self.readers}

        def listed() -> list[tuple[str, bool]]:
            return [(each.username, each.online) for each in visit.person.list(self.prefix + pattern).accounts]

        def expected() -> list[tuple[str, bool]]:
            names = sorted(account.name for account in self.model.live())
            return [(name, name in online) for name in names if fnmatchcase(name, self.prefix + pattern)]

        pair = self.both(listed, expected)
        if pair is not None and pair[0] != pair[1]:
            eventually(listed, pair[1])  # who is online is known some time later

    # ------------------------------------------------------------------ streams

    @precondition(lambda self: self.visits and len(self.readers) < 4)
    @rule(data=st.data(), credit=st.sampled_from((1, 2, WINDOW)))
    def open(self, data: st.DataObject, credit: int) -> None:
        visit = self.some(data)
        account = visit.account
        after = data.draw(st.just(0) | st.integers(0, account.head + 1))
        inbox = visit.person.receive(after=after, credit=credit, by_itself=False)
        self.streamed.add(account.name)
        if after > account.head:
            assert self.refusal(lambda: inbox.next(self.patience)) == "BAD_AFTER"
            inbox.close()
            return
        self.readers.append(Reader(visit, inbox, after, credit))
        self.given[account.name] = max(self.given.get(account.name, 0), after)
        # Now it is registered, so that what comes later wakes it, and a log-out ends it.
        person = self.watcher(account)
        eventually(lambda: [each.online for each in person.list(account.name).accounts], [True])

    @precondition(lambda self: any(reader.due()[1] for reader in self.readers))
    @rule(data=st.data(), count=st.integers(1, WINDOW))
    def take(self, data: st.DataObject, count: int) -> None:
        reader = data.draw(st.sampled_from([reader for reader in self.readers if reader.due()[1]]))
        for _ in range(count):
            if not reader.due()[1]:
                break
            self.take_one(reader, self.patience)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def write_and_see(self, data: st.DataObject) -> None:
        """Live: what is sent to somebody who has read everything comes at once."""
        reader = data.draw(st.sampled_from(self.readers))
        while reader.due()[1]:
            self.take_one(reader, self.patience)
        self.send_one(reader.visit, reader.visit.account.name, f"text {next(self.texts)}", b"")
        if reader.due()[1]:
            self.take_one(reader, self.patience)

    @precondition(lambda self: any(not reader.due()[1] for reader in self.readers))
    @rule(data=st.data())
    def take_nothing(self, data: st.DataObject) -> None:
        """What nobody sent, or was deleted, or is held back by the window, does not come."""
        reader = data.draw(st.sampled_from([reader for reader in self.readers if not reader.due()[1]]))
        try:
            self.take_one(reader, 0.01)
        except TimeoutError:
            return

    def take_one(self, reader: Reader, patience: float) -> None:
        """One message that may come now."""
        account = reader.visit.account
        may, must = reader.due()
        got = reader.inbox.next(patience)
        assert got.sequence in may | {must}, f"I4 or I5: {got.sequence} came, not {must} or {may}"
        self.i6_i7_it_is_this_message(got, account.mailbox[got.sequence - 1])
        reader.note(got.sequence)
        self.given[account.name] = max(self.given.get(account.name, 0), got.sequence)

    def take_the_end(self, reader: Reader) -> None:
        """What was on its way may still come, and then the stream ends."""
        self.readers.remove(reader)

        def drain() -> None:
            while True:
                got = reader.inbox.next(self.patience)
                self.i6_i7_it_is_this_message(got, reader.visit.account.mailbox[got.sequence - 1])

        assert self.refusal(drain) == "SIGNED_OUT"

    @precondition(lambda self: len(self.readers) > 2)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        self.readers.remove(reader)
        reader.inbox.close()

    # ------------------------------------------------------------------ what is always so

    @invariant()
    def i8_what_waits_is_what_is_not_acknowledged(self) -> None:
        """Each mailbox stands as the model's does."""
        type(self).steps += 1
        for account in self.model.live():
            found = self.watcher(account).who_am_i()
            stands = (found.acknowledged, found.last_sequence, found.undelivered, found.sessions)
            assert stands == (account.acknowledged, account.head, len(account.waiting()), len(account.sessions))

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                for account in self.model.live():
                    self.i1_i3_i5_what_was_answered_is_there(account)
                    self.i10_everything_comes(account)
        finally:
            for person in self.people:
                person.close()

    def i1_i3_i5_what_was_answered_is_there(self, account: Account) -> None:
        """All conversations are as the model has them, with nothing else in them."""
        for other in self.model.live():
            session = self.watchers[account.name].session
            found = all_pages(self.watcher(account), other.name, limit=100, oldest_first=True)
            self.same_conversation(found, self.model.conversation(session, other.name))

    def i10_everything_comes(self, account: Account) -> None:
        """A new stream has all that waits, and when it was acknowledged nothing does."""
        watcher = self.watcher(account)
        with self.enter(None, account.name) as person:
            person.log_in(token=watcher.token)
            waiting = account.waiting()
            with person.receive(credit=WINDOW, by_itself=True) as inbox:
                for message in waiting:
                    self.i6_i7_it_is_this_message(inbox.next(self.patience), message)
                if waiting:
                    inbox.acknowledge()
            assert watcher.who_am_i().undelivered == 0
