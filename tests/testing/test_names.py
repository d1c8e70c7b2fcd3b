"""The kit's names are loaded one by one, so that each part needs only what it uses."""

import subprocess
import sys
from pathlib import Path

import pytest

import wireproto.testing

NEEDS_PACKAGES = {
    "AgentSuite",
    "DifferentialSuite",
    "RoundTripSuite",
    "ServerSuite",
    "messages",
    "mutated",
    "strategies",
    "values",
    "wrong_values",
}


def _run(code: str) -> subprocess.CompletedProcess[str]:
    without = "import sys; sys.modules['hypothesis'] = sys.modules['pytest'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", without + code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", sorted(NEEDS_PACKAGES))
def test_without_its_packages_a_name_says_what_to_install(name: str) -> None:
    """What takes hypothesis or pytest is refused, where they are missing, with a sentence that names the extra."""
    done = _run(f"from wireproto.testing import {name}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(" is not installed; run: pip install 'wireproto[testing]'")


def test_the_others_need_no_packages() -> None:
    """Everything else can be imported where neither hypothesis nor pytest is installed."""
    names = sorted(set(wireproto.testing.__all__) - NEEDS_PACKAGES)
    done = _run(f"import wireproto.testing\nfor name in {names}: getattr(wireproto.testing, name)")
    assert done.returncode == 0, done.stderr


def test_every_name_is_what_it_says() -> None:
    """Each name of __all__ can be had, is listed by dir(), and is no module that happens to be called so."""
    for name in wireproto.testing.__all__:
        assert getattr(wireproto.testing, name).__module__.startswith("wireproto.testing."), name
    assert set(wireproto.testing.__all__) <= set(dir(wireproto.testing))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = wireproto.testing.nothing


def test_no_module_hides_a_name() -> None:
    """Importing a module of the kit never replaces one of its names: none is called like one."""
    folder = Path(wireproto.testing.__file__).parent
    assert not {path.stem for path in folder.iterdir()} & set(wireproto.testing.__all__)
