"""BentoML with raw bodies, and the model called in the event loop.

Its batching takes arrays, which its HTTP server reads from JSON alone; raw bodies
are not joined.
"""

import os
import runpy
import sys

import bentoml

from bench.peers.servers.common import Model, free_ports, images_of


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Digits:
    """One worker process."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    async def predict(self, images: bytes, /) -> bytes:
        """Return the logits of a body's images."""
        return self.model(images_of(images)).tobytes()


def main() -> None:
    """Run BentoML's own command, which serves until the process is ended."""
    (port,) = free_ports(1)
    print(port, flush=True)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    service = "bench.peers.servers.bentoml:Digits"
    sys.argv = ["bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    runpy.run_module("bentoml", run_name="__main__")


if __name__ == "__main__":
    main()
