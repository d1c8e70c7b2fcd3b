"""The dispatcher alone: calls judged, decoded, run and answered, with no door before it."""

import copy
import random
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from wireproto import codecs
from wireproto.dispatch import SHARED_BYTES, SHARED_ITEMS, Entry, Handlers, Table, each_service
from wireproto.errors import (
    CallError,
    ConfigError,
    DeclarationError,
    EncodeError,
    LocalProtocolError,
    PackedDetails,
)
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.reasons import REASONS, failure
from wireproto.schema import (
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Service,
    Shape,
    StreamMethod,
    UploadMethod,
)
from wireproto.status import Retry, Status
from wireproto.wire.answers import with_entry
from wireproto.wire.frame import Flag
from wireproto.wire.metadata import EMPTY, Metadata
from wireproto.wire.packing import Packed

CODEC = codecs.get("msgpack")
LIMITS = Limits(max_frame=4096)


class AskRequest(Message):
    text: str = ""


class AskResponse(Message):
    text: str


ASK = Method(opcode=0, name="Ask", request=AskRequest, response=AskResponse, reasons=("GONE",), max_request=20)
OWN = Method(opcode=1, name="Own", request=AskRequest, response=AskResponse, requires="owner", timeout=2.0)
WATCH = StreamMethod(opcode=2, name="Watch", request=AskRequest, response=AskResponse, since=2, blocking=True)
OLD = Method(opcode=3, name="Old", request=AskRequest, response=AskResponse, until=1)
LATER = Method(opcode=4, name="Later", request=AskRequest, response=AskResponse, since=2)
SERVICE = Service("example.v1.AskService", version=2, methods=[ASK, OWN, WATCH, OLD, LATER])

GATHER = UploadMethod(
    opcode=0,
    name="Gather",
    request=AskRequest,
    response=AskResponse,
    requires="owner",
    reasons=("GONE",),
    max_request=20,
)
COLLECT = UploadMethod(opcode=1, name="Collect", request=AskRequest, response=AskResponse, collect=2)
TALK = DuplexMethod(opcode=2, name="Talk", request=AskRequest, response=AskResponse)
NOTE = OneWayMethod(opcode=3, name="Note", request=AskRequest)
ONCE = UploadMethod(opcode=4, name="Once", request=AskRequest, response=AskResponse, until=1)
MANY = Service("example.v1.ManyService", version=2, methods=[GATHER, COLLECT, TALK, NOTE, ONCE])

OWNER = Identity("ann", ["owner"])
HELLO = CODEC.plan(AskResponse, 2, LIMITS, request=False).encode(AskResponse(text="hello"))


class Call(Context):
    """What a door would make of a call."""

    def __init__(
        self, metadata: Metadata = EMPTY, identity: Identity | None = None, deadline: float | None = None
    ) -> None:
        self.metadata = metadata
        self.identity = identity
        self.deadline = deadline
        self.cancelled = False
        self.said: dict[str, str] = {}

    @property
    def peer(self) -> str:
        return "peer:1"

    @property
    def codec(self) -> str:
        return CODEC.name

    @property
    def version(self) -> int:
        return 2

    @property
    def method(self) -> Operation[Any, Any]:
        return ASK

    @property
    def draining(self) -> bool:
        return False

    def set_metadata(self, name: str, value: str) -> None:
        self.said = with_entry(self.said, name, value)

    def sign_in(self, identity: Identity) -> None:
        self.identity = identity

    def sign_out(self) -> None:
        self.identity = None


def entry(
    method: Operation[Any, Any],
    handler: Callable[[Any, Context], Any],
    authenticate: Callable[[Metadata, str], Identity | None] | None = None,
) -> Entry:
    return Entry(method, handler, CODEC, 2, LIMITS, authenticate)


def hello(request: AskRequest, context: Context) -> AskResponse:
    return AskResponse(text="hello")


def payload(text: str = "x") -> bytes:
    return CODEC.plan(AskRequest, 2, LIMITS).encode(AskRequest(text=text))


def refused(outcome: object) -> tuple[Status, str, Retry]:
    assert isinstance(outcome, CallError), outcome
    return outcome.status, outcome.reason, outcome.retry


# A call from its payload to its answer --------------------------------------------------------------------------


MEMBERS = ["peer", "codec", "version", "method", "sign_in", "sign_out", "draining", "set_metadata"]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_door_that_forgot_something_is_refused(name: str) -> None:
    """A class of contexts that lacks a member is refused when it is made, with the name of what to define."""
    body = {each: vars(Call)[each] for each in MEMBERS if each != name}
    with pytest.raises(DeclarationError, match=f"Careless is a Context without {name}; define it"):
        type("Careless", (Context,), body)
    type("Careful", (Context,), body | {name: vars(Call)[name]})


@pytest.mark.parametrize("name", ["peer", "codec", "version", "method", "draining"])
def test_a_context_alone_knows_nothing_of_a_call(name: str) -> None:
    """What only a door can say is not there without one."""
    with pytest.raises(NotImplementedError):
        getattr(Context(), name)


def test_a_context_alone_has_nobody_to_call() -> None:
    """Where no server's connection is behind a call, nobody can be called back."""
    with pytest.raises(LocalProtocolError, match="who called cannot be called"):
        Context().client  # noqa: B018 - a property that raises


def test_a_context_alone_signs_nobody_in() -> None:
    """What only a door can do is not done without one."""
    with pytest.raises(NotImplementedError):
        Context().sign_in(OWNER)
    with pytest.raises(NotImplementedError):
        Context().sign_out()
    with pytest.raises(NotImplementedError):
        Context().set_metadata("a", "b")


