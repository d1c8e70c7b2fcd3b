"""Codecs by name: the built-in ones, and those that other packages bring."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.codecs.everything import JSON, Three
from wireproto import codecs
from wireproto.codecs import Codec, PlainCodec, Plan
from wireproto.errors import ConfigError
from wireproto.limits import Limits

Install = Callable[..., None]

CODEC = """
from wireproto.codecs import PlainCodec

class Echo(PlainCodec):
    name, id = {name!r}, {id!r}

    def dumps(self, value):
        return repr(value).encode()

    def loads(self, payload):
        return []

echo = Echo()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that installs a package with one codec: a module and a dist-info with its entry point."""
    monkeypatch.setattr(codecs, "_loaded", {})

    def make(
        module: str, name: str, number: int = 200, *, source: str = CODEC, target: str = "Echo", call_it: str = ""
    ) -> None:
        site = tmp_path / module
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source.format(name=call_it or name, id=number))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[wireproto.codecs]\n{name} = {module}:{target}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return make


def test_built_in_names() -> None:
    """The three codecs of the framework come first, in this order, under numbers that never change."""
    assert codecs.names()[:3] == ["pipe", "msgpack", "protobuf"]
    assert [codecs.get(name).id for name in ("pipe", "msgpack", "protobuf")] == [1, 2, 3]
    assert codecs.get("pipe") is codecs.get("pipe")
    assert repr(codecs.get("pipe")) == "<codec pipe, id 1>"


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    """A misspelt codec is refused with the nearest name and the list."""
    with pytest.raises(ConfigError) as caught:
        codecs.get("msgpak")
    assert str(caught.value).startswith(
        "there is no codec 'msgpak'; did you mean 'msgpack'? Known are pipe, msgpack, proto"
    )
    with pytest.raises(ConfigError, match=r"^there is no codec 'xml'; known are pipe, msgpack, "):
        codecs.get("xml")


@pytest.mark.parametrize("target", ["Echo", "echo"])
def test_an_installed_package_brings_a_codec(install: Install, target: str) -> None:
    """An entry point that is a class or an instance is found by name, listed, and works."""
    install("echo_package", "echo", 250, target=target)
    codecs.get("pipe")  # its id is another
    assert codecs.names() == ["pipe", "msgpack", "protobuf", "echo"]
    codec = codecs.get("echo")
    assert codec.id == 250
    assert codec is codecs.get("echo")
    plan = codec.plan(Three, 1, Limits())
    assert plan.encode(Three(sender="a", text="b", number=3)) == b"['a', 'b', 3]"


def test_names_imports_no_built_in_codec() -> None:
    """Asking what there is loads neither google.protobuf nor any codec."""
    program = (
        "import sys; from wireproto import codecs; codecs.names();"
        "print([name for name in sys.modules if name.startswith(('google', 'msgpack', 'wireproto.codecs.'))])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "['wireproto.codecs.base']"


@pytest.mark.parametrize(("name", "own"), [("pipe", ["base", "pipe", "pipe_values"]), ("msgpack", ["base", "msgpack"])])
def test_a_codec_loads_only_itself(name: str, own: list[str]) -> None:
    """A program that speaks pipe or msgpack never pays for google.protobuf."""
    program = (
        f"import sys; from wireproto import codecs; codecs.get({name!r});"
        "print([name for name in sys.modules if name.startswith(('google', 'wireproto.codecs.'))])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert sorted(found.stdout.strip("[]\n").split(", ")) == [f"'wireproto.codecs.{module}'" for module in own]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"source": "import no_such_module_at_all\n"}, "does not load: ModuleNotFoundError"),
    ({"source": "raise SystemError('boom')\n"}, "does not load: SystemError: boom"),
    ({"source": "Echo = None\n"}, "is no codec; it must be a subclass of wireproto.codecs.Codec"),
    ({"target": "Missing"}, "does not load: AttributeError"),
    ({"number": 127}, "has the id 127; codecs outside the framework take 128 to 255"),
    ({"number": 256}, "has the id 256"),
    ({"number": True}, "has the id True"),
    ({"number": "200"}, "has the id '200'"),
    ({"call_it": "Echo!"}, "has the name 'Echo!'; write lower case letters"),
    ({"call_it": "pipe"}, "has the name 'pipe', which is wireproto.codecs.pipe.PipeCodec"),
    ({"call_it": "other"}, "calls itself 'other'"),
]


@pytest.mark.parametrize(("wrong", "words"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_broken_package_harms_nobody_else(
    install: Install, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], words: str
) -> None:
    """It is left out of the names with a warning, refused when asked for, and the others still work."""
    install("good_package", "good", 201)
    install("broken_package", "broken", **wrong)
    with caplog.at_level(logging.WARNING, "wireproto.codecs"):
        assert codecs.names() == ["pipe", "msgpack", "protobuf", "good"]
    assert [words in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(ConfigError) as caught:
        codecs.get("broken")
    assert str(caught.value).startswith("entry point 'broken' (broken_package:")
    assert words in str(caught.value)
    assert codecs.get("good").id == 201


def test_an_id_belongs_to_one(install: Install) -> None:
    """Two packages with one id are refused, naming both."""
    install("first_package", "first", 222)
    install("second_package", "second", 222)
    codecs.get("first")
    with pytest.raises(ConfigError) as caught:
        codecs.get("second")
    assert str(caught.value) == (
        "entry point 'second' (second_package:Echo) has id 222, which 'first' (first_package.Echo, id 222) has "
        "already; one of them must change"
    )


def test_a_name_belongs_to_one(install: Install) -> None:
    """Two packages with one name are refused, naming both."""
    install("first_package", "same", 222)
    install("second_package", "same", 223)
    with pytest.raises(ConfigError) as caught:
        codecs.get("same")
    assert str(caught.value) == (
        "codec 'same' is offered by first_package:Echo and second_package:Echo; uninstall all but one"
    )


def test_a_package_cannot_replace_a_built_in_codec(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """An entry point called pipe changes nothing, and is warned of."""
    install("sly_package", "pipe", 210)
    assert codecs.get("pipe").id == 1
    assert codecs.names() == ["pipe", "msgpack", "protobuf"]
    assert "sly_package:Echo is called 'pipe', which is wireproto.codecs.pipe.PipeCodec" in caplog.text


def test_codec_objects_pass() -> None:
    """A codec object needs no entry point, and is checked like one that has."""

    class Late(PlainCodec):
        name, id = "late", 5

        def dumps(self, value: list[Any]) -> bytes:
            return b""

        def loads(self, payload: bytes) -> object:
            return []

    assert codecs.get(JSON) is JSON
    assert codecs.get(codecs.get("pipe")) is codecs.get("pipe")
    with pytest.raises(ConfigError, match="Late has the id 5"):
        codecs.get(Late())


def test_select() -> None:
    """Several codecs keep their order, doubles are dropped, none is refused."""
    assert [codec.name for codec in codecs.select(["msgpack", JSON, "pipe", "msgpack"])] == ["msgpack", "json", "pipe"]
    assert [codec.name for codec in codecs.select("pipe")] == ["pipe"]
    assert [codec.name for codec in codecs.select()][:3] == ["pipe", "msgpack", "protobuf"]
    with pytest.raises(ConfigError, match="no codec is left to choose; name at least one of pipe, msgpack, protobuf"):
        codecs.select([])


@pytest.mark.parametrize(
    ("name", "number", "words"), [("other", 200, "both have id 200"), ("json", 201, "both have the name 'json'")]
)
def test_select_refuses_codecs_that_cannot_be_told_apart(name: str, number: int, words: str) -> None:
    """Two different codecs of one id or name never serve one connection."""
    other = type("Other", (type(JSON),), {"name": name, "id": number})()
    with pytest.raises(ConfigError) as caught:
        codecs.select([JSON, other])
    assert words in str(caught.value)


def test_plans_are_kept() -> None:
    """A plan is compiled once for a type, version, direction and the limits that concern payloads."""
    compiled: list[int] = []

    class Counting(Codec):
        name, id = "counting", 255

        def compile(self, message_type: Any, version: int, limits: Limits, *, request: bool) -> Plan[Any]:
            compiled.append(version)
            return Plan(lambda message: b"", lambda payload: None)

    codec = Counting()
    first = codec.plan(Three, 1, Limits())
    assert codec.plan(Three, 1, Limits(max_calls=7)) is first
    assert codec.plan(Three, 1, Limits(), request=True) is first
    assert codec.plan(Three, 2, Limits()) is not first
    assert codec.plan(Three, 1, Limits(), request=False) is not first
    assert codec.plan(Three, 1, Limits(max_elements=7)) is not first
    assert compiled == [1, 2, 1, 1]
