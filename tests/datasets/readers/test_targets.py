"""Columns beside the channels: numbers, names of samples, notes."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, IDS, NUM, N, X, columns_of, message_of, rows_of, text, written

WHOLE = np.random.default_rng(2).integers(900, 60_000, NUM)


def with_column(folder, name, column, sep=";", decimal="."):
    rows = [[cell, *row] for cell, row in zip(column, rows_of(), strict=True)]
    return written(folder, text([[name, *map(float, AXIS)], *rows], sep, decimal=decimal))


@pytest.mark.parametrize("sign", [",", " ", "'", "\u202f", "."])
@pytest.mark.parametrize("values", [WHOLE, WHOLE % 9000 + 1000, WHOLE + 0.5])
def test_thousands_in_one_column(sign, values, tmp_path):
    """Alone in a file, and beside decimal commas, these signs stand between thousands."""
    decimal = "," if sign == "." else "."
    column = [f"{v:,}".replace(".", "\0").replace(",", sign).replace("\0", decimal) for v in values]
    found = read_spectra(with_column(tmp_path, "yield", column, decimal=decimal))
    np.testing.assert_array_equal(found.targets["yield"], values)
    np.testing.assert_allclose(found.x, X, atol=1e-6)
    assert ("between thousands" in "\n".join(found.reading.lines())) == (sign in ",.")  # a space is no decimal sign


@pytest.mark.parametrize(("decimal", "digits"), [(".", 3), (",", 3), (",", 2)])
def test_decimals_in_one_column(decimal, digits, tmp_path):
    values = np.random.default_rng(4).uniform(1, 90, NUM).round(digits)
    path = with_column(tmp_path, "fat", [f"{v:.{digits}f}".replace(".", decimal) for v in values], decimal=decimal)
    found = read_spectra(path)
    np.testing.assert_array_equal(found.targets["fat"], values)
    assert "thousands" not in "\n".join(found.reading.lines())


@pytest.mark.parametrize("name", ["id", "Sample ID", "sample", "plot", ""])
@pytest.mark.parametrize(
    "form", ["{0:03d}", "{0}.{1}0", "1.{0}", "{0}e{1}", "{1}E{0}", "+{0}", "{0}.0"], ids=str
)  # fmt: skip
def test_names_of_samples_keep_their_text(name, form, tmp_path):
    names = [form.format(i + 1, i % 7) for i in range(NUM)]
    found = read_spectra(with_column(tmp_path, name, names, ","))
    assert found.targets[name or "column 1"].tolist() == names


@pytest.mark.parametrize("form", ["0{0}", "{1}e{0}", "{1}E{0}"])
def test_text_that_no_program_writes_for_a_number(form, tmp_path):
    column = [form.format(i + 10, i % 7) for i in range(NUM)]
    assert read_spectra(with_column(tmp_path, "tray", column, ",")).targets["tray"].tolist() == column


def test_names_that_are_equal_as_numbers_keep_their_text(tmp_path):
    names = [f"{i // 10 + 1}.{i % 10 + 1}" for i in range(NUM)]  # 1.1 and 1.10
    found = read_spectra(with_column(tmp_path, "nr", names, ","))
    assert found.targets["nr"].tolist() == names


def test_numbers_of_samples_are_numbers(tmp_path):
    for name, form in (("id", "{0}"), ("fat", "{0}.50"), ("moisture", "{0}.20")):
        column = [form.format(i) for i in range(NUM)]
        found = read_spectra(with_column(tmp_path, name, column, ","))
        assert found.targets[name].tolist() == [float(v) for v in column]


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("sign", [",", " ", "\u00a0", "'", "."])
@pytest.mark.parametrize("axis", [4000.0 - 8 * np.arange(N), 1060.0 - 8 * np.arange(N)], ids=["all", "some"])
def test_thousands_in_positions(axis, sign, decimal, tmp_path):
    if sign == decimal:
        return
    titles = [f"{int(a):,}".replace(",", sign) for a in axis]
    rows = [[i, *row] for i, row in zip(IDS, rows_of(), strict=True)]
    columns = [[title, *column[1:]] for title, column in zip(titles, columns_of(), strict=True)]
    for kind in ([["id", *titles], *rows], [["nm", *IDS], *columns], [["id", *(f"{t} nm" for t in titles)], *rows]):
        path = written(tmp_path, text(kind, ";", decimal=decimal))
        if sign == "." and axis[-1] > 1000:
            assert "'4.000" in (message := message_of(path))
            assert "decimal=','" in message
            continue
        found = read_spectra(path)
        assert found.axis.tolist() == axis.tolist()
        np.testing.assert_allclose(found.x, X, atol=1e-6)


def test_a_count_before_each_position_is_no_thousand(tmp_path):
    titles = [f"{j + 1} {400 + 5 * j}" for j in range(N)]
    found = read_spectra(written(tmp_path, text([["id", *titles], *rows_of(left=IDS)], ";")))
    assert found.axis.tolist() == [400 + 5 * j for j in range(N)]


FAT = np.linspace(8, 14, NUM).round(2)


@pytest.mark.parametrize("marker", [-999, -9999, -99, 9999])
@pytest.mark.parametrize("values", [FAT, np.arange(NUM) % 2], ids=["numbers", "two classes"])
def test_a_marker_of_missing_values_among_targets(marker, values, tmp_path):
    column = values.copy()
    column[[3, 9]] = marker
    path = with_column(tmp_path, "fat", column, ",")
    assert f"row 5, column 'fat', which is kept apart: {marker} is far from all other values" in message_of(path)
    assert read_spectra(path, missing_value="none").targets["fat"].tolist() == column.tolist()
    found = read_spectra(path, missing_value=str(marker)).targets["fat"]
    assert np.flatnonzero(found.isna()).tolist() == [3, 9]
    np.testing.assert_array_equal(found[found.notna()], np.delete(values, [3, 9]))


@pytest.mark.parametrize(
    "values", [[0, 1, 5, 10, 1000], [-99, 9999, 40, -60, 8000], [-999] * 5, [0.0, 9999.5, 3, 4, 5]]
)
def test_targets_without_a_marker(values, tmp_path):
    column = np.resize(values, NUM)
    np.testing.assert_array_equal(read_spectra(with_column(tmp_path, "dose", column, ",")).targets["dose"], column)
