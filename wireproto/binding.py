"""A method as one connection speaks it: checked to exist there, with its codec's two functions."""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from wireproto.codecs import Codec
from wireproto.control import CONTROL
from wireproto.errors import CallError, DecodeError, LocalProtocolError
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.schema import By, Message, Operation, Service
from wireproto.status import Retry, Status
from wireproto.wire.frame import FIRST_FRAMEWORK_OPCODE
from wireproto.wire.packing import Payload, pack_payload, plain

__all__ = ["Binding", "Dialect", "own_method", "unpacked"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


class Binding(Generic[Req, Resp]):
    """What a call needs of its method.

    Attributes:
        name: of the method, for messages.
        opcode: for the header.
        timeout: seconds, the method's cap; None without one.
        encode: request to payload, packed if that was agreed on and is worth it; raises EncodeError, or CallError when
            it is larger than the method takes.
        packs: whether encoding may pack, which takes its time.
        decode: payload, once it is unpacked, to response or item; raises DecodeError.
    """

    __slots__ = ("decode", "encode", "name", "opcode", "packs", "timeout")

    # Attributes and not methods: a call then costs one function, not a bound method around another function.
    encode: Callable[[Req], Payload]
    decode: Callable[[bytes], Resp]

    def __init__(
        self,
        method: Operation[Req, Resp],
        encode: Callable[[Req], Payload],
        decode: Callable[[bytes], Resp],
        packs: bool = False,
    ) -> None:
        self.name = method.name
        self.opcode = method.opcode
        self.timeout = method.timeout
        self.encode = encode
        self.packs = packs
        self.decode = decode


class Dialect:
    """What one connection speaks: a service in one version and one codec, with the bindings made so far.

    Args:
        service: whose methods may be called.
        codec: agreed in the handshake, as was the version.
        version: of the service.
        limits: of this side.
        by: which side that is.
        control: the version of the framework's own methods that was agreed on.
        packing: the algorithm by which requests of methods with ``compress`` are packed; 0 for none.

    Attributes:
        bindings: by method; look here first. ``bind`` adds to it, from any thread.
    """

    def __init__(
        self,
        service: Service,
        codec: Codec,
        version: int,
        limits: Limits,
        by: By = "client",
        packing: int = 0,
        *,
        control: int = 1,
    ) -> None:
        self.service = service
        self.codec = codec
        self.version = version
        self.bindings: dict[object, Binding[Any, Any]] = {}
        self._limits = limits
        self._by = by
        self.packing = packing
        self._control = control

    def read_details(self, opcode: int, error: CallError) -> None:
        """Give an error that came with details the message that they are. They stay None where the method does not
        declare that one, and where they cannot be read.
        """
        packed = error.packed_details
        method = self.service.by_opcode.get(opcode)
        if packed is None or method is None:
            return
        package, _, name = packed.name.rpartition(".")
        for cls in method.errors:
            if (package, name) == (self.service.package, cls.__name__):
                try:
                    error.details = self.codec.plan(cls, self.version, self._limits, request=False).decode(
                        packed.payload
                    )
                except DecodeError:
                    return

    def bind(self, method: Operation[Req, Resp]) -> Binding[Req, Resp]:
        """The binding of ``method``.

        Raises:
            LocalProtocolError: the method is not one of the service's, or is called by the other side.
            CallError: UNIMPLEMENTED, UNKNOWN_OPCODE: the version spoken here does not have it. Nothing was sent.
        """
        binding = self.bindings.get(method)
        if binding is None:
            # Kept by the service's own method: a program may unpickle one for each of its calls.
            own = own_method(self.service, method, self._by)
            binding = self.bindings.get(own)
            if binding is None:
                binding = self.bindings[own] = self._make(own)
        return binding

    def _make(self, method: Operation[Req, Resp]) -> Binding[Req, Resp]:
        service, version = self.service, self.version
        if method.opcode >= FIRST_FRAMEWORK_OPCODE:
            service, version = CONTROL, self._control
        if not method.in_version(version):
            raise failure("UNKNOWN_OPCODE", _absent(service, method, version))
        encode = self.codec.plan(method.request, version, self._limits, request=True).encode
        if method.max_request is not None:
            encode = _limited(encode, method, method.max_request)
        decode = self.codec.plan(method.response, version, self._limits, request=False).decode
        if method.compress and self.packing:
            return Binding(method, _packing(encode, self.packing), decode, packs=True)
        return Binding(method, encode, decode)


def unpacked(payload: Payload) -> bytes:
    """The payload of an answer, whichever way it travelled.

    Raises:
        CallError: DATA_LOSS, BAD_PAYLOAD: it is packed wrongly. The call may have been processed.
    """
    try:
        return plain(payload)
    except DecodeError as error:
        raise CallError(
            Status.DATA_LOSS, "BAD_PAYLOAD", f"the answer cannot be read: {error}", retry=Retry.MAYBE_PROCESSED
        ) from None


def own_method(service: Service, method: Operation[Any, Any], by: By = "client") -> Operation[Any, Any]:
    """The service's own object for ``method``, which may come out of a pickle; of the framework's methods likewise.

    Args:
        service: whose methods may be called.
        method: to call.
        by: the side that calls.

    Raises:
        LocalProtocolError: the method is not one of the service's, or is called by the other side.
    """
    if method.opcode >= FIRST_FRAMEWORK_OPCODE and by == "client":
        return CONTROL.own(method) or method
    own = service.own(method)
    if own is None:
        raise LocalProtocolError(
            f"{method.name} is no method of {service.full_name}, which this {by} was connected for"
        )
    if own.by != by:
        raise LocalProtocolError(f"{method.name} is called by the {own.by}; {_INSTEAD[own.by]}")
    return own


_INSTEAD: Final = {
    "server": "clients answer it, by Handlers given to connect(handlers=...), and gRPC has no calls of a server",
    "client": "a server answers it, with Handlers given to Server(...)",
}


def _absent(service: Service, method: Operation[Any, Any], version: int) -> str:
    if method.since > version:
        life = f"is there since version {method.since}"
    else:
        life = f"is there since version {method.since} and until version {method.until}"
    return f"{service.full_name}/{method.name} {life}; this connection speaks version {version}"


def _packing(encode: Callable[[Req], bytes], algorithm: int) -> Callable[[Req], Payload]:
    return lambda request: pack_payload(encode(request), algorithm)


def _limited(encode: Callable[[Req], bytes], method: Operation[Any, Any], most: int) -> Callable[[Req], bytes]:
    what = "an item of the request" if method.items_follow else "the request"
    fate = "It was not sent; what came before it in the call was" if method.items_follow else "Nothing was sent"

    def limited(request: Req) -> bytes:
        payload = encode(request)
        if len(payload) > most:
            raise failure(
                "REQUEST_TOO_LARGE",
                f"{what} has {len(payload)} bytes; {method.name} takes at most {most}. {fate}",
            )
        return payload

    return limited
