"""The container image: built from this tree, and run as a careful cluster would run it.

tests/support/containers.py builds it, once for all of this file.
"""

import json
import re
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from export.bundle import find_bundle, open_bundle
from export.bundle.publishing import write_bundle
from export.runtimes import open_runner
from forward_client import ForwardClient
from tests.support.bundles import MODELS_DIR, random_images
from tests.support.certificates import Authority
from tests.support.containers import PYTHON, Container, Image, built_image
from tests.support.http import post, request
from tests.support.otlp import Protocol, receive_spans
from tests.support.ports import free_port

# The first test waits for the build, and on a bare machine for the base.
pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

MIB = 1 << 20
PREDICT = {"images": {"dtype": "DATA_TYPE_UINT8", "shape": [28, 28], "data": "A" * 1045 + "A=="}}
INFER = {
    "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}]
}
LIMITS = ("--memory", "256m", "--cpus", "1")
MAX_BYTES = 150_000_000  # over the base


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built by what this machine has."""
    with built_image(tmp_path_factory.mktemp("wheels")) as built:
        yield built


@pytest.fixture(scope="module")
def ports() -> tuple[int, int, int]:
    """Three free ports of the loopback address: gRPC, HTTP, metrics."""
    return free_port(), free_port(), free_port()


@pytest.fixture(scope="module")
def container(image: Image, ports: tuple[int, int, int]) -> Iterator[Container]:
    """A server that this machine reaches, and no other."""
    with image.start("host", **here(ports)) as started:
        yield started


@pytest.fixture(scope="module")
def address(container: Container, ports: tuple[int, int, int]) -> str:  # noqa: ARG001 (it shall run)
    """Where that server answers."""
    return f"127.0.0.1:{ports[0]}"


def here(ports: Sequence[int]) -> dict[str, str]:
    """Return the settings of a server that this machine reaches at ports of gRPC, HTTP, metrics."""
    names = ("FORWARD_GRPC_PORT", "FORWARD_HTTP_PORT", "FORWARD_METRICS_PORT")
    return {"FORWARD_HOST": "127.0.0.1", **dict(zip(names, map(str, ports), strict=True))}


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_it_sends_spans(image: Image, protocol: Protocol) -> None:
    ports = free_port(), free_port(), free_port()
    with (
        receive_spans(protocol) as receiver,
        image.start("host", **here(ports), **receiver.environment),
        ForwardClient(f"127.0.0.1:{ports[0]}", timeout_seconds=60) as client,
    ):
        client.trace(random_images(1, (28, 28)))
        receiver.wait_for("forward.v1.ForwardService/Trace")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder that a container mounts: the bundled model, as version 1."""
    shutil.copytree(MODELS_DIR / "mnist" / "1", tmp_path / "mnist" / "1")
    readable(tmp_path)
    return tmp_path


