"""The vectors of early requests: what a server reads behind HELLO, what it skips, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.wire.peers import drain, final_error, reasons, started, welcome
from wireproto.wire.events import HelloReceived, RequestReceived

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "early.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
@pytest.mark.parametrize("step", [1, 7, 4096])
def test_they_are_read_skipped_or_refused(vector: dict[str, Any], step: int) -> None:
    """However the bytes are cut, and only once HELLO is answered."""
    server = started().server
    data = bytes.fromhex(vector["hex"])
    for at in range(0, len(data), step):
        server.receive_data(data[at : at + step])
    if vector.get("reason") == "BAD_BODY":
        assert reasons(server) == ["BAD_BODY"]
        return
    assert isinstance(server.next_event(), HelloReceived)
    server.send_welcome(msgspec.structs.replace(welcome(), **vector["welcome"]))
    if "reason" in vector:
        assert reasons(server) == [vector["reason"]]
        assert final_error(server.data_to_send()).reason == vector["reason"]
        return
    begun = [
        {"call_id": each.call_id, "opcode": each.opcode, "payload": each.payload.hex()}
        for each in drain(server)
        if isinstance(each, RequestReceived)
    ]
    assert begun == vector["calls"]
