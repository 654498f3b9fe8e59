"""Bundles: whole or not there, and what is damaged is named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle, describe, find_bundle, open_bundle, staged_bundle, versions
from export.errors import BundleError
from export.manifest import MANIFEST_NAME
from tests.bundles import REPOSITORY, publish_random_bundle, random_images
from tests.servers import run_server_until_it_ends

FILES = ("model.onnx", "trace.onnx", "model.ts", "weights.safetensors")


def verify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "export", "verify", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_verify_accepts_the_bundled_model_and_shows_the_parity(bundle: Bundle) -> None:
    done = verify(bundle.path)
    assert done.returncode == 0, done.stderr
    assert f"{len(bundle.manifest.files)} files match" in done.stdout
    for word in ("eager", "torchscript", "onnx", "linear1", "256 images"):
        assert word in done.stdout


def test_verify_compares_on_the_images_that_it_is_given(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", random_images(3, (28, 28)))
    done = verify(bundle.path, "--images", tmp_path / "images.npy")
    assert done.returncode == 0, done.stderr
    assert "on 3 images" in done.stdout


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 27, 28), np.uint8), "expected uint8 or float32 of shape [N, 28, 28]"),
        (np.zeros((3, 28, 28), np.int64), "got int64"),
        (np.zeros((0, 28, 28), np.uint8), "no images to compare on"),
        (np.full((1, 28, 28), 255, np.float32), "expected values from 0 to 1, got 255 to 255"),
        (np.full((1, 28, 28), np.nan, np.float32), "expected values from 0 to 1, got nan"),
    ],
)
def test_verify_refuses_images_of_another_form(
    bundle: Bundle, tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "images.npy", array)
    done = verify(bundle.path, "--images", tmp_path / "images.npy")
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_named_by_verify_and_by_the_server(tiny: Bundle, name: str) -> None:
    flip_a_byte(tiny.path / name)
    assert name in verify(tiny.path).stderr
    models_dir = tiny.path.parent.parent
    done = run_server_until_it_ends("--models-dir", str(models_dir), "--model", "tiny")
    assert done.returncode == 1
    assert f"can't start: {tiny.path / name}: the manifest says" in done.stderr


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_no_runtime_can_read_is_one_clear_error(tiny: Bundle, name: str) -> None:
    """Though its hash is right."""
    (tiny.path / name).write_bytes(b"garbage")
    entry = describe(name, b"garbage").model_dump()
    edit(tiny, lambda m: m.update(files=[f for f in m["files"] if f["name"] != name] + [entry]))
    done = verify(tiny.path)
    assert done.returncode == 1
    assert str(tiny.path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_and_an_unlisted_file_are_named(tiny: Bundle) -> None:
    tiny.verify_files()
    (tiny.path / "stray.txt").write_text("x")
    tiny.verify_files()  # a stray file does not keep a server from starting
    done = verify(tiny.path)
    assert done.returncode == 1
    assert "does not list stray.txt" in done.stderr
    (tiny.path / "model.ts").unlink()
    with pytest.raises(BundleError, match=r"model\.ts: can't be read"):
        tiny.verify_files()


def edit(tiny: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = tiny.path / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs"),
        (lambda m: m["labels"].pop(), "1 labels for an output"),
        (lambda m: m["stages"][3].update(shape=[5]), "stage 'relu'"),
        (lambda m: m["stages"][1].update(name="relu"), "stage names must differ"),
        (lambda m: m["stages"].pop(), "end with Output"),
        (lambda m: m["files"][0].update(name="../model.onnx"), "files.0.name"),
    ],
)
def test_a_malformed_manifest_is_refused_with_the_field(
    tiny: Bundle, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(tiny, change)
    with pytest.raises(BundleError, match=message):
        open_bundle(tiny.path)


def test_a_manifest_that_is_no_json_is_refused(tiny: Bundle) -> None:
    (tiny.path / MANIFEST_NAME).write_bytes(b"\xff{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(tiny.path)


def test_the_newest_version_is_found_and_an_older_one_can_be_pinned(tmp_path: Path) -> None:
    for _ in range(10):  # 10 comes after 9, which the order of names would not give
        publish_random_bundle(tmp_path, "tiny")
    assert find_bundle(tmp_path, "tiny", None).manifest.version == 10
    assert find_bundle(tmp_path, "tiny", 9).manifest.version == 9
    (tmp_path / "tiny" / "latest").mkdir()
    (tmp_path / "tiny" / "007").mkdir()
    assert versions(tmp_path, "tiny") == list(range(1, 11))


def test_what_is_not_there_is_answered_with_what_is(tiny: Bundle, tmp_path: Path) -> None:
    models_dir = tiny.path.parent.parent
    with pytest.raises(BundleError, match=r"no model 'big'.*models there: tiny"):
        find_bundle(models_dir, "big", None)
    with pytest.raises(BundleError, match=r"no version 7 .*versions there: 1\)"):
        find_bundle(models_dir, "tiny", 7)
    with pytest.raises(BundleError, match="no models there"):
        find_bundle(tmp_path / "nowhere", "tiny", None)


def test_a_bundle_in_the_folder_of_another_is_refused(tiny: Bundle) -> None:
    shutil.copytree(tiny.path, tiny.path.parent / "2")
    with pytest.raises(BundleError, match=r"is of 'tiny' version 1, .* version 2"):
        find_bundle(tiny.path.parent.parent, "tiny", None)


def test_a_publication_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_bundle(tmp_path, "tiny") as (folder, version):
            assert version == 1
            (folder / "model.onnx").write_bytes(b"half")
            assert versions(tmp_path, "tiny") == [], "a reader must not see it yet"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((tmp_path / "tiny").iterdir()) == []
