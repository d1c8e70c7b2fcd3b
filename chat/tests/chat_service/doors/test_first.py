"""A client of the first release at today's server: the same bytes, and the whole service works as it did."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.doors import first
from chat_service.doors.conftest import Scene
from chat_service.doors.people import CODECS, DOORS, PATIENCE, Door, eventually
from chat_service.doors.test_service import refused, waiting
from chat_service.fakes import PASSWORD
from wireproto import Limits, Metadata, codecs, connect
from wireproto.client.grpc import connect as connect_grpc
from wireproto.schema import Message, fields
from wireproto.testing import messages
from wireproto_chat import contract


def of_the_table(service: Any) -> list[tuple[str, type[Message], bool]]:
    """The messages of a table by their names, and whether they are requests."""
    found = [(method.request.__name__, method.request, True) for method in service.methods]
    return found + [(method.response.__name__, method.response, False) for method in service.methods]


THEN = of_the_table(first.CHAT)
NOW = {name: message for name, message, _ in of_the_table(contract.CHAT)}


def as_now(message: Any, filled: bool) -> Any:
    """The same message as the table of today declares it; its newer fields with something in them, or not."""
    cls = getattr(contract, type(message).__name__)
    values = {name: getattr(message, name) for name in type(message).__struct_fields__}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = [as_now(each, filled) for each in value]
    if filled:
        newer: dict[str, object] = {"duplicate": True, "last_seen": datetime(2026, 1, 1, tzinfo=UTC)}
        values |= {name: newer[name] for name in cls.__struct_fields__ if name not in values}
    return cls(**values)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "message_type", "request_"), THEN, ids=[name for name, *_ in THEN])
def test_the_bytes_of_version_1_are_what_they_were(
    codec: str, name: str, message_type: type[Message], request_: bool
) -> None:
    """What either table writes in version 1 is the same, byte for byte, and means the same to the other."""
    then = codecs.get(codec).plan(message_type, 1, Limits(), request=request_)
    now = codecs.get(codec).plan(NOW[name], 1, Limits(), request=request_)

    @given(messages(message_type, 1), st.booleans())
    def check(message: Message, filled: bool) -> None:
        # A server of today fills the newer fields in; in version 1 they are left out.
        today = as_now(message, filled and not request_)
        payload = then.encode(message)
        assert now.encode(today) == payload
        assert now.decode(payload) == as_now(message, False)
        assert then.decode(payload) == message

    check()


def test_the_methods_of_version_1_are_what_they_were() -> None:
    """Opcode, name, kind, messages, limits and who may call: nothing of it was changed; reasons were only added."""
    now = contract.CHAT.at(1)
    assert first.CHAT.full_name == contract.CHAT.full_name
    assert first.CHAT.at(1).keys() == now.keys()
    for opcode, then in first.CHAT.at(1).items():
        same = now[opcode]
        for attribute in ("name", "is_stream", "requires", "max_request", "timeout"):
            assert getattr(then, attribute) == getattr(same, attribute)
        assert set(then.reasons) <= set(same.reasons)
        for one, other in ((then.request, same.request), (then.response, same.response)):
            assert [field.name for field in fields(one, 1)] == [field.name for field in fields(other, 1)]


class Old:
    """A client made of the first release's table. Over gRPC each call carries the token, as clients did then, too."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.name = scene.name(name)
        self.client: Any
        if scene.door.codec == "grpc":
            self.client = connect_grpc(scene.house.addresses.grpc, first.CHAT, timeout=PATIENCE)
        else:
            self.client = connect(scene.house.addresses.tcp, first.CHAT, codec=scene.door.codec, timeout=PATIENCE)
        assert self.client.version == 1
        self._is_grpc = scene.door.codec == "grpc"

    def call(self, method: Any, request: Message, key: bytes = b"") -> Any:
        return self.client.call(method, request, metadata=Metadata(idempotency_key=key), timeout=PATIENCE)

    def log_in(self, **how: str) -> Any:
        answer = self.call(first.LOG_IN, first.LogInRequest(username=self.name, **how))
        if self._is_grpc:
            self.client.authorization = f"Bearer {answer.token}"
        return answer

    def send(self, to: str, text: str, key: bytes = b"") -> Any:
        return self.call(first.SEND_MESSAGE, first.SendMessageRequest(recipient=to, text=text), key)

    def pop(self, limit: int = 0) -> Any:
        return self.call(first.POP_UNDELIVERED, first.PopUndeliveredRequest(limit=limit))

    def stream(self) -> Any:
        return self.client.stream(first.RECEIVE_MESSAGES, first.ReceiveMessagesRequest(), credit=64, batch=1)


