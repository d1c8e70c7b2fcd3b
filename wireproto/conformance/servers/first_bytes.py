"""Section 1: what a server answers to the first bytes of a connection."""

from wireproto.conformance import page
from wireproto.conformance.caller import SERVER_CASES, Bench, Caller
from wireproto.conformance.case import Deviation, Over
from wireproto.conformance.raw import Ending

case = SERVER_CASES.case


@case("1.01", over=Over.ONCE)
def preamble_first(bench: Bench) -> None:
    """The server's first bytes are f5 57 50 01, and WELCOME comes behind them."""
    with bench.open() as caller:
        caller.alive()


@case("1.02", over=Over.ONCE)
def preamble_alone(bench: Bench) -> None:
    """The preamble may come alone, and HELLO later."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE[:1], page.PREAMBLE[1:])
        caller.send(page.frame(page.HELLO, bench.hello()))
        caller.expect_welcome()


@case("1.03", over=Over.ONCE)
def byte_by_byte(bench: Bench) -> None:
    """How the bytes are cut into segments means nothing: preamble and HELLO may come one byte at a time."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        data = page.PREAMBLE + page.frame(page.HELLO, bench.hello())
        caller.send(*(data[n : n + 1] for n in range(len(data))))
        caller.expect_welcome()


def _other_major(number: str, major: int) -> None:
    def run(bench: Bench) -> None:
        with bench.raw() as peer:
            caller = Caller(peer, bench)
            caller.send(page.PREAMBLE[:3] + bytes([major]))
            error = caller.ends("UNSUPPORTED_MAJOR")
            if "1" not in error.message:
                raise Deviation(f"the text must list the majors spoken, 1 among them: {error.message!r}")

    SERVER_CASES.add(
        number,
        f"Major version {major} is answered by the server's own preamble and a final ERROR, UNSUPPORTED_MAJOR, whose "
        "text lists the majors it speaks.",
        run,
        over=Over.ONCE,
    )


_other_major("1.04", 0)
_other_major("1.05", 2)
_other_major("1.06", 255)


def _http(number: str, who: str, *requests: bytes) -> None:
    def run(bench: Bench) -> None:
        for request in requests:
            with bench.raw() as peer:
                peer.send(request)
                answer, ending = peer.drain(bench.patience)
                shown = f"{request[:20]!r} was answered {answer[:60]!r}"
                if not answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"):
                    raise Deviation(f"{shown}, which is no HTTP/1.1 400 Bad Request")
                if b"wireproto" not in answer.partition(b"\r\n\r\n")[2].lower():
                    raise Deviation(f"{shown}, whose text does not name this protocol")
                if ending is not Ending.EOF:
                    raise Deviation(f"{shown}, and then there was {ending.value}")

    SERVER_CASES.add(
        number, f"{who} is answered HTTP/1.1 400 Bad Request with a text that names this protocol.", run, over=Over.ONCE
    )


_http("1.07", "An HTTP/1.1 GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
_http(
    "1.08",
    "Any other method of HTTP/1.1",
    *(verb + b" /x HTTP/1.1\r\nHost: localhost\r\n\r\n" for verb in (b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS")),
)
_http("1.09", "An HTTP/2 client", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))


def _foreign(number: str, who: str, first: bytes) -> None:
    def run(bench: Bench) -> None:
        with bench.raw() as peer:
            caller = Caller(peer, bench)
            caller.send(first)
            caller.ends("FOREIGN_PROTOCOL")

    SERVER_CASES.add(number, f"{who} is sent the preamble and a final ERROR, FOREIGN_PROTOCOL.", run, over=Over.ONCE)


_foreign("1.10", "A TLS client", bytes.fromhex("16030100c8010000c40303") + bytes(32))
_foreign("1.11", "An SSH client", b"SSH-2.0-OpenSSH_9.2\r\n")
_foreign("1.12", "A load balancer's PROXY header, version 1,", b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 7411\r\n")
_foreign("1.13", "A load balancer's PROXY header, version 2,", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12))
_foreign("1.14", "A client that leaves out its preamble", page.frame(page.HELLO, b"\x01\x01"))
_foreign("1.15", "Whoever begins with other bytes", b"\x00\x01\x02\x03\x04\x05\x06\x07")
_foreign("1.16", "Whoever writes only two bytes of the preamble right", b"\xf5WX\x01")


@case("1.17", over=Over.ONCE)
def nothing(bench: Bench) -> None:
    """A connection that ends before its first byte is closed."""
    with bench.raw() as peer:
        peer.end_output()
        if peer.drain(bench.patience)[1] is Ending.SILENCE:
            raise Deviation("it was not closed")


@case("1.18", over=Over.ONCE)
def half_a_preamble(bench: Bench) -> None:
    """An end of input within the preamble is TRUNCATED_FRAME."""
    with bench.raw() as peer:
        caller = Caller(peer, bench)
        caller.send(page.PREAMBLE[:2])
        peer.end_output()
        caller.ends("TRUNCATED_FRAME")
