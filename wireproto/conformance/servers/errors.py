"""Sections 9, 13 and 14: what calls are answered with, the framework's opcodes, and what may be added."""

from wireproto.conformance import page
from wireproto.conformance.asking import ASKED
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import (
    AUTHORIZATION,
    BLOB,
    CONFORMANCE,
    COUNT,
    CRASH,
    FAIL,
    LONGEST_SHORT,
    OTHER_AUTHORIZATION,
    PRIVATE,
    RECENT,
    RETIRED,
    SECRET,
    SHORT,
    UNSERVED,
    BlobRequest,
    BlobResponse,
    CountRequest,
    CountResponse,
    CrashRequest,
    FailRequest,
    PrivateRequest,
    RecentRequest,
    RetiredRequest,
    ShortRequest,
    UnservedRequest,
)
from wireproto.conformance.sizes import letters, longest
from wireproto.control import CHECK, DESCRIBE, ECHO, CheckRequest, DescribeRequest, EchoRequest, Health
from wireproto.schema import Method

case = SERVER_CASES.case


def _unknown(opcode: int) -> Method[EchoRequest, EchoRequest]:
    return Method(opcode=opcode, name="Unknown", request=EchoRequest, response=EchoRequest)


@case("9.01")
def unknown_opcode(bench: Bench) -> None:
    """An opcode that no method has is answered UNKNOWN_OPCODE, and the connection lives."""
    with bench.open() as caller:
        for opcode in (0x0BAD, 0xEFFF, 0xF123, 0xFFFF):
            caller.fail(_unknown(opcode), b"", "UNKNOWN_OPCODE")


@case("9.02", needs=Needs.SERVICE)
def no_handler(bench: Bench) -> None:
    """A method that is declared and has no handler is answered NO_HANDLER."""
    with bench.open() as caller:
        caller.fail(UNSERVED, UnservedRequest(), "NO_HANDLER")


@case("9.03", needs=Needs.SERVICE)
def not_in_this_version(bench: Bench) -> None:
    """A method of another version is answered UNKNOWN_OPCODE, whose text says which version has it."""
    with bench.open() as caller:
        if bench.version == 1:
            caller.call(RETIRED, RetiredRequest())
            error = caller.fail(RECENT, b"", "UNKNOWN_OPCODE")
            due = "2"
        else:
            caller.call(RECENT, RecentRequest())
            error = caller.fail(RETIRED, b"", "UNKNOWN_OPCODE")
            due = "1"
        if due not in error.message:
            raise Deviation(f"the text does not name version {due}: {error.message!r}")


@case("9.04", needs=Needs.SERVICE)
def sign_in_required(bench: Bench) -> None:
    """A method that wants an identity answers SIGN_IN_REQUIRED to a call without authorization."""
    with bench.open() as caller:
        caller.fail(PRIVATE, PrivateRequest(), "SIGN_IN_REQUIRED")


@case("9.05", needs=Needs.SERVICE)
def unknown_credential(bench: Bench) -> None:
    """Authorization that is worth nothing is SIGN_IN_REQUIRED."""
    with bench.open() as caller:
        caller.fail(PRIVATE, PrivateRequest(), "SIGN_IN_REQUIRED", page.field(3, b"Bearer nobody"))


@case("9.06", needs=Needs.SERVICE)
def not_permitted(bench: Bench) -> None:
    """An identity without the permission is NOT_PERMITTED."""
    with bench.open() as caller:
        caller.fail(PRIVATE, PrivateRequest(), "NOT_PERMITTED", page.field(3, OTHER_AUTHORIZATION.encode()))


@case("9.07", needs=Needs.SERVICE)
def permitted(bench: Bench) -> None:
    """Authorization that is right signs its own call, and not the ones behind it."""
    with bench.open() as caller:
        found = caller.call(PRIVATE, PrivateRequest(), page.field(3, AUTHORIZATION.encode()))
        if found.subject != "tester":
            raise Deviation(f"the caller is taken for {found.subject!r}")
        caller.fail(PRIVATE, PrivateRequest(), "SIGN_IN_REQUIRED")


