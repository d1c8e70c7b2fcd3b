"""The opcode table: messages, methods and services, declared once in typed Python and checked when declared."""

from wireproto.schema.declarations import fields, nested_types, reachable
from wireproto.schema.messages import MISSING, Bounds, Field, FieldType, Message, Scalar, Since, UInt64
from wireproto.schema.plain import from_plain, to_plain
from wireproto.schema.positions import MAX_POSITION, Position, Positions
from wireproto.schema.refusal import compile_refusal, inline_refusal
from wireproto.schema.services import (
    By,
    DuplexMethod,
    Empty,
    Method,
    OneWayMethod,
    Operation,
    Service,
    Shape,
    Slow,
    StreamMethod,
    UploadMethod,
    message_types,
)

__all__ = [
    "MAX_POSITION",
    "MISSING",
    "Bounds",
    "By",
    "DuplexMethod",
    "Empty",
    "Field",
    "FieldType",
    "Message",
    "Method",
    "OneWayMethod",
    "Operation",
    "Position",
    "Positions",
    "Scalar",
    "Service",
    "Shape",
    "Since",
    "Slow",
    "StreamMethod",
    "UInt64",
    "UploadMethod",
    "compile_refusal",
    "fields",
    "from_plain",
    "inline_refusal",
    "message_types",
    "nested_types",
    "reachable",
    "to_plain",
]