def test_a_call_is_decoded_handled_and_encoded() -> None:
    """The handler gets the message and the context, and what it answers is encoded."""
    seen: list[object] = []

    def handler(request: AskRequest, context: Context) -> AskResponse:
        seen.extend([request, context])
        return AskResponse(text="hello")

    context = Call()
    assert entry(ASK, handler).run(payload(), context) == HELLO
    assert seen == [AskRequest(text="x"), context]


def test_a_call_whose_time_is_up_is_not_begun() -> None:
    """A deadline that has passed is DEADLINE, not processed; one that has not is no obstacle."""
    outcome = entry(ASK, hello).run(payload(), Call(deadline=time.monotonic()))
    assert refused(outcome) == (Status.DEADLINE_EXCEEDED, "DEADLINE", Retry.NOT_PROCESSED)
    assert entry(ASK, hello).run(payload(), Call(deadline=time.monotonic() + 60)) == HELLO


def test_a_request_too_long_is_refused() -> None:
    """The method's own limit holds to the byte; without one it is the frame's."""
    assert entry(ASK, hello).run(payload("x" * 18), Call()) == HELLO  # an array of one, a text of 18: 20 bytes
    outcome = entry(ASK, hello).run(payload("x" * 19), Call())
    assert refused(outcome) == (Status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", Retry.NEVER)
    assert entry(LATER, hello).max_request == 4096


def test_a_bad_payload_fails_its_call() -> None:
    """What cannot be decoded is BAD_PAYLOAD, with the field."""
    outcome = entry(ASK, hello).run(b"\x91\x01", Call())
    assert refused(outcome) == (Status.INVALID_ARGUMENT, "BAD_PAYLOAD", Retry.NEVER)
    assert "AskRequest.text" in str(outcome)


def test_a_deferred_answer_is_passed_on() -> None:
    """A future goes out as it is, and its result is encoded by whoever waits for it."""
    future: Future[AskResponse] = Future()
    made = entry(ASK, lambda request, context: future)
    assert made.run(payload(), Call()) is future
    assert made.encode(AskResponse(text="hello")) == HELLO


def test_a_stream_gives_its_source() -> None:
    """Iterables become iterators, subscriptions stay what they are, anything else is an incident."""

    class Ticks(Subscription[AskResponse]):
        pass

    ticks = Ticks()
    assert entry(WATCH, lambda request, context: ticks).run(payload(), Call()) is ticks
    source = entry(WATCH, lambda request, context: [AskResponse(text="a")]).run(payload(), Call())
    assert isinstance(source, Iterator)
    assert [*source] == [AskResponse(text="a")]
    assert refused(entry(WATCH, lambda request, context: 5).run(payload(), Call()))[1] == "INTERNAL"


def test_an_item_of_many_streams_is_encoded_once() -> None:
    """The same object gives the same bytes again, while it is small and among the last; a bad one stays an incident."""
    made = entry(WATCH, hello)
    item = AskResponse(text="hello")
    payload = made.encode_shared(item)
    assert payload == HELLO
    assert made.encode_shared(item) is payload
    assert made.encode_shared(AskResponse(text="hello")) is not payload
    others = [AskResponse(text=str(number)) for number in range(SHARED_ITEMS)]
    for other in others:
        made.encode_shared(other)
    again = made.encode_shared(item)
    assert again == payload
    assert again is not payload
    large = AskResponse(text="x" * SHARED_BYTES)
    assert made.encode_shared(large) is not made.encode_shared(large)
    assert refused(made.encode_shared(AskRequest()))[1] == "INTERNAL"


LONG = AskResponse(text="again and again " * 100)
PACKS = Method(opcode=5, name="Packs", request=AskRequest, response=AskResponse, compress=True)


def packing(method: Operation[Any, Any], handler: Callable[..., Any], algorithm: int = 1) -> Entry:
    return Entry(method, handler, CODEC, 2, LIMITS, None, packing=algorithm)


def test_an_answer_is_packed_where_its_method_says_so() -> None:
    """With an algorithm the long answers of a method with ``compress`` are packed; it counts as blocking."""
    made = packing(PACKS, lambda request, context: LONG)
    assert (made.packs, made.blocking) == (True, True)
    outcome = made.run(payload(), Call())
    assert isinstance(outcome, Packed)
    assert outcome.unpack() == entry(PACKS, lambda request, context: LONG).run(payload(), Call())
    assert packing(PACKS, hello).run(payload(), Call()) == HELLO
    for other in (packing(PACKS, hello, 0), packing(ASK, hello), entry(PACKS, hello)):
        assert (other.packs, other.blocking) == (False, False)
    one_way = OneWayMethod(opcode=6, name="Tell", request=AskRequest, compress=True)
    assert not packing(one_way, lambda request, context: None).packs
    table = Handlers(Service("example.v1.PackService", version=2, methods=[PACKS])).table(CODEC, 2, LIMITS, packing=1)
    assert table.entries == {}


def test_a_packed_request_is_run_by_a_twin() -> None:
    """The twin unpacks, counts as blocking, and refuses as ever; what is packed wrongly is BAD_PAYLOAD."""
    made = entry(ASK, lambda request, context: AskResponse(text=request.text))
    assert made.of_packed is made
    twin = made.unpacking()
    assert (twin.blocking, made.blocking, twin.method) == (True, False, ASK)
    right = payload("x" * 15)
    body = len(right).to_bytes(4, "big") + zlib.compress(right)
    assert twin.run(Packed(1, body), Call()) == made.run(right, Call())
    assert refused(twin.run(Packed(1, body + b"x"), Call()))[:2] == (Status.INVALID_ARGUMENT, "BAD_PAYLOAD")
    assert refused(twin.run(Packed(1, b"\0\0\0\x40" + body[4:]), Call()))[1] == "REQUEST_TOO_LARGE"
    assert made.run(right, Call()) == twin.run(Packed(1, body), Call())


def test_a_packed_item_is_read_as_any() -> None:
    """One of the items that follow may be packed or not, and fails its call where that is wrong."""
    made = entry(UploadMethod(opcode=7, name="Put", request=AskRequest, response=AskResponse), hello, None)
    body = len(payload("abc")).to_bytes(4, "big") + zlib.compress(payload("abc"))
    assert made.read(Packed(1, body)) == made.read(payload("abc")) == AskRequest(text="abc")
    with pytest.raises(CallError) as caught:
        made.read(Packed(1, body[:-1]))
    assert caught.value.reason == "BAD_PAYLOAD"


def test_a_packed_item_of_many_streams_is_packed_once() -> None:
    """It is kept by the bytes that it takes packed, however long it is."""
    method = StreamMethod(opcode=8, name="Feed", request=AskRequest, response=AskResponse, compress=True)
    made = packing(method, hello)
    item = AskResponse(text="x" * 3 * SHARED_BYTES)
    found = made.encode_shared(item)
    assert isinstance(found, Packed)
    assert made.encode_shared(item) is found
    noise = AskResponse(text=random.Random(1).randbytes(2 * SHARED_BYTES).hex())
    large = made.encode_shared(noise)
    assert isinstance(large, Packed)
    assert made.encode_shared(noise) is not large


def test_a_subscription_defines_take() -> None:
    """The base class gives nothing, wakes nobody, and says what to define."""
    bare: Subscription[AskResponse] = Subscription()
    bare.wake()
    bare.close("over")
    with pytest.raises(NotImplementedError, match="Subscription must define take"):
        bare.take(1)


# What handlers do wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (AskRequest(), "answered AskRequest; it must answer AskResponse"),
        (None, "answered NoneType"),
        (AskResponse(text=5), "AskResponse.text"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_answer_is_an_incident(answer: object, cause: str, caplog: pytest.LogCaptureFixture) -> None:
    """An answer of another type, or that cannot be written, is INTERNAL; the log has its cause under the number."""
    made = entry(LATER, lambda request, context: answer)
    for outcome in (made.run(payload(), Call()), made.encode(answer)):
        assert refused(outcome) == (Status.INTERNAL, "INTERNAL", Retry.MAYBE_PROCESSED)
        assert isinstance(outcome, CallError)
        assert cause not in str(outcome)
        assert outcome.message.split()[1].rstrip(":") in caplog.text
    assert cause in caplog.text


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_handler_raises_ends_its_call_only(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """An exception is INTERNAL with a number; its text stays in the log."""

    def handler(request: AskRequest, context: Context) -> AskResponse:
        raise error

    outcome = entry(ASK, handler).run(payload(), Call())
    assert refused(outcome) == (Status.INTERNAL, "INTERNAL", Retry.MAYBE_PROCESSED)
    assert "secret" not in str(outcome)
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [{"status": Status.OK}, {"status": 5}, {"message": ValueError("secret")}, {"retry_after_ms": 1.5}],
    ids=str,
)
def test_an_abort_that_cannot_be_sent_is_refused_where_it_is_called(
    arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is an incident, whose traceback in the log ends at the handler's line; nothing of it goes to the caller."""

    def handler(request: AskRequest, context: Context) -> AskResponse:
        context.abort(**{"status": Status.ABORTED, "reason": "NO_TIME", **arguments})

    outcome = entry(ASK, handler).run(payload(), Call())
    assert refused(outcome) == (Status.INTERNAL, "INTERNAL", Retry.MAYBE_PROCESSED)
    assert "secret" not in str(outcome)
    assert 'context.abort(**{"status"' in caplog.text
    assert f"{next(iter(arguments))} is " in caplog.text


def test_an_abort_says_what_its_method_declares(caplog: pytest.LogCaptureFixture) -> None:
    """A declared reason, the framework's, and none go out as they are; one that is undeclared is an incident."""

    def aborting(reason: str) -> object:
        def handler(request: AskRequest, context: Context) -> AskResponse:
            context.abort(Status.NOT_FOUND, reason, "no such thing", retry=Retry.NOT_PROCESSED, retry_after_ms=7)

        return entry(ASK, handler).run(payload(), Call())

    for reason in ("GONE", "", "SERVER_BUSY"):
        outcome = aborting(reason)
        assert refused(outcome) == (Status.NOT_FOUND, reason, Retry.NOT_PROCESSED)
        assert isinstance(outcome, CallError)
        assert (outcome.message, outcome.retry_after_ms) == ("no such thing", 7)
    assert caplog.text == ""
    assert refused(aborting("SHY"))[1] == "INTERNAL"
    assert "does not declare; add it to reasons=" in caplog.text


def test_a_failure_of_something_deferred_is_told_alike(caplog: pytest.LogCaptureFixture) -> None:
    """What a future or a stream ended in is judged as if the handler had raised it."""
    made = entry(ASK, hello)
    assert refused(made.failure(CallError(Status.NOT_FOUND, "GONE", "")))[1] == "GONE"
    assert refused(made.failure(CallError(Status.NOT_FOUND, "SHY", "")))[1] == "INTERNAL"
    assert refused(made.failure(ValueError()))[1] == "INTERNAL"


# Who may call ---------------------------------------------------------------------------------------------------


def test_a_capability_is_asked_for() -> None:
    """None is SIGN_IN_REQUIRED, another one NOT_PERMITTED; the right one is let through, and a revoked one is none."""
    made = entry(OWN, hello)
    needed = (Status.UNAUTHENTICATED, "SIGN_IN_REQUIRED", Retry.NEVER)
    outcome = made.run(payload(), Call())
    assert refused(outcome) == needed
    assert "sign in first" in str(outcome)
    outcome = made.run(payload(), Call(identity=Identity("bob", ["reader"])))
    assert refused(outcome) == (Status.PERMISSION_DENIED, "NOT_PERMITTED", Retry.NEVER)
    assert made.run(payload(), Call(identity=OWNER)) == HELLO
    gone = Identity("eve", ["owner"])
    gone.revoke()
    context = Call(identity=gone)
    assert refused(made.run(payload(), context)) == needed
    assert context.identity is None


def test_the_calls_own_credential_wins() -> None:
    """authorization is asked about, whatever the connection's identity is, also where nothing is required."""
    asked: list[tuple[str, str]] = []

    def authenticate(metadata: Metadata, peer: str) -> Identity | None:
        asked.append((metadata.authorization, peer))
        return OWNER if metadata.authorization == "good" else None

    made = entry(OWN, hello, authenticate)
    assert made.run(payload(), Call(Metadata(authorization="good"))) == HELLO
    outcome = made.run(payload(), Call(Metadata(authorization="bad"), OWNER))
    assert refused(outcome)[1] == "SIGN_IN_REQUIRED"
    assert "not accepted here" in str(outcome)
    context = Call(Metadata(authorization="good"))
    assert entry(LATER, hello, authenticate).run(payload(), context) == HELLO
    assert context.identity is OWNER
    assert asked == [("good", "peer:1"), ("bad", "peer:1"), ("good", "peer:1")]
    context = Call(Metadata(authorization="good"), OWNER)
    assert entry(LATER, hello).run(payload(), context) == HELLO
    assert context.identity is None, "nobody is there to ask"


def test_an_identity_shows_what_it_is() -> None:
    """Its repr has the subject, the capabilities and whether it still counts."""
    identity = Identity("ann", ["b", "a"])
    assert (repr(identity), identity.revoked) == ("Identity('ann', ['a', 'b'])", False)
    identity.revoke()
    assert (repr(identity), identity.revoked) == ("Identity('ann', ['a', 'b'], revoked)", True)


def test_a_copied_identity_is_revoked_with_it() -> None:
    """Whoever has a copy does not keep what was taken away."""
    identity = Identity("ann", ["owner"])
    copies = [copy.copy(identity), copy.deepcopy([identity])[0]]
    identity.revoke()
    assert all(each.revoked for each in copies)


@pytest.mark.parametrize(
    ("method", "given", "seconds"),
    [(ASK, None, None), (ASK, 5.0, 5.0), (OWN, None, 2.0), (OWN, 5.0, 2.0), (OWN, 1.0, 1.0)],
)
def test_a_call_is_due_by_its_caller_or_the_cap(
    method: Method[AskRequest, AskResponse], given: float | None, seconds: float | None
) -> None:
    """Whichever ends earlier: what the caller gives, or the method's ``timeout``."""
    before = time.monotonic()
    due = entry(method, lambda request, context: AskResponse(text="")).due(given)
    if seconds is None:
        assert due is None
    else:
        assert due is not None
        assert before + seconds <= due <= time.monotonic() + seconds


def test_a_context_counts_down() -> None:
    """remaining is None without a deadline, and never below nothing."""
    assert Call().remaining() is None
    assert Call(deadline=time.monotonic() - 5).remaining() == 0.0
    left = Call(deadline=time.monotonic() + 60).remaining()
    assert left is not None
    assert 0 < left <= 60


# Calls whose items follow, and one-way calls ---------------------------------------------------------------------


class Gathering(Sink[AskRequest, AskResponse]):
    """Joins the words that come."""

    def __init__(self, context: Context) -> None:
        self.words: list[str] = []

    def receive(self, item: AskRequest) -> None:
        self.words.append(item.text)

    def finished(self) -> AskResponse:
        return AskResponse(text=" ".join(self.words))


class Talking(Gathering, Subscription[AskResponse]):
    """Joins them, and may give something back."""


def sinks_of(method: Operation[Any, Any], maker: Callable[[Context], Any]) -> Entry:
    return Entry(method, maker, CODEC, 2, LIMITS, None, sinks=True)


def many(*texts: str) -> Iterator[AskRequest]:
    return iter([AskRequest(text=text) for text in texts])


def test_a_call_whose_items_follow_is_judged_before_them() -> None:
    """Deadline and permission are looked at with the REQUEST, and whatever authenticating raises is an incident."""
    made = sinks_of(GATHER, Gathering)
    assert made.admit(Call(identity=OWNER, deadline=time.monotonic() + 60)) is None
    assert refused(made.admit(Call(identity=OWNER, deadline=time.monotonic() - 1))) == (
        Status.DEADLINE_EXCEEDED,
        "DEADLINE",
        Retry.NOT_PROCESSED,
    )
    assert refused(made.admit(Call()))[1] == "SIGN_IN_REQUIRED"
    assert refused(made.admit(Call(identity=Identity("bob"))))[1] == "NOT_PERMITTED"

    def broken(metadata: Metadata, peer: str) -> Identity | None:
        raise ValueError("the door is stuck")

    stuck = Entry(GATHER, Gathering, CODEC, 2, LIMITS, broken, sinks=True)
    outcome = stuck.admit(Call(Metadata(authorization="x")))
    assert refused(outcome)[1] == "INTERNAL"
    assert "stuck" not in str(outcome)

    def gone(metadata: Metadata, peer: str) -> Identity | None:
        raise CallError(Status.UNAVAILABLE, "GONE", "no door")

    outcome = Entry(GATHER, Gathering, CODEC, 2, LIMITS, gone, sinks=True).admit(Call(Metadata(authorization="x")))
    assert refused(outcome) == (Status.UNAVAILABLE, "GONE", Retry.NEVER)


def test_a_sink_is_made_for_each_call() -> None:
    """What was registered is called with the context; what it made takes the items."""
    made = sinks_of(GATHER, Gathering)
    assert made.sinks
    first, second = made.open(Call()), made.open(Call())
    assert isinstance(first, Gathering)
    assert first is not second
    assert isinstance(sinks_of(TALK, Talking).open(Call()), Talking)


@pytest.mark.parametrize(
    ("method", "made", "wanted"),
    [
        (GATHER, 5, "made int; it must be a Sink"),
        (TALK, Gathering(Call()), "it must be both a Sink and a Subscription"),
    ],
    ids=["upload", "duplex"],
)
def test_what_is_no_sink_is_an_incident(
    method: Operation[Any, Any], made: object, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A maker that makes something else fails the call, and the log says what it should make."""
    assert refused(sinks_of(method, lambda context: made).open(Call()))[1] == "INTERNAL"
    assert wanted in caplog.text


def test_what_a_maker_of_sinks_raises_ends_the_call() -> None:
    """A declared reason arrives, anything else is an incident."""

    def refusing(context: Context) -> Gathering:
        context.abort(Status.ABORTED, "GONE", "not today")

    def failing(context: Context) -> Gathering:
        raise SystemExit("secret")

    assert refused(sinks_of(GATHER, refusing).open(Call())) == (Status.ABORTED, "GONE", Retry.NEVER)
    outcome = sinks_of(GATHER, failing).open(Call())
    assert refused(outcome)[1] == "INTERNAL"
    assert "secret" not in str(outcome)


def test_an_item_is_read_as_a_request_is() -> None:
    """Each item has the limits of a request, and what is none is refused as one."""
    made = sinks_of(GATHER, Gathering)
    assert made.read(payload("word")) == AskRequest(text="word")
    with pytest.raises(CallError, match="an item is 31 bytes; Gather takes at most 20") as large:
        made.read(payload("w" * 29))
    with pytest.raises(CallError, match=r"AskRequest") as bad:
        made.read(b"\xc1")
    assert (large.value.reason, bad.value.reason) == ("REQUEST_TOO_LARGE", "BAD_PAYLOAD")
    assert bad.value.__cause__ is None


def test_an_upload_that_collects_is_given_all_at_once() -> None:
    """Its handler has a list and is run once; one item more than declared is refused."""
    seen: list[list[AskRequest]] = []

    def handler(items: list[AskRequest], context: Context) -> AskResponse:
        seen.append(items)
        return AskResponse(text="hello")

    made = entry(COLLECT, handler)
    assert made.sinks
    sink = made.open(Call())
    assert isinstance(sink, Sink)
    assert (sink.receive(AskRequest(text="a")), sink.receive(AskRequest(text="b"))) == (None, None)
    assert seen == []
    assert made.outcome(sink.finished()) == HELLO
    assert seen == [[AskRequest(text="a"), AskRequest(text="b")]]
    with pytest.raises(CallError, match="Collect takes at most 2 items in one call") as caught:
        sink.receive(AskRequest())
    assert caught.value.reason == "REQUEST_TOO_LARGE"


def test_a_handler_may_iterate_over_the_items() -> None:
    """It is given an iterator, and what it returns is what its shape answers."""

    def joining(items: Iterator[AskRequest], context: Context) -> AskResponse:
        return AskResponse(text="".join(item.text for item in items))

    def answering(items: Iterator[AskRequest], context: Context) -> Iterator[AskResponse]:
        for item in items:
            yield AskResponse(text=item.text * 2)

    assert entry(GATHER, joining).run_items(many("hel", "lo"), Call()) == HELLO
    answers = entry(TALK, answering).run_items(many("a", "b"), Call())
    assert isinstance(answers, Iterator)
    assert list(answers) == [AskResponse(text="aa"), AskResponse(text="bb")]
    future: Future[AskResponse] = Future()
    assert entry(GATHER, lambda items, context: future).run_items(many(), Call()) is future
    assert not entry(GATHER, joining).sinks


def test_what_an_iterating_handler_raises_ends_the_call() -> None:
    """An item that cannot be had is told to the caller as it is; what the handler raises is an incident."""

    def read(word: str) -> AskRequest:
        raise failure("BAD_PAYLOAD", f"{word} is none")

    def failing(items: Iterator[AskRequest], context: Context) -> AskResponse:
        raise KeyError("secret")

    taking = entry(GATHER, lambda items, context: next(items))
    assert refused(taking.run_items(map(read, ["first"]), Call()))[1] == "BAD_PAYLOAD"
    assert refused(entry(GATHER, failing).run_items(many(), Call()))[1] == "INTERNAL"
    assert refused(taking.run_items(many("a"), Call()))[1] == "INTERNAL"  # it answers a request


def test_a_one_way_handler_returns_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to encode; whatever it returns in place of that is an incident, a future too."""
    seen: list[str] = []
    noting = entry(NOTE, lambda request, context: seen.append(request.text))
    assert noting.run(payload("x"), Call()) == b""
    assert seen == ["x"]
    wrongs: list[object] = [AskResponse(text="hello"), NOTE.response(), Future()]
    answering = entry(NOTE, lambda request, context: wrong)
    for wrong in wrongs:
        assert refused(answering.run(payload(), Call()))[1] == "INTERNAL"
        assert f"the handler of Note answered {type(wrong).__name__}; it must return nothing" in caplog.text
    assert refused(noting.run(b"\xc1", Call()))[1] == "BAD_PAYLOAD"


def test_a_sink_must_define_what_it_does() -> None:
    """A sink without receive or finished says which, and failed may be left out."""
    bare: Sink[AskRequest, AskResponse] = Sink()
    with pytest.raises(NotImplementedError, match=r"Sink must define receive\(self, item\)"):
        bare.receive(AskRequest())
    with pytest.raises(NotImplementedError, match=r"Sink must define finished\(self\)"):
        bare.finished()
    bare.failed(failure("CANCELLED", "gone"))
    bare.answer(AskResponse(text="nobody is there"))


# Registering the other shapes -----------------------------------------------------------------------------------


def test_sinks_are_registered_and_looked_up() -> None:
    """A method has either; a table knows which, and an older service has those of its methods."""
    handlers = Handlers(MANY)
    assert handlers.sink(GATHER)(Gathering) is Gathering
    handlers.sink(TALK)(Talking)
    handlers.sink(ONCE)(Gathering)
    handlers.register(COLLECT)(lambda items, context: AskResponse(text=str(len(items))))
    assert handlers.missing() == [NOTE]
    assert handlers.handler(GATHER) is Gathering
    table = handlers.table(CODEC, 2, LIMITS)
    assert {opcode: made.sinks for opcode, made in table.entries.items()} == {
        GATHER.opcode: True,
        COLLECT.opcode: True,
        TALK.opcode: True,
    }
    older = handlers.as_of(1).table(CODEC, 1, LIMITS)
    assert older.entries[ONCE.opcode].sinks
    iterating = Handlers(MANY)
    iterating.register(GATHER)(lambda items, context: AskResponse(text=""))
    assert not iterating.table(CODEC, 2, LIMITS).entries[GATHER.opcode].sinks


def test_a_wrong_registration_of_a_sink_is_refused() -> None:
    """A sink is of items that follow one by one, is no coroutine, and is registered as what it is."""
    handlers = Handlers(MANY)
    handlers.sink(TALK)(Talking)
    wrong: Any = handlers.sink
    for method in (NOTE, ASK, WATCH, Gathering, None):
        with pytest.raises(
            DeclarationError, match=r"write @handlers\.sink\(METHOD\), with an UploadMethod or a Duplex"
        ):
            wrong(method)
    with pytest.raises(DeclarationError, match=r"Collect collects its items; write @handlers\.register\(Collect\)"):
        handlers.sink(COLLECT)
    with pytest.raises(DeclarationError, match="Talk has a handler already"):
        handlers.sink(TALK)
    with pytest.raises(DeclarationError, match="Talk has a handler already"):
        handlers.register(TALK)
    stranger = UploadMethod(opcode=0, name="Gather", request=AskRequest, response=AskResponse)
    with pytest.raises(DeclarationError, match="is not a method of"):
        handlers.sink(stranger)
    register: Any = handlers.register(GATHER)
    with pytest.raises(DeclarationError, match=r"Gathering is a Sink; write @handlers\.sink\(Gather\)"):
        register(Gathering)
    wrong = handlers.sink(GATHER)
    with pytest.raises(DeclarationError, match="is async"):
        wrong(_coroutine)
    assert handlers.missing() == [GATHER, COLLECT, NOTE, ONCE]
    assert not handlers.table(CODEC, 1, LIMITS).entries.keys() & {GATHER.opcode}


# Handlers and tables --------------------------------------------------------------------------------------------


def registered(*methods: Operation[Any, Any]) -> Handlers:
    handlers = Handlers(SERVICE)
    for method in methods:
        handlers.register(method)(hello)  # type: ignore[call-overload]
    return handlers


def test_a_table_has_what_its_version_has() -> None:
    """Each version's table has the handlers of its methods; what it lacks is explained."""
    handlers = registered(ASK, OLD, LATER)
    table = handlers.table(CODEC, 1, LIMITS)
    assert sorted(table.entries) == [ASK.opcode, OLD.opcode]
    assert sorted(handlers.table(CODEC, 2, LIMITS).entries) == [ASK.opcode, LATER.opcode]
    explained = {
        9: ("UNKNOWN_OPCODE", "opcode 0x0009 is not in example.v1.AskService"),
        OWN.opcode: ("NO_HANDLER", "no handler for Own"),
        WATCH.opcode: ("UNKNOWN_OPCODE", "Watch exists since version 2; this connection speaks version 1"),
    }
    for opcode, (reason, text) in explained.items():
        error = table.missing(opcode)
        assert refused(error) == (Status.UNIMPLEMENTED, reason, Retry.NEVER)
        assert text in str(error)
    assert "until version 1" in str(handlers.table(CODEC, 2, LIMITS).missing(OLD.opcode))
    assert isinstance(table, Table)


def test_a_method_is_found_under_the_flags_of_its_shape() -> None:
    """A REQUEST without flags is a unary one; the shape of a method that is there is told, and else the opcode."""
    table = registered(ASK, WATCH).table(CODEC, 2, LIMITS)
    assert list(table.unary.values()) == [table.entries[ASK.opcode]]
    stream = Flag.ITEMS_COME_BACK
    assert table.find(ASK.opcode, Flag.NONE) is table.entries[ASK.opcode]
    assert table.find(WATCH.opcode, stream) is table.entries[WATCH.opcode]
    for method, right in ((ASK, Flag.NONE), (WATCH, stream)):
        for flags in (Flag.NONE, Flag.ONE_WAY, Flag.ITEMS_FOLLOW, stream, Flag.ITEMS_FOLLOW | stream):
            if flags == right:
                continue
            assert table.find(method.opcode, flags) is None
            error = table.missing(method.opcode, flags)
            assert refused(error) == (Status.UNIMPLEMENTED, "WRONG_SHAPE", Retry.NOT_PROCESSED)
            assert f"{method.name} is called by a REQUEST with flags {right:#04x}; this one has {flags:#04x}" in str(
                error
            )
    assert table.find(9, stream) is table.find(LATER.opcode, stream) is None
    assert table.missing(9, stream).reason == "UNKNOWN_OPCODE"
    assert table.missing(LATER.opcode, stream).reason == "NO_HANDLER"


def test_an_entry_knows_its_method() -> None:
    """What a door needs of the method is at hand."""
    made = entry(WATCH, hello)
    assert (made.shape, made.sinks, made.blocking, made.timeout, made.method) == (
        Shape.STREAM,
        False,
        True,
        None,
        WATCH,
    )
    assert entry(OWN, hello).timeout == 2.0


def test_handlers_are_looked_up_and_missed() -> None:
    """The methods without a handler are told in order; one that has one gives the function."""
    handlers = registered(OWN)
    assert handlers.missing() == [ASK, WATCH, OLD, LATER]
    assert handlers.handler(OWN) is hello
    assert handlers.handler(ASK) is None


def test_an_older_server_has_the_older_functions() -> None:
    """as_of keeps the functions of the methods that the version has."""
    older = registered(ASK, WATCH, OLD, LATER).as_of(1)
    assert older.service.version == 1
    assert [method.name for method in older.missing()] == ["Own"]


async def _coroutine(request: AskRequest, context: Context) -> AskResponse:
    return AskResponse(text="never awaited")


async def _generator(request: AskRequest, context: Context) -> Any:
    yield AskResponse(text="never awaited")


def test_a_wrong_registration_is_refused() -> None:
    """What is no service, method of it, or plain function is refused with what to write."""
    handlers = registered(ASK)
    stranger = Method(opcode=0, name="Ask", request=AskRequest, response=AskResponse)
    with pytest.raises(DeclarationError, match="handlers are of a Service"):
        Handlers("example.v1.AskService")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=r"@handlers.register\(METHOD\)"):
        handlers.register(hello)  # type: ignore[call-overload]
    with pytest.raises(DeclarationError, match="is not a method of"):
        handlers.register(stranger)
    with pytest.raises(DeclarationError, match="has a handler already"):
        handlers.register(ASK)
    for function in (_coroutine, _generator):
        with pytest.raises(DeclarationError, match="is async"):
            handlers.register(OWN)(function)  # type: ignore[arg-type]


def test_each_service_is_served_once() -> None:
    """One or several handlers are taken, but neither none nor two of a service nor anything else."""
    handlers = registered(ASK)
    assert each_service(handlers) == each_service([handlers]) == [handlers]
    with pytest.raises(ConfigError, match="at least one"):
        each_service([])
    with pytest.raises(ConfigError, match="given twice"):
        each_service([handlers, registered(OWN)])
    with pytest.raises(ConfigError, match=r"write Handlers\(service\)"):
        each_service([SERVICE])  # type: ignore[list-item]


def test_the_frameworks_reasons_have_their_status() -> None:
    """Each is UPPER_SNAKE, none is OK, and its error has what the table says unless it is told otherwise."""
    for reason, (status, retry) in REASONS.items():
        assert reason.isupper()
        assert status is not Status.OK
        error = failure(reason, "text")
        assert (error.status, error.reason, error.message, error.retry) == (status, reason, "text", retry)
        assert failure(reason, "text", retry=Retry.NOT_PROCESSED).retry is Retry.NOT_PROCESSED


def test_a_subscription_lets_the_server_keep_what_found_no_room() -> None:
    """Unless it says otherwise, the items that it gave and that could not be sent are the server's to send."""
    items = [AskResponse(text="a"), AskResponse(text="b")]
    assert Subscription[AskResponse]().keep(items) is items


def test_a_subscription_waits_for_its_caller_unless_it_says_otherwise() -> None:
    """Without credit nothing is asked of it, and it goes on."""
    source = Subscription[AskResponse]()
    source.stalled()
    source.close("over")


SERVERS = Method(opcode=0x30, name="Poke", request=AskRequest, response=AskResponse, by="server")
BOTH_SIDES = Service("example.v1.BothService", 1, [ASK, SERVERS])


def test_each_side_has_a_table_of_what_the_other_calls() -> None:
    """A method of the wrong side is an unknown opcode, which nobody has processed."""
    handlers = Handlers(BOTH_SIDES)
    handlers.register(ASK)(hello)
    handlers.register(SERVERS)(hello)
    at_the_server = handlers.table(CODEC, 1, LIMITS)
    at_the_client = handlers.table(CODEC, 1, LIMITS, by="server")
    assert (list(at_the_server.entries), list(at_the_client.entries)) == (
        [ASK.opcode],
        [SERVERS.opcode],
    )
    for table, method, side in ((at_the_server, SERVERS, "server"), (at_the_client, ASK, "client")):
        error = table.missing(method.opcode)
        assert refused(error) == (Status.UNIMPLEMENTED, "UNKNOWN_OPCODE", Retry.NOT_PROCESSED)
        assert f"{method.name} is called by the {side}, and this is the {side}" in str(error)
    assert "this client has no handler for Poke" in str(
        Handlers(BOTH_SIDES).table(CODEC, 1, LIMITS, by="server").missing(SERVERS.opcode)
    )


def test_handlers_are_of_the_methods_that_the_other_side_calls() -> None:
    """One that would never run is refused, and what is missing is asked of one side."""
    handlers = Handlers(BOTH_SIDES)
    assert (handlers.missing(), handlers.missing("server")) == ([ASK], [SERVERS])
    handlers.register(SERVERS)(hello)
    handlers.check_side("server")
    with pytest.raises(ConfigError, match=r"Poke is called by the server, .* to connect\(handlers=...\)"):
        each_service(handlers)
    handlers = Handlers(BOTH_SIDES)
    handlers.register(ASK)(hello)
    with pytest.raises(ConfigError, match=r"Ask is called by the client, .* to a Server"):
        handlers.check_side("server")


class Tick(Message):
    number: int
    name: str = "x"


TICKS = StreamMethod(opcode=0x40, name="Ticks", request=AskRequest, response=Tick, resumable="number")
NAMES = StreamMethod(opcode=0x41, name="Names", request=AskRequest, response=Tick, resumable="name")
ANEW = StreamMethod(opcode=0x42, name="Anew", request=AskRequest, response=Tick)
TICKING = Service("example.v1.TickingService", 1, [TICKS, NAMES, ANEW])


class Begun(Call):
    """A call of one of the methods that tick."""

    def __init__(self, method: Operation[Any, Any], written: bytes) -> None:
        super().__init__(Metadata(resume_after=written))
        self.called = method

    @property
    def method(self) -> Operation[Any, Any]:
        return self.called


def begin(method: Any, written: bytes, handler: Callable[..., Any]) -> object:
    handlers = Handlers(TICKING)
    handlers.register(method)(handler)
    entry = handlers.table(CODEC, 1, LIMITS).entries[method.opcode]
    return entry.run(CODEC.plan(AskRequest, 1, LIMITS, request=True).encode(AskRequest()), Begun(method, written))


@pytest.mark.parametrize(
    ("method", "written", "seen"),
    [(TICKS, b"", None), (TICKS, b"-7", -7), (NAMES, b"\xc3\xa9", "é"), (ANEW, b"", None)],
)
def test_a_handler_is_given_the_position_as_the_field_has_it(method: Any, written: bytes, seen: object) -> None:
    """None for whoever begins."""
    found: list[object] = []

    def ticks(request: AskRequest, context: Context) -> list[Tick]:
        found.append(context.resume_after)
        return []

    assert not isinstance(begin(method, written, ticks), CallError)
    assert found == [seen]


@pytest.mark.parametrize(("method", "written"), [(TICKS, b"x"), (NAMES, b"\xff"), (ANEW, b"1")])
def test_a_position_that_is_none_is_lost_before_the_handler(method: Any, written: bytes) -> None:
    """A stranger wrote it: the handler is not run, and the caller may begin without it."""
    ran: list[object] = []
    error = begin(method, written, lambda request, context: ran.append(request))
    assert refused(error) == (Status.OUT_OF_RANGE, "POSITION_LOST", Retry.NOT_PROCESSED)
    assert "without" in str(error)
    assert not ran


@pytest.mark.parametrize("message", ["", "the log begins at 9"])
def test_a_handler_says_in_a_line_that_it_cannot_go_on(message: str) -> None:
    """Whether it has more to say or not."""
    error = begin(TICKS, b"1", lambda request, context: context.position_lost(message))
    assert refused(error) == (Status.OUT_OF_RANGE, "POSITION_LOST", Retry.NOT_PROCESSED)
    assert (message or "begin it without one") in str(error)


def test_a_unary_call_has_no_position() -> None:
    """The key means nothing there."""
    assert Call(Metadata(resume_after=b"1")).resume_after is None


def test_an_item_that_nobody_could_go_on_behind_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    """It is an incident, with the reason in the log."""
    handlers = Handlers(TICKING)
    handlers.register(NAMES)(lambda request, context: [])
    handlers.register(ANEW)(lambda request, context: [])
    table = handlers.table(CODEC, 1, LIMITS)
    assert table.entries[NAMES.opcode].encode(Tick(number=1, name="x" * 64)) == table.entries[ANEW.opcode].encode(
        Tick(number=1, name="x" * 64)
    )
    for name in ("", "x" * 65):
        assert refused(table.entries[NAMES.opcode].encode(Tick(number=1, name=name)))[1] == "INTERNAL"
        assert isinstance(table.entries[ANEW.opcode].encode(Tick(number=1, name=name)), bytes)
    assert "a position has 1 to 64 bytes" in caplog.text


# What an answer says beside itself, and the details of errors -----------------------------------------------------


class Missing(Message):
    """Details of an error."""

    article: str
    left: int = 0


SELL = Method(opcode=5, name="Sell", request=AskRequest, response=AskResponse, reasons=["SOLD"], errors=[Missing])


def selling(error: CallError) -> CallError:
    """What becomes of an error that a handler raises."""

    def handler(request: AskRequest, context: Context) -> AskResponse:
        raise error

    entry = Entry(SELL, handler, CODEC, 2, LIMITS, None, package="shop.v1")
    outcome = entry.run(payload(), Call())
    assert isinstance(outcome, CallError)
    return outcome


def test_details_travel_under_their_full_name() -> None:
    """They are encoded as the connection speaks, in another error than the one raised, which may be a shared one."""
    error = CallError(
        Status.ABORTED, "SOLD", "none", retry=Retry.NOT_PROCESSED, retry_after_ms=5, details=Missing(article="ink")
    )
    outcome = selling(error)
    written = CODEC.plan(Missing, 2, LIMITS, request=False).encode(Missing(article="ink"))
    assert outcome.packed_details == PackedDetails("shop.v1.Missing", written)
    assert (outcome.details, error.packed_details) == (Missing(article="ink"), None)
    assert (refused(outcome), outcome.message, outcome.retry_after_ms) == (refused(error), "none", 5)
    plain = CallError(Status.ABORTED, "SOLD")
    assert selling(plain) is plain


@pytest.mark.parametrize("details", [AskRequest(), Missing(article=7)], ids=["undeclared", "wrong"])  # type: ignore[arg-type]
def test_details_that_cannot_be_sent_are_an_incident(details: Message) -> None:
    """A message that the method does not declare, or that cannot be encoded, is the handler's fault."""
    outcome = selling(CallError(Status.ABORTED, details=details))
    assert (outcome.status, outcome.details, outcome.packed_details) == (Status.INTERNAL, None, None)


def test_a_handler_aborts_with_details_and_metadata() -> None:
    """Both are the call's: what is said beside the error, and what the error is."""
    call = Call()
    with pytest.raises(CallError) as caught:
        call.abort(Status.ABORTED, "SOLD", details=Missing(article="ink"), metadata={"region": "eu"})
    assert (caught.value.details, call.said) == (Missing(article="ink"), {"region": "eu"})
    with pytest.raises(EncodeError):
        call.abort(Status.ABORTED, metadata={"grpc-status": "0"})
    with pytest.raises(ValueError, match="status is OK"):
        call.abort(Status.OK, metadata={"other": "x"})
    assert call.said == {"region": "eu"}
