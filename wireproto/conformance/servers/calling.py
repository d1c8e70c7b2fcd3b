"""Sections 4, 7 and 8: the calls that a server begins. A client has it begin them by Ask."""

from wireproto.conformance import page
from wireproto.conformance.answerer import Answerer, answering, refuse_without_ask
from wireproto.conformance.asking import (
    ASK,
    EXCHANGE,
    GATHER,
    LIST,
    NOTICE,
    TELL,
    AskedCall,
    AskRequest,
    AskResponse,
    ExchangeResponse,
    GatherResponse,
    ListResponse,
    TellRequest,
    TellResponse,
)
from wireproto.conformance.caller import SERVER_CASES, Bench
from wireproto.conformance.case import Deviation, Needs, Over

case = SERVER_CASES.case

SHAPES = Needs.SHAPES


def _outcome(
    caller: Answerer, asked: int, total: int = 0, done: int = 0, reason: str = "", retry: int | None = None
) -> None:
    """The next frame must be the answer to an Ask that says so."""
    found = caller.outcome(asked)
    due = (total, done, reason)
    if (found.total, found.done, found.reason) != due or (retry is not None and found.retry != retry):
        raise Deviation(f"Ask tells {found}; total, done, reason and retry are {due} and {retry}")


@case("4.200", needs=SHAPES)
def unary(bench: Bench) -> None:
    """A unary call of the server has an id with the top bit, and what it is answered is what its caller gets."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.TELL, 3)
        begun = [caller.begun(TELL) for _ in range(3)]
        for each in reversed(begun):
            caller.answer(each, TellResponse(number=each.message.number + 10))
        _outcome(caller, asked, 33, 3)
        caller.alive()


@case("4.201", needs=SHAPES, over=Over.CODECS)
def failed(bench: Bench) -> None:
    """An ERROR ends a call of the server with its status and reason, and the connection goes on."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.TELL)
        caller.refuse(caller.begun(TELL), page.error_body(10, b"AS_ASKED", b"as it was asked"))
        _outcome(caller, asked, reason="AS_ASKED", retry=0)
        caller.alive()


@case("4.202", needs=SHAPES)
def stream(bench: Bench) -> None:
    """The items of a stream that the server has begun are taken, within its credit, up to END."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.LIST, 500)
        begun = caller.begun(LIST)
        if begun.message.count != 500:
            raise Deviation(f"List asks for {begun.message.count} items, and Ask for 500")
        caller.put_back(begun, *[ListResponse(number=number) for number in range(500)])
        caller.end(begun)
        _outcome(caller, asked, sum(range(500)), 500)
        caller.alive()


@case("4.203", needs=SHAPES)
def upload(bench: Bench) -> None:
    """The server sends the items of an upload within the first credit of HELLO and what is granted later, then END."""
    with answering(bench, first=page.CreditBody(4, 65_536)) as caller:
        asked = caller.ask(AskedCall.GATHER, 30)
        begun = caller.begun(GATHER)
        numbers = []
        while (item := caller.given(begun)) is not None:
            numbers.append(item.number)
            if len(numbers) % 4 == 0:
                caller.let_send(begun, 4, 65_536)
        if numbers != list(range(30)):
            raise Deviation(f"the numbers 0 to 29 were due, and {numbers} came")
        caller.answer(begun, GatherResponse(total=7, items=1))
        _outcome(caller, asked, 7, 1)
        caller.alive()


@case("4.204", needs=SHAPES)
def duplex(bench: Bench) -> None:
    """Both halves of a duplex call of the server go on by themselves, each up to its END."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.EXCHANGE, 12)
        begun = caller.begun(EXCHANGE)
        numbers = [caller.given(begun).number for _ in range(12)]
        if caller.given(begun) is not None:
            raise Deviation("an END was due behind 12 items")
        caller.put_back(begun, *[ExchangeResponse(number=number) for number in numbers])
        caller.end(begun)
        _outcome(caller, asked, sum(range(12)), 12)
        caller.alive()


@case("4.205", needs=SHAPES, over=Over.CODECS)
def one_way(bench: Bench) -> None:
    """The server sends one-way calls within the credit of HELLO and no more; what it could not send it does not claim
    to have.
    """
    with answering(bench, one_way=3) as caller:
        asked = caller.ask(AskedCall.NOTICE, 2)
        for number in range(2):
            if caller.begun(NOTICE).message.number != number:
                raise Deviation(f"Notice {number} was due")
        _outcome(caller, asked, done=2)
        asked = caller.ask(AskedCall.NOTICE, 5)
        caller.begun(NOTICE)
        found: AskResponse = caller.outcome(asked)
        if (found.done, found.retry) != (1, 1):
            raise Deviation(f"one of five one-way calls had credit, and Ask tells {found}")
        caller.alive()


