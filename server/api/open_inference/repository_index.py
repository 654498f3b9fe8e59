"""The versions in the folder of the model, as the Open Inference Protocol lists them."""

from collections.abc import Sequence

from export.bundle.manifest import Manifest
from inference import open_inference_pb2 as oip
from server.api.open_inference.names import served_names
from server.errors import InvalidArgumentError, Violation, quote
from server.repository.versions import VersionStatus


def index_of(
    request: oip.RepositoryIndexRequest, manifest: Manifest, statuses: Sequence[VersionStatus]
) -> oip.RepositoryIndexResponse:
    """Return each version under each of the model's names; only what is served if that is asked.

    Raises:
        InvalidArgumentError: a repository is named.
    """
    if request.repository_name:
        text = f"expected nothing, as there is one repository, got {quote(request.repository_name)}"
        raise InvalidArgumentError([Violation("repository_name", text)])
    entry = oip.RepositoryIndexResponse.ModelIndex
    return oip.RepositoryIndexResponse(
        models=[
            entry(name=name, version=str(each.version), state=each.state, reason=each.reason)
            for name in served_names(manifest)
            for each in statuses
            if each.state == "READY" or not request.ready
        ]
    )
