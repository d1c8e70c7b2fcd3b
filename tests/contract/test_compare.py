"""What an edit of a contract breaks, and for whom; and that the codecs, which know nothing of it, behave like that."""

from typing import Any

import pytest

from tests.contract.editing import BASE, build, edited
from tests.contract.edits import EDITS, Edit
from wireproto.contract import Change, compare
from wireproto.schema import (
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Service,
    Slow,
    StreamMethod,
    UploadMethod,
)

OLD = build(BASE)
each_edit = pytest.mark.parametrize("edit", [pytest.param(edit, id=edit.name) for edit in EDITS])


def found(old: Service, new: Service) -> dict[str, Change]:
    """The changes by what they are about, but for the digests that follow from them."""
    return {
        f"{change.subject}: {change.what}": change for change in compare(old, new) if change.what != "another digest"
    }


def test_a_version_that_is_dropped_is_a_break() -> None:
    """Raising the oldest version breaks who speaks no newer one, and lowering it breaks nobody."""
    newer = build(edited({"version=2, methods": "version=2, oldest=2, methods"}))
    (change,) = compare(OLD, newer)
    assert (change.subject, change.what) == ("example.v1.AskService", "version 1 is gone")
    assert (change.level, change.versions, change.opcodes) == ("wire", {1}, {0, 1})
    assert change.breaks == {"pipe", "msgpack", "protobuf"}
    assert change.peers == {"old clients", "old servers"}
    assert change.note == "a peer of it is served in a newer version, or refused where it speaks no other one"
    (change,) = compare(newer, OLD)
    assert (change.what, change.level) == ("version 1 is new", None)


def test_versions_that_only_one_side_has_are_not_compared() -> None:
    """What a dropped version was is nobody's any more; what both have is judged as ever."""
    newer = build(edited({"version=2, methods": "version=2, oldest=2, methods", "    x: int": "    x: str"}))
    assert found(OLD, newer)["Point.x: int -> str"].versions == {2}


@each_edit
def test_an_edit_breaks_what_it_says(edit: Edit) -> None:
    """Each edit of the table gets its verdict, per codec, version and peer."""
    changes = found(OLD, build(edited(edit.changes)))
    wanted = {edit.subject, *edit.others} - {""}
    missing = wanted - set(changes)
    assert not missing, f"{missing} not in {list(changes)}"
    if not edit.subject:
        assert changes == {}
        return
    change = changes[edit.subject]
    assert change.breaks == set(edit.breaks.split())
    assert (change.level or "") == edit.level
    if edit.level == "wire":
        assert ", ".join(sorted(change.peers)) == edit.peers
        assert sorted(change.versions) == list(edit.versions)
    if not edit.others and edit.level != "":
        quiet = [each for name, each in changes.items() if name != edit.subject and each.level == "wire"]
        assert not quiet or "places" in edit.name, [str(each) for each in quiet]


class Grain(Message):
    """What is sent of an upload."""

    weight: int


class Heap(Message):
    """What comes of it."""

    weight: int


def with_method(kind: Any, **changes: Any) -> Service:
    """A service with one method of that kind."""
    given: dict[str, Any] = {"opcode": 1, "name": "Pile", "request": Grain}
    if kind is not OneWayMethod:
        given["response"] = Heap
    method: Operation[Any, Any] = kind(**{**given, **changes})
    return Service("example.v1.HeapService", methods=[method])


def only_change(kind: Any, before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str, str]:
    """What one change of policy is, whom it hurts, and the note."""
    (change,) = compare(with_method(kind, **before), with_method(kind, **after))
    return change.what, ", ".join(sorted(change.peers)), change.note


def test_what_is_refused_of_items_and_one_way_calls_is_said() -> None:
    """Items are too long one by one, and nobody is told what became of a one-way call."""
    shorter = {"max_request": 10}
    assert only_change(UploadMethod, {}, shorter) == (
        "max_request None -> 10",
        "old clients",
        "longer items are refused, REQUEST_TOO_LARGE",
    )
    assert only_change(OneWayMethod, {}, shorter)[2] == "longer requests are dropped, and nobody is told"
    assert only_change(OneWayMethod, {}, {"requires": "piler"}) == (
        "requires None -> piler",
        "old clients",
        "callers without it are dropped, and nobody is told",
    )


@pytest.mark.parametrize("kind", [StreamMethod, DuplexMethod])
def test_what_becomes_of_streams_when_a_server_goes_is_told(kind: Any) -> None:
    """It hurts nobody: a stream may end at any time."""
    note = "of streams in flight when a server goes away"
    assert only_change(kind, {}, {"drains": True}) == ("drains", "", note)
    assert only_change(kind, {"drains": True}, {}) == ("does not drain any more", "", note)


@pytest.mark.parametrize("kind", [Method, StreamMethod, UploadMethod, DuplexMethod, OneWayMethod])
def test_that_a_method_compresses_is_told(kind: Any) -> None:
    """It hurts nobody: who has agreed on an algorithm reads what is packed, of every method."""
    note = "of what is sent; packed or not, both sides read it"
    assert only_change(kind, {}, {"compress": True}) == ("compress", "", note)
    assert only_change(kind, {"compress": True}, {}) == ("not compressed any more", "", note)


