"""The chat under the kit's suite: its handlers, and everything its table promises."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from chat_service.fakes import PASSWORD, QUICK
from wireproto.client import BlockingClient
from wireproto.schema import Operation
from wireproto.testing import ServerSuite
from wireproto_chat.opcodes import CHAT, CREATE_ACCOUNT, LOG_IN, CreateAccountRequest, LogInRequest
from wireproto_chat.service.handlers import ChatApp, open_chat
from wireproto_chat.service.passwords import Passwords

NAMES = st.sampled_from(["ann", "bob"])
PASSWORDS = st.sampled_from([PASSWORD, "another horse battery"])
MEANT: dict[str, st.SearchStrategy[Any]] = {
    "new_password": PASSWORDS,
    "password": PASSWORDS,
    "pattern": st.sampled_from(["*", "a*", "?ob"]),
    "recipient": NAMES,
    "sequence": st.integers(0, 3),
    "text": st.text(max_size=20),
    "token": st.just(""),
    "username": NAMES,
}


@pytest.mark.slow
class TestChatServer(ServerSuite):
    """A database of its own for each application; ann and bob have accounts, and ann calls."""

    service = CHAT
    max_examples = 5
    varying = ("created_at", "last_seen", "message_id", "online", "sent_at", "token")

    @contextlib.contextmanager
    def application(self) -> Iterator[ChatApp]:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_chat(f"{folder}/chat.db", passwords=Passwords(hasher=QUICK)) as app,
        ):
            yield app

    def credential(self, client: BlockingClient) -> str:
        for name in ("ann", "bob"):
            client.call(CREATE_ACCOUNT, CreateAccountRequest(username=name, password=PASSWORD))
        return f"Bearer {client.call(LOG_IN, LogInRequest(username='ann', password=PASSWORD)).token}"

    def requests(self, method: Operation[Any, Any], version: int) -> st.SearchStrategy[Any]:
        any_request = super().requests(method, version)
        known = {name: MEANT[name] for name in method.request.__struct_fields__ if name in MEANT}
        return st.builds(msgspec.structs.replace, any_request, **known) | any_request