def _shorts(caller: Caller) -> tuple[bytes, bytes]:
    """The longest payload that Short takes, and one that is longer by as little as the codec allows."""

    def payload(size: int) -> bytes:
        return caller.payload(ShortRequest(text=letters(size)))

    size = longest(lambda size: len(payload(size)), LONGEST_SHORT, 10 * LONGEST_SHORT)
    return payload(size), payload(size + 1)


@case("9.08", needs=Needs.SERVICE)
def longest_request(bench: Bench) -> None:
    """A payload of exactly what the method allows is read."""
    with bench.open() as caller:
        fits, _ = _shorts(caller)
        if len(fits) != LONGEST_SHORT:
            raise NotJudged(f"no request in this codec has exactly {LONGEST_SHORT} bytes")
        caller.call(SHORT, fits)


@case("9.09", needs=Needs.SERVICE)
def request_too_large(bench: Bench) -> None:
    """A payload of one byte more is answered REQUEST_TOO_LARGE, and the connection lives."""
    with bench.open() as caller:
        _, beyond = _shorts(caller)
        caller.fail(SHORT, beyond, "REQUEST_TOO_LARGE")


@case("9.10", needs=Needs.SERVICE)
def response_too_large(bench: Bench) -> None:
    """An answer longer than the client's max frame is answered RESPONSE_TOO_LARGE, at the byte."""
    with bench.open(max_frame=4096) as caller:
        room = 4096 - 12
        # What the server adds to the canonical form is found by asking.
        added = len(_blob(caller, 1000).payload) - _written(caller, 1000)
        fits = longest(lambda size: _written(caller, size) + added, room, 2 * room)
        found = _blob(caller, fits)
        if found.kind != page.RESPONSE:
            raise Deviation(f"an answer of {fits} bytes, which fits, was answered {page.shown(found)}")
        caller.fail(BLOB, BlobRequest(size=fits + 1), "RESPONSE_TOO_LARGE")


def _blob(caller: Caller, size: int) -> page.RawFrame:
    caller.request(BLOB, BlobRequest(size=size))
    return caller.read()


def _written(caller: Caller, size: int) -> int:
    """Bytes of the canonical answer of Blob."""
    return len(caller.written(BLOB, BlobResponse(data=bytes(size))))


@case("9.11", needs=Needs.SERVICE)
def item_too_large(bench: Bench) -> None:
    """A stream whose item is longer than the client's max frame ends with RESPONSE_TOO_LARGE."""
    with bench.open(max_frame=4096) as caller:
        room = 4096 - 12
        most = 2 * room
        fits = longest(lambda size: len(caller.written(COUNT, CountResponse(padding=bytes(size)))), room, most)
        # By far, as a server need not write the canonical form.
        caller.fail(COUNT, CountRequest(items=1, padding=fits + 1000), "RESPONSE_TOO_LARGE", credit=5)


@case("9.12", needs=Needs.SERVICE)
def internal(bench: Bench) -> None:
    """A handler that fails is answered INTERNAL, and what it failed with does not leave the server."""
    with bench.open() as caller:
        error = caller.fail(CRASH, CrashRequest(), "INTERNAL")
        if SECRET in error.message or "RuntimeError" in error.message:
            raise Deviation(f"the text says what went wrong inside: {error.message!r}")


@case("9.13", needs=Needs.SERVICE)
def every_status(bench: Bench) -> None:
    """Each of the sixteen statuses reaches the client with its reason."""
    with bench.open() as caller:
        for status in range(1, 17):
            error = caller.fail(FAIL, FailRequest(status=status), "AS_ASKED")
            if error.status != status:
                raise Deviation(f"status {status} was asked for, and {error.status} came")


@case("9.14", needs=Needs.SERVICE)
def every_retry(bench: Bench) -> None:
    """Retry and retry after reach the client."""
    with bench.open() as caller:
        for retry, after in ((0, 0), (1, 1500), (2, 0xFFFF_FFFF)):
            error = caller.fail(FAIL, FailRequest(retry=retry, retry_after_ms=after), "AS_ASKED", retry=retry)
            if error.retry_after_ms != after:
                raise Deviation(f"retry after {after} was asked for, and {error.retry_after_ms} came")


