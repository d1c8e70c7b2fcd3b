"""The judge of histories: one without fault passes, and each kind of fault is found and named."""

from collections.abc import Callable

import pytest

from chat_service.doors.history import (
    NEVER,
    Acknowledging,
    Deleting,
    History,
    Kept,
    Outcome,
    Seen,
    Sending,
    Standing,
    Streaming,
    Taking,
)

DONE, NOT_DONE, UNKNOWN = Outcome


def ident(sequence: int) -> bytes:
    return bytes([sequence]) * 16


def text(sequence: int) -> str:
    return f"text {sequence}"


def seen(sequence: int) -> Seen:
    return Seen(sequence, ident(sequence), "ann", text(sequence))


class Story(History):
    """What ann sent to bob, and how he got it. Every number below is a moment; nothing overlaps unless it says so."""

    def send(self, sequence: int, *, key: bytes = b"", outcome: Outcome = DONE, duplicate: bool = False) -> Sending:
        done = outcome is DONE
        sending = Sending(
            begun=self.now(),
            ended=NEVER if outcome is UNKNOWN else self.now(),
            outcome=outcome,
            sender="ann",
            recipients=frozenset({"bob"}),
            text=text(sequence),
            key=key or b"key %d" % sequence,
            message_id=ident(sequence) if done else b"",
            sequence=sequence if done else 0,
            duplicate=duplicate,
        )
        self.sendings.append(sending)
        return sending

    def stream(self, *sequences: int, after: int = 0) -> Streaming:
        stream = Streaming(begun=self.now(), owner="bob", after=after)
        stream.came = [(self.now(), seen(sequence)) for sequence in sequences]
        self.streamings.append(stream)
        return stream

    def acknowledge(self, sequence: int, undelivered: int, *, outcome: Outcome = DONE) -> Acknowledging:
        ack = Acknowledging(
            begun=self.now(),
            ended=NEVER if outcome is UNKNOWN else self.now(),
            outcome=outcome,
            owner="bob",
            sequence=sequence,
            acknowledged=sequence if outcome is DONE else 0,
            undelivered=undelivered,
        )
        self.acknowledgings.append(ack)
        return ack

    def take(self, *sequences: int, limit: int = 10, remaining: int = 0, outcome: Outcome = DONE) -> Taking:
        taking = Taking(
            begun=self.now(),
            ended=NEVER if outcome is UNKNOWN else self.now(),
            outcome=outcome,
            owner="bob",
            limit=limit,
            messages=[seen(sequence) for sequence in sequences],
            remaining=remaining,
        )
        self.takings.append(taking)
        return taking

    def delete(self, sequence: int, *, outcome: Outcome = DONE) -> Deleting:
        deleting = Deleting(
            begun=self.now(),
            ended=NEVER if outcome is UNKNOWN else self.now(),
            outcome=outcome,
            recipient="bob",
            sequence=sequence,
        )
        self.deletings.append(deleting)
        return deleting

    def stand(self, acknowledged: int, last: int, undelivered: int) -> Standing:
        standing = Standing(at=self.now(), owner="bob", acknowledged=acknowledged, last=last, undelivered=undelivered)
        self.standings.append(standing)
        return standing

    def keep(self, *sequences: int, deleted: tuple[int, ...] = ()) -> None:
        self.kept["bob"] = [
            Kept(each, ident(each), "ann", "" if each in deleted else text(each), each in deleted) for each in sequences
        ]


def good() -> Story:
    """Six messages: streamed, acknowledged, not acknowledged and streamed again after a crash, popped, deleted."""
    story = Story()
    for sequence in (1, 2, 3):
        story.send(sequence)
    story.stream(1, 2, 3)
    story.acknowledge(2, 1)
    story.send(4, outcome=UNKNOWN)  # a crash
    story.stand(2, 4, 2)
    story.send(4, duplicate=True)
    story.stream(3, 4)
    story.acknowledge(3, 1)
    story.send(5)
    story.delete(5)
    story.send(6)
    story.take(4, limit=1, remaining=1)
    story.send(7, key=b"key 6", outcome=NOT_DONE)
    story.send(6, duplicate=True)
    story.take(6)
    story.take()
    story.stand(6, 6, 0)
    story.keep(1, 2, 3, 4, 5, 6, deleted=(5,))
    return story


def test_a_faultless_history_passes() -> None:
    """Nothing is wrong with it."""
    assert good().violations() == []


def lose_an_answered_send(story: Story) -> None:
    story.kept["bob"][2] = Kept(3, ident(99), "ann", "text 4 again", False)


def lose_the_last(story: Story) -> None:
    story.keep(1, 2, 3, 4, 5, deleted=(5,))
    del story.takings[-2]
    story.standings[-1] = Standing(at=story.now(), owner="bob", acknowledged=4, last=5, undelivered=0)


