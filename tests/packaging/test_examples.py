"""Every example runs against a real server and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from export.runtimes import Runner
from tests.support.bundles import REPOSITORY
from tests.support.certificates import Authority
from tests.support.servers import RunningServer, start_server

EXAMPLES = REPOSITORY / "examples"


def run(name: str, *arguments: str | Path) -> str:
    """Run an example that must succeed; return what it printed."""
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_predict_names_the_digit(served: RunningServer) -> None:
    assert run("predict.py", served.address) == "digit.png shows a 3\n"


def test_trace_prints_the_stages_asked_for(served: RunningServer) -> None:
    lines = run("trace.py", served.address).splitlines()
    assert [line.split(",")[0] for line in lines] == ["relu: (2", "output: (2"]


def test_stream_prints_the_classes_of_eager_torch(served: RunningServer, eager: Runner) -> None:
    lines = run("stream.py", served.address).splitlines()
    random = np.random.default_rng(0)
    for number, line in enumerate(lines):
        batch = random.integers(0, 256, (64, 28, 28), np.uint8).astype(np.float32) / 255
        classes = np.bincount(eager.predict(batch).argmax(axis=1), minlength=10)
        assert line == f"batch {number}: {classes.tolist()}"
    assert len(lines) == 10


def test_ask_why_explains_and_tests_the_answer(served: RunningServer) -> None:
    why, changed, certified, error = run("ask_why.py", served.address).splitlines()
    assert why == "a 3, above all by the units [18, 25, 24, 57]"
    assert changed == "without them it would be 8"
    assert certified == "no runtime decides otherwise: True"
    assert error.startswith("the largest error of ONNX Runtime: ")


def test_tls_calls_a_server_with_a_token(tmp_path: Path) -> None:
    authority, tokens = Authority(tmp_path / "ca"), tmp_path / "tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    arguments = (*authority.issue().arguments(), "--token-file", str(tokens))
    with start_server(*arguments) as server:
        address = f"localhost:{server.ready['grpc_port']}"
        printed = run("tls.py", address, authority.ca, tokens)
    assert printed == "mnist version 1 on onnx\n"


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text()
    names = [path.name for path in EXAMPLES.glob("*.py")]
    assert names
    assert [name for name in names if f'run("{name}"' not in source] == []