@case("9.15", needs=Needs.SERVICE)
def message_text(bench: Bench) -> None:
    """The text of an ERROR is UTF-8, whatever its characters."""
    text = "Zoë said: |,\\ \u2603 \U0001f600\n\0."
    with bench.open() as caller:
        error = caller.fail(FAIL, FailRequest(message=text), "AS_ASKED")
        if error.message != text:
            raise Deviation(f"{text!r} was asked for, and {error.message!r} came")


@case("9.16", needs=Needs.SERVICE)
def message_is_cut(bench: Bench) -> None:
    """The text of an ERROR is cut at 2048 bytes, between characters."""
    with bench.open() as caller:
        for text in ("x" * 3000, "é" * 3000, "x" + "\U0001f600" * 1000):
            error = caller.fail(FAIL, FailRequest(message=text), "AS_ASKED")
            if not text.startswith(error.message) or len(error.message.encode()) < 2045:
                raise Deviation(f"of a text of {len(text)} characters {len(error.message)} came")


@case("9.17", needs=Needs.SERVICE)
def bad_payload(bench: Bench) -> None:
    """A payload that is no message of the method is answered BAD_PAYLOAD, whose text names the message or field."""
    with bench.open() as caller:
        error = caller.fail(FAIL, caller.payload(CountRequest(items=77)), "BAD_PAYLOAD")
        if not any(name in error.message for name in ("FailRequest", "status")):
            raise Deviation(f"the text names neither FailRequest nor status: {error.message!r}")


@case("9.19")
def opcode_before_shape(bench: Bench) -> None:
    """An opcode that no method has is UNKNOWN_OPCODE, whatever the flags of its REQUEST."""
    with bench.open() as caller:
        for flags in page.FLAGS_OF_REQUEST:
            if not flags & page.ONE_WAY:
                caller.fail(_unknown(0x0BAD), b"", "UNKNOWN_OPCODE", flags=flags)


@case("9.20")
def shape_before_metadata(bench: Bench) -> None:
    """Flags that are not the method's shape are WRONG_SHAPE, also where the metadata, or the payload, are wrong."""
    with bench.open() as caller:
        broken = page.entry(b"a", b"1") + b"\x01\x00"
        caller.fail(ECHO, b"\xff\xff\xff", "WRONG_SHAPE", broken, flags=page.ITEMS_COME_BACK)


@case("9.18")
def bytes_behind(bench: Bench) -> None:
    """Bytes behind the end of a message are BAD_PAYLOAD."""
    with bench.open() as caller:
        behind = {"pipe": b"|", "msgpack": b"\xc0", "protobuf": b"\x00"}.get(bench.codec[1], b"\x00")
        caller.fail(ECHO, caller.payload(EchoRequest(payload=b"x")) + behind, "BAD_PAYLOAD")


@case("13.01")
def check_server(bench: Bench) -> None:
    """Check of the server as a whole says SERVING."""
    with bench.open() as caller:
        if caller.call(CHECK, CheckRequest()).health != Health.SERVING:
            raise Deviation("it does not serve")


@case("13.02")
def check_service(bench: Bench) -> None:
    """Check of the service of the connection says SERVING."""
    with bench.open() as caller:
        if caller.call(CHECK, CheckRequest(service=bench.service)).health != Health.SERVING:
            raise Deviation("it does not serve")


@case("13.03")
def check_unknown(bench: Bench) -> None:
    """Check of a service that is not there is NOT_FOUND, UNKNOWN_SERVICE."""
    with bench.open() as caller:
        caller.fail(CHECK, CheckRequest(service="nobody.v1.NobodyService"), "UNKNOWN_SERVICE")


