"""A server over a real socket against a model of what each frame must be answered.

The client is frames made by hand, in pipe text, cut into pieces; the model is written from ``docs/wire.md`` and
knows nothing of connections. After every step a PING shows that nothing came that the model did not foresee.
"""

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.server.peer import until
from tests.server.service import SERVICE, DeferResponse, Stage
from wireproto.conformance.raw import Ending, RawFrame, RawPeer, frame, pack_hello
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.wire.frame import PREAMBLE, unpack_error

MAX_CALLS = 4
SOME_BYTES = (1 << 20).to_bytes(4)  # of credit: more than all items have
ECHO, DEFER, FEED, UNKNOWN = 1, 3, 5, 0x0EEE
REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY = range(3, 13)
NEVER, NOT_PROCESSED, MAYBE_PROCESSED = range(3)


@dataclass
class Call:
    """What the model knows of a call in flight."""

    name: str
    stream: bool
    credit: int = 0
    waiting: deque[str] = field(default_factory=deque)
    """Items the source has and the stream may not send yet."""
    over: bool = False
    """The source has no more than those."""

    @property
    def opcode(self) -> int:
        return FEED if self.stream else DEFER


class LiveMachine(RuleBasedStateMachine):
    """One client at a time; it may leave in any way, and comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        limits = Limits(max_calls=MAX_CALLS, cancel_burst=10**6, errors_per_minute=10**6, ping_burst=10**6)
        self.server = Server(self.stage.handlers, codecs=["pipe"], limits=limits, workers=4)
        self.server.start()
        self.peer: RawPeer | None = None
        self.names = 0
        self.phase = "gone"

    @initialize(piece=st.integers(1, 200))
    def first(self, piece: int) -> None:
        """The first connection."""
        self.connect(piece)

    # What the client says, and what it hears.

    def connect(self, piece: int) -> None:
        until(lambda: not self.server.sessions, "the last connection is gone")
        self.peer = RawPeer.connect((self.server.address.host, self.server.address.port))
        self.phase, self.calls, self.last, self.piece = "open", dict[int, Call](), 0, piece
        self.say(PREAMBLE + frame(1, pack_hello(codecs=[(1, "pipe")], service=SERVICE.full_name)))
        assert self.peer.take(4) == PREAMBLE
        welcome = self.hear()
        assert (welcome.kind, welcome.payload[:2]) == (2, b"\1\1")

    def say(self, wire: bytes) -> None:
        assert self.peer is not None
        assert self.peer.send(*(wire[at : at + self.piece] for at in range(0, len(wire), self.piece))) is None

    def hear(self) -> RawFrame:
        assert self.peer is not None
        heard = self.peer.receive(20)
        assert isinstance(heard, RawFrame), heard
        return heard

    def begin(self, opcode: int, payload: str, metadata: bytes = b"", flags: int = 0) -> int | None:
        """Say REQUEST; its id, or None when the model and the server refuse it alike."""
        self.last += 1
        header = {"flags": flags, "codec": 1, "version": 1, "opcode": opcode, "call_id": self.last}
        self.say(frame(REQUEST, payload.encode(), metadata, **header))
        if self.phase == "draining":
            self.fails(self.last, opcode, "SHUTTING_DOWN", NOT_PROCESSED)
            return None
        if len(self.calls) >= MAX_CALLS:
            self.fails(self.last, opcode, "TOO_MANY_CALLS", NOT_PROCESSED)
            return None
        return self.last

    def fails(self, call_id: int, opcode: int, reason: str, *retries: int) -> None:
        heard = self.hear()
        assert heard[:6] == (ERROR, 0, 0, 0, opcode, call_id), heard
        error = unpack_error(heard.payload)
        assert error.reason == reason
        assert error.retry in retries

    def answers(self, kind: int, call_id: int, opcode: int, payload: str) -> None:
        heard = self.hear()
        codec = 0 if kind == END else 1
        assert heard == RawFrame(kind, 0, codec, codec, opcode, call_id, b"", payload.encode())

    def flows(self, call_id: int) -> None:
        """Hear what a stream may send now."""
        call = self.calls[call_id]
        while call.waiting and call.credit:
            call.credit -= 1
            self.answers(ITEM, call_id, FEED, call.waiting.popleft())
        if call.over and not call.waiting and call.credit:
            # Without credit the source is not asked, so nobody knows yet.
            self.answers(END, call_id, FEED, "")
            del self.calls[call_id]

    def settle(self) -> None:
        """Nothing else comes, and the server counts the calls that the model counts; or both are done."""
        assert self.peer is not None
        if self.phase in ("draining", "half") and not self.calls:
            assert self.peer.receive(20) is Ending.EOF
            self.leave()
            return
        sessions = list(self.server.sessions.values())
        assert len(sessions) == 1
        until(lambda: sessions[0].connection.calls_in_flight == len(self.calls), "the places are given back")
        if self.phase != "half":
            self.say(frame(PING, b"%8d" % self.last))
            assert self.hear() == RawFrame(PONG, 0, 0, 0, 0, 0, b"", b"%8d" % self.last)

    def leave(self, *, reset: bool = False, failed: bool = False) -> None:
        """Be gone, and see that what was in flight is let go; it is given up when the connection failed."""
        assert self.peer is not None
        if reset:
            self.peer.reset()
        else:
            self.peer.close()
        self.phase = "gone"
        for call in self.calls.values():
            if call.stream:
                assert self.stage.feed(call.name).was_closed.wait(20)
            elif reset or failed:
                until(self.stage.future(call.name).cancelled, "the deferred answer is given up")
            elif self.stage.future(call.name).set_running_or_notify_cancel():
                # An end of input alone leaves calls to be answered. The first answer may tell that nobody is there.
                self.stage.future(call.name).set_result(DeferResponse(name=call.name))
        self.calls = {}

    def some(self, data: st.DataObject, *, stream: bool | None = None) -> int | None:
        known = [each for each, call in self.calls.items() if stream is None or call.stream is stream]
        return data.draw(st.sampled_from(known)) if known else None

    def name(self) -> str:
        self.names += 1
        return f"n{self.names}"

    # Steps of somebody who may speak.

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(text=st.text("abc", max_size=9))
    def echo(self, text: str) -> None:
        """A call that is answered at once."""
        call_id = self.begin(ECHO, f"{text}|0")
        if call_id is not None:
            self.answers(RESPONSE, call_id, ECHO, text)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule()
    def defer(self) -> None:
        """A call that is answered later."""
        name = self.name()
        call_id = self.begin(DEFER, name)
        if call_id is not None:
            self.stage.future(name)
            self.calls[call_id] = Call(name, stream=False)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule()
    def defer_too_long(self) -> None:
        """A call whose deadline passes."""
        name = self.name()
        call_id = self.begin(DEFER, name, bytes.fromhex("01 0004 00000001"))
        if call_id is not None:
            self.fails(call_id, DEFER, "DEADLINE", NOT_PROCESSED, MAYBE_PROCESSED)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(credit=st.integers(0, 3))
    def subscribe(self, credit: int) -> None:
        """A stream."""
        name = self.name()
        metadata = b"\5\0\x08" + credit.to_bytes(4) + SOME_BYTES if credit else b""
        call_id = self.begin(FEED, name, metadata, flags=8)
        if call_id is not None:
            self.stage.feed(name)
            self.calls[call_id] = Call(name, stream=True, credit=credit)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(opcode=st.sampled_from([ECHO, UNKNOWN]))
    def mumble(self, opcode: int) -> None:
        """A payload that is no message, or an opcode that does not exist."""
        call_id = self.begin(opcode, "|")
        if call_id is not None:
            self.fails(call_id, opcode, "BAD_PAYLOAD" if opcode == ECHO else "UNKNOWN_OPCODE", NEVER)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """CANCEL of a call in flight; of another one it is ignored."""
        call_id = self.some(data)
        if call_id is None:
            self.say(frame(CANCEL, opcode=ECHO, call_id=self.last + 1))
        else:
            call = self.calls.pop(call_id)
            self.say(frame(CANCEL, opcode=call.opcode, call_id=call_id))
            self.fails(call_id, call.opcode, "CANCELLED", MAYBE_PROCESSED)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(data=st.data(), amount=st.integers(1, 3))
    def grant(self, data: st.DataObject, amount: int) -> None:
        """CREDIT for a stream."""
        call_id = self.some(data, stream=True)
        if call_id is None:
            return
        call = self.calls[call_id]
        self.say(frame(CREDIT, amount.to_bytes(4) + SOME_BYTES, opcode=call.opcode, call_id=call_id))
        call.credit += amount
        self.flows(call_id)
        self.settle()

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(data=st.data(), opcode=st.sampled_from([ECHO, DEFER, FEED]))
    def mistake(self, data: st.DataObject, opcode: int) -> None:
        """Flags that are not the shape of the method."""
        flags = data.draw(st.sampled_from([0, 4, 12] if opcode == FEED else [4, 8, 12]))
        call_id = self.begin(opcode, "" if flags & 4 else "x", flags=flags)
        if call_id is not None:
            self.fails(call_id, opcode, "WRONG_SHAPE", NOT_PROCESSED)
        self.settle()

    # What the service does meanwhile.

    @precondition(lambda self: self.phase in ("open", "draining", "half"))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A deferred answer is there."""
        call_id = self.some(data, stream=False)
        if call_id is None:
            return
        name = self.calls.pop(call_id).name
        self.stage.future(name).set_result(DeferResponse(name=name))
        self.answers(RESPONSE, call_id, DEFER, name)
        self.settle()

    @precondition(lambda self: self.phase == "open")
    @rule(data=st.data(), count=st.integers(1, 4), over=st.booleans())
    def feed(self, data: st.DataObject, count: int, over: bool) -> None:
        """A stream has items, and perhaps no more after them."""
        call_id = self.some(data, stream=True)
        if call_id is None or self.calls[call_id].over:
            return
        call, feed = self.calls[call_id], self.stage.feed(self.calls[call_id].name)
        items = [f"i{number}" for number in range(count)]
        call.waiting.extend(items)
        feed.items.extend(items)
        call.over = feed.over = over
        feed.wake()
        self.flows(call_id)
        self.settle()

    @precondition(lambda self: self.phase == "open")
    @rule()
    def drain(self) -> None:
        """The server goes away: it names the last call, ends the streams, and closes once the rest is answered."""
        (session,) = self.server.sessions.values()
        session.drain()
        heard = self.hear()
        assert (heard.kind, heard.call_id, heard.payload[:4]) == (GOAWAY, 0, self.last.to_bytes(4))
        self.phase = "draining"
        self.streams_end("SHUTTING_DOWN")
        self.settle()

    # Ways to leave.

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule()
    def half_close(self) -> None:
        """The client says nothing more: its streams end, its calls are answered."""
        assert self.peer is not None
        self.peer.end_output()
        was, self.phase = self.phase, "half"
        self.streams_end("SHUTTING_DOWN" if was == "draining" else "CANCELLED")
        self.settle()

    def streams_end(self, reason: str) -> None:
        streams = {call_id for call_id, call in self.calls.items() if call.stream}
        for _ in range(len(streams)):
            heard = self.hear()
            assert (heard.kind, heard.opcode, unpack_error(heard.payload).reason) == (ERROR, FEED, reason)
            streams.remove(heard.call_id)
            assert self.stage.feed(self.calls.pop(heard.call_id).name).was_closed.wait(20)

    @precondition(lambda self: self.phase in ("open", "draining"))
    @rule(wrong=st.sampled_from(["flags", "kind", "length"]))
    def break_a_rule(self, wrong: str) -> None:
        """A bad header: the reason, and the end."""
        wires = {"flags": frame(PING, bytes(8), flags=4), "kind": frame(99), "length": frame(PING, length=2**31)}
        self.say(wires[wrong])
        heard = self.hear()
        reasons = {"flags": "RESERVED_FLAGS", "kind": "UNKNOWN_KIND", "length": "FRAME_TOO_LARGE"}
        assert (heard.kind, heard.call_id, unpack_error(heard.payload).reason) == (ERROR, 0, reasons[wrong])
        assert self.peer is not None
        assert self.peer.receive(20) is Ending.EOF
        self.leave(failed=True)

    @precondition(lambda self: self.phase in ("open", "draining", "half"))
    @rule(how=st.sampled_from(["close", "reset"]))
    def drop(self, how: str) -> None:
        """The client is gone."""
        self.leave(reset=how == "reset")

    @precondition(lambda self: self.phase == "gone")
    @rule(piece=st.integers(1, 200))
    def reconnect(self, piece: int) -> None:
        """It comes again."""
        self.connect(piece)

    def teardown(self) -> None:
        """Nothing is left when the server stops."""
        if self.phase != "gone":
            self.leave()
        assert self.server.shutdown(5) == []


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        LiveMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            # A step that fails has waited for its time limit: to look for a shorter way would take hours.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_the_server_does_what_the_model_foresees() -> None:
    """Whatever a client does, in any order, every frame that comes is the one foreseen, and nothing is left."""
    run(examples=20, steps=30)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_server_does_what_the_model_foresees_for_long() -> None:
    """The same, in a thousand lives of a server."""
    run(examples=1000, steps=60)
