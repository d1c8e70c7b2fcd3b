"""A full window: what PopUndelivered acknowledges makes room in it, whether credit ever comes or not."""

from chat_service.fakes import WAIT, Chat, FakeContext, Reader
from wireproto_chat.contract import POP_UNDELIVERED, PopUndeliveredRequest, PopUndeliveredResponse
from wireproto_chat.service.live import WINDOW


def pop(chat: Chat, caller: FakeContext, limit: int) -> PopUndeliveredResponse:
    """Take so many undelivered messages."""
    return chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=limit), caller)


def full(chat: Chat) -> tuple[FakeContext, Reader]:
    """Bob and his stream, which has taken a window, with ten messages behind it."""
    ann, bob = chat.account("ann"), chat.account("bob")
    for number in range(WINDOW + 10):
        chat.send(ann, "bob", str(number))
    reader = chat.receive(bob)
    assert reader.texts() == [str(number) for number in range(WINDOW)]
    return bob, reader


def further(reader: Reader) -> list[str]:
    """What the stream gives without any further credit, as over gRPC."""
    return [item.text for item in reader.stream.take(64)]


def test_popping_makes_room_in_a_full_window(chat: Chat) -> None:
    """A stream that gets no credit pauses after a window, and goes on by as many as were popped, woken by the pop."""
    bob, reader = full(chat)
    assert further(reader) == []
    reader.woken.clear()
    assert [message.text for message in pop(chat, bob, 4).messages] == ["0", "1", "2", "3"]
    assert reader.woken.wait(WAIT)
    assert further(reader) == [str(number) for number in range(WINDOW, WINDOW + 4)]
    assert further(reader) == []


def test_credit_for_popped_messages_is_no_second_acknowledgement(chat: Chat) -> None:
    """Credit that comes for what was popped meanwhile is taken as such, and acknowledges nothing further."""
    bob, reader = full(chat)
    pop(chat, bob, 4)
    assert len(further(reader)) == 4
    reader.acknowledge(4)
    assert further(reader) == []
    (message,) = pop(chat, bob, 1).messages
    assert message.text == "4"
