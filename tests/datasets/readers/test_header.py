"""Rows above the data: groups above the names, classes above or below the names of samples in columns."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import (
    AXIS,
    CLASS,
    IDS,
    NUM,
    N,
    X,
    assert_read,
    columns_of,
    message_of,
    rows_of,
    text,
    written,
)

HALF = N // 2
FAT = (np.arange(NUM) * 0.37 + 1.05).round(2)
GROUPS = {
    "two groups": ["info", "info", *["spectra"] * N],
    "detectors": ["meta", "meta", *["VIS"] * HALF, *["NIR"] * (N - HALF)],
    "said once": ["meta", "", "VIS", *[""] * (HALF - 1), "NIR", *[""] * (N - HALF - 1)],
    "the axis's name": ["info", "info", *["wavelength (nm)"] * N],
}  # fmt: skip
NAMES = {
    "positions": [f"{a:g}" for a in AXIS],
    "positions and units": [f"{a:g} nm" for a in AXIS],
    "counted": [f"x{j + 1}" for j in range(N)],
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("names", NAMES)
def test_a_row_of_groups_is_above_the_names(group, names, tmp_path):
    rows = [[i, f, *row] for i, f, row in zip(IDS, FAT.tolist(), rows_of(), strict=True)]
    path = written(tmp_path, text([GROUPS[group], ["id", "fat", *NAMES[names]], *rows]))
    found = assert_read(path, axis=range(1, N + 1) if names == "counted" else AXIS, targets=["id", "fat"])
    assert found.targets["id"].tolist() == IDS
    assert found.targets["fat"].tolist() == FAT.tolist()


@pytest.mark.parametrize("values", [CLASS.tolist(), [f"c{c}" for c in CLASS]], ids=["numbers", "words"])
@pytest.mark.parametrize("above", [False, True])
def test_classes_of_samples_in_columns(above, values, tmp_path):
    names = [["nm", *IDS], ["class", *values]]
    found = assert_read(written(tmp_path, text([*(names[::-1] if above else names), *columns_of()])))
    assert found.targets["sample"].tolist() == IDS
    assert found.targets["class"].tolist() == values


def test_a_row_without_a_position_is_named(tmp_path):
    path = written(tmp_path, text([["nm", *IDS], ["", *CLASS], *columns_of()]))
    assert "'' is not the position of a channel; correct it, or leave the row out with drop_rows='2:2'" in message_of(
        path
    )
    assert_read(path, drop_rows="2:2")


@pytest.mark.parametrize("row", [[1] * HALF + [2] * (N - HALF), list(range(N, 0, -2)) + list(range(2, N + 1, 2))])
def test_whole_numbers_above_the_samples_are_a_question(row, tmp_path):
    path = written(tmp_path, text([["id", *AXIS], ["detector", *row], *rows_of(left=IDS)]))
    assert "row 2: the row holds whole numbers, and no other does: leave it out with drop_rows='2'" in message_of(path)
    assert_read(path, drop_rows="detector")
    assert_read(path, x=np.r_[[row], X], drop_rows="none")


def test_a_header_that_is_left_out_is_reported(tmp_path):
    path = written(
        tmp_path, text([["id", "", 1100.0, *[""] * (N - 1)], *([i, "a", *row] for i, row in zip(IDS, X, strict=True))])
    )
    assert "the first row left out, as most of its fields are empty" in "\n".join(read_spectra(path).reading.lines())


@pytest.mark.parametrize(("sep", "title"), [(",", "w"), ("\t", "nm"), (" ", "wavelength")])
def test_a_comment_names_the_samples(sep, title, tmp_path):
    names = [name.replace(" ", "-") for name in IDS]
    found = assert_read(written(tmp_path, "# " + text([[title, *names], *columns_of()], sep)))
    assert found.targets["sample"].tolist() == names
    remark = "# measured in June by A. B.\n"
    assert_read(written(tmp_path, remark + text(rows_of(X[:, 5:11]), " ")), np.arange(6), x=X[:, 5:11])
