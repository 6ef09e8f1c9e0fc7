"""JCAMP-DX whose labels are written in other ways, or contradict the data."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, N, X, message_of, written

pytest.importorskip("nirs4all_formats")

VALUES = (X[0] * 1e4).round().astype(int)
LINES = [f"{AXIS[k]:g} {' '.join(map(str, VALUES[k : k + 5]))}" for k in range(0, N, 5)]
WHOLE = f"""##TITLE=leaf
##JCAMP-DX=4.24
##DATA TYPE=INFRARED SPECTRUM
##XUNITS=1/CM
##YUNITS=ABSORBANCE
##FIRSTX={AXIS[0]}
##LASTX={AXIS[-1]}
##NPOINTS={N}
##XFACTOR=1.0
##YFACTOR=0.0001
##XYDATA=(X++(Y..Y))
{chr(10).join(LINES)}
##END=
"""
PAIRS = WHOLE.replace("(X++(Y..Y))", "(XY..XY)").replace(
    "\n".join(LINES), "\n".join(f"{a:g}, {v}" for a, v in zip(AXIS, VALUES, strict=True))
)


def with_labels(text, change):
    lines = (line.partition("=") if line.startswith("##") else (line, "", "") for line in text.splitlines())
    return "\n".join(f"{change(label) if sign else label}{sign}{value}" for label, sign, value in lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        with_labels(WHOLE, str.lower),
        with_labels(WHOLE, lambda label: label.replace("STX", "st X").replace("FAC", "-Fac").replace("PO", "_PO")),
        with_labels(WHOLE, lambda label: label.replace("##", "## ").replace("UNITS", "/units")),
        WHOLE.replace(f"={AXIS[0]}", f"= {AXIS[0]} $$ of the first"),
        WHOLE.replace("\n", "\r\n"),
        WHOLE.replace(f"##NPOINTS={N}\n", ""),
        WHOLE.replace("##XFACTOR", "##DELTAX=7\n##XFACTOR"),
        PAIRS,
    ],
)  # fmt: skip
def test_labels_as_the_standard_compares_them(text, tmp_path):
    found = read_spectra(written(tmp_path, text, "a.jdx"), to_train=False)
    np.testing.assert_allclose(found.x.numpy(), VALUES[None] / 1e4, rtol=1e-6)
    np.testing.assert_allclose(found.axis.numpy(), AXIS)
    assert found.unit == "cm⁻¹"
    assert len(found.reading.lines()) == 1


def test_pairs_that_are_not_even_keep_their_positions(tmp_path):
    axis = AXIS + np.linspace(0, 1, N) ** 2 * 30
    lines = "\n".join(f"{a:.4f}, {v}" for a, v in zip(axis, VALUES, strict=True))
    text = WHOLE.replace("(X++(Y..Y))", "(XY..XY)").replace("\n".join(LINES), lines)
    found = read_spectra(
        written(tmp_path, text.replace(f"LASTX={AXIS[-1]}", f"LASTX={axis[-1]}"), "a.jdx"), to_train=False
    )
    np.testing.assert_allclose(found.axis.numpy(), axis, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (f"NPOINTS={N}", "NPOINTS=15", "NPOINTS is 15, and 20 values are there"),
        (f"LASTX={AXIS[-1]}", "LASTX=1300", "contradict the positions that its lines begin with"),
        (f"FIRSTX={AXIS[0]}", "FIRSTX=1000", "contradict the positions that its lines begin with"),
        (f"##LASTX={AXIS[-1]}\n", "", "contradict the positions that its lines begin with"),
        (f"{LINES[2]}\n", f"1350{LINES[2][4:]}\n", "contradict the positions that its lines begin with"),
    ],
)
def test_labels_that_contradict_the_data(old, new, says, tmp_path):
    path = written(tmp_path, WHOLE.replace(old, new), "a.jdx")
    assert says in message_of(path, to_train=False)


def test_a_wrong_last_position_of_pairs_is_said(tmp_path):
    path = written(tmp_path, PAIRS.replace(f"LASTX={AXIS[-1]}", "LASTX=1300"), "a.jdx")
    found = read_spectra(path, to_train=False)
    np.testing.assert_allclose(found.axis.numpy(), AXIS)
    assert (
        "1242.5 as the last position, as the data and DELTAX say so, though LASTX is 1300" in found.reading.lines()[1]
    )
