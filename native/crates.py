"""Pin the crates that the native transport is built of: `make crates` and every build.

Cargo.lock records the registry's address, so it is not committed. crates.txt is in its place: name,
version and SHA-256 of every crate of the lock that was tested. A build makes its lock of that list,
and fails if Cargo.toml wants other crates or the registry has other bytes.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LIST = "crates.txt"
HEAD = """\
# Every crate that the native transport was tested with: name, version, SHA-256. By `make crates`.
# h2 before 0.4.16 has RUSTSEC-2026-0258: never go back there.
"""
HOW_TO = f"If Cargo.toml changed, write {LIST} anew: make crates"


class Crate(NamedTuple):
    """A crate as a registry has it."""

    name: str
    version: str
    checksum: str


class CratesError(Exception):
    """The crates are not those of the list; says which."""


def main(arguments: list[str] | None = None) -> int:
    """Write the list of the crates, or Cargo.lock of the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("write", "pin"), help=f"write {LIST}, or Cargo.lock of it")
    parser.add_argument("--newest", action="store_true", help="write: the newest that fit")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.what == "pin":
            pin(HERE)
        else:
            write(HERE, newest=chosen.newest)
    except CratesError as fault:
        print(f"crates: {fault}", file=sys.stderr)
        return 1
    return 0


def write(folder: Path, *, newest: bool = False) -> None:
    """Write the list: the crates of the old one where they fit still, or the newest."""
    before = read_list(folder / LIST)
    resolve(folder, [] if newest else before)
    crates = read_lock(folder / "Cargo.lock")
    lines = [" ".join(crate) for crate in crates]
    (folder / LIST).write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(crates)} crates; {'; '.join(differences(before, crates)) or 'as before'}")


def pin(folder: Path) -> None:
    """Write the Cargo.lock that has exactly the crates of the list, or raise CratesError."""
    listed = read_list(folder / LIST)
    lock = folder / "Cargo.lock"
    if not listed:
        raise CratesError(f"{folder / LIST} lists no crate: make crates")
    if lock.exists() and read_lock(lock) == listed:
        return  # cargo's --locked holds it against Cargo.toml
    try:
        resolve(folder, listed)
        check_same(listed, read_lock(lock))
    except CratesError:
        lock.unlink(missing_ok=True)  # the next build shall not take it for a good one
        raise


def check_same(listed: Sequence[Crate], locked: Sequence[Crate]) -> None:
    """Raise CratesError, with every difference, if the crates of a lock are not those listed."""
    if faults := differences(listed, locked):
        raise CratesError(f"{LIST} and Cargo.toml differ: {'; '.join(faults)}. {HOW_TO}")


def resolve(folder: Path, listed: Iterable[Crate]) -> None:
    """Let cargo write Cargo.lock, with the crates that are listed wherever they fit.

    Of the listed crates only what they are goes into the lock, not what they depend on; cargo adds
    that, and compares each checksum with the registry's, whose address its first lock tells.
    """
    lock = folder / "Cargo.lock"
    lock.unlink(missing_ok=True)
    cargo(folder, "generate-lockfile")
    if not listed:
        return
    generated = tomllib.loads(lock.read_text(encoding="utf-8"))
    source = next(each["source"] for each in generated["package"] if "source" in each)
    parts = [f"version = {generated['version']}\n"]
    for crate in listed:
        fields = {**crate._asdict(), "source": source}
        values = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
        parts.append(f"[[package]]\n{values}")
    lock.write_text("\n".join(parts), encoding="utf-8")
    cargo(folder, "update", "--workspace")


def cargo(folder: Path, *arguments: str) -> None:
    """Run cargo, which is quiet unless it fails."""
    try:
        done = subprocess.run(
            ("cargo", *arguments, "--quiet"),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CratesError("cargo is not here: get Rust, by rustup or from Debian") from None
    if done.returncode:
        raise CratesError(f"cargo {arguments[0]} failed: {done.stderr.strip()}")


def read_list(path: Path) -> list[Crate]:
    """Read the list; an error names the line that is not of its form."""
    crates = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith("#"):
            continue
        if not re.fullmatch(r"[\w-]+ [\w.+-]+ [0-9a-f]{64}", line):
            raise CratesError(f"{path}: not a name, a version and a SHA-256: {line!r}")
        crates.append(Crate(*line.split(" ")))
    return crates


def read_lock(path: Path) -> list[Crate]:
    """Read a Cargo.lock's crates, but for this package itself."""
    packages = tomllib.loads(path.read_text(encoding="utf-8"))["package"]
    return [
        Crate(each["name"], each["version"], each.get("checksum", "none"))
        for each in packages
        if "source" in each
    ]


def differences(listed: Iterable[Crate], there: Iterable[Crate]) -> list[str]:
    """Return a phrase for each crate that is in one of the two alone."""
    before, after = set(listed), set(there)
    gone = [f"{crate.name} {crate.version} is listed and not used" for crate in before - after]
    new = [f"{crate.name} {crate.version} is used and not listed" for crate in after - before]
    return sorted(gone + new)


if __name__ == "__main__":
    sys.exit(main())
