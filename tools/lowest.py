"""Runs tests with the lowest versions that `pyproject.toml` allows, of grpcio to begin with.

    python tools/lowest.py .venv -- tests/server/test_gateway.py -n 2

The lowest versions are put into a folder beside the environment and found before its own; all else is as it is there.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def floors() -> list[str]:
    """The lowest versions of what belongs to grpcio, as requirements: the newest patch of each."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    found = []
    for requirement in (*extras["grpc"], *extras["test"]):
        if not requirement.startswith("grpcio"):
            continue
        match = re.fullmatch(r"([a-z-]+)>=(\d+\.\d+)", requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} in pyproject.toml is not NAME>=MAJOR.MINOR, which is what is read here")
        found.append(f"{match[1]}=={match[2]}.*")
    return found


def main() -> int:
    venv, separator, *arguments = sys.argv[1:]
    if separator != "--":
        raise SystemExit(__doc__)
    python = str(Path(venv) / "bin" / "python")
    wanted = floors()
    folder = Path(f"{venv}-lowest").absolute()
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text("utf-8") != "\n".join(wanted):
        sys.stderr.write(f"installing {', '.join(wanted)}\n")
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--target",
            str(folder),
            *wanted,
        ]
        subprocess.run(install, check=True)
        stamp.write_text("\n".join(wanted), "utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    told = "import grpc; print('with grpcio', grpc.__version__)"
    subprocess.run([python, "-c", told], env=environment, check=True)
    return subprocess.run([python, "-m", "pytest", *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
