"""What starting costs: CPU milliseconds of ``import wireproto`` and of ``wireproto --help``, beside Python's own start.

python benchmarks/imports.py [--quick] [--json FILE]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

COMMANDS = {
    "python": ["-c", "pass"],
    "import wireproto": ["-c", "import wireproto"],
    "every public name": ["-c", "import wireproto; [getattr(wireproto, name) for name in wireproto.__all__]"],
    "wireproto --help": ["-m", "wireproto.cli", "--help"],
}


def milliseconds(words: list[str]) -> float:
    """User and system time of the process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(5 if options.quick else 15):
        for name, words in COMMANDS.items():
            found[name].append(milliseconds(words))
    result = {
        name: {"median_ms": statistics.median(each), "low_ms": min(each), "high_ms": max(each)}
        for name, each in found.items()
    }
    for name, figures in result.items():
        print(name, {key: round(value, 1) for key, value in figures.items()})
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
