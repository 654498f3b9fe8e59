"""The container image: built from this tree, and run as a careful cluster would run it.

docker builds it where a daemon answers. Elsewhere Debian's own tools do, on a base that
debootstrap makes, so that no registry is needed. Where cargo is here, they get the
native transport's wheel, of what `make test` built; else a stage of the image builds it: minutes.
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import find_bundle
from export.runtimes import open_runner
from forward_client import ForwardClient
from tests.support.bundles import MODELS_DIR, REPOSITORY, random_images
from tests.support.certificates import Authority
from tests.support.http import request
from tests.support.ports import free_port

# The first test waits for the build, and on a bare machine for the base.
pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

DEBIAN_TOOLS = ("debootstrap", "buildah", "podman", "runc")
DEBIAN_RELEASE = "bookworm"
DEBIAN_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
# Kept between runs: give it another name when it is to hold something else.
BASE_TAG = f"localhost/forward-test-base:{DEBIAN_RELEASE}-security"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # where Debian's Python and pip look
COMMAND_SECONDS = 600
START_SECONDS = 240  # of a machine with much else to do
PYTHON = "/opt/forward/bin/python"
HARDENED = (
    *("--read-only", "--cap-drop", "ALL"),
    *("--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1024:1024"),
    # podman leaves the checks to systemd, which may not be there; the tests run the command.
    "--no-healthcheck",
)


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command; if it fails, fail the test with all that it said."""
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if check and done.returncode:
        said = f"{done.stdout}\n{done.stderr}"
        pytest.fail(f"exit status {done.returncode} of {' '.join(command)}\n{said}", pytrace=False)
    return done


def env_options(settings: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in settings.items()]


@dataclass(frozen=True)
class Engine:
    """What runs containers: docker, or podman, which takes the same commands."""

    command: tuple[str, ...]
    # podman makes a read-only container's /tmp writable unless told not to, docker does not.
    own_options: tuple[str, ...] = ()

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(*self.command, *arguments, check=check)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self("run", *HARDENED, *self.own_options, *arguments, check=check)


