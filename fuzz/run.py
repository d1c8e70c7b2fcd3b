"""``make fuzz``: run the targets one after another in processes of their own, and say in one line how each gets on.

    python -m fuzz.run [--target NAME]... [--seconds N] [--runs N] [--keep]
    python -m fuzz.run --target NAME --input FILE

A finding leaves its input in ``fuzz/findings``, and the exit status is 1 then. With ``--keep`` what a target has
learned is minimised and becomes its corpus. ``--input`` gives one input to the target function, without atheris.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fuzz import corpus
from fuzz.targets import TARGETS

__all__ = ["Progress", "main"]

FINDINGS = Path(__file__).parent / "findings"
_ROOT = Path(__file__).parent.parent

_MAX_LEN = 256
"""Bytes of an input. What a reader does with more of the same it does with this much."""
_ENGINE = [
    f"-max_len={_MAX_LEN}",
    "-timeout=10",  # seconds for one input
    "-rss_limit_mb=1024",
    "-print_final_stats=1",
]
_STATUS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: \d+ corp: (\d+)/.* exec/s: (\d+)")
_DONE = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_FINDING = re.compile(r"Test unit written to (\S+)")


@dataclass
class Progress:
    """What is known of one target's run, from the lines that libFuzzer prints."""

    target: str
    executions: int = 0
    edges: int = 0
    inputs: int = 0
    finding: str = ""

    def read(self, line: str) -> None:
        """Take in one line; most say nothing."""
        if found := _STATUS.match(line):
            executions, self.edges, self.inputs, _ = map(int, found.groups())
            self.executions = max(self.executions, executions)
        elif found := _DONE.match(line):
            self.executions = int(found[1])
        elif found := _FINDING.search(line):
            self.finding = found[1]

    def line(self, seconds: float) -> str:
        """One line for people, after so many seconds."""
        rate = self.executions / seconds if seconds > 0 else 0
        findings = "a finding" if self.finding else "0 findings"
        return (
            f"{self.target:<12} {self.executions:>12,} executions {rate:>9,.0f}/s {self.edges:>6} edges "
            f"{self.inputs:>5} inputs  {findings}  {seconds:.0f} s"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description="Fuzz what reads a peer's bytes.")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="one of them; repeat it")
    parser.add_argument("--seconds", type=int, default=30, help="for each target (30); 0 for no limit")
    parser.add_argument("--runs", type=int, default=0, help="executions of each target; 0 for no limit")
    parser.add_argument("--keep", action="store_true", help="minimise what was learned and keep it as the corpus")
    parser.add_argument("--input", type=Path, metavar="FILE", help="give this input to the target, and no other")
    asked = parser.parse_args(arguments)
    names: list[str] = asked.target or list(TARGETS)
    if asked.input is not None:
        if len(names) != 1:
            parser.error("--input wants one --target")
        TARGETS[names[0]].make()(asked.input.read_bytes())
        sys.stdout.write(f"{names[0]}: nothing is wrong with {asked.input}\n")
        return 0
    if not asked.seconds and not asked.runs:
        parser.error("without --seconds and --runs it would never end")
    findings = 0
    for name in names:
        limits = [f"-max_total_time={asked.seconds}"] if asked.seconds else []
        limits += [f"-runs={asked.runs}"] if asked.runs else []
        findings += not _fuzz(name, limits, keep=asked.keep)
    return 1 if findings else 0


def _fuzz(name: str, limits: list[str], *, keep: bool) -> bool:
    """Run one target; False when it found something, or could not run."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        inputs = Path(folder) / "inputs"
        corpus.unpack([*corpus.load(name), *TARGETS[name].seeds()], inputs)
        FINDINGS.mkdir(exist_ok=True)
        progress = Progress(name)
        began = time.monotonic()
        prefix = FINDINGS.relative_to(_ROOT) / f"{name}-"
        status, said = _watch(progress, [name, str(inputs), *limits, *_ENGINE, f"-artifact_prefix={prefix}"])
        sys.stdout.write(progress.line(time.monotonic() - began) + "\n")
        sys.stdout.flush()
        if status == 0:
            if keep:
                _minimise(name, inputs, Path(folder) / "kept")
            return True
        sys.stderr.write("".join(said))
        sys.stderr.write(f"{name}: {TARGETS[name].invariant}\n")
        if progress.finding:
            sys.stderr.write(f"That does not hold of {progress.finding}; see it again:\n")
            sys.stderr.write(f"  make fuzz TARGET={name} INPUT={progress.finding}\n")
        return False


def _watch(progress: Progress, arguments: list[str]) -> tuple[int, list[str]]:
    """Run the engine, showing its progress; its exit status, and the last of what it said."""
    tidy = sys.stderr.isatty()
    began = time.monotonic()
    over = threading.Event()

    def show() -> None:
        while not over.wait(1 if tidy else 10):
            line = progress.line(time.monotonic() - began)
            sys.stderr.write(f"\r{line}\x1b[K" if tidy else f"{line}\n")
            sys.stderr.flush()
        if tidy:
            sys.stderr.write("\r\x1b[K")

    engine = _start(arguments)
    shower = threading.Thread(target=show, name="progress")
    shower.start()
    said: list[str] = []
    try:
        for line in _output(engine):
            progress.read(line)
            said = [*said[-60:], line]
        return engine.wait(), said
    finally:
        engine.kill()
        engine.wait()
        over.set()
        shower.join()


def _minimise(name: str, inputs: Path, kept: Path) -> None:
    """Keep as few inputs as reach all that is reached."""
    kept.mkdir()
    engine = _start([name, "-merge=1", str(kept), str(inputs), *_ENGINE])
    said = list(_output(engine))
    if engine.wait() != 0:
        sys.exit("".join(said[-20:]))
    count = corpus.save(name, (path.read_bytes() for path in kept.iterdir()))
    sys.stdout.write(f"{name}: {count} inputs are kept in {corpus.CORPUS.relative_to(_ROOT)}/{name}.hex\n")


def _start(arguments: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "fuzz.engine", *arguments]
    return subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )


def _output(engine: "subprocess.Popen[str]") -> IO[str]:
    assert engine.stdout is not None
    return engine.stdout


if __name__ == "__main__":
    sys.exit(main())
