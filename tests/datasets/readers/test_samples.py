"""Rows and columns that are not samples: means, deviations, positions, long tables; replicates; constant channels."""

import warnings

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from pyrovae.errors import InputError, InputWarning
from tests.datasets.readers.files import AXIS, CLASS, IDS, NUM, N, X, columns_of, message_of, rows_of, text, written

MEAN, DEVIATION = X.mean(0).round(4), X.std(0, ddof=1).round(4)
HEADER = ["id", *AXIS]
BELOW = {  # rows below the table, and the message
    "named": ([["Mean", *MEAN], ["SD", *DEVIATION]], "row 27: the row is named 'Mean': .* drop_rows=.'27', '28'."),
    "in german": ([["Mittelwert", *MEAN]], "drop_rows='27'"),
    "a sum": ([["Total", *X.sum(0).round(4)]], "is named 'Total'"),
    "a blank": ([["Blank", *(X[0] / 50).round(4)]], "is named 'Blank'"),
    "named, of other values": ([["average (n = 3)", *X[:3].mean(0).round(4)]], "is named 'average"),
    "by values alone": ([["x", *MEAN]], "row 27: the row is the mean of the others"),
    "a deviation by values alone": ([["x", *DEVIATION]], "is the standard deviation of the others"),
    "extremes": ([["Max", *X.max(0)], ["Min", *X.min(0)]], r"is named 'Max': .* drop_rows=.'27', '28'."),
    "the header in other digits": ([["id", *(f"{a:.3f}" for a in AXIS)]], "repeats the channels' positions"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BELOW)
def test_rows_that_are_no_samples(kind, tmp_path):
    below, says = BELOW[kind]
    path = written(tmp_path, text([HEADER, *rows_of(left=IDS), *below]))
    with pytest.raises(InputError, match=says):
        read_spectra(path)
    numbers = [str(27 + i) for i in range(len(below))]
    for rows in (numbers, [row[0] for row in below]):
        found = read_spectra(path, drop_rows=rows)
        np.testing.assert_array_equal(found.x.numpy(), X.astype(np.float32))
        assert found.row_names == tuple(IDS)
    assert read_spectra(path, drop_rows="none").x.shape == (NUM + len(below), N)


def test_rows_above_and_columns(tmp_path):
    path = written(tmp_path, text([HEADER, ["all", *MEAN], *rows_of(left=IDS)]))
    assert "row 2: the row is the mean of the others" in message_of(path)
    columns = [[*row, m, d] for row, m, d in zip(columns_of(), MEAN, DEVIATION, strict=True)]
    path = written(tmp_path, text([["nm", *IDS, "Mean", "SD"], *columns]))
    assert "drop=('27', '28')" in message_of(path)
    np.testing.assert_array_equal(read_spectra(path, drop=["Mean", "SD"]).x.numpy(), X.astype(np.float32))
    assert len(read_spectra(path, drop="none")) == NUM + 2
    path = written(tmp_path, text([*rows_of(left=IDS), HEADER]))
    assert "row 26: the row is in order, as the channels' positions are" in message_of(path)
    with pytest.raises(InputError, match="has no row '99'"):
        read_spectra(path, drop_rows=99)


@pytest.mark.parametrize("kind", ["binary", "few whole numbers", "one factor", "one factor, centred", "noise"])
def test_tables_without_summaries(kind, tmp_path):
    """A sample may be near the mean by chance; the seeds are fixed, and one table in a hundred would be refused."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        factor = rng.normal(size=(60, 1)) * np.linspace(1, 2, 12) ** 2
        values = {
            "binary": rng.integers(0, 2, (60, 5)).astype(float),
            "few whole numbers": rng.integers(0, 10, (60, 6)).astype(float),
            "one factor": (5 + factor + 1e-3 * rng.normal(size=factor.shape)).round(4),
            "one factor, centred": factor.round(4),
            "noise": rng.normal(size=(60, 4)).round(3),
        }[kind]
        np.save(tmp_path / "x.npy", values)
        assert len(read_spectra(tmp_path / "x.npy")) == 60


def test_samples_named_as_summaries_are_in_many_rows(tmp_path):
    """Where a third of the samples bear such a name, it is a class."""
    names = ["min" if c else "max" for c in CLASS]
    path = written(tmp_path, text([["level", *AXIS], *rows_of(left=names)]))
    assert len(read_spectra(path)) == NUM


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2)])
@pytest.mark.parametrize("header", [[], [["sample", "nm", "absorbance"]], [["a", "b", "c"]]])
@pytest.mark.parametrize("names", [IDS, list(range(1, NUM + 1))])
def test_long_tables_are_refused(order, header, names, tmp_path):
    rows = [[n, float(a), float(v)] for n, row in zip(names, X, strict=True) for a, v in zip(AXIS, row, strict=True)]
    for long in (rows, sorted(rows, key=lambda row: row[1])):
        path = written(tmp_path, text([[row[k] for k in order] for row in [*header, *long]]))
        assert "come again and again, so this is a long table" in message_of(path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([f"A{i // 3}_{i % 3 + 1}" for i in range(24)], "'A0' of 'A0_1'"),
        ([f"leaf {i // 2} ({'ab'[i % 2]})" for i in range(24)], "'leaf 0' of 'leaf 0 (a)'"),
        ([f"Sample {i // 2 + 1}{'ab'[i % 2]}" for i in range(24)], "'Sample 1' of 'Sample 1a'"),
        ([f"P-{i // 4}-rep{i % 4}" for i in range(24)], "'P-0' of 'P-0-rep0'"),
        ([f"s{i // 3}" for i in range(24)], "group='name'"),
    ],
)
def test_replicates_by_their_names(names, says, tmp_path):
    path = written(tmp_path, text([["name", *AXIS], *rows_of(X[:24], left=names)]))
    with pytest.warns(InputWarning, match="replicates") as caught:
        read_spectra(path)
    assert says in str(caught[0].message)
    assert "group" in str(caught[0].message)


@pytest.mark.parametrize("pattern", ["leaf-{}", "s{:03d}", "2024_{}", "A {}", "{}a"])
def test_numbered_names_are_no_replicates(pattern, tmp_path):
    path = written(tmp_path, text([["name", *AXIS], *rows_of(left=[pattern.format(i) for i in range(NUM)])]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_spectra(path)) == NUM


@pytest.mark.parametrize("names", [["plot", "block"], ["Probe", "Messung"]])
def test_replicates_by_a_column(names, tmp_path):
    rows = [[i // 3 + 1, i % 3 + 1, *row] for i, row in enumerate(rows_of(X[:24]))]
    path = written(tmp_path, text([[*names, *AXIS], *rows], ";", decimal=","))
    with pytest.warns(InputWarning, match=f"group='{names[0]}'"):
        found = read_spectra(path)
    assert list(found.targets) == names


@pytest.mark.parametrize("at", [[0, 1, 2], [N - 1], [7]])
def test_constant_channels(at, tmp_path):
    values = X.copy()
    values[:, at] = 0.5
    for content in (
        text([HEADER, *rows_of(values, left=IDS)]),
        text([["nm", *IDS], *([a, *column] for a, column in zip(AXIS, values.T, strict=True))]),
    ):
        path = written(tmp_path, content)
        assert "constant (0.5 in all spectra)" in message_of(path)
        assert "drop_constant=True" in message_of(path)
        found = read_spectra(path, drop_constant=True)
        np.testing.assert_array_equal(found.x.numpy(), np.delete(X, at, 1).astype(np.float32))
        np.testing.assert_array_equal(found.axis.numpy(), np.delete(AXIS, at))
        assert len(found.reading.left_out) == len(at)


@pytest.mark.parametrize("more", [["HOX1", "HOX2"], ["TP53", "TP63", "TP73"]])
def test_few_numbered_names_among_many(more, tmp_path):
    names = [*more, *[f"{a}{b}Q" for a in "ABCDE" for b in "KLMN"]][:N]
    path = written(tmp_path, text([["gene", *names], *rows_of(left=IDS)]))
    with pytest.warns(InputWarning, match=f"of {N} columns of numbers, {len(more)} are taken for channels .*{more[0]}"):
        read_spectra(path)
    assert read_spectra(path, channels="all").x.shape == (NUM, N)


def test_markers_among_values_of_their_size(tmp_path):
    counts = (X * 900 + 400).round()
    for marker in (999.0, 0.0):
        values = counts.copy()
        values[[2, 9, 14], [3, 5, 16]] = marker
        path = written(tmp_path, text([HEADER, *rows_of(values, left=IDS)]))
        assert f"{marker:g} is far from its neighbours" in message_of(path)
        found = read_spectra(path, missing_value=str(marker), missing="mask")
        assert found.reading.num_missing >= 3
        assert read_spectra(path, missing_value="none").reading.num_missing == 0
    for values in (counts, np.where(X > 0.9, 0.9, X), (X - X.mean(0)).round(1)):
        path = written(tmp_path, text([HEADER, *rows_of(values, left=IDS)]))
        assert read_spectra(path).x.shape == (NUM, N)


def test_points_in_a_header_above_decimal_commas(tmp_path):
    header = ["id", *(f"1.{100 + 2 * j}" for j in range(N))]
    content = ";".join(header) + "\n" + text(rows_of(left=IDS), ";", decimal=",")
    path = written(tmp_path, content)
    assert "'1.100' above numbers with decimal commas may be 1100, then say decimal=','" in message_of(path)
    assert read_spectra(path, decimal=",").axis[:2].tolist() == [1100, 1102]
    path = written(tmp_path, content.replace("1.", "1,", N))
    np.testing.assert_allclose(read_spectra(path).axis[:2], [1.1, 1.102])


def test_a_target_at_the_level_of_the_last_channel(tmp_path):
    rng = np.random.default_rng(2)
    last = (X[:, -1].mean() + X[:, -1].std() * rng.standard_normal(NUM)).round(4)
    path = written(tmp_path, text(rows_of(right=last)))
    assert "column 21 does not continue its neighbour" in message_of(path)
    assert read_spectra(path, label="last").x.shape == (NUM, N)


def test_positions_below_counted_names(tmp_path):
    rows = [["no", *map(str, range(1, N + 1))], ["id", *(f"{a:g}" for a in AXIS)], *rows_of(left=IDS)]
    path = written(tmp_path, text(rows))
    assert "say that it holds the positions with axis='row:2'" in message_of(path)
    found = read_spectra(path, axis="row:2")
    assert found.axis.tolist() == AXIS.tolist()
    np.testing.assert_allclose(found.x, X, atol=1e-5)


def test_a_file_of_an_instrument_holds_a_dark_spectrum_and_a_reference(tmp_path):
    rows = [["Wave", "Sample", "Dark", "Reference", "Transmittance"], ["[nm]", *["[counts]"] * 3, "[%]"]]
    rows += [[a, *[v * k + k for k in (9000, 10, 9900, 90)]] for a, v, *_ in columns_of()]
    path = written(tmp_path, text(rows, ";"))
    assert "column 3 ('Dark'): the column is named 'Dark': leave it out with drop=('3', '4')" in message_of(path)
    found = read_spectra(path, drop=("3", "4"), to_train=False)
    assert (found.unit, found.targets["sample"].tolist()) == ("nm", ["Sample", "Transmittance"])
    assert "guessed" not in "\n".join(found.reading.lines())


@pytest.mark.parametrize("name", ["dark.txt", "white_ref.spc", "ref 2", "Dark-001.asd", "panel reference"])
def test_a_reference_is_named_in_many_ways(name, tmp_path):
    path = written(tmp_path, text([["file", *AXIS], *rows_of(left=[*IDS[:7], name, *IDS[8:]])]))
    assert f"row 9: the row is named {name!r}" in message_of(path)
    assert read_spectra(path, drop_rows="none").x.shape == X.shape


@pytest.mark.parametrize("form", ["leaf{}-{}.spc", "{}_{}.asd", "tree{}.{}.txt"])
def test_files_of_replicates(form, tmp_path):
    names = [form.format(10 + i // 3, i % 3) for i in range(NUM)]
    with pytest.warns(InputWarning, match="without their last part"):
        read_spectra(written(tmp_path, text([["file", *AXIS], *rows_of(left=names)])))
