"""What holds for every codec alike, the example's included."""

import itertools
import math
import struct
import sys
import threading
from typing import Annotated, Any

import pytest

from tests.codecs.everything import ALL, Bounded, Branch, Defaults, Grown, Leaf, Lists, Maps, Nothing, Three, Twig
from wireproto.codecs import Codec
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Message, Since, UInt64

NAN = struct.unpack(">d", bytes.fromhex("fff0000000000123"))[0]


class Real(Message):
    value: float


class Texts(Message):
    value: list[str]


class Counts(Message):
    value: dict[str, int]


class Boxes(Message):
    boxes: list[Texts]
    by_name: dict[str, Counts]
    one: Texts | None = None


@pytest.fixture(params=ALL, ids=lambda codec: codec.name)
def codec(request: pytest.FixtureRequest) -> Codec:
    found: Codec = request.param
    return found


@pytest.mark.parametrize("message_type", [Three, Nothing, Defaults, Branch, Lists, Maps])
@pytest.mark.parametrize(
    "payload",
    [None, "text", 5, [], bytearray(b"\x90"), memoryview(b"|"), object()],
    ids=lambda payload: type(payload).__name__,
)
def test_only_decode_error_leaves_decode(codec: Codec, message_type: type[Message], payload: Any) -> None:
    """Whatever is handed to decode, bytes or not, the answer is a message or DecodeError."""
    try:
        found = codec.plan(message_type, 1, Limits()).decode(payload)
    except DecodeError:
        return
    assert type(found) is message_type


@pytest.mark.parametrize("value", [None, "text", Three, Nothing(), {"sender": "ann"}], ids=repr)
def test_only_encode_error_leaves_encode(codec: Codec, value: Any) -> None:
    """What is no message of the plan's class is refused with EncodeError."""
    with pytest.raises(EncodeError) as caught:
        codec.plan(Three, 1, Limits()).encode(value)
    assert caught.value.path == "Three"


def test_errors_hide_their_cause(codec: Codec) -> None:
    """Neither the text of an error nor a traceback with its causes shows what was sent."""
    plan = codec.plan(Three, 1, Limits())
    payload = plan.encode(Three(sender="s3cret", text="s3cret", number=7))
    with pytest.raises(DecodeError) as caught:
        plan.decode(payload.replace(b"s3cret", b"s3\xffret") + b"\xff")
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_every_nan_is_one_nan(codec: Codec) -> None:
    """NaNs of all signs and contents have the same bytes."""
    plan = codec.plan(Real, 1, Limits())
    assert plan.encode(Real(value=NAN)) == plan.encode(Real(value=math.nan)) == plan.encode(Real(value=-math.nan))
    found = plan.decode(plan.encode(Real(value=NAN)))
    assert struct.pack(">d", found.value).hex() == "7ff8000000000000"


def test_equal_maps_are_equal_bytes(codec: Codec) -> None:
    """The order in which a map was filled is not to be seen."""
    plan = codec.plan(Counts, 1, Limits())
    keys = ["b", "a", "", "aa", "\uffff", "😀", "é"]
    payloads = {plan.encode(Counts(value=dict.fromkeys(order, 1))) for order in itertools.permutations(keys, 7)}
    assert len(payloads) == 1


@pytest.mark.parametrize("most", [1, 2, 100])
def test_element_limit_is_exact(codec: Codec, most: int) -> None:
    """At the limit a list or map passes, one above it is refused on both sides, with its path."""
    limited, free = codec.plan(Boxes, 1, Limits(max_elements=most)), codec.plan(Boxes, 1, Limits())

    def texts(count: int) -> Texts:
        return Texts(value=["x"] * count)

    def counts(count: int) -> Counts:
        return Counts(value={str(number): number for number in range(count)})

    fits = Boxes(boxes=[texts(most)], by_name={"k": counts(most)}, one=texts(most))
    assert limited.decode(limited.encode(fits)) == fits
    for path, boxes in [
        ("Boxes.boxes", Boxes(boxes=[texts(0)] * (most + 1), by_name={})),
        ("Boxes.boxes[0].value", Boxes(boxes=[texts(most + 1)], by_name={})),
        ("Boxes.by_name[#0].value", Boxes(boxes=[], by_name={"k": counts(most + 1)})),
        ("Boxes.one.value", Boxes(boxes=[], by_name={}, one=texts(most + 1))),
    ]:
        with pytest.raises(EncodeError) as encoding:
            limited.encode(boxes)
        assert encoding.value.path == path
        payload = free.encode(boxes)
        with pytest.raises(DecodeError) as decoding:
            limited.decode(payload)
        # Some notice at the element that is one too many, some when it is all there.
        assert decoding.value.path.startswith(path)


