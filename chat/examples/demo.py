"""Two people chat over each codec, and one frame of each is taken apart: ``make demo``.

A server on a free port, its store in a temporary directory, and two scripted clients that run what ``wireproto chat``
runs. The conversation is the same each time; only the bytes differ.
"""

import os
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from wireproto import Address, Client, Limits, Metadata, Server, codecs, connect
from wireproto.testing import pair
from wireproto_chat.client.commands import parse
from wireproto_chat.client.display import DisplayLine, LineKind, rows
from wireproto_chat.client.session import ChatSession
from wireproto_chat.opcodes import CHAT, LOG_IN, SEND_MESSAGE, LogInRequest, SendMessageRequest
from wireproto_chat.service.handlers import open_chat

PASSWORD = "correct horse battery"
TEXT = "lunch at 12?"

# Who types what. An answer or a message is waited for before the next line is typed.
SCRIPT = [
    ("alice", f"1|alice|{PASSWORD}"),
    ("bob", f"1|bob|{PASSWORD}"),
    ("alice", f"0|alice|{PASSWORD}"),
    ("alice", f"3|bob|{TEXT}"),  # bob is away: it waits for him
    ("bob", f"0|bob|{PASSWORD}"),
    ("bob", "/send alice yes | no \\ whatever"),
    ("bob", "2|*"),
    ("alice", "3|bob|\x1b[2Jthis clears no screen"),
    ("alice", "3|carol|anybody there?"),
    ("bob", "7|"),  # takes what is not acknowledged yet, so that the account may go
    ("bob", "5|bob"),
    ("alice", "5|alice"),
]
# How many lines each one sees for each line typed, alice first.
SEEN = [(1, 0), (0, 1), (1, 0), (1, 0), (0, 2), (1, 1), (0, 1), (1, 1), (1, 0), (0, 1), (0, 1), (1, 0)]


class Person:
    """One scripted person: a connection, a session, and what it has shown."""

    def __init__(self, name: str, address: Address, codec: str) -> None:
        self.name = name
        self.shown: list[DisplayLine] = []
        self._grown = threading.Condition()
        self._client: Client = connect(address, CHAT, codec=codec)
        self._session = ChatSession(self._client, self._show, self._lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close(5)

    def type(self, line: str) -> None:
        """Carry out one line, as if it had been typed."""
        command = parse(line)
        assert command is not None
        self._session.execute(command)

    def wait(self, count: int) -> None:
        """Wait until ``count`` lines have been shown since the beginning."""
        with self._grown:
            if not self._grown.wait_for(lambda: len(self.shown) >= count, 10):
                raise TimeoutError(f"{self.name} sees {len(self.shown)} lines of {count}")

    def _show(self, line: DisplayLine) -> None:
        with self._grown:
            self.shown.append(line)
            self._grown.notify_all()

    def _lost(self, sentence: str) -> None:
        raise ConnectionError(sentence)


def converse(address: Address, codec: str) -> Iterator[str]:
    """Play the script; yield what is typed and what is seen."""
    with Person("alice", address, codec) as alice, Person("bob", address, codec) as bob:
        people = {"alice": alice, "bob": bob}
        done = {"alice": 0, "bob": 0}
        for (who, line), counts in zip(SCRIPT, SEEN, strict=True):
            yield f"{who:>5} types  {line.replace(PASSWORD, '*****').encode('unicode_escape').decode()}"
            people[who].type(line)
            for person, count in zip(people.values(), counts, strict=True):
                goal = done[person.name] + count
                person.wait(goal)
                # The answer to a line and the message it caused race each other; messages are told last.
                new = sorted(person.shown[done[person.name] : goal], key=lambda line: line.kind is LineKind.MESSAGE)
                for row in (row for line in new for row in rows(line)):
                    yield f"{person.name:>5} sees   {row}"
                done[person.name] = goal


def frame_of(codec_name: str) -> Iterator[str]:
    """The REQUEST that carries alice's first message, byte by byte: what a client writes when nothing is in between."""
    codec = codecs.get(codec_name)
    request = SendMessageRequest(recipient="bob", text=TEXT)
    payload = codec.plan(SendMessageRequest, CHAT.version, Limits()).encode(request)
    link = pair(CHAT, codec=codec)
    link.start(LOG_IN, LogInRequest(username="alice", password=PASSWORD))
    link.client.data_to_send()  # the first call of the connection
    link.start(SEND_MESSAGE, request, metadata=Metadata(deadline_ms=10_000, idempotency_key=bytes(range(0x10, 0x20))))
    frame = link.client.data_to_send()
    metadata = frame[16 : len(frame) - len(payload)]
    yield f"alice's first message as one frame of {len(frame)} bytes, {len(payload)} of them {codec.name}:"
    parts = [
        (4, f"length    {len(frame) - 4} bytes follow"),
        (1, "kind      REQUEST"),
        (1, "flags     none"),
        (1, f"codec     {codec.name}"),
        (1, f"version   {CHAT.version} of {CHAT.full_name}"),
        (2, f"opcode    {SEND_MESSAGE.opcode}, {SEND_MESSAGE.name}"),
        (2, f"meta_len  {len(metadata)} bytes of metadata"),
        (4, "call_id   2, the second call of this connection"),
        (7, "metadata  deadline_ms: the answer is wanted within 10 s"),
        (len(metadata) - 7, "metadata  idempotency_key: 16 random bytes; a repetition sends no second message"),
        *payload_parts(codec_name, request, payload),
    ]
    at = 0
    for size, meaning in parts:
        piece = frame[at : at + size]
        first, *rest = textwrap.wrap(piece.hex(" "), 24) or [""]
        yield f"  {at:3}  {first:23}  {meaning}"
        yield from (f"       {row}" for row in rest)
        at += size
    assert at == len(frame)


def payload_parts(codec: str, request: SendMessageRequest, payload: bytes) -> Iterator[tuple[int, str]]:
    """Sizes and meanings of a payload's pieces: the two texts, and what the codec puts around them."""
    around = {
        "pipe": ("", "payload   | between two fields"),
        "msgpack": ("payload   an array of 2, a text of 3 bytes", f"payload   a text of {len(request.text)} bytes"),
        "protobuf": ("payload   field 1, 3 bytes", f"payload   field 2, {len(request.text)} bytes"),
    }[codec]
    rest = payload
    for value, meaning in zip((request.recipient, request.text), around, strict=True):
        before, _, rest = rest.partition(value.encode())
        if before:
            yield len(before), meaning
        yield len(value), f'payload   "{value}"'
    assert not rest


def main() -> int:
    began = time.monotonic()
    told: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="wireproto-demo-") as folder:
        for codec in codecs.names()[:3]:
            # A store for each: a name that was deleted is not given out again at once.
            app = open_chat(str(Path(folder) / f"{codec}.db"))
            try:
                with Server(app.handlers, authenticate=app.authenticate, codecs=[codec]) as server:
                    print(f"--- {codec} " + "-" * (70 - len(codec)) + "\n")
                    told[codec] = []
                    for row in converse(server.address, codec):
                        print(row)
                        told[codec].append(row)
            finally:
                app.close()
            print()
            for row in frame_of(codec):
                print(row)
            print()
    same = len({tuple(rows) for rows in told.values()}) == 1
    print(
        f"{'The same conversation' if same else 'NOT THE SAME CONVERSATION'} over {', '.join(told)}, "
        f"in {time.monotonic() - began:.1f} s."
    )
    return 0 if same else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read it has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
