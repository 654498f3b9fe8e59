"""Predict the digit of a picture: `python examples/predict.py [ADDRESS]`."""

import sys
from pathlib import Path

from forward_client import ForwardClient
from forward_client.pictures import read_images

DIGIT = Path(__file__).parent.parent / "docs" / "digit.png"

with ForwardClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8001") as client:
    prediction = client.predict(read_images(DIGIT).pixels)

print(f"{DIGIT.name} shows a {prediction.classes[0]}")
