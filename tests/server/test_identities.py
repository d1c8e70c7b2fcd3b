"""Who a handler takes its caller to be, where a connection is signed in and a call brings a credential of its own."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from wireproto.client import connect
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context, Sink, Subscription
from wireproto.identity import Identity
from wireproto.schema import DuplexMethod, Message, Method, Service, StreamMethod, UploadMethod
from wireproto.server import Server
from wireproto.testing import running
from wireproto.wire.metadata import Metadata

PATIENCE = 20.0


class Ask(Message):
    name: str = ""


class Told(Message):
    name: str = ""


SIGN_IN = Method(opcode=1, name="SignIn", request=Ask, response=Told)
WHO = Method(opcode=2, name="Who", request=Ask, response=Told)
EACH = StreamMethod(opcode=3, name="Each", request=Ask, response=Told)
ITERATED = UploadMethod(opcode=4, name="Iterated", request=Ask, response=Told)
COLLECTED = UploadMethod(opcode=5, name="Collected", request=Ask, response=Told, collect=4)
TAKEN = UploadMethod(opcode=6, name="Taken", request=Ask, response=Told)
TALK = DuplexMethod(opcode=7, name="Talk", request=Ask, response=Told)
TALKED = DuplexMethod(opcode=8, name="Talked", request=Ask, response=Told)
SERVICE = Service(
    "test.identities.v1.IdentityService",
    methods=[SIGN_IN, WHO, EACH, ITERATED, COLLECTED, TAKEN, TALK, TALKED],
)


def caller(context: Context) -> Told:
    return Told(name="nobody" if context.identity is None else context.identity.subject)


class Taker(Sink[Ask, Told]):
    def __init__(self, context: Context) -> None:
        self._context = context

    def receive(self, item: Ask) -> None:
        pass

    def finished(self) -> Told | None:
        return caller(self._context)


class Talker(Taker, Subscription[Told]):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._told = False

    def take(self, n: int) -> Sequence[Told]:
        if self._told:
            raise StopIteration
        self._told = True
        return [caller(self._context)]

    def finished(self) -> None:
        return None


def handlers() -> Handlers:
    made = Handlers(SERVICE)

    @made.register(SIGN_IN)
    def sign_in(request: Ask, context: Context) -> Told:
        context.sign_in(Identity(request.name))
        return Told()

    made.register(WHO)(lambda request, context: caller(context))
    made.register(EACH)(lambda request, context: [caller(context)])
    made.register(COLLECTED)(lambda items, context: caller(context))
    made.sink(TAKEN)(Taker)
    made.sink(TALKED)(Talker)

    @made.register(ITERATED)
    def iterated(items: Iterator[Ask], context: Context) -> Told:
        list(items)
        return caller(context)

    @made.register(TALK)
    def talk(items: Iterator[Ask], context: Context) -> Iterator[Told]:
        list(items)
        yield caller(context)

    return made


def authenticate(metadata: Metadata, peer: str) -> Identity | None:
    """The credential is the name, but for one that is worth nothing."""
    return None if metadata.authorization == "worthless" else Identity(metadata.authorization)


def callers(client: Any, metadata: Metadata | None) -> list[str]:
    """Whom the handlers of all shapes have been called by."""
    found = [client.call(WHO, Ask(), metadata=metadata)]
    found += client.stream(EACH, Ask(), metadata=metadata)
    found += [client.upload(each, [Ask()], metadata=metadata) for each in (ITERATED, COLLECTED, TAKEN)]
    for each in (TALK, TALKED):
        found += client.duplex(each, [Ask()], metadata=metadata)
    return [told.name for told in found]


def test_the_credential_of_a_call_goes_before_who_is_signed_in() -> None:
    """In every shape and on all doors, one that is worth nothing too; without one it is who is signed in."""
    with running(handlers(), authenticate=authenticate) as doors:
        for door, client in doors.items():
            client.call(SIGN_IN, Ask(name="bob"))
            assert callers(client, Metadata(authorization="ann")) == ["ann"] * 7, door
            assert callers(client, Metadata(authorization="worthless")) == ["nobody"] * 7, door
            assert callers(client, None) == ["nobody" if door == "grpc" else "bob"] * 7, door


def test_an_upload_ends_with_the_identity_that_it_was_begun_with() -> None:
    """Not with that of the connection, which is another one's."""
    ann, bob = Identity("ann"), Identity("bob")
    inside, over = threading.Event(), threading.Event()
    made = Handlers(SERVICE)

    @made.register(SIGN_IN)
    def sign_in(request: Ask, context: Context) -> Told:
        context.sign_in(bob)
        return Told()

    @made.register(ITERATED)
    def iterated(items: Iterator[Ask], context: Context) -> Told:
        next(items)
        inside.set()
        return Told(name=f"{len(list(items))} more")

    def items() -> Iterator[Ask]:
        yield Ask()
        assert over.wait(PATIENCE)

    with (
        Server(made, port=0, authenticate=lambda metadata, peer: ann) as server,
        connect(server.address, SERVICE) as client,
    ):
        client.call(SIGN_IN, Ask())
        for identity in (bob, ann):
            inside.clear()
            over.clear()
            found: list[Any] = []

            def upload(found: list[Any] = found) -> None:
                try:
                    found.append(client.upload(ITERATED, items(), metadata=Metadata(authorization="ann")).name)
                except CallError as error:
                    found.append(error.reason)

            thread = threading.Thread(target=upload)
            thread.start()
            assert inside.wait(PATIENCE)
            identity.revoke()
            over.set()
            thread.join(PATIENCE)
            assert found == (["0 more"] if identity is bob else ["SIGN_IN_REQUIRED"])