def send_a_key_twice(story: Story) -> None:
    story.keep(1, 2, 3, 4, 5, 6, deleted=(5,))
    story.kept["bob"].append(Kept(7, ident(7), "ann", text(6), False))


def answer_a_key_twice(story: Story) -> None:
    again = story.send(2, duplicate=True)
    again.sequence, again.message_id = 3, ident(3)


def not_say_duplicate(story: Story) -> None:
    story.send(2)


def take_a_key_for_two(story: Story) -> None:
    story.sendings[-2].outcome = DONE
    story.sendings[-2].sequence, story.sendings[-2].message_id = 7, ident(7)


def leave_a_gap(story: Story) -> None:
    story.kept["bob"] = [each._replace(sequence=9) if each.sequence == 6 else each for each in story.kept["bob"]]


def swap_two_answers(story: Story) -> None:
    first, second = story.sendings[:2]
    first.begun, second.begun = second.begun, first.begun
    first.ended, second.ended = second.ended, first.ended


def stream_one_twice(story: Story) -> None:
    time, message = story.streamings[0].came[1]
    story.streamings[0].came.insert(2, (time, message))


def stream_out_of_order(story: Story) -> None:
    came = story.streamings[0].came
    came[0], came[1] = came[1], came[0]


def leave_one_out_of_a_stream(story: Story) -> None:
    del story.streamings[0].came[1]


def begin_a_stream_too_late(story: Story) -> None:
    del story.streamings[1].came[0]


def leave_one_out_of_a_page(story: Story) -> None:
    del story.takings[0]
    story.takings[0].messages = [seen(6)]


def take_one_twice(story: Story) -> None:
    story.takings[1].messages = [seen(4), seen(6)]


def deliver_what_was_deleted(story: Story) -> None:
    story.takings[1].messages = [seen(5), seen(6)]


def keep_what_was_deleted(story: Story) -> None:
    story.keep(1, 2, 3, 4, 5, 6)


def stream_what_was_deleted(story: Story) -> None:
    story.stream(5)


def lie_about_the_sender(story: Story) -> None:
    time, message = story.streamings[0].came[0]
    story.streamings[0].came[0] = (time, message._replace(sender="eve"))


def deliver_to_another(story: Story) -> None:
    stream = story.stream(1)
    stream.owner = "eve"
    story.kept["eve"] = []
    story.standings.append(Standing(at=story.now(), owner="eve", acknowledged=0, last=0, undelivered=0))


def keep_another_mailboxs(story: Story) -> None:
    story.kept["eve"] = [Kept(1, ident(1), "ann", text(1), False)]
    story.standings.append(Standing(at=story.now(), owner="eve", acknowledged=1, last=1, undelivered=0))


def deliver_what_nobody_sent(story: Story) -> None:
    time, message = story.streamings[0].came[2]
    story.streamings[0].came[2] = (time, message._replace(text="made up"))


def deliver_before_it_was_sent(story: Story) -> None:
    story.sendings[0].begun = story.streamings[0].came[0][0] + 1
    story.sendings[0].ended = NEVER
    story.sendings[0].outcome = UNKNOWN


def forget_an_acknowledgement(story: Story) -> None:
    story.streamings[1].came.insert(0, (story.streamings[1].begun + 1, seen(2)))


def forget_it_when_asked(story: Story) -> None:
    story.standings[0].acknowledged, story.standings[0].undelivered = 1, 3


def acknowledge_by_itself(story: Story) -> None:
    story.standings[0].acknowledged, story.standings[0].undelivered = 3, 1


def count_wrong_in_an_answer(story: Story) -> None:
    story.acknowledgings[0].undelivered = 2


def count_the_deleted(story: Story) -> None:
    story.takings[0].remaining = 2


def count_wrong_when_asked(story: Story) -> None:
    story.standings[0].undelivered = 1


def do_what_was_refused(story: Story) -> None:
    story.kept["bob"].append(Kept(7, ident(7), "ann", text(7), False))


def deliver_what_was_refused(story: Story) -> None:
    story.stream(7)


def not_find_what_was_answered(story: Story) -> None:
    story.delete(2, outcome=NOT_DONE).missing = True


def delete_what_was_not(story: Story) -> None:
    story.deletings[0].outcome = NOT_DONE


def never_deliver(story: Story) -> None:
    story.takings.pop(1)
    story.acknowledge(6, 0)
    story.stand(6, 6, 0)


def leave_something_waiting(story: Story) -> None:
    story.standings[-1].acknowledged, story.standings[-1].undelivered = 4, 1


