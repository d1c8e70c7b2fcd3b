"""The opcode table: messages, methods and services, declared once in typed Python and checked when declared."""

from wireproto.schema.declarations import fields
from wireproto.schema.messages import MISSING, Bounds, Field, FieldType, Message, Scalar, Since, UInt64
from wireproto.schema.services import Method, Operation, Service, StreamMethod, message_types

__all__ = [
    "MISSING",
    "Bounds",
    "Field",
    "FieldType",
    "Message",
    "Method",
    "Operation",
    "Scalar",
    "Service",
    "Since",
    "StreamMethod",
    "UInt64",
    "fields",
    "message_types",
]
