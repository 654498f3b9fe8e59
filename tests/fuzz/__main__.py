"""Start a server, throw inputs at it, and say what came of them."""

import argparse
import asyncio
import sys
from collections import Counter
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from export.bundle import find_bundle
from export.runtimes import open_runner
from forward_client import ForwardClient
from tests.fuzz.differential import compare
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
    text = "send them to a server of each transport of gRPC, which must answer the same"
    parser.add_argument("--differential", action="store_true", help=text)
    options = parser.parse_args()
    if options.differential:
        return _compare(options.number, options.inputs)
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
        failures = [entry for entry in server.log() if _is_error(entry)]
    _print(findings)
    print(f"memory of the server {before:.1f} MiB after warm-up, {after:.1f} MiB at the end")
    _print_faults(findings, failures)
    return 1 if findings.wrong or failures or not findings.inputs else 0


def _compare(number: int, inputs: int) -> int:
    """Return 0 if both transports answered every input the same."""
    with (
        start_server("--device", "cpu", "--transport", "python") as one,
        start_server("--device", "cpu", "--transport", "native") as other,
    ):
        compared = asyncio.run(compare((one, other), number, inputs))
        failures = [entry for each in (one, other) for entry in each.log() if _is_error(entry)]
    findings = compared.findings
    _print(findings)
    total = Counter(method for method, _ in findings.statuses.elements())
    for method, calls in sorted(compared.lane.items()):
        print(f"the lane answered {calls:,} calls of {method}, which had {total[method]:,} inputs")
    _print_faults(findings, failures)
    is_well = findings.inputs and compared.lane.total() and not findings.wrong and not failures
    return 0 if is_well else 1


def _is_error(entry: dict[str, Any]) -> bool:
    return bool(entry["level"] == "error")


def _mebibytes(server: RunningServer) -> float:
    return float(psutil.Process(server.process.pid).memory_info().rss) / 2**20


def _print(findings: Findings) -> None:
    table = Table("method", "status", "inputs")
    for (method, status), count in sorted(findings.statuses.items()):
        table.add_row(method, status, f"{count:,}")
    Console().print(table)
    print(f"{findings.inputs:,} inputs, {len(findings.wrong)} wrong answers")


def _print_faults(findings: Findings, failures: list[dict[str, Any]]) -> None:
    for text in (*findings.wrong[:MAX_SHOWN], *map(str, failures[:MAX_SHOWN])):
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
