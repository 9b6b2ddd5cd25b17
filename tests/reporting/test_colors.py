"""What can be read and told apart: contrast of text, and colours as the colour-blind see them."""

import itertools
import re

import numpy as np
import pytest

from arkjax.reporting.drawing import COLORS, DASHES, INK, LINES, MARKERS
from arkjax.reporting.page import PALETTE, STYLE

pytestmark = pytest.mark.fast

# Severity 1 of Machado, Oliveira and Fernandes (2009, doi 10.1109/TVCG.2009.113), on linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
}  # fmt: skip


def linear(color):
    """Linear RGB [3] of "#abc" or "#aabbcc"."""
    digits = color.lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    values = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """Contrast ratio of WCAG 2.2."""
    light, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    """CIELAB under D65 of linear RGB."""
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(matrix) @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def schemes():
    """Colours by name: light, dark, and print."""
    light, dark = re.split("@media", PALETTE)
    printed = STYLE.split("@media print", 1)[1].split("}", 2)[1]
    found = {}
    for name, text in (("light", light), ("dark", dark), ("print", printed)):
        found[name] = dict(re.findall(r"--(\w+): (#\w+)", text))
    return found


def test_measures_are_those_of_known_pairs():
    assert contrast("#000", "#fff") == pytest.approx(21.0)
    assert contrast("#777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert lab(linear("#fff")) == pytest.approx([100, 0, 0], abs=0.1)
    assert lab(linear("#f00")) == pytest.approx([53.2, 80.1, 67.2], abs=0.3)
    for matrix in SEEN.values():  # Grey stays grey.
        assert matrix.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_can_be_read(scheme):
    colors = schemes()[scheme]
    assert set(colors) >= {"ink", "soft", "paper", "card", "right", "wrong", "link"}
    for text in ("ink", "soft", "right", "wrong", "link"):
        for ground in ("paper", "card"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("ink", ["ink of light pages", "ink of dark pages"])
def test_colors_of_plots_are_told_apart(seen, ink):
    own = schemes()["light" if "light" in ink else "dark"]["ink"]
    colors = {kind: own if color == INK else color for kind, color in COLORS.items()}
    for a, b in itertools.combinations(colors, 2):
        apart = lab(SEEN[seen] @ linear(colors[a])) - lab(SEEN[seen] @ linear(colors[b]))
        assert np.linalg.norm(apart) >= 12, (a, b)


def test_red_and_green_would_not_pass():
    red, green = (lab(SEEN["deuteranopia"] @ linear(c)) for c in ("#b58900", "#859900"))
    assert np.linalg.norm(red - green) < 12


def test_shape_says_what_color_says():
    assert COLORS.keys() == MARKERS.keys()
    assert len(set(MARKERS.values())) == len(MARKERS) and len(set(COLORS.values())) == len(COLORS)
    looks = {(LINES[n % len(LINES)], str(DASHES[n % len(DASHES)])) for n in range(28)}
    assert len(looks) == 28
