"""The gateway as one more peer: a unary call through it, beside a bare grpcio server with the same handler.

    python benchmarks/peers.py --load client --rounds 5 --extra benchmarks/gateway_entry.py grpc-sync grpc-gateway

Both are called by the same client, grpcio with generated messages, over a connection of its own each; so whatever
differs in the server's CPU per call is what the gateway adds to grpcio: dispatch, limits, checks, context. Neither sets
anything of the interpreter. ``grpc-gateway-serve`` has the switch interval that ``wireproto serve`` sets, which costs
grpcio's threads some CPU, with or without the gateway; ``grpc-sync-serve`` is the bare server with it.

    python benchmarks/peers.py --load client --rounds 3 --extra benchmarks/gateway_entry.py grpc-sync-items \\
        grpc-gateway-items grpc-gateway-public-items

A call of these is a stream of 200 items, which an iterator gives on either side.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from load import Call, Entry, ready
from peers import TEXT, bench_service, grpc_call, grpc_pipeline, grpc_stubs, grpc_sync_server

PATH = "/bench.v1.BenchService/Send"
ITEMS_PATH = "/bench.v1.BenchItemsService/Give"
ITEMS = 200


def gateway_server(engine: Any = "core") -> None:
    from wireproto import Context, Handlers
    from wireproto.server.gateway import GrpcGateway

    service = bench_service()
    (method,) = service.methods
    handlers = Handlers(service)

    def send(request: Any, context: Context) -> Any:
        return method.response(id=request.nonce, stamp=time.time())

    handlers.register(method)(send)
    gateway = GrpcGateway(handlers, port=0, workers=16, engine=engine)  # as many as the bare server has
    gateway.start()
    ready(gateway.address.port)
    threading.Event().wait()


def as_served(serve: Callable[[], None]) -> Callable[[], None]:
    def with_interval() -> None:
        sys.setswitchinterval(0.0005)
        serve()

    return with_interval


def _stub(port: int) -> Any:
    """grpcio's call object; the field numbers of both services are the same, so the bytes are."""
    import grpc

    messages, _ = grpc_stubs()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    return messages, channel.unary_unary(
        PATH, request_serializer=messages.Req.SerializeToString, response_deserializer=messages.Rep.FromString
    )


def gateway_call(port: int) -> Call:
    messages, stub = _stub(port)

    def call(n: int) -> None:
        assert stub(messages.Req(recipient="bob", text=TEXT, nonce=n)).id == n

    return call


def gateway_pipeline(port: int) -> Call:
    messages, stub = _stub(port)

    def batch(n: int) -> None:
        futures = [stub.future(messages.Req(recipient="bob", text=TEXT, nonce=i)) for i in range(n)]
        for future in futures:
            future.result()

    return batch


def items_server(engine: Any = "core") -> None:
    from wireproto import Context, Handlers, Message, Service, StreamMethod
    from wireproto.server.gateway import GrpcGateway

    class GiveRequest(Message):
        recipient: str
        text: str
        nonce: int

    class GiveResponse(Message):
        id: int
        stamp: float

    give = StreamMethod(opcode=1, name="Give", request=GiveRequest, response=GiveResponse)
    handlers = Handlers(Service("bench.v1.BenchItemsService", methods=[give]))

    @handlers.register(give)
    def items(request: GiveRequest, context: Context) -> Iterator[GiveResponse]:
        for _ in range(ITEMS):
            yield GiveResponse(id=request.nonce, stamp=time.time())

    gateway = GrpcGateway(handlers, port=0, workers=16, engine=engine)
    gateway.start()
    ready(gateway.address.port)
    threading.Event().wait()


def bare_items_server() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    messages, _ = grpc_stubs()

    def give(request: Any, context: Any) -> Iterator[Any]:
        for _ in range(ITEMS):
            yield messages.Rep(id=request.nonce, stamp=time.time())

    method = grpc.unary_stream_rpc_method_handler(give, messages.Req.FromString, messages.Rep.SerializeToString)
    server = grpc.server(ThreadPoolExecutor(16))
    _, service, name = ITEMS_PATH.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ready(port)
    server.wait_for_termination()


def items_call(port: int) -> Call:
    import grpc

    messages, _ = grpc_stubs()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    stub: Any = channel.unary_stream(
        ITEMS_PATH, request_serializer=messages.Req.SerializeToString, response_deserializer=messages.Rep.FromString
    )

    def call(n: int) -> None:
        count = sum(1 for _ in stub(messages.Req(recipient="bob", text=TEXT, nonce=n)))
        assert count == ITEMS

    return call


NEEDS = ("grpc", "grpc_tools")

ENTRIES = {
    "grpc-gateway": Entry(gateway_server, gateway_call, gateway_pipeline, needs=NEEDS),
    "grpc-gateway-public": Entry(lambda: gateway_server("public"), gateway_call, gateway_pipeline, needs=NEEDS),
    "grpc-sync-items": Entry(bare_items_server, items_call, needs=NEEDS),
    "grpc-gateway-items": Entry(items_server, items_call, needs=NEEDS),
    "grpc-gateway-public-items": Entry(lambda: items_server("public"), items_call, needs=NEEDS),
    "grpc-gateway-serve": Entry(as_served(gateway_server), gateway_call, gateway_pipeline, needs=NEEDS),
    "grpc-sync-serve": Entry(as_served(grpc_sync_server), grpc_call, grpc_pipeline, needs=NEEDS),
}
