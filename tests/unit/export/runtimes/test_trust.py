"""Nothing is unpickled, and no program of a bundle is loaded unless its runtime was asked for."""

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from export.bundle import Bundle
from export.bundle.manifest import PT2_FILE, TORCHSCRIPT_FILE
from forward_client import ForwardClient
from tests.support.bundles import REPOSITORY, random_images, republish
from tests.support.servers import run_server_until_it_ends, start_server

PACKAGES = ("server", "client/forward_client", "export", "training", "bench", "docs")
UNSAFE_MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("yaml", "jsonpickle"),
}
UNSAFE_CALLS = {"torch.load", "torch.jit.load", "torch.export.load", "eval", "exec"}
# Programs of a bundle, for the runtimes that run programs.
ALLOWED = {"export/runtimes/torch.py": {"torch.jit.load", "torch.export.load"}}
NO_PICKLES = "allow_pickle"

# Notes what a server does that could run somebody's code, from its first line on.
WATCHER = """
import os, sys
note = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def hook(event, arguments):
    if event == "pickle.find_class":
        os.write(note, f"pickle {arguments}\\n".encode())
    elif event == "open" and str(arguments[0]).endswith(("model.ts", "model.pt2", "model.onnx")):
        os.write(note, f"open {os.path.basename(arguments[0])}\\n".encode())
    elif event == "import" and arguments[0] == "torch":
        os.write(note, b"import torch\\n")
sys.addaudithook(hook)
"""


class Bomb:
    """Runs a program of its own when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (self._marker, 0o755)


def unsafe(source: str) -> set[str]:
    """Return what a source has that can run code out of data."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if root(alias.name) in UNSAFE_MODULES}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= {
                name for name in names if root(name) in UNSAFE_MODULES or name in UNSAFE_CALLS
            }
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in UNSAFE_CALLS:
                found.add(name)
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg == NO_PICKLES and not (
                    isinstance(value, ast.Constant) and value.value is False
                ):
                    found.add(f"{name}({NO_PICKLES})")
    return found


def root(module: str) -> str:
    return module.partition(".")[0]


def test_only_the_torch_runtimes_load_programs() -> None:
    sources = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert len(sources) > 50
    found = {
        str(path.relative_to(REPOSITORY)): unsafe(path.read_text(encoding="utf-8"))
        for path in sources
    }
    assert {path: names for path, names in found.items() if names} == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def late():\n    import joblib.externals",
        "torch.load(path)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "import yaml",
        "eval(text)",
    ],
)
def test_unsafe_code_is_found(source: str) -> None:
    assert unsafe(source)


def test_safe_code_is_not_found() -> None:
    assert not unsafe("import json\nnp.load(path, allow_pickle=False)\nmodel.eval()")


def poisoned(bundle: Bundle, folder: Path) -> tuple[Bundle, Path]:
    """Return a copy whose programs are bombs, their hashes right, and what they make."""
    marker = folder / "went-off"
    bomb = pickle.dumps(Bomb(marker))
    copy = republish(bundle, folder / "poisoned", {TORCHSCRIPT_FILE: bomb, PT2_FILE: bomb})
    return copy, marker


def test_unpickling_the_program_runs_its_code(tiny: Bundle, tmp_path: Path) -> None:
    bundle, marker = poisoned(tiny, tmp_path)
    code = f"import pickle; pickle.loads(open({str(bundle.path / PT2_FILE)!r}, 'rb').read())"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert marker.exists()


def test_an_onnx_server_loads_no_program_nor_pickle(tiny: Bundle, tmp_path: Path) -> None:
    """It reads each file once, for its hash, and model.onnx once more for each that loads it."""
    bundle, marker = poisoned(tiny, tmp_path)
    (tmp_path / "sitecustomize.py").write_text(WATCHER)
    watched = tmp_path / "watched"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    arguments = (
        "--models-dir",
        str(bundle.path.parent.parent),
        "--model",
        "tiny",
        "--device",
        "cpu",
    )
    with (
        start_server(*arguments, PYTHONPATH=path, WATCHED=str(watched)) as server,
        ForwardClient(server.address) as caller,
    ):
        images = random_images(2, (3, 5))
        assert (caller.predict(images).logits == caller.trace(images).logits).all()
        assert server.stop() == 0
    loads = 2 if server.ready["transport"] == "native" else 1  # Python, and the lane
    noted = sorted(watched.read_text().splitlines())
    assert noted == ["open model.onnx"] * (1 + loads) + ["open model.pt2", "open model.ts"]
    assert not marker.exists()


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "pt2"])
def test_a_replaced_program_stops_the_start(tiny: Bundle, tmp_path: Path, runtime: str) -> None:
    """Whatever the runtime is: a bundle that was tampered with is not served at all."""
    copy = republish(tiny, tmp_path / "replaced", {})
    marker = tmp_path / "went-off"
    for name in (TORCHSCRIPT_FILE, PT2_FILE):
        (copy.path / name).write_bytes(pickle.dumps(Bomb(marker)))
    models_dir = str(copy.path.parent.parent)
    done = run_server_until_it_ends(
        "--models-dir", models_dir, "--model", "tiny", "--runtime", runtime
    )
    assert done.returncode == 1
    assert "it was damaged or replaced" in done.stderr
    assert "Traceback" not in done.stderr
    assert not marker.exists()
