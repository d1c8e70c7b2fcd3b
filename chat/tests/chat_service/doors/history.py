"""What clients of the chat did and saw, and a judge of it. Knows nothing of the chat but its promises.

Each operation says when it began and, if it was answered, when it ended, on one counter that all threads share; nothing
is assumed of two that overlap. One that was never answered may have happened, at any time after it began, or never.
The violations are named after the invariants of the service:

I1 a send that was answered is in the mailbox, where the answer said, and comes to its recipient;
I2 one key, at most one message;
I3 sequences are dense, rise, and respect the order in which sends were answered;
I4 each stream and page continues where it should, in order, without a gap;
I5 what was deleted does not come any more;
I6 the sender is who sent it;
I7 nobody gets what was sent to another;
I8 what waits is what is not acknowledged, and an acknowledgement stays;
I9 what was refused does not happen;
I10 in the end everything has come to everybody.
"""

import enum
import itertools
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "NEVER",
    "Acknowledging",
    "Deleting",
    "History",
    "Kept",
    "Outcome",
    "Seen",
    "Sending",
    "Standing",
    "Streaming",
    "Taking",
]

NEVER = 2**62
"""When an operation ended that was not answered."""


class Outcome(enum.Enum):
    """What the client was told of an operation."""

    DONE = "done"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True, eq=False)
class Operation:
    """Something a client asked for."""

    begun: int
    ended: int = NEVER
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(slots=True, kw_only=True, eq=False)
class Sending(Operation):
    """One attempt to send a text to one or, as a broadcast, to several mailboxes. No two messages have one text."""

    sender: str
    recipients: frozenset[str]
    text: str
    key: bytes
    broadcast: bool = False
    message_id: bytes = b""
    sequence: int = 0
    duplicate: bool = False
    sent_to: int = 0  # a broadcast's answer


@dataclass(slots=True, kw_only=True, eq=False)
class Acknowledging(Operation):
    """An acknowledgement up to a sequence."""

    owner: str
    sequence: int
    acknowledged: int = 0
    undelivered: int = 0


class Seen(NamedTuple):
    """A message as somebody got it."""

    sequence: int
    message_id: bytes
    sender: str
    text: str


@dataclass(slots=True, kw_only=True, eq=False)
class Taking(Operation):
    """A page taken and acknowledged in one step."""

    owner: str
    limit: int
    messages: list[Seen] = field(default_factory=list)
    remaining: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Deleting(Operation):
    """A message deleted, by whoever sent or received it."""

    recipient: str
    sequence: int
    missing: bool = False  # the answer was that there is no such message


