"""`python -m export compare`, as its users run it."""

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from export.__main__ import main
from export.bundle import Bundle, open_bundle
from export.bundle.publishing import write_manifest
from export.bundle.weights import read_weights
from export.parity.compare import ImageSet, compare, variants_of
from export.parity.heatmap import NOTHING, heatmap
from export.parity.report import print_report
from export.writers import write_onnx
from tests.support.bundles import REPOSITORY, random_images, republish
from tests.support.commands import run_here

STAGES = ["input", "flatten", "linear1", "relu", "linear2", "output"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "export", "compare", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def report_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Run it in this process, which is quicker, and return its JSON."""
    capsys.readouterr()
    main(["compare", *map(str, arguments), "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    return republish(bundle, tmp_path / "copy", {})


@pytest.fixture
def faulty(bundle: Bundle, tmp_path: Path) -> Bundle:
    """ONNX files of a network whose sixth hidden unit has another bias."""
    weights = read_weights(bundle)
    weights["linear1.bias"][5] += 0.01
    stages = bundle.manifest.stages
    contents = {
        "model.onnx": write_onnx(stages, weights, traced=False),
        "trace.onnx": write_onnx(stages, weights, traced=True),
    }
    return republish(bundle, tmp_path / "faulty", contents)


def test_compare_prints_every_runtime_and_stage(bundle: Bundle) -> None:
    done = run(bundle.path)
    assert done.returncode == 0, done.stderr
    assert "260 images (synthetic) against float64 NumPy: all hold" in done.stdout
    for runtime in ("eager", "torchscript", "pt2", "onnx", "onnx-reference"):
        (row,) = [line for line in done.stdout.splitlines() if line.split()[:2] == [runtime, "cpu"]]
        assert row.split()[2:7] == ["float32", "ok", "ok", "ok", "-"]
    for stage in STAGES:
        rows = [line for line in done.stdout.splitlines() if f" {stage} " in line]
        assert len(rows) == 5, stage


def test_a_diverging_runtime_ends_it_with_1(faulty: Bundle) -> None:
    done = run_here(main, "compare", faulty.path, "--device", "cpu")
    assert done.returncode == 1
    assert "not all hold" in done.stdout
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if " cpu " in line}
    assert rows["onnx"][-1] == rows["onnx-reference"][-1] == "linear1"
    (share,) = {
        one.certified_share
        for one in faulty.manifest.parity
        if (one.runtime, one.image_set) == ("eager", "synthetic")
    }
    assert rows["eager"][3:] == ["ok", "ok", "ok", "-", f"{share:.2%}"]
    assert "fails: onnx cpu float32: T1: stage 'linear1' diverges: element [5] of image 0" in (
        " ".join(done.stdout.split())
    )


def test_json_has_the_figures_of_the_comparison(
    bundle: Bundle, faulty: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of(capsys, faulty.path, "--device", "cpu")
    direct = compare(
        faulty,
        read_weights(bundle),
        ImageSet("x", random_images(1, (28, 28))),
        variants_of(devices=("cpu",)),
    )
    assert [one["runtime"] for one in report["comparisons"]] == [
        one.runtime for one in direct.comparisons
    ]
    onnx = report["comparisons"][3]
    assert (onnx["status"], onnx["first_departing_stage"]) == ("fails", "linear1")
    assert onnx["tiers"]["T1"] == "fails"
    by_stage = {stage["stage"]: stage for stage in onnx["record"]["stages"]}
    assert by_stage["linear1"]["max_error"] == pytest.approx(0.01, rel=0.01)
    assert by_stage["flatten"]["max_error"] == 0


def test_runtimes_devices_and_precisions_are_as_requested(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    def variants(*arguments: str) -> list[tuple[str, str, str]]:
        report = report_of(capsys, bundle.path, *arguments)
        return [(c["runtime"], c["device"], c["precision"]) for c in report["comparisons"]]

    assert len(variants()) == 10
    assert variants("--runtime", "pt2", "--device", "cpu") == [("pt2", "cpu", "float32")]
    assert variants("--runtime", "pt2", "--runtime", "onnx", "--device", "cpu") == [
        ("pt2", "cpu", "float32"),
        ("onnx", "cpu", "float32"),
    ]
    assert variants("--runtime", "eager", "--device", "cuda", "--precision", "tf32") == [
        ("eager", "cuda", "tf32")
    ]


def test_a_missing_device_is_no_success(bundle: Bundle) -> None:
    done = run_here(main, "compare", bundle.path, "--runtime", "onnx-reference", "--device", "cuda")
    assert done.returncode == 1
    assert "nothing was compared" in done.stdout
    assert "not run: onnx-reference cuda float32: " in done.stdout


def idx(images: np.ndarray) -> bytes:
    return b"\0\0\x08\x03" + struct.pack(">3I", *images.shape) + images.tobytes()


@pytest.mark.parametrize("name", ["bytes.npy", "floats.npy", "images-idx3-ubyte", "images.gz"])
def test_images_are_read_in_each_format(
    bundle: Bundle, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    path = tmp_path / name
    if name == "images-idx3-ubyte":
        path.write_bytes(idx(images))
    elif name == "images.gz":
        path.write_bytes(gzip.compress(idx(images)))
    else:
        np.save(path, images if "bytes" in name else images / np.float32(255))
    arguments = (bundle.path, "--runtime", "onnx", "--device", "cpu", "--images")
    report = report_of(capsys, *arguments, path)
    assert re.fullmatch(f"{name} [0-9a-f]{{8}}", report["image_set"])
    assert report["images"] == 3
    plain = compare(
        bundle,
        read_weights(bundle),
        ImageSet(report["image_set"], images / np.float32(255)),
        variants_of(("onnx",), ("cpu",)),
    )
    assert report["comparisons"][0]["record"] == json.loads(plain.records()[0].model_dump_json())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 27, 28), np.uint8), "expected uint8 or float32 of shape [N, 28, 28]"),
        (np.zeros((3, 28, 28), np.int64), "got int64"),
        (np.zeros((0, 28, 28), np.uint8), "no images"),
        (np.full((1, 28, 28), 255, np.float32), "expected values from 0 to 1, got 255 to 255"),
        (np.full((1, 28, 28), np.nan, np.float32), "expected values from 0 to 1, got nan"),
    ],
)
def test_images_of_another_form_are_refused(
    bundle: Bundle,
    tmp_path: Path,
    array: np.ndarray,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "images.npy", array)
    assert main(["compare", str(bundle.path), "--images", str(tmp_path / "images.npy")]) == 1
    assert message in capsys.readouterr().err


def npy_header(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b"garbage", "can't be read"),
        (b"\x1f\x8bgarbage", "can't be read"),
        (b"\0\0\x08\x03\0\0", "can't be read"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "got 1567"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "got 0"),
        (gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)), mtime=0)[:40], "can't be read"),
        (gzip.compress(bytes(99), mtime=0)[:12] + b"\xff" * 20, "can't be read"),
        (b"\0\0\x08\x01\0\0\0\x01\x07", "begins like neither"),
        (b"\x89PNG\r\n", "begins like neither"),
        (npy_header("(99999999999999, 28, 28)"), "can't be read"),
        (npy_header("(1, 28, 28"), "can't be read"),
        (npy_header("[[[]"), "can't be read"),
        (idx(np.zeros((2, 27, 28), np.uint8)), "shape [2, 27, 28]"),
    ],
)
def test_files_that_hold_no_images_are_refused(
    bundle: Bundle,
    tmp_path: Path,
    content: bytes,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_bytes(content)
    assert main(["compare", str(bundle.path), "--images", str(tmp_path / "file")]) == 1
    assert message in capsys.readouterr().err
    assert main(["compare", str(bundle.path), "--images", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: can't be read" in capsys.readouterr().err


def test_the_picture_shows_the_unit_that_is_wrong(faulty: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "parity.png"
    assert main(["compare", str(faulty.path), "--device", "cpu", "--picture", str(path)]) == 1
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 800
    report = compare(
        faulty,
        read_weights(faulty),
        ImageSet("x", random_images(9, (28, 28))),
        variants_of(devices=("cpu",)),
    )
    assert int(np.argmax(report.comparisons[3].unit_errors["linear1"])) == 5
    axes = heatmap(report, faulty.manifest.stages).axes[:3]
    margins = [[stage.margin for stage in record.stages] for record in report.records()]
    first, second = (
        [one.unit_errors[stage] for one in report.comparisons] for stage in ("linear1", "linear2")
    )
    expected = [np.array(margins), np.array(first), np.array(second)]
    for axis, figures in zip(axes, expected, strict=True):
        drawn = np.asarray(axis.images[0].get_array())
        np.testing.assert_allclose(drawn, np.maximum(figures, NOTHING))
    words = [text.get_text() for text in axes[0].texts]
    assert len(words) == 30
    for text, record in zip(words[4::6], report.records(), strict=True):  # of linear2
        assert text.startswith(f"{record.stages[4].max_error:.1e}  ")


def test_a_picture_takes_names_as_they_are(bundle: Bundle, tmp_path: Path) -> None:
    """Matplotlib would read mathematics between two dollars."""
    np.save(tmp_path / "x$_$y.npy", random_images(2, (28, 28)))
    arguments = ["--images", str(tmp_path / "x$_$y.npy"), "--picture", str(tmp_path / "a.png")]
    assert main(["compare", str(bundle.path), "--runtime", "onnx", *arguments]) == 0
    assert (tmp_path / "a.png").exists()


def test_an_impossible_heatmap_is_a_clear_error(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(bundle.path), "--runtime", "onnx-reference", "--picture"]
    assert main([*arguments, str(tmp_path / "a.png"), "--device", "cuda"]) == 1
    assert "there is no picture to draw" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "no" / "a.png")]) == 1
    assert "can't be written" in capsys.readouterr().err


ONNX = ("--runtime", "onnx", "--device", "cpu")


def recorded(bundle: Bundle) -> list[tuple[str, str, int]]:
    parity = open_bundle(bundle.path).manifest.parity
    return [(one.runtime, one.image_set.split()[0], one.images) for one in parity]


def test_a_recorded_comparison_guards_from_then_on(
    copy: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of the user's own are recorded together with the synthetic ones."""
    write_manifest(copy.path, copy.manifest.model_copy(update={"parity": ()}))
    np.save(tmp_path / "mine.npy", random_images(5, (28, 28)))
    before = report_of(capsys, copy.path, *ONNX)
    assert before["comparisons"][0]["tiers"]["T2"] == "not judged"
    assert recorded(copy) == [], "it was not asked to record"
    for _ in range(2):  # the second takes the place of the first
        report_of(capsys, copy.path, *ONNX, "--images", tmp_path / "mine.npy", "--record")
        assert recorded(copy) == [("onnx", "mine.npy", 5), ("onnx", "synthetic", 260)]
    after = report_of(capsys, copy.path, *ONNX)
    assert after["comparisons"][0]["tiers"]["T2"] == "holds"


@pytest.mark.parametrize("pixel", [0.0, 0.01])
def test_a_record_of_dim_images_starts_servers(copy: Bundle, tmp_path: Path, pixel: float) -> None:
    """Their errors are far below those of the vectors that a server checks itself with."""
    write_manifest(copy.path, copy.manifest.model_copy(update={"parity": ()}))
    np.save(tmp_path / "dim.npy", np.full((3, 28, 28), pixel, np.float32))
    dim = ("--device", "cpu", "--images", str(tmp_path / "dim.npy"))
    main(["compare", str(copy.path), *dim, "--record"])
    assert len(recorded(copy)) == 10
    assert main(["verify", str(copy.path)]) == 0
    assert main(["compare", str(copy.path)]) == 0


def test_a_file_of_any_name_leaves_the_trainers_records(copy: Bundle, tmp_path: Path) -> None:
    for name in ("test", "synthetic"):
        with (tmp_path / name).open("wb") as file:
            np.save(file, random_images(3, (28, 28)))
        main(["compare", str(copy.path), "--images", str(tmp_path / name), "--record"])
    kept = {(one, images) for _, one, images in recorded(copy)}
    assert {("test", 10_000), ("test", 3), ("synthetic", 260), ("synthetic", 3)} == kept


def test_a_record_that_was_left_can_be_renewed(
    copy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine may rightly round otherwise than the one that published."""
    parity = [
        one.model_copy(
            update={
                "stages": tuple(
                    stage.model_copy(update={"max_error": stage.max_error / 100})
                    for stage in one.stages
                )
            }
        )
        for one in copy.manifest.parity
    ]
    write_manifest(copy.path, copy.manifest.model_copy(update={"parity": tuple(parity)}))
    before = report_of(capsys, copy.path, *ONNX)
    assert before["comparisons"][0]["tiers"]["T2"] == "fails"
    assert "compare --record`" in before["comparisons"][0]["faults"][0]["text"]
    assert main(["verify", str(copy.path), "--runtime", "onnx"]) == 1
    report_of(capsys, copy.path, *ONNX, "--record")
    assert main(["compare", str(copy.path), *ONNX]) == 0
    assert main(["verify", str(copy.path), "--runtime", "onnx"]) == 0


def test_an_unwritable_record_is_a_clear_error(
    copy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.path / ".manifest.json").mkdir()  # where the new one is written, for root as well
    arguments = ["--runtime", "onnx", "--device", "cpu", "--record"]
    assert main(["compare", str(copy.path), *arguments]) == 1
    assert f"{copy.path}: can't be written: Is a directory" in capsys.readouterr().err
    assert open_bundle(copy.path).manifest == copy.manifest


def test_a_diverging_runtime_is_not_recorded(
    faulty: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(faulty.path), "--device", "cpu", "--record"]) == 1
    message = "not recorded: onnx cpu float32, onnx-reference cpu float32 failed T0 or T1"
    assert message in capsys.readouterr().err
    assert open_bundle(faulty.path).manifest == faulty.manifest


def test_the_tables_fit_a_terminal_of_80_columns(bundle: Bundle) -> None:
    report = compare(
        bundle,
        read_weights(bundle),
        ImageSet("x", random_images(2, (28, 28))),
        variants_of(devices=("cpu",)),
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    print_report(console, report, bundle.path)
    assert "…" not in console.export_text()


def test_verify_opens_the_requested_runtimes(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle.path), "--runtime", "onnx"]) == 0
    assert re.findall("^([a-z0-9-]+): every stage", capsys.readouterr().out, re.MULTILINE) == [
        "onnx"
    ]


def test_a_broken_torch_is_not_the_bundles_fault(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcublas.so.13: no such file')")
    done = subprocess.run(
        [sys.executable, "-m", "export", "verify", bundle.path],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eager: not run: runtime 'eager' can't be imported: libcublas.so.13" in done.stdout
    assert "onnx: every stage of" in done.stdout


def test_without_the_train_extra_it_is_named(bundle: Bundle) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch']))"
    code = f"{blocked}; from export.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", bundle.path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all hold" in done.stdout
    needed = "not run: eager cpu float32: runtime 'eager' needs 'torch'; install the train extra"
    assert needed in " ".join((done.stdout + done.stderr).split())
    verified = subprocess.run(
        [sys.executable, "-c", code.replace("']", "', 'onnx']"), "verify", bundle.path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert "onnx: every stage of" in verified.stdout
    assert "torchscript: not run: runtime 'torchscript' needs 'torch'" in verified.stdout