def test_the_limit_on_elements_is_not_one_on_fields(codec: Codec) -> None:
    """A message of four fields passes where lists have one element at most."""
    plan = codec.plan(Leaf, 1, Limits(max_elements=1))
    leaf = Leaf(name="x", flags=[True])
    assert plan.decode(plan.encode(leaf)) == leaf


def test_bounds_hold_on_both_sides(codec: Codec) -> None:
    """A peer that knows no bounds cannot get past ours."""

    class Unbounded(Message):
        byte: int
        below: int
        large: UInt64
        share: float
        above: float
        name: str
        key: bytes
        names: list[str]
        counts: dict[str, int]
        maybe: int | None = None

    fine: dict[str, Any] = {
        "byte": 255, "below": -1, "large": 2**63, "share": 1.0, "above": 1e16, "name": "a", "key": b"1234",
        "names": ["ab"], "counts": {"a": 1}, "maybe": 10,
    }  # fmt: skip
    strict, loose = codec.plan(Bounded, 1, Limits()), codec.plan(Unbounded, 1, Limits())
    wrong = {"byte": 256, "share": 1.5, "above": 1.0, "name": "", "key": b"123", "names": [], "maybe": 9}
    wrong_inside = {"names": ["abc"], "counts": {"a": 0}}
    for name, value in [*wrong.items(), *wrong_inside.items()]:
        payload = loose.encode(Unbounded(**{**fine, name: value}))
        with pytest.raises(DecodeError) as caught:
            strict.decode(payload)
        assert caught.value.path.startswith(f"Bounded.{name}")


def test_versions(codec: Codec) -> None:
    """A request refuses to lose a value, a response loses it, an ignorable hint is dropped."""
    asked = [codec.plan(Grown, version, Limits(), request=True) for version in (1, 2, 3)]
    answered = [codec.plan(Grown, version, Limits(), request=False) for version in (1, 2, 3)]
    base: dict[str, Any] = {"first": "a", "twig": Twig(name="b"), "twigs": []}
    for plan in [*asked, *answered]:
        assert plan.decode(plan.encode(Grown(**base))) == Grown(**base)
    hinted = Grown(**base, hint=True)
    assert [plan.decode(plan.encode(hinted)).hint for plan in asked] == [False, True, True]
    newer = Grown(**base, second=6)
    with pytest.raises(EncodeError, match=r"^Grown\.second: "):
        asked[0].encode(newer)
    assert [plan.decode(plan.encode(newer)).second for plan in answered] == [5, 6, 6]
    nested = Grown(**{**base, "twig": Twig(name="b", later="c")})
    with pytest.raises(EncodeError, match=r"^Grown\.twig\.later: "):
        asked[0].encode(nested)
    assert [plan.decode(plan.encode(nested)).twig.later for plan in answered] == ["", "c", "c"]


def test_a_payload_of_another_codec_is_never_half_read(codec: Codec) -> None:
    """Bytes of one codec under another's id are refused, or are a message that this codec can write."""
    samples: list[Message] = [
        Three(sender="ann", text="hello", number=3),
        Branch(ratio=1.5, leaf=Leaf(name="x"), by_name={"k": Leaf(name="y")}),
        Defaults(),
        Nothing(),
    ]
    for other in ALL:
        for sample in samples:
            plan = codec.plan(type(sample), 1, Limits())
            try:
                found = plan.decode(other.plan(type(sample), 1, Limits()).encode(sample))
            except DecodeError:
                assert other is not codec
            else:
                assert plan.decode(plan.encode(found)) == found


def test_threads_share_a_plan(codec: Codec) -> None:
    """Threads that switch all the time use one plan, and never meet each other's bytes."""
    shared = codec.plan(Branch, 1, Limits())
    failures: list[object] = []

    def work(number: int) -> None:
        leaves = [Leaf(name=str(number) * 50)] * 20
        message = Branch(ratio=float(number), leaves=leaves, by_name={str(number): Leaf(name="")})
        payload = shared.encode(message)
        for _ in range(50):
            if shared.encode(message) != payload or shared.decode(payload) != message:
                failures.append(number)
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


class Late(Message):
    """Came with version 2, so a field of that version needs no default."""

    number: Annotated[int, Since(2)]


class EarlyRequest(Message):
    size: int
    late: Annotated[Late | None, Since(2)] = None


def test_a_message_may_have_parts_that_its_first_version_lacks(codec: Codec) -> None:
    """In version 1 a message is carried without the types that came later, and in version 2 with them."""
    first, second = (codec.plan(EarlyRequest, version, Limits()) for version in (1, 2))
    assert first.decode(first.encode(EarlyRequest(size=3))) == EarlyRequest(size=3)
    late = EarlyRequest(size=3, late=Late(number=4))
    assert second.decode(second.encode(late)) == late
