"""What is no row of a table: remarks, words below, the header again; and how fields are quoted."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import (
    AXIS,
    IDS,
    NUM,
    N,
    X,
    assert_read,
    columns_of,
    message_of,
    rows_of,
    spectrum,
    text,
    written,
)  # fmt: skip

HEADER, ROWS = ["id", *AXIS], rows_of(left=IDS)
LINES = text([HEADER, *ROWS]).splitlines()


def with_line(line, at):
    return "\n".join([*LINES[:at], line, *LINES[at:]]) + "\n"


SAID = {
    "a remark": (with_line("# lamp replaced", 7), "row 8 left out ('# lamp replaced'), as it is a remark"),
    "a remark with commas": (with_line("% gain, offset, 3", 12), "row 13 left out"),
    "words below": (text([HEADER, *ROWS]) + "End of file\n", "row 27 left out ('End of file'), as it has words alone"),
    "a word below numbers": (text([AXIS, *rows_of()]) + "END\n", "row 27 left out ('END')"),
    "a word below an empty line": (text([HEADER, *ROWS]) + "\nEND\n", "row 28 left out ('END')"),
    "words below an empty line": (text([HEADER, *ROWS], ";") + "\nOperator;A. B.\nchecked\n", "('Operator A. B.')"),
    "a mark below samples in columns": (
        text([["nm", *IDS], *columns_of()], "\t") + ">>>>>End<<<<<",
        "row 22 left out ('>>>>>End<<<<<')",
    ),
    "the header again": (with_line(LINES[0], 9), "row 10 left out, as it repeats the header (else --axis none)"),
    "positions alone again": (
        text([AXIS, *rows_of()[:9], AXIS, *rows_of()[9:]]),
        "row 11 left out, as it repeats the header",
    ),
    "names alike but for a number again": (
        text([[f"wl_{a:g}" for a in AXIS], *rows_of()[:9], [f"wl_{a:g}" for a in AXIS], *rows_of()[9:]]),
        "row 11 left out, as it repeats the header",
    ),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_is_left_out_is_said(kind, tmp_path):
    content, says = SAID[kind]
    found = read_spectra(written(tmp_path, content))
    np.testing.assert_array_equal(found.x.numpy(), X.astype(np.float32))
    np.testing.assert_allclose(found.axis.numpy(), AXIS)
    assert any(says in line for line in found.reading.lines(on_console=True)), found.reading.lines()


QUOTED = {
    "single quotes": "\n".join(",".join(f"'{cell}'" for cell in row) for row in [HEADER, *ROWS]),
    "names in single quotes": "\n".join(
        ",".join([f"'{row[0]}{', x' * (k > 0)}'", *map(str, row[1:])]) for k, row in enumerate([HEADER, *ROWS])
    ),
    "formulas": "\n".join(",".join(f'="{cell}"' for cell in row) for row in [HEADER, *ROWS]),
    "names as formulas": "\n".join(";".join([f'="{row[0]}"', *map(str, row[1:])]) for row in [HEADER, *ROWS]),
    "a delimiter at the header's end alone": text([[*HEADER, ""], *ROWS]),
    "two delimiters at the header's end alone": text([[*HEADER, "", ""], *ROWS], ";"),
    "single quotes between blanks": "\n".join(" ".join([f"'{row[0]}'", *map(str, row[1:])]) for row in [HEADER, *ROWS]),
}


@pytest.mark.parametrize("kind", QUOTED)
def test_signs_around_fields(kind, tmp_path):
    found = read_spectra(written(tmp_path, QUOTED[kind]))
    np.testing.assert_array_equal(found.x.numpy(), X.astype(np.float32))
    np.testing.assert_allclose(found.axis.numpy(), AXIS)
    assert found.row_names == (tuple(f"{i}, x" for i in IDS) if kind == "names in single quotes" else tuple(IDS))


@pytest.mark.parametrize("letter", ["D", "d", "E"])
def test_exponents_of_fortran(letter, tmp_path):
    content = "\n".join(" ".join(f"{v:.4e}".replace("e", letter) for v in row) for row in X)
    found = read_spectra(written(tmp_path, content))
    np.testing.assert_allclose(found.x.numpy(), X, rtol=1e-4)
    word = text([["code", *AXIS], *([f"1D{i}", *row[1:]] for i, row in enumerate(ROWS))])
    assert list(read_spectra(written(tmp_path, word)).targets["code"][:2]) == ["1D0", "1D1"]


TORN = {
    "in a row": "\n".join(LINES)[: -len(LINES[-1]) // 2],
    "in a name": "\n".join(LINES)[: -len(LINES[-1]) + 3],
    "words that numbers follow": with_line("pause", 9),
    "a name alone, amid": with_line("tablet x", 20),
    "a name alone, below": "\n".join([*LINES, "tablet 25"]) + "\n",
    "a name alone, below an empty line": "\n".join([*LINES, "", "tablet 25"]) + "\n",
    "a word alone, below": "\n".join([*LINES, "aspirin"]) + "\n",
    "a number below": "\n".join([*LINES, "17"]) + "\n",
    "a row that a remark's sign begins": text([HEADER, *(["#" + row[0], *row[1:]] for row in ROWS)]) + "#12,0.3,0.4\n",
}


@pytest.mark.parametrize("kind", TORN)
def test_rows_of_another_length_are_refused(kind, tmp_path):
    assert "fields, the first one 21" in message_of(written(tmp_path, TORN[kind]))


def test_the_header_may_be_data(tmp_path):
    path = written(tmp_path, text([AXIS, *rows_of(), AXIS]))
    assert read_spectra(path, axis="none", drop_rows="none").x.shape == (NUM + 2, N)


@pytest.mark.parametrize("num", [1, 2])
def test_padded_rows_above_the_header_are_said_to_be_left_out(num, tmp_path):
    """As spreadsheets write a remark in the first cell: as many delimiters as in the table."""
    above = [["measured in June", *[""] * N] for _ in range(num)]
    found = read_spectra(written(tmp_path, text([*above, ["id", *AXIS], *rows_of(left=IDS)])))
    what = "the first row left out, as most of its" if num == 1 else "the first 2 rows left out, as most of their"
    assert f"{what} fields are empty" in "\n".join(found.reading.lines())
    np.testing.assert_allclose(found.x, X, atol=1e-5)


@pytest.mark.parametrize("word", ["END", "EOF", "End", "Ende", "*** end of file ***", "END,,"])
def test_a_word_for_the_end_is_no_sample(word, tmp_path):
    path = written(tmp_path, text([["id", *AXIS], *rows_of(left=IDS)]) + word + "\n")
    found = assert_read(path, targets=["id"])
    assert "left out" in "\n".join(found.reading.lines())


@pytest.mark.parametrize("in_columns", [False, True])
def test_rows_that_do_not_fit_may_be_left_out(in_columns, tmp_path):
    rows = [["nm", *IDS], *columns_of()] if in_columns else [["id", *AXIS], *rows_of(left=IDS)]
    rows[4:4] = [["broken", 1, 2], ["too", "short"]]
    path = written(tmp_path, text(rows))
    assert "row 5, column 4: the row has 3 fields" in (message := message_of(path))
    assert "correct it, or leave it out with drop_rows='5:5'" in message
    assert_read(path, drop_rows="5:6")
    with pytest.raises(ValueError, match="row 6"):
        read_spectra(path, drop_rows="5:5")


def test_ranges_of_rows_of_an_array(tmp_path):
    np.save(tmp_path / "a.npy", X)
    found = read_spectra(tmp_path / "a.npy", drop_rows=["2:3", "20:"], to_train=False)
    np.testing.assert_allclose(found.x, X[[0, *range(3, 19)]], atol=1e-6)


@pytest.mark.parametrize("num", [30, 80, 200])
@pytest.mark.parametrize("line", ["Key {0}: value {0}", "gain;{0}", "{0}", "Comment, {0}"])
def test_a_long_preamble_is_left_out(num, line, tmp_path):
    above = "".join(line.format(k) + "\n" for k in range(num))
    found = assert_read(written(tmp_path, above + text([["id", *AXIS], *rows_of(left=IDS)])), targets=["id"])
    assert f"the first {num} lines left out" in "\n".join(found.reading.lines())


def test_words_below_one_spectrum_are_none_above_it(tmp_path):
    below = [["##### Information"], ["[Comments]"], ["Sample name", "x"], ["Scans", 16]]
    path = written(tmp_path, "TITLE,x\nXYDATA\n" + text([*spectrum(), *below]))
    found = assert_read(path, x=X[:1], to_train=False)
    assert f"rows {N + 3} to {N + 6} left out ('##### Information')" in "\n".join(found.reading.lines())
    assert_read(path, x=X[:1], drop_rows=f"{N + 3}:", to_train=False)


JASCO = """TITLE	leaf
DATA TYPE	UV
ORIGIN	JASCO
DATE	21/03/04
SPECTROMETER/DATA SYSTEM	JASCO Corp., V-770
DELTAX	7.5
XUNITS	NANOMETERS
YUNITS	ABSORBANCE
NPOINTS	20
XYDATA
{}
##### Extended Information
[Comments]
Sample name	leaf
Comment	dry
Division

[Detailed Information]
Vertical axis	Abs
Start	1100 nm
Data points	20
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("sep", "decimal"), [("\t", "."), (",", "."), (";", ",")])
def test_sections_below_a_spectrum_of_jasco(sep, decimal, end, tmp_path):
    lines = JASCO.format(text(spectrum(), "\t")).replace(".", decimal).replace("\t", sep)
    path = written(tmp_path, lines.replace("\n", end), "a.txt")
    found = read_spectra(path, to_train=False)
    np.testing.assert_array_equal(found.x.numpy(), X[:1].astype(np.float32))
    np.testing.assert_array_equal(found.axis, AXIS)
    assert "rows 32 to 41 left out ('##### Extended Information')" in "\n".join(found.reading.lines())
    more = lines + text(spectrum(), sep, decimal=decimal)
    assert "if another table begins there" in message_of(written(tmp_path, more, "b.txt"), to_train=False)
