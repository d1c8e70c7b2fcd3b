"""The lock: what it holds, how it is read again, and what it never lets pass."""

import json
from collections.abc import Iterable
from typing import cast

import pytest

from tests.codecs.everything import EVERYTHING, GROWING, Nothing
from tests.contract.editing import BASE, build, edited
from tests.lending import LENDING
from tests.shapes import BEEP, SHAPES
from wireproto import codecs
from wireproto.contract import Lock, compare, fingerprint, samples
from wireproto.control import CONTROL
from wireproto.errors import ConfigError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Message, Scalar, Service, compile_refusal, fields, message_types

SERVICE = build(BASE)


def test_a_lock_is_read_as_it_was_written() -> None:
    """Text to lock to text is the same, and the table read says what the declared one says."""
    for service in (SERVICE, CONTROL, LENDING, SHAPES):
        text = Lock.of(service).text()
        found = Lock.parse(text)
        assert found.text() == text
        assert compare(found.service, service) == []
        assert found.problems(service) == []


def test_two_locks_of_a_service_are_the_same() -> None:
    """Samples and layout depend on the declaration and on nothing else."""
    assert Lock.of(build(BASE)).text() == Lock.of(SERVICE).text()


def test_every_thing_has_a_line() -> None:
    """A method, a field, an enum and a sample message stand in one line each, so a diff shows what changed."""
    before = Lock.of(SERVICE).text().splitlines()
    after = Lock.of(build(edited({"timeout=5.0": "timeout=6.0", "    key: str": "    name: str"}))).text().splitlines()
    changed = [line.split(", ")[0].strip() for line in after if line not in before]
    assert changed == ['{"opcode": 0', '{"name": "name"']


def test_golden_payloads_are_those_of_the_codecs() -> None:
    """Each golden message has its bytes in every codec, in every version that has the method."""
    lock = Lock.of(SERVICE)
    seen = set()
    for golden in lock.golden:
        method = SERVICE.at(golden.version)[golden.opcode]
        message_type = method.request if golden.role == "request" else method.response
        found = set()
        for name, payload in golden.payloads.items():
            plan = codecs.get(name).plan(message_type, golden.version, Limits(), request=golden.role == "request")
            message = plan.decode(payload)
            assert plan.encode(message) == payload
            found.add(codecs.get("msgpack").plan(message_type, golden.version, Limits()).encode(message))
        assert len(found) == 1
        seen.add((golden.version, golden.opcode, golden.role))
    assert seen == {
        (version, opcode, role)
        for version in (1, 2)
        for opcode, method in SERVICE.at(version).items()
        for role in ("request", "item" if method.items_come_back else "response")
    }


def test_golden_messages_have_the_role_of_their_half() -> None:
    """What the caller sends is the request, one message or many; a one-way method has nothing else."""
    lock = Lock.of(SHAPES)
    roles: dict[str, list[str]] = {}
    for version, opcode, role, _ in lock.golden:
        if version == 2 and role not in roles.setdefault(SHAPES.by_opcode[opcode].name, []):
            roles[SHAPES.by_opcode[opcode].name].append(role)
    assert roles == {
        "Probe": ["request", "response"],
        "Follow": ["request", "item"],
        "Store": ["request", "response"],
        "Average": ["request", "response"],
        "Convert": ["request", "item"],
        "Beep": ["request"],
        "Reset": ["request"],
    }
    text = lock.text()
    key = f"2 {BEEP.opcode:#06x} {BEEP.name}"
    assert f'"{key} request": [' in text
    for role in ("response", "item"):
        with pytest.raises(ConfigError, match="is not of the table"):
            Lock.parse(text.replace(f"{key} request", f"{key} {role}"))


def test_a_lock_says_the_shape_of_each_method() -> None:
    """The line of a method has its shape, and that of a one-way method no response."""
    methods = {each["name"]: each for each in json.loads(Lock.of(SHAPES).text())["methods"]}
    assert {name: each["shape"] for name, each in methods.items()} == {
        "Probe": "UNARY",
        "Follow": "SERVER_STREAM",
        "Store": "UPLOAD",
        "Average": "UPLOAD",
        "Convert": "DUPLEX",
        "Beep": "ONE_WAY",
        "Reset": "ONE_WAY",
    }
    assert (methods["Beep"]["request"], methods["Beep"]["response"]) == ("BeepRequest", "")


@pytest.mark.parametrize("message_type", [*message_types(EVERYTHING), *message_types(GROWING)])
def test_samples_exercise_every_field(message_type: type[Message]) -> None:
    """Between them the samples give each field several values, None and empty among them, and all are sound."""
    made = samples(message_type)
    for message in made:
        compile_refusal(message_type, None, request=True)(message, EncodeError)
    for field in fields(message_type):
        values = [getattr(message, field.name) for message in made]
        assert len({repr(value) for value in values}) > 1 or field.type.cls is Nothing, field.path
        assert None in values or not field.type.optional
        assert [] in values or {} in values or field.type.shape == "single" or field.type.size is not None
        if field.type.scalar is Scalar.ENUM and field.type.shape == "single":
            assert {int(value) for value in values if value is not None} == {
                int(member) for member in cast(Iterable[int], field.type.cls)
            }


