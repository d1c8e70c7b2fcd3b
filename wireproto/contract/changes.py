"""What one difference between two contracts breaks, and for whom, as data and as a sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["LEVELS", "OLD_CLIENTS", "OLD_SERVERS", "Change", "Level", "listed"]

Level = Literal["wire", "text", "source"]

LEVELS: Final[tuple[Level, ...]] = ("wire", "text", "source")
"""From the outside in. Each takes in those before it: who breaks the wire breaks the text as well."""

OLD_CLIENTS: Final = "old clients"
OLD_SERVERS: Final = "old servers"


@dataclass
class Change:
    """One difference.

    Attributes:
        subject: ``Message.field``, ``Enum.MEMBER``, or the name of a method, message, enum or service.
        what: what became of it, such as ``int -> str``.
        breaks: the codecs in which a peer that worked before does not any more; TCP where the handshake refuses.
        keeps: the codecs compared that it leaves alone.
        versions: the service versions in which ``breaks`` holds.
        opcodes: of the methods that are hurt.
        peers: who is hurt: OLD_CLIENTS (of a new server), OLD_SERVERS (of a new client), or both.
        grpc: whether calls over gRPC break by it; None when that is as with protobuf.
        text: names that people and their tools write are others: in JSON, in the .proto.
        source: a Python program that used the declarations may have to change.
        note: what else to know of it, as a clause.
    """

    subject: str
    what: str
    breaks: set[str] = field(default_factory=set)
    keeps: set[str] = field(default_factory=set)
    versions: set[int] = field(default_factory=set)
    opcodes: set[int] = field(default_factory=set)
    peers: set[str] = field(default_factory=set)
    grpc: bool | None = None
    text: bool = False
    source: bool = False
    note: str = ""

    @property
    def level(self) -> Level | None:
        """The outermost level that breaks; None when nothing does."""
        if self.breaks or self.grpc:
            return "wire"
        if self.text:
            return "text"
        return "source" if self.source else None

    def breaks_at(self, level: Level) -> bool:
        """Whether it is a break for whoever holds to ``level``."""
        return self.level is not None and LEVELS.index(self.level) <= LEVELS.index(level)

    def __str__(self) -> str:
        verdict = self._verdict()
        joint = " " if verdict.startswith("breaks") else ": "
        return f"{self.subject}: {self.what}{joint}{verdict}"

    def details(self) -> list[str]:
        """Further lines: who is hurt, where, and why."""
        lines = []
        if self.peers and (self.breaks or self.grpc):
            methods = ", ".join(f"{each:#06x}" for each in sorted(self.opcodes))
            lines.append(f"for {listed(sorted(self.peers))}{f'; opcodes {methods}' if methods else ''}")
        if self.note:
            lines.append(self.note)
        return lines

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "subject": self.subject,
            "what": self.what,
            "level": self.level,
            "breaks": sorted(self.breaks),
            "keeps": sorted(self.keeps - self.breaks),
            "grpc": "protobuf" in self.breaks if self.grpc is None else self.grpc,
            "versions": sorted(self.versions),
            "opcodes": sorted(self.opcodes),
            "peers": sorted(self.peers),
            "text": self.text,
            "source": self.source,
            "note": self.note,
        }

    def _verdict(self) -> str:
        broken = _in_order(self.breaks)
        kept = _in_order(self.keeps - self.breaks) if broken else []
        if self.grpc and "protobuf" not in self.breaks:
            broken.append("gRPC")
        elif self.grpc is False and "protobuf" in self.breaks:
            kept.append("gRPC")
        parts = []
        if broken:
            where = (
                f" at version{'s' if len(self.versions) > 1 else ''} {_ranges(self.versions)}" if self.versions else ""
            )
            parts.append(f"breaks {listed(broken)}{where}{f', not {listed(kept)}' if kept else ''}")
        elif self.text or self.source:
            parts.append("wire-compatible")
        if self.text or self.source:
            hurt = ["names in JSON and .proto"] if self.text else []
            hurt += ["Python source"] if self.source else []
            parts.append(f"{'' if broken else 'breaks '}{listed(hurt)}{' as well' if broken else ''}")
        elif broken:
            parts.append("source-compatible")
        return "; ".join(parts) if parts else "compatible"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _in_order(codecs: Iterable[str]) -> list[str]:
    built_in = ["pipe", "msgpack", "protobuf"]
    return sorted(codecs, key=lambda name: (built_in.index(name) if name in built_in else len(built_in), name))


def _ranges(versions: Iterable[int]) -> str:
    """``1, 3 to 5`` for 1, 3, 4 and 5."""
    runs: list[list[int]] = []
    for version in sorted(versions):
        if runs and runs[-1][-1] == version - 1:
            runs[-1][1:] = [version]
        else:
            runs.append([version])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