@dataclass(slots=True, kw_only=True, eq=False)
class Streaming:
    """One stream of one client: what came, and when."""

    begun: int
    owner: str
    after: int = 0
    came: list[tuple[int, Seen]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class Standing:
    """What the server says of a mailbox while nobody does anything with it."""

    at: int
    owner: str
    acknowledged: int
    last: int
    undelivered: int


class Kept(NamedTuple):
    """A message as the server shows it in the end."""

    sequence: int
    message_id: bytes
    sender: str
    text: str
    deleted: bool


class History:
    """Everything that was done, for ``violations`` to judge. Any thread may append to its lists."""

    def __init__(self) -> None:
        self.sendings: list[Sending] = []
        self.acknowledgings: list[Acknowledging] = []
        self.takings: list[Taking] = []
        self.deletings: list[Deleting] = []
        self.streamings: list[Streaming] = []
        self.standings: list[Standing] = []
        self.kept: dict[str, list[Kept]] = {}
        self._clock = itertools.count(1)

    def now(self) -> int:
        """A number higher than all before it."""
        return next(self._clock)

    def violations(self) -> list[str]:
        """What is wrong with it; each begins with the invariant. Wants ``kept`` of every mailbox, and a standing of
        each from after the last operation."""
        return list(_Judge(self).violations())


class _Highest:
    """The highest value that was set before a time."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self._times: list[int] = []
        self._values: list[int] = []
        highest = 0
        for time, value in sorted(pairs):
            highest = max(highest, value)
            self._times.append(time)
            self._values.append(highest)

    def before(self, time: int) -> int:
        place = bisect_left(self._times, time)
        return self._values[place - 1] if place else 0


class _Mailbox:
    """What is known of one mailbox: how far it may and must have been acknowledged at any time, what was deleted."""

    def __init__(self, history: History, owner: str) -> None:
        self.owner = owner
        self.kept = history.kept.get(owner, [])
        self.takings = [each for each in history.takings if each.owner == owner]
        self.acknowledgings = [each for each in history.acknowledgings if each.owner == owner]
        self.standings = sorted((each for each in history.standings if each.owner == owner), key=lambda each: each.at)
        done = Outcome.DONE
        known = [(each.ended, each.acknowledged) for each in self.acknowledgings if each.outcome is done]
        known += [(each.ended, each.messages[-1].sequence) for each in self.takings if each.messages]
        known += [(each.at, each.acknowledged) for each in self.standings]
        self.surely_acknowledged = _Highest(known)
        self.deletable: dict[int, int] = {}  # sequence -> from when on it may be deleted
        self.deleted: dict[int, int] = {}  # ... and is
        for each in history.deletings:
            if each.recipient == owner and each.outcome is not Outcome.NOT_DONE:
                sequence = each.sequence
                self.deletable[sequence] = min(each.begun, self.deletable.get(sequence, NEVER))
                if each.outcome is done:
                    self.deleted[sequence] = min(each.ended, self.deleted.get(sequence, NEVER))
        self._deletable_order = sorted(self.deletable)
        self._possible = self._possibly_acknowledged()

    def _possibly_acknowledged(self) -> tuple[list[int], list[int]]:
        changes: list[tuple[int, str, int]] = []
        for each in self.acknowledgings:
            if each.outcome is not Outcome.NOT_DONE:
                changes.append((each.begun, "to", each.sequence))
        for taking in self.takings:
            if taking.messages:
                changes.append((taking.begun, "to", taking.messages[-1].sequence))
            elif taking.outcome is Outcome.UNKNOWN:
                changes.append((taking.begun, "by", taking.limit))
        # What was under way when nobody does anything any more has happened by now, or will not.
        changes += [(each.at, "is", each.acknowledged) for each in self.standings]
        times: list[int] = []
        values: list[int] = []
        highest = 0
        for time, how, value in sorted(changes):
            highest = value if how == "is" else self.behind(highest, value) if how == "by" else max(highest, value)
            times.append(time)
            values.append(highest)
        return times, values

    def possibly_acknowledged(self, time: int) -> int:
        times, values = self._possible
        place = bisect_left(times, time)
        return values[place - 1] if place else 0

    def behind(self, sequence: int, count: int) -> int:
        """How far a page of so many messages may reach that begins behind a sequence; it leaves out the deleted."""
        while count:
            sequence += 1
            count -= sequence not in self.deletable
        return sequence

    def deleted_between(self, low: int, high: int, time: int) -> tuple[int, int]:
        """How many of the sequences above ``low``, up to ``high``, are deleted at a time: surely, and at most."""
        order = self._deletable_order
        those = order[bisect_right(order, low) : bisect_right(order, high)]
        surely = sum(self.deleted.get(sequence, NEVER) < time for sequence in those)
        return surely, sum(self.deletable[sequence] < time for sequence in those)


class _Judge:
    def __init__(self, history: History) -> None:
        self.history = history
        owners = set(history.kept) | {name for each in history.sendings for name in each.recipients}
        self.mailboxes = {owner: _Mailbox(history, owner) for owner in sorted(owners)}
        self.attempts: dict[str, list[Sending]] = defaultdict(list)
        for sending in history.sendings:
            self.attempts[sending.text].append(sending)
        self.places: dict[tuple[str, int], tuple[bytes, str]] = {}  # (mailbox, sequence) -> (message id, text)
        self.place_of: dict[tuple[str, str], int] = {}  # (mailbox, text) -> sequence
        self.came: dict[str, set[int]] = defaultdict(set)

    def violations(self) -> Iterator[str]:
        yield from self.answers()
        for streaming in self.history.streamings:
            yield from self.stream(streaming)
        for box in self.mailboxes.values():
            yield from self.pages(box)
            yield from self.kept(box)
            yield from self.order(box)
            yield from self.counts(box)
            yield from self.end(box)
        yield from self.keys()
        yield from self.broadcasts()

    def begun(self, text: str) -> int:
        """From when on a text may be in a mailbox."""
        return min((each.begun for each in self.attempts.get(text, ())), default=0)

    def ended(self, text: str) -> int:
        """... and from when on it must be."""
        done = (each.ended for each in self.attempts.get(text, ()) if each.outcome is Outcome.DONE)
        return min(done, default=NEVER)

    def place(self, owner: str, sequence: int, message_id: bytes, text: str) -> Iterator[str]:
        """Note where a message is; every place has one message and every message one place."""
        known = self.places.setdefault((owner, sequence), (message_id, text))
        if known != (message_id, text):
            yield f"I3 {owner} {sequence} is {known[1]!r} and {text!r}, or has two ids"
        where = self.place_of.setdefault((owner, text), sequence)
        if where != sequence:
            yield f"I2 {text!r} is in the mailbox of {owner} at {where} and at {sequence}"

    def seen(self, owner: str, message: Seen, time: int) -> Iterator[str]:
        """What must be true of a message that somebody got."""
        self.came[owner].add(message.sequence)
        yield from self.place(owner, message.sequence, message.message_id, message.text)
        yield from self.origin(owner, message.sender, message.text, time)

    def origin(self, owner: str, sender: str, text: str, time: int) -> Iterator[str]:
        attempts = self.attempts.get(text)
        if not attempts:
            yield f"I7 {owner} has {text!r}, which nobody sent"
            return
        if owner not in attempts[0].recipients:
            yield f"I7 {owner} has {text!r}, which was sent to {', '.join(sorted(attempts[0].recipients))}"
        if sender != attempts[0].sender:
            yield f"I6 {text!r} was sent by {attempts[0].sender} and says {sender}"
        if all(each.outcome is Outcome.NOT_DONE for each in attempts):
            yield f"I9 {owner} has {text!r}, which was refused"
        if self.begun(text) > time:
            yield f"I7 {owner} has {text!r} before it was sent"

    def answers(self) -> Iterator[str]:
        for each in self.history.sendings:
            if each.outcome is Outcome.DONE and not each.broadcast:
                (owner,) = each.recipients
                yield from self.place(owner, each.sequence, each.message_id, each.text)

    def keys(self) -> Iterator[str]:
        present = {text for _, text in self.place_of}
        groups: dict[tuple[str, bytes], list[Sending]] = defaultdict(list)
        for each in self.history.sendings:
            if each.key:
                groups[each.sender, each.key].append(each)
        for (sender, key), attempts in groups.items():
            what = f"I2 {sender}'s key {key.hex()}"
            done = [each for each in attempts if each.outcome is Outcome.DONE]
            texts = {each.text for each in attempts if each.text in present or each.outcome is Outcome.DONE}
            if len(texts) > 1:
                yield f"{what} was taken for {' and '.join(map(repr, sorted(texts)))}"
            if not done:
                continue
            if len({(each.message_id, each.sequence, each.sent_to) for each in done}) > 1:
                yield f"{what} had different answers"
            if sum(not each.duplicate for each in done) > 1:
                yield f"{what} sent {done[0].text!r} more than once"
            first = min(each.ended for each in done)
            if any(each.begun > first and not each.duplicate for each in done):
                yield f"{what} was repeated, and the answer does not say so"

    def run(self, box: _Mailbox, begun: int, looked: int, after: int, came: list[tuple[int, Seen]]) -> Iterator[str]:
        """Messages that came one after the other, behind ``after`` and what was acknowledged when the server looked,
        which was between ``begun`` and ``looked``."""
        last = max(after, box.surely_acknowledged.before(begun))
        first = max(last, box.possibly_acknowledged(looked)) + 1  # or one before it
        for place, (time, message) in enumerate(came):
            sequence = message.sequence
            if sequence <= last:
                why = "again after a later one" if place else "although it was acknowledged"
                yield f"{'I4' if place else 'I8'} {box.owner} got {sequence} {why}"
            if box.deleted.get(sequence, NEVER) < begun:
                yield f"I5 {box.owner} got {sequence}, which had been deleted"
            for skipped in range(last + 1 if place else first, sequence):
                if box.deletable.get(skipped, NEVER) > time:
                    yield f"I4 {box.owner} got {sequence} and not {skipped} before it"
            yield from self.seen(box.owner, message, time)
            last = max(last, sequence)

    def stream(self, stream: Streaming) -> Iterator[str]:
        if stream.came:
            box = self.mailboxes[stream.owner]
            yield from self.run(box, stream.begun, stream.came[0][0], stream.after, stream.came)

    def pages(self, box: _Mailbox) -> Iterator[str]:
        times: Counter[int] = Counter()
        for each in box.takings:
            if each.outcome is Outcome.DONE:
                came = [(each.ended, message) for message in each.messages]
                yield from self.run(box, each.begun, each.begun, 0, came)
                times.update(message.sequence for message in each.messages)
        for sequence, count in times.items():
            if count > 1:
                yield f"I4 {box.owner} took {sequence} from the mailbox {count} times"

    def kept(self, box: _Mailbox) -> Iterator[str]:
        """The mailbox as it is in the end."""
        numbers = [message.sequence for message in box.kept]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"I3 the sequences of {box.owner} are not 1 to {len(numbers)}"
        for message in box.kept:
            sequence = message.sequence
            if message.deleted:
                if sequence not in box.deletable:
                    yield f"I9 {box.owner} {sequence} is deleted, and nobody deleted it"
            else:
                if sequence in box.deleted:
                    yield f"I5 {box.owner} {sequence} was deleted and is there"
                yield from self.place(box.owner, sequence, message.message_id, message.text)
                yield from self.origin(box.owner, message.sender, message.text, NEVER)
        for deleting in self.history.deletings:
            if deleting.recipient == box.owner and deleting.missing and (box.owner, deleting.sequence) in self.places:
                yield f"I1 {box.owner} {deleting.sequence} cannot be deleted, as if it were not there"
        found = {message.sequence: message.message_id for message in box.kept}
        for (owner, sequence), (message_id, text) in self.places.items():
            if owner == box.owner and found.get(sequence) != message_id:
                yield f"I1 {owner} {sequence}, {text!r}, is lost"

    def order(self, box: _Mailbox) -> Iterator[str]:
        """Of two sends, one of which was answered before the other was begun, that one comes first."""
        there = [(sequence, text) for (owner, text), sequence in self.place_of.items() if owner == box.owner]
        ended = _Highest((self.ended(text), sequence) for sequence, text in there)
        for sequence, text in there:
            if (earlier := ended.before(self.begun(text))) > sequence:
                yield f"I3 {box.owner} {sequence}, {text!r}, comes before {earlier}, which was answered first"

    def counts(self, box: _Mailbox) -> Iterator[str]:
        """What the server says of the mailbox is within what it can be."""
        there = [(sequence, text) for (owner, sequence), (_, text) in self.places.items() if owner == box.owner]
        most = _Highest((self.begun(text), sequence) for sequence, text in there)
        least = _Highest((self.ended(text), sequence) for sequence, text in there)

        def check(what: str, begun: int, ended: int, acknowledged: int, undelivered: int) -> Iterator[str]:
            low, high = box.surely_acknowledged.before(begun), box.possibly_acknowledged(ended)
            if not low <= acknowledged <= high:
                yield f"I8 {what}: {box.owner} is at {acknowledged}, which was acknowledged from {low} to {high}"
            surely, _ = box.deleted_between(acknowledged, NEVER, begun)
            fewest = least.before(begun) - acknowledged
            _, perhaps = box.deleted_between(acknowledged, NEVER, ended)
            if not max(0, fewest - perhaps) <= undelivered <= max(0, most.before(ended) - acknowledged) - surely:
                yield f"I8 {what}: {undelivered} wait for {box.owner} behind {acknowledged}"

        for each in box.acknowledgings:
            if each.outcome is Outcome.DONE:
                yield from check("Acknowledge", each.begun, each.ended, each.acknowledged, each.undelivered)
        for taking in box.takings:
            if taking.outcome is Outcome.DONE and taking.messages:
                at = taking.messages[-1].sequence
                yield from check("PopUndelivered", taking.begun, taking.ended, at, taking.remaining)
        for standing in box.standings:
            # The bounds of just before it, which this standing itself has no part in.
            at = standing.at
            yield from check("WhoAmI", at, at, standing.acknowledged, standing.undelivered)
            if not least.before(at) <= standing.last <= most.before(at):
                yield f"I3 WhoAmI: the newest message of {box.owner} is {standing.last}"
            surely, perhaps = box.deleted_between(standing.acknowledged, standing.last, at)
            waiting = standing.last - standing.acknowledged
            if not waiting - perhaps <= standing.undelivered <= waiting - surely:
                yield f"I8 WhoAmI: {standing.undelivered} of {waiting} wait for {box.owner}"

    def end(self, box: _Mailbox) -> Iterator[str]:
        """Everything was acknowledged in the end, and so has come to somebody."""
        if not box.standings:
            yield f"I10 nobody looked at {box.owner} in the end"
            return
        last = box.standings[-1]
        if last.undelivered or last.last != len(box.kept):
            yield f"I10 {last.undelivered} still wait for {box.owner}, whose newest is {last.last} of {len(box.kept)}"
        # The answer to such a page was lost, and its messages with it.
        lost = [
            (box.surely_acknowledged.before(each.begun), box.behind(box.possibly_acknowledged(each.begun), each.limit))
            for each in box.takings
            if each.outcome is Outcome.UNKNOWN
        ]
        for message in box.kept:
            sequence = message.sequence
            if sequence in self.came[box.owner] or message.deleted or any(low < sequence <= high for low, high in lost):
                continue
            yield f"I10 {box.owner} {sequence}, {message.text!r}, never came"

    def broadcasts(self) -> Iterator[str]:
        """A broadcast came to all it counted, or to nobody."""
        found: Counter[str] = Counter(text for _, text in self.place_of)
        for text, attempts in self.attempts.items():
            if attempts[0].broadcast:
                done = [each for each in attempts if each.outcome is Outcome.DONE]
                wanted = {done[0].sent_to} if done else {0, len(attempts[0].recipients)}
                if found[text] not in wanted:
                    yield f"I1 the broadcast {text!r} is in {found[text]} mailboxes, not in {wanted}"
