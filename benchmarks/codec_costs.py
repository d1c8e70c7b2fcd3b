"""What a codec costs: against its bare library, and per opcode in bytes and nanoseconds.

The ratios are of the bench message (``peers.py``), request and response, encoded and decoded:

- msgpack against the package ``msgpack`` on a list of the fields, and against msgspec, which ours is made of, on the
  same class; protobuf against the runtime on a message of the same fields, set and read one by one: all of them without
  our checks, limits and errors;
- pipe against a join and a split that check nothing.

Codec and bare library take turns, and each ratio is the median over the turns. The sheet covers every method of a
whole application, ``tests/lending.py``, and the bench message, with sample values.

    python benchmarks/codec_costs.py [--quick] [--json FILE]
"""

import argparse
import json
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the service, which the tests have too
sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers

from tests.lending import LENDING
from wireproto import Bounds, codecs
from wireproto.limits import Limits
from wireproto.protos.descriptor import message_file, pool_for
from wireproto.schema import FieldType, Message, Scalar, fields

CODECS = ("pipe", "msgpack", "protobuf")
LIMITS = Limits()
BENCH = peers.bench_service()

# ------------------------------------------------------------------ against the bare libraries


def _bare_msgpack(message_type: type[Message]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(message_type).decode


def _bare_msgpack_package(message_type: type[Message]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgpack

    values = ", ".join(f"message.{name}" for name in message_type.__struct_fields__)
    reads = ", ".join(f"{name}=f{number}" for number, name in enumerate(message_type.__struct_fields__))
    source = f"""
def encode(message):
    return pack(({values},))

def decode(payload):
    {", ".join(f"f{number}" for number in range(len(message_type.__struct_fields__)))} = unpack(payload)
    return made({reads})
"""
    found: dict[str, Any] = {"made": message_type, "pack": msgpack.Packer().pack, "unpack": msgpack.unpackb}
    exec(source, found)
    return found["encode"], found["decode"]


def _bare_protobuf(message_type: type[Message]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    from google.protobuf import message_factory

    pool = pool_for([message_file([message_type], "bare", 1)])
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bare.{message_type.__name__}"))
    names = message_type.__struct_fields__
    sets = "; ".join(f"m.{name} = message.{name}" for name in names)
    reads = ", ".join(f"{name}=m.{name}" for name in names)
    source = f"""
def encode(message):
    m = cls(); {sets}
    return serialize(m)

def decode(payload):
    m = parse(payload)
    return made({reads})
"""
    found: dict[str, Any] = {
        "cls": cls,
        "made": message_type,
        "parse": cls.FromString,
        "serialize": cls.SerializeToString,
    }
    exec(source, found)
    return found["encode"], found["decode"]


def _bare_pipe(message_type: type[Message]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    written, read = [], []
    for number, field in enumerate(fields(message_type)):
        kind = field.type.scalar
        value = f"message.{field.name}"
        written.append(value if kind is Scalar.STR else f"str({value})")
        read.append(f"{field.name}={ ({Scalar.INT: 'int', Scalar.FLOAT: 'float'}.get(kind, '')) }(f{number})")
    source = f"""
def encode(message):
    return "|".join(({", ".join(written)})).encode()

def decode(payload):
    {", ".join(f"f{number}" for number in range(len(read)))} = payload.decode().split("|")
    return made({", ".join(read)})
"""
    found: dict[str, Any] = {"made": message_type}
    exec(source, found)
    return found["encode"], found["decode"]


BARE = {
    "pipe": ("pipe", _bare_pipe),
    "msgpack": ("msgpack", _bare_msgpack_package),
    "msgpack over msgspec": ("msgpack", _bare_msgpack),
    "protobuf": ("protobuf", _bare_protobuf),
}
"""Rows: the codec, and what it is compared with."""


def bench_messages() -> tuple[Message, Message]:
    (method,) = BENCH.methods
    return (
        method.request(recipient="bob", text=peers.TEXT, nonce=7),
        method.response(id=7, stamp=1_700_000_000.123456),
    )


def nanoseconds(function: Callable[[Any], Any], argument: Any, number: int) -> float:
    return (
        timeit.Timer("f(a)", timer=time.process_time, globals={"f": function, "a": argument}).timeit(number)
        / number
        * 1e9
    )


def steps(row: str, message: Message) -> Iterator[tuple[str, Callable[[Any], Any], Callable[[Any], Any], Any]]:
    """Encode and decode: our function, the bare one, and what both are given."""
    codec, make = BARE[row]
    plan = codecs.get(codec).plan(type(message), 1, LIMITS)
    encode, decode = make(type(message))
    payload = plan.encode(message)
    if encode(message) != payload or decode(payload) != message or plan.decode(payload) != message:
        raise RuntimeError(f"the bare {row} and ours do not do the same work")
    yield "encode", plan.encode, encode, message
    yield "decode", plan.decode, decode, payload


def against_bare(turns: int, number: int) -> dict[str, dict[str, float]]:
    """Per codec: the ratio over a whole call's four steps, and each step in nanoseconds."""
    found: dict[str, dict[str, float]] = {}
    for row in BARE:
        four = [
            (f"{where} {step}", ours, bare, given)
            for where, message in zip(("request", "response"), bench_messages(), strict=True)
            for step, ours, bare, given in steps(row, message)
        ]
        ratios, each = [], {name: ([], []) for name, *_ in four}  # type: ignore[var-annotated]
        for _ in range(turns):
            spent = [0.0, 0.0]
            for name, ours, bare, given in four:
                for index, function in enumerate((ours, bare)):
                    took = nanoseconds(function, given, number)
                    each[name][index].append(took)
                    spent[index] += took
            ratios.append(spent[0] / spent[1])
        found[row] = {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        for name, (ours_took, bare_took) in each.items():
            found[row][f"{name} ns"] = statistics.median(ours_took)
            found[row][f"{name} bare ns"] = statistics.median(bare_took)
    return found


# ------------------------------------------------------------------ the sheet


def sample(message_type: type[Message]) -> Message:
    """A message with a short value in every field, and two elements in every list and map."""
    return message_type(**{field.name: _value(field.type) for field in fields(message_type)})


def _value(kind: FieldType) -> Any:
    if kind.shape == "list":
        return [_single(kind), _single(kind)]
    if kind.key is not None:
        keys = ["one", "two"] if kind.key is Scalar.STR else [1, 2]
        return {key: _single(kind) for key in keys}
    return _single(kind)


def _single(kind: FieldType) -> Any:
    if kind.scalar is Scalar.MESSAGE:
        assert kind.cls is not None
        return sample(kind.cls)
    if kind.scalar is Scalar.ENUM:
        assert kind.cls is not None
        return next(iter(kind.cls))
    bounds = kind.bounds or Bounds()
    least = bounds.min_length or 0
    number = max(1234 if bounds.le is None else min(1234, bounds.le), bounds.ge or 0)
    return {
        Scalar.BOOL: True,
        Scalar.INT: number,
        Scalar.UINT: number,
        Scalar.FLOAT: 1.5,
        Scalar.STR: "alice".ljust(least, "x")[: bounds.max_length],
        Scalar.BYTES: bytes(range(16)).ljust(least, b"x")[: bounds.max_length],
        Scalar.DATETIME: datetime(2026, 1, 31, 12, tzinfo=UTC),
    }[kind.scalar]


def sheet(number: int) -> list[dict[str, Any]]:
    """A line per opcode and direction: bytes, and nanoseconds to encode and to decode, in each codec."""
    lines = []
    known = {type(message): message for message in bench_messages()}
    for service in (BENCH, LENDING):
        for method in sorted(service.at(service.version).values(), key=lambda method: method.opcode):
            for cls in (method.request, method.response):
                message = known.get(cls) or sample(cls)
                line: dict[str, Any] = {
                    "service": service.name,
                    "opcode": method.opcode,
                    "message": cls.__name__,
                }
                for codec in CODECS:
                    plan = codecs.get(codec).plan(type(message), service.version, LIMITS, request=cls is method.request)
                    payload = plan.encode(message)
                    line[codec] = {
                        "bytes": len(payload),
                        "encode_ns": min(nanoseconds(plan.encode, message, number) for _ in range(5)),
                        "decode_ns": min(nanoseconds(plan.decode, payload, number) for _ in range(5)),
                    }
                lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {
        "against_bare": against_bare(7 if options.quick else 21, 3000),
        "sheet": sheet(300 if options.quick else 2000),
    }
    for codec, figures in result["against_bare"].items():
        print(codec, {key: round(value, 2) for key, value in figures.items()})
    for line in result["sheet"]:
        cells = "  ".join(
            f"{line[c]['bytes']:5} B {line[c]['encode_ns']:6.0f} {line[c]['decode_ns']:6.0f}" for c in CODECS
        )
        print(f"0x{line['opcode']:04x} {line['message']:28} {cells}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
