"""A real server whose methods take items and one-way calls, for the tests of the client."""

import threading
from collections.abc import Iterator

from tests.client.service import (
    ADD_UP,
    CHAT,
    ECHO,
    NOTE,
    SEND,
    CountRequest,
    CountResponse,
    EchoRequest,
    EchoResponse,
)
from wireproto import Context, Handlers, Service

TAKING = Service("test.v1.TakingService", version=2, methods=[ECHO, ADD_UP, CHAT, NOTE, SEND])


class TakingStage:
    """The handlers, and what they were sent."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.noted = threading.Semaphore(0)
        self.handlers = Handlers(TAKING)
        register = self.handlers.register

        @register(ECHO)
        def answer(request: EchoRequest, context: Context) -> EchoResponse:
            return EchoResponse(text=request.text)

        @register(ADD_UP)
        def add_up(items: Iterator[CountRequest], context: Context) -> CountResponse:
            return CountResponse(n=sum(item.upto for item in items))

        @register(SEND)
        def send(items: Iterator[EchoRequest], context: Context) -> CountResponse:
            return CountResponse(n=sum(len(item.text) for item in items))

        @register(CHAT)
        def chat(items: Iterator[CountRequest], context: Context) -> Iterator[CountResponse]:
            for item in items:
                yield CountResponse(n=item.upto)

        @register(NOTE)
        def note(request: EchoRequest, context: Context) -> None:
            self.notes.append(request.text)
            self.noted.release()
