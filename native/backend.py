"""The build backend: maturin, with the crates of crates.txt and no others (crates.py)."""

from collections.abc import Callable
from pathlib import Path

import crates
import maturin

get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable


def pinned(hook: Callable[..., str]) -> Callable[..., str]:
    """Return a hook of the build that makes Cargo.lock first."""

    def pin_then_run(*arguments: object, **options: object) -> str:
        crates.pin(Path(__file__).parent)
        return hook(*arguments, **options)

    return pin_then_run


prepare_metadata_for_build_wheel = pinned(maturin.prepare_metadata_for_build_wheel)
prepare_metadata_for_build_editable = pinned(maturin.prepare_metadata_for_build_editable)
build_wheel = pinned(maturin.build_wheel)
build_editable = pinned(maturin.build_editable)
