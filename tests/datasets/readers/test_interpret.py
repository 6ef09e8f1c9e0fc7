"""Kinds of files that people bring, each in several variants: read as they are meant, or refused in a line."""

import numpy as np
import pytest

from pyrovae.datasets import AxisSource, read_spectra
from pyrovae.errors import InputWarning
from tests.datasets.readers import kinds
from tests.datasets.readers.files import (
    AXIS,
    CLASS,
    IDS,
    NUM,
    N,
    X,
    assert_read,
    columns_of,
    grouped,
    message_of,
    named,
    pairs_of,
    rows_of,
    spectrum,
    text,
    written,
)  # fmt: skip

COUNTED = np.arange(N, dtype=float)
READ = {
    # samples in columns, whatever the first column is called
    "in columns, german": (text([["Wellenzahl", *IDS], *columns_of()], ";", decimal=","), {"targets": ["sample"]}),
    "in columns, an unknown word": (text([["lam", *IDS], *columns_of()], "\t"), {"targets": ["sample"]}),
    "in columns, descending": (text([["", *IDS], *columns_of()[::-1]]), {"axis": AXIS[::-1], "x": X[:, ::-1]}),
    "in columns, numbers as names": (text([["w", *(101 + 3 * i for i in range(NUM))], *columns_of()]), {}),
    "in columns, no header, spaces": (text(columns_of(), "   "), {"targets": []}),
    "in columns, a second row of classes": (
        text([["nm", *IDS], ["class", *(f"c{c}" for c in CLASS)], *columns_of()]),
        {"targets": ["sample", "class"]},
    ),
    "in columns, a row number before the axis": (
        text([["", "lam", *IDS], *([j, *column] for j, column in enumerate(columns_of()))]),
        {"targets": ["sample"]},
    ),
    # a label at an edge, no header
    "minus and plus one": (
        text(rows_of(left=np.where(CLASS > 1, 1, -1)), "\t"),
        {"axis": COUNTED, "targets": ["column 1"]},
    ),
    "a word first": (text(rows_of(left=np.array(["a", "b", "c"])[CLASS])), {"axis": COUNTED, "targets": ["column 1"]}),
    "a name first and a class last": (
        text(rows_of(left=IDS, right=CLASS), ";"),
        {"axis": COUNTED, "targets": ["column 1", f"column {N + 2}"]},
    ),
    "a row number first": (text(rows_of(left=range(1, NUM + 1))), {"axis": COUNTED, "targets": ["column 1"]}),
    # several rows above the data
    "positions below names": (
        text([["id", *(f"pixel {j}" for j in range(N))], ["wavelength (nm)", *AXIS], *rows_of(left=IDS)]),
        {"targets": ["id"]},
    ),
    "units below positions": (text([["id", *AXIS], ["", *["nm"] * N], *rows_of(left=IDS)], ";"), {"targets": ["id"]}),
    "groups, names and positions": (
        text([["", *["NIR"] * N], ["id", *(f"p{j}" for j in range(N))], ["nm", *AXIS], *rows_of(left=IDS)], "\t"),
        {},
    ),
    # an axis alone above numbers
    "an uneven axis among counts": (
        text([[float(a) for a in np.cumsum(np.linspace(9, 5, N))], *rows_of((X * 300).round())]),
        {"axis": np.cumsum(np.linspace(9, 5, N)), "x": (X * 300).round()},
    ),
    "a descending axis": (
        text([AXIS[::-1].tolist(), *rows_of(X[:, ::-1])], " "),
        {"axis": AXIS[::-1], "x": X[:, ::-1]},
    ),
    # names with the wavelength in them
    "dot": (text([[f"abs.{a:g}" for a in AXIS], *rows_of()]), {}),
    "dot and unit": (text([["id", *(f"NIR.{a:g}.nm" for a in AXIS)], *rows_of(left=IDS)]), {}),
    "suffix": (text([[f"w{a:g}_mean" for a in AXIS], *rows_of()], ";"), {}),
    "brackets": (text([[f"R[{a:g}]" for a in AXIS], *rows_of()]), {}),
    "unit in brackets": (text([[f"{a:g} (cm-1)" for a in AXIS], *rows_of()]), {}),
    "positions with a dot at the end": (
        text([[f"{a:.0f}." for a in AXIS.round()], *rows_of()]),
        {"axis": AXIS.round()},
    ),
    # how instruments and programs write
    "fixed width": ("\n".join("".join(f"{v:12.6f}" for v in row) for row in X) + "\n", {"axis": COUNTED}),
    "tabs and spaces": ("\n".join(" \t".join(map(str, row)) for row in X) + "\n", {"axis": COUNTED}),
    "a header in a comment": ("# " + " ".join(map(str, AXIS)) + "\n" + text(rows_of(), " "), {}),
    "old mac with quotes": (text([[f'"{a:g}"' for a in AXIS], *rows_of()], ";", "\r"), {}),
    "preamble with tabs": (
        "Made by\tX\nRange\t1100-1300\n" + text([["id", *AXIS], *rows_of(left=IDS)], "\t"),
        {"targets": ["id"]},
    ),
    "preamble of a spreadsheet": (
        text([["Instrument A", *[""] * N], ["Date: today", *[""] * N], ["id", *AXIS], *rows_of(left=IDS)]),
        {"targets": ["id"]},
    ),
    "delimiters alone below the table": (
        text([["id", *AXIS, "", ""], *([*row, "", ""] for row in rows_of(left=IDS)), [""] * (N + 3)], ";"),
        {"targets": ["id"]},
    ),
    "a delimiter at each row's end": (text([[*AXIS, ""], *rows_of(right=[""] * NUM)], ";"), {}),
    "a header one field short, as R writes": (text([[f"X{a:g}" for a in AXIS], *rows_of(left=IDS)]), {}),
    "latin-1": (text([["Größe", *AXIS], *rows_of(left=CLASS)], ";").encode("latin-1"), {"targets": ["Größe"]}),
    "cp1252": (
        text([["id", *AXIS], *rows_of(left=[f"“{i}”" for i in IDS])], ";").encode("cp1252"),
        {"targets": ["id"]},
    ),
    "utf-16 without a mark": (text([AXIS.tolist(), *rows_of()]).encode("utf-16-le"), {}),
    "utf-16, big end first, tabs": (b"\xfe\xff" + text([AXIS.tolist(), *rows_of()], "\t").encode("utf-16-be"), {}),
    "commas between thousands": (
        text([["id", *AXIS], *grouped(",")], ";"),
        {"x": (X * 9000).round(1)},
    ),
    "apostrophes between thousands": (
        text([["id", *AXIS], *grouped("'")]),
        {"x": (X * 9000).round(1)},
    ),
    "in columns, rows named by wavelengths": (
        text([["", *IDS], *([f"{a:g} nm", *c[1:]] for a, c in zip(AXIS, columns_of(), strict=True))]),
        {"targets": ["sample"]},
    ),
    "in columns, row names of R": (
        text([["", *IDS], *([f"X{a:g}", *c[1:]] for a, c in zip(AXIS, columns_of(), strict=True))]),
        {"targets": ["sample"]},
    ),
    "in columns, a row of numbers above the axis": (
        text([["sample", *IDS], ["class", *CLASS], *columns_of()]),
        {"targets": ["sample", "class"]},
    ),
    "in columns, a second axis": (
        text([["nm", "cm-1", *IDS], *([c[0], round(1e7 / c[0], 3), *c[1:]] for c in columns_of())]),
        {"targets": ["sample"]},
    ),
    "two samples in columns, no header": (text([c[:3] for c in columns_of()]), {"x": X[:2]}),
    "merged cells above the axis": (
        text(
            [
                ["id", "class", "Wavelength (nm)", *[""] * (N - 1)],
                ["", "", *AXIS],
                *([i, f"c{c}", *row] for i, c, row in zip(IDS, CLASS, rows_of(), strict=True)),
            ]
        ),
        {"targets": ["id", "class"]},
    ),
    "a zero in the corner of a matrix": (text([[0, *AXIS], *rows_of(left=CLASS + 0.5)]), {}),
    "NaN in the corner of a matrix": (text([["NaN", *AXIS], *rows_of(left=CLASS + 0.5)]), {}),
    "units of the targets too": (
        text([["id", *AXIS, "fat"], ["", *["nm"] * N, "%"], *rows_of(left=IDS, right=CLASS + 0.5)]),
        {"targets": ["id", "fat"]},
    ),
    "points between thousands in the header too": (
        text(
            [
                ["id", *(f"{a:,.1f}".translate(str.maketrans(",.", ".,")) for a in AXIS)],
                *(
                    [i, *(f"{v * 9000:,.1f}".translate(str.maketrans(",.", ".,")) for v in row)]
                    for i, row in zip(IDS, X, strict=True)
                ),
            ],
            ";",
        ),
        {"x": (X * 9000).round(1)},
    ),
    "percent signs": (
        text([["id", *AXIS], *([i, *(f"{v:.4f}%" for v in row)] for i, row in zip(IDS, X, strict=True))]),
        {"targets": ["id"]},
    ),
    "pairs": (text(pairs_of()), {}),
    "named pairs": (
        text([[c for i in IDS for c in ("nm", i)], *pairs_of()], "\t"),
        {"targets": ["sample"]},
    ),
}


