"""Look at every stage of a forward pass: `python examples/trace.py [ADDRESS]`."""

import sys

import numpy as np

from forward_client import ForwardClient

images = np.zeros((2, 28, 28), np.uint8)
images[:, 4:24, 13:15] = 255  # an upright stroke

with ForwardClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8001") as client:
    trace = client.trace(images, {"relu": "full", "output": "statistics"})

for stage in trace.stages:
    print(f"{stage.name}: {stage.shape}, {stage.statistics['zero_share']:.0%} zeros")
