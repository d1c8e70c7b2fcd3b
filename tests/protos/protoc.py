"""protoc, as grpcio-tools brings it, as an independent reader of .proto text."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]


def compiled(sources: Mapping[str, str], folder: Path) -> dict[str, FileDescriptorProto]:
    """What protoc makes of .proto files, by name and without the positions of things in the text."""
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    built = folder / "built.binpb"
    known = files("grpc_tools") / "_proto"
    status = protoc.main(["protoc", f"-I{folder}", f"-I{known}", f"--descriptor_set_out={built}", *sources])
    assert status == 0, "protoc refused the file; its reasons are on stderr"
    return {file.name: file for file in FileDescriptorSet.FromString(built.read_bytes()).file}
