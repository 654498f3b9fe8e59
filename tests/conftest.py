"""Fixtures: the bundled model, real MNIST, a tiny bundle, a real server."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

from export.bundle import Bundle, open_bundle
from export.bundle.weights import read_weights
from export.runtimes import Runner, open_runner
from export.settings import read_settings
from forward_client import ForwardClient
from tests.support.bundles import MODELS_DIR, publish_random_bundle
from tests.support.environments import python_of
from tests.support.servers import RunningServer, start_server
from tests.support.transports import TRANSPORTS, USUAL, extension, use_transport
from training.config import TrainingSettings
from training.errors import DatasetError

if TYPE_CHECKING:
    from training.data import Data

TESTS_DIR = Path(__file__).parent
# They start first, the longest before the others, so that no worker ends alone for minutes.
LONG_FILES = (
    "integration/test_training.py",
    "unit/training/test_trainer.py",
    "deploy/test_proxy.py",
    "deploy/test_alerts.py",
    "browser/test_preparation.py",
    "unit/export/parity/test_bounds.py",
    "packaging/test_doc_examples.py",
    "packaging/test_image.py",
    "unit/training/test_artifacts.py",
    "browser/test_connection.py",
    "integration/test_resume.py",
    "unit/export/bundle/test_bundle.py",
    "unit/client/test_picture_forms.py",
    "integration/test_reload.py",
    "deploy/test_rules.py",
    "deploy/test_scrape.py",
    "unit/export/parity/test_negative_controls.py",
    "browser/test_drawing.py",
    "browser/test_units.py",
    "browser/test_training_trace.py",
    "integration/test_output.py",
    "conformance/test_processors.py",
    "integration/test_server.py",
    "unit/training/test_originals.py",
    "robustness/test_memory.py",
    "unit/training/test_publish.py",
)
# Their tests that start servers run once with each transport of gRPC, but for those with the
# mark one_transport.
BOTH_TRANSPORTS = ("integration", "robustness", "conformance", "deploy")
SERVERS = {"start_server", "start_held_server", "start_uncollected_server", "server_command"}

# A noisy machine is no reason to fail, nor one that runs other tests at the same time.
hypothesis.settings.register_profile(
    "forward",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("forward")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-all",
        action="store_true",
        help="fail a test that would be skipped, for a machine that has all there is to test with",
    )
    parser.addoption(
        "--screenshots", metavar="FOLDER", help="write screenshots of the page into this folder"
    )


def pytest_report_header() -> str:
    """Say which transports are tested."""
    module, reason = extension()
    native = f"native (contract {module.CONTRACT})" if module else f"not native: {reason}"
    return f"transports of gRPC: python, {native}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that speaks to a server with both transports."""
    item = metafunc.definition
    if item.path.parent.name not in BOTH_TRANSPORTS:
        return
    if SERVERS & vars(metafunc.module).keys() or "served" in metafunc.fixturenames:
        is_one = item.get_closest_marker("one_transport")
        chosen = (USUAL,) if is_one else TRANSPORTS
        metafunc.parametrize("transport", chosen, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the others keep their order."""
    places = {TESTS_DIR / name: place for place, name in enumerate(LONG_FILES)}
    for path in places:
        assert path.is_file(), f"{path} of LONG_FILES is not there"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    is_expected = item.get_closest_marker("gpu") is not None  # few machines have one
    if (
        report.skipped
        and item.config.getoption("--require-all")
        and call.excinfo
        and not is_expected
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, but --require-all was given: {call.excinfo.value}"
    return report


@pytest.fixture(scope="session")
def mnist() -> "Data":
    """The real MNIST, from FORWARD_TRAINING_MIRROR or torchvision's own mirrors."""
    from training.data import load  # noqa: PLC0415 (the process that gives out the tests needs no torch)

    settings = read_settings(TrainingSettings, [])
    try:
        return load("mnist", settings.data_dir, settings.mirror)
    except DatasetError as error:
        pytest.skip(f"needs MNIST; set FORWARD_TRAINING_MIRROR to a folder that has it: {error}")


@pytest.fixture(scope="session")
def test_pixels(mnist: "Data") -> np.ndarray:
    """The 10,000 test images, float32 [10000, 28, 28]."""
    return mnist.test.pixels().numpy()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundled default model."""
    return open_bundle(MODELS_DIR / "mnist" / "1")


@pytest.fixture(scope="session")
def weights(bundle: Bundle) -> dict[str, np.ndarray]:
    """The bundled model's weights."""
    return read_weights(bundle)


@pytest.fixture(scope="session")
def eager(bundle: Bundle) -> Runner:
    """The bundled model in eager torch: the oracle of served answers."""
    return open_runner(bundle, "eager", "cpu")


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    """A bundle of a network that is nothing like MNIST's: 3x5 pixels, 4 hidden units, 2 classes."""
    return publish_random_bundle(tmp_path / "models", "tiny")


@pytest.fixture(scope="module", autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """The transport of gRPC of every server that the test starts.

    Fixtures of a module give it to their servers, `--transport`: so they start again for the next.
    """
    name: str = getattr(request, "param", USUAL)
    module, reason = extension()
    if name == "native" and not module:
        pytest.skip(reason)
    with use_transport(name):
        yield name


@pytest.fixture(scope="session")
def served_by() -> Iterator[Callable[[str], RunningServer]]:
    """What returns the server of the bundled model with a transport; it is started once."""
    with ExitStack() as stack:

        @cache
        def start(name: str) -> RunningServer:
            return stack.enter_context(start_server("--http-port", "0", "--transport", name))

        yield start


@pytest.fixture(scope="module")
def served(transport: str, served_by: Callable[[str], RunningServer]) -> RunningServer:
    """A server of the bundled model, as `make serve` starts it."""
    return served_by(transport)


@pytest.fixture(scope="module")
def client(served: RunningServer) -> Iterator[ForwardClient]:
    """A client of that server."""
    with ForwardClient(served.address, timeout_seconds=60) as connected:
        yield connected


@pytest.fixture(scope="session")
def triton_python() -> str:
    """The Python of an environment with tritonclient: it wants another protobuf than the server."""
    return python_of(".venv-tritonclient", "tritonclient")