@case("4.206", needs=SHAPES, over=Over.CODECS)
def none_accepted(bench: Bench) -> None:
    """A server begins no call at a client that accepts none."""
    with bench.open() as caller:
        asked = caller.request(ASK, AskRequest(what=AskedCall.TELL))
        found = caller.read()
        refuse_without_ask(found)
        if (found.kind, found.call_id) != (page.RESPONSE, asked):
            raise Deviation(f"RESPONSE of Ask was due, and {page.shown(found)} came")
        told = caller.decode(ASK, found.payload)
        if not told.status or told.retry != 1:
            raise Deviation(f"the call was certainly not processed, and Ask tells {told}")
        caller.alive()


@case("4.207", needs=SHAPES, over=Over.CODECS)
def most_calls(bench: Bench) -> None:
    """A server has no more of its calls in flight than HELLO accepts; the others wait, or fail unprocessed."""
    with answering(bench, max_calls=2) as caller:
        asked = caller.ask(AskedCall.TELL, 5)
        answered = 0
        begun = [caller.begun(TELL), caller.begun(TELL)]
        caller.ping()
        while begun:
            each = begun.pop(0)
            caller.answer(each, TellResponse(number=1))
            answered += 1
            if answered + len(begun) < 5:
                begun.append(caller.begun(TELL))
        _outcome(caller, asked, 5, 5)
        caller.alive()


@case("4.208", needs=SHAPES)
def wrong_side(bench: Bench) -> None:
    """A client's REQUEST for a method that the server calls is UNKNOWN_OPCODE, not processed."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.TELL)
        caller.answer(caller.begun(TELL), TellResponse(number=4))
        _outcome(caller, asked, 4, 1)
        caller.fail(TELL, TellRequest(), "UNKNOWN_OPCODE", retry=1)


@case("4.209", needs=SHAPES, over=Over.CODECS)
def times_out(bench: Bench) -> None:
    """A call of the server says how much time it has; when that is up it is cancelled, and told as DEADLINE."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.TELL, 1, 300)
        begun = caller.begun(TELL)
        if begun.deadline_ms is None or not 1 <= begun.deadline_ms <= 300:
            raise Deviation(f"Tell has {begun.deadline_ms} ms; 300 were given")
        frames = [caller.read(bench.patience), caller.read(bench.patience)]
        cancels = [each for each in frames if each.kind == page.CANCEL]
        if len(cancels) != 1:
            raise Deviation(
                f"a CANCEL and the answer of Ask were due, and {[page.shown(each) for each in frames]} came"
            )
        caller.refuse(begun, page.error_body(1, b"CANCELLED"))
        (told,) = [caller.decode(ASK, each.payload) for each in frames if each.call_id == asked]
        if told.reason != "DEADLINE":
            raise Deviation(f"the time of the call was up, and Ask tells {told}")
        caller.alive()


@case("4.210", needs=SHAPES, over=Over.CODECS)
def behind_goaway(bench: Bench) -> None:
    """Behind GOAWAY of the client the server begins no call; those up to it are answered as ever."""
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.TELL)
        begun = caller.begun(TELL)
        caller.go_away()
        caller.ping()
        refused = caller.ask(AskedCall.TELL)
        _outcome(caller, refused, reason="SHUTTING_DOWN", retry=1)
        caller.answer(begun, TellResponse(number=9))
        _outcome(caller, asked, 9, 1)
        caller.alive()


@case("8.200", needs=SHAPES, over=Over.CODECS)
def half_closed(bench: Bench) -> None:
    """When the client ends its output, the server's calls to it are lost, maybe processed, and it sends nothing more of
    them.
    """
    with answering(bench) as caller:
        asked = caller.ask(AskedCall.TELL)
        caller.begun(TELL)
        caller.peer.end_output()
        found = caller.outcome(asked)
        if (found.status, found.retry) != (14, 2):
            raise Deviation(f"the call was lost, UNAVAILABLE and maybe processed, and Ask tells {found}")
        caller.closes("the end of the client's output")
