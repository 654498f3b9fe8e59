"""What the packages need to be imported, and how long their files are."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import REPOSITORY

PACKAGES = ("export", "training", "server", "deploy", "client/forward_client")
HEAVY = ["torch", "torchvision", "onnx", "sklearn", "matplotlib", "scipy"]


def sources(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize(
    "module", ["server.__main__", "forward_client.__main__", "export.__main__", "training.__main__"]
)
def test_the_core_imports_without_the_train_extra(module: str) -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))"  # None blocks an import
    subprocess.run(
        [sys.executable, "-c", f"{blocked}; import {module}"], check=True, cwd=REPOSITORY
    )


def test_no_source_is_longer_than_300_lines() -> None:
    lengths = {
        path: len(path.read_text().splitlines())
        for package in PACKAGES
        for path in sources(package)
    }
    assert not {path: length for path, length in lengths.items() if length > 300}
