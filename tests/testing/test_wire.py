"""pair: a client and a server back to back, and the bytes between them."""

import logging
from concurrent.futures import Future

import pytest
from calculator import ADD, CALCULATOR, AddRequest, handlers

from tests.protos.versions import GROW, GROWING, GrowRequest, Leaf
from tests.server.service import (
    BLOCK,
    COUNT,
    DEFER,
    ECHO,
    FAIL,
    FEED,
    SIGN_IN,
    SIGN_OUT,
    WHO,
    BlockRequest,
    CountRequest,
    DeferRequest,
    DeferResponse,
    EchoRequest,
    EchoResponse,
    FailRequest,
    FeedRequest,
    SignInRequest,
    SignOutRequest,
    Stage,
    WhoRequest,
)
from wireproto import (
    CallError,
    EncodeError,
    HandshakeError,
    Limits,
    LocalProtocolError,
    Metadata,
    Retry,
    Status,
)
from wireproto.schema import Method, Service
from wireproto.testing import Pair, chunked, pair
from wireproto.wire.connection import Role, State
from wireproto.wire.events import CancelReceived, ErrorReceived, HelloReceived, ItemReceived, RequestReceived
from wireproto.wire.frame import PREAMBLE, Flag


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def link(stage: Stage) -> Pair:
    return pair(stage.handlers, authenticate=stage.authenticate)


@pytest.mark.parametrize(
    ("codec", "request_", "answer"), [("pipe", b"2|3", b"5"), ("msgpack", b"\x92\x02\x03", b"\x91\x05")]
)
def test_a_call_goes_over_the_wire(codec: str, request_: bytes, answer: bytes) -> None:
    """A call is bytes of its codec in both directions, which can be looked at."""
    link = pair(handlers, codec=codec)
    assert link.call(ADD, AddRequest(left=2, right=3)).total == 5
    asked, answered = link.sent[-2:]
    assert (asked.by, asked.data[16:]) == (Role.CLIENT, request_)
    assert (answered.by, answered.data[16:]) == (Role.SERVER, answer)
    assert link.sent_by(Role.SERVER).startswith(PREAMBLE)


def test_the_transcript_is_for_people() -> None:
    """Each frame is a line that says who sent what."""
    link = pair(handlers, codec="pipe")
    link.call(ADD, AddRequest(left=2, right=3))
    lines = link.transcript().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "client preamble",
        "client HELLO",
        "server preamble",
        "server WELCOME",
        "client REQUEST call 1 opcode 0x0010",
        "server RESPONSE call 1 opcode 0x0010",
    ]
    assert lines[-2].endswith(": 32 7c 33")


def test_with_a_service_alone_the_test_plays_the_server() -> None:
    """Requests arrive as events, and the test answers through the connection."""
    link = pair(CALCULATOR, codec="pipe")
    call_id = link.start(ADD, AddRequest(left=2, right=3))
    (event,) = link.deliver(link.client)
    assert isinstance(event, RequestReceived)
    assert event.payload == b"2|3"
    link.server.send_error(call_id, CallError(Status.ABORTED, "", "not today"))
    (answer,) = link.deliver(link.server)
    assert isinstance(answer, ErrorReceived)
    assert answer.error.message == "not today"
    with pytest.raises(LocalProtocolError, match="nobody answers Add"):
        link.call(ADD, AddRequest(left=2, right=3))


def test_the_handshake_can_be_left_to_the_test() -> None:
    """Without it the client has said nothing; a test may send HELLO in pieces, or say something else."""
    link = pair(CALCULATOR, handshake=False)
    assert link.client.state is State.START
    link.greet()
    hello = link.sent_by(Role.CLIENT)
    for pieces in chunked(hello):
        server = pair(CALCULATOR, handshake=False).server
        for piece in pieces:
            server.receive_data(piece)
        assert isinstance(server.next_event(), HelloReceived)


def test_each_side_may_have_a_version_of_its_own() -> None:
    """The newest common version is spoken, whichever side is the older one."""
    for served, declared in ((3, 2), (2, 3)):
        link = pair(GROWING.as_of(served), service=GROWING.as_of(declared))
        assert (link.version, link.client.version, link.server.version) == (2, 2, 2)
        link.start(GROW, GrowRequest(size=1))
        with pytest.raises(EncodeError, match=r"GrowRequest\.leaf"):
            link.start(GROW, GrowRequest(size=1, leaf=Leaf(number=1, name="new in 3")))


