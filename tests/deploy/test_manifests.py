"""The manifests for Kubernetes and KServe: valid, and of one mind with image and settings."""

import re
from pathlib import Path

import pytest
import yaml

from docs import prometheus_rules
from export.settings import read_settings
from server.config import ServerSettings
from tests.support.bundles import REPOSITORY
from tests.support.manifests import (
    container,
    documents,
    environment,
    kustomizations,
    manifest,
    manifests,
    pod,
    schema_errors,
    served_name,
)
from tests.support.prometheus import RULES, start_prometheus
from tests.support.servers import RunningServer, scrape

ALL = kustomizations()
PODS = [folder for folder in ALL if not folder.endswith("kserve/base")]
CLUSTER = [folder for folder in ALL if "kubernetes" in folder]
BASE, TLS, PRODUCTION = (
    f"deploy/kubernetes/{name}" for name in ("base", "overlays/tls", "overlays/production")
)
REST, GRPC = "deploy/kserve/rest", "deploy/kserve/grpc"
MONITORING = REPOSITORY / "deploy/kubernetes/components/monitoring"
IMAGE = (REPOSITORY / "docker/Dockerfile").read_text()
PORTS = {
    "grpc": "grpc_port",
    "http": "http_port",
    "metrics": "metrics_port",
    "http1": "http_port",
    "h2c": "grpc_port",
}
DRAIN_MARGIN_SECONDS = 6  # docs/concepts/graceful-shutdown.md
KUBERNETES_GRACE_SECONDS = 30  # of a pod that says nothing, as KServe's does
pytestmark = pytest.mark.one_transport  # health is the same of both

# A field of a manifest, one that no schema has in its place, and what the error says of it.
UNKNOWN = (
    (BASE, "enableServiceLinks:", "enableServiceLink:", "enableServiceLink"),
    (BASE, "averageUtilization:", "averageUtilisation:", "averageUtilisation"),
    (TLS, "dnsNames:", "dnsName:", "spec.dnsName"),
    (PRODUCTION, "jobLabel:", "joblabel:", "spec.joblabel"),
    (REST, "storageUri:", "storageURI:", "model.storageURI"),
    (REST, "protocolVersions:", "protocols:", "spec.protocols"),
    (REST, "containerPort:", "containerport:", "containerport"),
)


def settings(folder: str, monkeypatch: pytest.MonkeyPatch) -> ServerSettings:
    """Return the settings of the server that a folder runs, as it reads them."""
    for name, value in (image_environment() | environment(folder)).items():
        monkeypatch.setenv(name, value.replace("{{.Name}}", served_name(folder)))
    return read_settings(ServerSettings, [])


def misspelt(folder: str, right: str, wrong: str, _error: str) -> str:
    """Return the manifest of a folder that has a field, with another name in its place."""
    text = next(each for each in documents(folder) if right in each)
    return text.replace(right, wrong)


def image_environment() -> dict[str, str]:
    """Return the settings that the image has, by its target cpu and what all targets have."""
    stages = re.split(r"^FROM .* AS (\w[\w-]*)$", IMAGE.replace("\\\n", " "), flags=re.M)
    by_name = dict(zip(stages[1::2], stages[2::2], strict=True))
    instructions = (by_name["base"] + by_name["cpu"]).splitlines()
    pairs = [pair for line in instructions if line.startswith("ENV ") for pair in line.split()[1:]]
    return dict(pair.split("=", 1) for pair in pairs if pair.startswith("FORWARD_"))


def test_every_manifest_fits_the_published_schemas_which_are_strict() -> None:
    assert {BASE, PRODUCTION, REST, GRPC} <= set(ALL)
    right = sorted({each for folder in ALL for each in documents(folder)})
    wrong = [misspelt(*each) for each in UNKNOWN]
    found = schema_errors([*right, *wrong])  # together: to load the schemas takes seconds
    assert found[: len(right)] == [[]] * len(right)
    for (*_, name), errors in zip(UNKNOWN, found[len(right) :], strict=True):
        assert name in "\n".join(errors)


@pytest.mark.parametrize("folder", PODS)
def test_ports_are_those_of_image_and_settings(folder: str) -> None:
    exposed = re.search(r"^EXPOSE (.*)", IMAGE, re.M)
    assert exposed
    for port in container(folder)["ports"]:
        assert port["containerPort"] == ServerSettings.model_fields[PORTS[port["name"]]].default
        assert str(port["containerPort"]) in exposed[1].split()


