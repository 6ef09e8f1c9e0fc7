"""Text files, good and bad: read in blocks, with errors that name the row and the column."""

import gzip
from functools import partial

import numpy as np
import pytest

from pyrovae.datasets import ReadingSettings, read_spectra
from pyrovae.datasets.readers._table import Layout
from pyrovae.datasets.readers.text import read_text
from tests.datasets.readers.files import as_text, message_of, numbers, written


@pytest.mark.parametrize(
    ("name", "options", "unit"),
    [
        ("a.csv", {}, ""),
        ("a.tsv", {"header": "label\t900\t902.5\t905", "delimiter": "\t"}, ""),
        ("a.csv", {"header": "label;900;902,5;905", "delimiter": ";", "decimal": ","}, ""),
        ("a.csv", {"header": "label|900nm|902.5nm|905nm", "delimiter": "|"}, "nm"),
        ("a.txt", {"header": '"label","X900 cm-1","X902.5 cm-1","X905 cm-1"'}, "cm⁻¹"),
        ("a.csv", {"header": "label,R_900 [nm],R_902.5 [nm],R_905 [nm]"}, "nm"),
        ("a.csv", {"header": "\ufeff# a comment\n\nlabel,900,902.5,905"}, ""),
        ("a.csv", {"header": "label,-5,-2.5,0"}, ""),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_text_files(tmp_path, name, options, unit, zipped):
    values = numbers()
    text = as_text(values, **options).encode()
    if text.startswith(b"\xef\xbb\xbf#"):
        text = text.removeprefix(b"\xef\xbb\xbf")
    path = written(tmp_path, gzip.compress(text) if zipped else text, name + ".gz" * zipped)
    spectra = read_spectra(path)
    np.testing.assert_allclose(spectra.x.numpy(), values.astype(np.float32))
    assert spectra.axis.tolist() in ([900, 902.5, 905], [-5, -2.5, 0])
    assert spectra.unit == unit
    assert spectra.targets["label"].tolist() == ["s0", "s1", "s2", "s3"]


BAD = {
    "text": ("label,900,901\na,1,2\nb,3,high\n", r"row 3, column 3 \('901'\): 'high' is not a number"),
    "decimal comma amid points": ('label,900,901\na,1.5,2\nb,"3,1",4\n', r"row 3, column 2 \('900'\): '3,1' is not"),
    "long row": ("label,900,901\na,1,2\nb,3,4,5\n", r"row 3, column 4: the row has 4 fields, the first one 3"),
    "short row": ("label,900,901\na,1,2\nb,3\n", r"row 3, column 3: the row has 2 fields, the first one 3"),
    "infinite": ("label,900,901\na,1,2\nb,inf,3\n", r"row 3, column 2 \('900'\): the value is infinite"),
    "overflow": ("label,900,901\na,1,2\nb,1e300,3\n", r"row 3, column 2 \('900'\): the value is infinite"),
    "missing": ("label,900,901\na,1,2\nb,NaN,3\n", r"row 3, column 2 \('900'\): the value is missing"),
    "constant": ("label,900,901\na,1,2\nb,3,2\nc,4,2\n", r"column 3 \('901'\): the channel is constant \(2 in all"),
    "duplicate": ("label,900,901,900\na,1,2,3\nb,3,4,5\n", "columns 2 and 4: both are channel '900'"),
    "duplicate number": ("label,900,900.0\na,1,2\nb,3,4\n", "columns 2 and 3: both are channel '900.0'"),
    "unordered": ("label,900,902,901,903\na,1,2,3,4\nb,3,4,5,6\n", "column 4: channel '901' comes after '902'"),
    "unordered numbers alone": ("900,902,901\n1,2,3\n3,4,5\n", "column 3: channel '901' comes after '902'"),
    "header alone": ("label,900,901\n", "it has a header and no rows"),
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "one spectrum": ("label,900,901\na,1,2\n", "holds one spectrum"),
    "no channels": ("a,b\n1,x\n2,y\n", "has no channels: no two columns"),
    "two encodings": (
        "label,900,901\nPurée,1,2\n".encode() + "Purée,3,4\n".encode("latin-1"),
        "row 3, column 1: byte 0xe9 is not utf-8; pass the file's encoding=…",
    ),
    "no encoding known": (b"label,900,901\na,1,2\nb\x81,3,4\n", "row 3, column 1: byte 0x81 is not cp1252"),
    "binary": (b"label,900,901\na,1,2\nb,\0,4\n", "row 3, column 2: the file is not text"),
    "torn gzip": (gzip.compress(b"label,900,901\n" + b"a,1,2\nb,3,4\n" * 999)[:-20], "is damaged after row"),
    "no gzip": (b"\x1f\x8b" + bytes(range(60)), "is damaged after row 0"),
    "open quote": ('label,900,901\na,"1,2\nb,3,4\n', "row 2: unexpected end"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_say_where(kind, tmp_path):
    text, expected = BAD[kind]
    path = written(tmp_path, text)
    message = message_of(path)
    with pytest.raises(ValueError, match=expected):
        raise ValueError(message)


def test_ways_out_of_bad_files(tmp_path):
    text, _ = BAD["constant"]
    assert read_spectra(written(tmp_path, text), drop_constant=True).axis.tolist() == [900]
    with pytest.raises(ValueError, match=r"the file is UTF-16; pass encoding='utf-16'"):
        read_spectra(written(tmp_path, "label,900,901\na,1,2\nb,3,4\n", encoding="utf-16"), encoding="utf-8")


def test_a_row_without_an_end_is_refused(tmp_path):
    path = written(tmp_path, "label,900,901\n" + "1" * 100)
    with pytest.raises(ValueError, match="row 2: the row is longer than 40 bytes"):
        read_text(path, ReadingSettings(), lambda names: Layout([1, 2]), longest_row=40)


def test_large_files_are_read_in_blocks_or_refused(tmp_path):
    values = numbers(50, 3)
    path = written(tmp_path, as_text(values))
    read = partial(read_text, settings=ReadingSettings(), choose=lambda names: Layout([1, 2, 3]), cells_at_once=30)
    table = read(path)
    np.testing.assert_allclose(table.numbers, values.astype(np.float32))
    assert table.others[0].tolist() == [f"s{i}" for i in range(50)]
    with pytest.raises(ValueError, match=r"row 41, column 3 \('902.5'\): 'x' is not a number"):
        read(written(tmp_path, path.read_text().replace(str(values[39, 1]), "x"), "b.csv"))
    assert "would need about" in message_of(path, max_gib=1e-7)
    np.save(tmp_path / "a.npy", values)
    assert "would need about" in message_of(tmp_path / "a.npy", max_gib=1e-7)
