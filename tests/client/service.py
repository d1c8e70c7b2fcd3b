"""The service that the client's tests call: one method of each kind, in two versions."""

from typing import Annotated

from wireproto import DuplexMethod, Message, Method, OneWayMethod, Service, Since, StreamMethod, UploadMethod


class EchoRequest(Message):
    text: str
    loud: Annotated[bool, Since(2)] = False


class EchoResponse(Message):
    text: str


class CountRequest(Message):
    upto: int


class CountResponse(Message):
    n: int


class NewRequest(Message):
    pass


class NewResponse(Message):
    pass


class SmallRequest(Message):
    text: str


class SmallResponse(Message):
    text: str


ECHO = Method(opcode=1, name="Echo", request=EchoRequest, response=EchoResponse)
COUNT = StreamMethod(opcode=2, name="Count", request=CountRequest, response=CountResponse)
NEW = Method(opcode=3, name="New", request=NewRequest, response=NewResponse, since=2)
SMALL = Method(opcode=4, name="Small", request=SmallRequest, response=SmallResponse, max_request=100, timeout=0.05)
SAY = StreamMethod(opcode=5, name="Say", request=EchoRequest, response=EchoResponse)
ADD_UP = UploadMethod(opcode=6, name="AddUp", request=CountRequest, response=CountResponse)
CHAT = DuplexMethod(opcode=7, name="Chat", request=CountRequest, response=CountResponse)
NOTE = OneWayMethod(opcode=8, name="Note", request=EchoRequest)
SEND = UploadMethod(opcode=9, name="Send", request=EchoRequest, response=CountResponse, max_request=200_000)
SERVICE = Service("test.v1.ClientService", version=2, methods=[ECHO, COUNT, NEW, SMALL, SAY, ADD_UP, CHAT, NOTE, SEND])

OTHER = Method(opcode=1, name="Other", request=NewRequest, response=NewResponse)


def echo(text: str = "") -> EchoRequest:
    """A request of ECHO."""
    return EchoRequest(text=text)
