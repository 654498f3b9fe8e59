"""Bundles: whole or not there, and what is damaged is named."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args
from zipfile import ZipFile, is_zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from export.__main__ import main
from export.architecture import Runtime
from export.bundle import Bundle, find_bundle, is_version, model_folders, open_bundle, versions
from export.bundle.manifest import MANIFEST_NAME
from export.bundle.publishing import check_writable, staged_bundle, write_manifest
from export.bundle.weights import read_weights
from export.errors import BundleError, ExportError
from export.parity.vectors import check_vectors
from export.runtimes import open_runner
from export.writers import write_torchscript
from server.engine.model import load_verified
from tests.support.bundles import REPOSITORY, publish_random_bundle, republish
from tests.support.commands import run_here
from tests.support.servers import run_server_until_it_ends, start_server

RUNTIME_FILES = (
    "model.onnx",
    "trace.onnx",
    "interventions.onnx",
    "model.ts",
    "model.pt2",
    "weights.safetensors",
)
NO_VERSIONS = ("007", "0", "-1", "+3", "1.5", "1_000", "٣", "2026-11-25", str(2**63), "9" * 250)
PICTURES = ("history.png", "evaluation.png", "weights.png")
FILES = (
    *RUNTIME_FILES,
    *PICTURES,
    "vectors.npz",
    "recipe.toml",
    "history.jsonl",
    "snapshots.safetensors",
    "drift_reference.json",
    "MODEL_CARD.md",
)


FIGURES = {"max_error": 0, "mean_error": 0, "bound": 0, "margin": 0, "max_ulps": 0}
RECORD_OF_NOTHING = {
    "runtime": "onnx",
    "provider": "CPUExecutionProvider",
    "precision": "float32",
    "image_set": "test",
    "images": 1,
    "certified_share": 1,
    "stages": [{"stage": "convolution", **FIGURES}],
}


def verify(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here(main, "verify", path, *arguments)


def flip_a_byte(path: Path, share: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1
    path.write_bytes(data)


def test_verify_accepts_the_bundled_model_in_every_runtime(
    bundle: Bundle,
) -> None:
    done = verify(bundle.path)
    assert done.returncode == 0, done.stderr
    assert "manifest.json and 15 files match their hashes" in done.stdout
    for runtime in get_args(Runtime):
        assert re.search(f"^{runtime}: every stage of [0-9]+ recorded vectors", done.stdout, re.M)


def test_verify_finds_a_bundle_that_computes_something_else(bundle: Bundle, tmp_path: Path) -> None:
    stages, other = bundle.manifest.stages, read_weights(bundle)
    other["linear2.bias"] = other["linear2.bias"] + np.float32(0.01)
    contents = {"model.ts": write_torchscript(stages, other)}
    done = verify(republish(bundle, tmp_path, contents).path)
    assert done.returncode == 1
    assert "torchscript: fails: " in done.stderr
    assert "torchscript on torch.cpu does not compute this model: stage 'linear2'" in done.stderr
    assert len(re.findall("recorded vectors is correct", done.stdout)) == 4, "the others"


def test_these_are_all_files_of_the_bundled_model(bundle: Bundle) -> None:
    assert {file.name for file in bundle.manifest.files} == set(FILES)


@pytest.mark.parametrize("name", [*FILES, MANIFEST_NAME])
def test_verify_and_loading_name_a_flipped_byte(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = republish(bundle, tmp_path, {}).path / name
    flip_a_byte(path)
    assert str(path) in verify(path.parent).stderr
    with pytest.raises(BundleError, match=f"^{re.escape(str(path))}: "):
        load_verified(open_bundle(path.parent), "onnx", "cpu", threads=1)  # as a server does


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST_NAME])
def test_a_server_names_a_flipped_byte(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = republish(bundle, tmp_path, {}).path / name
    flip_a_byte(path)
    done = run_server_until_it_ends("--models-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"can't start: {path}: " in done.stderr


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 40))
def test_any_byte_of_the_manifest_is_guarded(tiny: Bundle, share: float) -> None:
    flip_a_byte(tiny.path / MANIFEST_NAME, share)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(tiny.path)


def test_an_edited_manifest_is_refused(tiny: Bundle) -> None:
    path = tiny.path / MANIFEST_NAME
    path.write_text(path.read_text().replace('"cat"', '"cow"'))
    with pytest.raises(BundleError, match=r"its own SHA-256 is .*damaged or edited"):
        open_bundle(tiny.path)


def test_a_manifest_is_replaced_whole(tiny: Bundle) -> None:
    changed = write_manifest(tiny.path, tiny.manifest.model_copy(update={"seed": 5}))
    assert open_bundle(tiny.path).manifest == changed.manifest
    assert changed.manifest.seed == 5
    changed.verify_files()
    assert changed.unlisted_files() == [], "nothing is left beside it"


@pytest.mark.parametrize("name", [*RUNTIME_FILES, "vectors.npz"])
def test_an_unreadable_file_is_one_clear_error(tiny: Bundle, tmp_path: Path, name: str) -> None:
    """Though its hash is right."""
    garbled = republish(tiny, tmp_path / "garbled", {name: b"garbage"})
    done = verify(garbled.path)
    assert done.returncode == 1
    assert str(garbled.path) in done.stderr
    assert "Traceback" not in done.stderr


def test_vectors_without_images_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    with np.load(tiny.path / "vectors.npz") as arrays:
        empty = {name: array[:0] for name, array in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **empty)
    bundle = republish(tiny, tmp_path / "empty", {"vectors.npz": buffer.getvalue()})
    with pytest.raises(BundleError, match=r"vectors\.npz: no images"):
        check_vectors(bundle, open_runner(bundle, "onnx", "cpu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("value/relu"), "no recorded vectors of every stage"),
        (lambda arrays: arrays.update(images=np.float32(1)), "no recorded vectors|no images|can't"),
        (lambda arrays: arrays["bound/relu"].fill(np.inf), "a bound is not finite"),
    ],
)
def test_unusable_vectors_are_refused(
    tiny: Bundle, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    with np.load(tiny.path / "vectors.npz") as file:
        arrays = dict(file.items())
    change(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    bundle = republish(tiny, tmp_path / "changed", {"vectors.npz": buffer.getvalue()})
    with pytest.raises(ExportError, match=message):
        check_vectors(bundle, open_runner(bundle, "onnx", "cpu"))


def test_vectors_in_another_format_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    bundle = republish(tiny, tmp_path / "changed", {"vectors.npz": buffer.getvalue()})
    with pytest.raises(BundleError, match=r"vectors\.npz: no recorded vectors"):
        check_vectors(bundle, open_runner(bundle, "onnx", "cpu"))


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("linear2.bias"),
        lambda weights: weights.update(extra=np.zeros(1, np.float32)),
        lambda weights: weights.update({"linear1.weight": np.zeros((4, 14), np.float32)}),
        lambda weights: weights.update({"linear2.bias": np.zeros(2, np.float64)}),
    ],
    ids=["missing", "left over", "another shape", "another dtype"],
)
def test_weights_of_another_network_are_refused(
    tiny: Bundle, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    weights = read_weights(tiny)
    change(weights)
    bundle = republish(tiny, tmp_path / "changed", {"weights.safetensors": save(weights)})
    with pytest.raises(BundleError, match=r"weights\.safetensors: expected the parameters"):
        read_weights(bundle)


def test_an_unreadable_folder_is_named(tiny: Bundle) -> None:
    name = "x" * 300  # longer than a file system takes
    with pytest.raises(BundleError, match="can't be read: File name too long"):
        find_bundle(tiny.path.parent.parent, name, None)


def test_no_file_contains_a_path_of_its_machine(bundle: Bundle, tiny: Bundle) -> None:
    paths = (str(REPOSITORY).encode(), b"site-packages")
    for one in (bundle, tiny):
        for file in one.manifest.files:
            contents = [one.read(file.name)]
            if is_zipfile(one.path / file.name):
                with ZipFile(one.path / file.name) as archive:
                    contents += [archive.read(entry) for entry in archive.infolist()]
            assert not [file.name for content in contents for path in paths if path in content]


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


def as_config_map(folder: Path) -> None:
    """Lay the files out as Kubernetes mounts them: links to links to a folder that is swapped."""
    data = folder / "..2026_11_25_08_00_00.1"
    data.mkdir()
    for path in list(folder.iterdir()):
        if path != data:
            path.rename(data / path.name)
            path.symlink_to(Path("..data") / path.name)
    (folder / "..data").symlink_to(data.name)


LEFTOVERS = (
    ".nfs000000001a2b3c4d00000001",
    ".DS_Store",
    "._model.onnx",
    ".fuse_hidden0000000100000001",
    ".Trash-1000/",
    ".snapshot/",
    "lost+found/",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    "@eaDir/",
)


@pytest.mark.parametrize("is_config_map", [True, False])
def test_a_bundle_on_any_mount_works(
    bundle: Bundle, tmp_path: Path, *, is_config_map: bool
) -> None:
    folder = republish(bundle, tmp_path, {}).path
    if is_config_map:
        as_config_map(folder)
    else:
        for name in LEFTOVERS:
            path = folder / name
            path.mkdir() if name.endswith("/") else path.write_bytes(b"\0\5\x16\7")
        (folder / ".gone").symlink_to("nowhere")
    done = verify(folder, "--runtime", "onnx")
    assert (done.returncode, done.stderr) == (0, "")
    with start_server("--models-dir", str(tmp_path)) as server:
        assert server.ready["version"] == bundle.manifest.version


@pytest.mark.parametrize("name", ["weights.bin", "model.onnx.data", "more/", "model.onnx~", "data"])
def test_an_unlisted_file_is_refused(tiny: Bundle, name: str) -> None:
    path = tiny.path / name
    path.mkdir() if name.endswith("/") else path.write_bytes(b"x")
    assert tiny.unlisted_files() == [path.name]
    done = verify(tiny.path)
    assert done.returncode == 1
    assert f"does not list {path.name}" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=3), "schema_version"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs"),
        (lambda m: m["labels"].pop(), "1 labels for an output"),
        (lambda m: m["stages"][3].update(shape=[5]), "stage 'relu'"),
        (lambda m: m["stages"][1].update(name="relu"), "stage names must differ"),
        (lambda m: m["stages"].pop(), "end with Output"),
        (lambda m: m["files"][0].update(name="../model.onnx"), "files.0.name"),
        (lambda m: m.update(parity=[RECORD_OF_NOTHING]), "parity of unknown stages"),
    ],
)
def test_a_malformed_manifest_is_refused_with_the_field(
    tiny: Bundle, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = tiny.path / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        open_bundle(tiny.path)


def test_a_manifest_that_is_no_json_is_refused(tiny: Bundle) -> None:
    (tiny.path / MANIFEST_NAME).write_bytes(b"\xff{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(tiny.path)


def test_the_newest_or_a_pinned_version_is_found(tmp_path: Path) -> None:
    for _ in range(10):  # 10 comes after 9, which the order of names would not give
        publish_random_bundle(tmp_path, "tiny")
    assert find_bundle(tmp_path, "tiny", None).manifest.version == 10
    assert find_bundle(tmp_path, "tiny", 9).manifest.version == 9
    (tmp_path / "tiny" / "latest").mkdir()
    for name in NO_VERSIONS:
        (tmp_path / "tiny" / name).mkdir()
    assert versions(tmp_path, "tiny") == list(range(1, 11))
    assert sorted(model_folders(tmp_path, "tiny").unusable) == sorted(NO_VERSIONS)
    assert find_bundle(tmp_path, "tiny", None).manifest.version == 10
    assert publish_random_bundle(tmp_path, "tiny").manifest.version == 11


def test_invalid_version_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "tiny" / "007").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"folders there: '007'\); expected a number from 1 to"):
        find_bundle(tmp_path, "tiny", None)


@given(st.from_regex(r"[0-9]{1,25}", fullmatch=True) | st.text("0123456789٣²-+._ab"))
def test_a_version_is_an_int64_in_plain_digits(name: str) -> None:
    canonical = name.isascii() and name.isdigit() and not name.startswith("0")
    assert is_version(name) == (canonical and int(name) < 2**63)


def test_a_manifest_version_fits_into_int64(tiny: Bundle) -> None:
    for version in (0, 2**63):
        with pytest.raises(BundleError, match="version: Input should be"):
            write_manifest(tiny.path, tiny.manifest.model_copy(update={"version": version}))
    write_manifest(tiny.path, tiny.manifest.model_copy(update={"version": 2**63 - 1}))


def test_nothing_is_published_after_the_largest_version(
    tmp_path: Path,
) -> None:
    (tmp_path / "tiny" / str(2**63 - 1)).mkdir(parents=True)
    with pytest.raises(BundleError, match="is the largest possible version"):
        check_writable(tmp_path, "tiny")


def test_a_file_named_as_a_version_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "1").write_text("a file")
    assert publish_random_bundle(tmp_path, "tiny").manifest.version == 2


def test_a_missing_model_or_version_names_the_existing(tiny: Bundle, tmp_path: Path) -> None:
    models_dir = tiny.path.parent.parent
    with pytest.raises(BundleError, match=r"no model 'big'.*models there: tiny"):
        find_bundle(models_dir, "big", None)
    with pytest.raises(BundleError, match=r"no version 7 .*versions there: 1\)"):
        find_bundle(models_dir, "tiny", 7)
    with pytest.raises(BundleError, match="no models there"):
        find_bundle(tmp_path / "nowhere", "tiny", None)


def test_a_bundle_in_a_wrong_folder_is_refused(tiny: Bundle) -> None:
    shutil.copytree(tiny.path, tiny.path.parent / "2")
    with pytest.raises(BundleError, match=r"is of 'tiny' version 1, .* version 2"):
        find_bundle(tiny.path.parent.parent, "tiny", None)


def test_concurrent_publications_get_different_versions(tmp_path: Path) -> None:
    def publish(_: int) -> int:
        with staged_bundle(tmp_path, "tiny") as (folder, version):
            (folder / "model.onnx").write_bytes(b"x")
            return version

    with ThreadPoolExecutor(8) as pool:
        given = sorted(pool.map(publish, range(16)))
    assert given == versions(tmp_path, "tiny") == list(range(1, 17))


def test_a_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_bundle(tmp_path, "tiny") as (folder, version):
            assert version == 1
            (folder / "model.onnx").write_bytes(b"half")
            assert versions(tmp_path, "tiny") == [], "a reader must not see it yet"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((tmp_path / "tiny").iterdir()) == []