def test_how_a_server_takes_the_items_is_its_own() -> None:
    """What an upload collects is no part of the contract, as little as which thread runs a handler, or what
    outlives the identity of its caller."""
    changed = with_method(UploadMethod, collect=3, blocking=True, outlives_identity=True)
    assert compare(with_method(UploadMethod), changed) == []


class Numbered(Message):
    """A grain that can be told from others."""

    mark: str
    number: int


def resumable(name: str | None, item: Any = Numbered) -> dict[str, Any]:
    """What a stream of such items declares."""
    return {"response": item, "resumable": name}


def test_positions_that_mean_something_else_break_who_keeps_them() -> None:
    """Where a stream cannot be gone on with a gap is told; positions that change cost items that nobody tells of."""
    assert only_change(StreamMethod, resumable("mark"), resumable("number")) == (
        "resumable mark -> number",
        "old clients",
        "old clients go on behind positions that mean something else",
    )
    assert only_change(StreamMethod, resumable(None), resumable("number")) == (
        "resumable number",
        "",
        "old servers cannot go on behind a position, and a gap is told",
    )
    (change,) = compare(with_method(StreamMethod, **resumable("mark")), with_method(StreamMethod, **resumable(None)))
    assert (change.what, change.source, change.peers) == ("not resumable any more", True, set())


def test_a_position_is_a_field_and_not_its_name() -> None:
    """The field under another name holds the same positions."""

    class Marked(Message):
        label: str
        number: int

    Marked.__name__ = "Numbered"
    changes = compare(
        with_method(StreamMethod, **resumable("mark")), with_method(StreamMethod, **resumable("label", Marked))
    )
    assert [change.what for change in changes] == ["renamed label"]


@pytest.mark.parametrize(
    ("before", "after", "hurt", "note"),
    [
        ("pause", "drop_oldest", "old clients", "old clients that do not take items in time have items left out"),
        ("pause", "end", "old clients", "old clients that do not take items in time have their stream ended"),
        ("end", "pause", "", ""),
        ("drop_oldest", "end", "", ""),
    ],
)
def test_what_becomes_of_the_slow_is_told(before: Slow, after: Slow, hurt: str, note: str) -> None:
    """Who counted on being waited for is hurt."""
    change = only_change(StreamMethod, {"slow": before}, {"slow": after})
    assert change == (f"slow {before} -> {after}", hurt, note)


class Stone(Message):
    """What replaces one of both."""

    weight: str


@pytest.mark.parametrize("kind", [UploadMethod, DuplexMethod, OneWayMethod])
def test_messages_of_both_halves_are_walked(kind: Any) -> None:
    """A change of what is sent breaks the call, one message or many, and one of what is answered where there is one."""
    halves = [({"request": Stone}, "Grain.weight: int -> str")]
    halves += [({"response": Stone}, "Heap.weight: int -> str")] if kind is not OneWayMethod else []
    for changes, what in halves:
        change = found(with_method(kind), with_method(kind, **changes))[what]
        assert change.breaks == {"pipe", "msgpack", "protobuf"}
        assert change.peers == {"old clients", "old servers"}
        assert change.opcodes == {1}


def test_a_method_that_the_other_side_calls_is_another_one() -> None:
    """Who calls is in the digest; gRPC has none of the server's methods."""
    change = found(with_method(UploadMethod), with_method(UploadMethod, by="server"))["Pile: upload -> server-upload"]
    assert change.breaks == {"pipe", "msgpack", "protobuf"}
    assert change.peers == {"old clients", "old servers"}
    assert change.source


def test_a_method_of_the_servers_hurts_the_others() -> None:
    """What hurts old clients of a method that clients call hurts old servers here, and nothing of it is over gRPC."""
    old = with_method(UploadMethod, by="server")
    change = found(old, with_method(UploadMethod, by="server", max_request=10))["Pile: max_request None -> 10"]
    assert change.peers == {"old servers"}
    change = found(old, with_method(UploadMethod, by="server", idempotent=True))["Pile: idempotent"]
    assert (change.peers, change.note) == ({"old clients"}, "new servers may repeat a call that ran at an old client")
    change = found(old, with_method(UploadMethod, by="server", request=Stone))["Grain.weight: int -> str"]
    assert (change.grpc, change.breaks) == (False, {"pipe", "msgpack", "protobuf"})
    (gone,) = [each for each in compare(old, Service("example.v1.HeapService", 1, [])) if each.subject == "Pile"]
    assert gone.grpc is False


class Missing(Message):
    """Details of an error."""

    article: str


class MissingMore(Message):
    """The same, of another release; it is called as the other one."""

    article: str
    left: int = 0


MissingMore.__name__ = "Missing"


def test_details_that_errors_may_have_are_compared() -> None:
    """They join the digest: peers that compare it are told apart. A program that reads what is gone breaks."""
    came = compare(with_method(Method), with_method(Method, errors=[Missing]))
    assert {(change.what, change.source) for change in came} == {
        ("errors with Missing", False),
        ("another digest", False),
    }
    gone = compare(with_method(Method, errors=[Missing]), with_method(Method))
    assert {(change.what, change.source) for change in gone} == {
        ("errors without Missing", True),
        ("another digest", False),
    }
    changed = compare(with_method(Method, errors=[Missing]), with_method(Method, errors=[MissingMore]))
    assert {change.what for change in changed} == {"added at version 1", "another digest"}
