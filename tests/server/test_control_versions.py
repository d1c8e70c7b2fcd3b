"""The framework's own methods are spoken in the version that both sides have, shown with a double that has two."""

from typing import Annotated

import pytest

from tests.server.service import ECHO, SERVICE, EchoRequest, EchoResponse
from wireproto import binding
from wireproto.client import connect, line
from wireproto.control import CHECK, DESCRIBE
from wireproto.control import ECHO as CONTROL_ECHO
from wireproto.dispatch import Handlers
from wireproto.errors import CallError
from wireproto.handling import Context
from wireproto.schema import Message, Method, Service, Since
from wireproto.server import Server, server

CODECS = ["pipe", "msgpack", "protobuf"]


class TwiceRequest(Message):
    payload: bytes = b""
    times: Annotated[int, Since(2)] = 1


class TwiceResponse(Message):
    payload: bytes = b""
    said: Annotated[int, Since(2)] = 0


class LaterRequest(Message):
    pass


class LaterResponse(Message):
    pass


TWICE = Method(opcode=CONTROL_ECHO.opcode, name="Echo", request=TwiceRequest, response=TwiceResponse)
LATER = Method(opcode=CONTROL_ECHO.opcode + 1, name="Later", request=LaterRequest, response=LaterResponse, since=2)
SECOND = Service("wirecontrol.v1.ControlService", version=2, methods=[CHECK, DESCRIBE, TWICE, LATER])


def serve(control: Service, codec: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose control service is that one."""

    def handlers(*given: object) -> Handlers:
        made = Handlers(control)

        @made.register(TWICE)
        def twice(request: TwiceRequest, context: Context) -> TwiceResponse:
            return TwiceResponse(payload=request.payload * request.times, said=request.times)

        if LATER in control.methods:
            made.register(LATER)(lambda request, context: LaterResponse())
        return made

    own = Handlers(SERVICE)
    own.register(ECHO)(lambda request, context: EchoResponse(text=request.text))
    with monkeypatch.context() as patch:
        patch.setattr(server, "control_handlers", handlers)
        return Server(own, port=0, codecs=[codec])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("theirs", [1, 2])
@pytest.mark.parametrize("ours", [1, 2])
def test_the_lower_version_of_both_is_spoken(
    ours: int, theirs: int, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields and methods of version 2 are there where both sides have it, and else on neither side."""
    monkeypatch.setattr(line, "CONTROL", SECOND.as_of(ours))
    monkeypatch.setattr(binding, "CONTROL", SECOND.as_of(ours))
    with (
        serve(SECOND.as_of(theirs), codec, monkeypatch) as running,
        connect(running.address, SERVICE, codec=codec) as client,
    ):
        answer = client.call(TWICE, TwiceRequest(payload=b"x"))
        assert answer == TwiceResponse(payload=b"x", said=1 if ours == theirs == 2 else 0)
        if ours == theirs == 2:
            assert client.call(TWICE, TwiceRequest(payload=b"x", times=3)).payload == b"xxx"
            assert client.call(LATER, LaterRequest()) == LaterResponse()
        elif ours == 2:
            with pytest.raises(CallError, match="UNKNOWN_OPCODE") as caught:
                client.call(LATER, LaterRequest())
            assert "ControlService/Later is there since version 2" in caught.value.message
        assert client.call(ECHO, EchoRequest(text="and the service's own")).text == "and the service's own"
