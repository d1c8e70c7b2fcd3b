"""What may be copied or handed to another process, and what may not, alike behind all doors."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import pytest

from tests.codecs.everything import Leaf, Nothing, Optionals, Three
from tests.copies import WAYS
from wireproto.dispatch import Handlers
from wireproto.errors import DeclarationError
from wireproto.handling import Context, Subscription
from wireproto.identity import Identity
from wireproto.schema import Method, Service, StreamMethod
from wireproto.server import Server
from wireproto.testing import Running, running

SAY = Method(opcode=1, name="Say", request=Three, response=Three)
TRY = Method(opcode=2, name="Try", request=Three, response=Three)
COUNT = StreamMethod(opcode=3, name="Count", request=Three, response=Three)
WAIT = StreamMethod(opcode=4, name="Wait", request=Nothing, response=Leaf)
SERVICE = Service("tests.v1.CopiedService", methods=[SAY, TRY, COUNT, WAIT])

HELLO = Three(sender="ann", text="hello", number=3)


class Pipe(Subscription[Leaf]):
    """One item, and the end."""

    def __init__(self) -> None:
        self.items = [Leaf(name="green")]

    def take(self, n: int) -> list[Leaf]:
        if not self.items:
            raise StopIteration
        return [self.items.pop()]


T = TypeVar("T")


def pickled(value: T) -> T:
    copy: T = WAYS["pickle5"](value)
    return copy


def copied(request: Three, live: object) -> Three:
    """Try to copy ``live``; what came of it."""
    try:
        WAYS[request.text](live)
    except TypeError as error:
        return Three(sender=type(live).__name__, text=str(error), number=0)
    return Three(sender=type(live).__name__, text="", number=1)


def handlers() -> Handlers:
    made = Handlers(pickled(SERVICE))

    @made.register(pickled(SAY))
    def say(request: Three, context: Context) -> Three:
        return request

    @made.register(TRY)
    def try_to_copy(request: Three, context: Context) -> Three:
        return copied(request, context)

    @made.register(pickled(COUNT))
    def count(request: Three, context: Context) -> Iterable[Three]:
        yield from [request] * request.number

    @made.register(WAIT)
    def wait(request: Nothing, context: Context) -> Subscription[Leaf]:
        return Pipe()

    return made


@pytest.fixture(scope="module")
def doors() -> Iterator[Running]:
    with running(handlers(), service=SERVICE) as made:
        yield made


def test_a_pickled_method_is_called_like_its_original(doors: Running) -> None:
    """Each way to call takes it, behind every door, and a client keeps nothing for each of many."""
    for door, client in doors.items():
        for _ in range(20):
            assert client.call(pickled(SAY), HELLO) == HELLO
            assert client.start(pickled(SAY), HELLO).result(20) == HELLO
            assert [*client.call_many(pickled(SAY), [HELLO, HELLO])] == [HELLO, HELLO]
            with client.stream(pickled(COUNT), HELLO) as stream:
                assert [*stream] == [HELLO] * 3, door
        dialect = client._line.link(None).dialect if door != "grpc" else client._dialect  # type: ignore[attr-defined]
        assert len(dialect.bindings) <= 3, door


def test_a_method_of_another_service_is_still_refused(doors: Running) -> None:
    """Handlers and clients take what says the same, and nothing that is only called alike."""
    other = Method(opcode=1, name="Say", request=Three, response=Three, doc="Says it.")
    with pytest.raises(DeclarationError, match="Say is not a method of"):
        Handlers(SERVICE).register(other)
    for client in doors.values():
        with pytest.raises(Exception, match="Say is no method of"):
            client.call(other, HELLO)


@pytest.mark.parametrize("way", WAYS)
def test_a_context_is_not_copied(doors: Running, way: str) -> None:
    """A handler that tries is told so behind every door; its call goes on."""
    for door, client in doors.items():
        answer = client.call(TRY, Three(sender="", text=way, number=0))
        assert (answer.number, door) == (0, door)
        assert answer.text.startswith(f"a {answer.sender} cannot be copied or pickled")


@pytest.mark.parametrize("way", WAYS)
def test_a_server_is_not_copied(doors: Running, way: str) -> None:
    """Neither door has a twin that would close its sockets; both serve on."""
    for live in (doors.server, doors.gateway):
        answer = copied(Three(sender="", text=way, number=0), live)
        assert answer.text == (
            f"a {answer.sender} cannot be copied or pickled, for it holds what there is one of: make another one where "
            "it is needed"
        )
    for client in doors.values():
        assert client.call(SAY, HELLO) == HELLO


@pytest.mark.parametrize("way", WAYS)
def test_a_subscription_is_not_copied(way: str) -> None:
    """What a server wakes and closes once is there once."""
    answer = copied(Three(sender="", text=way, number=0), Pipe())
    assert answer.text.startswith("a Pipe cannot be copied or pickled")


def test_a_copied_identity_is_revoked_with_its_original() -> None:
    """Whoever keeps a copy of who is calling does not keep what was taken away; a pickle takes along what held then."""
    ann = Identity("ann", ["user"])
    before = pickled(ann)
    copies = [WAYS[way](ann) for way in ("copy", "deepcopy")]
    ann.revoke()
    assert all(copy.revoked for copy in copies)
    assert (before.revoked, pickled(ann).revoked) == (False, True)
    assert (before.subject, before.capabilities) == ("ann", frozenset({"user"}))


def test_handlers_of_a_module_may_be_handed_over() -> None:
    """A table of functions that another process can import makes a server there."""
    twin = pickled(_module_handlers())
    with Server(twin, codecs=["pipe"], workers=2) as server:
        assert server.address.port
    assert twin.missing() == []


def answer(request: Three, context: Context) -> Optionals:
    return Optionals()


def _module_handlers() -> Handlers:
    method = Method(opcode=1, name="Answer", request=Three, response=Optionals)
    made = Handlers(Service("tests.v1.AnswerService", methods=[method]))
    made.register(method)(answer)
    return made
