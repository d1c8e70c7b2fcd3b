"""The gate: what a call costs in instructions, which no neighbour on the machine can disturb, unlike any clock.

Valgrind counts the instructions of ten paths (``instruction_paths.py`` has them): calls through a server's session in
each codec, and 64 of them together, a client's call, an item of a stream, connecting, and each codec by itself. One
that costs more than 2 % more than its kept number fails ``make check``.

The numbers are kept in ``instructions.json`` for pairs of a CPython and a msgspec, each with the build that made them.
Whoever makes a path dearer on purpose writes the new number beside its reason: ``make gate REASON='...'``. For a pair
or a build that is not there, the base commit is counted in the same run: the last one that changed the numbers. It is
counted by its own copy of this program, so its modules may stand elsewhere.

What was done so that a count does not depend on where and beside what it is made: the program sees a fixed environment
with one hash seed, it finds each module under a path that is the same in every checkout, it reads compiled modules and
never writes them, and the C library takes the routines that every x86-64 has, whatever this processor could do. (That
is for x86-64 only; with those of AVX2 a call through the server is 0.4 % cheaper.) A count takes 15 s on two processors
at rest. Counts in three checkouts whose folders, environments and temporary folders have names of different lengths,
at rest and beside four busy processes and each other, were the same to the last instruction.

What is left is the layout of memory, since dicts are keyed by address: four ways to have other modules and objects
there before the first import moved a path by 0.6 % at most, and moving most of the package's modules to other folders
by 0.7 %.

    python benchmarks/instructions.py [--reason TEXT]
    python benchmarks/instructions.py --count FILE      only count, and write the numbers there; what a base commit runs
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
KEPT = "benchmarks/instructions.json"
PROGRAM = "benchmarks/instructions.py"

LIMIT = 0.02
NOISE = 0.01
"""Less is no change, and is not written: the layout of memory alone moves a path by 0.7 %."""

ADVICE = "make it no slower, or write the new number beside its reason: make gate REASON='...'"

PATIENCE = 900
"""Seconds for one count, which takes 15 of a machine at rest."""

Counts = dict[str, int]


class CannotCount(Exception):
    """There is no way to count here; the text says what is missing."""


class CannotCompare(Exception):
    """There is nothing to compare with; the text says why."""


# ------------------------------------------------------------------ counting

_HERE = "/proc/self/cwd"
"""The working folder by a name that is the same wherever it is. Names of files are in memory, and move what follows."""

_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONPYCACHEPREFIX": f"{_HERE}/compiled",
    # Else glibc takes the routines of the widest vectors that valgrind lets through of this processor's; with these it
    # takes SSE2's. The first names are those of glibc 2.33 and newer, and names it does not know it ignores.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512VL,-AVX512BW,-ERMS,-AVX_Fast_Unaligned_Load,-AVX2_Usable",
}


def check_machine() -> None:
    """See that there is a valgrind, and a machine that it counts alike each time.

    Raises:
        CannotCount: there is none.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64") or not shutil.which("valgrind"):
        raise CannotCount(
            "instructions are counted by valgrind, on Linux on x86_64 or aarch64: install the package valgrind "
            "(apt-get install valgrind)"
        )


