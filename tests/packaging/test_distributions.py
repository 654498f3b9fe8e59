"""The two distributions, built and installed as their users get them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forward_client import ForwardClient
from tests.support.bundles import REPOSITORY
from tests.support.servers import RunningServer

BIN = Path(sys.executable).parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
# Of a project that has folders named as ours, and calls a server.
PROGRAM = """
import json, sys
import numpy as np
import client, server
from forward_client import ForwardClient, ForwardError
assert (client.OWN, server.OWN) == ("theirs", "theirs")
images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
with ForwardClient(sys.argv[1]) as caller:
    answers = {
        "predict": caller.predict(images).logits.tolist(),
        "trace": [stage.name for stage in caller.trace(images).stages],
        "stream": [one.logits.tolist() for one in caller.predict_stream([images, images])],
    }
    try:
        caller.predict(images[:, 1:])
    except ForwardError as error:
        answers["violation"] = error.violations[0][0]
print(json.dumps(answers))
"""


def run(
    *command: str | Path, folder: Path = REPOSITORY, env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def succeed(*command: str | Path, **variables: str) -> None:
    done = run(*command, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Project:
    """Somebody's project: a folder, and an environment that has the client's wheel alone."""

    folder: Path
    bin: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        return run(self.bin / command, *arguments, folder=self.folder, env=clean)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The client's wheel, built where there is nothing but its folder, and the server's."""
    folder = tmp_path_factory.mktemp("wheels")
    alone = folder / "alone"
    shutil.copytree(REPOSITORY / "client", alone, ignore=shutil.ignore_patterns("__pycache__"))
    # What builds both, got once: pip would get it for each.
    (backend,) = tomllib.loads((alone / "pyproject.toml").read_text())["build-system"]["requires"]
    succeed(*PIP, "install", "--target", folder / "backend", backend)
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", folder)
    succeed(*PIP, "wheel", *options, alone, REPOSITORY, PYTHONPATH=str(folder / "backend"))
    (client,), (server,) = folder.glob("forward_client-*"), folder.glob("forward_server-*")
    return client, server


@pytest.fixture(scope="module")
def project(
    wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    environment = folder / "environment"
    succeed(sys.executable, "-m", "venv", "--without-pip", environment)
    options = ("--no-compile", "--constraint", REPOSITORY / "constraints.txt")
    succeed(*PIP, "--python", environment / "bin" / "python", "install", *options, wheels[0])
    for package in ("client", "server"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text('OWN = "theirs"\n')
    (folder / "program.py").write_text(PROGRAM)
    yield Project(folder, environment / "bin")
    shutil.rmtree(environment)


def files_of(wheel: Path) -> set[str]:
    names = set(zipfile.ZipFile(wheel).namelist())
    return {name for name in names if ".dist-info/" not in name}


def settings_of(folder: str) -> dict[str, Any]:
    text = (REPOSITORY / folder / "pyproject.toml").read_text()
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def ranges_of(folder: str) -> dict[str, str]:
    """Return the range of each package that a distribution needs, without and with its extras."""
    project = settings_of(folder)
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [re.fullmatch(r"([\w-]+)(.*)", line) for lines in lists for line in lines]
    return {match[1]: match[2] for match in found if match}


def test_the_client_works_beside_packages_of_our_names(
    project: Project, served: RunningServer, client: ForwardClient
) -> None:
    done = project.run("python", "-W", "error", "program.py", served.address)
    assert (done.returncode, done.stderr) == (0, "")
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    logits = client.predict(images).logits.tolist()
    assert json.loads(done.stdout) == {
        "predict": logits,
        "trace": ["input", "flatten", "linear1", "relu", "linear2", "output"],
        "stream": [logits, logits],
        "violation": "images.shape",
    }


def test_the_example_of_the_clients_readme_runs(project: Project, served: RunningServer) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / "client/README.md").read_text(), re.M | re.S
    )
    assert "localhost:8001" in code
    code = code.replace("localhost:8001", served.address)
    done = project.run("python", "-W", "error", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "linear1" in done.stdout


def test_the_client_brings_six_packages_and_no_more(project: Project) -> None:
    code = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    assert set(project.run("python", "-c", code).stdout.split()) == {
        "forward-client",
        *("googleapis-common-protos", "grpcio", "grpcio-status", "numpy", "protobuf"),
        "typing_extensions",
    }


def test_the_health_check_needs_no_extra(project: Project, served: RunningServer) -> None:
    for command in (["forward-client"], ["python", "-m", "forward_client"]):
        done = project.run(*command, "health", "--address", served.address)
        assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")


@pytest.mark.parametrize("command", ["predict", "trace"])
def test_a_picture_without_the_extra_names_it(project: Project, command: str) -> None:
    done = project.run("forward-client", command, "digit.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"forward-client: {command} needs Pillow and rich: "
        "install forward-client with its extra, forward-client[cli]\n"
    )


def test_reading_pictures_without_the_extra_names_it(project: Project) -> None:
    done = project.run("python", "-c", "from forward_client.pictures import read_images")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: forward_client.pictures needs Pillow: "
        "install forward-client with its extra, forward-client[cli]"
    )


def test_the_wheels_share_no_package(wheels: tuple[Path, Path]) -> None:
    client, server = map(files_of, wheels)
    assert {name.split("/")[0] for name in client} == {"forward_client", "forward"}
    packages = {"server", "training", "export", "deploy", "inference"}
    assert {name.split("/")[0] for name in server} == packages


def test_the_client_is_typed(wheels: tuple[Path, Path]) -> None:
    typed = {"forward_client/py.typed", "forward/py.typed", "forward/v1/forward_pb2.pyi"}
    assert typed <= files_of(wheels[0])


def test_the_server_depends_on_this_client() -> None:
    (needed,) = [line for line in settings_of("")["dependencies"] if "forward-client" in line]
    major, minor, _ = (int(part) for part in settings_of("client")["version"].split("."))
    assert needed == f"forward-client>={major}.{minor},<{major}.{minor + 1}"


def test_both_distributions_want_the_same_versions() -> None:
    client, server = ranges_of("client"), ranges_of("")
    assert client
    assert {name: server.get(name) for name in client} == client
    assert set(settings_of("client")["dependencies"]) <= {
        line.partition("  ")[0] for line in settings_of("")["dependencies"]
    }, "the image installs the client without its dependencies"
    assert (REPOSITORY / "client/LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


COMMANDS = {
    "forward-client": "client",
    "forward-server": "server",
    "forward-train": "training",
    "forward-export": "export",
}


@pytest.mark.parametrize(("command", "module"), COMMANDS.items())
def test_a_console_command_names_itself(command: str, module: str) -> None:
    """All else is as `python -m` has it: its help, its errors and its status."""
    wide = {**os.environ, "COLUMNS": "1000"}
    for argument in ("--help", "--wrong"):
        done = run(BIN / command, argument, env=wide)
        twin = run(sys.executable, "-m", module, argument, env=wide)
        assert done.returncode == twin.returncode
        for own, others in ((done.stdout, twin.stdout), (done.stderr, twin.stderr)):
            assert own == others.replace(f"python -m {module}", command)
        assert command in done.stdout + done.stderr


def test_every_console_command_is_compared() -> None:
    installed = settings_of("")["scripts"] | settings_of("client")["scripts"]
    assert installed.keys() == COMMANDS.keys()
