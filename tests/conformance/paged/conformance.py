"""docs/conformance.md: the service by which a server is judged; importing this declares it."""

from tests.conformance.paged.declared import ENUMS, MESSAGES, SERVICES, Field, Method

__all__ = ["SERVICE"]

SERVICE = "wireconformance.v1.ConformanceService"
INT, STR = "int", "str"

ENUMS["Color"] = {"RED": 1, "GREEN": 2, "BLUE": 5}
MIRROR = [
    Field("flag", "bool", False),
    Field("number", INT, 0),
    Field("large", "uint", 0),
    Field("real", "float", 0.0),
    Field("text", STR, ""),
    Field("data", "bytes", b""),
    Field("moment", ("optional", "datetime"), None),
    Field("color", ("optional", ("enum", "Color")), None),
    Field("inner", ("optional", ("message", "Inner")), None),
    Field("maybe", ("optional", INT), None),
    Field("seven", INT, 7),
    Field("small", INT, 0, ge="0", le="255"),
    Field("numbers", ("list", INT), []),
    Field("texts", ("list", STR), []),
    Field("inners", ("list", ("message", "Inner")), []),
    Field("by_text", ("map", STR, INT), {}),
    Field("by_number", ("map", INT, STR), {}),
    Field("recent", STR, "", 2),
]
EMPTY = ("Crash", "Retired", "Recent", "Unserved")
MESSAGES |= {
    "MirrorRequest": MIRROR,
    "MirrorResponse": MIRROR,
    "Inner": [Field("name", STR, ""), Field("count", INT, 0)],
    "CountRequest": [
        Field("items", INT, 0, ge="0"),
        Field("padding", INT, 0, ge="0", le=str(1 << 20)),
        Field("fail", "bool", False),
    ],
    "CountResponse": [Field("number", INT, 0), Field("padding", "bytes", b"")],
    "FailRequest": [
        Field("status", INT, 2, ge="1", le="16"),
        Field("retry", INT, 0, ge="0", le="2"),
        Field("retry_after_ms", INT, 0, ge="0", le=str(2**32 - 1)),
        Field("message", STR, ""),
    ],
    "FailResponse": [],
    "SleepRequest": [Field("milliseconds", INT, 0, ge="0", le="60000")],
    "SleepResponse": [],
    "BlobRequest": [Field("size", INT, 0, ge="0", le=str(1 << 24))],
    "BlobResponse": [Field("data", "bytes", b"")],
    "InspectRequest": [],
    "InspectResponse": [
        Field("remaining_ms", ("optional", INT), None),
        Field("traceparent", STR, ""),
        Field("authorization", STR, ""),
        Field("idempotency_key", "bytes", b""),
        Field("entries", ("map", STR, STR), {}),
    ],
    "PrivateRequest": [],
    "PrivateResponse": [Field("subject", STR, "")],
    "ShortRequest": [Field("text", STR, "")],
    "ShortResponse": [Field("length", INT, 0)],
    **{f"{name}{end}": [] for name in EMPTY for end in ("Request", "Response")},
}
MESSAGES |= {
    "SumRequest": [
        Field("number", INT, 0),
        Field("data", "bytes", b""),
        Field("fail", "bool", False),
        Field("answer", "bool", False),
        Field("milliseconds", INT, 0, ge="0", le="60000"),
    ],
    "SumResponse": [Field("total", INT, 0), Field("size", INT, 0), Field("items", INT, 0)],
    "ReflectRequest": [
        Field("number", INT, 0),
        Field("data", "bytes", b""),
        Field("fail", "bool", False),
        Field("end", "bool", False),
    ],
    "ReflectResponse": [Field("number", INT, 0), Field("data", "bytes", b"")],
    "NoteRequest": [Field("key", STR, ""), Field("number", INT, 0), Field("milliseconds", INT, 0, ge="0", le="10000")],
    "TailRequest": [Field("items", INT, 0, ge="0"), Field("forgotten", INT, 0, ge="0")],
    "TailResponse": [Field("number", INT, 0), Field("position", INT, 0)],
    "FloodRequest": [Field("items", INT, 0, ge="0", le="10000"), Field("keep", INT, 1, ge="1", le="10000")],
    "FloodResponse": [Field("number", INT, 0)],
    "SayRequest": [
        Field("entries", ("map", STR, STR), {}),
        Field("traceparent", STR, ""),
        Field("items", INT, 0, ge="0", le="1000"),
        Field("fail", "bool", False),
        Field("size", INT, 0, ge="0", le="65536"),
    ],
    "SayResponse": [Field("number", INT, 0)],
    "Refusal": [Field("data", "bytes", b"")],
    "NotedRequest": [Field("key", STR, "")],
    "NotedResponse": [Field("count", INT, 0), Field("total", INT, 0)],
}
SERVICES[SERVICE] = (
    3,
    [
        Method(1, "Mirror", False, "MirrorRequest", "MirrorResponse", compress=True),
        Method(2, "Count", True, "CountRequest", "CountResponse", ("AS_ASKED",), compress=True),
        Method(3, "Fail", False, "FailRequest", "FailResponse", ("AS_ASKED",)),
        Method(4, "Sleep", False, "SleepRequest", "SleepResponse"),
        Method(5, "Blob", False, "BlobRequest", "BlobResponse", compress=True),
        Method(6, "Inspect", False, "InspectRequest", "InspectResponse"),
        Method(7, "Private", False, "PrivateRequest", "PrivateResponse"),
        Method(8, "Short", False, "ShortRequest", "ShortResponse", max_request=64),
        Method(9, "Crash", False, "CrashRequest", "CrashResponse"),
        Method(10, "Retired", False, "RetiredRequest", "RetiredResponse", until=1),
        Method(11, "Recent", False, "RecentRequest", "RecentResponse", since=2),
        Method(12, "Unserved", False, "UnservedRequest", "UnservedResponse"),
        Method(13, "Sum", False, "SumRequest", "SumResponse", ("AS_ASKED",), since=3, follow=True, compress=True),
        Method(
            14,
            "Reflect",
            True,
            "ReflectRequest",
            "ReflectResponse",
            ("AS_ASKED",),
            since=3,
            follow=True,
            drains=True,
            compress=True,
        ),
        Method(15, "Note", False, "NoteRequest", "", since=3, compress=True),
        Method(16, "Noted", False, "NotedRequest", "NotedResponse", since=3),
        Method(20, "Tail", True, "TailRequest", "TailResponse", since=3, resumable="position"),
        Method(21, "Flood", True, "FloodRequest", "FloodResponse", since=3, slow="drop_oldest"),
        Method(22, "Burst", True, "FloodRequest", "FloodResponse", since=3, slow="end"),
        Method(23, "Say", False, "SayRequest", "SayResponse", ("AS_ASKED",), since=3, errors=("Refusal",)),
        Method(24, "Recite", True, "SayRequest", "SayResponse", ("AS_ASKED",), since=3, errors=("Refusal",)),
    ],
)
