"""A child of the process that has the store: it is refused, and the parent loses nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from wireproto_chat.store import maintenance

PATIENCE = 120.0

FORKS = """
import gc, os, sys, threading, time
from pathlib import Path
from chat_service.fakes import Chat, Clock, FakeContext, PASSWORD
from wireproto import CallError, ConfigError
from wireproto_chat.opcodes import CREATE_ACCOUNT, LOG_IN, SEND_MESSAGE, WHO_AM_I
from wireproto_chat.opcodes import CreateAccountRequest, LogInRequest, SendMessageRequest, WhoAmIRequest

store, count = Path(sys.argv[1]), int(sys.argv[2])
chat = Chat(store, Clock())
ann = chat.account("ann")

def locks():
    inodes = [f":{os.stat(f'{store}{suffix}').st_ino} " for suffix in ("", "-shm", ".lock")]
    lines = open("/proc/locks").read().splitlines()
    return sorted(line.split(":", 1)[1] for line in lines if any(inode in line for inode in inodes))

def in_child(number):
    def refused(method, request, context):
        try:
            chat.call(method, request, context)
        except CallError as error:
            assert (error.reason, "before a fork" in error.message) == ("STORE_FAILED", True), error
        else:
            raise AssertionError(f"{method.name} was answered")
    refused(WHO_AM_I, WhoAmIRequest(), ann)
    refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="from a child"), ann)
    refused(LOG_IN, LogInRequest(username="ann", password=PASSWORD), FakeContext())
    refused(CREATE_ACCOUNT, CreateAccountRequest(username="bob", password=PASSWORD), FakeContext())
    assert chat.app.close()
    assert chat.app.close()
    try:
        Chat(store, Clock())
    except ConfigError as error:
        assert "in use by process" in str(error), error
    else:
        raise AssertionError("opened twice")

sent = []
stop = threading.Event()

def send():
    number = 0
    while not stop.is_set():
        answers = []
        for _ in range(20):
            number += 1
            request = SendMessageRequest(recipient="ann", text=f"{number} " + "x" * 500)
            answers.append((number, chat.start(SEND_MESSAGE, request, ann)))
        for number, answer in answers:
            sent.append((answer.result(60).sequence, number))

before = locks()
assert before
writer = threading.Thread(target=send)
writer.start()
for number in range(count):
    child = os.fork()
    if not child:
        try:
            in_child(number)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        if number % 4 == 0:
            os._exit(0)
        chat.app = chat = None
        gc.collect()
        sys.exit(0)  # as far as to the end of the interpreter, which frees all it can reach
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
stop.set()
writer.join()
assert locks() == before, (before, locks())
assert not chat.fatal
texts = chat.pop(ann, 5)
assert texts[0].startswith("1 ")
chat.close()
assert [sequence for sequence, _ in sent] == list(range(1, len(sent) + 1))
print(len(sent))
"""

CHILD_OUTLIVES = """
import os, sys
from pathlib import Path
from chat_service.fakes import Chat, Clock
from wireproto import ConfigError

store = Path(sys.argv[1])
chat = Chat(store, Clock())
chat.account("ann")
read, write = os.pipe()
child = os.fork()
if not child:
    os.read(read, 1)  # until the parent has closed the store
    try:
        Chat(store, Clock())
    except ConfigError as error:
        assert "was open in the parent process when this one was forked" in str(error), error
        os._exit(0)
    os._exit(1)
chat.close()
again = Chat(store, Clock())  # nobody has it, though the child lives
again.account("bob")
again.close()
os.write(write, b"x")
assert os.waitpid(child, 0)[1] == 0
"""


def run(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.long)])
def test_children_are_refused_and_the_parent_loses_nothing(tmp_path: Path, count: int) -> None:
    """While a thread writes, children that try everything, close the store, and end in either way change nothing: the
    locks are the same, every answered message is there once, and the file is whole."""
    store = tmp_path / "chat.db"
    sent = int(run(FORKS, str(store), str(count)))
    assert sent >= count
    assert maintenance.check(str(store)) == []


def test_a_child_that_outlives_its_parents_store_does_not_hold_it(tmp_path: Path) -> None:
    """The parent can close the store and open it again; the child, whose SQLite believes to have it open, may not."""
    store = tmp_path / "chat.db"
    run(CHILD_OUTLIVES, str(store))
    assert maintenance.check(str(store)) == []