@pytest.mark.parametrize("folder", PODS)
def test_variables_are_settings_of_the_server(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {ServerSettings.variable(name) for name in ServerSettings.model_fields}
    assert set(environment(folder)) <= known
    assert settings(folder, monkeypatch).host == "0.0.0.0"  # noqa: S104 (in a container)


@pytest.mark.parametrize("folder", PODS)
def test_models_are_where_they_are_mounted(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = str(settings(folder, monkeypatch).models_dir)
    mounts = {each["mountPath"] for each in container(folder).get("volumeMounts", ())}
    if "kserve" in folder:
        assert models == "/mnt/models"  # where KServe puts what storageUri names
        assert manifest(folder, "InferenceService")["spec"]["predictor"]["model"]["storageUri"]
    elif models not in mounts:
        assert models in image_environment()["FORWARD_MODELS_DIR"].split(":")


@pytest.mark.parametrize("folder", PODS)
def test_the_grace_period_covers_the_drain(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings(folder, monkeypatch)
    grace = pod(folder).get("terminationGracePeriodSeconds", KUBERNETES_GRACE_SECONDS)
    assert read.drain_delay >= 5  # until it is out of every endpoint list and name server
    assert grace > read.drain_delay + read.drain_timeout + DRAIN_MARGIN_SECONDS


@pytest.mark.parametrize("folder", PODS)
def test_pods_are_restricted_and_of_the_images_user(folder: str) -> None:
    """By the Pod Security Standard "restricted", and read-only beyond it."""
    user = int(re.findall(r"^USER (\d+)", IMAGE, re.M)[-1])
    spec, one = pod(folder), container(folder)
    context = spec.get("securityContext", {}) | one["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == user
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all({"secret", "persistentVolumeClaim"} & set(each) for each in spec.get("volumes", ()))


@pytest.mark.parametrize("folder", CLUSTER)
def test_a_cluster_tells_pods_nothing_that_looks_like_settings(folder: str) -> None:
    assert pod(folder)["enableServiceLinks"] is False
    assert pod(folder)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("folder", CLUSTER)
def test_what_belongs_together_has_the_same_labels(folder: str) -> None:
    labels = manifest(folder, "Deployment")["spec"]["template"]["metadata"]["labels"]
    names = {port["name"] for port in container(folder)["ports"]}
    budget, policy = manifest(folder, "PodDisruptionBudget"), manifest(folder, "NetworkPolicy")
    spread = pod(folder)["topologySpreadConstraints"]
    selectors = [
        budget["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
    ]
    selectors += [each["labelSelector"]["matchLabels"] for each in spread]
    services = [each["spec"] for each in manifests(folder) if each["kind"] == "Service"]
    for selector in (*selectors, *(service["selector"] for service in services)):
        assert selector
        assert selector.items() <= labels.items()
    allowed = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    assert {port["targetPort"] for service in services for port in service["ports"]} == names
    assert set(allowed) == names


def test_certificates_are_of_the_services_names() -> None:
    names = set(manifest(TLS, "Certificate", "forward")["spec"]["dnsNames"])
    services = [each["metadata"] for each in manifests(TLS) if each["kind"] == "Service"]
    assert names >= {f"{each['name']}.{each['namespace']}.svc" for each in services}
    (mount,) = container(TLS)["volumeMounts"]
    assert {Path(environment(TLS)[f"FORWARD_TLS_{each}"]) for each in ("CERT", "KEY")} == {
        Path(mount["mountPath"]) / name for name in ("tls.crt", "tls.key")
    }


def test_alerts_are_those_of_prometheus() -> None:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    assert manifest(PRODUCTION, "PrometheusRule")["spec"]["groups"] == groups
    assert prometheus_rules.MANIFEST.read_text() == prometheus_rules.manifest()


def test_each_replica_is_scraped_once_as_the_job_of_the_alerts() -> None:
    monitor = manifest(PRODUCTION, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    found = [
        each
        for each in manifests(PRODUCTION)
        if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()
    ]
    (service,) = found
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "forward"
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_the_autoscaler_asks_for_what_prometheus_has(served: RunningServer) -> None:
    scaler = manifest(PRODUCTION, "HorizontalPodAutoscaler")["spec"]
    kinds = {each["type"]: each for each in scaler["metrics"]}
    assert set(kinds) == {"Resource", "Pods"}
    name = kinds["Pods"]["pods"]["metric"]["name"]
    assert name in {each for each, _ in scrape(served)}
    adapter = yaml.safe_load((MONITORING / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    query = rule["metricsQuery"]
    for mark, text in (
        ("<<.Series>>", name),
        ("<<.LabelMatchers>>", 'job="forward"'),
        ("<<.GroupBy>>", "instance"),
    ):
        assert mark in query
        query = query.replace(mark, text)
    with start_prometheus([f"127.0.0.1:{served.ready['metrics_port']}"]) as prometheus:
        prometheus.wait_for_scrape()
        assert prometheus.value(query) == 0


@pytest.mark.parametrize(
    ("folder", "port", "protocol"), [(REST, "http1", "v2"), (GRPC, "h2c", "grpc-v2")]
)
def test_kserve_finds_the_runtime_of_a_protocol(folder: str, port: str, protocol: str) -> None:
    runtime = manifest(folder, "ServingRuntime")
    model = manifest(folder, "InferenceService")["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"].items() <= runtime["spec"]["supportedModelFormats"][0].items()
    assert runtime["spec"]["protocolVersions"] == [model["protocolVersion"]] == [protocol]
    assert [each["name"] for each in container(folder)["ports"]] == [port]  # Knative takes one
    assert container(folder)["name"] == "kserve-container"
    scraped = runtime["spec"]["annotations"]["prometheus.kserve.io/port"]
    assert scraped == str(ServerSettings.model_fields["metrics_port"].default)
