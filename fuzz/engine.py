"""The process that atheris runs in: ``python -m fuzz.engine TARGET [libFuzzer's arguments]``; started by ``fuzz.run``.

Only ``wireproto`` is instrumented, the code that its codecs generate included: what is to be explored are the readers,
not the target functions or the libraries below.
"""

import sys
from collections.abc import Callable
from types import FunctionType

import atheris

with atheris.instrument_imports(include=["wireproto"]):
    from fuzz.targets import TARGETS
    from wireproto.codecs import Plan


def main() -> None:
    """Fuzz until libFuzzer has had enough; a finding ends the process with status 77 and leaves its input."""
    name, *arguments = sys.argv[1:]
    run = TARGETS[name].make()
    _instrument_generated(run, set())
    # To minimise, libFuzzer starts this again, with the first argument as the beginning of a shell's command line.
    atheris.Setup([f"{sys.executable} -m fuzz.engine {name}", *arguments], run)
    atheris.Fuzz()


def _instrument_generated(value: object, seen: set[int]) -> None:
    """Instrument every function of a codec's plan or of a compiled refusal that ``value`` can call.

    They are compiled from text, which the hook for imports never sees; their files have names in angle brackets.
    """
    if id(value) in seen or not isinstance(value, FunctionType | Plan | list | tuple):
        return
    seen.add(id(value))
    if not isinstance(value, FunctionType):
        for each in (value.encode, value.decode) if isinstance(value, Plan) else value:
            _instrument_generated(each, seen)
        return
    if value.__code__.co_filename.startswith("<wireproto "):
        instrument: Callable[[FunctionType], object] = atheris.instrument_func
        instrument(value)
        for each in list(value.__globals__.values()):
            _instrument_generated(each, seen)
    for cell in value.__closure__ or ():
        _instrument_generated(cell.cell_contents, seen)


if __name__ == "__main__":
    main()
