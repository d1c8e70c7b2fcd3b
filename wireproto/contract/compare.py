"""What became of a contract: two opcode tables, walked side by side in every version that both have."""

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from wireproto.contract.changes import OLD_CLIENTS, OLD_SERVERS, Change
from wireproto.contract.values import Effect, reads, reads_absent, reads_unknown
from wireproto.schema import (
    MISSING,
    Bounds,
    By,
    Field,
    Message,
    Operation,
    Scalar,
    Service,
    Shape,
    StreamMethod,
    fields,
)

__all__ = ["CODECS", "compare"]

CODECS: Final = ("pipe", "msgpack", "protobuf")

AnyMethod = Operation[Any, Any]
AnyStream = StreamMethod[Any, Any]


def compare(old: Service, new: Service, codecs: Sequence[str] = CODECS) -> list[Change]:
    """Every difference that a peer, a tool or a program may notice, the worst first.

    What breaks is judged by values: those that the old table allowed must be read as what they are by the new one, and
    values that both have the other way round. An answer must not surprise an old client at all. Of a codec that is none
    of the built-in three it is assumed that it takes a change for a break wherever one of its type is possible.

    Args:
        old: the table as it was, in all its versions.
        new: the table as it is.
        codecs: the names of those that count.
    """
    comparison = _Comparison(old, new, codecs)
    comparison.run()
    ranks = {"wire": 0, "text": 1, "source": 2, None: 3}
    return sorted(comparison.changes.values(), key=lambda change: ranks[change.level])


@dataclass(frozen=True)
class _Meeting:
    """Where a message is met: in one version, under an opcode, on its way to the side that answers or back.

    Attributes:
        by: the side that calls.
    """

    version: int
    opcode: int
    request: bool
    by: By

    @property
    def writers(self) -> str:
        """Who is old where an old peer wrote it."""
        return OLD_CLIENTS if self.request == (self.by == "client") else OLD_SERVERS

    @property
    def readers(self) -> str:
        """Who is old where an old peer reads it."""
        return OLD_SERVERS if self.writers == OLD_CLIENTS else OLD_CLIENTS


