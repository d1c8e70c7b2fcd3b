"""Run the tests on other Pythons: ``python tools/pythons.py VENV PYTHON... -- ARGUMENTS OF PYTEST``.

Each PYTHON is a name or a path. One whose minor version is that of the interpreter running this is left out, and so is
one that is not there, which is said in one line. The environment of the others is VENV with their version behind it.
"""

import shutil
import subprocess
import sys

OLDEST = (3, 11)
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def version_of(python: str) -> str | None:
    """The minor version of an interpreter, like ``3.12``; None when it is not there or does not run."""
    found = shutil.which(python)
    if found is None:
        return None
    ran = subprocess.run([found, "-c", _VERSION], capture_output=True, encoding="utf-8", check=False)
    return ran.stdout.strip() or None if ran.returncode == 0 else None


def main(words: list[str]) -> int:
    """Test on each; the exit status is 1 if one failed."""
    parted = words.index("--")
    venv, *pythons = words[:parted]
    done = {"{}.{}".format(*sys.version_info[:2])}
    missing, failed = [], []
    for python in pythons:
        version = version_of(python)
        if version is None:
            missing.append(python)
            continue
        if version in done or tuple(int(part) for part in version.split(".")) < OLDEST:
            continue
        done.add(version)
        sys.stderr.write(f"== tests on Python {version}\n")
        place = f"{venv}-{version}"
        setup = ["make", "--no-print-directory", "setup", f"PYTHON={python}", f"VENV={place}"]
        if subprocess.call(setup) or subprocess.call([f"{place}/bin/python", "-m", "pytest", *words[parted + 1 :]]):
            failed.append(version)
    if missing:
        sys.stderr.write(f"not there, so not tested: {' '.join(missing)}; name others with PYTHONS=\n")
    if failed:
        sys.stderr.write(f"failed on Python {' and '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