def test_a_refused_handshake_is_raised() -> None:
    """Two sides that declare a method differently do not come together, and the client is told why."""
    other = Method(opcode=0x10, name="Add", request=EchoRequest, response=EchoResponse)
    with pytest.raises(HandshakeError, match="CONTRACT_MISMATCH"):
        pair(handlers, service=Service(CALCULATOR.full_name, methods=[other]))


def test_a_stream_comes_item_by_item(stage: Stage, link: Pair) -> None:
    """An iterator is pulled as far as the credit goes, and closed when the caller has had enough."""
    stream = link.stream(COUNT, CountRequest(upto=5), credit=2)
    assert [next(stream).n for _ in range(3)] == [0, 1, 2]
    stream.close()
    assert stage.generators_closed.is_set()
    assert [item.n for item in link.stream(COUNT, CountRequest(upto=100), credit=3)] == list(range(100))


def test_the_bytes_of_a_stream_have_a_window(link: Pair) -> None:
    """A first credit of one byte lets one item pass, which takes more; the next one waits until its bytes are back."""
    call_id = link.start(COUNT, CountRequest(upto=5), credit=5, window=1)
    (item,) = link.exchange()
    assert isinstance(item, ItemReceived)
    assert link.client.credit_out(call_id) == (4, 1 - len(item.payload))
    link.client.send_credit(call_id, 0, len(item.payload) - 1)
    assert link.exchange() == []
    link.client.send_credit(call_id, 0, 1)
    assert [type(event) for event in link.exchange()] == [ItemReceived]
    assert [item.n for item in link.stream(COUNT, CountRequest(upto=5), window=1)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("opcode", "flags"),
    [
        (ECHO.opcode, Flag.ITEMS_COME_BACK),
        (ECHO.opcode, Flag.ITEMS_FOLLOW),
        (COUNT.opcode, Flag.NONE),
        (COUNT.opcode, Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK),
    ],
)
def test_flags_that_are_not_the_shape_of_the_method_are_refused(link: Pair, opcode: int, flags: Flag) -> None:
    """A call of another shape than its method's is WRONG_SHAPE, as on a real server, and the pair lives."""
    if flags:
        link.client.send_flagged_request(flags, opcode, b"")
    else:
        link.client.send_request(opcode, b"")
    (refused,) = link.exchange()
    assert isinstance(refused, ErrorReceived)
    assert (refused.error.status, refused.error.reason) == (Status.UNIMPLEMENTED, "WRONG_SHAPE")
    assert refused.error.retry is Retry.NOT_PROCESSED
    assert link.call(ECHO, EchoRequest(text="a")).text == "a"


def test_a_stream_that_fails_raises(link: Pair) -> None:
    """The items before the failure come first."""
    stream = link.stream(COUNT, CountRequest(upto=2, fail=True))
    assert [next(stream).n, next(stream).n] == [0, 1]
    with pytest.raises(CallError, match="counted enough"):
        next(stream)


def test_a_subscription_is_asked_when_bytes_move(stage: Stage, link: Pair) -> None:
    """What a subscription has is sent with the next exchange, within its credit; the end of the call closes it."""
    call_id = link.start(FEED, FeedRequest(name="news"), credit=2)
    assert link.exchange() == []
    feed = stage.feed("news")
    feed.put("a", "b", "c")
    assert len(link.exchange()) == 2
    link.client.send_credit(call_id, 5, 0)
    assert len(link.exchange()) == 1
    link.client.send_cancel(call_id)
    link.exchange()
    assert feed.closed == ["the caller cancelled"]


def test_a_stream_without_items_yet_ends_and_goes_no_further(stage: Stage, link: Pair) -> None:
    """Nothing here can wait: iterating a stream that pauses ends with the items that are there."""
    stream = link.stream(FEED, FeedRequest(name="news"))
    assert list(stream) == []
    assert stage.feed("news").closed == ["the caller cancelled"]


def test_a_future_is_answered_once_it_is_done(stage: Stage, link: Pair) -> None:
    """A deferred answer is sent with the exchange after its completion."""
    with pytest.raises(LocalProtocolError, match="Defer is not answered yet"):
        link.call(DEFER, DeferRequest(name="later"))
    call_id = link.start(DEFER, DeferRequest(name="soon"))
    assert link.exchange() == []
    stage.future("soon").set_result(DeferResponse(name="soon"))
    (event,) = link.exchange()
    assert getattr(event, "call_id", 0) == call_id


