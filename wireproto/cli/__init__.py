"""The command ``wireproto``: what it prints for programs is on stdout, everything else on stderr.

Exit status, of every command:
    0         it did what was asked
    1         it could not, for a reason of this machine: a port in use, a file that cannot be read
    2         it was asked wrongly: an unknown option, a module that is not there, a value of the wrong type
    10 + n    a call was answered with status n (``wireproto.Status``): 15 is NOT_FOUND, 24 is UNAVAILABLE
    130       interrupted

Each option can also be given in the environment: ``--port`` of ``serve`` is ``WIREPROTO_SERVE_PORT``. JSON and text
files are UTF-8 whatever the locale, and a byte order mark in front of one is taken off.
"""

import sys
from typing import NoReturn

from wireproto.cli.application import Application, Served

__all__ = ["Application", "Served", "main"]


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    try:
        from wireproto.cli.root import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("wireproto: the command line is not installed; run: pip install 'wireproto[cli]'")
    except OSError as error:
        sys.exit(f"wireproto: the command line cannot be loaded: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
    run()
