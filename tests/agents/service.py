"""A service whose server calls its clients, in every shape, and one call of a client's beside them."""

from wireproto import DuplexMethod, Message, Method, OneWayMethod, Service, StreamMethod, UploadMethod

__all__ = [
    "AGENTS",
    "COLLECT",
    "CONVERT",
    "ENROL",
    "NOTIFY",
    "REPORT",
    "RUN",
    "SHELL",
    "TAIL",
    "EnrolRequest",
    "EnrolResponse",
    "Line",
    "Order",
    "Result",
]


class EnrolRequest(Message):
    """What a client says of itself."""

    name: str


class EnrolResponse(Message):
    """How many have done so."""

    agents: int = 0


class Order(Message):
    """What a client is to do."""

    text: str = ""
    count: int = 0


class Result(Message):
    """What came of it."""

    text: str = ""
    count: int = 0


class Line(Message):
    """One of many."""

    text: str = ""


ENROL = Method(opcode=0x10, name="Enrol", request=EnrolRequest, response=EnrolResponse)
RUN = Method(opcode=0x20, name="Run", request=Order, response=Result, by="server", reasons=("BROKEN",))
TAIL = StreamMethod(opcode=0x21, name="Tail", request=Order, response=Line, by="server")
REPORT = UploadMethod(opcode=0x22, name="Report", request=Line, response=Result, by="server")
COLLECT = UploadMethod(opcode=0x23, name="Collect", request=Line, response=Result, collect=100, by="server")
SHELL = DuplexMethod(opcode=0x24, name="Shell", request=Line, response=Line, by="server")
NOTIFY = OneWayMethod(opcode=0x25, name="Notify", request=Order, by="server")
CONVERT = DuplexMethod(opcode=0x26, name="Convert", request=Line, response=Line, by="server")

AGENTS = Service(
    "example.agents.v1.AgentService",
    version=1,
    methods=[ENROL, RUN, TAIL, REPORT, COLLECT, SHELL, NOTIFY, CONVERT],
    doc="Agents that work for a server.",
)
