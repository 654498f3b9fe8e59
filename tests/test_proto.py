"""The contract: generated code is fresh, and the lint passes."""

import subprocess
import sys
from pathlib import Path

from tests.bundles import REPOSITORY

GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
BIN = Path(sys.executable).parent


def test_regenerating_leaves_no_difference(tmp_path: Path) -> None:
    out = f"{tmp_path}"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iproto"),
            *(f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"),
            f"--mypy_grpc_out=quiet:{out}",
            f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
            "proto/forward/v1/forward.proto",
        ],
        cwd=REPOSITORY,
        check=True,
    )
    for suffix in GENERATED:
        name = f"forward/v1/forward{suffix}"
        committed = (REPOSITORY / "proto" / name).read_text()
        assert (tmp_path / name).read_text() == committed, f"{name} is stale: run make proto"


def test_the_proto_passes_buf_lint() -> None:
    done = subprocess.run(
        [BIN / "buf", "lint"], cwd=REPOSITORY / "proto", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
