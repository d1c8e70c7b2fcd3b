"""What may go wrong around a program: full disks, pipes that nobody reads, no descriptor, no thread, no home.

A test runs a command in each of them and reads what it says; ``tools/pytest_plugin.py`` has the fixtures.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["LONG_TROUBLES", "TROUBLES", "Done", "RunIn", "Sample", "Trouble", "cases", "documented", "run_in"]

Stream = Literal["read", "full", "gone", "closed"]
"""A standard stream: a pipe that is read, a full disk, a pipe that nobody reads any more, and none at all."""

PATIENCE: Final = 60.0
"""Seconds for a command on a machine with much else to do."""

SOMEBODY: Final = 1_000_000 + os.getpid()
"""A user of whom there is no process, so that a limit of one counts the program's own threads."""

LONGEST: Final = 255
"""Bytes that the name of a file may have."""

NOT_SENTENCES: Final = (
    "Traceback (most recent call last)",
    "Exception ignored",
    "Exception in thread",
    "Fatal Python error",
    "--- Logging error ---",
    "Aborted!",
    "ResourceWarning",
)
"""What Python and click write when nobody else does, which helps no reader."""


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong.

    Attributes:
        stdout, stderr: where the program's words go; its input is at its end, or not there with ``closed``.
        limits: of the process, by the names that `prlimit` has for them.
        alone: whether its threads are counted, to which a limit of processes applies.
        variables: of the environment; FILE in one is a file that is no folder.
        name: of the files that the program is to make: a name of any length.
        bites: a program in Python that fails in this trouble and nowhere else, by status 3.
    """

    stdout: Stream = "read"
    stderr: Stream = "read"
    limits: Mapping[str, int] = field(default_factory=dict)
    alone: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    name: str = "new"
    bites: str = ""


@dataclass(frozen=True)
class Sample:
    """A command line that is tried in each trouble.

    Attributes:
        words: behind the program's name; NEW in one is a path where nothing is yet, other names are the test's own.
        well: how it ends when nothing is wrong.
        stays: whether it goes on until it is asked to end.
        prints: whether it says something on stdout.
        stdin: what it reads.
        tried: in a full run; with ``names`` in the troubles of NEW only, with ``seldom`` in none.
    """

    words: str
    well: int = 0
    stays: bool = False
    prints: bool = True
    stdin: str = ""
    tried: Literal["always", "names", "seldom"] = "always"

    def ordinary(self, name: str) -> bool:
        """Whether it is tried in this trouble in every full run; else in the long tests only."""
        if name not in TROUBLES or self.tried == "seldom":
            return False
        if TROUBLES[name].name != Trouble.name:
            return "NEW" in self.words
        if "--help" in self.words.split():
            return TROUBLES[name].stdout == "full"
        return self.tried == "always"


GOING = 2.0
"""Seconds in which a program that cannot print ends, if it does."""


class Done(NamedTuple):
    """How a program ended. What could not be read is empty."""

    status: int
    stdout: str
    stderr: str

    def faults(self, sample: Sample, trouble: Trouble, documented: Collection[int]) -> list[str]:
        """What a reader could not use, or did not expect, of a command's end.

        Args:
            sample: what was run.
            trouble: what was wrong.
            documented: the exit statuses that the command's help names.
        """
        found = [f"it says {each!r}" for each in NOT_SENTENCES if each in self.stderr or each in self.stdout]
        if self.status < 0:
            found.append(f"it was ended by signal {-self.status}")
        if self.status not in {*documented, sample.well}:
            found.append(f"its status is {self.status}, and its help names {sorted(documented)}")
        if self.status not in (0, sample.well) and trouble.stderr == "read" and not (self.stderr + self.stdout).strip():
            found.append(f"it says nothing, and ends with status {self.status}")
        if sample.prints and not sample.stays:
            full = "cannot be written: No space left on device"
            if trouble.stdout == "full" and (
                self.status != 1 or (trouble.stderr == "read" and full not in self.stderr)
            ):
                found.append("it does not say that its output cannot be written")
            if trouble.stdout == "gone" and self.status != 0:
                found.append("that nobody reads its output is no failure")
        return found


RunIn: TypeAlias = Callable[..., Done]
"""``run_in`` with a folder of the test's own."""


def _try(statement: str) -> str:
    return f"import sys, os, threading\ntry:\n    {statement}\nexcept (OSError, RuntimeError):\n    os._exit(3)"


_NO_DESCRIPTOR = _try("[os.dup(0) for _ in range(40)]")
_NO_THREAD = _try("[threading.Thread(target=threading.Event().wait, daemon=True).start() for _ in range(60)]")
_PRINTS = "print('x', flush=True)"

