"""A REQUEST whose flags are not its method's shape: what is answered, in which order, and what it costs its sender."""

from collections.abc import Callable, Iterator

import pytest

from tests.server.peer import Peer, until, window
from tests.server.service import COUNT, ECHO, SERVICE, CountRequest, CountResponse, EchoRequest, EchoResponse
from wireproto.dispatch import Handlers
from wireproto.handling import Context
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.status import Retry, Status
from wireproto.wire.events import EndReceived, ErrorReceived, ItemReceived
from wireproto.wire.frame import Flag
from wireproto.wire.metadata import Metadata, pack_metadata

STREAM = Flag.ITEMS_COME_BACK
UPLOAD = Flag.ITEMS_FOLLOW
DUPLEX = STREAM | UPLOAD
BAD_METADATA = b"\1"


def begin(peer: Peer, opcode: int, flags: int, metadata: bytes = b"") -> int:
    if flags:
        return peer.connection.send_flagged_request(flags, opcode, b"", metadata)
    return peer.connection.send_request(opcode, b"", metadata)


@pytest.mark.parametrize("flags", [Flag.NONE, STREAM, UPLOAD, DUPLEX])
@pytest.mark.parametrize("method", [ECHO, COUNT], ids=["unary", "stream"])
def test_only_the_flags_of_the_shape_begin_a_call(peer: Peer, method: object, flags: Flag) -> None:
    """Any other REQUEST is refused without a look at what it carries, and the connection goes on."""
    right = STREAM if method is COUNT else Flag.NONE
    if flags == right:
        assert peer.call(ECHO, EchoRequest(text="a")).text == "a"
        peer.start(COUNT, CountRequest(upto=1), Metadata(credit=window(2)))
        peer.expect(ItemReceived)
        peer.expect(EndReceived)
        return
    assert method in (ECHO, COUNT)
    opcode = COUNT.opcode if method is COUNT else ECHO.opcode
    call_id = begin(peer, opcode, flags)
    refused = peer.expect(ErrorReceived)
    assert refused.call_id == call_id
    error = refused.error
    assert (error.status, error.reason, error.retry) == (Status.UNIMPLEMENTED, "WRONG_SHAPE", Retry.NOT_PROCESSED)
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"
    assert peer.connection.own_calls == 0


def test_the_order_of_refusals(connect: Callable[..., Peer]) -> None:
    """The opcode comes first, then the shape, then the metadata."""
    handlers = Handlers(SERVICE)

    @handlers.register(ECHO)
    def echo(request: EchoRequest, context: Context) -> EchoResponse:
        raise AssertionError("it is never called")

    @handlers.register(COUNT)
    def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
        raise AssertionError("it is never called")

    with Server(handlers, codecs=["msgpack"], limits=Limits(linger=0.01)) as made:
        peer = connect(made)

        def reason(opcode: int, flags: int) -> str:
            begin(peer, opcode, flags, BAD_METADATA)
            return peer.expect(ErrorReceived).error.reason

        assert reason(0x999, UPLOAD) == "UNKNOWN_OPCODE"
        assert reason(SERVICE.methods[1].opcode, UPLOAD) == "NO_HANDLER"
        assert reason(ECHO.opcode, STREAM) == "WRONG_SHAPE"
        assert reason(COUNT.opcode, Flag.NONE) == "WRONG_SHAPE"
        assert reason(COUNT.opcode, STREAM) == "BAD_METADATA"
        assert reason(ECHO.opcode, Flag.NONE) == "BAD_METADATA"


@pytest.mark.parametrize("flags", [Flag.NONE, DUPLEX])
def test_too_many_of_them_end_the_connection(
    flags: Flag, serve: Callable[..., Server], connect: Callable[..., Peer]
) -> None:
    """A wrong shape counts as a request that cannot be understood; what was read behind the last is dropped."""
    peer = connect(serve(limits=Limits(errors_per_minute=3)))
    for _ in range(10):
        begin(peer, COUNT.opcode, flags)
    reasons = [peer.expect(ErrorReceived).error.reason for _ in range(4)]
    assert reasons == ["WRONG_SHAPE"] * 4
    error = peer.ended().error
    assert error is not None
    assert error.reason == "TOO_MANY_ERRORS"


@pytest.mark.parametrize("turn", [1, 2, 64])
def test_streams_count_in_a_turn(turn: int, serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """Streams and unary calls that were written at once are all begun, whatever a turn takes."""
    peer = connect(serve(limits=Limits(turn_calls=turn)))
    streams = set()
    for number in range(20):
        streams.add(peer.start(COUNT, CountRequest(upto=0), Metadata(credit=window(1))))
        peer.start(ECHO, EchoRequest(text=f"{number}"))
        begin(peer, COUNT.opcode, UPLOAD)
    peer.flush()
    events = [peer.event() for _ in range(60)]
    assert {event.call_id for event in events if isinstance(event, EndReceived)} == streams
    assert [event.error.reason for event in events if isinstance(event, ErrorReceived)] == ["WRONG_SHAPE"] * 20


def test_a_one_way_call_that_is_refused_is_logged_and_counted(
    serve: Callable[..., Server], connect: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody hears of it: neither of the shape, nor of the opcode. Two of them are one too many here."""
    peer = connect(serve(limits=Limits(errors_per_minute=2)))
    begin(peer, ECHO.opcode, Flag.ONE_WAY)
    begin(peer, 0x999, Flag.ONE_WAY)
    assert peer.call(ECHO, EchoRequest(text="on")).text == "on"
    until(lambda: "a one-way call failed: UNIMPLEMENTED" in caplog.text, "it is logged")
    assert "WRONG_SHAPE" in caplog.text
    begin(peer, ECHO.opcode, Flag.ONE_WAY, pack_metadata(Metadata(traceparent="x")))
    error = peer.ended().error
    assert error is not None
    assert error.reason == "TOO_MANY_ERRORS"


def test_what_the_limits_say_is_granted(serve: Callable[..., Server], connect: Callable[..., Peer]) -> None:
    """WELCOME grants each request half its first credit, and so many one-way calls."""
    peer = connect(serve(limits=Limits(first_items=3, first_bytes=77, one_way_calls=5)))
    assert peer.connection.one_way_credit == 5
    call_id = begin(peer, ECHO.opcode, UPLOAD)
    assert peer.connection.credit(call_id) == (3, 77)
    assert peer.expect(ErrorReceived).error.reason == "WRONG_SHAPE"
