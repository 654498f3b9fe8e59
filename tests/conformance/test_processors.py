"""A bundle made on one kind of processor verifies and serves on another.

QEMU emulates a processor without AVX-512, so other kernels of ONNX Runtime and NumPy run.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from export.runtimes import Runner
from forward_client import ForwardClient
from tests.support.bundles import MODELS_DIR, REPOSITORY, random_images
from tests.support.servers import start_server

QEMU = shutil.which("qemu-x86_64")
# The last Intel server processor without AVX-512's kin; QEMU warns of what it can't emulate.
AVX2_PROCESSOR = "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid"

pytestmark = [
    pytest.mark.one_transport,
    pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (Debian: qemu-user)"),
    pytest.mark.skipif(
        platform.machine() not in {"x86_64", "AMD64"}, reason="emulates an x86-64 processor"
    ),
]


@pytest.fixture
def avx2() -> list[str]:
    """The words before a command that run it on a processor with AVX2 and no more."""
    assert QEMU
    return [QEMU, "-cpu", AVX2_PROCESSOR]


def run(*command: str | Path) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_emulated_processor_has_avx2_only(avx2: list[str]) -> None:
    script = "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions']['found'])"
    assert run(*avx2, sys.executable, "-c", script).strip() == "['X86_V3']"


def test_the_bundled_model_verifies_with_avx2_only(avx2: list[str]) -> None:
    command = (sys.executable, "-W", "error", "-m", "export", "verify", "--runtime", "onnx")
    printed = run(*avx2, *command, MODELS_DIR / "mnist" / "1")
    assert "onnx: every stage of" in printed


def test_a_parity_record_of_avx2_holds_here(
    avx2: list[str], bundle: Bundle, tmp_path: Path
) -> None:
    """T2 compares with the errors that a manifest records, whoever recorded them."""
    copy = tmp_path / "mnist" / "1"
    shutil.copytree(bundle.path, copy)
    compare = (sys.executable, "-W", "error", "-m", "export", "compare", "--runtime", "onnx", copy)
    run(*avx2, *compare, "--record")
    run(*compare)


@pytest.fixture
def emulated(avx2: list[str]) -> Iterator[ForwardClient]:
    """A client of a server of the bundled model, with AVX2 alone."""
    with (
        start_server(prefix=avx2) as server,
        ForwardClient(server.address, timeout_seconds=60) as client,
    ):
        yield client


def test_the_bundled_model_is_served_with_avx2_only(emulated: ForwardClient, eager: Runner) -> None:
    images = random_images(64, (28, 28))
    prediction, trace = emulated.predict(images), emulated.trace(images, detail="full")
    np.testing.assert_allclose(prediction.logits, eager.predict(images), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(prediction.logits, trace.logits)
    relu = next(stage for stage in trace.stages if stage.name == "relu")
    expected = eager.trace(images, ["relu"])["relu"]
    assert relu.values is not None
    np.testing.assert_allclose(relu.values, expected, rtol=0, atol=1e-4)