def readable(folder: Path) -> None:
    """Let another user read it: the container's."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def next_version(folder: Path, number: int) -> Path:
    """Make of version 1 a copy with another number, beside its place; return it."""
    bundle, made = open_bundle(folder), folder.parent / f".{number}"
    made.mkdir()
    contents = {file.name: bundle.read(file.name) for file in bundle.manifest.files}
    write_bundle(made, bundle.manifest.model_copy(update={"version": number}), contents)
    readable(made)
    return made


@pytest.mark.parametrize(
    ("folder", "place"), [("mnist", "/models/mnist"), ("mnist", "/mnt/models")]
)
def test_a_mounted_folder_is_served_and_followed(
    image: Image, mounted: Path, folder: str, place: str
) -> None:
    """A repository of models, or as KServe mounts it: the versions of one."""
    versions = mounted / folder
    with image.start(
        "none", f"--volume={versions}:{place}:ro", FORWARD_RELOAD_INTERVAL="0.2"
    ) as it:
        assert [event["version"] for event in it.events("ready")] == [1]
        next_version(versions / "1", 7).rename(versions / "7")
        it.wait_for(lambda: it.events("reloaded"))
        broken = next_version(versions / "1", 8)
        (broken / "model.onnx").write_bytes(b"?" * (broken / "model.onnx").stat().st_size)
        broken.rename(versions / "8")
        it.wait_for(lambda: it.events("reload failed"))
        assert [event["version"] for event in it.events("reloaded")] == [7]
        assert [event["serving"] for event in it.events("reload failed")] == [7]
        assert it.execute(*image.health_check()).stdout == "SERVING\n"


def test_volumes_that_kubernetes_swaps_are_followed(image: Image, mounted: Path) -> None:
    """There `mnist` leads to `..data/mnist`, and `..data` to a folder that is replaced."""
    first, second = mounted / "..2026_11_26", mounted / "..2026_11_27"
    first.mkdir()
    (mounted / "mnist").rename(first / "mnist")
    (mounted / "..data").symlink_to(first.name)
    (mounted / "mnist").symlink_to("..data/mnist")
    with image.start("none", f"--volume={mounted}:/models:ro", FORWARD_RELOAD_INTERVAL="0.2") as it:
        assert [event["version"] for event in it.events("ready")] == [1]
        (second / "mnist").mkdir(parents=True)
        next_version(first / "mnist" / "1", 2).rename(second / "mnist" / "2")
        readable(second)
        (mounted / "..data_tmp").symlink_to(second.name)
        (mounted / "..data_tmp").rename(mounted / "..data")
        shutil.rmtree(first)
        it.wait_for(lambda: it.events("reloaded"))
        assert [event["version"] for event in it.events("reloaded")] == [2]


def test_an_explicit_folder_wins_over_mounted_ones(image: Image, mounted: Path) -> None:
    next_version(mounted / "mnist" / "1", 5).rename(mounted / "mnist" / "5")
    volumes = (f"--volume={mounted}:/models:ro", f"--volume={mounted}:/mine:ro")
    with image.start("none", *volumes, FORWARD_MODELS_DIR="/opt/forward-models") as it:
        assert [event["version"] for event in it.events("ready")] == [1]


def test_with_256_mib_and_one_cpu_it_serves_a_crowd(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """Predict, Trace, page, Connect, Open Inference, metrics: right, in the limits, to the end."""
    ports = free_port(), free_port(), free_port()
    images = random_images(64, (28, 28))
    expected = open_runner(find_bundle(MODELS_DIR, "mnist", None), "onnx", "cpu").predict(images)
    wrong: list[str] = []

    def call() -> None:
        with ForwardClient(f"127.0.0.1:{ports[0]}", timeout_seconds=60) as client:
            for number in range(150):
                logits = (client.trace if number % 10 == 0 else client.predict)(images).logits
                if not np.array_equal(logits, expected):
                    wrong.append(f"call {number}")

    started_at = time.monotonic()
    with image.start("host", *LIMITS, **here(ports), FORWARD_THREADS="0") as it:
        assert [event["threads"] for event in it.events("ready")] == [1]  # of the limit, not of 2
        with ForwardClient(f"127.0.0.1:{ports[0]}", timeout_seconds=60) as client:
            np.testing.assert_array_equal(client.predict(images).logits, expected)
            client.attribute(images[:1])
            client.compare(images[:1])
            client.training_history()
            client.parameters()
        first = time.monotonic() - started_at
        threads = [threading.Thread(target=call) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        at = f"127.0.0.1:{ports[1]}"
        assert request(at, "/").status == request(at, "/v2/models/mnist").status == 200
        answer = post(at, "Predict", PREDICT)
        assert answer.json()["logits"]["shape"] == ["1", "10"], answer.body
        answer = request(at, "/v2/models/mnist/infer", json.dumps(INFER).encode())
        assert answer.json()["outputs"][0]["shape"] == [1, 10], answer.body
        metrics = request(f"127.0.0.1:{ports[2]}", "/metrics").body.decode()
        assert re.search(
            r'grpc_method="Predict".*grpc_code="OK"|grpc_code="OK".*"Predict"', metrics
        )
        assert it.execute(*image.health_check()).stdout == "SERVING\n"
        most, failures = it.memory()
        assert it.stop() == 0, it.log()
    with capsys.disabled():
        print(f"\nfirst right answer after {first:.2f} s; {most / MIB:.0f} MiB at most of 256")
    assert not wrong
    assert most < 256 * MIB
    assert failures == 0  # of allocations at the limit that nothing could be given back for


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


def test_its_health_check_costs_less_than_100_ms_of_cpu(image: Image, container: Container) -> None:
    """Of the container's kernel, children included; Python's start alone is more."""
    (program,) = image.health_check()
    code = f"import os, subprocess; subprocess.run([{program!r}]); print(*os.times()[2:4])"
    figures = [
        sum(map(float, container.execute_python(code).splitlines()[-1].split())) for _ in range(5)
    ]
    assert statistics.median(figures) < 0.1


def test_its_health_check_uses_tls_of_both_sides_and_the_token(
    image: Image, tmp_path: Path
) -> None:
    """It trusts the server's own certificate, whatever name that is for, and another by its CA."""
    name = "forward.example"
    authority = Authority(tmp_path / "ca")
    pair, other = authority.issue(name), authority.issue("other.example")
    folder = pair.key.parent
    (folder / "tokens").write_text("a-token")
    shutil.copy(authority.ca, folder / "authority.pem")
    shutil.copy(other.certificate, folder / "other.pem")
    for path in folder.iterdir():
        path.chmod(0o644)  # the server there is another user
    settings = {
        "FORWARD_TLS_CERT": f"/secrets/{pair.certificate.name}",
        "FORWARD_TLS_KEY": f"/secrets/{pair.key.name}",
        "FORWARD_TLS_CLIENT_CA": "/secrets/authority.pem",
        "FORWARD_CLIENT_TLS_CERT": f"/secrets/{pair.certificate.name}",
        "FORWARD_CLIENT_TLS_KEY": f"/secrets/{pair.key.name}",
        "FORWARD_TOKEN_FILE": "/secrets/tokens",
        "FORWARD_HEALTH_NEEDS_TOKEN": "true",
    }
    ca = {"FORWARD_CLIENT_TLS_CA": "/secrets/authority.pem"}
    named = {**ca, "FORWARD_CLIENT_TLS_SERVER_NAME": name}
    with image.start("none", f"--volume={folder}:/secrets:ro", **settings) as started:
        assert "listening beyond this machine" not in started.log()
        for more in ({}, named):
            done = started.execute(*image.health_check(), **more)
            assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr
        without = {"FORWARD_CLIENT_TOKEN_FILE": "/dev/null"}
        wrong = {"FORWARD_CLIENT_TLS_CA": "/secrets/other.pem"}
        unknown = {"FORWARD_CLIENT_TLS_CERT": "", "FORWARD_CLIENT_TLS_KEY": ""}
        for more in (ca, without, wrong, unknown):  # what a CA signed has to be for the name
            assert started.execute(*image.health_check(), **more).returncode == 1, more


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


