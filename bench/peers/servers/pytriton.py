"""PyTriton: Triton's own gRPC front, its dynamic batcher, and the model in a Python process."""

import logging
import os
import signal
import sys
import sysconfig

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.peers.servers.common import Model, free_ports

MAX_IMAGES = 1024  # Triton counts images, not requests

model = Model()


@batch
def predict(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the logits of a batch of requests that Triton has joined."""
    return {"logits": model(images)}


def main() -> None:
    """Serve until the process is ended."""
    logging.disable(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as CTRL+C: Triton ends too
    # Triton's Python process must load the library of this interpreter, not the system's.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    http_port, grpc_port = free_ports(2)
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http_port,
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="mnist",
            infer_func=predict,
            inputs=[Tensor(name="images", dtype=np.float32, shape=(28, 28))],
            outputs=[Tensor(name="logits", dtype=np.float32, shape=(10,))],
            config=ModelConfig(max_batch_size=MAX_IMAGES, batcher=DynamicBatcher()),
        )
        print(grpc_port, flush=True)
        triton.serve()


if __name__ == "__main__":
    main()
