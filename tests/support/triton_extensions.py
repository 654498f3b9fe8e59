"""Read Triton's extensions with tritonclient: `python triton_extensions.py GRPC HTTP`, addresses.

What a user of tritonclient gets goes to standard output as JSON, by protocol.
"""

import json
import sys
from typing import Any

import tritonclient.grpc
import tritonclient.http
from google.protobuf.json_format import MessageToDict

UNUSED = ("memory_usage", "response_stats")  # which tritonclient has and this protocol has not
MODULES = {"grpc": tritonclient.grpc, "http": tritonclient.http}


def plain(answer: Any) -> Any:  # noqa: ANN401 (tritonclient has no types)
    """Return an answer as JSON has it: over HTTP it is that already."""
    if isinstance(answer, list | dict):
        return answer
    return MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def numbered(value: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return statistics with numbers for all whole numbers, which protobuf's JSON has as texts."""
    if isinstance(value, dict):
        return {
            name: each if name in {"name", "version"} else numbered(each)
            for name, each in value.items()
            if name not in UNUSED or each
        }
    return [numbered(each) for each in value] if isinstance(value, list) else int(value)


def seen_by(client: Any) -> dict[str, Any]:  # noqa: ANN401 (as above)
    index = plain(client.get_model_repository_index())
    statistics = plain(client.get_inference_statistics())
    return {
        "index": index["models"] if isinstance(index, dict) else index,
        "statistics": [numbered(each) for each in statistics["model_stats"]],
    }


def main() -> None:
    seen = {}
    for (protocol, module), address in zip(MODULES.items(), sys.argv[1:], strict=True):
        with module.InferenceServerClient(address) as client:
            seen[protocol] = seen_by(client)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
