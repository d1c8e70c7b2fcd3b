"""Methods and services: the opcode table, and the digest of what each method puts on the wire."""

import copy
import enum
import functools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from typing import Any, ClassVar, Final, Generic, Literal, Self, TypeAlias, TypeVar, cast, get_args

from wireproto.errors import ConfigError, DeclarationError
from wireproto.schema.declarations import fields, nested_types
from wireproto.schema.messages import MAX_VERSION, Field, Message, Scalar
from wireproto.schema.names import camel_case, is_camel, is_upper_snake, type_name, upper_snake
from wireproto.schema.positions import position_field
from wireproto.wire import private
from wireproto.wire.frame import FIRST_FRAMEWORK_OPCODE, MAX_REASON, U32_MAX, Flag

__all__ = [
    "By",
    "DuplexMethod",
    "Empty",
    "Method",
    "OneWayMethod",
    "Operation",
    "Service",
    "Shape",
    "StreamMethod",
    "UploadMethod",
    "message_types",
]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)

Slow: TypeAlias = Literal["pause", "drop_oldest", "end"]
"""What becomes of a caller that does not take the items of a stream in time."""

SLOW: Final[tuple[Slow, ...]] = get_args(Slow)

_CONTROL_PACKAGE: Final = "wirecontrol."
_MAX_TIMEOUT: Final = U32_MAX / 1000
_PACKAGE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)*\.v[1-9][0-9]*((alpha|beta)[0-9]*)?")


By = Literal["client", "server"]
"""The side of a connection that calls a method. The other side answers it."""


class Shape(enum.Enum):
    """How many messages of a call go which way. The value is its word in digests, listings and comparisons."""

    UNARY = "unary"
    STREAM = "stream"
    UPLOAD = "upload"
    DUPLEX = "duplex"
    ONE_WAY = "oneway"

    @property
    def flags(self) -> Flag:
        """The flags of its REQUEST."""
        return _FLAGS[self]


_FLAGS: Final = {
    Shape.UNARY: Flag.NONE,
    Shape.STREAM: Flag.ITEMS_COME_BACK,
    Shape.UPLOAD: Flag.ITEMS_FOLLOW,
    Shape.DUPLEX: Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK,
    Shape.ONE_WAY: Flag.ONE_WAY,
}


class Empty(Message):
    """What a one-way method answers over gRPC, which has no call without an answer: ``google.protobuf.Empty``."""


