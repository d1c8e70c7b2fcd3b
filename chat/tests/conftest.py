"""A chat for each test, in a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_service.fakes import Chat, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "chat.db"


@pytest.fixture
def chat(store_path: Path, clock: Clock) -> Iterator[Chat]:
    chat = Chat(store_path, clock)
    yield chat
    chat.close()
    assert not chat.fatal
