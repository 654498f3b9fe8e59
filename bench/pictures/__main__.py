"""Measure how many of MNIST's test digits are read right in each form: `make pictures`.

The digits are rendered in each form, saved to a file, read by the client and
classified by the bundled model; docs/guides/pictures.md gets the table. `--before FILE`
measures the `client/pictures.py` of an older checkout, of one file, beside it.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.pictures.forms import FORMS, Form
from export.bundle import open_bundle
from export.runtimes import Runner, open_runner
from export.settings import read_settings
from forward_client.pictures import PictureError, read_images
from training.config import TrainingSettings
from training.data import load

PAGE = Path("docs/guides/pictures.md")
START = "<!-- the table: make pictures -->\n"
END = "<!-- end of the table -->\n"
Reader = Callable[[Path], np.ndarray]


def main() -> None:
    """Measure the forms, and keep the table unless only some were asked for."""
    options = _options()
    settings = read_settings(TrainingSettings, [])
    test = load("mnist", settings.data_dir, settings.mirror).test
    step = len(test.labels) // options.count
    images, labels = test.images.numpy()[::step], test.labels.numpy()[::step]
    runner = open_runner(open_bundle(Path("models/mnist/1")), "onnx", "cpu")
    readers: list[Reader] = [lambda path: read_images(path).pixels]
    if options.before:
        readers.insert(0, _older(options.before))
    names = [name for name in FORMS if any(part in name for part in options.only or [""])]
    lines = [_heading(len(images), step, len(readers))]
    print(lines[0], end="", flush=True)
    for name in names:
        shares = _measured(FORMS[name], images, labels, runner, readers)
        lines.append(f"| {name} | " + " | ".join(shares) + " |\n")
        print(lines[-1], end="", flush=True)
    if not options.only:
        before, _, rest = PAGE.read_text().partition(START)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + START + "".join(lines) + END + after)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pictures", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="digits of a form (%(default)s)")
    parser.add_argument("--before", type=Path, help="an older client/pictures.py")
    parser.add_argument("--only", nargs="+", help="forms whose name has this in it; keeps nothing")
    return parser.parse_args()


def _older(path: Path) -> Reader:
    """Return how an older client, of one file, reads pictures; blank where it refused."""
    spec = importlib.util.spec_from_file_location("older_pictures", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def read(picture: Path) -> np.ndarray:
        try:
            images: np.ndarray = module.load_images(picture)
        except module.PictureError as error:
            raise PictureError(str(error)) from error
        return images

    return read


def _heading(count: int, step: int, readers: int) -> str:
    columns = ["form", "before", "now", "refused now"]
    if readers == 1:
        columns.remove("before")
    return (
        f"{count:,} of the 10,000 test digits, every {step}th; right answers of all.\n\n"
        f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    )


def _measured(
    form: Form, images: np.ndarray, labels: np.ndarray, runner: Runner, readers: list[Reader]
) -> list[str]:
    """Return the share that each reader gets right, and how many the last one refused."""
    right, refused = [0] * len(readers), 0
    with tempfile.TemporaryDirectory() as folder:
        for index, (image, digit) in enumerate(zip(images, labels, strict=True)):
            saved = form(image, np.random.default_rng(index))
            path = Path(folder) / f"picture.{saved.ending}"
            saved.picture.save(path, **saved.options)
            for number, reader in enumerate(readers):
                try:
                    pixels = reader(path) / np.float32(255)
                except PictureError:
                    refused += number == len(readers) - 1
                    continue
                right[number] += int(runner.predict(pixels).argmax() == digit)
    return [*(f"{count / len(labels):.1%}" for count in right), str(refused)]


if __name__ == "__main__":
    main()
