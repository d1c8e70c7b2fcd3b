"""Our own client as ``wireproto conformance --client`` takes one; ``python -m`` this module is the program."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TextIO

from wireproto.client import Client, Gap, connect
from wireproto.conformance.asking import client_handlers
from wireproto.conformance.plain import from_json, to_json
from wireproto.conformance.service import CONFORMANCE
from wireproto.errors import (
    CallError,
    CodecError,
    ConnectionLost,
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
)
from wireproto.schema import DuplexMethod, Message, Method, OneWayMethod, StreamMethod, UploadMethod
from wireproto.wire.metadata import Metadata

__all__ = ["main", "perform"]

TIMEOUT = 30.0
"""Seconds that a call without a deadline of its own may take."""


class _Left(Exception):
    """The caller gives up an upload whose items are not all there."""


def _and_leave(items: list[Message]) -> Iterator[Message]:
    yield from items
    raise _Left


def _error(error: Exception) -> dict[str, Any]:
    if isinstance(error, CallError):
        return {
            "status": int(error.status),
            "reason": error.reason,
            "message": error.message,
            "retry": int(error.retry),
            "retry_after_ms": error.retry_after_ms,
        }
    return {"message": f"{type(error).__name__}: {error}"}


def _metadata(given: dict[str, Any]) -> tuple[Metadata, float | None]:
    deadline = given.get("deadline_ms")
    made = Metadata(
        traceparent=given.get("traceparent", ""),
        authorization=given.get("authorization", ""),
        idempotency_key=bytes.fromhex(given.get("idempotency_key", "")),
        entries=given.get("entries", {}),
    )
    return made, None if deadline is None else deadline / 1000


class _Steps:
    """One connection's."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.started: dict[str, Future[Any] | Exception] = {}

    def run(self, step: dict[str, Any]) -> dict[str, Any]:
        do: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "call": self.call,
            "start": self.start,
            "wait": self.wait,
            "cancel": self.cancel,
            "stream": self.stream,
            "follow": self.follow,
            "upload": self.upload,
            "duplex": self.duplex,
            "post": self.post,
            "close": self.close,
        }
        try:
            return do[step["do"]](step)
        except (CallError, CodecError, LocalProtocolError, RemoteProtocolError) as error:
            return {"error": _error(error)}

    def call(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, Method)
        metadata, timeout = _metadata(step.get("metadata", {}))
        request = from_json(method.request, step["request"])
        answer = self.client.call_with_metadata(method, request, timeout=timeout or TIMEOUT, metadata=metadata)
        return {"response": to_json(answer.message), "metadata": dict(answer.metadata)}

    def start(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, Method)
        try:
            self.started[step["as"]] = self.client.start(method, from_json(method.request, step["request"]))
        except CallError as error:
            self.started[step["as"]] = error
        return {}

    def wait(self, step: dict[str, Any]) -> dict[str, Any]:
        found = self.started.pop(step["for"])
        if isinstance(found, Exception):
            raise found
        return {"response": to_json(found.result(TIMEOUT))}

    def cancel(self, step: dict[str, Any]) -> dict[str, Any]:
        found = self.started.pop(step["for"])
        if isinstance(found, Future):
            found.cancel()
        return {}

    def stream(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, StreamMethod)
        request = from_json(method.request, step["request"])
        return self._taken(lambda: self.client.stream(method, request, credit=step["credit"]), step.get("take"))

    def follow(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, StreamMethod)
        request = from_json(method.request, step["request"])
        after, credit = step.get("after"), step["credit"]
        return self._taken(lambda: self.client.follow(method, request, after=after, credit=credit), None)

    def upload(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, UploadMethod)
        metadata, timeout = _metadata(step.get("metadata", {}))
        items = [from_json(method.request, each) for each in step["items"]]
        given = _and_leave(items) if step.get("leave") else items
        try:
            answer = self.client.upload(method, given, timeout=timeout or TIMEOUT, metadata=metadata)
        except _Left:
            return {}
        return {"response": to_json(answer)}

    def duplex(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, DuplexMethod)
        items = [from_json(method.request, each) for each in step["items"]]
        return self._taken(lambda: self.client.duplex(method, items, credit=step["credit"]), step.get("take"))

    def post(self, step: dict[str, Any]) -> dict[str, Any]:
        method = CONFORMANCE.by_name(step["method"])
        assert isinstance(method, OneWayMethod)
        metadata, timeout = _metadata(step.get("metadata", {}))
        self.client.post(method, from_json(method.request, step["request"]), timeout=timeout, metadata=metadata)
        return {}

    def _taken(self, begin: Callable[[], Any], most: int | None) -> dict[str, Any]:
        """What came of a call whose answer is items."""
        result: dict[str, Any] = {"items": []}
        try:
            with begin() as items:
                for item in items:
                    result["items"].append({"gap": item.after} if isinstance(item, Gap) else to_json(item))
                    if len(result["items"]) == most:
                        return result
            result.update(end=True, metadata=dict(items.metadata), dropped=items.dropped)
        except (CallError, CodecError) as error:
            result["error"] = _error(error)
        return result

    def close(self, step: dict[str, Any]) -> dict[str, Any]:
        self.client.close()
        return {}


def perform(instruction: dict[str, Any]) -> dict[str, Any]:
    """Do what one line says, over a connection of its own."""
    try:
        client = connect(
            (instruction["host"], instruction["port"]),
            CONFORMANCE,
            codec=instruction["codec"],
            version=instruction["versions"][1],
            name="wireproto conformance adapter",
            handlers=client_handlers(CONFORMANCE) if instruction.get("handlers") else None,
            early=instruction.get("early", False),
        )
    except (HandshakeError, ConnectionLost) as error:
        return {"connect_error": _error(error)}
    with client:
        steps = _Steps(client)
        return {"results": [steps.run(step) for step in instruction["steps"]]}


def main(lines: Iterable[str] = sys.stdin, out: TextIO = sys.stdout) -> None:
    """Answer each line of ``lines`` by one."""
    for line in lines:
        out.write(json.dumps(perform(json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
