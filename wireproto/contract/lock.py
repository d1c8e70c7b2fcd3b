"""The lock: a file that holds a service's table and what its messages were on the wire.

It is JSON, laid out so that a change shows as the lines it is about: one line for each method, field and enum, and one
for each golden message with its bytes in every codec. The table is the one that ``Describe`` answers, so that a lock is
enough to compare with, without the code it was made from.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import msgspec

from wireproto import codecs as registry
from wireproto.codecs import Plan
from wireproto.contract.compare import CODECS
from wireproto.contract.layout import FORMAT, Document, description, write
from wireproto.contract.samples import samples
from wireproto.control import declare, describe
from wireproto.errors import CodecError, ConfigError, DeclarationError
from wireproto.limits import Limits
from wireproto.schema import Message, Operation, Service, Shape

__all__ = ["Golden", "Lock", "fingerprint"]

_LIMITS: Final = Limits()


class _AnyFormat(msgspec.Struct):
    """What every format of the file has."""

    format: int


class Golden(NamedTuple):
    """One message as it is on the wire.

    Attributes:
        version: of the service.
        opcode: of the method.
        role: ``request``, of what the caller sends, one or many; ``response`` or ``item`` of what comes back. A one-way
            method has the first alone.
        payloads: by the name of the codec.
    """

    version: int
    opcode: int
    role: str
    payloads: dict[str, bytes]


def fingerprint(service: Service, version: int) -> str:
    """Sixteen hex digits that change whenever the bytes of any message of that version may.

    Of the digests of all its methods, so what those cover: opcodes, shapes, and of each field number, wire type,
    presence, default and the numbers of enums; neither names nor bounds.

    Raises:
        ConfigError: the service has no such version.
    """
    lines = (f"{opcode} {digest:08x}\n" for opcode, digest in sorted(service.digests(version).items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lock:
    """A contract as it was at one time.

    Attributes:
        service: the table, declared again from what the file says; its classes are not those of the program.
        released: versions up to this one must not change any more; 0 for none. Those below the service's oldest are
            dropped, which changes nothing for who still speaks the others.
        fingerprints: by version.
        codecs: the names of those whose bytes are kept.
        golden: by version, method and direction.
    """

    service: Service
    released: int
    fingerprints: dict[int, str]
    codecs: tuple[str, ...]
    golden: tuple[Golden, ...]

    @classmethod
    def of(
        cls, service: Service, *, before: "Lock | None" = None, codecs: Sequence[str] = (), released: int | None = None
    ) -> Self:
        """The lock of a service as it is declared now.

        Args:
            service: the table.
            before: the lock so far: what it says of released versions is kept as it is.
            codecs: names; none for those of ``before``, or the built-in three.
            released: versions up to this one must not change from now on; those that ``before`` has stay so.

        Raises:
            ConfigError: a codec is none.
        """
        names = tuple(codecs) or (before.codecs if before is not None else CODECS)
        registry.select(names)
        kept = set(before.kept(service)) if before is not None else set()
        golden = (
            [_with_codecs(each, service, names) for each in before.golden if each.version in kept] if before else []
        )
        for version in service.versions:
            if version not in kept:
                golden += _golden(service, version, names)
        golden.sort(key=lambda each: each.version)  # those of one version are in order
        return cls(
            declare(describe(service)),
            max(before.released if before is not None else 0, released or 0),
            {version: fingerprint(service, version) for version in service.versions},
            names,
            tuple(golden),
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file.

        Raises:
            ConfigError: it is no lock, or of a later release of this package.
        """
        try:
            found = msgspec.json.decode(text, type=_AnyFormat).format
            if found != FORMAT:
                raise ConfigError(f"the lock has format {found}, and this release reads {FORMAT}; use the other one")
            document = msgspec.json.decode(text, type=Document)
            service = declare(description(document))
            return cls(
                service,
                document.released,
                document.fingerprints,
                tuple(document.codecs),
                tuple(_golden_in(document.golden, service)),
            )
        except (ValueError, KeyError, TypeError, DeclarationError) as error:
            raise ConfigError(f"this is no lock that can be read: {error}") from error

    def text(self) -> str:
        """The file."""
        golden: dict[str, list[dict[str, str]]] = {}
        for each in self.golden:
            name = self.service.by_opcode[each.opcode].name
            shown = {codec: _shown(codec, payload) for codec, payload in each.payloads.items()}
            golden.setdefault(f"{each.version} {each.opcode:#06x} {name} {each.role}", []).append(shown)
        return write(
            describe(self.service),
            {
                "released": self.released,
                "codecs": self.codecs,
                "fingerprints": {str(version): digits for version, digits in sorted(self.fingerprints.items())},
                "golden": golden,
            },
        )

    def kept(self, service: Service) -> range:
        """The released versions that ``service`` has not dropped: they must be as they were."""
        return range(max(self.service.oldest, service.oldest), self.released + 1)

    def problems(self, service: Service, *, released_only: bool = False) -> list[str]:
        """What must never be: a released version that is not what it was, and bytes that mean something else.

        Golden payloads are read by the code as it is and written again, where the declaration has the same digest as
        ever. So a codec that changed is found, too, and bounds that became narrower.

        Args:
            service: the table as it is now.
            released_only: leave out the versions that may still change.
        """
        found = []
        for version in self.kept(service):
            is_now = fingerprint(service, version) if version <= service.version else "gone"
            if is_now != self.fingerprints.get(version):
                found.append(
                    f"version {version} is released and must not change: its fingerprint was "
                    f"{self.fingerprints.get(version)} and is {is_now}; take it back, and put the change into version "
                    f"{max(service.version, self.released + 1)}"
                )
        for (version, opcode, role), rows in itertools.groupby(self.golden, lambda each: each[:3]):
            if version not in service.versions or (released_only and version > self.released):
                continue
            method = service.at(version).get(opcode)
            before = self.service.at(version)[opcode]
            if method is not None and service.digest(method, version) == self.service.digest(before, version):
                unlike = [problem for golden in rows for problem in _unlike(golden, method)]
                more = f" (and {len(unlike) - 1} more of its samples)" if len(unlike) > 1 else ""
                found += [
                    f"{method.name} ({opcode:#06x}) {role}, version {version}: {problem}{more}"
                    for problem in unlike[:1]
                ]
        return found


