"""Result of `ForwardClient.compare`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from forward.v1 import forward_pb2 as pb


@dataclass(frozen=True)
class StageComparison:
    """How far one runtime is from the exact forward pass at one stage.

    Attributes:
        stage: name of the stage.
        max_error: largest absolute error of an element.
        mean_error: mean absolute error.
        max_bound_share: largest error as a share of its proven bound; over 1 the runtime diverges.
        max_ulps: largest distance in units in the last place of float32. What is not a number is
            infinitely far.
    """

    stage: str
    max_error: float
    mean_error: float
    max_bound_share: float
    max_ulps: float


@dataclass(frozen=True)
class RuntimeComparison:
    """One runtime beside the exact forward pass.

    Attributes:
        runtime: name of the runtime: "numpy", "onnx", "eager", "torchscript" or "pt2".
        stages: in the order of the model.
        diverges_at: name of the first stage with an error above its bound, or with other bits than
            the same computation in another form; None if there is none.
        different_decisions: images with another class than that of the exact forward pass.
    """

    runtime: str
    stages: tuple[StageComparison, ...]
    diverges_at: str | None
    different_decisions: int


@dataclass(frozen=True)
class Comparison:
    """The caller's images in the runtimes of the server.

    Attributes:
        runtimes: in the order asked for.
        certified_share: share of the images that no runtime within the bounds can decide
            otherwise, in 0..1.
        model_name: name of the model.
        model_version: version of the model.
        runtime: the runtime that serves.
    """

    runtimes: tuple[RuntimeComparison, ...]
    certified_share: float
    model_name: str
    model_version: int
    runtime: str

    @property
    def agrees(self) -> bool:
        """Whether no runtime diverges."""
        return all(each.diverges_at is None for each in self.runtimes)

    @classmethod
    def of(cls, response: pb.CompareResponse) -> "Comparison":
        """Return the record of a response."""
        return cls(
            runtimes=tuple(
                RuntimeComparison(
                    runtime=each.runtime,
                    stages=tuple(
                        StageComparison(
                            stage=stage.stage,
                            max_error=stage.max_error,
                            mean_error=stage.mean_error,
                            max_bound_share=stage.max_bound_share,
                            max_ulps=stage.max_ulps,
                        )
                        for stage in each.stages
                    ),
                    diverges_at=each.diverges_at or None,
                    different_decisions=each.different_decisions,
                )
                for each in response.runtimes
            ),
            certified_share=response.certified_share,
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
        )


def combined(comparisons: Sequence[Comparison], counts: Sequence[int]) -> Comparison:
    """Return the comparisons of several requests, of so many images each, as one."""
    total = sum(counts)

    def mean(values: Sequence[float]) -> float:
        weighted = (value * count for value, count in zip(values, counts, strict=True))
        return sum(weighted) / total

    return replace(
        comparisons[0],
        runtimes=tuple(
            _combined_runtime(several, mean)
            for several in zip(*(each.runtimes for each in comparisons), strict=True)
        ),
        certified_share=mean([each.certified_share for each in comparisons]),
    )


def _combined_runtime(
    several: Sequence[RuntimeComparison], mean: Callable[[Sequence[float]], float]
) -> RuntimeComparison:
    stages = tuple(
        StageComparison(
            stage=parts[0].stage,
            max_error=max(part.max_error for part in parts),
            mean_error=mean([part.mean_error for part in parts]),
            max_bound_share=max(part.max_bound_share for part in parts),
            max_ulps=max(part.max_ulps for part in parts),
        )
        for parts in zip(*(each.stages for each in several), strict=True)
    )
    diverging = {each.diverges_at for each in several}
    return RuntimeComparison(
        runtime=several[0].runtime,
        stages=stages,
        diverges_at=next((stage.stage for stage in stages if stage.stage in diverging), None),
        different_decisions=sum(each.different_decisions for each in several),
    )
