"""What a type checker must refuse: exactly the lines that say so. Never imported: only checked."""

# pyright: strict

from collections.abc import Iterator

from wireproto import Client, Context, Handlers, Message, Method, Service, StreamMethod


class AddRequest(Message):
    left: int
    right: int = 0


class AddResponse(Message):
    total: int


class WatchResponse(Message):
    x: int


ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse)
WATCH = StreamMethod(opcode=0x11, name="Watch", request=AddRequest, response=WatchResponse)
SERVICE = Service("example.v1.CalculatorService", version=1, methods=[ADD, WATCH])


def messages(request: AddRequest) -> None:
    AddRequest(2, 3)  # error: by position
    AddRequest()  # error: without a required field
    AddRequest(left="2")  # error: of another type
    AddRequest(left=2, middle=3)  # error: no such field
    request.left = 5  # error: frozen
    print(request.middle)  # error: no such field


def methods() -> None:
    Method(opcode=1, name="Add", request=int, response=AddResponse)  # error: no message
    Method(opcode=1, name="Add", request=AddRequest(left=1), response=AddResponse)  # error: no class
    Method(1, "Add", AddRequest, AddResponse)  # error: by position
    Method(opcode="1", name="Add", request=AddRequest, response=AddResponse)  # error: of another type
    Service("example.v1.CalculatorService", version=1, methods=[AddRequest])  # error: no method
    ADD.opcode = 5  # error: frozen


def calls(client: Client, request: AddRequest, response: AddResponse) -> None:
    client.call(ADD, response)  # error: another message than the method's request
    client.call(ADD, Message())  # error: not even a base of it
    client.call(WATCH, request)  # error: a stream is not called
    client.start(WATCH, request)  # error: nor started
    client.call_many(WATCH, [request])  # error: nor called many times
    client.call_many(ADD, [response])  # error: another message
    client.stream(ADD, request)  # error: a call is not streamed
    client.stream(WATCH, response)  # error: another message
    print(client.call(ADD, request).left)  # error: the response has no such field
    wrong: AddRequest = client.call(ADD, request)  # error: the response is no request
    print(wrong)


handlers = Handlers(SERVICE)


@handlers.register(ADD)  # error: the handler takes another message
def another_request(request: AddResponse, context: Context) -> AddResponse:
    return request


@handlers.register(ADD)  # error: the handler gives another message
def another_response(request: AddRequest, context: Context) -> AddRequest:
    return request


@handlers.register(ADD)  # error: the handler of a call gives one message
def several(request: AddRequest, context: Context) -> Iterator[AddResponse]:
    yield AddResponse(total=1)


@handlers.register(WATCH)  # error: the handler of a stream gives many
def one(request: AddRequest, context: Context) -> WatchResponse:
    return WatchResponse(x=1)
