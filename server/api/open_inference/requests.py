"""A request of ModelInfer, as gRPC or as REST brings it."""

from collections.abc import Sequence
from dataclasses import dataclass

from inference import open_inference_pb2 as oip

VALUE_BYTES = 4  # of a float32 in binary
# Of one as text, the most: a sign, 17 digits, a point, an exponent and a comma.
TEXT_VALUE_BYTES = 25


@dataclass(frozen=True, slots=True)
class RestRequest:
    """What a ModelInferRequest has that a service reads, and how the outputs are to be written.

    Args:
        raw_input_contents: the elements of each input, as views of the body.
        text_outputs: by the name of an output, whether its values are written as text.
        is_text: whether those of all others are.
    """

    model_name: str
    model_version: str
    id: str
    inputs: Sequence[oip.ModelInferRequest.InferInputTensor]
    outputs: Sequence[oip.ModelInferRequest.InferRequestedOutputTensor]
    raw_input_contents: Sequence[bytes | memoryview]
    text_outputs: dict[str, bool]
    is_text: bool

    def writes_text(self, output: str) -> bool:
        """Tell if an output's values are written as text."""
        return self.text_outputs.get(output, self.is_text)


InferRequest = oip.ModelInferRequest | RestRequest


def value_bytes(request: InferRequest, output: str) -> int:
    """Return the most bytes that a value of an output takes in the response."""
    if isinstance(request, RestRequest) and request.writes_text(output):
        return TEXT_VALUE_BYTES
    return VALUE_BYTES
