"""Write the image's bill of materials, CycloneDX 1.6: `python bom.py /opt/forward VERSION`.

Python's packages from their metadata, the crates of extensions from the lists in those packages,
and the base's Debian packages. It depends on nothing else, so two builds write the same bytes.
"""

import json
import re
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

OURS = re.compile(r"forward[-_](server|client|native)")
DPKG = Path("/var/lib/dpkg/status")


def main() -> int:
    """Write bom.cdx.json into the environment of the command line."""
    environment, version = Path(sys.argv[1]), sys.argv[2]
    packages = next(environment.glob("lib/python*/site-packages"))
    components = [
        *python_packages(packages),
        *crates(packages),
        *debian_packages(DPKG.read_text(encoding="utf-8") if DPKG.exists() else ""),
    ]
    image = Component(
        name="forward", version=version, type=ComponentType.CONTAINER, bom_ref="image"
    )
    unique = {component.bom_ref.value: component for component in components}
    bom = Bom(components=unique.values(), metadata=BomMetaData(component=image))
    bom.register_dependency(image, unique.values())
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    written["metadata"].pop("timestamp", None)
    written["metadata"].pop("tools", None)
    written.pop("serialNumber", None)
    text = json.dumps(written, indent=1, sort_keys=True)
    written["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"
    path = environment / "bom.cdx.json"
    path.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{path}: {len(unique)} components")
    return 0


def component(kind: str, name: str, version: str, namespace: str | None = None) -> Component:
    """Return a library of a registry."""
    url = PackageURL(kind, namespace, name, version)
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url)
    )


def python_packages(packages: Path) -> Iterator[Component]:
    """Return the distributions of an environment, with the licences that they state."""
    for found in sorted(distributions(path=[str(packages)]), key=lambda each: each.name.lower()):
        # Those of this repository are on no index.
        kind = "generic" if OURS.fullmatch(found.name) else "pypi"
        package = component(kind, found.name.lower().replace("_", "-"), found.version)
        package.licenses = licences(found)
        yield package


def licences(found: Distribution) -> list[LicenseExpression | DisjunctiveLicense]:
    """Return the licence that a distribution states in one line: an SPDX expression, or a name."""
    if expression := found.metadata.get("License-Expression"):
        return [LicenseExpression(expression)]
    stated = found.metadata.get("License", "").strip()
    return [DisjunctiveLicense(name=stated)] if stated and "\n" not in stated else []


def crates(packages: Path) -> Iterator[Component]:
    """Return the crates of forward-native, and of other packages' extensions that say theirs."""
    for path in sorted(packages.glob("*.dist-info/sboms/*.cyclonedx.json")):
        for each in json.loads(path.read_text(encoding="utf-8")).get("components", ()):
            if each.get("purl", "").startswith("pkg:cargo/"):
                yield component("cargo", each["name"], each["version"])


def debian_packages(status: str) -> Iterator[Component]:
    """Return the installed packages of dpkg's status file."""
    for entry in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.+)$", entry, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            yield component("deb", fields["Package"], fields["Version"], "debian")


if __name__ == "__main__":
    sys.exit(main())
