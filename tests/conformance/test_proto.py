"""The contract: generated code is fresh, and the lint passes."""

import subprocess
import sys
from pathlib import Path

from tests.support.bundles import REPOSITORY

# Each with the folder of the distribution that its Python code belongs to.
PROTOS = {"forward/v1/forward": "client", "inference/open_inference": "proto"}
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
            *(f"proto/{proto}.proto" for proto in PROTOS),
        ],
        cwd=REPOSITORY,
        check=True,
    )
    for proto, folder in PROTOS.items():
        for name in (f"{proto}{suffix}" for suffix in GENERATED):
            committed = (REPOSITORY / folder / name).read_text()
            assert (tmp_path / name).read_text() == committed, f"{name} is stale: run make proto"


def test_every_proto_is_compared() -> None:
    there = {
        str(path.relative_to(REPOSITORY / "proto").with_suffix(""))
        for path in (REPOSITORY / "proto").rglob("*.proto")
    }
    assert there == PROTOS.keys()


def test_the_proto_passes_buf_lint() -> None:
    done = subprocess.run(
        [BIN / "buf", "lint"], cwd=REPOSITORY / "proto", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
