"""The opcode table as protobuf: descriptors made in memory, and the ``.proto`` text for everybody else's tools."""

from wireproto.protos.descriptor import file_name, message_file, pool_for, service_file
from wireproto.protos.render import generate, render

__all__ = ["file_name", "generate", "message_file", "pool_for", "render", "service_file"]
