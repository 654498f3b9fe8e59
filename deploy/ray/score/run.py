"""The scoring from its settings to its summary."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from deploy.ray.score.config import ScoreSettings
from deploy.ray.score.errors import ScoreError
from deploy.ray.score.locations import Location, open_location
from deploy.ray.score.output import Written, clear, prepare, totals
from deploy.ray.score.progress import ScoringProgress, Summary
from deploy.ray.score.readers.dispatch import done_rows, plan
from deploy.ray.score.readers.pieces import Reading
from deploy.ray.score.scorer import Scoring
from deploy.ray.score.sources import Sources, find_sources
from export.bundle import find_bundle
from export.bundle.manifest import Manifest
from export.output import printable

SHOWN_NAMES = 3  # of files that are ignored, or can't be read
FORMAT = 1  # of the output


def score(settings: ScoreSettings, console: Console) -> Summary:
    """Score what is not scored yet; return what there is then.

    Raises:
        ScoreError: it can't start or go on.
        ExportError: the bundle can't be loaded.
    """
    source, output = open_location(settings.input), open_location(settings.output)
    _check_apart(source, output)
    bundle = find_bundle(settings.models_dir, settings.model, settings.model_version)
    bundle.verify_files()
    _check_stages(settings, bundle.manifest)
    sources = find_sources(source)
    _check_pictures(sources)
    if sources.ignored:
        console.print(
            f"ignored, not of a kind that is read: {_names(sources.ignored)}", soft_wrap=True
        )
    description = describe(settings, bundle.manifest, sources)
    sha256 = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    written = prepare(output, description, sha256)
    reading = Reading(sources.folder, bundle.manifest, settings.column, settings.chunk_images)
    planned = plan(sources.files, reading, done_rows(part.name for part in written))
    scoring = Scoring(
        settings.models_dir.resolve(),
        bundle.manifest,
        settings.runtime,
        settings.stages,
        settings.certify,
        settings.batch_images,
        sha256,
    )
    summary = Summary(*totals(written), planned.failures)
    if not planned.pieces:
        console.print("nothing is left to score", soft_wrap=True)
        return summary
    if written:
        console.print(
            f"continues: {summary.rows:,} images are scored already, {summary.bad:,} rows are bad",
            soft_wrap=True,
        )
    _prepare_ray(settings)
    from deploy.ray.score import pipeline  # noqa: PLC0415 (ray takes a second, and is an extra)

    began, before = time.monotonic(), summary.done
    with pipeline.cluster(settings) as workers:
        work = pipeline.Work(planned.pieces, reading, scoring, output, workers)
        _follow(pipeline.run(work), ScoringProgress(console, planned.rows, summary), summary)
    clear(output)
    seconds, count = time.monotonic() - began, summary.done - before
    console.print(
        f"{count:,} images in {seconds:.1f} s, {count / seconds:,.0f} images/s, "
        f"by {workers} workers",
        soft_wrap=True,
    )
    return summary


def _follow(parts: Iterable[Written], progress: ScoringProgress, summary: Summary) -> None:
    """Count the parts while they are written."""
    with progress:
        for part in parts:
            if part.failure:
                summary.failures.append(part.failure)
            summary.rows += part.rows
            summary.bad += part.bad
            progress.show()


def _prepare_ray(settings: ScoreSettings) -> None:
    """Set what ray reads when it is imported."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to its makers
    # Seconds; 30 are too few on a machine with much else to do.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    if settings.address is None and "RAY_AUTH_MODE" not in os.environ:
        # Only this command speaks to the Ray that it runs; by default Ray would write a token of
        # its own into the home folder, which a container may not have.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def describe(settings: ScoreSettings, manifest: Manifest, sources: Sources) -> dict[str, Any]:
    """Return all that decides the output: another value of any makes another scoring."""
    return {
        "format": FORMAT,
        "model": manifest.name,
        "model_version": manifest.version,
        "manifest_sha256": manifest.sha256,
        "runtime": settings.runtime,
        "stages": [stage.name for stage in manifest.stages if stage.name in settings.stages],
        "certify": settings.certify,
        "column": settings.column,
        "chunk_images": settings.chunk_images,
        "batch_images": settings.batch_images,
        "input_files": len(sources.files),
        "input_sha256": sources.sha256,
    }


def _check_apart(source: Location, output: Location) -> None:
    if source.contains(output) or output.contains(source):
        raise ScoreError(
            f"{output.name}: is in the input, or the input in it; expected folders apart, for the "
            "output would be read as input"
        )


def _check_stages(settings: ScoreSettings, manifest: Manifest) -> None:
    there = [stage.name for stage in manifest.stages]
    if unknown := [name for name in settings.stages if name not in there]:
        raise ScoreError(
            f"--stages: {manifest.name!r} version {manifest.version} has no stage "
            f"{', '.join(map(repr, unknown))}; its stages are {', '.join(there)}"
        )


def _check_pictures(sources: Sources) -> None:
    """Find out before the start whether pictures can be read."""
    if not any(file.kind == "picture" for file in sources.files):
        return
    try:
        import forward_client.pictures  # noqa: F401, PLC0415 (only who has pictures needs it)
    except ModuleNotFoundError as error:
        raise ScoreError(f"there are pictures in the input: {error}") from error


def _names(names: list[str]) -> str:
    shown = ", ".join(map(printable, names[:SHOWN_NAMES]))
    rest = len(names) - SHOWN_NAMES
    return f"{shown} and {rest:,} more" if rest > 0 else shown
