"""Whether what a server sent back is one of the outcomes that ``docs/wire.md`` allows for what it was sent.

`judge` names every way in which it is not; a server that keeps to the page is never named.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.conformance import page
from wireproto.conformance.case import Deviation
from wireproto.conformance.fuzzing import rules
from wireproto.conformance.fuzzing.rules import Expected, SentRequest
from wireproto.conformance.raw import Ending
from wireproto.control import CONTROL
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import MAX_POSITION, Operation, Positions, Service, StreamMethod

__all__ = ["MethodPlans", "Observed", "Methods", "judge"]

# What only a traceback, or an exception that was written into a message, has.
_LEAK: Final = re.compile(
    r"Traceback|File \"|\bline \d+\b|\b[A-Z]\w*(?:Error|Exception):|0x[0-9a-f]{8,}|<[\w.]+ object"
)

# A call that was never looked at, whatever its payload is.
_UNSEEN: Final = {
    "BAD_METADATA", "CANCELLED", "DEADLINE", "METADATA_TOO_LARGE", "NOT_PERMITTED", "NO_HANDLER", "REQUEST_TOO_LARGE",
    "SERVER_BUSY", "SHUTTING_DOWN", "SIGN_IN_REQUIRED", "TOO_MANY_CALLS", "UNKNOWN_METADATA",
}  # fmt: skip


class MethodPlans(NamedTuple):
    """One method, as far as its answers are judged.

    Attributes:
        flags: of a REQUEST that has the method's shape.
        positions: of its items; None where it is no stream that can be gone on with.
    """

    name: str
    flags: int
    reasons: frozenset[str]
    request: Plan[Any]
    response: Plan[Any]
    positions: Positions | None = None

    def has_position(self, written: bytes) -> bool:
        """Whether these bytes are a position of its items."""
        if self.positions is None:
            return False
        try:
            self.positions.read(written)
        except DecodeError:
            return False
        return True


@dataclass(frozen=True)
class Methods:
    """The methods that a connection has, by opcode, with the plans of its codec."""

    service: Service
    codec: int
    version: int
    entries: dict[int, MethodPlans]

    @classmethod
    def of(cls, service: Service, codec: str, version: int) -> "Methods":
        """The service's methods in one version, and the framework's own."""
        chosen = codecs.get(codec)
        limits = Limits()
        entries = {}
        for owner, at in ((CONTROL, CONTROL.version), (service, version)):
            for opcode, method in owner.called_by("client", at).items():
                entries[opcode] = MethodPlans(
                    method.name,
                    int(method.shape.flags),
                    frozenset(method.reasons),
                    chosen.plan(method.request, at, limits),
                    chosen.plan(method.response, at, limits, request=False),
                    _positions(method),
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


def judge(opening: bytes, rest: bytes, observed: Observed, table: Methods) -> list[str]:
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
        welcome = judgement.welcome(observed.opening)
        if welcome is not None:
            expected = rules.expect_frames(
                rest,
                max_frame=welcome.max_frame,
                codec=welcome.codec,
                version=welcome.version,
                first_credit=welcome.first_credit,
                one_way_credit=welcome.one_way_credit,
                packing=judgement.packing,
            )
            judgement.frames(expected, observed)
    if observed.ending is Ending.RESET and not judgement.ended:
        judgement.wrong("the server reset the connection and did not say why")
    return judgement.problems


def _positions(method: Operation[Any, Any]) -> Positions | None:
    if not isinstance(method, StreamMethod) or method.resumable is None:
        return None
    return Positions(method.response, method.resumable)


def _position(call: SentRequest) -> bytes | None:
    """The position that a REQUEST asks to go on behind; None if it asks for none that could be read."""
    try:
        found = page.read_metadata(call.metadata).get(page.RESUME_KEY)
    except Deviation:
        return None
    return found[0] if found and 1 <= len(found[0]) <= MAX_POSITION else None


def _no_message(entry: MethodPlans, call: SentRequest) -> str:
    """Why the payload of a REQUEST is no message of its method; empty for one that is."""
    if call.payload is None:
        return "it is packed wrongly"
    try:
        entry.request.decode(call.payload)
    except DecodeError as error:
        return error.problem or "it cannot be read"
    return ""


class _Judgement:
    def __init__(self, table: Methods) -> None:
        self.table = table
        self.problems: list[str] = []
        self.ended = False  # by a final ERROR, or an HTTP answer
        self.packing = 0  # the algorithm that was chosen

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
            if answer.kind == page.ERROR and not answer.call_id:
                self._final(answer, expected, page.SERVER_REASONS | page.HANDSHAKE_REASONS)
            elif answer.kind == page.WELCOME and expected.welcome and answer is answers[0]:
                self._header(answer, codec=0, version=0)
            elif not expected.welcome:
                self.wrong(f"{page.kind_name(answer.kind)} came in answer to what is no handshake")
        if not self.ended and not expected.lives:
            self.wrong(f"the connection ended without a final ERROR; it must be {_any_of(expected.reasons)}")
        elif not self.ended and expected.welcome and not answers:
            self.wrong("HELLO was answered with nothing")

    def welcome(self, answer: bytes) -> page.WelcomeBody | None:
        """Of our own HELLO, which is in order; None when it cannot be read."""
        welcome, *more = self._answers(answer)
        if more:
            self.wrong(f"{page.kind_name(more[0].kind)} came behind WELCOME, unasked")
        self._header(welcome, codec=0, version=0)
        try:
            found = page.read_welcome(welcome.payload)
        except Deviation as deviation:
            self.wrong(str(deviation))
            return None
        if (found.version, found.codec) != (self.table.version, self.table.codec):
            self.wrong(f"WELCOME chose version {found.version} and codec {found.codec}, which is not what was offered")
        if found.packing:
            self.packing = found.packing[0]
            if self.packing != page.ZLIB:
                self.wrong(f"WELCOME chose the algorithm {self.packing}, which was not offered")
        return found

    # Calls.

    def frames(self, expected: Expected, observed: Observed) -> None:
        open_calls = dict(expected.calls)
        credit = dict(expected.credit)
        pongs: list[bytes] = []
        for answer in self._answers(observed.rest or b"", preamble=False):
            kind = answer.kind
            if self.ended:
                self.wrong(f"{page.kind_name(answer.kind)} came behind a final ERROR")
            elif kind == page.ERROR and not answer.call_id:
                self._final(answer, expected, page.SERVER_REASONS | {"SHUTTING_DOWN": page.UNAVAILABLE})
            elif kind == page.PONG:
                self._header(answer, codec=0, version=0)
                pongs.append(answer.payload)
            elif kind in (page.PING, page.GOAWAY):
                self._header(answer, codec=0, version=0)
            elif kind in (*page.TERMINAL, page.ITEM):
                self._answer(answer, expected, open_calls, credit)
            elif kind == page.CREDIT:
                self._credit(answer, expected)
            else:
                self.wrong(f"{page.kind_name(answer.kind)} came, which no server sends on an open connection")
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

    def _answer(
        self,
        answer: page.RawFrame,
        expected: Expected,
        open_calls: dict[int, SentRequest],
        credit: dict[int, page.CreditBody],
    ) -> None:
        message = answer.kind in (page.RESPONSE, page.ITEM)
        self._header(answer, codec=self.table.codec * message, version=self.table.version * message)
        call = open_calls.get(answer.call_id)
        if call is None:
            known = answer.call_id in expected.calls
            self.wrong(
                f"{page.kind_name(answer.kind)} came for a call that {'was over' if known else 'was never begun'}"
            )
            return
        if answer.opcode != call.opcode:
            self.wrong(
                f"{page.kind_name(answer.kind)} has opcode {answer.opcode:#06x} and not its call's, {call.opcode:#06x}"
            )
        if answer.kind in page.TERMINAL:
            del open_calls[answer.call_id]
        entry = self.table.entries.get(call.opcode)
        name = self._name(call)
        if answer.kind == page.ERROR:
            self._call_error(answer, call, entry)
            return
        if entry is None:
            self.wrong(f"{page.kind_name(answer.kind)} came for {name}, which does not exist")
            return
        if bool(entry.flags & page.ITEMS_COME_BACK) == (answer.kind == page.RESPONSE):
            what = "a" if entry.flags & page.ITEMS_COME_BACK else "no"
            self.wrong(f"{page.kind_name(answer.kind)} came for {name}, whose answer is {what} stream")
        if call.flags != entry.flags:
            self.wrong(f"{name} was begun with flags {call.flags:#04x}, which are not its shape, and accepted")
        position = _position(call)
        if position is not None and entry.flags == page.ITEMS_COME_BACK and not entry.has_position(position):
            self.wrong(f"{name} was asked to go on behind {position!r}, which is no position of it, and began")
        if answer.kind == page.ITEM:
            left = credit[call.call_id]
            if min(left) < 1:
                self.wrong(f"{name} sent an item and had no credit left")
            credit[call.call_id] = page.CreditBody(left.items - 1, left.bytes - len(answer.payload))
        if answer.kind == page.END:
            if answer.payload:
                self.wrong("an END has a payload")
        else:
            self._decodes(entry, answer)
        if entry.flags & page.ITEMS_FOLLOW:
            return  # it may have been answered before an item that is none was read
        if problem := _no_message(entry, call):
            self.wrong(f"{name} accepted a payload that is no message of it: {problem}")

    def _credit(self, answer: page.RawFrame, expected: Expected) -> None:
        """CREDIT of one-way calls, or of a call whose items follow."""
        self._header(answer, codec=0, version=0)
        call = expected.calls.get(answer.call_id)
        if answer.call_id and (call is None or not call.flags & page.ITEMS_FOLLOW):
            self.wrong("CREDIT came for what is no call whose items follow")
        try:
            page.read_credit(answer.payload, answer.call_id)
        except Deviation as deviation:
            self.wrong(str(deviation))

    def _decodes(self, entry: MethodPlans, answer: page.RawFrame) -> None:
        try:
            entry.response.decode(answer.payload)
        except DecodeError as error:
            self.wrong(f"{entry.name} answered with a payload that cannot be read: {error}")

    def _call_error(self, answer: page.RawFrame, call: SentRequest, entry: MethodPlans | None) -> None:
        error = self._error(answer)
        if error is None:
            return
        status, reason, message = error.status, error.reason, error.message
        name = self._name(call)
        declared = entry.reasons if entry is not None else frozenset()
        self._no_leak(name, message)
        if reason in page.CALL_REASONS:
            if reason not in declared and status != page.CALL_REASONS[reason]:
                self.wrong(f"{reason} of {name} has status {_status(status)}, not {_status(page.CALL_REASONS[reason])}")
            if reason not in declared and not page.may_say(reason, error.retry):
                self.wrong(f"{reason} of {name} says retry {error.retry}, not {page.RETRY_OF_CALLS[reason]}")
        elif reason and reason not in declared:
            self.wrong(f"{name} failed with {reason}, which it does not declare")
        if status == page.INTERNAL:
            self.wrong(f"{name} failed with INTERNAL: its handler, or the server, has a bug")
        if entry is None:
            if reason != "UNKNOWN_OPCODE" and reason not in _UNSEEN:
                self.wrong(
                    f"{name}, which does not exist, failed with {reason or _status(status)} and not UNKNOWN_OPCODE"
                )
        elif reason == "UNKNOWN_OPCODE":
            self.wrong(f"{name} was said not to exist")
        elif reason == "POSITION_LOST":
            if reason not in declared and _position(call) is None:
                self.wrong(f"{name} was not asked to go on behind a position, and said to have lost it")
        elif reason == "WRONG_SHAPE":
            if call.flags == entry.flags:
                self.wrong(f"{name} was begun with the flags of its shape, and said to have another one")
        elif reason == "BAD_PAYLOAD" and not entry.flags & page.ITEMS_FOLLOW and not _no_message(entry, call):
            self.wrong(f"{name} refused a payload that is a message of it: {message}")

    # Frames of any kind.

    def _answers(self, data: bytes, *, preamble: bool = True) -> list[page.RawFrame]:
        """The frames in what the server sent."""
        if preamble and data:
            if not data.startswith(page.PREAMBLE):
                self.wrong(f"the server's first bytes are {data[:4].hex(' ')}, not the preamble")
                return []
            data = data[len(page.PREAMBLE) :]
        answers = []
        at = 0
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if len(data) - at < page.HEADER.size or end > len(data):
                self.wrong("the server's output ends within a frame")
                break
            header = page.read_header(data, at)
            if header.length < page.AFTER_LENGTH:
                self.wrong("a frame of the server is shorter than its header")
                break
            if header.metadata_length > header.length - page.AFTER_LENGTH:
                self.wrong(f"{page.kind_name(header.kind)} declares more metadata than it has room for")
            answers.append(self._unpacked(page.read_frame(data[at:end])))
            at = end
        return answers

    def _unpacked(self, answer: page.RawFrame) -> page.RawFrame:
        """A frame as if it had travelled unpacked."""
        if not (self.packing and answer.flags & page.PACKED and answer.kind in page.OF_MESSAGES):
            return answer
        try:
            return answer._replace(flags=answer.flags & ~page.PACKED, payload=page.read_packed(answer.payload))
        except Deviation as deviation:
            self.wrong(str(deviation))
            return answer._replace(flags=answer.flags & ~page.PACKED)

    def _header(self, answer: page.RawFrame, *, codec: int, version: int) -> None:
        beside = answer.kind in page.ANSWERS and answer.call_id
        if answer.flags or (answer.metadata and not beside):
            self.wrong(f"{page.kind_name(answer.kind)} has flags or metadata")
        elif beside:
            self._beside(answer)
        if (answer.codec, answer.version) != (codec, version):
            name = page.kind_name(answer.kind)
            self.wrong(f"{name} has codec {answer.codec} and version {answer.version}, not {codec} and {version}")
        if not answer.call_id and answer.opcode:
            self.wrong(f"{page.kind_name(answer.kind)} has an opcode and no call")

    def _beside(self, answer: page.RawFrame) -> None:
        """What stands beside an answer must be what a sender may say."""
        error = self._error(answer) if answer.kind == page.ERROR else None
        details = len(error.details or b"") if error is not None else 0
        try:
            page.check_answer_metadata(answer.kind, answer.metadata, details)
        except Deviation as deviation:
            self.wrong(str(deviation))

    def _final(self, answer: page.RawFrame, expected: Expected, known: dict[str, int]) -> None:
        self.ended = True
        self._header(answer, codec=0, version=0)
        error = self._error(answer)
        if error is None:
            return
        if error.details is not None:
            self.wrong("the final ERROR has details, which errors of calls alone have")
        status, reason, message = error.status, error.reason, error.message
        self._no_leak("a final ERROR", message)
        if reason not in known:
            self.wrong(f"the final ERROR has the reason {reason!r}, which is none of a connection's")
        elif status != known[reason]:
            self.wrong(f"the final ERROR {reason} has status {_status(status)}, not {_status(known[reason])}")
        elif reason not in expected.reasons and reason != "SHUTTING_DOWN":
            should = _any_of(expected.reasons) if expected.reasons else "no end at all"
            self.wrong(f"the connection was ended as {reason}; expected: {should}")

    def _error(self, answer: page.RawFrame) -> page.ErrorBody | None:
        """The body of an ERROR whose layout is right."""
        try:
            return page.read_error(answer.payload)
        except Deviation as deviation:
            self.wrong(str(deviation))
            return None

    def _no_leak(self, name: str, message: str) -> None:
        if found := _LEAK.search(message):
            self.wrong(f"{name} failed with a text out of the server's insides ({found[0]}): {message[:200]}")

    def _name(self, call: SentRequest) -> str:
        entry = self.table.entries.get(call.opcode)
        return entry.name if entry is not None else "an opcode"


def _any_of(reasons: set[str]) -> str:
    return " or ".join(sorted(reasons))


def _status(number: int) -> str:
    return page.STATUS_NAMES[number]
