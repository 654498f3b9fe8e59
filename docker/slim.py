"""Take out of an environment what a server does not need, and say what each part weighed.

The build runs it in the stage that filled the environment: `python slim.py /opt/forward`.
tests/packaging/test_image*.py run what the server does. A pattern that matches nothing
stops the build: a release has moved what it meant.
"""

import compileall
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# What, below site-packages, and why nobody misses it.
REMOVED = {
    "**/tests": "the packages' own tests",
    "**/*.py[ix]": "annotations of types; Cython's sources",
    "**/*.pxd": "Cython's declarations",
    "**/*.[cha]": "headers, C sources, static libraries",
    "**/*.proto": "sources of messages, which are there generated",
    "onnxruntime/transformers": "tools that prepare models",
    "onnxruntime/quantization": "tools that prepare models",
    "onnxruntime/tools": "tools that prepare models",
    "onnxruntime/datasets": "examples",
    "onnxruntime/capi/libonnxruntime.so*": "a second copy, which nobody loads",
    "pyqwest*": "connectrpc's HTTP client, in Rust; the server has no use of its client",
    "pycparser*": "cffi's parser, for builds",
    "cffi": "for builds; what runs is _cffi_backend",
    "numpy/f2py": "compiles Fortran",
    "numpy/distutils": "builds extensions",
    "numpy/_core/_simd.*": "for NumPy's tests",
    "numpy/_core/*_tests.*": "for NumPy's tests",
    "numpy/testing": "for tests",
    "numpy/polynomial": "a part that is imported by name alone",
    "numpy/fft": "a part that is imported by name alone",
    "packaging*": "compares versions, for onnxruntime's tools",
    "flatbuffers*": "for onnxruntime's tools",
    "markdown_it*": "rich's Markdown",
    "mdurl*": "rich's Markdown",
    "training": "needs torch",
    "*.dist-info/RECORD": "pip's list of files; there is no pip",
    "*.dist-info/sboms": "in bom.cdx.json",
    "pydantic/v1": "Pydantic of before, under another name",
    "pygments/styles/[!_d]*": "colours; `default` stays",
    "pygments/formatters/[!_t]*": "forms of output other than a terminal's",
    "pygments/lexers/[!_p]*": "languages other than Python",
    "pygments/lexers/_[!_m]*": "words of those languages",
    "pygments/lexers/p[!y]*": "languages other than Python",
    "anyio/_backends/_trio.*": "another event loop",
    "hypercorn/trio": "another event loop",
    "anyio/pytest_plugin.*": "for tests",
    "grpc/beta": "what came before grpc's API of today",
    "protobuf/plugin": "for compilers of .proto",
    "pydantic/mypy.*": "a plug-in of mypy",
    "rich/_unicode_data/unicode[4-9]-*": "widths of characters in older terminals",
    "rich/_unicode_data/unicode1[0-6]-*": "widths of characters in older terminals",
    "opentelemetry/semconv/_incubating/attributes/[!_or]*": "names of others' attributes",
    "opentelemetry/semconv/_incubating/metrics/[!_o]*": "names of others' metrics",
    "google/api": "messages of Google's services",
    "google/type": "messages of Google's services",
    "google/cloud": "messages of Google's services",
    "google/longrunning": "messages of Google's services",
}
# Only those whose wheels auditwheel has not moved parts of: `strip` would break the others.
STRIPPED = (
    "uvloop/loop.*.so",
    "cryptography/hazmat/bindings/_rust.abi3.so",
    "safetensors/_safetensors_rust.abi3.so",
    "google/_upb/_message.abi3.so",
    "charset_normalizer/*.so",
    "_cffi_backend.*.so",
)
ROOTS = "grpc/_cython/_credentials/roots.pem"  # Mozilla's
# The packages of this repository keep their sources, for tracebacks.
OURS = ("server", "export", "deploy", "forward_client", "forward", "inference")


def main() -> int:
    """Slim the environment of the command line; print a row for each step."""
    environment = Path(sys.argv[1])
    packages = next(environment.glob("lib/python*/site-packages"))
    before = weight(environment)
    rows = [(weight_removed(packages, pattern), pattern, why) for pattern, why in REMOVED.items()]
    rows += [(strip(packages, pattern), pattern, "symbols of the linker") for pattern in STRIPPED]
    rows.append((shorten_metadata(packages), "*.dist-info/METADATA", "the packages' read-me"))
    rows.append((link_roots(packages), ROOTS, "certifi has the same certificates"))
    rows.append(
        (compile_packages(packages), "*.py", "third parties': byte code alone; ours has both")
    )
    for size, pattern, why in sorted(rows, reverse=True):
        print(f"{size / 1e6:8.1f} MB  {pattern}: {why}")
    print(f"{before / 1e6:8.1f} MB before, {weight(environment) / 1e6:.1f} MB after")
    return 0


def weight(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; a link has none."""
    if path.is_symlink():
        return 0
    if path.is_dir():
        return sum(weight(each) for each in path.iterdir())
    return path.stat().st_size


def weight_removed(packages: Path, pattern: str) -> int:
    """Remove what a pattern names; return its weight."""
    found = [path for path in packages.glob(pattern) if path.exists()]
    if not found:
        raise SystemExit(f"slim: {packages} has no {pattern}")
    removed = 0
    for path in found:
        if not path.exists():
            continue  # it was in another one
        removed += weight(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return removed


def strip(packages: Path, pattern: str) -> int:
    """Strip a library of what only a linker or a debugger reads; return what that won."""
    won = 0
    for path in packages.glob(pattern):
        before = weight(path)
        subprocess.run(("strip", "--strip-unneeded", path), check=True)  # noqa: S603, S607
        won += before - weight(path)
    if not won:
        raise SystemExit(f"slim: {packages}/{pattern} is gone or has nothing to strip")
    return won


def shorten_metadata(packages: Path) -> int:
    """Leave the fields of each METADATA, which end at an empty line; return what that won."""
    won = 0
    for path in packages.glob("*.dist-info/METADATA"):
        fields, _, description = path.read_text(encoding="utf-8").partition("\n\n")
        path.write_text(fields + "\n", encoding="utf-8")
        won += len(description.encode())
    return won


def link_roots(packages: Path) -> int:
    """Let grpcio read certifi's copy of Mozilla's root certificates; return what that won."""
    roots, same = packages / ROOTS, packages / "certifi" / "cacert.pem"
    won = weight(roots)
    if not won or not same.exists():
        raise SystemExit(f"slim: {roots} or {same} is gone")
    roots.unlink()
    roots.symlink_to(Path("../../..") / same.relative_to(packages))
    return won


def compile_packages(packages: Path) -> int:
    """Compile everything: ours beside its sources, the rest in their place; return what that won.

    The byte code has the hash of its source and not the time, so that two builds are the same;
    nobody compares it, for nothing here changes.
    """
    before = weight(packages)
    for folder in packages.rglob("__pycache__"):
        shutil.rmtree(folder)
    for path in third_parties(packages):
        compiled = path.with_suffix(".pyc")
        py_compile.compile(
            str(path),
            str(compiled),
            str(path.relative_to(packages.parent)),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        path.unlink()
    for name in OURS:
        compileall.compile_dir(
            packages / name,
            quiet=1,
            stripdir=str(packages.parent),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    return before - weight(packages)


def third_parties(packages: Path) -> Iterator[Path]:
    """Return the modules of other projects, in order: so equal builds compile alike."""
    for path in sorted(packages.rglob("*.py")):
        if path.relative_to(packages).parts[0] not in OURS:
            yield path


if __name__ == "__main__":
    sys.exit(main())
