"""Tensors of responses as NumPy arrays."""

import numpy as np

from forward.v1 import forward_pb2 as pb


def array_of(tensor: pb.Tensor) -> np.ndarray:
    """Return a FLOAT32 or FLOAT16 tensor as an array; a view of its bytes, hence read-only."""
    dtype = "<f2" if tensor.dtype == pb.DATA_TYPE_FLOAT16 else "<f4"
    return np.frombuffer(tensor.data, dtype).reshape(tuple(tensor.shape))