@dataclass(frozen=True)
class Container:
    """A container that was started."""

    engine: Engine
    name: str

    def execute(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        options = env_options(settings)
        return self.engine("exec", *options, self.name, *command, check=False)

    def log(self) -> str:
        done = self.engine("logs", self.name)
        return done.stdout + done.stderr

    def running(self) -> bool:
        state = self.engine("inspect", "--format", "{{.State.Running}}", self.name)
        return state.stdout.strip() == "true"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while '"event": "ready"' not in self.log():
            if not self.running() or time.monotonic() > deadline:
                pytest.fail(f"the server did not become ready:\n{self.log()}")
            time.sleep(0.1)

    def stop(self) -> int:
        """Stop it as the engine does it, by SIGTERM first; return its exit status."""
        self.engine("stop", "-t", "60", self.name)
        return int(self.engine("wait", self.name).stdout)


@dataclass(frozen=True)
class Image:
    """The built image and the engine that has it."""

    engine: Engine
    tag: str

    def inspect(self) -> dict[str, Any]:
        described: list[dict[str, Any]] = json.loads(
            self.engine("image", "inspect", self.tag).stdout
        )
        return described[0]

    def health_check(self) -> list[str]:
        """Return the command of the health check, as an engine would execute it."""
        described = self.inspect()
        # docker keeps it in the configuration, podman beside it.
        check = described["Config"].get("Healthcheck") or described["Healthcheck"]
        form, *command = check["Test"]
        return {"CMD": command, "CMD-SHELL": ["/bin/sh", "-c", *command]}[form]

    def run_once(
        self, *options: str, python: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the server, or some Python in its place, to its end."""
        entry = [] if python is None else ["--entrypoint", PYTHON]
        arguments = [] if python is None else ["-c", python]
        options = ("--rm", "--network", "none", *options, *entry)
        return self.engine.run(*options, self.tag, *arguments, check=False)

    @contextmanager
    def start(self, network: str, *more: str, **settings: str) -> Iterator[Container]:
        """Start the server and wait until it is ready; remove the container at the end."""
        container = Container(self.engine, f"forward-test-{uuid.uuid4().hex[:12]}")
        options = ("--detach", "--name", container.name, "--network", network, *more)
        try:
            self.engine.run(*options, *env_options(settings), self.tag)
            container.wait_until_ready()
            yield container
        finally:
            self.engine("rm", "--force", container.name, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built by what this machine has."""
    tag = f"localhost/forward-test:{uuid.uuid4().hex[:12]}"
    if docker_answers():
        engine, builder = Engine(("docker",)), ["docker", "build"]
    else:
        engine = Engine(("podman", "--runtime", runc_or_skip()), ("--read-only-tmpfs=false",))
        wheels = tmp_path_factory.mktemp("wheels")
        builder = ["buildah", "build", *debian_build_options(), *wheel_options(wheels)]
    run(*builder, "--target", "cpu", "--file", "docker/Dockerfile", "--tag", tag, ".")
    yield Image(engine, tag)
    engine("rmi", "--force", tag)


def docker_answers() -> bool:
    return shutil.which("docker") is not None and run("docker", "info", check=False).returncode == 0


def runc_or_skip() -> str:
    """Return the path of runc if the other tools are there as well; else skip."""
    missing = [tool for tool in DEBIAN_TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        pytest.skip(f"no docker daemon answers, and of Debian's way miss: {', '.join(missing)}")
    return shutil.which("runc") or ""


def debian_build_options() -> list[str]:
    """Return buildah's options: our base, the health check kept, this machine's CAs for pip."""
    if run("podman", "image", "exists", BASE_TAG, check=False).returncode:
        make_base()
    # The chroot needs no more rights than root has; OCI's format drops the health check.
    options = ["--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={BASE_TAG}"]
    authorities = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    return [*options, "--volume", f"{authorities}:{CA_BUNDLE}:ro"] if authorities else options


def wheel_options(folder: Path) -> list[str]:
    """Return buildah's options for the native transport's wheel; none where it can't be built."""
    if shutil.which("cargo") is None:
        return []
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", str(folder))
    run(sys.executable, "-m", "pip", "wheel", *options, "./native")
    return ["--volume", f"{folder}:/wheels:ro"]


def make_base() -> None:
    """Make the base image: a minimal Debian with Python, and its security updates, for Rust."""
    container = run("buildah", "from", "scratch").stdout.strip()
    try:
        root = run("buildah", "mount", container).stdout.strip()
        include = f"--include={','.join(DEBIAN_PACKAGES)}"
        run("debootstrap", "--variant=minbase", include, DEBIAN_RELEASE, root)
        sources = Path(root, "etc/apt/sources.list")
        line = sources.read_text()
        updates = line.replace("/debian ", "/debian-security ").replace(" main", "-security main")
        sources.write_text(line + updates)
        run("rm", "-r", f"{root}/var/cache/apt", f"{root}/var/lib/apt/lists")  # a third of it
        run("buildah", "commit", container, BASE_TAG)
    finally:
        run("buildah", "rm", container)


@pytest.fixture(scope="module")
def ports() -> tuple[int, int, int]:
    """Three free ports of the loopback address: gRPC, HTTP, metrics."""
    return free_port(), free_port(), free_port()


@pytest.fixture(scope="module")
def container(image: Image, ports: tuple[int, int, int]) -> Iterator[Container]:
    """A server that this machine reaches, and no other."""
    grpc_port, http_port, metrics_port = map(str, ports)
    with image.start(
        "host",
        FORWARD_HOST="127.0.0.1",
        FORWARD_GRPC_PORT=grpc_port,
        FORWARD_HTTP_PORT=http_port,
        FORWARD_METRICS_PORT=metrics_port,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def address(container: Container, ports: tuple[int, int, int]) -> str:  # noqa: ARG001 (it shall run)
    """Where that server answers."""
    return f"127.0.0.1:{ports[0]}"


def test_it_answers_what_the_bundle_computes_here(address: str) -> None:
    images = random_images(64, (28, 28))
    runner = open_runner(find_bundle(MODELS_DIR, "mnist", None), "onnx", "cpu")
    expected = runner.predict(images)
    with ForwardClient(address) as client:
        prediction = client.predict(images)
    np.testing.assert_array_equal(prediction.logits, expected)
    np.testing.assert_array_equal(prediction.classes, expected.argmax(axis=1))


def test_its_grpc_is_the_native_transport(container: Container) -> None:
    events = [json.loads(line) for line in container.log().splitlines() if line.startswith("{")]
    assert [event["transport"] for event in events if event["event"] == "ready"] == ["native"]


@pytest.mark.usefixtures("container")
def test_it_serves_the_page(ports: tuple[int, int, int]) -> None:
    answer = request(f"127.0.0.1:{ports[1]}", "/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_its_health_check_follows_the_port(image: Image, container: Container) -> None:
    done = container.execute(*image.health_check())
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr


def test_its_health_check_fails_where_no_server_answers(image: Image, container: Container) -> None:
    done = container.execute(*image.health_check(), FORWARD_GRPC_PORT="1")
    assert done.returncode == 1
    assert "no server answers" in done.stderr


def test_its_health_check_uses_tls_and_the_token(image: Image, tmp_path: Path) -> None:
    name = "forward.example"
    pair = Authority(tmp_path / "ca").issue(name)
    folder = pair.key.parent
    (folder / "tokens").write_text("a-token")
    for path in folder.iterdir():
        path.chmod(0o644)  # the server there is another user
    settings = {
        "FORWARD_TLS_CERT": f"/secrets/{pair.certificate.name}",
        "FORWARD_TLS_KEY": f"/secrets/{pair.key.name}",
        "FORWARD_TOKEN_FILE": "/secrets/tokens",
        "FORWARD_HEALTH_NEEDS_TOKEN": "true",
        "FORWARD_CLIENT_TLS_SERVER_NAME": name,
    }
    with image.start("none", f"--volume={folder}:/secrets:ro", **settings) as started:
        assert "listening beyond this machine" not in started.log()
        done = started.execute(*image.health_check())
        assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr
        without = started.execute(*image.health_check(), FORWARD_CLIENT_TOKEN_FILE="/dev/null")  # noqa: S106 (it has none)
        assert without.returncode == 1


def test_by_default_it_serves_every_interface(image: Image) -> None:
    """In a network of its own, where these are surely free; the health check finds it there."""
    with image.start("none") as started:
        check = started.execute(*image.health_check())
        sockets = started.execute("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
        assert "listening beyond this machine without TLS: anybody may call" in started.log()
    assert check.returncode == 0, check.stderr
    fields = [line.split() for line in sockets.splitlines()]
    listening = [address.split(":") for _, address, _, state, *_ in fields if state == "0A"]
    # One socket for both families of addresses, or one for each.
    assert {(int(host, 16), int(port, 16)) for host, port in listening} == {
        (0, 8000),
        (0, 8001),
        (0, 8002),
    }


def test_it_runs_read_only_without_root_or_capabilities(
    container: Container,
) -> None:
    uid = container.execute("id", "--user").stdout
    status = container.execute("cat", "/proc/1/status").stdout
    assert int(uid) >= 1000
    assert "CapEff:\t0000000000000000" in status
    assert container.execute("touch", "/tmp/x").returncode == 1  # noqa: S108 (that is the question)


def test_sigterm_ends_it_with_exit_status_0(image: Image) -> None:
    with image.start("none") as started:
        assert started.stop() == 0, started.log()
        log = [json.loads(line) for line in started.log().splitlines()]  # and all of it is JSON
    warning, *events = (entry["event"] for entry in log)
    assert warning == "listening beyond this machine without TLS: anybody may call"
    assert events == ["self-check passed", "ready", "draining", "refusing calls", "stopped"]
    assert [entry["signal"] for entry in log if entry["event"] == "draining"] == ["SIGTERM"]


def test_its_entry_point_is_the_server_itself(image: Image) -> None:
    """In exec form: a shell in between would keep the signals to itself."""
    assert image.inspect()["Config"]["Entrypoint"] == [PYTHON, "-m", "server"]


def test_an_unknown_setting_stops_it_and_is_named(image: Image) -> None:
    done = image.run_once("--env", "FORWARD_GRPC_PROT=1")
    assert done.returncode == 2
    assert "FORWARD_GRPC_PROT is not a setting; did you mean FORWARD_GRPC_PORT?" in done.stderr


def test_it_has_no_torch(image: Image) -> None:
    done = image.run_once(python="import torch")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'torch'" in done.stderr


def test_it_weighs_less_than_half_a_gigabyte(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base is half of that; printed for whoever changes it."""
    size = image.inspect()["Size"]
    with capsys.disabled():
        print(f"\nthe image has {size:,} bytes")
    assert 0 < size < 500_000_000
