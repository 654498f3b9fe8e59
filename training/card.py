"""The model card: what the model is, how it was made and how far to trust it."""

from collections.abc import Sequence

from export.manifest import TEST_IMAGES, Manifest
from training.fit import Epoch

SOURCES = {
    "mnist": "MNIST, Yann LeCun, Corinna Cortes, Christopher Burges (CC BY-SA 3.0)",
    "digits": "Optical Recognition of Handwritten Digits, E. Alpaydin, C. Kaynak (CC BY 4.0), "
    "as bundled with scikit-learn, brought from 8x8 to 28x28",
}


def model_card(manifest: Manifest, epochs: Sequence[Epoch]) -> str:
    """Return `MODEL_CARD.md`."""
    dataset = manifest.dataset
    stages = "\n".join(
        f"| `{stage.name}` | [N, {', '.join(map(str, stage.shape))}] | {stage.description} |"
        for stage in manifest.stages
    )
    parity = "\n".join(
        f"| {record.runtime} | {record.provider} | "
        f"{max(stage.max_error for stage in record.stages):.1e} | "
        f"{max(stage.bound for stage in record.stages):.1e} | "
        f"{max(stage.margin for stage in record.stages):.2%} | {record.certified_share:.2%} |"
        for record in manifest.parity
        if record.image_set == TEST_IMAGES
    )
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    return f"""# {manifest.name}, version {manifest.version}

{manifest.architecture}: a grayscale image of a digit in, one logit for each of
{len(manifest.labels)} classes out. Plain pixels in 0..1; the normalisation is folded into
`linear1`.

**Accuracy on {dataset.test_images:,} test images: {manifest.metrics["test_accuracy"]:.2%}**
(held-out images: {manifest.metrics["held_out_accuracy"]:.2%}).

| stage | shape | what it does |
|---|---|---|
{stages}

## How it was made

- Data: {SOURCES[dataset.name]}; {dataset.train_images:,} images to train,
  {dataset.held_out_images:,} held out to watch, {dataset.test_images:,} to test, once, at the end.
  SHA-256 of images and labels: `{dataset.sha256}`.
- Recipe: AdamW with warm-up and cosine decay, mild affine and elastic distortions,
  averaged weights, {len(epochs)} epochs, {sum(epoch.seconds for epoch in epochs):.0f} s;
  seed {manifest.seed}. Epoch by epoch: `history.jsonl` and the picture.
- Tools: {tools}.

![loss, held-out error and learning rate by epoch](history.png)

## Parity

Every stage of every runtime was compared with the exact forward pass on the test images. The margin
is the largest share of its proven bound that any element used; a decision is certified when no
runtime within the bounds can make another.

| runtime | provider | largest error | largest bound | margin | certified |
|---|---|---|---|---|---|
{parity}

## Use and limits

For teaching, tests and as the default model of the server. It knows single centred digits, light
ink on a dark background, drawn as MNIST's were: 20 pixels long in a field of 28, centred by mass.
It has no class for "not a digit": anything gets ten scores. It was not checked for calibration or
for robustness to other scripts, cameras or noise.
"""
