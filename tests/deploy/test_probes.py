"""The probes of the manifests, made on a server with their variables as the kubelet makes them."""

import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forward_client import ForwardClient, ForwardError
from server.config import ServerSettings
from tests.support.bundles import MODELS_DIR
from tests.support.certificates import Authority
from tests.support.manifests import container, environment, served_name
from tests.support.servers import start_server

BASE, PRODUCTION = "deploy/kubernetes/base", "deploy/kubernetes/overlays/production"
FOLDERS = (BASE, PRODUCTION, "deploy/kserve/rest")  # kserve/grpc has the probe of the base
PORT_FIELDS = ("grpc_port", "http_port", "metrics_port")
# The kubelet does not verify it.
ANY_CERTIFICATE = ssl.create_default_context()
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE
pytestmark = pytest.mark.one_transport  # health is the same of both


def passes(probe: Mapping[str, Any], folder: str, ports: Mapping[int, int]) -> bool:
    """Tell if a probe passes; `ports` are those of the server for those of the container."""
    if "grpc" in probe:
        return grpc_probe(ports[probe["grpc"]["port"]])
    get = probe["httpGet"]
    names = {port["name"]: port["containerPort"] for port in container(folder)["ports"]}
    port = ports[names.get(get["port"], get["port"])]
    url = f"{get.get('scheme', 'HTTP').lower()}://127.0.0.1:{port}{get['path']}"
    handler = urllib.request.HTTPSHandler(context=ANY_CERTIFICATE)
    with urllib.request.build_opener(handler).open(url, timeout=20) as response:
        return bool(200 <= response.status < 400)


def grpc_probe(port: int) -> bool:
    """Tell if the kubelet's probe of gRPC passes, which speaks no TLS."""
    with ForwardClient(f"127.0.0.1:{port}", timeout_seconds=20) as client:
        return client.health() == "SERVING"


@pytest.mark.parametrize("folder", FOLDERS)
def test_probes_pass_on_a_server_with_these_variables(folder: str, tmp_path: Path) -> None:
    variables = environment(folder)
    pair = Authority(tmp_path / "tls").issue()
    here = {
        "FORWARD_MODELS_DIR": str(MODELS_DIR),
        "FORWARD_MODEL": served_name(folder),
        "FORWARD_TLS_CERT": str(pair.certificate),
        "FORWARD_TLS_KEY": str(pair.key),
    }
    variables |= {name: value for name, value in here.items() if name in variables}
    probes = {name: each for name, each in container(folder).items() if name.endswith("Probe")}
    assert {"readinessProbe", "livenessProbe"} <= set(probes)
    with start_server("--http-port", "0", **variables) as server:
        ports = {
            ServerSettings.model_fields[field].default: int(server.ready[field])
            for field in PORT_FIELDS
        }
        assert [name for name, each in probes.items() if not passes(each, folder, ports)] == []
        if folder == PRODUCTION:  # which is why its probes are not those of the base
            with pytest.raises(ForwardError):
                grpc_probe(int(server.ready["grpc_port"]))