class _Comparison:
    def __init__(self, old: Service, new: Service, codecs: Sequence[str]) -> None:
        self.old, self.new = old, new
        self.codecs = tuple(codecs)
        self.changes: dict[tuple[str, str], Change] = {}
        self._walked: set[tuple[type[Message], type[Message], _Meeting]] = set()

    def run(self) -> None:
        old, new = self.old, self.new
        if old.full_name != new.full_name:
            self.broken(self.change(old.full_name, f"renamed {new.full_name}", text=True), grpc=True)
        for version in self.common():
            self.version(version)
        for version in old.versions:
            if version not in new.versions:
                elsewhere = "a newer" if version < new.oldest else "an older"
                note = f"a peer of it is served in {elsewhere} version, or refused where it speaks no other one"
                gone = self.change(old.full_name, f"version {version} is gone", note=note)
                self.broken(gone, version, {OLD_CLIENTS, OLD_SERVERS}, opcodes=old.at(version))
        for version in new.versions:
            if version not in old.versions:
                self.change(new.full_name, f"version {version} is new")
        for method in new.methods:
            if all(method.name != each.name for each in old.methods) and method.opcode not in old.by_opcode:
                note = "old servers of that version refuse it, UNKNOWN_OPCODE" if method.since <= old.version else ""
                self.change(method.name, f"added at version {method.since}", note=note)
        by_name = {method.name: method for method in new.methods}
        for method in old.methods:
            other = by_name.get(method.name) or new.by_opcode.get(method.opcode)
            if other is not None and not self.moved(method, other):
                self.policy(method, other)
        self.grpc()

    def common(self) -> range:
        """The versions that both have."""
        return range(max(self.old.oldest, self.new.oldest), min(self.old.version, self.new.version) + 1)

    def version(self, version: int) -> None:
        was, now = self.old.at(version), self.new.at(version)
        for opcode, method in was.items():
            other = now.get(opcode)
            if other is None or self.moved(method, other):
                self.gone(method, version)
                continue
            if method.name != other.name:
                self.change(method.name, f"renamed {other.name}", text=True, source=True)
            if method.word != other.word:
                shape = self.change(method.name, f"{method.word} -> {other.word}", source=True)
                self.broken(shape, version, {OLD_CLIENTS, OLD_SERVERS}, opcodes=[opcode])
            self.messages(method.request, other.request, _Meeting(version, opcode, True, other.by))
            if method.response in method.messages and other.response in other.messages:
                self.messages(method.response, other.response, _Meeting(version, opcode, False, other.by))
            declared = {each.__name__: each for each in other.errors}
            for each in method.errors:
                if each.__name__ in declared:
                    self.messages(each, declared[each.__name__], _Meeting(version, opcode, False, other.by))
            if self.old.digest(method, version) != self.new.digest(other, version):
                self.digest(method, version)

    def moved(self, method: AnyMethod, other: AnyMethod) -> bool:
        """Whether an opcode means another method now, and not the same under another name."""
        return method.name != other.name and (
            any(each.name == method.name for each in self.new.methods)
            or any(each.name == other.name for each in self.old.methods)
        )

    def gone(self, method: AnyMethod, version: int) -> None:
        elsewhere = next((each for each in self.new.methods if each.name == method.name), None)
        if elsewhere is None:
            what, note = "removed", ""
        elif elsewhere.opcode != method.opcode:
            what, note = f"opcode {method.opcode:#06x} -> {elsewhere.opcode:#06x}", "an opcode is for ever"
        else:
            what, note = _span(method) + " -> " + _span(elsewhere), ""
        change = self.change(method.name, what, text=elsewhere is None, source=elsewhere is None, note=note)
        self.broken(
            change,
            version,
            {OLD_CLIENTS, OLD_SERVERS},
            opcodes=[method.opcode],
            grpc=elsewhere is None and method.by == "client",
        )

    def digest(self, method: AnyMethod, version: int) -> None:
        """Peers that compare digests, as those of this package do, are told apart before the first call."""
        note = "refused at the handshake, CONTRACT_MISMATCH: whoever compares digests in that version, in any codec"
        change = self.change(f"{method.name} ({method.opcode:#06x})", "another digest", note=note)
        self.broken(change, version, {OLD_CLIENTS, OLD_SERVERS}, opcodes=[method.opcode], grpc=False, codecs=("TCP",))

    # Messages

    def messages(self, was: type[Message], now: type[Message], place: _Meeting) -> None:
        if (was, now, place) in self._walked:
            return
        self._walked.add((was, now, place))
        if was.__name__ != now.__name__:
            self.change(was.__name__, f"renamed {now.__name__}", text=True, source=True)
        old = {field.name: field for field in fields(was, place.version)}
        new = {field.name: field for field in fields(now, place.version)}
        old_numbers = {field.number: field for field in old.values()}
        new_numbers = {field.number: field for field in new.values()}
        for field in old.values():
            same = new.get(field.name)
            there = new_numbers.get(field.number)
            if same is not None and same.number == field.number:
                self.field(field, same, place)
            elif same is not None:
                moved = self.change(field.path, f"number {field.number} -> {same.number}")
                self.effects(moved, place, lambda codec: (Effect.ALL, Effect.ALL))
            elif there is not None and there.name not in old:
                self.change(field.path, f"renamed {there.name}", text=True, source=True)
                self.field(field, there, place)
            else:
                self.removed(field, now, place)
        for field in new.values():
            if field.name not in old and (field.number not in old_numbers or old_numbers[field.number].name in new):
                self.added(field, was, place)

    def removed(self, field: Field, now: type[Message], place: _Meeting) -> None:
        later = next((each for each in fields(now) if each.name == field.name), None)
        what = "removed" if later is None else f"since {field.since} -> {later.since}"
        change = self.change(field.path, what, text=later is None, source=later is None)
        self.effects(change, place, lambda codec: (reads_unknown(field, codec), reads_absent(field, codec)))

    def added(self, field: Field, was: type[Message], place: _Meeting) -> None:
        before = next((each for each in fields(was) if each.name == field.name), None)
        if before is None:
            what = f"added at version {field.since}"
        else:
            what = f"since {before.since} -> {field.since}"
        change = self.change(field.path, what, source=field.required and before is None)
        self.effects(change, place, lambda codec: (reads_absent(field, codec), reads_unknown(field, codec)))

    def field(self, was: Field, now: Field, place: _Meeting) -> None:
        if was.type.scalar is now.type.scalar is Scalar.MESSAGE and was.type.shape == now.type.shape:
            self.messages(_class(was), _class(now), place)
        if was.type.scalar is now.type.scalar is Scalar.ENUM and was.type.shape == now.type.shape:
            self.enum(_class(was), _class(now), place)
        if (difference := _difference(was, now)) is not None:
            change = self.change(was.path, difference[0], source=difference[1])
            # Only servers are all of this package; what a stock client leaves out, it never writes.
            stock = place.request and place.by == "client"
            self.effects(change, place, lambda codec: (reads(was, now, codec, stock), reads(now, was, codec, stock)))

    def enum(self, was: type[enum.IntEnum], now: type[enum.IntEnum], place: _Meeting) -> None:
        if was.__name__ != now.__name__:
            self.change(was.__name__, f"renamed {now.__name__}", text=True, source=True)
        old, new = ({member.name: int(member) for member in each} for each in (was, now))
        old_names, new_names = ({number: name for name, number in each.items()} for each in (old, new))
        for name, number in old.items():
            subject = f"{was.__name__}.{name}"
            there = new_names.get(number)
            if there == name:
                continue
            if name in new:
                moved = self.change(subject, f"number {number} -> {new[name]}")
                effect = Effect.SOME if there is None else Effect.ALL
                self.effects(moved, place, lambda codec, effect=effect: (effect, effect))
            elif there is not None and there not in old:
                self.change(subject, f"renamed {there}", text=True, source=True)
            else:
                removed = self.change(subject, "removed", text=True, source=True)
                self.effects(removed, place, lambda codec: (Effect.SOME, Effect.NONE))
        for name, number in new.items():
            if name not in old and number not in old_names:
                added = self.change(f"{was.__name__}.{name}", "added")
                self.effects(added, place, lambda codec: (Effect.NONE, Effect.SOME))

    # Methods

    def policy(self, was: AnyMethod, now: AnyMethod) -> None:
        """What a method declares beside its messages; it holds in every version that has it."""
        one_way = now.shape is Shape.ONE_WAY
        versions = [each for each in self.common() if was.in_version(each) and now.in_version(each)]

        def refused(what: str, reason: str) -> str:
            return f"{what} are dropped, and nobody is told" if one_way else f"{what} are refused, {reason}"

        callers, answerers = (OLD_CLIENTS, OLD_SERVERS) if now.by == "client" else (OLD_SERVERS, OLD_CLIENTS)

        def hurt(what: str, peer: str, note: str) -> None:
            change = self.change(was.name, what, note=note)
            for version in versions:
                self.broken(change, version, {peer}, opcodes=[was.opcode])

        if was.requires != now.requires:
            what = f"requires {was.requires} -> {now.requires}"
            if now.requires is None:
                self.change(was.name, what)
            else:
                hurt(what, callers, refused("callers without it", "NOT_PERMITTED or SIGN_IN_REQUIRED"))
        if was.max_request != now.max_request:
            what = f"max_request {was.max_request} -> {now.max_request}"
            if now.max_request is not None and (was.max_request is None or now.max_request < was.max_request):
                longer = "longer items" if now.items_follow else "longer requests"
                hurt(what, callers, refused(longer, "REQUEST_TOO_LARGE"))
            else:
                self.change(was.name, what, note=f"{answerers} refuse what is longer than they allow")
        if was.idempotent and not now.idempotent:
            hurt("not idempotent any more", callers, f"{callers} may repeat a call that ran")
        elif now.idempotent and not was.idempotent:
            hurt(
                "idempotent",
                answerers,
                f"{callers.replace('old', 'new')} may repeat a call that ran at an {answerers[:-1]}",
            )
        if isinstance(was, StreamMethod) and isinstance(now, StreamMethod):
            self.positions(was, now, hurt, callers, answerers)
            if was.slow != now.slow:
                self.slow(was, now, hurt, callers)
        if was.timeout != now.timeout:
            what = f"timeout {_seconds(was.timeout)} -> {_seconds(now.timeout)}"
            self.change(was.name, what, note="of calls that bring no deadline")
        before, after = ({each.__name__ for each in method.errors} for method in (was, now))
        if before - after:
            self.change(was.name, f"errors without {', '.join(sorted(before - after))}", source=True)
        if after - before:
            note = f"{callers} do not know these details, and have the error without them"
            self.change(was.name, f"errors with {', '.join(sorted(after - before))}", note=note)
        if was.compress != now.compress:
            what = "compress" if now.compress else "not compressed any more"
            self.change(was.name, what, note="of what is sent; packed or not, both sides read it")
        if was.goes_on != now.goes_on:
            what = "drains" if now.goes_on else "does not drain any more"
            self.change(was.name, what, note="of streams in flight when a server goes away")
        if gone := set(was.reasons) - set(now.reasons):
            self.change(was.name, f"reasons without {', '.join(sorted(gone))}", source=True)
        if came := set(now.reasons) - set(was.reasons):
            note = f"{callers} do not know what it means; the status says what kind it is of"
            self.change(was.name, f"reasons with {', '.join(sorted(came))}", note=note)

    def positions(
        self,
        was: AnyStream,
        now: AnyStream,
        hurt: Callable[[str, str, str], None],
        callers: str,
        answerers: str,
    ) -> None:
        """Where a stream can be gone on with; a position is of a field, whatever its name."""
        before, after = _position(was), _position(now)
        if before is None and after is not None:
            note = f"{answerers} cannot go on behind a position, and a gap is told"
            self.change(was.name, f"resumable {after.name}", note=note)
        elif before is not None and after is None:
            note = f"{callers} that follow it are told of a gap"
            self.change(was.name, "not resumable any more", source=True, note=note)
        elif before is not None and after is not None and before.number != after.number:
            what = f"resumable {before.name} -> {after.name}"
            hurt(what, callers, f"{callers} go on behind positions that mean something else")

    def slow(self, was: AnyStream, now: AnyStream, hurt: Callable[[str, str, str], None], callers: str) -> None:
        """What becomes of a caller that does not take its items in time."""
        what = f"slow {was.slow} -> {now.slow}"
        if was.slow == "pause":
            left = "items left out" if now.slow == "drop_oldest" else "their stream ended"
            hurt(what, callers, f"{callers} that do not take items in time have {left}")
        else:
            self.change(was.name, what)

    def grpc(self) -> None:
        """Stock clients of the .proto call by name, and speak the newest version."""
        old, new = self.old, self.new
        now = {method.name: method for method in new.called_by("client", new.version).values()}
        renamed = {opcode: method.name for opcode, method in new.by_opcode.items()}
        for opcode, method in old.called_by("client", old.version).items():
            other = now.get(method.name)
            if other is None:
                name = renamed.get(opcode)
                if name is not None and name != method.name and not self.moved(method, new.by_opcode[opcode]):
                    change = self.change(method.name, f"renamed {name}", text=True, source=True)
                elif name is None:
                    change = self.change(method.name, "removed", text=True, source=True)
                else:
                    change = self.change(method.name, f"not in version {new.version}")
                change.grpc = True
                change.peers.add(OLD_CLIENTS)

    # Gathering

    def change(self, subject: str, what: str, *, text: bool = False, source: bool = False, note: str = "") -> Change:
        """The one change of that subject and kind, wherever it is met."""
        change = self.changes.setdefault((subject, what), Change(subject, what))
        change.text |= text
        change.source |= source
        change.note = change.note or note
        return change

    def broken(
        self,
        change: Change,
        version: int | None = None,
        peers: Iterable[str] = (OLD_CLIENTS, OLD_SERVERS),
        *,
        opcodes: Iterable[int] = (),
        grpc: bool | None = None,
        codecs: Sequence[str] | None = None,
    ) -> None:
        change.breaks.update(self.codecs if codecs is None else codecs)
        change.versions.update(() if version is None else (version,))
        change.peers.update(peers)
        change.opcodes.update(opcodes)
        change.grpc = grpc

    def effects(self, change: Change, place: _Meeting, effect: Any) -> None:
        """Take up what a difference does in each codec: ``effect`` gives it for what is old, and for what is new."""
        change.keeps.update(self.codecs)
        for codec in self.codecs:
            forward, backward = effect(codec)
            peers = {place.writers} if forward else set()
            # A new caller sends new values when it is told to; who answers does so with them unasked.
            if backward is Effect.ALL or (backward and not place.request):
                peers.add(place.readers)
            elif backward:
                change.note = change.note or f"{place.readers} do not take the values that are new"
            if peers:
                # As protobuf, but where no method that is called over gRPC has the message.
                grpc = False if place.by == "server" and (not change.breaks or change.grpc is False) else None
                self.broken(change, place.version, peers, opcodes=[place.opcode], grpc=grpc, codecs=[codec])


