"""Every peer here greases: versions, codecs, features, fields, frames and metadata that do not exist."""

import pytest

from tests.testing.greasing import grease_everything


@pytest.fixture(autouse=True)
def _greased(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    grease_everything(monkeypatch, request.node.name)