def test_two_fields_of_a_type_are_told_apart() -> None:
    """Fields of one type do not have the same value in every sample, or one could be read for the other."""
    made = samples(SERVICE.by_name("Ask").request)
    assert any(message.text != message.title for message in made)
    assert any(message.point.x != message.point.y for message in made)


def test_an_empty_message_has_one_sample() -> None:
    """A message without fields is there once."""
    assert samples(SERVICE.by_name("Drop").response) == [SERVICE.by_name("Drop").response()]


# Fingerprints and released versions -----------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_wire() -> None:
    """It changes with the wire of its version, and neither with names nor with what comes in other versions."""
    assert fingerprint(SERVICE, 1) != fingerprint(SERVICE, 2)
    renamed = build(edited({"    key: str": "    name: str", 'name="Drop"': 'name="Forget"'}))
    assert fingerprint(renamed, 2) == fingerprint(SERVICE, 2)
    later = build(edited({"    key: str": "    key: bytes"}))
    assert fingerprint(later, 1) == fingerprint(SERVICE, 1)
    assert fingerprint(later, 2) != fingerprint(SERVICE, 2)


def test_a_released_version_must_not_change() -> None:
    """The fingerprint of a released version is held, whoever reads it; an unreleased one may change."""
    lock = Lock.of(SERVICE, released=1)
    later = build(edited({"    key: str": "    key: bytes"}))
    earlier = build(edited({"    after: int = 0": "    after: int = 0\n    quick: bool = False"}))
    assert lock.problems(later) == []
    (problem,) = lock.problems(earlier)
    assert problem.startswith("version 1 is released and must not change")
    assert "put the change into version 2" in problem


def test_a_released_version_must_not_go() -> None:
    """A service that lost a released version is told so."""
    (problem,) = Lock.of(SERVICE, released=2).problems(Service("example.v1.AskService", version=1))[1:]
    assert "is gone" in problem


def test_a_lock_says_the_oldest_version() -> None:
    """It is in the file, and samples and fingerprints are of the versions from it on."""
    aged = build(edited({"version=2, methods": "version=2, oldest=2, methods"}))
    lock = Lock.of(aged)
    assert '  "oldest": 2,' in lock.text().splitlines()
    found = Lock.parse(lock.text())
    assert (found.service.oldest, found.service.version) == (2, 2)
    assert found.fingerprints.keys() == {2}
    assert {golden.version for golden in found.golden} == {2}


def test_a_released_version_may_be_dropped() -> None:
    """Raising the oldest version is no change of what was released: the next lock has neither its bytes nor its
    fingerprint, and what is left of the released versions is held as before.
    """
    lock = Lock.of(SERVICE, released=2)
    aged = build(edited({"version=2, methods": "version=2, oldest=2, methods"}))
    assert lock.problems(aged) == []
    later = Lock.of(aged, before=lock)
    assert (later.released, later.fingerprints) == (2, {2: lock.fingerprints[2]})
    assert [each for each in lock.golden if each.version == 2] == list(later.golden)
    assert Lock.parse(later.text()).text() == later.text()
    changed = build(edited({"version=2, methods": "version=2, oldest=2, methods", "    key: str": "    key: bytes"}))
    assert any("version 2 is released" in problem for problem in later.problems(changed))


def test_a_dropped_version_may_come_back() -> None:
    """Lowering the oldest version makes its samples anew, before those that were kept."""
    aged = build(edited({"version=2, methods": "version=2, oldest=2, methods"}))
    lock = Lock.of(aged, released=2)
    assert lock.problems(SERVICE) == []
    again = Lock.of(SERVICE, before=lock)
    assert again.golden == Lock.of(SERVICE).golden
    assert again.fingerprints == Lock.of(SERVICE).fingerprints


def test_adding_a_version_is_fine() -> None:
    """A new version leaves the released ones as they are, in the next lock, too."""
    lock = Lock.of(SERVICE, released=2)
    newer = build(
        edited(
            {
                "    after: int = 0": "    after: int = 0\n    quick: Annotated[bool, Since(3)] = False",
                "version=2, methods": "version=3, methods",
            }
        )
    )
    assert lock.problems(newer) == []
    again = Lock.of(newer, before=lock)
    assert again.released == 2
    assert [each for each in again.golden if each.version <= 2] == list(lock.golden)
    assert {each.version for each in again.golden} == {1, 2, 3}


