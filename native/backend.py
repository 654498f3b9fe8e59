"""The build backend: maturin, with the crates of crates.txt and no others (crates.py).

The wheel has the extension, which maturin builds, and the program forward-health as a script, which
cargo builds.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import crates
import maturin

HERE = Path(__file__).parent
PROGRAM = "forward-health"
DATA = (
    HERE / "target" / "wheel-data"
)  # as in pyproject.toml; what is in its `scripts`, pip puts into bin

get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable


def pinned(hook: Callable[..., str]) -> Callable[..., str]:
    """Return a hook of the build that makes Cargo.lock first."""

    def pin_then_run(*arguments: object, **options: object) -> str:
        crates.pin(HERE)
        DATA.mkdir(parents=True, exist_ok=True)  # maturin wants it to be there
        return hook(*arguments, **options)

    return pin_then_run


def with_program(hook: Callable[..., str]) -> Callable[..., str]:
    """Return a hook that builds the program first."""

    def build_then_run(*arguments: object, **options: object) -> str:
        (DATA / "scripts").mkdir(parents=True, exist_ok=True)
        shutil.copy2(build_program(), DATA / "scripts" / PROGRAM)
        return hook(*arguments, **options)

    return pinned(build_then_run)


def build_program() -> Path:
    """Build the program, which needs no Python; return its path."""
    words = ("--release", "--locked", "--no-default-features", "--quiet", "--bin", PROGRAM)
    # For the program alone: the crates are built as for the extension.
    subprocess.run(("cargo", "rustc", *words, "--", "-C", "strip=symbols"), cwd=HERE, check=True)
    metadata = subprocess.run(
        ("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"),
        cwd=HERE,
        check=True,
        capture_output=True,
    )
    return Path(json.loads(metadata.stdout)["target_directory"], "release", PROGRAM)


prepare_metadata_for_build_wheel = pinned(maturin.prepare_metadata_for_build_wheel)
prepare_metadata_for_build_editable = pinned(maturin.prepare_metadata_for_build_editable)
build_wheel = with_program(maturin.build_wheel)
build_editable = with_program(maturin.build_editable)
