"""What importing the package costs, and what it does not load."""

import resource
import subprocess
import sys

import pytest

HEAVY = ("alembic", "click", "google.protobuf", "grpc", "msgpack", "prompt_toolkit", "rich", "sqlalchemy")
PUBLIC = "import wireproto; [getattr(wireproto, name) for name in wireproto.__all__]"
TRIES = 9
START = 11.0
"""CPU time of `python -c pass` in milliseconds where the limits below were set (CPython 3.11.7, two cores at rest)."""


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _milliseconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def _best_milliseconds(*command: str) -> float:
    """The least CPU time of several processes, on a machine where Python's own start takes START milliseconds.

    What else the machine does adds to the clock's time, and where two processors share a core to the CPU time, too: so
    Python's start is timed in turn with the command.
    """
    pairs = [(_milliseconds("-c", "pass"), _milliseconds(*command)) for _ in range(TRIES)]
    start = min(start for start, _ in pairs)
    return min(took for _, took in pairs) * min(1, START / start)


def test_importing_is_quick() -> None:
    """`import wireproto` takes less than 60 ms on top of Python's own start."""
    assert _best_milliseconds("-c", "import wireproto") - START < 60


@pytest.mark.parametrize("statement", ["import wireproto", PUBLIC], ids=["package", "every public name"])
def test_importing_loads_no_heavy_library(statement: str) -> None:
    """Neither the package nor any of its public names loads gRPC, protobuf, SQL or command-line libraries."""
    loaded = _run(f"{statement}; import sys; print(*sys.modules)").split()
    assert not sorted(set(HEAVY) & set(loaded))


def test_the_package_alone_loads_no_sockets_or_threads_of_ours() -> None:
    """Declaring messages does not load the server or the client."""
    loaded = _run("import wireproto, sys; wireproto.Message, wireproto.Service; print(*sys.modules)").split()
    assert not {"wireproto.server", "wireproto.client", "socket"} & set(loaded)


def test_the_public_names_are_all_there() -> None:
    """Each name of __all__ can be had, dir() lists it, and others are refused in the usual words."""
    code = f"""{PUBLIC}
assert set(wireproto.__all__) <= set(dir(wireproto))
try:
    wireproto.nothing
except AttributeError as error:
    print(error)
"""
    assert _run(code).strip() == "module 'wireproto' has no attribute 'nothing'"


def test_help_is_quick() -> None:
    """`wireproto --help` takes less than 150 ms, from the start of Python on."""
    assert _best_milliseconds("-m", "wireproto.cli", "--help") < 150
