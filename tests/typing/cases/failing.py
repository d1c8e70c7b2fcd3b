"""What a type checker must refuse: exactly the lines that say so. Never imported: only checked."""

# pyright: strict

from collections.abc import Iterator

from wireproto import (
    Client,
    Context,
    DuplexMethod,
    Handlers,
    Message,
    Method,
    OneWayMethod,
    Service,
    StreamMethod,
    UploadMethod,
)
from wireproto.testing import Pair


class AddRequest(Message):
    left: int
    right: int = 0


class AddResponse(Message):
    total: int


class WatchResponse(Message):
    x: int


ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse)
WATCH = StreamMethod(opcode=0x11, name="Watch", request=AddRequest, response=WatchResponse)
SUM = UploadMethod(opcode=0x12, name="Sum", request=AddRequest, response=AddResponse)
TRACE = DuplexMethod(opcode=0x13, name="Trace", request=AddRequest, response=WatchResponse)
NOTE = OneWayMethod(opcode=0x14, name="Note", request=AddRequest)
SERVICE = Service("example.v1.CalculatorService", version=1, methods=[ADD, WATCH, SUM, TRACE, NOTE])


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
    OneWayMethod(opcode=1, name="Note", request=AddRequest, response=AddResponse)  # error: it has no response
    UploadMethod(opcode=1, name="Sum", request=AddRequest, response=AddResponse, collect="9")  # error: of another type
    Method(opcode=1, name="Add", request=AddRequest, response=AddResponse, collect=9)  # error: of uploads alone
    print(ADD.collect)  # error: of uploads alone


def calls(client: Client, request: AddRequest, response: AddResponse) -> None:
    client.call(ADD, response)  # error: another message than the method's request
    client.call(ADD, Message())  # error: not even a base of it
    client.call(WATCH, request)  # error: a stream is not called
    client.start(WATCH, request)  # error: nor started
    client.call_many(WATCH, [request])  # error: nor called many times
    client.call_many(ADD, [response])  # error: another message
    client.stream(ADD, request)  # error: a call is not streamed
    client.stream(WATCH, response)  # error: another message
    client.follow(WATCH, response)  # error: another message
    client.follow(ADD, request)  # error: a call is not followed
    print(client.call(ADD, request).left)  # error: the response has no such field
    wrong: AddRequest = client.call(ADD, request)  # error: the response is no request
    print(wrong)


def streams(client: Client, request: AddRequest, response: AddResponse) -> None:
    client.upload(SUM, request)  # error: not items, but one
    client.upload(SUM, [response])  # error: another message than the method's items
    client.upload(TRACE, [request])  # error: a duplex method is no upload
    client.call(SUM, request)  # error: nor is an upload called
    print(client.upload(SUM, [request]).left)  # error: the response has no such field
    client.duplex(TRACE, [response])  # error: another message
    client.duplex(TRACE).send(response)  # error: another message
    client.duplex(WATCH, [request])  # error: a stream takes one request
    print(next(client.duplex(TRACE)).left)  # error: the item has no such field
    client.post(NOTE, response)  # error: another message
    client.post(ADD, request)  # error: a call has an answer


def pairs(link: Pair, request: AddRequest, response: AddResponse) -> None:
    link.call(SUM, request)  # error: an upload is not called
    link.upload(SUM, request)  # error: one item is not many
    link.upload(SUM, [response])  # error: another message
    link.upload(ADD, [request])  # error: a call has no items
    link.upload(TRACE, [request])  # error: a duplex call has more than one answer
    link.duplex(SUM, [request])  # error: an upload has one answer
    link.duplex(TRACE, [response])  # error: another message
    link.post(ADD, request)  # error: a call is answered
    link.post(NOTE, response)  # error: another message
    link.send_item(1, SUM, response)  # error: another message


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


@handlers.register(SUM)  # error: the handler of an upload takes many
def one_of_many(request: AddRequest, context: Context) -> AddResponse:
    return AddResponse(total=1)


@handlers.register(SUM)  # error: the handler takes another message
def other_items(items: Iterator[AddResponse], context: Context) -> AddResponse:
    return AddResponse(total=1)


@handlers.register(SUM)  # error: the handler of an upload gives one message
def many_of_many(items: Iterator[AddRequest], context: Context) -> Iterator[AddResponse]:
    yield AddResponse(total=1)


@handlers.register(TRACE)  # error: the handler of a duplex method takes many
def one_traced(request: AddRequest, context: Context) -> Iterator[WatchResponse]:
    yield WatchResponse(x=1)


@handlers.register(TRACE)  # error: the handler of a duplex method gives many
def traced(items: Iterator[AddRequest], context: Context) -> WatchResponse:
    return WatchResponse(x=1)


@handlers.register(NOTE)  # error: the handler of a one-way method gives nothing
def answered(request: AddRequest, context: Context) -> AddResponse:
    return AddResponse(total=1)


@handlers.sink(ADD)  # error: a call has no items
def of_a_call(context: Context) -> AddResponse:
    return AddResponse(total=1)


@handlers.sink(SUM)  # error: what it makes is no sink
def no_sink(context: Context) -> AddResponse:
    return AddResponse(total=1)