def test_its_health_check_follows_a_socket(image: Image) -> None:
    options = ("--tmpfs", "/run/forward:mode=1777")
    with image.start("none", *options, FORWARD_HOST="unix:/run/forward/grpc.sock") as started:
        done = started.execute(*image.health_check())
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr


def test_the_first_process_leaves_no_zombies(image: Image) -> None:
    with image.start("none") as started:
        started.execute("/bin/sh", "-c", "sleep 0.2 & sleep 0.2 &")  # they outlive it
        time.sleep(1)
        states = started.execute("/bin/sh", "-c", "cat /proc/[0-9]*/stat").stdout
    assert not [line for line in states.splitlines() if ") Z " in line]


def test_any_user_id_runs_it_without_a_home(image: Image) -> None:
    settings = {"HOME": "/nowhere", "FORWARD_GRPC_PORT": "0", "FORWARD_TRANSPORT": "python"}
    with image.start("none", "--user", "54321:0", **settings) as started:
        assert started.execute("id", "--user").stdout == "54321\n"
        assert [event["transport"] for event in started.events("ready")] == ["python"]


def test_it_has_no_torch_pip_or_compiler(image: Image) -> None:
    code = "import importlib.util as u, shutil as s; print([*map(u.find_spec, ['torch', 'pip'])])"
    done = image.run_once(python=f"{code}; print(*map(s.which, ['cc', 'gcc', 'ld', 'cargo']))")
    assert done.stdout == "[None, None]\nNone None None None\n"


def test_help_is_for_a_person(image: Image) -> None:
    done = image.execute_once((PYTHON, "-m", "server", "--help"), "--tty")
    assert done.returncode == 0
    assert "FORWARD_MODELS_DIR" in done.stdout


def test_it_weighs_less_than_150_mb_over_its_base(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that it adds is below /opt; printed for whoever changes it."""
    code = """
import os
for top in sorted(os.scandir("/opt"), key=lambda each: each.name):
    files = (os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names)
    print(top.path, sum(os.lstat(file).st_size for file in files))
"""
    rows = [line.split() for line in image.run_once(python=code).stdout.splitlines()]
    ours = sum(int(size) for _, size in rows)
    with capsys.disabled():
        print("".join(f"\n{int(size) / 1e6:8.1f} MB  {folder}" for folder, size in rows))
        print(f"{image.inspect()['Size'] / 1e6:8.1f} MB  with its base")
    assert [folder for folder, _ in rows] == ["/opt/forward", "/opt/forward-models"]
    assert 0 < ours < MAX_BYTES


def test_its_bill_of_materials_is_valid_and_has_what_is_there(image: Image) -> None:
    config = image.inspect()["Config"]
    code = f"""
import importlib.metadata as m
print(open({config["Labels"]["forward.bom"]!r}).read(), end="\\0")
for found in m.distributions():
    print(found.name.lower().replace("_", "-"), found.version)
"""
    text, installed = image.run_once(python=code).stdout.split("\0")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = json.loads(text)["components"]
    python = {f"{each['name']} {each['version']}" for each in listed if "/deb/" not in each["purl"]}
    assert set(installed.split("\n")) - {""} <= python
    kinds = {each["purl"].partition("/")[0] for each in listed}
    assert kinds == {"pkg:pypi", "pkg:generic", "pkg:cargo", "pkg:deb"}
    assert {"h2", "rustls"} <= {each["name"] for each in listed if "cargo" in each["purl"]}


def test_its_labels_tell_version_and_revision(image: Image) -> None:
    labels = image.inspect()["Config"]["Labels"]
    named = {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses")}
    assert named <= labels.keys()
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "a-commit"