@case("13.04", over=Over.CODECS)
def describe(bench: Bench) -> None:
    """Describe lists the services hosted, each with methods whose messages it describes."""
    with bench.open() as caller:
        for service in caller.call(DESCRIBE, DescribeRequest()).services:
            known = {message.name for message in service.messages}
            for method in service.methods:
                if not {method.request, method.response} - {""} <= known or not method.request:
                    raise Deviation(f"{service.full_name}.{method.name} has messages that are not described")


@case("13.05", over=Over.CODECS, needs=Needs.SERVICE)
def describe_methods(bench: Bench) -> None:
    """Describe of one service answers that one, with its opcodes and versions."""
    with bench.open() as caller:
        services = caller.call(DESCRIBE, DescribeRequest(service=bench.service)).services
        if len(services) != 1:
            raise Deviation(f"{len(services)} services are described; one was asked for")
        (found,) = services
        opcodes = {method.name: method.opcode for method in found.methods}
        due = {method.name: method.opcode for method in CONFORMANCE.as_of(bench.newest).methods}
        if not set(opcodes) & {each.name for each in ASKED}:  # a server may leave out that it calls
            due = {name: opcode for name, opcode in due.items() if name not in {each.name for each in ASKED}}
        if (found.full_name, found.version, opcodes) != (CONFORMANCE.full_name, bench.newest, due):
            raise Deviation(f"the service is described as {found.full_name} version {found.version} with {opcodes}")


@case("13.06", over=Over.CODECS)
def describe_unknown(bench: Bench) -> None:
    """Describe of a service that is not there is NOT_FOUND, UNKNOWN_SERVICE."""
    with bench.open() as caller:
        caller.fail(DESCRIBE, DescribeRequest(service="nobody.v1.NobodyService"), "UNKNOWN_SERVICE")


@case("13.07")
def echo(bench: Bench) -> None:
    """Echo answers the bytes of the request, all 256 of them, and none."""
    with bench.open() as caller:
        for payload in (b"", bytes(range(256)), b"|\\\n\r,:()[]{}"):
            if caller.call(ECHO, EchoRequest(payload=payload)).payload != payload:
                raise Deviation(f"Echo of {payload!r} answered something else")


@case("13.08", over=Over.CODECS)
def control_service(bench: Bench) -> None:
    """A client that knows no service asks for wirecontrol.v1.ControlService, in version 1."""
    with bench.of_control().open() as caller:
        caller.alive()
        caller.fail(_unknown(0x01), b"", "UNKNOWN_OPCODE")


@case("14.01")
def grease(bench: Bench) -> None:
    """A client of a later day, with features, fields, codecs, metadata and kinds unknown here, is served."""
    with bench.open(
        features=1 << 63 | 1,
        fields=page.tlv(7, b"new") + page.tlv(0x7FFF, b""),
        codecs=[(bench.free_id, "later"), bench.codec],
    ) as caller:
        caller.send(caller.frame(0x80, b"later", call_id=0, opcode=0))
        caller.call(ECHO, EchoRequest(payload=b"x"), page.field(77, b"later"))
        caller.send(caller.frame(0xFE, bytes(100), call_id=9, opcode=9))
        caller.alive()


@case("14.02")
def private_numbers(bench: Bench) -> None:
    """A client with an unknown extension of its own is served: no feature is granted, and all else is read over."""
    fields = page.tlv(0x8000, b"\x04mine") + page.tlv(0xFEFF, b"\x04mine!")
    with bench.open(features=0xFF << 48, fields=fields) as caller:
        assert caller.welcome is not None
        if caller.welcome.features:
            raise Deviation(f"private features were granted: {caller.welcome.features:#x}")
        for kind, key in ((0xC0, 0x60), (0xEF, 0x77)):
            caller.send(caller.frame(kind, b"mine", call_id=0, opcode=0))
            caller.call(ECHO, EchoRequest(payload=b"x"), page.field(key, b"mine"))
        caller.alive()
        tail = b"\xc0\x00\x04mine\xef\x00\x00"
        error = page.error_body(14, b"X_MINE", b"", tail=tail)
        caller.send(caller.frame(page.ERROR, error, call_id=0, opcode=0))
        caller.closes("a client's final ERROR")
