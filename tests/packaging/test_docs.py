"""The documentation is complete and its links lead somewhere."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

import forward_client
from deploy.ray.score.config import ScoreSettings
from deploy.ray.serve.config import RayServeSettings
from docs import api, python_client, settings
from export.bundle.manifest import Manifest
from forward.v1 import forward_pb2 as pb
from forward_client import ForwardClient
from server import errors
from server.config import ServerSettings
from tests.support.bundles import REPOSITORY
from tests.support.certificates import Authority
from tests.support.servers import RunningServer, scrape, start_server
from training.config import TrainingSettings

PAGES = sorted(
    path
    for pattern in ("*.md", "client/*.md", "docs/**/*.md", "training/*.md")
    for path in REPOSITORY.glob(pattern)
)
ERRORS, METRICS = "docs/reference/errors.md", "docs/reference/metrics.md"
# Families whose series come later, with their labels: tests/integration/test_drift.py has them.
LATER = {"forward_drift_psi": {"feature"}}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(
    r"`((?:bench|client|deploy|docker|docs|examples|export|native|proto|server|tests|training)/[\w./-]+)`"
)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Of docker, pip, mypy, pytest, curl, Prometheus, the benchmarks and native/crates.py.
OTHERS_FLAGS = {
    *("--target", "--tag", "--file", "--read-only", "--cap-drop", "--publish", "--volume", "--env"),
    *("--editable", "--exclude-editable", "--strict", "--require-all", "--screenshots", "--before"),
    *("--fail-with-body", "--data-binary", "--output", "--goals"),
    *("--build-arg", "--newest"),
    *("--pid", "--duration", "--native", "--gil", "--method"),  # of py-spy and memray
    *("--config", "--enable-feature"),
    "--namespace",  # of kubectl
    *("--head", "--port", "--disable-usage-stats"),  # of ray start
    *("--user", "--tmpfs", "--memory", "--cpus", "--build", "--timestamp", "--service"),
}
CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of one."""
    found = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_heading(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_named_file_exists(page: Path) -> None:
    assert missing_files(page) == []


def missing_files(page: Path) -> list[str]:
    """Return the files of the packages that a page names and that are not there."""
    names = FILE.findall(page.read_text())
    return [name for name in names if not (REPOSITORY / name).exists()]


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`server/app.py`, `export/none.py`, `server/engine/`, `training/none/`\n")
    assert missing_files(page) == ["export/none.py", "training/none/"]


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](page.md#a-heading) [b](#none) [c](gone.md)\n")
    assert dead_links(page) == ["#none", "gone.md"]


@pytest.mark.parametrize("name", settings.PAGES)
def test_the_reference_of_settings_is_fresh(name: str) -> None:
    assert (settings.REFERENCE / name).read_text() == settings.page(*settings.PAGES[name])


def test_the_reference_of_the_api_is_fresh() -> None:
    assert api.PAGE.read_text() == api.page()


def test_the_reference_of_the_python_client_is_fresh() -> None:
    assert python_client.PAGE.read_text() == python_client.page()


def test_an_undocumented_public_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_client, "__all__", [*forward_client.__all__, "Unknown"])
    with pytest.raises(ValueError, match="documented and there differ: Unknown"):
        python_client.page()


def test_the_guide_names_every_open_inference_method(served: RunningServer) -> None:
    guide = (REPOSITORY / "docs/guides/open-inference.md").read_text()
    methods = {
        dict(labels)["grpc_method"]
        for name, labels in scrape(served)
        if ("grpc_service", "inference.GRPCInferenceService") in labels
    }
    assert len(methods) > 6
    assert {method for method in methods if f"`{method}`" not in guide} == set()


def test_the_calling_guide_names_every_rpc_and_its_method() -> None:
    guide = (REPOSITORY / "docs/guides/calling.md").read_text()
    rows = re.findall(r"^\| `(\w+)`[^|]* \| `(\w+)` \|", guide, re.M)
    rpcs = {method.name for method in pb.DESCRIPTOR.services_by_name["ForwardService"].methods}
    methods = {name for name in vars(ForwardClient) if not name.startswith("_")}
    assert {rpc for rpc, _ in rows} == rpcs | {"Check"}
    assert {method for _, method in rows} == methods - {"close"}


def test_the_reference_of_errors_has_every_status() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", (REPOSITORY / ERRORS).read_text(), re.M))
    raised = {
        one.status
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.ServiceError) and "status" in vars(one)
    }
    assert len(raised) > 5
    assert raised - rows == set()
    assert rows - {status.name for status in grpc.StatusCode} == set()


def test_the_reference_of_metrics_has_every_family(tmp_path: Path) -> None:
    """With its type, its labels and their values, as a server with all options exports them."""
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    options = (*Authority(tmp_path / "ca").issue().arguments(), "--token-file", str(tokens))
    traced = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    with start_server("--http-port", "0", *options, **traced) as server:
        families = {family.name: family for family in scrape_families(server)}
    page = (REPOSITORY / METRICS).read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", page, re.M)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == {
        (f"{name}_total" if family.type == "counter" else name): (
            family.type,
            labels_of(family) or LATER.get(name, set()),
        )
        for name, family in families.items()
    }
    values = {
        value
        for family in families.values()
        for sample in family.samples
        for label, value in sample.labels.items()
        if label in ("batcher", "files", "result", "task")
    }
    assert {value for value in values if f"`{value}`" not in page} == set()


def scrape_families(server: RunningServer) -> list[Metric]:
    with urllib.request.urlopen(server.metrics_url, timeout=30) as response:  # noqa: S310 (the test's own server)
        text = response.read().decode()
    return [
        family
        for family in text_string_to_metric_families(text)
        if family.name.startswith(("forward_", "grpc_")) and not family.name.endswith("_created")
    ]


def labels_of(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


def test_the_reference_has_every_entry_of_the_manifest() -> None:
    page = (REPOSITORY / "docs/reference/bundle-format.md").read_text()
    assert {name for name in Manifest.model_fields if f"`{name}`" not in page} == set()


def test_every_flag_in_the_documentation_exists() -> None:
    known = set(FLAG.findall(help_texts())) | OTHERS_FLAGS
    unknown = {
        (name_of(page), flag)
        for page in PAGES
        if page.name != "EXPERIMENTS.md"
        for flag in set(FLAG.findall(page.read_text())) - known
    }
    assert unknown == set()


def help_texts() -> str:
    """Return the help of the commands, and the flags of the settings."""
    flags = [
        f"{settings_type.flag(name)} --no-{settings_type.flag(name).removeprefix('--')}"
        for settings_type in (ServerSettings, TrainingSettings, RayServeSettings, ScoreSettings)
        for name in settings_type.model_fields
    ]
    commands = (
        *("client predict", "client trace", "client explain", "client compare"),
        *("export verify", "export compare"),
    )
    helps = [
        subprocess.run(
            [sys.executable, "-m", *command.split(), "--help"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    ]
    return " ".join([*flags, *helps])


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 140
