"""Runs the benchmarks and writes docs/performance.md from what they measured; nothing in that page is typed by hand.

    python benchmarks/report.py [--quick] [--render] [PART ...]

Each part leaves its results in ``.bench/``; named parts are measured anew, the others taken as they are there. Without
names, all of them are measured, in less than ten minutes. The words come from ``benchmarks/performance.txt``.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = ROOT / ".bench"
PAGE = ROOT / "docs" / "performance.md"
WORDS = HERE / "performance.txt"
PACKAGES = ("msgspec", "protobuf", "msgpack", "grpcio", "thriftpy2")

Results = dict[str, Any]

# ------------------------------------------------------------------ the parts


@dataclass(frozen=True)
class Part:
    """One benchmark.

    Attributes:
        words: of the command, after ``python``.
        quick: those that are added for a quick run.
        stdout: it prints its JSON and writes no file.
    """

    words: tuple[str, ...]
    quick: tuple[str, ...] = ("--quick",)
    stdout: bool = False

    def command(self, quick: bool, file: Path) -> list[str]:
        words = [*self.words, *(self.quick if quick else ())]
        return [sys.executable, *words, *(["--json"] if self.stdout else [self._option(), str(file)])]

    def _option(self) -> str:
        return "--benchmark-json" if "pytest" in self.words else "--json"


RAW = ("floor", "wireproto-msgpack", "wireproto-pipe", "wireproto-protobuf", "thriftpy2")
CLIENTS = ("wireproto-msgpack", "wireproto-pipe", "thriftpy2", "grpc-sync")
PARTS = {
    "raw": Part(
        ("benchmarks/peers.py", "--rounds", "5", "--seconds", "0.7", *RAW), ("--rounds", "2", "--seconds", "0.3")
    ),
    "client": Part(
        ("benchmarks/peers.py", "--load", "client", "--rounds", "5", "--seconds", "0.6", *CLIENTS),
        ("--rounds", "2", "--seconds", "0.3"),
    ),
    "hot_path": Part(("benchmarks/hot_path.py",)),
    "codecs": Part(("benchmarks/codec_costs.py",)),
    "bytes": Part(("benchmarks/wire_bytes.py",), ()),
    "idle": Part(("benchmarks/idle.py", "--connections", "10000"), ("--connections", "2000", "--rounds", "2")),
    "churn": Part(("benchmarks/churn.py",)),
    "fanout": Part(("benchmarks/fanout.py",)),
    "topics": Part(("benchmarks/topics.py",)),
    "pieces": Part(("benchmarks/pieces.py",)),
    "mixed": Part(("benchmarks/mixed.py",)),
    "imports": Part(("benchmarks/imports.py",)),
    "micro": Part(
        ("-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks/micro", "--benchmark-max-time", "0.5"),
        ("--benchmark-max-time", "0.1"),
    ),
}


def measure(name: str, quick: bool) -> bool:
    """Measure one part; False, and its last words on stderr, when it failed: what it left before stays."""
    part, file = PARTS[name], RESULTS / f"{name}.json"
    command = part.command(quick, file)
    shown = " ".join(command[1:]).replace(f"{file}", f".bench/{name}.json")
    print(f"{name}: python {shown}", file=sys.stderr, flush=True)
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = file.read_bytes() if file.exists() else None
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=600, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        words = [text if isinstance(text, str) else "" for text in (error.stdout, error.stderr)]
        print(f"{name} failed: {error}\n{words[0][-2000:]}{words[1][-4000:]}", file=sys.stderr)
        if before is not None:
            file.write_bytes(before)
        return False
    found = json.loads(done.stdout.splitlines()[-1] if part.stdout else file.read_text("utf-8"))
    kept = {"command": f"python {shown}", "seconds": time.monotonic() - began, "quick": quick, "found": found}
    file.write_text(json.dumps({**kept, "machine": machine()}, indent=1), "utf-8")
    return True


def machine() -> dict[str, str]:
    """Where and with what it was measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return {
        "cpu": f"{model}, {os.cpu_count()} processors",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(versions),
        "load": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


# ------------------------------------------------------------------ the figures


@dataclass(frozen=True)
class Measured:
    """One figure with its spread."""

    value: float
    low: float
    high: float
    form: str = "{:.2f}"

    def __str__(self) -> str:
        if self.low == self.high:
            return self.form.format(self.value)
        return f"{self.form} ({self.form} to {self.form})".format(self.value, self.low, self.high)


def ratio(found: Results, key: str, name: str, over: str, over_key: str = "") -> Measured:
    """The median, over the rounds, of one entry's figure over another's in the same round."""
    rounds = found["rounds"]
    each = [a[key] / b[over_key or key] for a, b in zip(rounds[name], rounds[over], strict=True)]
    return Measured(statistics.median(each), min(each), max(each))


def plain(found: Results, key: str, name: str, form: str = "{:.1f}") -> Measured:
    one = found[name][key]
    return Measured(one["median"], one["low"], one["high"], form)


@dataclass(frozen=True)
class Figure:
    """One row of the table of targets.

    Attributes:
        part: which results it is made of.
        label: what it is.
        target: the most it may be, in the unit of the figure; None for one that is only told.
        find: gives the figure; a KeyError means that a peer it is compared with was not there.
        unit: after the number.
        least: the target is the least and not the most it may be.
    """

    part: str
    label: str
    target: float | None
    find: "Callable[[Results], Measured]"
    unit: str = "x"
    least: bool = False

    def row(self, found: Results) -> str:
        try:
            measured = self.find(found)
        except KeyError as missing:
            return f"| {self.label} | {self._target()} | not measured: no {missing} | |"
        if self.target is None:
            met = ""
        else:
            met = (
                "yes" if (measured.value >= self.target if self.least else measured.value <= self.target) else "**no**"
            )
        return f"| {self.label} | {self._target()} | {f'{measured} {self.unit}'.strip()} | {met} |"

    def _target(self) -> str:
        if self.target is None:
            return ""
        return f"{'at least' if self.least else 'at most'} {self.target:g} {self.unit}".strip()


Find = Callable[[Results], Measured]


def over(key: str, name: str, other: str, other_key: str = "") -> Find:
    return lambda found: ratio(found, key, name, other, other_key)


def share(name: str, other: str) -> Find:
    return lambda found: _one(found[name] / found[other])


def at(*path: str | int, form: str = "{:.2f}") -> Find:
    """A number somewhere in the results."""

    def find(found: Results) -> Measured:
        value: Any = found
        for step in path:
            value = value[step]
        return _one(value, form)

    return find


def spread(*path: str | int, name: str = "ratio", suffix: str = "", form: str = "{:.2f}") -> Find:
    """A number whose lowest and highest are beside it: ``ratio``, ``ratio_low``, ``ratio_high``."""

    def find(found: Results) -> Measured:
        value: Any = found
        for step in path:
            value = value[step]
        low, high = (f"{name}_{end}{suffix}".lstrip("_") for end in ("low", "high"))
        return Measured(value[f"{name}{suffix}" if name else f"median{suffix}"], value[low], value[high], form)

    return find


def grown(found: Results) -> Measured:
    lines = found["by_subscribers"]
    return _one(lines[-1]["us_each"] / lines[0]["us_each"])


def import_alone(found: Results) -> Measured:
    return _one(found["import wireproto"]["median_ms"] - found["python"]["median_ms"], "{:.0f}")


MSGPACK, PIPE, PROTOBUF = "wireproto-msgpack", "wireproto-pipe", "wireproto-protobuf"
CPU16 = "c16_server_cpu_us"
FIGURES = (
    Figure("raw", "server CPU per call, 16 connections, msgpack, over the floor", 1.25, over(CPU16, MSGPACK, "floor")),
    Figure("raw", "... pipe", 1.25, over(CPU16, PIPE, "floor")),
    Figure("raw", "... protobuf", None, over(CPU16, PROTOBUF, "floor")),
    Figure("raw", "... msgpack, over thriftpy2 (Cython)", 0.75, over(CPU16, MSGPACK, "thriftpy2")),
    Figure("raw", "... pipe, over thriftpy2", 0.75, over(CPU16, PIPE, "thriftpy2")),
    Figure("client", "... msgpack, over grpcio, each with its own client", 0.14, over(CPU16, MSGPACK, "grpc-sync")),
    Figure("client", "... pipe, over grpcio", 0.14, over(CPU16, PIPE, "grpc-sync")),
    Figure(
        "raw",
        "... 256 connections, msgpack, over its own at 16",
        1.15,
        over("c256_server_cpu_us", MSGPACK, MSGPACK, CPU16),
    ),
    Figure("raw", "... pipe", 1.15, over("c256_server_cpu_us", PIPE, PIPE, CPU16)),
    Figure(
        "raw",
        "p50, one connection, a call at a time, msgpack, over the floor",
        1.1,
        over("c1_p50_us", MSGPACK, "floor"),
    ),
    Figure("raw", "... over thriftpy2", 1.0, over("c1_p50_us", MSGPACK, "thriftpy2")),
    Figure("raw", "... server CPU of such a call, over the floor", None, over("c1_server_cpu_us", MSGPACK, "floor")),
    Figure(
        "client",
        "server CPU per call, `call_many`, 64 in flight, msgpack",
        3.0,
        lambda found: plain(found, "p64_server_cpu_us", MSGPACK),
        "us",
    ),
    Figure("client", "... times less than grpcio", 25.0, over("p64_server_cpu_us", "grpc-sync", MSGPACK), least=True),
    Figure(
        "client",
        "client CPU per call, 1 connection, over thriftpy2",
        1.0,
        over("c1_client_cpu_us", MSGPACK, "thriftpy2"),
    ),
    Figure("client", "... 16 connections", 1.0, over("c16_client_cpu_us", MSGPACK, "thriftpy2")),
    Figure(
        "hot_path",
        "the server's own code for a call, msgpack, over its codec, handler and headers in a bare loop",
        None,
        spread("msgpack", "1"),
    ),
    Figure("hot_path", "... pipe", None, spread("pipe", "1")),
    Figure("codecs", "msgpack with its checks, over the package `msgpack`", 1.5, spread("against_bare", "msgpack")),
    Figure("codecs", "... over msgspec, which it is made of", None, spread("against_bare", "msgpack over msgspec")),
    Figure("codecs", "protobuf with its checks, over the bare runtime", 1.5, spread("against_bare", "protobuf")),
    Figure(
        "codecs", "pipe with its checks, over a split and join that check nothing", 2.2, spread("against_bare", "pipe")
    ),
    Figure("bytes", "bytes per call on the wire, msgpack, over thriftpy2 framed", 0.8, share(MSGPACK, "thriftpy2")),
    Figure("bytes", "... over gRPC", 0.65, share(MSGPACK, "grpc-sync")),
    Figure("bytes", "... protobuf, over thriftpy2 framed", None, share(PROTOBUF, "thriftpy2")),
    Figure("bytes", "... pipe, over thriftpy2 framed", None, share(PIPE, "thriftpy2")),
    Figure("idle", "idle connections", None, at("connections", form="{:,.0f}"), ""),
    Figure("idle", "... server threads", 32, at("server_threads_after", form="{:.0f}"), ""),
    Figure("idle", "... server memory of each", 4.0, at("kib_per_connection"), "KiB"),
    Figure("idle", "... a busy client's p99, over its p99 without them", 1.5, spread(name="p99_ratio")),
    Figure("fanout", "one item to 1,000 subscriptions, over as many bare sends", 2.5, spread("by_subscribers", -1)),
    Figure("fanout", "... CPU for each, over that with 250 (linear: 1)", 1.25, grown),
    Figure("fanout", "... times one item is encoded", 1, at("encoded_per_item", form="{:.0f}"), ""),
    Figure(
        "topics", "p99 beside 100 of 1,000 listeners without credit, over that without", 1.5, at("ratios", "no credit")
    ),
    Figure("topics", "... beside 100 that read nothing", 1.5, at("ratios", "not read")),
    Figure(
        "pieces",
        "16 MiB in 64 KiB: CPU over a bare loop's, over that at 4 MiB (linear: 1)",
        1.25,
        spread("16 MiB in 64 KiB", name="growth"),
    ),
    Figure("pieces", "... over a bare loop's", None, spread("16 MiB in 64 KiB", name="over_bare")),
    Figure("pieces", "... CPU", None, spread("16 MiB in 64 KiB", name="ns_a_byte", form="{:.3f}"), "ns a byte"),
    Figure("pieces", "... copies at once", 2, at("16 MiB in 64 KiB", "copies")),
    Figure(
        "pieces",
        "1 MiB in single bytes: CPU over a bare loop's, over that at 256 KiB",
        1.25,
        spread("1 MiB in bytes", name="growth"),
    ),
    Figure("pieces", "... over a bare loop's", None, spread("1 MiB in bytes", name="over_bare")),
    Figure("pieces", "... CPU", None, spread("1 MiB in bytes", name="ns_a_byte", form="{:.0f}"), "ns a byte"),
    Figure("pieces", "... copies at once", 2, at("1 MiB in bytes", "copies")),
    Figure("mixed", "p99 of quick calls alone", None, spread("alone", name="p99", suffix="_ms"), "ms"),
    Figure("mixed", "... beside 20 handlers of 5 ms", 5, spread("beside 20 of 5 ms", name="p99", suffix="_ms"), "ms"),
    Figure("mixed", "... beside 2 that compute", 10, spread("beside 2 that compute", name="p99", suffix="_ms"), "ms"),
    Figure("imports", "`import wireproto`, beyond Python's own start", 60, import_alone, "ms of CPU"),
    Figure(
        "imports",
        "`wireproto --help`, from the start of Python on",
        150,
        spread("wireproto --help", name="", suffix="_ms", form="{:.0f}"),
        "ms of CPU",
    ),
)


def _one(value: float, form: str = "{:.2f}") -> Measured:
    return Measured(value, value, value, form)


# ------------------------------------------------------------------ the page


def render() -> str:
    every = {
        name: json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        for name in PARTS
        if (RESULTS / f"{name}.json").exists()
    }
    if missing := [name for name in PARTS if name not in every]:
        raise SystemExit(f"not measured yet: {', '.join(missing)}; run it for these parts, or without naming any")
    found = {name: each["found"] for name, each in every.items()}
    return "\n".join(
        [
            "<!-- Do not edit: `make bench` writes this page; its words are those of benchmarks/performance.txt. -->",
            "",
            *_words("top"),
            *_where(every),
            "",
            "## Targets",
            "",
            "| figure | target | measured (lowest to highest round) | met |",
            "|---|---|---|---|",
            *(figure.row(found[figure.part]) for figure in FIGURES),
            "",
            *_words("limits", **_limits(found)),
            "## Peers",
            "",
            *_peers(found),
            "## The server's own code",
            "",
            *_hot_path(found["hot_path"]),
            "## Codecs",
            "",
            *_codecs(found["codecs"]),
            "## Connections that come and go",
            "",
            "| opened, used once, closed | server CPU, us |",
            "|---|---|",
            *(f"| {name} | {plain(found['churn'], 'cpu_us', name, '{:.0f}')} |" for name in found["churn"]),
            "",
            "## Parts by themselves",
            "",
            "| benchmark (pytest-benchmark) | median, ns | between quartiles, ns |",
            "|---|---|---|",
            *_micro(found["micro"]),
            "",
            *_words("rejected"),
            "## How each was measured",
            "",
            "| part | command | seconds |",
            "|---|---|---|",
            *(f"| {name} | `{each['command']}` | {each['seconds']:.0f} |" for name, each in every.items()),
            "",
        ]
    )


def _words(section: str, **figures: str) -> list[str]:
    """A section of performance.txt, which are parted by lines of ``=== name``; with the figures that it names."""
    text = WORDS.read_text("utf-8").split(f"=== {section}\n", 1)[1].split("\n===", 1)[0].strip()
    return [*(text.format(**figures) if figures else text).splitlines(), ""]


def _limits(found: Results) -> dict[str, str]:
    """What the section about limits says in figures."""
    raw, path = found["raw"][MSGPACK], found["hot_path"]["msgpack"]["1"]
    largest, (_, codes) = next(iter(path["functions"].items()))
    return {
        "server_us": f"{raw[CPU16]['median']:.1f}",
        "kernel_us": f"{raw['c16_server_kernel_us']['median']:.1f}",
        "bytecodes": f"{path['bytecodes']:.0f}",
        "calls": f"{path['calls']:.0f}",
        "ns": f"{path['ns']:,.0f}",
        "bare_ns": f"{path['bare_ns']:,.0f}",
        "largest": largest.rpartition(" ")[2],
        "share": f"{codes / path['bytecodes']:.0%}",
    }


def _hot_path(found: Results) -> Iterator[str]:
    yield "From an event of the poller to the answer in `send`, over sockets that cost nothing, for one call."
    yield ""
    yield "| codec | in flight on each connection | ns (lowest to highest turn) | bare loop, ns | calls | bytecodes |"
    yield "|---" * 6 + "|"
    for codec, depths in found.items():
        for depth, one in depths.items():
            spent = Measured(one["ns"], one["ns_low"], one["ns_high"], "{:,.0f}")
            yield (
                f"| {codec} | {depth} | {spent} | {one['bare_ns']:,.0f} | {one['calls']:.1f} | {one['bytecodes']:.0f} |"
            )
    yield ""
    yield "Where they are, for msgpack and one in flight:"
    yield ""
    yield "| function | calls | bytecodes |"
    yield "|---|---|---|"
    for name, (calls, codes) in found["msgpack"]["1"]["functions"].items():
        yield f"| `{name}` | {calls:.2f} | {codes:.0f} |"
    yield ""


def _where(every: Results) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for name, each in every.items():
        where = each["machine"]
        text = f"{where['cpu']}; {where['system']}; {where['python']}; {where['packages']}"
        places.setdefault(text, []).append(name)
    for text, names in places.items():
        yield f"Measured on {text}{'' if len(places) == 1 else ' (' + ', '.join(names) + ')'}."
    dates = sorted(each["machine"]["date"] for each in every.values())
    loads = sorted(float(each["machine"]["load"].split()[0]) for each in every.values())
    yield f"From {dates[0]} to {dates[-1]}; load average between {loads[0]:.1f} and {loads[-1]:.1f}."
    if quick := [name for name, each in every.items() if each["quick"]]:
        yield f"**Quick runs, of few rounds: {', '.join(quick)}.**"


LOADS = {
    "raw": (
        "Prebuilt requests from one epoll loop, 1, 16 and 256 connections with one call in flight on each",
        ("c1_server_cpu_us", "c16_server_cpu_us", "c256_server_cpu_us", "c1_p50_us", "c1_p99_us", "c16_calls_per_s"),
    ),
    "client": (
        "Their own clients: 1 and 16 threads with a connection each, and 64 calls in flight on one connection",
        tuple(f"{load}_{side}_cpu_us" for side in ("server", "client") for load in ("c1", "c16", "p64")),
    ),
}


def _peers(found: Results) -> Iterator[str]:
    for part, (title, keys) in LOADS.items():
        yield f"{title}. Medians, with the lowest and the highest round."
        yield ""
        yield f"| | {' | '.join(key.replace('_', ' ') for key in keys)} |"
        yield "|---" * (len(keys) + 1) + "|"
        for name, figures in found[part].items():
            if name != "rounds":
                cells = (str(plain(found[part], key, name)) if key in figures else "-" for key in keys)
                yield f"| {name} | {' | '.join(cells)} |"
        yield ""


def _codecs(found: Results) -> Iterator[str]:
    yield "Nanoseconds of the bench message, ours / the bare library's."
    yield ""
    steps = ("request encode", "request decode", "response encode", "response decode")
    yield f"| | {' | '.join(steps)} |"
    yield "|---" * (len(steps) + 1) + "|"
    for row, figures in found["against_bare"].items():
        yield _codec_row(row, figures, steps)
    yield ""
    yield "Every opcode's messages with sample values: bytes, and nanoseconds to encode and to decode."
    yield ""
    codecs = ("pipe", "msgpack", "protobuf")
    yield f"| opcode | message | {' | '.join(codecs)} |"
    yield "|---" * (len(codecs) + 2) + "|"
    for line in found["sheet"]:
        cells = (f"{line[c]['bytes']} B, {line[c]['encode_ns']:.0f}, {line[c]['decode_ns']:.0f}" for c in codecs)
        yield f"| {line['service']} 0x{line['opcode']:04x} | {line['message']} | {' | '.join(cells)} |"
    yield ""


def _codec_row(row: str, figures: Results, steps: tuple[str, ...]) -> str:
    cells = []
    for step in steps:
        ours, bare = figures[f"{step} ns"], figures[f"{step} bare ns"]
        cells.append(f"{ours:.0f} / {bare:.0f}")
    return f"| {row} | {' | '.join(cells)} |"


def _micro(found: Results) -> Iterator[str]:
    for each in sorted(found["benchmarks"], key=lambda each: each["name"]):
        stats = each["stats"]
        yield f"| {each['name'].removeprefix('test_')} | {stats['median'] * 1e9:,.0f} | {stats['iqr'] * 1e9:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    parser.add_argument("--render", action="store_true", help="measure nothing; write the page from what there is")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    RESULTS.mkdir(exist_ok=True)
    failed = [] if options.render else [name for name in options.parts or PARTS if not measure(name, options.quick)]
    PAGE.write_text(render(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)
    if failed:
        raise SystemExit(f"failed, and shown as they were before: {', '.join(failed)}")


if __name__ == "__main__":
    main()
