"""Make a virtual environment and install projects into it, once: ``python tools/venv.py VENV STAMP PROJECT...``.

A project is a folder with a pyproject.toml, and extras behind it: ``.[dev] ./chat``. All are installed in one call of
pip, so that one may need another which no registry has.

Runs on whatever Python is on the machine, so it needs the standard library only and stays readable to versions from
3.6 on, which are told in one sentence what to do. Two runs at once wait for each other.
"""

import fcntl
import hashlib
import os
import subprocess
import sys

OLDEST = (3, 11)


def main() -> None:
    """Install each PROJECT into VENV, made when it is missing or broken, and leave STAMP behind."""
    venv, stamp = sys.argv[1:3]
    projects = sys.argv[3:]
    if sys.version_info[:2] < OLDEST:
        version = "{}.{}".format(*sys.version_info[:2])
        sys.exit(
            f"wireproto needs Python 3.11 or newer, and {sys.executable} is {version}. "
            "Name another one: make PYTHON=/path/to/python3.12 ..."
        )
    with open("pyproject.toml", "rb") as lock:  # any file that is always there will do; the lock ends with the process
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The path is part of it, because an editable install points there and a folder can be moved.
        wanted = hashlib.sha256(" ".join([os.path.abspath(venv), *projects]).encode())
        for project in projects:
            with open(os.path.join(project.split("[")[0], "pyproject.toml"), "rb") as file:
                wanted.update(file.read())
        want = wanted.hexdigest()
        if read(stamp) != want:
            python = make_venv(venv)
            say("installing {} into {}".format(" and ".join(projects), venv))
            editable = [word for project in projects for word in ("--editable", project)]
            run([python, "-m", "pip", "install", "--quiet", *editable])
        with open(
            stamp, "w", encoding="utf-8"
        ) as written:  # written anew even when nothing was done: make goes by its time
            written.write(want)


def make_venv(venv: str) -> str:
    """The environment's Python, with pip. An environment that someone else made is taken as it is if it works."""
    python = os.path.join(venv, "bin", "python")
    works = f"import sys; sys.exit(sys.version_info[:2] < {OLDEST!r})"
    if (
        os.path.exists(python)
        and succeeds([python, "-c", works])
        and (succeeds([python, "-c", "import pip"]) or succeeds([python, "-m", "ensurepip"]))
    ):
        return python
    say(f"making {venv} with {sys.executable}")
    if not succeeds([sys.executable, "-c", "import ensurepip"]):
        sys.exit(
            f"{sys.executable} cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv. "
            "Or name another Python: make PYTHON=/path/to/python3.12 ..."
        )
    run([sys.executable, "-m", "venv", "--clear", venv])
    return python


def succeeds(command: "list[str]") -> bool:
    """Whether ``command`` ends with exit status 0; what it prints is dropped."""
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def run(command: "list[str]") -> None:
    """Run ``command``; its failure ends this program, below what it said."""
    code = subprocess.call(command)
    if code != 0:
        sys.exit("{} failed with exit status {}; what it said is above".format(" ".join(command), code))


def read(path: str) -> str:
    """The text of a file, or nothing when there is none."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


def say(sentence: str) -> None:
    """Tell on stderr what takes long."""
    sys.stderr.write(sentence + "\n")


if __name__ == "__main__":
    main()
