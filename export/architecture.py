"""The stages of a network: what each computes, its shape and its cost."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Operation = Literal["Input", "Flatten", "Linear", "ReLU", "Output"]
Form = Literal["eager", "torchscript", "pt2", "onnx"]  # of a network that can be run
Runtime = Literal[Form, "onnx-reference"]  # two runtimes read the ONNX form
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "tf32", "bfloat16"]  # of the factors of a product


class Stage(BaseModel):
    """One stage of the forward pass.

    `shape` is the shape of its output for one image; `values` names, for each
    form of the network, the layer or value of the graph that gives this output.
    Stages that compute nothing share the value of the stage before them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    operation: Operation
    description: str
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32"] = "float32"
    values: dict[Form, str]

    @property
    def size(self) -> int:
        """Number of elements of the output for one image."""
        return prod(self.shape)

    @classmethod
    def computed(
        cls, name: str, operation: Operation, description: str, shape: tuple[int, ...]
    ) -> Self:
        """Return a stage whose value carries the stage's own name in every form."""
        return cls(
            name=name,
            operation=operation,
            description=description,
            shape=shape,
            values=_values(name, onnx=name),
        )


def mlp(image_shape: tuple[int, int], hidden: Sequence[int], classes: int) -> tuple[Stage, ...]:
    """Return the stages of image -> Flatten -> (Linear -> ReLU) for each hidden layer -> Linear.

    `hidden` has the units of each hidden layer. The linear layers are linear1, linear2, …; the
    ReLU of a single hidden layer is relu, of several relu1, relu2, …. The last Linear gives one
    logit for each class.
    """
    stages = [
        Stage(
            name="input",
            operation="Input",
            description="grayscale image, pixels 0..1",
            shape=image_shape,
            values=_values("images", onnx="images"),
        ),
        Stage.computed("flatten", "Flatten", "rows of the image end to end", (prod(image_shape),)),
    ]
    operand = "x"
    for number, units in enumerate(hidden, start=1):
        linear = f"W{number}·{operand} + b{number}"
        suffix = "" if len(hidden) == 1 else str(number)
        stages += [
            Stage.computed(f"linear{number}", "Linear", linear, (units,)),
            Stage.computed(f"relu{suffix}", "ReLU", "negatives become 0", (units,)),
        ]
        operand = f"h{suffix}"
    last = len(hidden) + 1
    logits = _values(f"linear{last}", onnx="logits")
    return (
        *stages,
        Stage(
            name=f"linear{last}",
            operation="Linear",
            description=f"W{last}·{operand} + b{last}",
            shape=(classes,),
            values=logits,
        ),
        Stage(
            name="output",
            operation="Output",
            description="logits: one raw score for each class",
            shape=(classes,),
            values=logits,
        ),
    )


def _values(layer: str, onnx: str) -> dict[Form, str]:
    return {"eager": layer, "torchscript": layer, "pt2": layer, "onnx": onnx}


def check_chain(stages: Sequence[Stage]) -> None:
    """Raise ValueError unless the stages form a network that this project can run."""
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f"stage names must differ, got {names}")
    operations = [stage.operation for stage in stages]
    if operations[:1] != ["Input"] or operations[-1:] != ["Output"]:
        raise ValueError(f"stages must begin with Input and end with Output, got {operations}")
    for before, stage in pairwise(stages):
        expected = {
            "Flatten": (before.size,),
            "Linear": stage.shape[:1] if len(before.shape) == 1 else None,
            "ReLU": before.shape,
            "Output": before.shape if stage is stages[-1] else None,
        }.get(stage.operation)
        if stage.shape != expected:
            raise ValueError(
                f"stage {stage.name!r} ({stage.operation}) of shape {list(stage.shape)} "
                f"can't follow {before.name!r} of shape {list(before.shape)}"
            )


def parameter_shapes(stages: Sequence[Stage]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters: "linear1.weight" [out, in], "linear1.bias" [out], …."""
    shapes: dict[str, tuple[int, ...]] = {}
    for before, stage in pairwise(stages):
        if stage.operation == "Linear":
            shapes[f"{stage.name}.weight"] = (stage.size, before.size)
            shapes[f"{stage.name}.bias"] = (stage.size,)
    return shapes


def parameter_counts(stages: Sequence[Stage]) -> dict[str, int]:
    """Return the number of trained parameters of each stage: in·out weights and out biases."""
    counts = {stage.name: 0 for stage in stages}
    for name, shape in parameter_shapes(stages).items():
        counts[name.rpartition(".")[0]] += prod(shape)
    return counts


def flops_per_image(stages: Sequence[Stage]) -> dict[str, int]:
    """Return the floating-point operations of each stage for one image.

    Linear: for each output, in multiplications, in - 1 additions and one for the
    bias, so 2·in·out. ReLU: a comparison for each element. The others move data.
    """
    flops = {stage.name: 0 for stage in stages}
    for before, stage in pairwise(stages):
        if stage.operation == "Linear":
            flops[stage.name] = 2 * before.size * stage.size
        elif stage.operation == "ReLU":
            flops[stage.name] = stage.size
    return flops
