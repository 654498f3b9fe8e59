"""Tensors of responses as NumPy arrays."""

import numpy as np

from forward.v1 import forward_pb2 as pb


def array_of(tensor: pb.Tensor) -> np.ndarray:
    """Return a FLOAT32 tensor as an array; a view of its bytes, hence read-only."""
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))
