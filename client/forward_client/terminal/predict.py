"""The commands `predict` and `trace`: pictures in, tables or JSON out. Needs the extra `cli`."""

import json
from collections.abc import Sequence
from pathlib import Path

from forward_client.connection import ForwardClient
from forward_client.output import complain
from forward_client.pictures import Images, read_images
from forward_client.results import Model, Prediction, Trace, joined
from forward_client.terminal.display import as_records, show_prediction, show_trace
from forward_client.terminal.screen import Screen


def predict(client: ForwardClient, paths: Sequence[Path], *, traced: bool, as_json: bool) -> None:
    """Print what the server predicts for the images of each file, traced with every stage.

    Raises:
        PictureError: a file can't be read.
        ForwardError: a call failed.
    """
    screen = Screen.here()
    model = client.model()
    for path in paths:
        images = read_images(path)
        for warning in images.warnings:
            complain(f"{path}: hard to read: {warning}")
        call = client.trace if traced else client.predict
        # As many requests as the server's limit makes of a large file.
        size = model.max_batch_images or len(images.pixels)
        starts = range(0, len(images.pixels), size)
        answers = (call(images.pixels[start : start + size]) for start in starts)
        if as_json:
            for start, answer in zip(starts, answers, strict=True):
                _print_json(str(path), answer, model, start, images.warnings)
        else:
            _print_tables(screen, str(path), images, list(answers), model)


def _print_json(
    title: str, answer: Prediction, model: Model, first: int, warnings: Sequence[str]
) -> None:
    for record in as_records(title, answer, model, first=first, warnings=warnings):
        print(json.dumps(record))


def _print_tables(
    screen: Screen, title: str, images: Images, answers: Sequence[Prediction], model: Model
) -> None:
    prediction = show_prediction(
        title,
        images.pixels,
        joined(answers),
        model,
        color=screen.color,
        ascii_only=screen.ascii_only,
    )
    screen.console.print(prediction)
    for answer in answers:
        if isinstance(answer, Trace):
            screen.console.print(show_trace(answer, ascii_only=screen.ascii_only))