# Golden messages ------------------------------------------------------------------------------------------------


def _golden(service: Service, version: int, names: Sequence[str]) -> Iterator[Golden]:
    for opcode, method in sorted(service.at(version).items()):
        for role in _roles(method):
            message_type = method.request if role == "request" else method.response
            plans = _plans(message_type, version, role, names)
            for message in samples(message_type, version):
                yield Golden(version, opcode, role, {name: plan.encode(message) for name, plan in plans.items()})


def _roles(method: Operation[Any, Any]) -> tuple[str, ...]:
    if method.shape is Shape.ONE_WAY:
        return ("request",)
    return ("request", "item" if method.items_come_back else "response")


def _plans(message_type: type[Message], version: int, role: str, names: Iterable[str]) -> dict[str, Plan[Any]]:
    return {name: registry.get(name).plan(message_type, version, _LIMITS, request=role == "request") for name in names}


def _with_codecs(golden: Golden, service: Service, names: Sequence[str]) -> Golden:
    """The same message in these codecs."""
    if tuple(golden.payloads) == tuple(names):
        return golden
    method = service.at(golden.version)[golden.opcode]
    message_type = method.request if golden.role == "request" else method.response
    plans = _plans(message_type, golden.version, golden.role, {*names, *golden.payloads})
    name, payload = next(iter(golden.payloads.items()))
    message = plans[name].decode(payload)
    return golden._replace(payloads={name: golden.payloads.get(name) or plans[name].encode(message) for name in names})


def _unlike(golden: Golden, method: Operation[Any, Any]) -> Iterator[str]:
    """Payloads that are not what they were; all codecs must read the same message."""
    message_type = method.request if golden.role == "request" else method.response
    plans = _plans(message_type, golden.version, golden.role, tuple(golden.payloads))
    read: dict[str, Message] = {}
    for name, payload in golden.payloads.items():
        shown = f"{name} {_shown(name, payload)!r}"
        try:
            message = plans[name].decode(payload)
            again = plans[name].encode(message)
        except CodecError as error:
            yield f"{shown} is refused: {error}"
            continue
        if again != payload:
            yield f"{shown} is written {_shown(name, again)!r} now"
        else:
            read[name] = message
    first = next(iter(read), "")
    for name, message in read.items():
        # By bytes, for which NaN equals NaN.
        if plans[first].encode(message) != golden.payloads[first]:
            was = f"{first} {_shown(first, golden.payloads[first])!r}"
            yield f"{name} {_shown(name, golden.payloads[name])!r} is not the message that {was} is"


def _golden_in(document: dict[str, list[dict[str, str]]], service: Service) -> Iterator[Golden]:
    for key, rows in document.items():
        version, opcode, _, role = key.split()
        if role not in _roles(service.at(int(version))[int(opcode, 16)]):
            raise ValueError(f"{key!r} is not of the table")
        for row in rows:
            payloads = {codec: _payload(codec, shown) for codec, shown in row.items()}
            yield Golden(int(version), int(opcode, 16), role, payloads)


def _shown(codec: str, payload: bytes) -> str:
    """As the file has it: pipe text is there to be read, the others are hex."""
    return payload.decode() if codec == "pipe" else payload.hex()


def _payload(codec: str, shown: str) -> bytes:
    return shown.encode() if codec == "pipe" else bytes.fromhex(shown)