# Invariant type variables on purpose: were they covariant, `client.call(METHOD, wrong_request)` would pass a checker,
# which would widen both to Message.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Operation(Generic[Req, Resp]):
    """What the five kinds of methods share. Compared by identity; use those, not this.

    A method that came out of a pickle is another object. `Service.own` takes it for the service's own, and so do
    handlers and clients.

    Attributes:
        opcode: 0 to 0xEFFF, unique in its service, for ever.
        name: CamelCase, as in gRPC.
        request: the message class that the caller sends: one, or the items of an upload or a duplex call.
        response: the message class that it gets: one, or the items of a stream or a duplex call.
        since: the service version the method came with, 1 to 255.
        until: the last version that has it; None for no end.
        requires: the capability the caller must have, or None.
        reasons: the UPPER_SNAKE reasons that its handler may abort with; none begins with ``X_``.
        idempotent: running it twice is the same as once, so a client may repeat it.
        blocking: its handler waits for something, so the server never runs it on the thread that reads.
        timeout: a cap, in seconds: the most that a call may take, a stream until its last item. A caller may ask for
            less; one that asks for more, or for nothing, gets this. None for no cap.
        max_request: bytes of the encoded request, or of each item that the caller sends; None for whatever a frame
            holds.
        compress: its messages may travel packed, where both sides have agreed on how. Not for messages in which a
            secret stands beside what a stranger may have chosen: the length of such a message tells of the secret.
        doc: one or more sentences for people; they end in the .proto.
        by: who calls it. "server": the server calls, and clients answer that were given handlers. Such a method
            requires no capability, for a client knows nobody but its server; and it is not in the .proto's service, for
            gRPC has no calls of a server.
        outlives_identity: its calls go on when the identity they were begun with is revoked; else they are ended.
        errors: the message classes that an error of the method may have as its details.
        shape: how many messages go which way; each kind of method has its own.

    Raises:
        DeclarationError: a value is out of its range; the text names the method.
    """

    shape: ClassVar[Shape]

    opcode: int
    name: str
    request: type[Req]
    response: type[Resp]
    since: int = 1
    until: int | None = None
    requires: str | None = None
    reasons: Sequence[str] = ()
    idempotent: bool = False
    blocking: bool = False
    timeout: float | None = None
    max_request: int | None = None
    compress: bool = False
    doc: str = ""
    by: By = "client"
    outlives_identity: bool = False
    errors: Sequence[type[Message]] = ()

    def __post_init__(self) -> None:
        _check_operation(self)
        object.__setattr__(self, "reasons", tuple(self.reasons))
        object.__setattr__(self, "errors", tuple(self.errors))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.opcode:#06x} {self.name}>"

    def __copy__(self) -> Self:
        """The same object, as with everything that cannot be changed: a class, a function, an enum's member."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """The same object."""
        return self

    @property
    def items_follow(self) -> bool:
        """Whether the caller sends items."""
        return Flag.ITEMS_FOLLOW in self.shape.flags

    @property
    def items_come_back(self) -> bool:
        """Whether the answer is items."""
        return Flag.ITEMS_COME_BACK in self.shape.flags

    @property
    def word(self) -> str:
        """Its shape and who calls it, as digests, listings and comparisons have them: ``stream``, ``server-stream``."""
        return self.shape.value if self.by == "client" else f"server-{self.shape.value}"

    @property
    def goes_on(self) -> bool:
        """Whether its answers that have no end of their own go on while the server drains."""
        return isinstance(self, StreamMethod | DuplexMethod) and self.drains

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """The message classes that the service declares for it; a one-way method has no response of its own."""
        return (self.request, self.response, *self.errors)

    def in_version(self, version: int) -> bool:
        """Whether that version of the service has the method."""
        return self.since <= version and (self.until is None or version <= self.until)


class Method(Operation[Req, Resp]):
    """A unary method: one request, one response.

    What it, and every other kind of method, is declared with is said by ``help(wireproto.schema.Operation)``.
    """

    shape = Shape.UNARY


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StreamMethod(Operation[Req, Item]):
    """A server stream: one request, any number of ``response`` items.

    Attributes, beside those of ``wireproto.schema.Operation``:
        resumable: the name of the field of the item that holds its position, an ``int``, a ``UInt64``, a ``str`` or
            ``bytes``, of at most 64 bytes when written; a caller may go on behind the last item that it has. None for a
            stream that always begins anew.
        drains: when the server goes away, its streams that are answered by a ``Subscription`` go on until they end by
            themselves or the time to drain is over; else they end at once. Iterators always go on.
        slow: what becomes of a caller that does not take its items in time: ``pause``, its source waits for it; with a
            ``Topic``, which does not, ``drop_oldest``, the oldest items are left out and their number is told, or
            ``end``, the stream fails with SLOW_CONSUMER.
    """

    shape = Shape.STREAM

    resumable: str | None = None
    drains: bool = False
    slow: Slow = "pause"

    def __post_init__(self) -> None:
        super().__post_init__()
        slow: object = self.slow
        if slow not in SLOW:
            raise DeclarationError(
                f"StreamMethod {self.name}: slow is {slow!r}; write {', '.join(map(repr, SLOW[:-1]))} or {SLOW[-1]!r}"
            )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class UploadMethod(Operation[Item, Resp]):
    """An upload: any number of ``request`` items, one response.

    Attributes, beside those of ``wireproto.schema.Operation``:
        collect: the handler is given all items at once, in a list, and there may be so many, 1 to 65,536; None for a
            handler that takes them as they come.
    """

    shape = Shape.UPLOAD

    collect: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.collect is not None:
            _check_int(f"UploadMethod {self.name}", "collect", self.collect, 1, 65_536)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DuplexMethod(Operation[Req, Item]):
    """Any number of ``request`` items one way and of ``response`` items the other way, each as it likes.

    Attributes, beside those of ``wireproto.schema.Operation``:
        drains: as of a ``StreamMethod``.
    """

    shape = Shape.DUPLEX

    drains: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OneWayMethod(Operation[Req, Empty]):
    """One request and no answer: nobody is told what became of it.

    It is declared with what ``wireproto.schema.Operation`` says, but for ``response``.
    """

    shape = Shape.ONE_WAY

    response: type[Empty] = dataclass_field(default=Empty, init=False)

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """The request alone."""
        return (self.request,)


class Service:
    """A table of methods under a name, in numbered versions. Read only, and safe to share between threads.

    Attributes:
        full_name: ``example.v1.CalculatorService``.
        package: ``example.v1``.
        name: ``CalculatorService``.
        version: the newest one, 1 to 255.
        oldest: the oldest one, 1 to ``version``. The service is spoken in every version from it to the newest.
        methods: in the order given.
        by_opcode: every method of every version.
        doc: for people; it ends in the .proto.

    Args:
        full_name: dotted lower-case package that ends in a version of the package, and a CamelCase name that ends in
            Service. The package's version changes when old clients cannot talk any more; ``version`` whenever a method
            or field is added.
        version: 1 to 255.
        methods: `Method`, `StreamMethod`, `UploadMethod`, `DuplexMethod` and `OneWayMethod` objects.
        oldest: whoever speaks no newer version than those below it is refused. Raise it to be rid of a version that
            nobody speaks any more; a method that no version has may stay, so that its opcode is not used again.
        doc: for people.

    Raises:
        DeclarationError: a method, message or field is declared wrong; the text names it and says what to write.
    """

    def __init__(
        self,
        full_name: str,
        version: int = 1,
        methods: Sequence[Operation[Any, Any]] = (),
        *,
        oldest: int = 1,
        doc: str = "",
    ) -> None:
        self.full_name = full_name
        self.package, _, self.name = _check_full_name(full_name).rpartition(".")
        self.version = _check_int(full_name, "version", version, 1, MAX_VERSION)
        self.oldest = _check_int(full_name, "oldest", oldest, 1, version)
        self.methods = tuple(methods)
        self.by_opcode: dict[int, Operation[Any, Any]] = {}
        self.doc = doc
        self._by_name: dict[str, Operation[Any, Any]] = {}
        for method in self.methods:
            _check_method(self, method)
            self.by_opcode[method.opcode] = self._by_name[method.name] = method
        _check_names(self)
        _check_versions(self)
        self._at: dict[int, dict[int, Operation[Any, Any]]] = {}
        self._digests: dict[int, dict[int, int]] = {}
        self._as_of: dict[int, Service] = {version: self}

    def __repr__(self) -> str:
        return f"<Service {self.full_name} version {self.version}, {len(self.methods)} methods>"

    @property
    def versions(self) -> range:
        """All that are spoken, from the oldest to the newest."""
        return range(self.oldest, self.version + 1)

    def at(self, version: int) -> dict[int, Operation[Any, Any]]:
        """The methods of one version, by opcode.

        Raises:
            ConfigError: the service has no such version.
        """
        table = self._at.get(version)
        if table is None:
            if version not in self.versions:
                raise ConfigError(f"{self.full_name} has versions {self.oldest} to {self.version}, not {version}")
            table = {method.opcode: method for method in self.methods if method.in_version(version)}
            self._at[version] = table
        return table

    def called_by(self, side: By, version: int) -> dict[int, Operation[Any, Any]]:
        """The methods of one version that this side calls, by opcode.

        Raises:
            ConfigError: the service has no such version.
        """
        return {opcode: method for opcode, method in self.at(version).items() if method.by == side}

    def as_of(self, version: int) -> "Service":
        """The service as it was when ``version`` was its newest: what an older peer declares.

        It lacks the methods and the fields that came later, and shares the messages and methods that it has; so one
        table makes the server or the client of any release, for a test.

        Returns:
            The same object each time.

        Raises:
            ConfigError: the service has no such version.
        """
        older = self._as_of.get(version)
        if older is None:
            self.at(version)
            older = copy.copy(self)
            older._narrow(version)  # noqa: SLF001 - of its own class, and made here
            # setdefault: threads that ask at the same time must have the same object.
            older = self._as_of.setdefault(version, older)
        return older

    def _narrow(self, version: int) -> None:
        self.version = version
        self.methods = tuple(method for method in self.methods if method.since <= version)
        self.by_opcode = {method.opcode: method for method in self.methods}
        self._by_name = {method.name: method for method in self.methods}
        self._at = {}
        self._digests = {}
        self._as_of = {version: self}

    def own(self, method: Operation[Any, Any]) -> Operation[Any, Any] | None:
        """The service's own method that says what ``method`` says: itself, or what it was before it was pickled.

        Returns:
            None where the service has no such method, or has one of that opcode with anything else declared.
        """
        # Not by equality of methods: clients look methods up in a dict for every call, where a hash of what is declared
        # costs 590 instructions, 1.2 % of a call, and the hash of an object next to nothing.
        own = self.by_opcode.get(method.opcode)
        if own is method or (type(own) is type(method) and vars(own) == vars(method)):
            return own
        return None

    def by_name(self, name: str) -> Operation[Any, Any]:
        """The method of that name, whatever its version.

        Raises:
            ConfigError: there is none; the text suggests the nearest names.
        """
        method = self._by_name.get(name)
        if method is None:
            import difflib  # slow to load, and rarely needed

            folded = {each.lower(): each for each in self._by_name}
            near = [folded[each] for each in difflib.get_close_matches(name.lower(), folded)]
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self._by_name)}"
            raise ConfigError(f"{self.full_name} has no method {name!r}; {hint}")
        return method

    def digest(self, method: Operation[Any, Any], version: int) -> int:
        """A number, 0 to 2**32 - 1, that changes whenever the bytes of the method's messages may.

        It covers opcode, shape, who calls, and, of the request, the response and the declared errors, of each field
        number, wire type, presence, default and enum numbers, through nested messages. It does not cover names, docs,
        bounds and policy.
        """
        shape = method.word
        request: type[Message] = method.request
        response: type[Message] = method.response
        text = (
            f"{method.opcode} {shape} {_message_digest(request, version):08x} {_message_digest(response, version):08x}"
        )
        if method.errors:
            text += " !" + "".join(
                f" {_message_digest(each, version):08x}" for each in sorted(method.errors, key=lambda cls: cls.__name__)
            )
        return zlib.crc32(text.encode())

    def digests(self, version: int) -> dict[int, int]:
        """The digest of every method of one version, by opcode.

        Raises:
            ConfigError: the service has no such version.
        """
        made = self._digests.get(version)
        if made is None:
            # Kept, because both sides of every handshake ask for them.
            made = {opcode: self.digest(method, version) for opcode, method in self.at(version).items()}
            self._digests[version] = made
        return dict(made)


def message_types(root: Service | type[Message]) -> tuple[type[Message], ...]:
    """Every message class that a service or a message class reaches, itself included, in order of first use.

    Raises:
        DeclarationError: one of them is declared wrong.
    """
    if isinstance(root, Service):
        roots: list[type[Message]] = [each for method in root.methods for each in method.messages]
        return tuple(dict.fromkeys(cls for each in roots for cls in nested_types(each)))
    return nested_types(root)


_KINDS: Final = "Method, StreamMethod, UploadMethod, DuplexMethod or OneWayMethod"


# Checks when declared -------------------------------------------------------------------------------------------


def _check_operation(method: Operation[Any, Any]) -> None:
    kind = type(method).__name__
    if type(method) is Operation:
        raise DeclarationError(f"Operation is a base class; write {_KINDS}")
    name: object = method.name
    if not isinstance(name, str) or not is_camel(name):
        raise DeclarationError(f"{kind} {name!r}: method names are CamelCase; write {camel_case(str(name))!r}")
    where = f"{kind} {method.name}"
    _check_int(where, "opcode", method.opcode, 0, 0xFFFF)
    _check_int(where, "since", method.since, 1, MAX_VERSION)
    if method.until is not None:
        _check_int(where, "until", method.until, method.since, MAX_VERSION)
    _check_errors(where, method)
    for role in ("request", "response"):
        cls = getattr(method, role)
        if not (isinstance(cls, type) and issubclass(cls, Message) and cls is not Message):
            raise DeclarationError(f"{where}: {role} is {type_name(cls)}; give a class that derives from Message")
        if cls is Empty and cls in method.messages:
            # In a .proto it would be another type than the one that a one-way method answers.
            raise DeclarationError(
                f"{where}: {role} is Empty, which is what a one-way method answers; declare a message class of its own"
            )
    if isinstance(method.reasons, str):
        raise DeclarationError(f"{where}: reasons is a str; write reasons=[{method.reasons!r}]")
    reasons: Sequence[object] = method.reasons
    for reason in reasons:
        if not isinstance(reason, str) or not is_upper_snake(reason) or len(reason) > MAX_REASON:
            advice = upper_snake(str(reason))[:MAX_REASON]
            raise DeclarationError(
                f"{where}: reasons are UPPER_SNAKE, at most {MAX_REASON} characters; write {advice!r}"
            )
        if reason.startswith(private.REASONS):
            raise DeclarationError(
                f"{where}: reason {reason} begins with {private.REASONS}, which is left to proxies and extensions; "
                "give it another name"
            )
    if len(set(method.reasons)) != len(method.reasons):
        raise DeclarationError(f"{where}: a reason is listed twice; drop one")
    _check_policy(where, method)
    _check_side(where, method)


def _check_side(where: str, method: Operation[Any, Any]) -> None:
    by: object = method.by
    if by not in ("client", "server"):
        raise DeclarationError(f'{where}: by is {by!r}; write by="client" or by="server", whichever side calls it')
    if by == "server" and method.requires is not None:
        raise DeclarationError(
            f"{where}: requires is {method.requires!r}, and it is called by the server, the only one whom a client "
            "answers; leave it out"
        )


def _check_errors(where: str, method: Operation[Any, Any]) -> None:
    errors: object = method.errors
    if isinstance(errors, type) or not isinstance(errors, Sequence):
        raise DeclarationError(f"{where}: errors is {type_name(errors)}; write errors=[{type_name(errors)}]")
    for cls in errors:
        if not (isinstance(cls, type) and issubclass(cls, Message) and cls not in (Message, Empty)):
            raise DeclarationError(f"{where}: errors has {type_name(cls)}; list classes that derive from Message")
    if len(set(errors)) != len(errors):
        raise DeclarationError(f"{where}: an error is listed twice; drop one")
    if errors and method.shape is Shape.ONE_WAY:
        raise DeclarationError(f"{where}: a one-way method answers no error; drop errors=")


def _check_policy(where: str, method: Operation[Any, Any]) -> None:
    requires: object = method.requires
    if requires is not None and (not isinstance(requires, str) or not requires):
        raise DeclarationError(f"{where}: requires is {requires!r}; give a capability's name or None")
    timeout: object = method.timeout
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _MAX_TIMEOUT
    ):
        raise DeclarationError(f"{where}: timeout is in seconds, above 0 and at most {_MAX_TIMEOUT:.0f}, or None")
    if method.max_request is not None:
        _check_int(where, "max_request", method.max_request, 1, U32_MAX)


def _check_int(where: str, name: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise DeclarationError(f"{where}: {name} is {value!r}; give an int from {low} to {high}")
    return value


def _check_full_name(full_name: object) -> str:
    if isinstance(full_name, str):
        package, _, name = full_name.rpartition(".")
        if _PACKAGE.fullmatch(package) and is_camel(name) and name.endswith("Service") and len(full_name) <= 255:
            return full_name
    raise DeclarationError(
        f"{full_name!r}: a service is called like example.v1.CalculatorService: a lower-case package that ends in its "
        "version, then a CamelCase name that ends in Service, 255 characters at most"
    )


def _check_method(service: Service, method: object) -> None:
    """A method, against its service and those before it in the list."""
    if not isinstance(method, Operation):
        raise DeclarationError(f"{service.full_name}: {method!r} is no method; give objects of {_KINDS}")
    where = f"{service.full_name}: {method.name}"
    same = service.by_opcode.get(method.opcode)
    if same is method:
        raise DeclarationError(f"{where} is listed twice; drop one")
    if same is not None:
        raise DeclarationError(
            f"{where} has opcode {method.opcode:#06x}, as {same.name} has; every method has its own, for ever"
        )
    if any(other.name == method.name for other in service.by_opcode.values()):
        raise DeclarationError(f"{where}: two methods have this name; rename one")
    if method.opcode >= FIRST_FRAMEWORK_OPCODE and not service.full_name.startswith(_CONTROL_PACKAGE):
        raise DeclarationError(
            f"{where} has opcode {method.opcode:#06x}; those from {FIRST_FRAMEWORK_OPCODE:#06x} on are the "
            f"framework's, take one from 0 to {FIRST_FRAMEWORK_OPCODE - 1:#06x}"
        )
    for what, version in (("since", method.since), ("until", method.until)):
        if version is not None and version > service.version:
            raise DeclarationError(
                f"{where} has {what}={version}, but the service is of version {service.version}; "
                f"write version={version} in the Service, or a lower {what}"
            )
    if isinstance(method, StreamMethod) and method.resumable is not None:
        position_field(where, method.response, method.resumable, method.since)


def _check_names(service: Service) -> None:
    """One .proto file holds them all: messages, enums and the members of enums share a scope there."""
    methods = {method.name for method in service.methods}
    taken: dict[str, tuple[object, str]] = {service.name: (service, "the service")}

    def claim(name: str, thing: object, owner: str) -> None:
        other, other_owner = taken.setdefault(name, (thing, owner))
        if other is not thing:
            raise DeclarationError(
                f"{service.full_name}: {owner} and {other_owner} are both called {name} in a .proto; rename one"
            )

    for cls in message_types(service):
        if cls.__name__ in methods:
            raise DeclarationError(
                f"{service.full_name}: method {cls.__name__} hides the message {cls.__name__} in a .proto; "
                f"call the message {cls.__name__}Request, {cls.__name__}Response or otherwise"
            )
        claim(cls.__name__, cls, f"message {cls.__module__}.{cls.__qualname__}")
        for each in fields(cls):
            if each.type.scalar is Scalar.ENUM:
                enum_class = cast(type[enum.IntEnum], each.type.cls)
                claim(enum_class.__name__, enum_class, f"enum {enum_class.__module__}.{enum_class.__qualname__}")
                for member in enum_class:
                    name = f"{upper_snake(enum_class.__name__)}_{member.name}"
                    claim(name, member, f"{enum_class.__name__}.{member.name}")


def _check_versions(service: Service) -> None:
    """Each message exists from its first use on; what comes later needs a default."""
    first_use: dict[type[Message], int] = {}

    def visit(cls: type[Message], version: int) -> None:
        if first_use.get(cls, MAX_VERSION + 1) <= version:
            return
        first_use[cls] = version
        for each in fields(cls):
            if each.type.scalar is Scalar.MESSAGE:
                assert each.type.cls is not None
                visit(each.type.cls, max(version, each.since))

    for method in service.methods:
        for message in method.messages:
            visit(message, method.since)
    for cls, first in first_use.items():
        for each in fields(cls):
            if each.since > service.version:
                raise DeclarationError(
                    f"{each.path} is of version {each.since}, {service.full_name} of version {service.version}; "
                    f"write version={each.since} in the Service"
                )
            if each.required and each.since > first:
                raise DeclarationError(
                    f"{each.path} is new in version {each.since}, but {cls.__name__} is used from version {first} on; "
                    f"give it a default, for the peers of version {each.since - 1}"
                )


# Digests --------------------------------------------------------------------------------------------------------


@functools.cache
def _message_digest(cls: type[Message], version: int) -> int:
    """Of a message; never change how: two releases that meet would take each other for another contract."""
    text = ",".join(f"{each.number}:{_field_text(each, version)}" for each in fields(cls, version))
    return zlib.crc32(text.encode())


def _field_text(each: Field, version: int) -> str:
    kind = each.type
    text = kind.scalar.name
    if kind.scalar is Scalar.MESSAGE:
        text = f"({_message_digest(cast(type[Message], kind.cls), version):08x})"
    elif kind.cls is not None:
        text = f"<{','.join(str(number) for number in sorted(int(member) for member in kind.cls))}>"
    if kind.shape == "list":
        return f"[{text}]"
    if kind.key is not None:
        return f"{{{kind.key.name}:{text}}}"
    if each.presence == "explicit":
        return f"{text}?{_default_text(None if kind.optional else each.default)}"
    return text


def _default_text(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, float):
        return default.hex()
    if isinstance(default, str):
        return default.encode().hex()
    if isinstance(default, bytes):
        return default.hex()
    if isinstance(default, datetime):
        return default.isoformat(timespec="microseconds")
    return str(int(cast(int, default)))