def test_a_failed_future_is_an_incident(stage: Stage, link: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """The text of a future's exception stays in the log."""
    link.start(DEFER, DeferRequest(name="bad"))
    link.exchange()
    future: Future[DeferResponse] = stage.future("bad")
    future.set_exception(ValueError("secret"))
    with caplog.at_level(logging.ERROR):
        (event,) = link.exchange()
    assert isinstance(event, ErrorReceived)
    assert event.error.reason == "INTERNAL"
    assert "secret" not in str(event.error)
    assert "secret" in caplog.text


def test_refusals_are_the_dispatchers(link: Pair) -> None:
    """Identity, declared reasons, bad payloads and unknown opcodes are judged as on a real server."""
    with pytest.raises(CallError) as caught:
        link.call(WHO, WhoRequest())
    assert caught.value.status is Status.UNAUTHENTICATED
    assert link.call(WHO, WhoRequest(), metadata=Metadata(authorization="user:ann")).name == "ann"
    with pytest.raises(CallError) as caught:
        link.call(FAIL, FailRequest(how="declared"))
    assert (caught.value.reason, caught.value.retry) == ("DECLARED", Retry.NOT_PROCESSED)
    link.client.send_request(ECHO.opcode, b"\xc1")
    link.client.send_request(0x7777, b"")
    bad, unknown = link.exchange()
    assert isinstance(bad, ErrorReceived)
    assert isinstance(unknown, ErrorReceived)
    assert (bad.error.reason, unknown.error.reason) == ("BAD_PAYLOAD", "UNKNOWN_OPCODE")


def test_signing_in_binds_the_pair(link: Pair) -> None:
    """An identity stays from call to call, until it is signed out; another one needs another connection."""
    link.call(SIGN_IN, SignInRequest(name="ann", capabilities=["user"]))
    assert link.call(WHO, WhoRequest()).name == "ann"
    with pytest.raises(CallError, match="ALREADY_SIGNED_IN"):
        link.call(SIGN_IN, SignInRequest(name="bob"))
    link.call(SIGN_OUT, SignOutRequest())
    with pytest.raises(CallError, match="SIGN_IN_REQUIRED"):
        link.call(WHO, WhoRequest())


def test_a_deadline_that_has_passed_is_refused(link: Pair) -> None:
    """A call that begins with no time left does not reach its handler; with time left the handler sees it."""
    with pytest.raises(CallError) as caught:
        link.call(ECHO, EchoRequest(), metadata=Metadata(deadline_ms=0))
    assert (caught.value.reason, caught.value.retry) == ("DEADLINE", Retry.NOT_PROCESSED)


def test_an_answer_that_is_too_large_is_refused(stage: Stage) -> None:
    """What does not fit the client's frame fails the call and not the pair."""
    link = pair(stage.handlers, limits=Limits(max_frame=4096))
    with pytest.raises(CallError, match="RESPONSE_TOO_LARGE"):
        link.call(ECHO, EchoRequest(size=5000))
    assert link.call(ECHO, EchoRequest(text="a")).text == "a"


def test_the_end_of_the_connection_ends_its_calls(stage: Stage, link: Pair) -> None:
    """When the server's side ends, sources are closed and the client is told."""
    link.start(FEED, FeedRequest(name="news"))
    link.exchange()
    link.server.receive_data(b"\0\0\0\0")
    with pytest.raises(CallError, match="FRAME_TOO_SHORT"):
        link.call(ECHO, EchoRequest())
    assert stage.feed("news").closed == ["the connection ended"]


def test_a_stream_ends_with_its_connection(stage: Stage, link: Pair) -> None:
    """When the connection ends in the middle of a stream, that is what its caller is told."""
    stream = link.stream(COUNT, CountRequest(upto=5), credit=1)
    assert next(stream).n == 0
    link.server.receive_data(b"\0\0\0\0")
    with pytest.raises(CallError, match="FRAME_TOO_SHORT"):
        next(stream)
    assert stage.generators_closed.is_set()


def test_a_blocked_handler_runs_on_the_test_s_thread(stage: Stage, link: Pair) -> None:
    """There is no other thread: a handler that waits has to be let go first."""
    stage.gate("x").set()
    assert link.call(BLOCK, BlockRequest(name="x")).name == "x"


def test_cancelling_reaches_a_server_that_the_test_plays() -> None:
    """CANCEL is an event like any other."""
    link = pair(CALCULATOR)
    call_id = link.start(ADD, AddRequest(left=2, right=3))
    link.deliver(link.client)
    link.client.send_cancel(call_id)
    assert link.deliver(link.client) == [CancelReceived(call_id)]


def test_its_service_and_version_are_shown() -> None:
    """A pair says in a failed test what it is."""
    assert repr(pair(GROWING.as_of(2), codec="pipe")) == (
        "<Pair of example.growing.v1.GrowingService, pipe, version 2>"
    )
