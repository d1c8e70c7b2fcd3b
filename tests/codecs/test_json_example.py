"""The codec in ``examples/``: short, runnable, and as strict as the others."""

import subprocess
import sys
from typing import Any

import pytest

from tests.codecs.everything import JSON, ROOT, Branch, Leaf, Nothing, Three
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Message

EXAMPLE = ROOT / "examples" / "json_codec.py"


class Number(Message):
    value: int


class Raw(Message):
    value: bytes


class Counts(Message):
    value: dict[str, int]


class ById(Message):
    value: dict[int, str]


def test_it_has_at_most_forty_lines() -> None:
    """A codec over a generic format is that short."""
    assert len(EXAMPLE.read_text().split("\n")) <= 41  # the last one is empty


def test_it_runs() -> None:
    """As a script it serves and calls the calculator in JSON."""
    ran = subprocess.run([sys.executable, EXAMPLE], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "5\n", ran.stderr


WRITTEN: list[tuple[Message, str]] = [
    (Nothing(), "[]"),
    (Three(sender="ann", text='"é😀\n', number=3), '["ann","\\"é😀\\n",3]'),
    (Raw(value=b"\x00\xff"), '[{"hex":"00ff"}]'),
    (Counts(value={"b": 1, "a": 2}), '[{"keys":["a","b"],"values":[2,1]}]'),
    (ById(value={10: "x", 9: ""}), '[{"keys":[9,10],"values":["","x"]}]'),
    (
        Branch(ratio=1.0, leaf=Leaf(name="x"), by_name={"k": Leaf(name="y")}),
        '[1.0,null,["x",0,[],null],[],{"keys":["k"],"values":[["y",0,[],null]]},{"hex":""},null,null]',
    ),
]


@pytest.mark.parametrize(("message", "text"), WRITTEN)
def test_canonical_form(message: Message, text: str) -> None:
    """Each message has this text, and the text gives it back."""
    plan: Any = JSON.plan(type(message), 1, Limits())
    assert plan.encode(message) == text.encode()
    assert plan.decode(text.encode()) == message


REFUSED: list[tuple[type[Message], bytes]] = [
    (Number, b"[true]"),
    (Number, b"[1.0]"),
    (Number, b'["1"]'),
    (Number, b"[9223372036854775808]"),
    (Number, b"[" + b"9" * 4301 + b"]"),
    (Number, b"[1] 2"),
    (Number, b"[1,2]"),
    (Number, b"[]"),
    (Number, b"{}"),
    (Number, b"\xef\xbb\xbf[1]"),
    (Number, "[1]".encode("utf-16")),
    (Number, b"[" * 100_000),
    (Three, b'["\xff","",1]'),
    (Three, b'["\\ud800","",1]'),
    (Raw, b'["00"]'),
    (Raw, b'[{"hex":"0"}]'),
    (Raw, b'[{"hex":5}]'),
    (Raw, b'[{"hex":"00","hex":"00"}]'),
    (Counts, b'[{"a":1}]'),
    (Counts, b'[{"keys":["a"],"values":[]}]'),
    (Counts, b'[{"keys":"a","values":[1]}]'),
    (Counts, b'[{"keys":["a","a"],"values":[1,2]}]'),
    (Counts, b'[{"keys":[["a"]],"values":[1]}]'),
    (Counts, b'[{"values":[1],"keys":["a"]}]'),
    (ById, b'[{"keys":["1"],"values":["x"]}]'),
    (ById, b'[{"keys":[true],"values":["x"]}]'),
    (ById, b'[{"keys":[1,true],"values":["x","y"]}]'),
]


@pytest.mark.parametrize(("message_type", "payload"), REFUSED, ids=lambda value: repr(value)[:40])
def test_refusals(message_type: type[Message], payload: bytes) -> None:
    """What is JSON, but no message, or no JSON, is refused."""
    with pytest.raises(DecodeError):
        JSON.plan(message_type, 1, Limits()).decode(payload)