def count(root: Path, names: Sequence[str] = ()) -> Counts:
    """Instructions of a call, an item or a connection on each path of the tree at ``root``, or on those named.

    Raises:
        CannotCount: valgrind or the paths failed.
    """
    check_machine()
    with tempfile.TemporaryDirectory(prefix="wireproto-count-") as name:
        folder = Path(name)
        out = folder / "out"
        out.mkdir()
        # Nothing else can be imported, so what else is installed changes nothing.
        links = {"wireproto": root / "wireproto", "benchmarks": root / "benchmarks"}
        for link, target in (links | _libraries()).items():
            (folder / link).symlink_to(target.resolve())
        # The interpreter itself, not an environment's link to it; no site, so no .pth file of an installed package.
        program = [os.path.realpath(sys.executable), "-S", "-s", "-P", f"{_HERE}/benchmarks/instruction_paths.py"]
        # Once without valgrind, which compiles every module, and shows at once what does not run.
        _run([*_with(_ENVIRONMENT), *program, "out", *names], folder)
        valgrind = [
            "valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=out/dump.%p", "--trace-children=yes",
            "--dump-before=getpgid", "--dump-before=__getpgid",
        ]  # fmt: skip
        # The environment is set behind valgrind: what Debian calls valgrind is a shell script, which adds to it.
        _run([*valgrind, *_with(_ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"}), *program, "out", *names], folder)
        found = {}
        for file in out.glob("*.json"):
            said = json.loads(file.read_text("utf-8"))
            windows = [_total(out / f"dump.{said['process']}.{number}") for number in said["dumps"]]
            found[said["path"]] = round(statistics.median(windows) / said["units"])
        return dict(sorted(found.items()))


def _libraries() -> dict[str, Path]:
    """Where msgspec's package is, and the folder ``google`` that holds protobuf's."""
    found = {}
    for name, package in (("msgspec", "msgspec"), ("google", "google.protobuf")):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CannotCount(f"{package} is not installed; make setup installs it")
        place = Path(spec.submodule_search_locations[0])
        found[name] = place if name == package else place.parent
    return found


def _with(environment: Mapping[str, str]) -> list[str]:
    """The words before a command that give it this environment and nothing else."""
    variables = dict(environment)
    if "LD_LIBRARY_PATH" in os.environ:
        variables["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]  # an interpreter may not start without
    return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())]


def _run(command: list[str], folder: Path) -> None:
    # valgrind takes options from variables and from files in the home and working folders.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH")}
    done = subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise CannotCount(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _total(dump: Path) -> int:
    try:
        found = re.search(r"^totals: (\d+)", dump.read_text("utf-8"), re.MULTILINE)
    except FileNotFoundError:
        found = None
    if found is None:
        raise CannotCount("valgrind did not mark the windows: it does not see the C library's getpgid by its name")
    return int(found[1])


# ------------------------------------------------------------------ whose numbers they are


def this_pair() -> str:
    """What numbers are kept for."""
    return f"{sys.implementation.name} {platform.python_version()}, msgspec {importlib.metadata.version('msgspec')}"


def this_build() -> dict[str, str]:
    """What made the instructions. Another build of the same versions has other numbers."""
    # Without the place of the installation, which is no part of the code.
    configured = str(sysconfig.get_config_var("CONFIG_ARGS")).replace(sys.base_prefix, "")
    extensions = hashlib.sha256()
    for place, pattern in zip(_libraries().values(), ("_core*.so", "_upb/*.so"), strict=True):
        for file in sorted(place.glob(pattern)):
            extensions.update(file.read_bytes())
    return {
        "machine": platform.machine(),
        "compiler": platform.python_compiler(),
        "configured": hashlib.sha256(configured.encode()).hexdigest()[:12],
        "libc": " ".join(platform.libc_ver()),
        "protobuf": importlib.metadata.version("protobuf"),
        "extensions": extensions.hexdigest()[:12],
    }


def empty() -> dict[str, Any]:
    return {"numbers": {}, "changes": []}


def read(file: Path) -> dict[str, Any]:
    """What is kept: ``numbers`` by pair, and the list of ``changes``, each with its reason."""
    kept: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else empty()
    return kept


def write(file: Path, kept: Mapping[str, Any]) -> None:
    text = json.dumps(kept, indent=1)
    file.write_text(re.sub(r"\[\s+([\dnul]+),\s+([\dnul]+)\s+\]", r"[\1, \2]", text) + "\n", "utf-8")


def numbers_of(kept: Mapping[str, Any], pair: str, build: Mapping[str, str]) -> Counts | None:
    """The kept numbers, if this very build made them."""
    entry = kept["numbers"].get(pair)
    return entry["paths"] if entry and entry["build"] == build else None


# ------------------------------------------------------------------ judging


class Row(NamedTuple):
    """A path before and after; None where it is not."""

    name: str
    before: int | None
    after: int | None

    @property
    def change(self) -> float:
        """0.02 for 2 % more. A path that is new or gone has no end of change: its number is wanted, or not any more."""
        if self.before is None or self.after is None:
            return float("inf")
        return round(self.after / self.before - 1, 6)


def compare(before: Counts, after: Counts) -> list[Row]:
    return [Row(name, before.get(name), after.get(name)) for name in {**after, **before}]


def verdict(rows: Sequence[Row]) -> tuple[bool, list[str]]:
    """Whether the gate is passed, and what to say beside the table."""
    said = []
    worse = [row.name for row in rows if row.change > LIMIT and None not in row]
    if worse:
        said.append(f"{'; '.join(worse)}: more than {LIMIT:.0%} dearer. {ADVICE[0].upper()}{ADVICE[1:]}")
    changed = [row.name for row in rows if None in row]
    if changed:
        said.append(f"{'; '.join(changed)}: a path that is new or gone. Write the numbers: make gate REASON='...'")
    better = [row.name for row in rows if row.change < -LIMIT]
    if better:
        said.append(f"{'; '.join(better)}: cheaper. The kept number can be lowered: make gate REASON='...'")
    return not worse and not changed, said


def with_reason(
    kept: Mapping[str, Any],
    committed: Mapping[str, Any],
    pair: str,
    build: Mapping[str, str],
    before: Counts | None,
    after: Counts,
    reason: str,
) -> dict[str, Any]:
    """What is kept from now on.

    Numbers that did not change keep their old value: else a path could creep up, each time by less than is noticed. A
    change makes the numbers of other pairs unknown, so those go, and the commit that this becomes is counted for them;
    but not those that were written since ``committed``, which are of this change too.

    Args:
        kept, committed: as they are in the working folder, and in the last commit.
        pair, build, after: what was counted just now.
        before: the kept numbers or those of the base commit; None when there are none, which leaves nothing to explain.
        reason: why they changed.
    """
    rows = compare(before, after) if before is not None else []
    changed = {row.name: [row.before, row.after] for row in rows if abs(row.change) > NOISE}
    old = before or {}
    paths = {name: number if name in changed else old.get(name, number) for name, number in after.items()}
    numbers = {
        other: entry
        for other, entry in kept["numbers"].items()
        if other != pair and (not changed or entry != committed["numbers"].get(other))
    }
    numbers[pair] = {"build": dict(build), "paths": paths}
    changes = [dict(change) for change in kept["changes"]]
    if changed:
        for change in changes:
            if (change["reason"], change["pair"]) == (reason, pair) and change not in committed["changes"]:
                was = change["paths"]
                change["paths"] = was | {name: [was.get(name, two)[0], two[1]] for name, two in changed.items()}
                break
        else:
            changes.append({"reason": reason, "pair": pair, "paths": changed})
    return {"numbers": dict(sorted(numbers.items())), "changes": changes}


# ------------------------------------------------------------------ the base commit


def _git(root: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise CannotCompare("git was not found, so there is no earlier commit to compare with") from None
    if done.returncode:
        raise CannotCompare(f"git {words[0]} failed: {done.stderr.decode().strip()}")
    return done.stdout


def base_commit(root: Path) -> str:
    """The commit to compare with: the last one that changed the kept numbers, or HEAD while a change is not committed.

    Raises:
        CannotCompare: there is no history, it does not reach back so far, or nothing was counted then.
    """
    if not (root / ".git").exists():
        raise CannotCompare("this is no git repository, so there is no earlier commit to compare with")
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    if not _git(root, "status", "--porcelain", "--", KEPT).strip():
        commit = _git(root, "log", "-1", "--format=%H", "--", KEPT).decode().strip() or commit
        shallow = root / _git(root, "rev-parse", "--git-path", "shallow").decode().strip()
        if shallow.exists() and commit in shallow.read_text("utf-8").split():
            # Where a shallow clone begins, every file looks as if it was changed there.
            raise CannotCompare(f"this clone is too shallow to tell which commit changed {KEPT}: git fetch --unshallow")
    if not _git(root, "ls-tree", commit, "--", PROGRAM):
        raise CannotCompare(f"commit {commit[:12]} does not count instructions yet: it has no {PROGRAM}")
    return commit


def committed_numbers(root: Path) -> dict[str, Any]:
    """What HEAD keeps; nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads(_git(root, "show", f"HEAD:{KEPT}"))
    except CannotCompare:
        return empty()
    return found


def count_commit(root: Path, commit: str) -> Counts:
    """Count a commit by its own program."""
    with tempfile.TemporaryDirectory(prefix="wireproto-base-") as name:
        tree, file = Path(name) / "tree", Path(name) / "counts.json"
        with zipfile.ZipFile(io.BytesIO(_git(root, "archive", "--format=zip", commit))) as archive:
            archive.extractall(tree)
        done = subprocess.run(
            [sys.executable, str(tree / PROGRAM), "--count", str(file)],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise CannotCount(f"commit {commit[:12]} cannot be counted: {done.stderr.strip()}")
        found: Counts = json.loads(file.read_text("utf-8"))
        return found


# ------------------------------------------------------------------ the command


def _print(rows: Sequence[Row], title: str) -> None:
    print(f"{'instructions':22}{title:>14}{'counted':>12}{'change':>10}")
    for row in rows:
        before, after = (f"{number:,}" if number is not None else "-" for number in row[1:])
        change = f"{row.change:+.2%}" if None not in row else "-"
        print(f"{row.name:22}{before:>14}{after:>12}{change:>10}")


def gate(root: Path, reason: str) -> int:
    """Count, compare, and with a reason write; the exit status."""
    check_machine()
    file = root / KEPT
    pair, build, kept = this_pair(), this_build(), read(file)
    before, title, commit = numbers_of(kept, pair, build), "kept", ""
    if before is None:
        try:
            commit = base_commit(root)
        except CannotCompare as error:
            print(f"instructions are not compared: {error}", file=sys.stderr)
            if not reason:
                # It fails where nobody reads the line. Elsewhere there may be no history by right, as in an sdist.
                return 1 if os.environ.get("CI") else 0
        else:
            print(f"no numbers are kept for {pair} as it was built here: counting {commit[:12]} as well", flush=True)
    with ThreadPoolExecutor(2) as threads:
        counting = threads.submit(count, root)
        if commit:
            before, title = count_commit(root, commit), f"in {commit[:8]}"
        after = counting.result()
    rows = compare(before, after) if before is not None else [Row(name, None, number) for name, number in after.items()]
    _print(rows, title)
    if reason:
        write(file, with_reason(kept, committed_numbers(root), pair, build, before, after, reason))
        print(f"{KEPT} is written; commit it together with what changed the numbers")
        return 0
    passed, said = verdict(rows)
    for line in said:
        print(line, file=sys.stdout if passed else sys.stderr)
    return 0 if passed else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reason", default="", help="write the new numbers, with why they changed")
    parser.add_argument("--count", type=Path, metavar="FILE", help="only count, and write the numbers there")
    options = parser.parse_args()
    try:
        if options.count:
            options.count.write_text(json.dumps(count(ROOT), indent=1), "utf-8")
        else:
            sys.exit(gate(ROOT, options.reason.strip()))
    except CannotCount as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