@pytest.mark.filterwarnings("ignore:.*more channels")
@pytest.mark.parametrize("kind", READ | kinds.READ)
def test_files_that_are_read(kind, tmp_path):
    content, wanted = (READ | kinds.READ)[kind]
    assert_read(written(tmp_path, content, "a.txt"), **wanted)


SPIKED = np.where(np.arange(X.size).reshape(X.shape) % 97 == 5, -999.0, X)
REFUSED = {
    "one spectrum, descending": (text(spectrum()[::-1], "\t"), "one spectrum"),
    "one spectrum after lines": ("Sample: a\nDate: b\n" + text([["cm-1", "A"], *spectrum()]), "one spectrum"),
    "one spectrum, decimal commas": (text(spectrum(), ";", decimal=","), "one spectrum"),
    "one spectrum below words by two": (
        "TITLE\t\nXUNITS\tNM\nXYDATA\n" + text(spectrum(), "\t"),
        "one spectrum of 20 channels",
    ),
    "-999": (
        text([AXIS.tolist(), *rows_of(SPIKED)]),
        r"-999 is far .* occurs 6 times.* missing_value='-999' and missing='mask'",
    ),
    "1e30": (text([AXIS.tolist(), *rows_of(np.where(SPIKED < 0, 1e30, X))]), r"1e\+30 is far"),
    "a saturated value again and again": (
        text([AXIS.tolist(), *rows_of(np.where(SPIKED < 0, 37.5, X))]),
        "37.5 is far",
    ),
    "a class named like a channel": (
        text([[f"v{j + 1}" for j in range(N + 1)], *rows_of(right=CLASS)]),
        r"column 21 \('v21'\) holds few whole numbers .* label='21' or label='none'",
    ),
    "a class first, named like a channel": (text([range(N + 1), *rows_of(left=CLASS)]), r"column 1 \('0'\) holds few"),
    "a target named like a channel": (
        text([[f"x{j}" for j in range(N + 1)], *rows_of(right=[14.2 + 0.37 * (7 * i % 11) for i in range(NUM)])]),
        r"column 21 \('x20'\) does not continue its neighbour",
    ),
    "targets last, without names": (
        text([[*row, 12 + i % 7 + 0.3, 40.5 - 3.7 * (i % 5)] for i, row in enumerate(rows_of())]),
        r"columns 21, 22 do not continue .*: are they labels or channels\? say label=\('21', '22'\) or label='none'",
    ),
    "two ranges of wavelengths": (
        text([[*(f"vis_{a:g}" for a in AXIS[:7]), *(f"nir_{a:g}" for a in AXIS[7:])], *rows_of()]),
        "'nir_' and 7 columns 'vis_'",
    ),
    "a word for missing": (
        text([AXIS.tolist(), *rows_of(), [*X[0, 1:], "out of range"]]),
        "missing_value='out of range' and missing='mask'",
    ),
    "a channel misspelt": (text([named(5, "ll37.5"), *rows_of()]), "'ll37.5' stands among"),
    "the last channel misspelt": (text([named(N - 1, "l242.5x y"), *rows_of()]), "stands beside"),
    "thousands or decimals": (
        text(
            [
                ["id", *AXIS],
                *([i, *(f"{round(v * 3000 + 1000):,}" for v in row)] for i, row in zip(IDS, X, strict=True)),
            ],
            ";",
        ),
        "decimal=',' or the second with decimal='.'",
    ),
    "pairs on two axes": (
        text([[float(a), float(p), float(a + 3), float(q)] for a, p, q in zip(AXIS, X[0], X[1], strict=True)]),
        "another than column 1's",
    ),
    "a time or an axis first": (
        text([[float(a), *(float(np.sin(a / 40 + k / 9)) for k in range(30))] for a in AXIS]),
        "say samples='columns'; .* say samples='rows'",
    ),
}


