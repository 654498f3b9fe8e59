"""Call a server that speaks TLS and wants a token: `python examples/tls.py ADDRESS CA TOKENS`.

CA is the PEM file of the certificate authority, TOKENS the server's file of tokens.
"""

import sys
from pathlib import Path

from forward_client import ForwardClient, Tls

address, ca, tokens = sys.argv[1:]
token = Path(tokens).read_text().splitlines()[0]

with ForwardClient(address, tls=Tls(Path(ca)), token=token) as client:
    model = client.model()

print(f"{model.name} version {model.version} on {model.runtime}")
