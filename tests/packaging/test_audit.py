"""The audit fails by known vulnerabilities, and by what is neither audited nor reviewed."""

import hashlib
import importlib.util
import tomllib
from types import ModuleType
from typing import Any

import pytest

from tests.support.bundles import REPOSITORY

PINS = "# pins\nnumpy==2.4.6\npip_audit==2.10.1\n"
SHA256 = hashlib.sha256(PINS.encode()).hexdigest()
REVIEW = "Reviewed on 2026-11-24: `constraints.txt` of SHA-256\n`{}`."


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / ".ci" / "audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(*faults: dict[str, Any]) -> dict[str, Any]:
    return {"name": "numpy", "version": "2.4.6", "vulns": list(faults)}


def test_a_known_vulnerability_is_named_with_its_fix(audit: ModuleType) -> None:
    fixed = {"id": "PYSEC-2026-1", "fix_versions": ["2.4.7"], "aliases": [], "description": ""}
    report = {"dependencies": [entry(), entry(fixed), entry({**fixed, "fix_versions": []})]}
    assert audit.vulnerabilities(report) == [
        "numpy 2.4.6: PYSEC-2026-1, fixed in 2.4.7",
        "numpy 2.4.6: PYSEC-2026-1, fixed in no version yet",
    ]


def test_changed_pins_need_a_new_review(audit: ModuleType) -> None:
    assert audit.review_faults(PINS.encode(), REVIEW.format(SHA256)) == []
    (changed,) = audit.review_faults(PINS.encode() + b"x==1\n", REVIEW.format(SHA256))
    assert "constraints.txt changed since its review of 2026-11-24" in changed
    (missing,) = audit.review_faults(PINS.encode(), "Nobody looked.")
    assert "has no line" in missing


def test_what_is_installed_is_what_is_pinned(audit: ModuleType) -> None:
    assert audit.unpinned(PINS, {"numpy": "2.4.6", "pip-audit": "2.10.1", "pip": "25"}) == []
    assert audit.unpinned(PINS, {"numpy": "2.4.5", "sleeper": "1"}) == [
        "installed is numpy 2.4.5, pinned is 2.4.6",
        "installed is sleeper 1, pinned is no version",
    ]
    assert audit.installed()["pip-audit"]


def test_the_distributions_of_this_tree_need_no_pin(audit: ModuleType) -> None:
    paths = [REPOSITORY / folder / "pyproject.toml" for folder in (".", "client", "native")]
    projects = [tomllib.loads(path.read_text())["project"] for path in paths]
    own = {project["name"]: project["version"] for project in projects}
    assert own.keys() == {"forward-server", "forward-client", "forward-native"}
    assert audit.unpinned(PINS, own) == []


def test_the_review_in_this_tree_is_current(audit: ModuleType) -> None:
    assert audit.review_faults(audit.PINS.read_bytes(), audit.REVIEW.read_text()) == []
