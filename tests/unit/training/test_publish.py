"""Publishing: the files of a bundle, each written once."""

import importlib.metadata
from collections import Counter
from pathlib import Path

import pytest

from export.architecture import mlp
from export.network import Network
from tests.support.trainings import run_of
from training.data import load
from training.publish import publish


def test_every_file_of_a_bundle_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: Counter[str] = Counter()
    write_bytes = Path.write_bytes

    def counted(path: Path, data: bytes) -> int:
        written[path.name] += 1
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", counted)
    data = load("digits", Path(), None)
    result = run_of(Network(mlp((28, 28), [16], 10)), data)
    bundle = publish(tmp_path, result, [result], data)
    listed = [file.name for file in bundle.manifest.files]
    assert listed == sorted(listed)
    assert written == dict.fromkeys([*listed, ".manifest.json"], 1)
    assert bundle.unlisted_files() == []


def test_onnxruntime_may_be_another_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where onnxruntime-gpu is installed in its place."""
    version = importlib.metadata.version

    def version_there(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return version("onnxruntime" if name == "onnxruntime-gpu" else name)

    monkeypatch.setattr(importlib.metadata, "version", version_there)
    data = load("digits", Path(), None)
    result = run_of(Network(mlp((28, 28), [16], 10)), data)
    tools = publish(tmp_path, result, [result], data).manifest.tools
    assert tools["onnxruntime-gpu"] == version("onnxruntime")
    assert "onnxruntime" not in tools
