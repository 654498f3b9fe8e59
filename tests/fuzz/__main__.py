"""Start a server, throw inputs at it, and say what came of them."""

import argparse
import asyncio
import sys

import psutil
from rich.console import Console
from rich.table import Table

from export.bundle import find_bundle
from export.runtimes import open_runner
from forward_client import ForwardClient
from tests.fuzz.http import fuzz_http
from tests.fuzz.judgement import PredictJudge
from tests.fuzz.run import Findings, fuzz
from tests.support.bundles import MODELS_DIR, random_images
from tests.support.servers import RunningServer, start_server

WARM_SHARE = 0.1  # of the inputs, before memory is looked at
HTTP_SHARE = 0.2  # of the inputs, once more, at the HTTP port: each takes a connection
MAX_SHOWN = 20


def main() -> int:
    """Return 0 if every answer was what it must be and the server is as well as before."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="to try (%(default)s)")
    parser.add_argument("--number", type=int, default=0, help="of the random inputs (%(default)s)")
    options = parser.parse_args()
    bundle = find_bundle(MODELS_DIR, "mnist", None)
    runner = open_runner(bundle, "onnx", "cpu")
    judge = PredictJudge(runner, bundle.manifest.name, bundle.manifest.version)
    with start_server("--device", "cpu", "--http-port", "0") as server:
        warm = int(options.inputs * WARM_SHARE)
        asyncio.run(fuzz(server.address, options.number + 1000, warm, judge))
        asyncio.run(fuzz_http(server.http_address, options.number + 1000, warm))
        before = _mebibytes(server)
        findings = asyncio.run(fuzz(server.address, options.number, options.inputs, judge))
        inputs = int(options.inputs * HTTP_SHARE)
        findings.add(asyncio.run(fuzz_http(server.http_address, options.number, inputs)))
        after = _mebibytes(server)
        with ForwardClient(server.address) as client:
            client.predict(random_images(1, (28, 28)))  # it still serves
        failures = [entry for entry in server.log() if entry["level"] == "error"]
    _print(findings, before, after)
    for text in (*findings.wrong[:MAX_SHOWN], *map(str, failures[:MAX_SHOWN])):
        print(text, file=sys.stderr)
    return 1 if findings.wrong or failures or not findings.inputs else 0


def _mebibytes(server: RunningServer) -> float:
    return float(psutil.Process(server.process.pid).memory_info().rss) / 2**20


def _print(findings: Findings, before: float, after: float) -> None:
    table = Table("method", "status", "inputs")
    for (method, status), count in sorted(findings.statuses.items()):
        table.add_row(method, status, f"{count:,}")
    Console().print(table)
    print(f"{findings.inputs:,} inputs, {len(findings.wrong)} wrong answers")
    print(f"memory of the server {before:.1f} MiB after warm-up, {after:.1f} MiB at the end")


if __name__ == "__main__":
    sys.exit(main())
