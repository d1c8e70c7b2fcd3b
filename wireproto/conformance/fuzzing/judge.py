"""Whether what a server sent back is one of the outcomes that ``docs/protocol.md`` allows for what it was sent.

`judge` names every way in which it is not; a server that keeps to the page is never named.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.conformance.fuzzing import rules
from wireproto.conformance.fuzzing.rules import HEADER, PREAMBLE, Call, Expected
from wireproto.conformance.raw import Ending
from wireproto.control import CONTROL
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Service, StreamMethod
from wireproto.status import Status

__all__ = ["Entry", "Observed", "Table", "judge"]

# What only a traceback, or an exception that was written into a message, has.
_LEAK: Final = re.compile(
    r"Traceback|File \"|\bline \d+\b|\b[A-Z]\w*(?:Error|Exception):|0x[0-9a-f]{8,}|<[\w.]+ object"
)

_TERMINAL: Final = (rules.RESPONSE, rules.END, rules.ERROR)
_NAMES: Final = {
    rules.HELLO: "HELLO", rules.WELCOME: "WELCOME", rules.REQUEST: "REQUEST", rules.RESPONSE: "RESPONSE",
    rules.ITEM: "ITEM", rules.END: "END", rules.ERROR: "ERROR", rules.CANCEL: "CANCEL", rules.CREDIT: "CREDIT",
    rules.PING: "PING", rules.PONG: "PONG", rules.GOAWAY: "GOAWAY",
}  # fmt: skip

# A call that was never looked at, whatever its payload is.
_UNSEEN: Final = {
    "BAD_METADATA", "CANCELLED", "DEADLINE", "METADATA_TOO_LARGE", "NOT_PERMITTED", "NO_HANDLER", "REQUEST_TOO_LARGE",
    "SERVER_BUSY", "SHUTTING_DOWN", "SIGN_IN_REQUIRED", "TOO_MANY_CALLS", "UNKNOWN_METADATA",
}  # fmt: skip


class Entry(NamedTuple):
    """One method, as far as its answers are judged."""

    name: str
    is_stream: bool
    reasons: frozenset[str]
    request: Plan[Any]
    response: Plan[Any]


@dataclass(frozen=True)
class Table:
    """The methods that a connection has, by opcode, with the plans of its codec."""

    service: Service
    codec: int
    version: int
    entries: dict[int, Entry]

    @classmethod
    def of(cls, service: Service, codec: str, version: int) -> "Table":
        """The service's methods in one version, and the framework's own."""
        chosen = codecs.get(codec)
        limits = Limits()
        entries = {}
        for owner, at in ((CONTROL, CONTROL.version), (service, version)):
            for opcode, method in owner.at(at).items():
                entries[opcode] = Entry(
                    method.name,
                    isinstance(method, StreamMethod),
                    frozenset(method.reasons),
                    chosen.plan(method.request, at, limits),
                    chosen.plan(method.response, at, limits, request=False),
                )
        return cls(service, chosen.id, version, entries)


class Observed(NamedTuple):
    """What came back.

    Attributes:
        opening: bytes that answered the opening.
        rest: bytes that answered what was sent once the connection was open; None when it never was.
        ending: how the input ended.
    """

    opening: bytes
    rest: bytes | None
    ending: Ending


class _Answer(NamedTuple):
    kind: int
    flags: int
    codec: int
    version: int
    opcode: int
    call_id: int
    metadata_length: int
    payload: bytes

    @property
    def name(self) -> str:
        return _NAMES.get(self.kind, f"kind {self.kind}")


def judge(opening: bytes, rest: bytes, observed: Observed, table: Table) -> list[str]:
    """What is wrong with an answer, in sentences; nothing when it is an outcome that the page allows.

    Args:
        opening: what was sent first.
        rest: what was sent behind WELCOME, if one came.
        observed: what came back. The client had ended its output, so the connection must have ended.
        table: the service's methods.
    """
    judgement = _Judgement(table)
    if observed.ending is Ending.SILENCE:
        judgement.wrong("the server neither answered nor closed in time")
        if observed.rest is None and not observed.opening:
            return judgement.problems
    if observed.rest is None:
        judgement.opening(rules.expect_opening(opening), observed)
    else:
        judgement.welcome(opening, observed.opening)
        head = _welcome_of(observed.opening)
        if head is not None:
            version, codec, max_frame = head
            expected = rules.expect_frames(rest, max_frame=max_frame, codec=codec, version=version)
            judgement.frames(expected, observed)
    if observed.ending is Ending.RESET and not judgement.ended:
        judgement.wrong("the server reset the connection and did not say why")
    return judgement.problems


def _welcome_of(opening: bytes) -> tuple[int, int, int] | None:
    """Version, codec and frame limit of the WELCOME that ``opening`` is."""
    if len(opening) < 4 + HEADER.size + 10 or opening[8] != rules.WELCOME:
        return None
    body = opening[4 + HEADER.size :]
    return body[0], body[1], int.from_bytes(body[2:6], "big")


class _Judgement:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.problems: list[str] = []
        self.ended = False  # by a final ERROR, or an HTTP answer

    def wrong(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    # The handshake.

    def opening(self, expected: Expected, observed: Observed) -> None:
        data = observed.opening
        if data.startswith(b"HTTP/"):
            self.ended = True
            if not expected.http:
                self.wrong("an HTTP answer came, and no HTTP was spoken")
            elif not data.startswith(b"HTTP/1.1 400 "):
                self.wrong(f"the HTTP answer begins with {data[:16]!r} and not with 400")
            return
        answers = self._answers(data)
        for answer in answers:
            if answer.kind == rules.ERROR and not answer.call_id:
                self._final(answer, expected, rules.CONNECTION_REASONS | rules.HANDSHAKE_REASONS)
            elif answer.kind == rules.WELCOME and expected.welcome and answer is answers[0]:
                self._header(answer, codec=0, version=0)
            elif not expected.welcome:
                self.wrong(f"{answer.name} came in answer to what is no handshake")
        if not self.ended and not expected.lives:
            self.wrong(f"the connection ended without a final ERROR; it must be {_any_of(expected.reasons)}")
        elif not self.ended and expected.welcome and not answers:
            self.wrong("HELLO was answered with nothing")

    def welcome(self, opening: bytes, answer: bytes) -> None:
        """Of our own HELLO, which is in order."""
        welcome, *more = self._answers(answer)
        if more:
            self.wrong(f"{more[0].name} came behind WELCOME, unasked")
        self._header(welcome, codec=0, version=0)
        head = _welcome_of(answer)
        if head is None:
            self.wrong("WELCOME is too short")
        elif head[:2] != (self.table.version, self.table.codec):
            self.wrong(f"WELCOME chose version {head[0]} and codec {head[1]}, which is not what was offered")
        elif head[2] < 4096:
            self.wrong(f"WELCOME says max frame {head[2]}; the least is 4096")

    # Calls.

    def frames(self, expected: Expected, observed: Observed) -> None:
        open_calls = dict(expected.calls)
        credit = dict(expected.credit)
        pongs: list[bytes] = []
        for answer in self._answers(observed.rest or b"", preamble=False):
            kind = answer.kind
            if self.ended:
                self.wrong(f"{answer.name} came behind a final ERROR")
            elif kind == rules.ERROR and not answer.call_id:
                self._final(answer, expected, rules.CONNECTION_REASONS | {"SHUTTING_DOWN": Status.UNAVAILABLE})
            elif kind == rules.PONG:
                self._header(answer, codec=0, version=0)
                pongs.append(answer.payload)
            elif kind in (rules.PING, rules.GOAWAY):
                self._header(answer, codec=0, version=0)
            elif kind in (*_TERMINAL, rules.ITEM):
                self._answer(answer, expected, open_calls, credit)
            else:
                self.wrong(f"{answer.name} came, which no server sends on an open connection")
        if pongs != expected.pings[: len(pongs)]:
            self.wrong("a PONG came that brings back no PING's bytes, or not in order")
        if self.ended or expected.silent or observed.ending is Ending.SILENCE:
            return
        if not expected.lives:
            self.wrong(f"the connection ended without a final ERROR; it must be {_any_of(expected.reasons)}")
            return
        if len(pongs) < len(expected.pings):
            self.wrong("a PING was not answered")
        for call in open_calls.values():
            self.wrong(f"a call of {self._name(call)} was not answered")

    def _answer(self, answer: _Answer, expected: Expected, open_calls: dict[int, Call], credit: dict[int, int]) -> None:
        message = answer.kind in (rules.RESPONSE, rules.ITEM)
        self._header(answer, codec=self.table.codec * message, version=self.table.version * message)
        call = open_calls.get(answer.call_id)
        if call is None:
            known = answer.call_id in expected.calls
            self.wrong(f"{answer.name} came for a call that {'was over' if known else 'was never begun'}")
            return
        if answer.opcode != call.opcode:
            self.wrong(f"{answer.name} has opcode {answer.opcode:#06x} and not its call's, {call.opcode:#06x}")
        if answer.kind in _TERMINAL:
            del open_calls[answer.call_id]
        entry = self.table.entries.get(call.opcode)
        name = self._name(call)
        if answer.kind == rules.ERROR:
            self._call_error(answer, call, entry)
            return
        if entry is None:
            self.wrong(f"{answer.name} came for {name}, which does not exist")
            return
        if entry.is_stream == (answer.kind == rules.RESPONSE):
            self.wrong(f"{answer.name} came for {name}, which is {'a' if entry.is_stream else 'no'} stream")
        if answer.kind == rules.ITEM:
            credit[call.call_id] -= 1
            if credit[call.call_id] < 0:
                self.wrong(f"{name} sent an item and had no credit left")
        if answer.kind == rules.END:
            if answer.payload:
                self.wrong("an END has a payload")
        else:
            self._decodes(entry, answer)
        try:
            entry.request.decode(call.payload)
        except DecodeError as error:
            self.wrong(f"{name} accepted a payload that is no message of it: {error.problem}")

    def _decodes(self, entry: Entry, answer: _Answer) -> None:
        try:
            entry.response.decode(answer.payload)
        except DecodeError as error:
            self.wrong(f"{entry.name} answered with a payload that cannot be read: {error}")

    def _call_error(self, answer: _Answer, call: Call, entry: Entry | None) -> None:
        error = self._error(answer)
        if error is None:
            return
        status, reason, message = error
        name = self._name(call)
        declared = entry.reasons if entry is not None else frozenset()
        self._no_leak(name, message)
        if reason in rules.CALL_REASONS:
            if reason not in declared and status != rules.CALL_REASONS[reason]:
                self.wrong(f"{reason} of {name} has status {status.name}, not {rules.CALL_REASONS[reason].name}")
        elif reason and reason not in declared:
            self.wrong(f"{name} failed with {reason}, which it does not declare")
        if status is Status.INTERNAL:
            self.wrong(f"{name} failed with INTERNAL: its handler, or the server, has a bug")
        if entry is None:
            if reason != "UNKNOWN_OPCODE" and reason not in _UNSEEN:
                self.wrong(f"{name}, which does not exist, failed with {reason or status.name} and not UNKNOWN_OPCODE")
        elif reason == "UNKNOWN_OPCODE":
            self.wrong(f"{name} was said not to exist")
        elif reason == "BAD_PAYLOAD":
            try:
                entry.request.decode(call.payload)
            except DecodeError:
                pass  # so it should be
            else:
                self.wrong(f"{name} refused a payload that is a message of it: {message}")

    # Frames of any kind.

    def _answers(self, data: bytes, *, preamble: bool = True) -> list[_Answer]:
        """The frames in what the server sent."""
        if preamble and data:
            if not data.startswith(PREAMBLE):
                self.wrong(f"the server's first bytes are {data[:4].hex(' ')}, not the preamble")
                return []
            data = data[len(PREAMBLE) :]
        answers = []
        at = 0
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if len(data) - at < HEADER.size or end > len(data):
                self.wrong("the server's output ends within a frame")
                break
            _, kind, flags, codec, version, opcode, metadata_length, call_id = HEADER.unpack_from(data, at)
            payload = data[at + HEADER.size : end]
            answers.append(_Answer(kind, flags, codec, version, opcode, call_id, metadata_length, payload))
            at = end
        return answers

    def _header(self, answer: _Answer, *, codec: int, version: int) -> None:
        if answer.flags or answer.metadata_length:
            self.wrong(f"{answer.name} has flags or metadata")
        if (answer.codec, answer.version) != (codec, version):
            self.wrong(
                f"{answer.name} has codec {answer.codec} and version {answer.version}, not {codec} and {version}"
            )
        if not answer.call_id and answer.opcode:
            self.wrong(f"{answer.name} has an opcode and no call")

    def _final(self, answer: _Answer, expected: Expected, known: dict[str, Status]) -> None:
        self.ended = True
        self._header(answer, codec=0, version=0)
        error = self._error(answer)
        if error is None:
            return
        status, reason, message = error
        self._no_leak("a final ERROR", message)
        if reason not in known:
            self.wrong(f"the final ERROR has the reason {reason!r}, which is none of a connection's")
        elif status != known[reason]:
            self.wrong(f"the final ERROR {reason} has status {status.name}, not {known[reason].name}")
        elif reason not in expected.reasons and reason != "SHUTTING_DOWN":
            should = _any_of(expected.reasons) if expected.reasons else "no end at all"
            self.wrong(f"the connection was ended as {reason}; expected: {should}")

    def _error(self, answer: _Answer) -> tuple[Status, str, str] | None:
        """Status, reason and message of an ERROR whose layout is right."""
        body = answer.payload
        if not rules.is_error_body(body):
            self.wrong(f"the body of {answer.name} breaks its layout")
            return None
        reason_end = 7 + body[6]
        text_end = reason_end + 2 + int.from_bytes(body[reason_end : reason_end + 2], "big")
        return Status(body[0]), body[7:reason_end].decode(), body[reason_end + 2 : text_end].decode()

    def _no_leak(self, name: str, message: str) -> None:
        if found := _LEAK.search(message):
            self.wrong(f"{name} failed with a text out of the server's insides ({found[0]}): {message[:200]}")

    def _name(self, call: Call) -> str:
        entry = self.table.entries.get(call.opcode)
        return entry.name if entry is not None else "an opcode"


def _any_of(reasons: set[str]) -> str:
    return " or ".join(sorted(reasons))