@pytest.mark.filterwarnings("ignore:.*more channels")
@pytest.mark.parametrize("kind", REFUSED | kinds.REFUSED)
def test_files_that_are_refused(kind, tmp_path):
    content, says = (REFUSED | kinds.REFUSED)[kind]
    message = message_of(written(tmp_path, content, "a.txt"))
    with pytest.raises(ValueError, match=says):
        raise ValueError(message)


def test_ways_out_of_what_is_divided(tmp_path):
    content, _ = REFUSED["-999"]
    assert_read(written(tmp_path, content), x=np.where(SPIKED < 0, np.nan, X), missing_value=-999, missing="mask")
    assert_read(written(tmp_path, content), x=SPIKED, missing_value="none")
    assert "-999 is far" in message_of(tmp_path / "a.csv", missing_value=-9999)
    content, _ = REFUSED["a class named like a channel"]
    path = written(tmp_path, content)
    assert_read(path, axis=COUNTED + 1, targets=["v21"], label="21")
    assert_read(path, axis=COUNTED + 1, targets=["v21"], label=["v21"])
    assert_read(path, axis=COUNTED + 1, targets=[], drop="last")
    assert read_spectra(path, label="none").x.shape == (NUM, N + 1)
    content, _ = REFUSED["a channel misspelt"]
    kept = np.delete(X, 5, 1)
    assert_read(written(tmp_path, content), axis=np.delete(AXIS, 5), x=kept, drop="ll37.5")
    content, _ = REFUSED["a time or an axis first"]
    path = written(tmp_path, content)
    with pytest.warns(UserWarning, match="more channels"):
        assert read_spectra(path, samples="rows", label="1").x.shape == (N, 30)
    assert read_spectra(path, samples="columns").x.shape == (30, N)


