"""Runs the commands that read pictures, by their options."""

import argparse

from forward_client.connection import ForwardClient
from forward_client.terminal.compare import compare
from forward_client.terminal.explain import ExplainOptions, explain
from forward_client.terminal.predict import predict
from forward_client.terminal.trace import TraceOptions, trace


def run(client: ForwardClient, options: argparse.Namespace) -> int:
    """Run a command; return its exit status."""
    paths, as_json = options.images, options.json
    if options.command == "compare":
        agrees = compare(client, paths, options.runtimes, as_json=as_json)
        return 0 if agrees else 1
    if options.command == "explain":
        asked = ExplainOptions(
            options.method, options.target, options.other, options.stage, options.baseline
        )
        explain(client, paths, asked, as_json=as_json)
    elif options.command == "trace" and _is_asked_more(options):
        wanted = TraceOptions(tuple(options.interventions), options.certify, options.detail)
        trace(client, paths, wanted, as_json=as_json)
    else:
        is_traced = options.command == "trace" or options.trace
        predict(client, paths, traced=is_traced, as_json=as_json)
    return 0


def _is_asked_more(options: argparse.Namespace) -> bool:
    return bool(options.interventions) or options.certify or options.detail == "units"
