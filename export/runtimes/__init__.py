"""Runtimes: one runner each, with the same interface.

The server serves through the runners that the comparison checks.
"""

import os

# ONNX Runtime's wheels report to their maker unless this is set before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from export.runtimes.runner import InterveningRunner, Runner, open_runner

__all__ = ["InterveningRunner", "Runner", "open_runner"]
