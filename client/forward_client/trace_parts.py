"""What a trace adds on request: statistics of units, and certificates of decisions."""

from dataclasses import dataclass

import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of


@dataclass(frozen=True)
class UnitStatistics:
    """Statistics of each unit of a stage over the images, float32 of the stage's shape for one.

    Attributes:
        mean: arithmetic means.
        standard_deviation: population standard deviations.
        min: smallest values.
        max: largest values.
        zero_share: shares of the images at which the unit is exactly 0, in 0..1; after ReLU, a
            unit with 1 is off in all of them.
    """

    mean: np.ndarray
    standard_deviation: np.ndarray
    min: np.ndarray
    max: np.ndarray
    zero_share: np.ndarray

    @classmethod
    def of(cls, units: pb.UnitStatistics) -> "UnitStatistics":
        """Return the record of a message."""
        return cls(
            **{
                field.name: array_of(getattr(units, field.name))
                for field in units.DESCRIPTOR.fields
            }
        )


@dataclass(frozen=True)
class Certificate:
    """Whether every runtime decides as the exact forward pass does for one image.

    Attributes:
        predicted_class: class with the largest exact logit.
        nearest_class: class whose logit is the nearest to that by the bound.
        gap: exact difference of the two logits, 0 or more.
        bound: proven bound of that difference's error in any runtime of this precision.
        certified: whether no runtime within the bounds can decide otherwise, for any class.
    """

    predicted_class: int
    nearest_class: int
    gap: float
    bound: float
    certified: bool

    @classmethod
    def of(cls, certificate: pb.Certificate) -> "Certificate":
        """Return the record of a message."""
        return cls(
            predicted_class=certificate.predicted_class,
            nearest_class=certificate.nearest_class,
            gap=certificate.gap,
            bound=certificate.bound,
            certified=certificate.certified,
        )
