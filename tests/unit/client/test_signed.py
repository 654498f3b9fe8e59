"""Signed pixels in the terminal: every sign is readable, in color and without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forward_client.terminal.signed import NEGATIVE, POSITIVE, legend, show_signed

VALUES = arrays(np.float32, (5, 4), elements=st.integers(-(1 << 20), 1 << 20))


@given(VALUES)
def test_letters_have_the_sign_of_their_two_pixels(values: np.ndarray) -> None:
    lines = show_signed(values, color=False).plain.splitlines()
    assert [len(line) for line in lines] == [4, 4, 4], "the fifth row is alone in its cells"
    sums = np.add.reduceat(values, [0, 2, 4], axis=0)
    for letter, value in zip("".join(lines), sums.ravel(), strict=True):
        if letter != " ":
            assert letter in (POSITIVE if value > 0 else NEGATIVE)
    largest = sums.ravel()[np.abs(sums).argmax()]
    strongest = (POSITIVE if largest > 0 else NEGATIVE)[-1]
    assert (strongest in "".join(lines)) == (largest != 0)


@given(VALUES)
def test_colors_are_red_above_zero_and_blue_below(values: np.ndarray) -> None:
    shown = show_signed(values, color=True)
    assert len(shown.plain.split()) == 3
    styles = [str(span.style) for span in shown.spans]
    uppers, lowers = values[0::2].ravel(), np.vstack([values[1::2], np.zeros((1, 4))]).ravel()
    for style, above, below in zip(styles, uppers, lowers, strict=True):
        for color, value in zip(style.split(" on "), (above, below), strict=True):
            red, _, blue = (int(part) for part in color[4:-1].split(","))
            if red or blue:  # a weak one may be black
                assert (red > blue) == (value > 0)


def test_output_of_ascii_gets_letters_though_it_has_color() -> None:
    values = np.array([[1.0, -1.0], [0.0, 0.0]])
    assert show_signed(values, color=True, ascii_only=True).plain == "XO\n"
    assert legend(values, color=True, ascii_only=True).plain.isascii()


@pytest.mark.parametrize("color", [True, False])
def test_a_legend_names_the_largest_magnitude(color: bool) -> None:
    values = np.array([[0.5, -2.0], [0.0, 0.0]])
    assert "-2" in legend(values, color=color).plain
