"""LitServe with raw bodies, its faster queue and dynamic batching."""

import signal
from typing import Annotated

import litserve
import numpy as np
from fastapi import Body, Response

from bench.peers.servers.common import BATCH_REQUESTS, Model, free_ports, images_of, joined


class Digits(litserve.LitAPI):
    """One worker process behind one API process."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the name is LitServe's
        """Load the model in the worker."""
        self.model = Model()

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> np.ndarray:
        """Return the images of a body."""
        return images_of(request)

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Leave requests apart, as they may be of different lengths."""
        return inputs

    def predict(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        """Return the logits of each request."""
        return joined(batch, self.model)

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        """Return the logits of each request."""
        return output

    def encode_response(self, output: np.ndarray) -> Response:
        """Return an answer with a raw body."""
        return Response(output.tobytes(), media_type="application/octet-stream")


def main() -> None:
    """Serve until the process is ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as CTRL+C: its workers end too
    (port,) = free_ports(1)
    api = Digits(max_batch_size=BATCH_REQUESTS, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    print(port, flush=True)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
