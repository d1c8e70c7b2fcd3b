"""Generated source: each function shows its own lines in a traceback, and compiling again takes no more memory."""

import linecache
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from tests.schema.declaring import message
from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.codecs.msgpack import MsgpackCodec
from wireproto.codecs.pipe import PipeCodec
from wireproto.codecs.protobuf import ProtobufCodec
from wireproto.errors import CodecError, DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Bounds, Message, Since, compile_refusal
from wireproto.schema.generated import compile_source

CODECS = ["pipe", "msgpack", "protobuf"]


class Inner(Message):
    number: Annotated[int, Bounds(ge=0)]


class Outer(Message):
    number: Annotated[int, Bounds(ge=0)]
    text: str
    inner: Inner | None = None
    numbers: list[int] = []
    late: Annotated[int, Since(2)] = 0


GOOD = Outer(number=1, text="a")
BAD = Outer(number=-1, text="a")


def frames(call: Callable[[], object]) -> list[traceback.FrameSummary]:
    """The frames of generated code that an error of ``call`` came through, the outermost first."""
    with pytest.raises(CodecError) as caught:
        call()
    found = [each for each in traceback.extract_tb(caught.value.__traceback__) if each.filename.startswith("<wirepr")]
    text = "".join(traceback.format_exception(caught.value))
    for each in found:
        assert each.line, each
        assert f'File "{each.filename}", line {each.lineno}, in {each.name}\n    {each.line}\n' in text
    return found


def source_of(filename: str) -> str:
    return "".join(linecache.getlines(filename))


def test_a_traceback_shows_the_line() -> None:
    """A traceback through generated code shows the line it stopped at."""
    made = compile_source("example", "def run():\n    return 1 / zero\n", {"zero": 0})
    with pytest.raises(ZeroDivisionError) as caught:
        made["run"]()
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "<wireproto example>", line 2, in run' in text
    assert "return 1 / zero" in text


def test_two_sources_of_one_title_have_two_names() -> None:
    """The second source of a title gets a name of its own, and the first one keeps its lines."""
    sources = ["def run():\n    return 1 / zero\n", "def run():\n    # Another one.\n    return 2 / zero\n"]
    shown = []
    for source in sources:
        made = compile_source("two of one title", source, {"zero": 0})
        with pytest.raises(ZeroDivisionError) as caught:
            made["run"]()
        shown.append(traceback.extract_tb(caught.value.__traceback__)[-1])
    assert [each.line for each in shown] == ["return 1 / zero", "return 2 / zero"]
    assert [each.filename for each in shown] == ["<wireproto two of one title>", "<wireproto two of one title, 2>"]
    assert [source_of(each.filename) for each in shown] == sources


@pytest.mark.parametrize("codec", CODECS)
def test_plans_of_one_class_show_their_own_source(codec: str) -> None:
    """Plans for requests and responses, two limits and two versions each show the code that runs."""
    plans: dict[str, Plan[Outer]] = {
        "request": codecs.get(codec).plan(Outer, 1, Limits(), request=True),
        "response": codecs.get(codec).plan(Outer, 1, Limits(), request=False),
        "few elements": codecs.get(codec).plan(Outer, 1, Limits(max_elements=7), request=True),
        "version 2": codecs.get(codec).plan(Outer, 2, Limits(), request=True),
    }
    names = {}
    for what, plan in plans.items():
        encoding = frames(lambda plan=plan: plan.encode(BAD))  # type: ignore[misc]
        decoding = frames(lambda plan=plan: plan.decode(b"\xff\xff"))  # type: ignore[misc]
        assert encoding[0].filename == decoding[0].filename
        assert (encoding[0].name, decoding[0].name) == ("encode", "decode")
        names[what] = encoding[0].filename
        assert f" {codec} " in names[what]
        assert "Outer" in names[what]
    assert len(set(names.values())) == len(plans), names
    newer = "default5"  # what a request is compared with, when the version has no such field
    assert newer in source_of(names["request"])
    assert newer not in source_of(names["response"])
    assert newer not in source_of(names["version 2"])


@pytest.mark.parametrize("error", [EncodeError, DecodeError])
def test_refusals_of_one_class_show_their_own_source(error: type[CodecError]) -> None:
    """The refusal of each version and role shows its own lines, whether the codec wrote or read the message."""
    names = set()
    for version, request in [(1, True), (1, False), (2, True), (None, True)]:
        refuse = compile_refusal(Outer, version, request=request)
        (found,) = frames(lambda refuse=refuse: refuse(BAD, error))  # type: ignore[misc]
        assert found.line == "return fail(m, error)"
        assert "default5" in source_of(found.filename) or (version, request) != (1, True)
        names.add(found.filename)
    assert len(names) == 4


def test_what_looks_at_a_nested_message_has_a_source() -> None:
    """What looks at a nested message without words has lines, for a debugger that steps into it."""
    nested: Any = message("NestedHere", value=Annotated[float, Bounds(ge=0)])
    holder: Any = message("Holding", nested=nested)
    compile_refusal(holder, 1, request=True)
    (name,) = (each for each in linecache.cache if "NestedHere" in each)
    assert "def accepts(m):" in source_of(name)


@pytest.mark.parametrize("make", [PipeCodec, MsgpackCodec, ProtobufCodec])
def test_the_same_arguments_take_no_more_memory(make: type[PipeCodec | MsgpackCodec | ProtobufCodec]) -> None:
    """A plan or refusal is made once for the same arguments; a codec object that makes it again adds no source."""
    kept = make()
    plan = kept.plan(Outer, 1, Limits())
    assert kept.plan(Outer, 1, Limits()) is plan
    assert compile_refusal(Outer, 1, request=True) is compile_refusal(Outer, 1, request=True)
    before = len(linecache.cache)
    for _ in range(3):
        assert make().plan(Outer, 1, Limits()).encode(GOOD) == plan.encode(GOOD)
    assert len(linecache.cache) == before
