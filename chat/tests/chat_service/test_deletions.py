"""Deleting messages, from inside: what still waits afterwards, and what a stream has read already."""

from chat_service.fakes import Chat, FakeContext
from wireproto_chat.opcodes import DELETE_MESSAGE, AcknowledgeResponse, DeleteMessageRequest


def delete(chat: Chat, context: FakeContext, recipient: str, sequence: int) -> None:
    chat.call(DELETE_MESSAGE, DeleteMessageRequest(recipient=recipient, sequence=sequence), context)


def test_what_is_deleted_does_not_wait(chat: Chat) -> None:
    """Undelivered counts what will be delivered, after a restart of the counters, too."""
    ann, bob = chat.filled(5)
    for sequence in (1, 4, 5):
        delete(chat, ann, "bob", sequence)
    assert chat.acknowledge(bob, 0).undelivered == 2
    chat.app._store._writer._tx._by_id.clear()
    chat.app._store._writer._tx._by_name.clear()
    assert chat.acknowledge(bob, 0).undelivered == 2
    reader = chat.receive(bob)
    assert reader.texts() == ["2", "3"]
    assert chat.acknowledge(bob, 2).undelivered == 1
    chat.send(ann, "bob", "6")
    assert reader.texts() == ["6"]
    assert chat.acknowledge(bob, 6) == AcknowledgeResponse(acknowledged=6, undelivered=0)


def test_a_stream_that_has_read_ahead_forgets_what_is_deleted(chat: Chat) -> None:
    """Messages a stream holds ready are not given out once their deletion was answered."""
    ann, bob = chat.account("ann"), chat.account("bob")
    for i in range(10):
        chat.send(ann, "bob", str(i))
    reader = chat.receive(bob)
    assert reader.texts(2) == ["0", "1"]
    for sequence in range(3, 10):
        delete(chat, ann, "bob", sequence)
    assert reader.texts() == ["9"]
