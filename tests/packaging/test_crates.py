"""The native transport is built of the listed crates, and of no others."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.bundles import REPOSITORY

NATIVE = REPOSITORY / "native"
LIST = (NATIVE / "crates.txt").read_text(encoding="utf-8")
needs_cargo = pytest.mark.skipif(shutil.which("cargo") is None, reason="needs Rust's cargo")


@pytest.fixture(scope="module")
def crates() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crates", NATIVE / "crates.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The crate without its lock and most of its code, of which nothing is compiled here."""
    for name in ("Cargo.toml", "crates.txt", "crates.py"):
        shutil.copy(NATIVE / name, tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/lib.rs").touch()
    return tmp_path


def pin(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Make the lock, as a build does before anything else."""
    command = (sys.executable, "crates.py", "pin")
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


@needs_cargo
def test_the_lock_has_the_listed_crates_and_cargo_takes_it(checkout: Path) -> None:
    done = pin(checkout)
    assert done.returncode == 0, done.stderr
    locked = tomllib.loads((checkout / "Cargo.lock").read_text())["package"]
    there = [each for each in locked if "source" in each]
    lines = [f"{each['name']} {each['version']} {each['checksum']}" for each in there]
    assert lines == [line for line in LIST.splitlines() if not line.startswith("#")]
    command = ("cargo", "tree", "--quiet", "--locked", "--depth", "0")
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)


@needs_cargo
def test_a_wrong_checksum_stops_the_build(checkout: Path) -> None:
    broken, count = re.subn(r"^(h2 \S+) .*$", rf"\1 {'0' * 64}", LIST, flags=re.M)
    assert count == 1
    (checkout / "crates.txt").write_text(broken)
    done = pin(checkout)
    assert done.returncode == 1
    assert "checksum for `h2 v" in done.stderr
    assert not (checkout / "Cargo.lock").exists()


@needs_cargo
def test_a_crate_that_is_not_listed_stops_the_build(checkout: Path) -> None:
    (checkout / "crates.txt").write_text(re.sub(r"^h2 .*\n", "", LIST, flags=re.M))
    done = pin(checkout)
    assert done.returncode == 1
    assert re.search(r"h2 \S+ is used and not listed", done.stderr)
    assert "make crates" in done.stderr
    assert not (checkout / "Cargo.lock").exists()


def test_a_line_of_another_form_is_named(crates: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "crates.txt"
    path.write_text("# a comment\nh2 0.4.20 none\n")
    with pytest.raises(crates.CratesError, match=r"not a name, a version and a SHA-256: 'h2 0.4"):
        crates.read_list(path)


def test_no_address_is_in_the_committed_files() -> None:
    command = ("git", "ls-files", "native")
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = listed.stdout.split()
    assert "native/crates.txt" in names
    assert "native/Cargo.lock" not in names
    assert not [name for name in names if b"registry+" in (REPOSITORY / name).read_bytes()]
