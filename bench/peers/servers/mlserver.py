"""MLServer in one process, with adaptive batching; no access log, no metrics."""

import asyncio

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.servers.common import BATCH_REQUESTS, Model, free_ports


class Digits(MLModel):
    """The tensor `images` to the tensor `logits`."""

    async def load(self) -> bool:
        """Load the model."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the logits of a batch of requests that MLServer has joined."""
        (tensor,) = payload.inputs
        if tensor.datatype == "BYTES":
            data = getattr(tensor.data, "root", tensor.data)
            images = np.frombuffer(b"".join(data), np.float32).reshape(-1, 28, 28)
        else:
            images = NumpyCodec.decode_input(tensor)
        logits = self.model(images)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)]
        )


def main() -> None:
    """Serve until the process is ended."""
    http_port, grpc_port = free_ports(2)
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_endpoint=None,
        parallel_workers=0,
    )
    model = ModelSettings(
        name="mnist",
        implementation=Digits,
        max_batch_size=BATCH_REQUESTS,
        max_batch_time=0.001,
    )

    async def serve() -> None:
        await MLServer(settings).start([model])

    print(grpc_port, flush=True)
    asyncio.run(serve())


if __name__ == "__main__":
    main()
