"""Proven bounds, certificates and statistics by unit, as a trace returns them."""

import numpy as np

from export.architecture import Stage
from export.parity.certificates import Proof
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.codec import encode_into
from server.api.sizes import STAGE_OVERHEAD_BYTES, TENSOR_OVERHEAD_BYTES
from server.engine.units import unit_statistics

CERTIFICATE_BYTES = 64  # two classes, two doubles, a bool, tags and lengths


def certificate_bytes(images: int) -> int:
    """Return an upper limit of the bytes of the certificates."""
    return images * CERTIFICATE_BYTES


def unit_bytes(stage: Stage) -> int:
    """Return an upper limit of the bytes of a stage's statistics by unit."""
    tensors = len(pb.UnitStatistics.DESCRIPTOR.fields)
    return STAGE_OVERHEAD_BYTES + tensors * (stage.size * 4 + TENSOR_OVERHEAD_BYTES)


def put_units(values: np.ndarray, into: pb.UnitStatistics) -> None:
    """Encode the statistics of each unit of a stage's output, [N, …], into an empty message."""
    for name, array in unit_statistics(values)._asdict().items():
        encode_into(getattr(into, name), array.astype("<f4"))


def put_proof(proof: Proof, into: pb.TraceResponse) -> None:
    """Encode the bounds of the response's stages, and the certificates."""
    for stage in into.stages:
        stage.bound = float(proof.reference.bounds[stage.name].max())
    found = proof.certificates
    columns = (found.predicted, found.nearest, found.gap, found.bound, found.certified)
    add = into.certificates.add
    for predicted, nearest, gap, bound, certified in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        add(
            predicted_class=predicted,
            nearest_class=nearest,
            gap=gap,
            bound=bound,
            certified=certified,
        )