TROUBLES: Final[Mapping[str, Trouble]] = {
    "stdout on a full disk": Trouble(stdout="full", bites=_try(_PRINTS)),
    "stderr on a full disk": Trouble(stderr="full", bites=_try("print('x', flush=True, file=sys.stderr)")),
    "nobody reads stdout": Trouble(stdout="gone", bites=_try(_PRINTS)),
    "no standard streams": Trouble(stdout="closed", stderr="closed", bites=_try("os.fstat(1)")),
    "no room in any file": Trouble(
        limits={"fsize": 0}, bites=_try("__import__('pathlib').Path(sys.argv[1]).write_text('x')")
    ),
    "no home": Trouble(
        variables=dict.fromkeys(("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "TMPDIR"), "FILE/home"),
        bites=_try("os.makedirs(os.environ['HOME'])"),
    ),
    "no descriptors": Trouble(limits={"nofile": 5}, bites=_NO_DESCRIPTOR),
    "no threads": Trouble(limits={"nproc": 1}, alone=True, bites=_NO_THREAD),
    "a name as long as can be": Trouble(name="n" * LONGEST, bites=_try("open(sys.argv[1] + 'n', 'w')")),
    "a name that is too long": Trouble(name="n" * (LONGEST + 1), bites=_try("open(sys.argv[1], 'w')")),
}
"""Those of every full run."""

LONG_TROUBLES: Final[Mapping[str, Trouble]] = {
    "nobody reads anything": Trouble(stdout="gone", stderr="gone", bites=_try(_PRINTS)),
    "everything on a full disk": Trouble(stdout="full", stderr="full", bites=_try(_PRINTS)),
    **{f"{count} descriptors": Trouble(limits={"nofile": count}, bites=_NO_DESCRIPTOR) for count in range(6, 24)},
    **{
        f"{count} threads": Trouble(limits={"nproc": count}, alone=True, bites=_NO_THREAD)
        for count in (2, 3, 5, 8, 16, 30, 31, 32, 33, 34, 36, 38, 40, 44, 48)
    },
}
"""Those of the long tests: each number where something may be half made when there is no more."""


def run_in(
    folder: Path,
    trouble: Trouble,
    words: Sequence[str],
    sample: Sample | None = None,
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Run a program to its end while something is wrong.

    Args:
        folder: for the files of this run; empty.
        trouble: what is wrong.
        words: the program and its arguments; NEW in one is the path of something that is not there yet.
        sample: what the words are of: what the program reads, and whether it ends by itself or wants SIGTERM.
        variables: of the environment, over this process's.
    """
    file = folder / "file"
    file.touch()
    new = folder / "out"
    new.mkdir()
    unfit = {name: value.replace("FILE", str(file)) for name, value in trouble.variables.items()}
    streams = _stream(trouble.stdout), _stream(trouble.stderr)
    process = subprocess.Popen(
        [*_alone(trouble), *_limited(trouble), *[word.replace("NEW", str(new / trouble.name)) for word in words]],
        stdin=subprocess.PIPE,
        stdout=streams[0],
        stderr=streams[1],
        env={**os.environ, **(variables or {}), **unfit},
    )
    for stream in streams:
        if stream >= 0:
            os.close(stream)
    with process:
        try:
            if sample is not None and sample.stays:
                if trouble.stdout == "full":
                    # Some that cannot say that they are there end by themselves; a signal on their way out would be it.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(GOING)
                _ask_to_end(process)
            out, err = process.communicate(sample.stdin.encode() if sample is not None else None, PATIENCE)
        finally:
            process.kill()
    return Done(process.returncode, (out or b"").decode("utf-8", "replace"), (err or b"").decode("utf-8", "replace"))


def _alone(trouble: Trouble) -> list[str]:
    """Words in front of a command whose threads are to be counted.

    The superuser has no limit of processes. So the program runs under the name of another user, and with its rights but
    for those two that lift the limit. For anybody else the limit is below the processes that there are already.
    """
    if not trouble.alone or os.geteuid() != 0:
        return []
    return ["setpriv", f"--ruid={SOMEBODY}", "--bounding-set=-sys_resource,-sys_admin"]


def _limited(trouble: Trouble) -> list[str]:
    """Words in front of a command that has less than others."""
    limits = [f"--{name}={limit}" for name, limit in trouble.limits.items()]
    limited = ["prlimit", *limits] if limits else []
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"] if trouble.stdout == "closed" else []
    return [*limited, *closed]


def _stream(kind: Stream) -> int:
    """What a process gets for one of its streams: a descriptor, or a negative number of ``subprocess``."""
    if kind == "gone":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    return subprocess.PIPE if kind == "read" else subprocess.DEVNULL


def _ask_to_end(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM as soon as the program is ready for it, unless it has ended by itself."""
    caught = 1 << 14
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process.pid}/status").read_text("ascii", "replace").splitlines()
            if int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16) & caught:
                process.terminate()
                return
        time.sleep(0.01)


def cases(samples: Sequence[Sample]) -> Iterator[tuple[str, bool, Sample, Trouble]]:
    """Each sample in each trouble: a name for the two, and whether they belong to every full run."""
    for name, trouble in {**TROUBLES, **LONG_TROUBLES}.items():
        for sample in samples:
            yield f"{sample.words} - {name}", sample.ordinary(name), sample, trouble


def documented(help_text: str, statuses: Sequence[int]) -> set[int]:
    """The exit statuses that a help text names behind "Exit status:"; empty when it has no such words.

    Args:
        statuses: those of calls, for which the text says "10 + n".
    """
    _, there, text = help_text.partition("Exit status:")
    text = text.partition("Options:")[0]
    if not there:
        return set()
    words = text.replace(",", " ").replace(".", " ").split()
    found = {int(word) for word in words if word.isdigit()}
    return found | {10 + status for status in statuses} if "10 + n" in text else found
