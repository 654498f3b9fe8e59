"""Environments of their own, which `make` fills, for what can't be installed beside the project."""

import subprocess
import sys

import pytest

from tests.support.bundles import REPOSITORY

INSTALL_SECONDS = 280


def python_of(environment: str, what: str) -> str:
    """Return the Python of an environment; skip the test if it can't be made.

    Args:
        environment: its folder, such as ".venv-tritonclient".
        what: is in it, for the reason.
    """
    done = subprocess.run(
        ["make", "--silent", f"{environment}/.done", f"PYTHON={sys.executable}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs {what}, which could not be installed: {done.stderr[-500:]}")
    return str(REPOSITORY / environment / "bin/python")
