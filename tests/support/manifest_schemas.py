"""Compare manifests with published schemas, in an environment of tests/requirements/manifests.txt.

Reads a list of YAML documents, as JSON; prints a list of what is wrong with each.
"""

import ast
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

RELEASES = ("1.31", "1.37")  # of Kubernetes: an old one and the newest that has schemas here
CRDS = {
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
KSERVE = ("serving.kserve.io/v1alpha1", "serving.kserve.io/v1beta1")
SCALARS: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,
}


def errors(manifest: dict[str, Any]) -> list[str]:
    """Return what is wrong with a manifest."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    if version in CRDS:
        return _modelled(manifest, CRDS[version], kind)
    if version in KSERVE:
        version = version.rpartition("/")[2]
        return _KServe().errors(manifest, f"{version.capitalize()}{kind}", kind)
    return _built_in(manifest)


def _built_in(manifest: dict[str, Any]) -> list[str]:
    found = []
    for release in RELEASES:
        try:
            kubernetes_validate.validate(manifest, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"Kubernetes {release}: {'.'.join(map(str, error.path))}: {error.message}")
    return found


def _modelled(manifest: dict[str, Any], module: str, kind: str) -> list[str]:
    model = getattr(importlib.import_module(module), kind)
    try:
        parsed = model.model_validate(manifest)
    except ValueError as error:
        return [str(error)]
    # The models leave out what they do not know.
    kept = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [f"unknown field {path}" for path in _missing(manifest, kept, "")]


def _missing(given: Any, kept: Any, path: str) -> list[str]:  # noqa: ANN401 (any JSON)
    if isinstance(given, dict):
        if not isinstance(kept, dict):
            return [path]
        return [
            each
            for name, value in given.items()
            for each in (
                _missing(value, kept[name], f"{path}.{name}")
                if name in kept
                else [f"{path}.{name}"]
            )
        ]
    if isinstance(given, list):
        pairs = zip(given, kept, strict=True)
        return [each for n, (a, b) in enumerate(pairs) for each in _missing(a, b, f"{path}[{n}]")]
    return []


class _KServe:
    """The models of KServe's own client: class attributes that say names and types."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("kserve")
        if package is None or package.origin is None:
            raise RuntimeError("kserve is not installed")
        self._models = Path(package.origin).parent / "models"

    def errors(self, value: Any, kind: str, path: str) -> list[str]:  # noqa: ANN401 (any JSON)
        """Return what is wrong with a value of a type."""
        if listed := re.fullmatch(r"list\[(.*)\]", kind):
            return self._each(enumerate(value), listed[1], path, isinstance(value, list))
        if mapped := re.fullmatch(r"dict\(str, (.*)\)", kind):
            return self._each(value.items(), mapped[1], path, isinstance(value, dict))
        if kind in SCALARS:
            return [] if isinstance(value, SCALARS[kind]) else [f"{path}: expected {kind}"]
        if kind == "V1ObjectMeta":
            return []
        if (file := self._models / f"{_snake(kind)}.py").exists():
            return self._fields(value, _literals(file), path)
        return _of_kubernetes(value, kind, path)

    def _each(self, items: Any, kind: str, path: str, fits: bool) -> list[str]:  # noqa: ANN401 (pairs of list or dict)
        if not fits:
            return [f"{path}: expected a list or a mapping of {kind}"]
        return [each for key, item in items for each in self.errors(item, kind, f"{path}[{key}]")]

    def _fields(self, value: Any, literals: dict[str, Any], path: str) -> list[str]:  # noqa: ANN401 (any JSON)
        if not isinstance(value, dict):
            return [f"{path}: expected a mapping"]
        types = literals["openapi_types"]
        fields = {name: types[attribute] for attribute, name in literals["attribute_map"].items()}
        unknown = [f"unknown field {path}.{name}" for name in value if name not in fields]
        known = [(name, each) for name, each in value.items() if name in fields]
        wrong = [self.errors(each, fields[name], f"{path}.{name}") for name, each in known]
        return [*unknown, *(error for each in wrong for error in each)]


def _snake(kind: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()


def _literals(file: Path) -> dict[str, Any]:
    found = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in {"openapi_types", "attribute_map"}:
                found[name] = ast.literal_eval(node.value)
    return found


def _of_kubernetes(value: Any, kind: str, path: str) -> list[str]:  # noqa: ANN401 (any JSON)
    folder = Path(str(kubernetes_validate.__file__)).parent / "kubernetes-json-schema"
    name = f"io.k8s.api.core.v1.{kind.removeprefix('V1')}"
    definitions = json.loads(
        (folder / f"v{RELEASES[-1]}.0-local-strict/_definitions.json").read_text()
    )
    schema = {**definitions, "$ref": f"#/$defs/{name}"}
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{path}: {error.message}" for error in validator.iter_errors(value)]


if __name__ == "__main__":
    print(json.dumps([errors(yaml.safe_load(each)) for each in json.load(sys.stdin)]))
