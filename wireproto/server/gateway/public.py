"""The engine of public names: ``grpc.aio``, on a loop and a thread of its own. It runs on any grpcio.

Quick handlers run on its loop. Nobody can take the loop over from a handler that blocks, as the leader of the pool is
deposed; so only those run there that are known to be quick, and all others in the pool.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from wireproto.address import Address
from wireproto.answering.pool import Worker
from wireproto.errors import CallError, ConfigError
from wireproto.poller import Poller
from wireproto.server.gateway.seam import Begin, CallEvents, Headers
from wireproto.server.gateway.trailers import tell, trailers

__all__ = ["PublicEngine"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_SETTLE = 1.0
"""Seconds that grpcio gets to end what it was told to."""

_PARTING = 1.0
"""Seconds that the caller of a call that is reset has to take its end, behind what it has not taken."""

_GRACE = 86_400.0
"""Seconds: how long the calls in flight have is the door's to say."""

_RECEIVE, _OPEN, _SEND, _ANSWER, _END = range(5)


class PublicWire:
    """One call; see ``seam.Wire``. What is asked of it is carried out on the loop, one after the other.

    Attributes:
        over: nobody hears anything of it any more.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, path: str, context: Any, hang_up: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._hang_up = hang_up
        self.over = False
        self._home = threading.get_ident()
        self._context = context
        self._asked: deque[tuple[int, Any]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()
        self._reading = False
        self._reader: asyncio.Task[None] | None = None
        self._taker: CallEvents | None = None
        self.path = path
        self.headers: Headers = context.invocation_metadata()
        self.peer: str = unquote(context.peer()).partition(":")[2]

    def begin(self, begin: Begin) -> CallEvents | None:
        """Hand the call to the door."""
        self._taker = begin(self)
        return self._taker

    def remaining(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return remaining

    def receive(self) -> None:
        self._ask(_RECEIVE)

    def watch(self) -> None:
        """It is told of in any case."""

    def open(self) -> None:
        self._ask(_OPEN)

    def send(self, payload: bytes, more: bool) -> None:
        self._ask(_SEND, payload)

    def answer(self, payload: bytes, said: Mapping[str, str]) -> None:
        self._ask(_ANSWER, (payload, said))

    def end(self, error: CallError | None, said: Mapping[str, str]) -> None:
        self._ask(_END, (error, said))

    def reset(self, error: CallError) -> None:
        """There is no public name for this: the end goes behind what waits, and who does not take it is hung up on."""
        self._ask(_END, (error, {}))
        self._loop.call_soon_threadsafe(self._loop.call_later, _PARTING, self._part)

    def _part(self) -> None:
        if not self.over:
            self._hang_up(self.peer)

    def _ask(self, what: int, value: Any = None) -> None:
        if threading.get_ident() == self._home:
            self._take(what, value)
        else:
            self._loop.call_soon_threadsafe(self._take, what, value)

    def _take(self, what: int, value: Any) -> None:
        if what == _RECEIVE:
            assert not self._reading
            self._reading = True
            self._reader = self._loop.create_task(self._read())  # beside what is sent, which may go on for long
            return
        self._asked.append((what, value))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def serve(self, taker: CallEvents) -> bytes | None:
        """Carry out what is asked, until the call's end is; what remains to be sent with it."""
        context = self._context
        while True:
            while not self._asked:
                self._waiter = self._loop.create_future()
                await self._waiter
            what, value = self._asked.popleft()
            if what == _SEND:
                await context.write(value)
                taker.on_sent()
            elif what == _OPEN:
                await context.send_initial_metadata(())
            else:
                outcome, said = value
                if isinstance(outcome, CallError):
                    told = tell(outcome, said)
                    await context.abort(_CODES[told.code], told.message, told.trailers)
                if said:
                    context.set_trailing_metadata(trailers(said))
                answer: bytes | None = outcome
                return answer

    async def _read(self) -> None:
        taker = self._taker
        assert taker is not None
        try:
            message = await self._context.read()
            if message is grpc.aio.EOF:
                await self._context.read()
        except grpc.aio.BaseError:
            return  # its end was sent meanwhile
        self._reading = False
        if message is not grpc.aio.EOF:
            taker.on_message(None, message)
        elif not self._failed():
            taker.on_complete()

    def _failed(self) -> bool:
        """Whether the call has failed: grpcio has nothing to read then, as when the caller has ended its half. It reads
        in order, and before it has nothing for the second time it cancels the task of a call that has failed.
        """
        return self.over or (self._task is not None and self._task.cancelling() > 0)


class PublicEngine(grpc.GenericRpcHandler):
    """See ``seam.Engine``.

    Args:
        where: the address to listen on, which is free or has port 0.
        options: channel arguments of grpcio.
    """

    name = "public"

    def __init__(self, where: Address, options: list[tuple[str, int]]) -> None:
        self._where = where
        self._options = options
        self.poller = Poller()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="wireproto-grpc-loop", daemon=True)
        self._server: grpc.aio.Server | None = None
        self._begin: Begin | None = None
        self._one_answer: Container[str] = ()
        self._hang_up: Callable[[str], None] | None = None
        self._going: Future[None] | None = None

    def on_events(self, worker: Worker, events: list[Any]) -> None:
        """See ``seam.Engine``: no descriptor is the pool's."""

    def listen(self, begin: Begin, one_answer: Container[str], hang_up: Callable[[str], None]) -> int:
        """See ``seam.Engine``."""
        self._begin = begin
        self._hang_up = hang_up
        self._one_answer = one_answer
        self._thread.start()
        port: int = self._do(self._listen()).result()
        return port

    async def _listen(self) -> int:
        self._server = grpc.aio.server(handlers=[self], options=self._options)
        try:
            port: int = self._server.add_insecure_port(str(self._where))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {self._where}: {error}") from error
        return port

    def start(self) -> None:
        """See ``seam.Engine``."""
        assert self._server is not None
        self._do(self._server.start()).result()

    def drain(self) -> None:
        """See ``seam.Engine``."""
        if self._server is not None and self._going is None:
            self._going = self._do(self._server.stop(_GRACE))

    def stop(self, deadline: float) -> None:
        """See ``seam.Engine``."""
        self.drain()
        if self._going is not None and self._server is not None:
            rest = max(0.0, deadline - time.monotonic())
            try:
                self._going.result(rest)
            except TimeoutError:
                with contextlib.suppress(TimeoutError):
                    self._do(self._server.stop(None)).result(_SETTLE)
        self._end_loop()

    def _end_loop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_SETTLE)
        else:
            self._loop.close()

    def close(self) -> None:
        """See ``seam.Engine``."""
        self.poller.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """See ``grpc.GenericRpcHandler``."""
        path = handler_call_details.method

        async def serve(requests: AsyncIterator[bytes], context: Any) -> bytes | None:
            assert self._begin is not None
            assert self._hang_up is not None
            wire = PublicWire(self._loop, path, context, self._hang_up)
            taker = wire.begin(self._begin)
            if taker is None:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "hung up on")
                return None

            def end(_: object) -> None:
                wire.over = True
                taker.on_over()

            context.add_done_callback(end)
            return await wire.serve(taker)

        if path in self._one_answer:
            # Which is sent with the headers and the status, in one step of gRPC's core and not in three.
            return grpc.stream_unary_rpc_method_handler(serve)

        async def serve_all(requests: AsyncIterator[bytes], context: Any) -> None:
            answer = await serve(requests, context)
            if answer is not None:
                await context.write(answer)

        return grpc.stream_stream_rpc_method_handler(serve_all)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)
