"""The model card: what the model is, how it was made and how far to trust it."""

import textwrap
from collections.abc import Iterable, Sequence

from export.bundle.manifest import SNAPSHOTS_FILE, TEST_IMAGES, Manifest
from training.evaluate import Evaluation
from training.results import TrainingResult
from training.seeds import HEADINGS, seeds_rows

SOURCES = {
    "mnist": "MNIST, Yann LeCun, Corinna Cortes, Christopher Burges (CC BY-SA 3.0)",
    "fashion-mnist": "Fashion-MNIST, Han Xiao, Kashif Rasul, Roland Vollgraf, Zalando SE (MIT)",
    "digits": "Optical Recognition of Handwritten Digits, E. Alpaydin, C. Kaynak (CC BY 4.0), "
    "as bundled with scikit-learn, brought from 8x8 to 28x28",
}
SUBJECTS = {
    "mnist": "single centred digits, light ink on a dark ground, drawn as MNIST's were: "
    "20 pixels long in a field of 28, centred by mass",
    "fashion-mnist": "single pieces of clothing, light on a dark ground, as Zalando "
    "photographed and scaled them",
    "digits": "single centred digits, light ink on a dark ground, 20 pixels long in a field of 28",
}
CONFUSIONS = 5  # pairs of classes that are named
WEAK = 0.9  # accuracy below which a condition is called a failure


def model_card(
    manifest: Manifest, result: TrainingResult, results: Sequence[TrainingResult]
) -> str:
    """Return `MODEL_CARD.md`."""
    sections = (
        _what_it_is(manifest),
        _how_it_was_made(manifest, result),
        _over_seeds(result, results),
        _trust(result.test),
        _failures(manifest, result.test),
        _parity(manifest),
    )
    return "\n".join(sections)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headings = tuple(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _what_it_is(manifest: Manifest) -> str:
    metrics, dataset = manifest.metrics, manifest.dataset
    stages = _table(
        ("stage", "shape", "what it does"),
        (
            (f"`{s.name}`", f"[N, {', '.join(map(str, s.shape))}]", s.description)
            for s in manifest.stages
        ),
    )
    return f"""# {manifest.name}, version {manifest.version}

{manifest.architecture}: a grayscale image in, one logit for each of {len(manifest.labels)} classes
out ({", ".join(manifest.labels)}). Plain pixels in 0..1; the normalisation is folded into the first
layer.

**Accuracy on {dataset.test_images:,} test images: {metrics["test_accuracy"]:.2%}**
(held-out images: {metrics["held_out_accuracy"]:.2%}).

{stages}
"""


def _how_it_was_made(manifest: Manifest, result: TrainingResult) -> str:
    dataset, recipe = manifest.dataset, result.recipe
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    hardware = ", ".join(filter(None, manifest.hardware.values()))
    seconds = f"{result.seconds:.0f}"
    return f"""## How it was made

- Data: {SOURCES[dataset.name]}. {dataset.train_images:,} images to train;
  {dataset.held_out_images:,} held out, by which everything was chosen; {dataset.test_images:,} to
  test, looked at once, after every choice.
  SHA-256 of images and labels: `{dataset.sha256}`.
- Recipe: `recipe.toml`, {recipe.epochs} epochs in {seconds} s, seed {recipe.seed}. The same
  bits come again, on such a machine with such tools, from
  `python -m training --config recipe.toml`.
- SHA-256 of `weights.safetensors`: `{result.weights_sha256}`.
{_kept(result)}- Tools: {tools}.
- Machine: {hardware}; threads: {recipe.threads}.

![loss, error and learning rate by epoch; confusion matrix and worst mistakes](history.png)

The weights of the first layer, each unit as an image:

![an image for each unit](weights.png)
"""


def _kept(result: TrainingResult) -> str:
    last = result.epochs[-1].epoch
    if last not in result.snapshots:
        return ""
    numbers = ", ".join(map(str, result.snapshots))
    lines = textwrap.wrap(
        f"- `{SNAPSHOTS_FILE}`: the weights in half precision after the epochs {numbers}; 0 is "
        f"before the training, and those after {last} are the published ones, rounded.",
        width=100,
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
    return "\n".join(lines) + "\n"


def _over_seeds(result: TrainingResult, results: Sequence[TrainingResult]) -> str:
    if len(results) == 1:
        return ""
    seed = result.recipe.seed
    return f"""## Over seeds

The same recipe with {len(results)} seeds. Seed {seed} was chosen by its accuracy on the
held-out images; seconds are of training: to an accuracy on the held-out images, and in all.

{_table(HEADINGS, seeds_rows(results))}
"""


def _trust(test: Evaluation) -> str:
    robustness = "\n\n".join(
        _table(
            (f"{one.condition}, {one.unit}", *(f"{level:g}" for level in one.levels)),
            [("accuracy", *(f"{accuracy:.2%}" for accuracy in one.accuracies))],
        )
        for one in test.robustness
    )
    return f"""## How far to trust it

On the test images. Expected calibration error: {test.calibration_error:.2%} (15 intervals of
confidence, the largest softmax probability); mean cross-entropy {test.loss:.4f} nats. Dark ink on
light ground instead: {test.inverted_accuracy:.2%} right.

{robustness}

![reliability, and accuracy by shift, rotation and noise](evaluation.png)
"""


def _failures(manifest: Manifest, test: Evaluation) -> str:
    labels = manifest.labels
    confused = [
        (int(count), labels[row], labels[column])
        for row, counts in enumerate(test.confusion)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    worst = sorted(confused, key=lambda pair: -pair[0])[:CONFUSIONS]
    pairs = ", ".join(f"{label} taken for {taken} ({count})" for count, label, taken in worst)
    weak = [
        f"{one.condition} by {level:g} ({one.unit}) or more"
        for one in test.robustness
        if (level := one.first_level_below(WEAK)) is not None
    ]
    sure = sum(1 for mistake in test.mistakes if mistake.confidence > 0.9)
    return f"""## Use and known failures

For teaching, tests and as a default model. It knows {SUBJECTS[manifest.dataset.name]}. It has no
class for anything else: whatever comes gets {len(labels)} scores.

- Most often confused: {pairs or "none"}.
- Of {len(test.mistakes)} mistakes on the test images, {sure} were made with a confidence over 90%.
- Below {WEAK:.0%} right: {"; ".join(weak) or "at none of the levels above"}.
- Light and dark exchanged: not its subject; {test.inverted_accuracy:.0%} right.
"""


def _parity(manifest: Manifest) -> str:
    rows = (
        (
            record.runtime,
            record.provider,
            f"{max(stage.max_error for stage in record.stages):.1e}",
            f"{max(stage.bound for stage in record.stages):.1e}",
            f"{max(stage.margin for stage in record.stages):.2%}",
            f"{record.certified_share:.2%}",
        )
        for record in manifest.parity
        if record.image_set == TEST_IMAGES
    )
    headings = ("runtime", "provider", "largest error", "largest bound", "margin", "certified")
    return f"""## Parity

Every stage of every runtime was compared with the exact forward pass on the test images. The margin
is the largest share of its proven bound that any element used; a decision is certified when its
logit is further above every other than the proven bound of their difference, so that no runtime
within the bounds can make another.

{_table(headings, rows)}
"""
