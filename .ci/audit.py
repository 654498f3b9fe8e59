"""Look for known vulnerabilities of the pinned dependencies: `make audit`.

pip-audit passes what it could not look up. Here, what could not be looked up must be what
SECURITY.md says was reviewed: the pins as they are, and nothing else installed.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PINS = ROOT / "constraints.txt"
REVIEW = ROOT / "SECURITY.md"
REVIEWED = re.compile(
    r"Reviewed on (\d{4}-\d\d-\d\d): `constraints.txt` of SHA-256\s+`([0-9a-f]{64})`"
)
UNPINNED = {
    "forward-client",
    "forward-native",
    "forward-server",
    "pip",
    "setuptools",
    "wheel",
}  # this repository's own, and what a venv begins with


def main() -> int:
    """Return 1 for a vulnerability, or if something was neither audited nor reviewed."""
    report = ask_pip_audit()
    faults = vulnerabilities(report)
    unaudited = sum("skip_reason" in entry for entry in report["dependencies"])
    if unaudited or not report["dependencies"]:
        print(
            f"No data on vulnerabilities can be reached for {unaudited or 'any'} of the pins; "
            f"they must be those of the review in {REVIEW.name}."
        )
        faults += review_faults(PINS.read_bytes(), REVIEW.read_text(encoding="utf-8"))
        faults += unpinned(PINS.read_text(encoding="utf-8"), installed())
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    audited = len(report["dependencies"]) - unaudited
    if audited and not faults:
        print(f"{audited} pins could be looked up; none has a known vulnerability.")
    return 1 if faults else 0


def ask_pip_audit() -> dict[str, Any]:
    """Return pip-audit's report, an empty one if its data can't be reached."""
    options = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        print(f"pip-audit gave no report: {reason[0]}")
        return {"dependencies": []}
    return report


def vulnerabilities(report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each known vulnerability."""
    return [
        f"{entry['name']} {entry['version']}: {fault['id']}, "
        f"fixed in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for entry in report["dependencies"]
        for fault in entry.get("vulns", ())
    ]


def review_faults(pins: bytes, review: str) -> list[str]:
    """Return what is wrong with the review: it is missing, or of other pins."""
    found = REVIEWED.search(review)
    digest = hashlib.sha256(pins).hexdigest()
    if found is None:
        return [f"{REVIEW.name} has no line like {REVIEWED.pattern}"]
    if found[2] != digest:
        return [
            f"{PINS.name} changed since its review of {found[1]}; review what changed, then write "
            f"the day and SHA-256 {digest} into {REVIEW.name}"
        ]
    print(f"{PINS.name} is what was reviewed on {found[1]}.")
    return []


def unpinned(pins: str, versions: Mapping[str, str]) -> list[str]:
    """Return a sentence for each installed version that is not the pinned one."""
    pinned = {
        canonical(name): version
        for name, _, version in (line.partition("==") for line in pins.splitlines())
        if version
    }
    return [
        f"installed is {name} {version}, pinned is {pinned.get(name, 'no version')}"
        for name, version in sorted(versions.items())
        if name not in UNPINNED and pinned.get(name) != version
    ]


def installed() -> dict[str, str]:
    """Return the versions of what is installed here, by name."""
    return {canonical(each.metadata["Name"]): each.version for each in distributions()}


def canonical(name: str) -> str:
    """Return a project's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
