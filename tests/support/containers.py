"""The image and containers of it: built and run by docker, or by Debian's own tools.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import REPOSITORY

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

    def execute_python(self, code: str) -> str:
        """Return what some Python prints in the container."""
        done = self.execute(PYTHON, "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what the log has of one event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, is_so: Callable[[], object]) -> None:
        """Wait until something is true of it."""
        deadline = time.monotonic() + START_SECONDS
        while not is_so():
            if not self.running() or time.monotonic() > deadline:
                pytest.fail(f"it did not become so:\n{self.log()}")
            time.sleep(0.1)

    def memory(self) -> tuple[int, int]:
        """Return the most bytes that it had, by its cgroup, and how often the limit killed."""
        shell = """
cd /sys/fs/cgroup
if [ -e memory.peak ]; then cat memory.peak; sed -n 's/^oom_kill //p' memory.events
else cat memory/memory.max_usage_in_bytes; sed -n 's/^oom_kill //p' memory/memory.oom_control; fi
"""
        most, killed = self.execute("/bin/sh", "-c", shell).stdout.split()
        return int(most), int(killed)

    def log(self) -> str:
        done = self.engine("logs", self.name)
        return done.stdout + done.stderr

    def running(self) -> bool:
        state = self.engine("inspect", "--format", "{{.State.Running}}", self.name)
        return state.stdout.strip() == "true"

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: '"event": "ready"' in self.log())

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
        assert form == "CMD"  # no shell: nothing is left behind if it is ended
        return list(command)

    def run_once(
        self, *options: str, python: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the server, or some Python in its place, to its end."""
        if python is None:
            return self.execute_once(None, *options)
        return self.execute_once((PYTHON, "-c", python), *options)

    def execute_once(
        self, command: Sequence[str] | None, *options: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, or the server if there is none."""
        entry, arguments = (
            ([], []) if command is None else (["--entrypoint", command[0]], command[1:])
        )
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


@contextmanager
def built_image(wheels: Path) -> Iterator[Image]:
    """Build the image by what this machine has; remove it at the end."""
    tag = f"localhost/forward-test:{uuid.uuid4().hex[:12]}"
    if docker_answers():
        engine, builder = Engine(("docker",)), ["docker", "build"]
    else:
        engine = Engine(("podman", "--runtime", runc_or_skip()), ("--read-only-tmpfs=false",))
        builder = ["buildah", "build", *debian_build_options(), *wheel_options(wheels)]
    labels = ("--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=a-commit")
    run(*builder, *labels, "--file", "docker/Dockerfile", "--tag", tag, ".")  # the default target
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
