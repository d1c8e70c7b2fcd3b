"""What a call over gRPC says beside its message: its headers."""

from collections.abc import Mapping

from wireproto.client.face import as_metadata
from wireproto.errors import EncodeError
from wireproto.wire.metadata import Metadata, as_header, is_reserved, pack_metadata

__all__ = ["Headers", "headers_of"]

Headers = list[tuple[str, str | bytes]]


def headers_of(version: int | None, authorization: str, given: Metadata | Mapping[str, str] | None) -> Headers:
    """The headers of a call: what its caller gave, with what the client adds.

    Args:
        version: of the service; None for the framework's own methods.
        authorization: the client's, for a call that brings none; "" for none.
        given: by the caller.

    Raises:
        EncodeError: what was given is no metadata, or gRPC has a use of its own for a name.
    """
    headers: Headers = []
    if version is not None:
        headers.append(("wireproto-version", str(version)))
    if given is not None:
        metadata = as_metadata(given)
        pack_metadata(metadata)  # the same rules as over TCP, and the same errors
        authorization = metadata.authorization or authorization
        if metadata.traceparent:
            headers.append(("traceparent", metadata.traceparent))
        if metadata.idempotency_key:
            headers.append(("idempotency-key-bin", metadata.idempotency_key))
        if metadata.resume_after:
            headers.append(("wireproto-resume-after-bin", metadata.resume_after))
        headers += [_entry(name, value) for name, value in metadata.entries.items()]
    if authorization:
        headers.append(("authorization", authorization))
    return headers


def _entry(name: str, value: str) -> tuple[str, str | bytes]:
    if is_reserved(name):
        raise EncodeError(f"Metadata.entries[{name!r}]", "gRPC has a use of its own for this name; choose another")
    return as_header(name, value)
