"""What the chat client needs when it talks over gRPC, where a sign-in does not belong to the connection.

Each call carries the token of the log-in instead.
"""

from typing import TypeVar, cast

from wireproto import Address, CallError, Metadata, Status
from wireproto.client.grpc import GrpcClient, connect
from wireproto.schema import Message, Method, StreamMethod
from wireproto_chat.client.reconnect import Messages
from wireproto_chat.opcodes import CHAT, DELETE_ACCOUNT, LOG_IN, LOG_OUT, RECEIVE_MESSAGES, LogInResponse

__all__ = ["GrpcChatClient"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


class GrpcChatClient:
    """A ``client.reconnect.ChatClient`` through a gateway.

    Args:
        address: of the gateway.

    Raises:
        HandshakeError, ConnectionLost: as ``wireproto.client.grpc.connect``.
        ConfigError: the extra ``grpc`` is not installed.
    """

    def __init__(self, address: str | Address) -> None:
        self._client: GrpcClient = connect(address, CHAT)

    @property
    def address(self) -> Address:
        """Of the gateway."""
        return self._client.address

    @property
    def codec(self) -> str:
        """What the messages travel by, for the greeting."""
        return self._client.codec

    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp:
        """As ``Client.call``; a log-in is remembered for the calls after it."""
        try:
            answer = self._client.call(method, request, timeout=timeout, metadata=metadata)
        except CallError as error:
            if cast(object, method) is LOG_IN and error.status is Status.UNAUTHENTICATED:
                self._client.authorization = ""  # its session has ended
            raise
        if isinstance(answer, LogInResponse):
            self._client.authorization = f"Bearer {answer.token}"
        elif cast(object, method) in (LOG_OUT, DELETE_ACCOUNT):
            self._client.authorization = ""
        return answer

    def stream(
        self, method: StreamMethod[Req, Resp], request: Req, *, credit: int = 64, batch: int = 32
    ) -> Messages[Resp]:
        """As ``Client.stream``; ``credit`` and ``batch`` mean nothing here, where HTTP/2 controls the flow."""
        stream = self._client.stream(method, request, credit=credit)
        if cast(object, method) is RECEIVE_MESSAGES:
            stream.wait_until_open()  # so that whoever looks after this finds the account online
        return stream

    def ping(self, timeout: float | None = None) -> float:
        """As ``Client.ping``."""
        return self._client.ping(timeout)

    def close(self, *, drain: float = 0.0) -> None:
        """As ``Client.close``."""
        self._client.close(drain=drain)