def test_released_bytes_are_kept_though_the_samples_change() -> None:
    """What a lock has of a released version is its own: it is checked, not made anew."""
    lock = Lock.of(SERVICE, released=2)
    fewer = Lock.parse(lock.text())
    fewer = Lock(fewer.service, 2, fewer.fingerprints, fewer.codecs, fewer.golden[:3])
    assert Lock.of(SERVICE, before=fewer).golden == lock.golden[:3]


def test_another_codec_joins_the_released_ones() -> None:
    """The bytes of a codec that a lock did not have are made of the messages that it has."""
    pipe = Lock.of(SERVICE, codecs=["pipe"], released=2)
    assert Lock.of(SERVICE, before=pipe, codecs=["pipe", "msgpack", "protobuf"]).golden == Lock.of(SERVICE).golden


def test_a_codec_that_changed_is_found() -> None:
    """Golden bytes that are written otherwise, refused, or mean something else are each a problem, once per method."""
    lock = Lock.of(SERVICE)
    text = lock.text()
    line = next(line for line in text.splitlines() if '"pipe": "127' in line and line.count("|") == 0)
    for damage, problem in (
        (line.replace("917f", "91d07f"), "msgpack '91d07f' is written '917f' now"),
        (line.replace("917f", "91c1"), "msgpack '91c1' is refused: WatchRequest"),
        (line.replace("917f", "917e"), "msgpack '917e' is not the message that pipe '127' is"),
    ):
        (found,) = Lock.parse(text.replace(line, damage, 1)).problems(SERVICE)
        assert found.startswith("Watch (0x0001) request, version 1: "), found
        assert problem in found
    every = Lock.parse(text.replace('"pipe": "', '"pipe": "x')).problems(SERVICE)
    assert any("more of its samples" in each for each in every)


def test_bounds_that_became_narrower_are_found_in_the_bytes() -> None:
    """A golden message that is not allowed any more is a problem, though the digest is the same."""
    narrower = build(edited({"Bounds(max_length=20)": "Bounds(max_length=10)"}))
    lock = Lock.of(SERVICE, released=2)
    assert fingerprint(narrower, 2) == fingerprint(SERVICE, 2)
    problems = lock.problems(narrower, released_only=True)
    assert any("AskRequest.title: has" in problem for problem in problems), problems


def test_released_only_leaves_out_the_rest() -> None:
    """What may still change is no problem when only released versions are asked for."""
    lock = Lock.of(SERVICE)
    broken = Lock.parse(lock.text().replace('"pipe": "127', '"pipe": "126'))
    assert broken.problems(SERVICE)
    assert broken.problems(SERVICE, released_only=True) == []


# Files that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "can be read"),
        ("[]", "can be read"),
        ('{"format": "1"}', "can be read"),
        ('{"format": 1}', "format 1, and this release reads 3"),
        ('{"format": 3}', "service"),
    ],
)
def test_what_is_no_lock_is_refused(text: str, problem: str) -> None:
    """A file that is no lock, or one of another format, is a ConfigError that says which."""
    with pytest.raises(ConfigError, match=problem):
        Lock.parse(text)


@pytest.mark.parametrize("part", ["methods", "messages", "enums", "golden", "fingerprints", "codecs", "version"])
def test_a_damaged_lock_is_refused(part: str) -> None:
    """A lock without one of its parts, or with rows that are none, is a ConfigError and nothing else."""
    document = json.loads(Lock.of(SERVICE).text())
    wrong: list[object] = [
        None,
        1,
        "x",
        [1],
        {"x": 1},
        [{"x": 1}],
        {"x": [{"x": 1}]},
        {"1 2": [{"pipe": "x"}]},
        {"9 0x0000 Ask request": []},
    ]
    wrong += [{"1 0x0009 Nobody request": []}, {"1 0x0000 Ask item": []}, {"1 0x0000 Ask request": [{"msgpack": "x"}]}]
    for value in wrong:
        if part == "version" and value == 1:
            continue
        with pytest.raises(ConfigError):
            Lock.parse(json.dumps({**document, part: value}))
    del document[part]
    with pytest.raises(ConfigError):
        Lock.parse(json.dumps(document))


def test_a_codec_that_is_none_is_refused() -> None:
    """A codec nobody has is refused by name."""
    with pytest.raises(ConfigError, match="jason"):
        Lock.of(SERVICE, codecs=["jason"])


def test_a_service_without_methods_has_a_lock() -> None:
    """A table that is empty as yet can be locked."""
    empty = Service("example.v1.EmptyService")
    assert Lock.parse(Lock.of(empty).text()).service.methods == ()


@pytest.mark.parametrize("service", [EVERYTHING, GROWING])
def test_every_kind_of_field_travels_through_a_lock(service: Service) -> None:
    """Every type, bound and default reads back from a lock as the same declaration."""
    found = Lock.parse(Lock.of(service).text())
    assert compare(found.service, service) == []
    assert found.problems(service) == []
