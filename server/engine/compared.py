"""Compares the runtimes that this server has on a caller's images, as `export compare` does."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, cast

import numpy as np

from export.architecture import Runtime
from export.bundle import Bundle
from export.bundle.manifest import StageParity
from export.errors import ExportError, RuntimeUnavailableError
from export.parity.certificates import Prover
from export.parity.compare import add_images, chunks
from export.parity.tally import Tally, first_divergence
from export.runtimes import Runner, open_runner
from export.runtimes.numpy import RoundedNumpyRunner
from server.errors import UnavailableError

ORACLE = "numpy"
RUNTIMES = (ORACLE, "onnx", "eager", "torchscript", "pt2")
PROGRAMS = ("torchscript", "pt2")  # their files are programs of whoever made the bundle
CHUNK_IMAGES = 64  # so long a comparison goes on that nobody waits for, or keeps torch's lock


class RuntimeFigures(NamedTuple):
    """One runtime beside the exact forward pass."""

    runtime: str
    stages: Sequence[StageParity]  # those that it returned
    diverges_at: str | None
    different_decisions: int  # images


class Compared(NamedTuple):
    """The result of a comparison."""

    runtimes: Sequence[RuntimeFigures]
    certified_share: float  # of the images


class StoppedError(Exception):
    """Nobody waits for the comparison any more."""


@cache
def has_torch() -> bool:
    """Tell whether torch is installed; it is not imported for that."""
    return find_spec("torch") is not None


class ComparedRuntimes:
    """The runtimes of a version for comparisons, opened when first asked for and kept.

    `programs`: those whose files are programs may be opened, too. The one that serves is there.
    """

    def __init__(
        self, bundle: Bundle, prover: Prover, served: Runner, *, programs: bool = False
    ) -> None:
        self._bundle = bundle
        self._prover = prover
        self._stages = bundle.manifest.stages
        logits = self._stages[-1].name
        self._runners: dict[str, Runner] = {
            served.runtime: served,
            ORACLE: cast("Runner", RoundedNumpyRunner(prover.oracle, logits)),
        }
        # A number of threads would be torch's for the whole process, where it may serve.
        self._threads = 1 if served.runtime == "onnx" else None
        self._precision = served.precision
        self._opening = threading.Lock()
        closed = () if programs else PROGRAMS
        openable = {name for name in RUNTIMES if name not in closed} if has_torch() else {"onnx"}
        self.available = tuple(name for name in RUNTIMES if name in {*openable, *self._runners})

    def compare(
        self, names: Sequence[str], images: np.ndarray, is_stopped: Callable[[], bool]
    ) -> Compared:
        """Run images, FLOAT32 [N, H, W], in runtimes; returns what came of them, in their order.

        Raises:
            StoppedError: `is_stopped` said so.
            UnavailableError: a runtime can't be opened.
        """
        tallies = {name: Tally(self._stages, self._runner(name), {}) for name in names}
        precisions = {self._precision, *(each.runner.precision for each in tallies.values())}
        certified = 0
        for chunk in chunks(images, CHUNK_IMAGES):
            if is_stopped():
                raise StoppedError
            proofs = self._prover.prove_each(chunk, {"float32", *precisions})
            for error in add_images(tallies, chunk, proofs).values():
                raise error
            certified += int(proofs[self._precision].certificates.certified.sum())
        return Compared(_figures(tallies), certified / len(images))

    def _runner(self, name: str) -> Runner:
        with self._opening:
            if name not in self._runners:
                self._runners[name] = self._open(cast("Runtime", name))
            return self._runners[name]

    def _open(self, runtime: Runtime) -> Runner:
        """Open a runtime on the CPU: a comparison takes no memory of a GPU that serves."""
        try:
            return open_runner(self._bundle, runtime, "cpu", threads=self._threads)
        except RuntimeUnavailableError as error:
            raise UnavailableError(f"runtime {runtime!r} can't be used: {error}") from error
        except ExportError as error:
            raise UnavailableError(
                f"runtime {runtime!r} can't be opened, the version's folder has changed since it "
                f"was loaded: {error}"
            ) from error


def _figures(tallies: Mapping[str, Tally]) -> list[RuntimeFigures]:
    found = []
    for name, tally in tallies.items():
        divergence = first_divergence(tally.violations())
        stages = [each.record() for each in tally.stages.values() if each.elements]
        at = divergence.stage if divergence else None
        found.append(RuntimeFigures(name, stages, at, tally.different_decisions))
    return found
