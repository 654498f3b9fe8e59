"""The manifests of deploy/, as kubectl builds them."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bundles import REPOSITORY
from tests.support.environments import python_of

FOLDERS = ("deploy/kubernetes", "deploy/kserve")
CHECK_SECONDS = 280
Manifest = dict[str, Any]


def kustomizations() -> list[str]:
    """Return the folders that are built: all but the components, which others take in."""
    files = [file for each in FOLDERS for file in (REPOSITORY / each).rglob("kustomization.yaml")]
    built = [file.parent for file in files if "kind: Kustomization" in file.read_text()]
    return sorted(str(folder.relative_to(REPOSITORY)) for folder in built)


@cache
def build(folder: str) -> str:
    """Return what `kubectl kustomize` makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, or `python3 .ci/kubectl.py FOLDER` to get it")
    done = subprocess.run(
        ["kubectl", "kustomize", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(folder: str) -> list[str]:
    """Return the text of each manifest of a folder."""
    return build(folder).split("\n---\n")


def manifests(folder: str) -> list[Manifest]:
    """Return the manifests of a folder."""
    return [each for each in yaml.safe_load_all(build(folder)) if each]


def manifest(folder: str, kind: str, name: str = "") -> Manifest:
    """Return the one manifest of a kind, and of a name if there are several."""
    (found,) = (
        each
        for each in manifests(folder)
        if each["kind"] == kind and name in {"", each["metadata"]["name"]}
    )
    return found


def pod(folder: str) -> Manifest:
    """Return the pod that a folder runs: a Deployment's or a ServingRuntime's."""
    (found,) = (
        each for each in manifests(folder) if each["kind"] in {"Deployment", "ServingRuntime"}
    )
    spec: Manifest = (
        found["spec"]["template"]["spec"] if "template" in found["spec"] else found["spec"]
    )
    return spec


def container(folder: str) -> Manifest:
    """Return the one container of that pod."""
    (found,) = pod(folder)["containers"]
    result: Manifest = found
    return result


def environment(folder: str) -> dict[str, str]:
    """Return the variables of that container."""
    return {each["name"]: each["value"] for each in container(folder)["env"]}


def served_name(folder: str) -> str:
    """Return the name of the served model; KServe's is that of the InferenceService."""
    kinds = {each["kind"]: each["metadata"]["name"] for each in manifests(folder)}
    return str(kinds.get("InferenceService", "mnist"))


def schema_errors(texts: list[str]) -> list[list[str]]:
    """Return what published schemas say against each manifest."""
    python = python_of(".venv-manifests", "the schemas")
    checked = subprocess.run(
        [python, str(Path(__file__).with_name("manifest_schemas.py"))],
        cwd=REPOSITORY,
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr[-2000:]
    found: list[list[str]] = json.loads(checked.stdout)
    return found