def broadcast_to_some(story: Story) -> None:
    story.sendings.append(
        Sending(
            begun=story.now(),
            sender="ann",
            recipients=frozenset({"bob", "eve"}),
            text="to all",
            key=b"all",
            broadcast=True,
        )
    )
    story.kept["bob"].append(Kept(7, ident(7), "ann", "to all", False))
    story.kept["eve"] = []
    story.standings.append(Standing(at=story.now(), owner="eve", acknowledged=0, last=0, undelivered=0))


@pytest.mark.parametrize(
    ("invariant", "fault"),
    [
        ("I1", lose_an_answered_send),
        ("I1", lose_the_last),
        ("I1", broadcast_to_some),
        ("I1", not_find_what_was_answered),
        ("I2", send_a_key_twice),
        ("I2", answer_a_key_twice),
        ("I2", not_say_duplicate),
        ("I2", take_a_key_for_two),
        ("I3", leave_a_gap),
        ("I3", swap_two_answers),
        ("I4", stream_one_twice),
        ("I4", stream_out_of_order),
        ("I4", leave_one_out_of_a_stream),
        ("I4", begin_a_stream_too_late),
        ("I4", leave_one_out_of_a_page),
        ("I4", take_one_twice),
        ("I5", deliver_what_was_deleted),
        ("I5", keep_what_was_deleted),
        ("I5", stream_what_was_deleted),
        ("I6", lie_about_the_sender),
        ("I7", deliver_to_another),
        ("I7", keep_another_mailboxs),
        ("I7", deliver_what_nobody_sent),
        ("I7", deliver_before_it_was_sent),
        ("I8", forget_an_acknowledgement),
        ("I8", forget_it_when_asked),
        ("I8", acknowledge_by_itself),
        ("I8", count_wrong_in_an_answer),
        ("I8", count_the_deleted),
        ("I8", count_wrong_when_asked),
        ("I9", do_what_was_refused),
        ("I9", deliver_what_was_refused),
        ("I9", delete_what_was_not),
        ("I10", never_deliver),
        ("I10", leave_something_waiting),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_fault_is_found(invariant: str, fault: Callable[[Story], None]) -> None:
    """A history with one fault violates the invariant that speaks of it."""
    story = good()
    fault(story)
    found = {violation.split()[0] for violation in story.violations()}
    assert invariant in found, found


# ---------------------------------------------------------------------- what is allowed, although it looks like a fault


def end(story: Story, acknowledged: int, *, deleted: tuple[int, ...] = (), last: int = 3) -> list[str]:
    story.stand(acknowledged, last, 0)
    story.keep(*range(1, last + 1), deleted=deleted)
    return story.violations()


def three() -> Story:
    story = Story()
    for sequence in (1, 2, 3):
        story.send(sequence)
    return story


def test_an_unknown_send_may_not_have_happened() -> None:
    """Neither its absence nor its late arrival is a fault."""
    story = three()
    story.send(4, outcome=UNKNOWN)
    story.take(1, 2, 3)
    assert end(story, 3) == []


def test_a_lost_page_may_be_lost() -> None:
    """A page whose answer did not come may have taken its messages, up to its limit and no more."""
    story = three()
    story.take(outcome=UNKNOWN, limit=2)
    story.stand(2, 3, 1)
    story.take(3)
    assert end(story, 3) == []
    story = three()
    story.take(outcome=UNKNOWN, limit=1)
    story.stand(2, 3, 1)
    story.take(3)
    assert end(story, 3) != []


def test_a_lost_page_may_reach_over_what_was_deleted() -> None:
    """Two messages behind the first may be the third and the fourth."""
    story = three()
    story.send(4)
    story.take(1, limit=1, remaining=3)
    story.delete(2)
    story.take(outcome=UNKNOWN, limit=2)
    assert end(story, 4, deleted=(2,), last=4) == []


def test_an_unknown_acknowledgement_may_have_happened() -> None:
    """What was acknowledged without an answer before a crash comes again, or does not."""
    for first in (1, 2, 3):
        story = three()
        story.stream(1, 2)
        story.acknowledge(2, 0, outcome=UNKNOWN)
        story.stream(*range(first, 4))
        story.acknowledge(3, 0)
        assert end(story, 3) == []


def test_a_deletion_under_way_leaves_it_open_whether_the_message_comes() -> None:
    """With and without the message the stream is right, until the deletion is answered."""
    for came in ((1, 2, 3), (1, 3)):
        story = three()
        deleting = story.delete(2)
        stream = story.stream(*came)
        deleting.ended = story.now()
        story.acknowledge(3, 0)
        assert stream.came
        assert end(story, 3, deleted=(2,)) == []


def test_sends_at_the_same_time_may_be_in_any_order() -> None:
    """Only what was answered before the other was begun is before it."""
    story = three()
    first, second, _ = story.sendings
    first.begun, second.begun = second.begun, first.begun
    first.ended = second.ended = 5
    story.take(1, 2, 3)
    assert end(story, 3) == []