def test_an_axis_is_where_the_user_says(tmp_path):
    path = written(tmp_path, text(rows_of()))
    (tmp_path / "axis.txt").write_text("wavelength\n" + "\n".join(map(str, AXIS)))
    (tmp_path / "commas.txt").write_text(", ".join(map(str, AXIS)))
    np.save(tmp_path / "axis.npy", AXIS)
    for name in ("axis.txt", "commas.txt", "axis.npy"):
        found = read_spectra(path, axis=str(tmp_path / name))
        np.testing.assert_array_equal(found.axis, AXIS)
        assert found.reading.source is AxisSource.GIVEN
    with pytest.raises(ValueError, match="there is no file nowhere"):
        read_spectra(path, axis="nowhere.txt")
    (tmp_path / "axis.txt").write_text("1 2 x")
    with pytest.raises(ValueError, match="'x' is not a position"):
        read_spectra(path, axis=str(tmp_path / "axis.txt"))
    path = written(tmp_path, text([AXIS.tolist(), *rows_of()]))
    assert read_spectra(path, axis="none").x.shape == (NUM + 1, N)  # the first row is data, then
    path = written(tmp_path, text([[f"x{j}" for j in range(N)], AXIS[::-1].tolist(), *rows_of()]))
    np.testing.assert_array_equal(read_spectra(path, axis="row:2").axis, AXIS[::-1])


def test_what_was_read_is_said(tmp_path):
    path = written(tmp_path, text([["id", *AXIS, "class"], *rows_of(left=IDS, right=CLASS)], ";", decimal=","))
    found = read_spectra(path)
    assert found.reading.line == (
        f"read {NUM} spectra × {N} channels, 1100 … 1242.5 (from the header), samples in rows; kept apart: id, class"
    )
    assert found.reading.lines(on_console=True)[1:] == [
        "guessed: decimal comma, as the numbers are written so (else --decimal .)"
    ]
    assert (found.row_names, found.channel_names[:2]) == (tuple(IDS), ("1100,0", "1107,5"))
    path = written(tmp_path, text([["w", *IDS], *columns_of()]))
    reading = read_spectra(path).reading
    assert (reading.samples, reading.source) == ("columns", AxisSource.COLUMN)
    assert [guess.overruled_by.on_console for guess in reading.guesses] == ["--samples rows"]
    path = written(tmp_path, text(rows_of(right=CLASS)))
    assert "column 21 as a label" in read_spectra(path).reading.lines()[1]
    path = written(tmp_path, text(np.random.default_rng(0).normal(size=(30, 9)).round(3).tolist()))
    assert "samples in rows, as nothing says that" in read_spectra(path).reading.lines()[1]


def test_warnings(tmp_path):
    rows = [[f"s{i // 3}", i % 3, *row] for i, row in enumerate(rows_of())]
    path = written(tmp_path, text([["Sample", "rep", *AXIS], *rows]))
    with pytest.warns(InputWarning, match="group='Sample'") as caught:
        read_spectra(path)
    assert "--group Sample" in caught[0].message.on_console
    read_spectra(path, group="Sample")
    names = ["TSH1", "TSH2", *[f"{a}{b}" for a in "ABCDEFGHI" for b in "KL"]]
    path = written(tmp_path, text([names, *rows_of()]))
    with pytest.warns(InputWarning, match=r"of 20 columns of numbers, 2 are taken .*'TSH1'.* channels='all'"):
        read_spectra(path)
    assert read_spectra(path, channels="all").x.shape == (NUM, N)