@pytest.fixture
def people(scene: Scene) -> Iterator[tuple[Old, Old]]:
    """Ann and Bob, by clients of the first release, with accounts."""
    ann, bob = Old(scene, "ann"), Old(scene, "bob")
    with ann.client, bob.client:
        for person in (ann, bob):
            request = first.CreateAccountRequest(username=person.name, password=PASSWORD)
            assert person.call(first.CREATE_ACCOUNT, request) == first.CreateAccountResponse()
            answer = person.log_in(password=PASSWORD)
            assert (len(answer.token), answer.undelivered) == (43, 0)
        yield ann, bob


only_version_1 = pytest.mark.parametrize("door", [door for door in DOORS if door.version == 1], ids=str)


@only_version_1
def test_a_client_of_the_first_release_has_its_whole_service(scene: Scene, people: tuple[Old, Old]) -> None:
    """Each method of then, its answers field by field, and what each means for the others."""
    ann, bob = people
    sent = ann.send(bob.name, "one", b"key")
    assert type(sent) is first.SendMessageResponse
    assert (len(sent.message_id), sent.sequence) == (16, 1)
    assert ann.send(bob.name, "one", b"key") == sent
    assert refused(lambda: ann.send(bob.name, "two", b"key")).reason == "KEY_CONFLICT"
    ann.send(bob.name, "two")
    page = bob.pop(1)
    (message,) = page.messages
    assert (message.sequence, message.message_id, message.sender, message.text) == (1, sent.message_id, ann.name, "one")
    assert abs(message.sent_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert page.remaining == 1

    listed = ann.call(first.WILD_CARD, first.WildCardRequest(pattern=scene.name("*"), limit=1))
    assert listed == first.WildCardResponse(accounts=[first.Account(username=ann.name, online=False)], next=ann.name)
    request = first.WildCardRequest(pattern=scene.name("*"), after=listed.next)
    with bob.stream() as stream:
        item = stream.next(PATIENCE)
        assert (item.sequence, item.sender, item.text) == (2, ann.name, "two")
        online = [first.Account(username=bob.name, online=True)]
        assert ann.call(first.WILD_CARD, request) == first.WildCardResponse(accounts=online, next="")
        ann.send(bob.name, "live")
        assert stream.next(PATIENCE).text == "live"

    ann.call(first.LOG_OUT, first.LogOutRequest())
    assert refused(lambda: ann.pop()).reason == "SIGN_IN_REQUIRED"
    token = ann.log_in(password=PASSWORD).token
    again = Old(scene, "ann")
    with again.client:
        assert again.log_in(token=token).token == token
        assert again.pop() == first.PopUndeliveredResponse(messages=[], remaining=0)
    request_ = first.DeleteAccountRequest(username=bob.name)
    assert refused(lambda: bob.call(first.DELETE_ACCOUNT, request_)).reason == "UNDELIVERED_MESSAGES"
    forced = first.DeleteAccountRequest(username=bob.name, force=True)
    assert bob.call(first.DELETE_ACCOUNT, forced).discarded in (1, 2)
    assert refused(lambda: ann.send(bob.name, "late")).reason == "UNKNOWN_RECIPIENT"


@only_version_1
def test_its_credit_acknowledges_as_it_did(scene: Scene, people: tuple[Old, Old]) -> None:
    """Over TCP each credit returned is a message that does not come again; over gRPC PopUndelivered says so."""
    ann, bob = people
    for i in range(100):
        ann.send(bob.name, str(i))
    with bob.stream() as stream:
        count = 64 if scene.door.codec == "grpc" else 100
        assert [stream.next(PATIENCE).sequence for _ in range(count)] == list(range(1, count + 1))
        if scene.door.codec == "grpc":
            with pytest.raises(TimeoutError):
                stream.next(0.05)
            assert len(bob.pop(99).messages) == 99
        # The last credit was not returned: its message was not dealt with yet.
        eventually(lambda: waiting(scene, "bob"), 1)
    with bob.stream() as stream:
        assert stream.next(PATIENCE).text == "99"


@only_version_1
@pytest.mark.parametrize("newer", [door for door in DOORS if door.version == 2], ids=str)
def test_it_talks_with_clients_of_today(scene: Scene, people: tuple[Old, Old], newer: Door) -> None:
    """Messages, broadcasts and deletions of version 2 reach it as messages that are there or are not."""
    ann, _ = people
    zoe = scene.account("zoe", newer)
    with ann.stream() as stream, zoe.receive() as inbox:
        zoe.send(ann.name, "hello")
        assert stream.next(PATIENCE).text == "hello"
        zoe.broadcast(ann.name, "to all")
        assert stream.next(PATIENCE).text == "to all"
        ann.send(zoe.name, "and to you")
        item = inbox.next()
        assert (item.sender, item.text) == (ann.name, "and to you")
    eventually(lambda: [a.online for a in zoe.list(ann.name).accounts], [False])
    gone = zoe.send(ann.name, "gone").sequence
    zoe.send(ann.name, "there")
    zoe.delete_message(ann.name, gone)
    assert ann.pop().messages[-1].text == "there"
    assert "gone" not in [message.text for message in zoe.conversation(ann.name).messages]
