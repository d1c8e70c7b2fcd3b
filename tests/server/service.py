"""A service whose handlers do what a test tells them: answer, block, defer, stream, fail."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from wireproto.dispatch import Handlers
from wireproto.handling import Context, Subscription
from wireproto.identity import Identity
from wireproto.schema import Message, Method, Service, StreamMethod
from wireproto.status import Retry, Status
from wireproto.wire.metadata import Metadata


class EchoRequest(Message):
    text: str = ""
    size: int = 0


class EchoResponse(Message):
    text: str


class BlockRequest(Message):
    name: str


class BlockResponse(Message):
    name: str
    cancelled: bool


class DeferRequest(Message):
    name: str


class DeferResponse(Message):
    name: str


class CountRequest(Message):
    upto: int
    fail: bool = False


class CountResponse(Message):
    n: int


class FeedRequest(Message):
    name: str


class FeedResponse(Message):
    text: str


class FailRequest(Message):
    how: str


class FailResponse(Message):
    pass


class SignInRequest(Message):
    name: str
    capabilities: list[str] = []


class SignInResponse(Message):
    pass


class SignOutRequest(Message):
    pass


class SignOutResponse(Message):
    pass


class WhoRequest(Message):
    pass


class WhoResponse(Message):
    name: str


class AdminRequest(Message):
    pass


class AdminResponse(Message):
    name: str


class StallRequest(Message):
    name: str


class StallResponse(Message):
    name: str


ECHO = Method(opcode=1, name="Echo", request=EchoRequest, response=EchoResponse)
BLOCK = Method(opcode=2, name="Block", request=BlockRequest, response=BlockResponse, blocking=True)
DEFER = Method(opcode=3, name="Defer", request=DeferRequest, response=DeferResponse)
COUNT = StreamMethod(opcode=4, name="Count", request=CountRequest, response=CountResponse)
FEED = StreamMethod(opcode=5, name="Feed", request=FeedRequest, response=FeedResponse)
FAIL = Method(opcode=6, name="Fail", request=FailRequest, response=FailResponse, reasons=["DECLARED"], max_request=1000)
SIGN_IN = Method(opcode=7, name="SignIn", request=SignInRequest, response=SignInResponse)
SIGN_OUT = Method(opcode=8, name="SignOut", request=SignOutRequest, response=SignOutResponse)
WHO = Method(opcode=9, name="Who", request=WhoRequest, response=WhoResponse, requires="user")
ADMIN = Method(opcode=10, name="Admin", request=AdminRequest, response=AdminResponse, requires="admin")
STALL = Method(opcode=11, name="Stall", request=StallRequest, response=StallResponse)

SERVICE = Service(
    "test.v1.ServerService",
    version=1,
    methods=[ECHO, BLOCK, DEFER, COUNT, FEED, FAIL, SIGN_IN, SIGN_OUT, WHO, ADMIN, STALL],
)


class Feed(Subscription[FeedResponse]):
    """A subscription that the test feeds."""

    def __init__(self) -> None:
        self.items: deque[str] = deque()
        self.over = False
        self.closed: list[str] = []
        self.was_closed = threading.Event()

    def put(self, *items: str) -> None:
        self.items.extend(items)
        self.wake()

    def end(self) -> None:
        self.over = True
        self.wake()

    def take(self, n: int) -> Sequence[FeedResponse]:
        taken = [FeedResponse(text=self.items.popleft()) for _ in range(min(n, len(self.items)))]
        if not taken and self.over:
            raise StopIteration
        return taken

    def close(self, reason: str) -> None:
        self.closed.append(reason)
        self.was_closed.set()


class Stage:
    """The handlers, and what the test steers them with."""

    def __init__(self) -> None:
        self.handlers = Handlers(SERVICE)
        self.gates: dict[str, threading.Event] = {}
        self.all_open = False
        self.entered: dict[str, threading.Event] = {}
        self.futures: dict[str, Future[DeferResponse]] = {}
        self.deferred = threading.Condition()
        self.feeds: dict[str, Feed] = {}
        self.fed = threading.Condition()
        self.contexts: dict[str, Context] = {}
        self.generators_closed = threading.Event()
        self.identities: dict[str, Identity] = {}
        self._register()

    def gate(self, name: str) -> threading.Event:
        gate = self.gates.setdefault(name, threading.Event())
        if self.all_open:
            gate.set()
        return gate

    def inside(self, name: str) -> threading.Event:
        return self.entered.setdefault(name, threading.Event())

    def future(self, name: str) -> "Future[DeferResponse]":
        """The future of the call named so, once its handler ran."""
        with self.deferred:
            assert self.deferred.wait_for(lambda: name in self.futures, 20)
            return self.futures[name]

    def feed(self, name: str) -> Feed:
        with self.fed:
            assert self.fed.wait_for(lambda: name in self.feeds, 20)
            return self.feeds[name]

    def open_gates(self) -> None:
        """Let everybody go on, and whoever comes to a gate from now on."""
        self.all_open = True  # first, for a call that is just on its way
        for gate in list(self.gates.values()):
            gate.set()

    @staticmethod
    def authenticate(metadata: Metadata, peer: str) -> Identity | None:
        """A door that knows ``user:NAME`` and ``admin:NAME``."""
        kind, _, name = metadata.authorization.partition(":")
        return Identity(name, {kind}) if kind in ("user", "admin") else None

    def _register(self) -> None:
        register = self.handlers.register

        @register(ECHO)
        def echo(request: EchoRequest, context: Context) -> EchoResponse:
            return EchoResponse(text=request.text + "x" * request.size)

        def wait(name: str, context: Context) -> None:
            self.contexts[name] = context
            self.inside(name).set()
            assert self.gate(name).wait(30)

        @register(BLOCK)
        def block(request: BlockRequest, context: Context) -> BlockResponse:
            wait(request.name, context)
            return BlockResponse(name=request.name, cancelled=context.cancelled)

        @register(STALL)
        def stall(request: StallRequest, context: Context) -> StallResponse:
            if request.name:
                wait(request.name, context)
            return StallResponse(name=request.name)

        @register(DEFER)
        def defer(request: DeferRequest, context: Context) -> "Future[DeferResponse]":
            future: Future[DeferResponse] = Future()
            with self.deferred:
                self.futures[request.name] = future
                self.deferred.notify_all()
            return future

        @register(COUNT)
        def count(request: CountRequest, context: Context) -> Iterator[CountResponse]:
            try:
                for n in range(request.upto):
                    yield CountResponse(n=n)
                if request.fail:
                    context.abort(Status.ABORTED, "", "counted enough")
            finally:
                self.generators_closed.set()

        @register(FEED)
        def feed(request: FeedRequest, context: Context) -> Feed:
            made = Feed()
            with self.fed:
                self.feeds[request.name] = made
                self.fed.notify_all()
            return made

        @register(FAIL)
        def fail(request: FailRequest, context: Context) -> FailResponse:
            if request.how == "declared":
                context.abort(Status.ABORTED, "DECLARED", "as told", retry=Retry.NOT_PROCESSED, retry_after_ms=7)
            if request.how == "undeclared":
                context.abort(Status.ABORTED, "SURPRISE", "secret")
            if request.how == "exit":
                raise SystemExit("secret")
            if request.how == "type":
                return EchoResponse(text="secret")  # type: ignore[return-value]
            if request.how == "surrogate":
                return FailResponse()
            raise ValueError("secret")

        @register(SIGN_IN)
        def sign_in(request: SignInRequest, context: Context) -> SignInResponse:
            identity = Identity(request.name, request.capabilities)
            self.identities[request.name] = identity
            context.sign_in(identity)
            return SignInResponse()

        @register(SIGN_OUT)
        def sign_out(request: SignOutRequest, context: Context) -> SignOutResponse:
            context.sign_out()
            return SignOutResponse()

        @register(WHO)
        def who(request: WhoRequest, context: Context) -> WhoResponse:
            assert context.identity is not None
            return WhoResponse(name=context.identity.subject)

        @register(ADMIN)
        def admin(request: AdminRequest, context: Context) -> AdminResponse:
            assert context.identity is not None
            return AdminResponse(name=context.identity.subject)
