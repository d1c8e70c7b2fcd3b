"""Methods that end in ``_locked`` are called with the lock held, and a call without it fails."""

import threading
from collections.abc import Iterator

import pytest

from tests.server.service import Stage
from tools.debug_locks import DebugLock
from wireproto import Server, connect
from wireproto.server.session import Session


def test_a_call_without_the_lock_fails(stage_session: Session) -> None:
    """The thread that calls must own the lock: nobody, or another thread, is not enough."""
    session = stage_session
    lock: object = session.lock
    assert isinstance(lock, DebugLock)
    with pytest.raises(AssertionError, match=r"AnsweringSide\.room_locked was called without lock held"):
        session.room_locked()
    with session.lock:
        assert session.room_locked() > 0
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with session.lock:
            taken.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    assert session.lock.locked()
    with pytest.raises(AssertionError, match="was called without lock held"):
        session.room_locked()
    done.set()
    holder.join(10)


@pytest.fixture
def stage_session() -> Iterator[Session]:
    """A session of a server that serves one client."""
    stage = Stage()
    with Server(stage.handlers) as server, connect(server.address, stage.handlers.service):
        (session,) = server.sessions.values()
        yield session
    stage.open_gates()


def test_others_have_their_own_locks() -> None:
    """Only our modules get such locks: a lock of the standard library, or of a test, is the real one."""
    assert not isinstance(threading.Lock(), DebugLock)
    assert type(threading.Lock()) is type(threading.Lock())


def test_it_is_a_lock() -> None:
    """It can be waited for with and without a time limit, and released by another thread, as the real one."""
    lock = DebugLock()
    assert lock.acquire()
    assert lock.owned()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.01)
    other = threading.Thread(target=lock.release)
    other.start()
    other.join(10)
    assert not lock.locked()
    assert not lock.owned()
    with lock:
        assert lock.owned()
