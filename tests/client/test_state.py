"""What a client says of its connection, and to whom."""

import threading

import pytest

from tests.client.fakes import PATIENCE, Peer, echoing, serving
from tests.client.service import ECHO, SERVICE, echo
from wireproto import Client, ClientState, ConnectionLost
from wireproto.client import Backoff

IDLE, CONNECTING, READY = ClientState.IDLE, ClientState.CONNECTING, ClientState.READY
BACKING_OFF, CLOSED = ClientState.BACKING_OFF, ClientState.CLOSED


class Heard:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.states: list[ClientState] = []
        self._changed = threading.Condition()

    def __call__(self, state: ClientState) -> None:
        with self._changed:
            self.states.append(state)
            self._changed.notify_all()

    def until(self, state: ClientState) -> list[ClientState]:
        """All that was heard, once ``state`` was the last."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.states[-1:] == [state], PATIENCE), self.states
            return list(self.states)


def test_a_life_in_states() -> None:
    """A listener hears the present state and each change, in order; ``state`` says the same."""
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.request())
        assert go.wait(PATIENCE)

    heard = Heard()
    with serving(script) as server:
        client = Client(server.address, SERVICE, backoff=Backoff(600, 600, chance=lambda: 1.0))
        assert client.state is IDLE
        client.listen(heard)
        assert client.call(ECHO, echo("x")).text == "x"
        assert heard.until(READY) == [IDLE, CONNECTING, READY]
        assert client.state is READY
        server.stop_listening()
        future = client.start(ECHO, echo("y"))  # so that the end is seen at once
        go.set()
        assert isinstance(future.exception(PATIENCE), ConnectionLost)
        heard.until(IDLE)
        with pytest.raises(ConnectionLost, match="refused"):
            client.call(ECHO, echo("z"))
        assert client.state is BACKING_OFF
        heard.until(BACKING_OFF)
        client.close()
        assert client.state is CLOSED
        assert heard.until(CLOSED) == [IDLE, CONNECTING, READY, IDLE, CONNECTING, BACKING_OFF, CLOSED]


def test_a_listener_can_leave_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """What one raises is logged and the others hear on; one that left hears nothing more."""
    good, gone = Heard(), Heard()

    def bad(state: ClientState) -> None:
        raise ZeroDivisionError("a bug of the listener")

    with serving(echoing) as server, Client(server.address, SERVICE) as client:
        client.listen(bad)
        leave = client.listen(gone)
        client.listen(good)
        gone.until(IDLE)
        leave()
        leave()
        client.open()
        good.until(READY)
    assert good.until(CLOSED) == [IDLE, CONNECTING, READY, CLOSED]
    assert gone.states == [IDLE]
    assert "a bug of the listener" in caplog.text


def test_a_listener_may_call() -> None:
    """It runs without a lock: a call from within is answered."""
    answers: list[str] = []
    done = threading.Event()
    with serving(echoing) as server, Client(server.address, SERVICE) as client:

        def ready(state: ClientState) -> None:
            if state is READY:
                answers.append(client.call(ECHO, echo("from a listener")).text)
                done.set()

        client.listen(ready)
        client.open()
        assert done.wait(PATIENCE)
    assert answers == ["from a listener"]