def _difference(was: Field, now: Field) -> tuple[str, bool] | None:
    """How a field differs from what it was, but for its name, and whether a Python program notices."""
    old, new = was.type, now.type
    found: list[str] = []
    source = was.ignorable and not now.ignorable
    # Classes are compared by what is in them.
    if (old.scalar, old.shape, old.key, old.optional) != (new.scalar, new.shape, new.key, new.optional):
        found.append(f"{old} -> {new}")
        source |= _python(was) != _python(now) or (now.required and not was.required)
    elif was.required != now.required or (not was.required and was.default != now.default):
        found.append(f"default {_shown(was)} -> {_shown(now)}")
        source |= not was.required
    for before, after in ((old.bounds, new.bounds), (old.size, new.size)):
        if before != after:
            found.append(f"{_bounds(before)} -> {_bounds(after)}")
    if was.ignorable and not now.ignorable:
        found.append("not ignorable any more")
    return (", ".join(found), source) if found else None


def _python(field: Field) -> object:
    """The type that a program gives, without its classes."""
    kind = field.type
    return Scalar.INT if kind.scalar is Scalar.UINT else kind.scalar, kind.shape, kind.key, kind.optional


def _position(method: AnyStream) -> Field | None:
    """The field that holds the position of an item; None for a method that is not resumable."""
    if method.resumable is None:
        return None
    return next(each for each in fields(method.response) if each.name == method.resumable)


def _bounds(bounds: Bounds | None) -> str:
    return "no bounds" if bounds is None else repr(bounds)


def _shown(field: Field) -> str:
    if field.default is MISSING:
        return "none"
    return field.default.name if isinstance(field.default, enum.IntEnum) else repr(field.default)


def _span(method: AnyMethod) -> str:
    return f"since {method.since}" + (f" until {method.until}" if method.until is not None else "")


def _seconds(timeout: float | None) -> str:
    return "none" if timeout is None else f"{timeout:g} s"


def _class(field: Field) -> type[Any]:
    return cast(type[Any], field.type.cls)
