"""Ask why a digit is what it is, then test the answer: `python examples/ask_why.py [ADDRESS]`."""

import sys
from pathlib import Path

from forward_client import ForwardClient, Intervention
from forward_client.pictures import read_images

images = read_images(Path(__file__).parent.parent / "docs" / "digit.png").pixels

with ForwardClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8001") as client:
    why = client.attribute(images, stage="relu")
    strongest = why.strongest_units(4)[0]
    changed = client.trace(
        images, interventions=[Intervention.zero("relu", strongest)], certify=True
    )
    comparison = client.compare(images, ["onnx"])

print(f"a {why.target_classes[0]}, above all by the units {strongest.tolist()}")
print(f"without them it would be {changed.classes[0]}")
print(f"no runtime decides otherwise: {changed.certificates[0].certified}")
print(f"the largest error of ONNX Runtime: {comparison.runtimes[0].stages[-1].max_error:.1e}")
