"""Runs the terminal front over a `FakeServer`, for tests of the terminal alone: ``python -m ... STORM``.

Accounts are alice, bob and mallory; whoever signs in gets STORM messages from bob, one as soon as the last was shown.
A message whose text is ``gone`` makes the server go away.
"""

import sys
import threading

from chat_client.fake import FakeClient, FakeServer
from wireproto import ConnectionLost
from wireproto_chat.cli.terminal import Terminal
from wireproto_chat.client.session import ChatSession
from wireproto_chat.opcodes import SendMessageRequest, SendMessageResponse


class _Client(FakeClient):
    def _3(self, request: SendMessageRequest) -> SendMessageResponse:
        if request.text == "gone":
            self.server.end_streams(self.user, ConnectionLost("the power is out"))
        return super()._3(request)


def _storm(server: FakeServer, count: int) -> None:
    with server.opened:
        server.opened.wait_for(lambda: "alice" in server.streams)
    for number in range(count):
        server.post("bob", "alice", f"message {number} of the storm")
        # As quick as a person's terminal takes them, and no quicker: each is acknowledged once it is on the screen.
        while server.acknowledged["alice"] < number:
            threading.Event().wait(0.001)


def main() -> int:
    server = FakeServer("alice", "bob", "mallory")
    terminal = Terminal(lambda name: None)
    farewell: list[str] = []

    def lost(sentence: str) -> None:
        farewell.append(sentence)
        terminal.stop()

    session = ChatSession(_Client(server), terminal.show, lost, server="The server", patience=0)
    threading.Thread(target=_storm, args=(server, int(sys.argv[1])), daemon=True).start()
    code = terminal.run(session, "Connected to nothing.", "")
    for sentence in farewell:
        print(f"wireproto: {sentence}", file=sys.stderr)
        code = 24
    return code


if __name__ == "__main__":
    sys.exit(main())
