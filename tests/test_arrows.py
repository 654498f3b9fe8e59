"""The direction of dependencies between the packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import REPOSITORY

# What each package may import of the project.
ALLOWED = {
    "export": {"export"},
    "training": {"training", "export"},
    "server": {"server", "export", "forward", "inference"},
    "client": {"client", "forward"},
}
PROJECT = {*ALLOWED, "forward", "inference", "tests", "bench"}
HEAVY = ["torch", "torchvision", "onnx", "safetensors", "sklearn", "matplotlib", "scipy"]


def forbidden_imports(package: str, source: str) -> list[str]:
    """Return the project's modules that a source of a package imports against the arrows."""
    imported: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the package that they reach into"
            imported.append(node.module or "")
    roots = {name: name.split(".")[0] for name in imported}
    return [name for name, root in roots.items() if root in PROJECT - ALLOWED[package]]


def sources(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_no_source_imports_against_the_arrows(package: str) -> None:
    assert sources(package)
    against = {str(path): forbidden_imports(package, path.read_text()) for path in sources(package)}
    assert not {path: names for path, names in against.items() if names}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("export", "from training.data import Data"),
        ("export", "def late():\n    import server.app"),
        ("server", "import training"),
        ("training", "from server import codec"),
        ("client", "from export.bundle import Bundle"),
        ("server", "from client import ForwardClient"),
        ("export", "from forward.v1 import forward_pb2"),
        ("client", "from inference import open_inference_pb2"),
    ],
)
def test_a_reversed_arrow_is_found(package: str, source: str) -> None:
    assert forbidden_imports(package, source)


@pytest.mark.parametrize(
    "module", ["server.__main__", "client.__main__", "export.__main__", "training.__main__"]
)
def test_the_core_imports_without_the_train_extra(module: str) -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))"  # None blocks an import
    subprocess.run(
        [sys.executable, "-c", f"{blocked}; import {module}"], check=True, cwd=REPOSITORY
    )


def test_no_source_is_longer_than_300_lines() -> None:
    lengths = {
        path: len(path.read_text().splitlines()) for package in ALLOWED for path in sources(package)
    }
    assert not {path: length for path, length in lengths.items() if length > 300}
