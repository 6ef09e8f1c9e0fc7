"""Formats, told by their first bytes: read, or named in a line where the package that reads them is missing."""

import gzip
import os
import struct
import sys

import numpy as np
import pytest
import torch

from pyrovae.datasets import PIXEL, AxisSource, Place, read_spectra
from pyrovae.errors import MissingExtraError
from tests.datasets.idx_files import idx
from tests.datasets.readers.files import message_of, written

AXIS = np.arange(900.0, 1000.0, 5.0)
X = (1 + np.sin(AXIS / 20 + np.arange(22)[:, None])).round(4)
IDS = [f"leaf {i}" for i in range(22)]
FAT = np.arange(22) / 10


def same(found, x=X, axis=AXIS):
    np.testing.assert_array_equal(found.x.numpy(), x.astype(np.float32))
    np.testing.assert_allclose(found.axis.numpy(), axis)
    return found


def book(path, **sheets):
    openpyxl = pytest.importorskip("openpyxl")
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


TABLE = [
    ["id", *AXIS.tolist(), "fat"],
    *([n, *row, f] for n, row, f in zip(IDS, X.tolist(), FAT.tolist(), strict=True)),
]


def test_excel(tmp_path):
    path = book(tmp_path / "a.xlsx", Notes=[["made by hand"]], Spectra=TABLE)
    found = same(read_spectra(path))
    assert list(found.targets) == ["id", "fat"]
    assert found.row_names == tuple(IDS)
    columns = [["nm", *IDS], *([float(a), *column] for a, column in zip(AXIS, X.T.tolist(), strict=True))]
    before = [["Instrument", "B"], [], *columns]
    found = same(read_spectra(book(tmp_path / "b.xlsx", Sheet1=before)))
    assert (found.unit, found.reading.samples) == ("nm", Place.COLUMNS)
    as_text = [[str(cell).replace(".", ",") for cell in row] for row in columns]
    of_class = ["hardness", *(f"{i // 2},5" for i in range(len(IDS)))]
    same(found := read_spectra(book(tmp_path / "text.xlsx", Sheet1=[as_text[0], of_class, *as_text[1:]])))
    assert found.targets["hardness"].tolist() == [i // 2 + 0.5 for i in range(len(IDS))]
    bad = [list(row) for row in TABLE]
    bad[3][4] = "#DIV/0!"
    message = message_of(book(tmp_path / "c.xlsx", Sheet1=bad))
    assert "(Sheet1), row 4, column 5 ('915'): the value is missing" in message
    path = book(tmp_path / "d.xlsx", A=TABLE, B=TABLE)
    assert "several sheets with numbers (its sheets are 'A', 'B'); say which with table='A'" in message_of(path)
    same(read_spectra(path, table="B"))
    assert "no sheet 'C'" in message_of(path, table="C")
    whole = path.read_bytes()
    assert "damaged" in message_of(written(tmp_path, whole[: len(whole) // 2], "e.xlsx"))
    same(read_spectra(written(tmp_path, whole, "named.csv"), table="A"))  # its bytes say what it is
    old = written(tmp_path, b"\xd0\xcf\x11\xe0" + bytes(600), "f.xls")
    assert "Excel before 2007" in message_of(old)
    assert "max_gib" in message_of(path, max_gib=1e-6)


def test_matlab(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"spectra": X, "wavelength": AXIS, "fat": FAT, "id": np.array(IDS, dtype=object)})
    found = same(read_spectra(tmp_path / "a.mat"))
    assert found.reading.source is AxisSource.FILE
    np.testing.assert_array_equal(found.targets["fat"], FAT)
    assert list(found.targets["id"]) == IDS
    savemat(tmp_path / "b.mat", {"set": {"A": X.T, "nm": AXIS[:, None]}})  # a struct, samples in columns
    found = same(read_spectra(tmp_path / "b.mat"))
    assert (found.reading.samples, found.unit) == (Place.COLUMNS, "nm")
    assert "--samples rows" in found.reading.lines(on_console=True)[1]
    wide = np.hstack([X, X + 1])
    savemat(tmp_path / "c.mat", {"m5": wide, "mp6": wide + 1, "props": X[:, :4]})
    assert "holds m5 (22, 40), mp6 (22, 40), props (22, 4); say which" in message_of(tmp_path / "c.mat")
    with pytest.warns(UserWarning, match="more channels"):
        found = read_spectra(tmp_path / "c.mat", table="m5")
    np.testing.assert_array_equal(found.x, torch.tensor(wide, dtype=torch.float32))
    assert list(found.targets) == [f"props {j}" for j in range(1, 5)]
    whole = (tmp_path / "a.mat").read_bytes()
    for k in (130, 200, len(whole) - 30):
        assert "damaged" in message_of(written(tmp_path, whole[:k], "d.mat"))


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["run/absorbance"], file["run/wavenumber"], file["run/fat"] = X, AXIS, FAT
        file["run/id"] = np.array(IDS, dtype="S")
    found = same(read_spectra(tmp_path / "a.h5"))
    assert set(found.targets) == {"run/fat", "run/id"}
    with h5py.File(tmp_path / "v73.mat", "w") as file:  # MATLAB writes its axes the other way round
        for name, value in (("spectra", X.T), ("wavelength", AXIS[:, None])):
            file[name] = value
            file[name].attrs["MATLAB_class"] = b"double"
    same(read_spectra(tmp_path / "v73.mat"))
    whole = (tmp_path / "a.h5").read_bytes()
    assert "damaged" in message_of(written(tmp_path, whole[: len(whole) // 2], "b.h5"))
    X.astype("<f8").tofile(tmp_path / "raw")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", X.shape, dtype="<f8", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
    assert "lies in another file" in message_of(tmp_path / "c.h5")


def files_of(folder, axis=AXIS, ending=".txt"):
    folder.mkdir(exist_ok=True)
    for i, row in enumerate(X):
        lines = [f"{a:.10g}\t{v}" for a, v in zip(axis, row, strict=True)]
        (folder / f"leaf{i}{ending}").write_text("\n".join(["nm\tA", *lines]))
    return folder


def test_a_folder_of_spectra(tmp_path):
    folder = files_of(tmp_path / "a")
    (folder / "notes.md").write_text("dry leaves")
    (folder / ".hidden").write_text("x")
    found = same(read_spectra(folder))
    assert list(found.targets["file"]) == [f"leaf{i}.txt" for i in range(22)]  # leaf2 before leaf10
    assert (found.unit, found.reading.samples, found.name) == ("nm", Place.FILES, "a")
    assert list(found.targets) == ["file"]  # the header of the only column says nothing of a sample
    assert "1 file left out (notes.md)" in found.reading.lines()[1]
    (folder / "leaf7.txt").write_text("".join(f"{a + 1}\t{a}\n" for a in AXIS))
    message = message_of(folder)
    assert "leaf7.txt: position 1 is 901, and 900 in leaf0.txt" in message
    assert "axis='FILE'" in message
    (folder / "leaf7.txt").write_text("".join(f"{a}\t{a / 9 + a % 2}\n" for a in AXIS[:-2]))
    assert "leaf7.txt has 18 positions from 900 to 985, and leaf0.txt 20 positions from 900 to 995" in message_of(
        folder
    )
    short = AXIS[2:-3] + 0.5
    (tmp_path / "axis.txt").write_text("\n".join(map(str, short)))
    found = read_spectra(folder, axis=str(tmp_path / "axis.txt"))
    between = np.array([np.interp(short, AXIS, row) for row in X])
    between[7] = np.interp(short, AXIS[:-2], AXIS[:-2] / 9 + AXIS[:-2] % 2)
    np.testing.assert_allclose(found.x.numpy(), between, rtol=1e-6)
    assert found.axis.tolist() == short.tolist()
    (folder / "leaf3.txt").write_text("nothing here")
    assert "leaf3.txt" in message_of(folder)
    (tmp_path / "b").mkdir()
    assert "without files" in message_of(tmp_path / "b")
    for name in ("x.csv", "y.txt"):
        (tmp_path / "b" / name).write_text("1,2\n")
    assert "as many files .csv and .txt" in message_of(tmp_path / "b")


def test_files_of_several_spectra_in_a_folder(tmp_path):
    for i, row in enumerate(X):
        lines = (f"{a},{v},{v / 9}\n" for a, v in zip(AXIS, row, strict=True))
        (tmp_path / f"leaf{i}.csv").write_text("".join(lines))
    assert "leaf0.csv has 2 spectra beside its axis: leave all but one out with drop='3', or" in message_of(tmp_path)
    same(read_spectra(tmp_path, drop="3"))
    assert len(read_spectra(tmp_path, samples="columns", group="file")) == 2 * len(X)


JCAMP = """##TITLE=leaf {i}
##JCAMP-DX=4.24
##DATA TYPE=INFRARED SPECTRUM
##ORIGIN=made up
##OWNER=nobody
##XUNITS=1/CM
##YUNITS=ABSORBANCE
##FIRSTX={first}
##LASTX={last}
##NPOINTS={n}
##XFACTOR=1.0
##YFACTOR=0.0001
##FIRSTY={y}
##XYDATA=(X++(Y..Y))
{lines}
##END=
"""


def jcamp(folder):
    folder.mkdir()
    for i, row in enumerate((X * 1e4).round().astype(int)):
        starts = zip(range(0, 20, 5), AXIS[::5], strict=True)
        lines = "\n".join(f"{a:g} {' '.join(map(str, row[k : k + 5]))}" for k, a in starts)
        first, last = AXIS[0], AXIS[-1]
        (folder / f"{i}.jdx").write_text(JCAMP.format(i=i, first=first, last=last, n=20, y=row[0] / 1e4, lines=lines))
    return folder


def spc(row):
    """A Galactic SPC file of one spectrum, evenly spaced, 32-bit floats."""
    header = struct.pack("<BBBBIddI", 0, 0x4B, 0, 0x80, len(row), AXIS[0], AXIS[-1], 1)
    header += bytes([3, 2, 0, 0])  # nanometres, absorbance
    sub = struct.pack("<BBhfffIIf4x", 0, 0x80, 0, 0.0, 0.0, 0.0, 0, 0, 0.0)
    return header.ljust(512, b"\0") + sub + row.astype("<f4").tobytes()


def test_files_of_instruments(tmp_path):
    pytest.importorskip("nirs4all_formats")
    folder = jcamp(tmp_path / "jcamp")
    found = read_spectra(folder)
    np.testing.assert_allclose(found.x.numpy(), X, atol=1e-6)
    np.testing.assert_allclose(found.axis.numpy(), AXIS)
    assert found.unit == "cm⁻¹"
    assert "one spectrum of 20 channels" in message_of(folder / "0.jdx")
    assert read_spectra(folder / "0.jdx", to_train=False).x.shape == (1, 20)
    (tmp_path / "spc").mkdir()
    for i, row in enumerate(X):
        (tmp_path / "spc" / f"{i}.spc").write_bytes(spc(row))
    found = same(read_spectra(tmp_path / "spc"))
    assert (found.unit, found.reading.source) == ("nm", AxisSource.FILE)
    whole = (folder / "0.jdx").read_bytes()
    for content, name in (
        (b"\x0a\x0a\xfe\xfe" + bytes(40), "torn.0"),
        (spc(X[0])[:530], "torn.spc"),
        (whole[:60], "torn.jdx"),
    ):
        assert "cannot be read as" in message_of(written(tmp_path, content, name))


def test_blocks_of_jcamp_are_spectra_of_one_kind(tmp_path):
    pytest.importorskip("nirs4all_formats")
    blocks = [path.read_text() for path in sorted(jcamp(tmp_path / "jcamp").iterdir(), key=lambda path: int(path.stem))]
    link = f"##TITLE=all\n##JCAMP-DX=4.24\n##DATA TYPE=LINK\n##BLOCKS={len(X)}\n" + "".join(blocks) + "##END=\n"
    found = read_spectra(written(tmp_path, link, "a.jdx"))
    np.testing.assert_allclose(found.x.numpy(), X, atol=1e-6)
    assert found.targets["sample"].tolist() == [f"leaf {i}" for i in range(len(X))]
    for unit in ("%T", "TRANSMITTANCE"):
        last = blocks[-1].replace("ABSORBANCE", unit)
        assert "say which is wanted" in message_of(written(tmp_path, link.replace(blocks[-1], last), "a.jdx"))
        message = message_of(written(tmp_path, "".join([*blocks[:-1], last]), "a.jdx"))
        assert f"spectrum {len(X)} h" in message
        (tmp_path / "jcamp" / "21.jdx").write_text(last)
        assert f"21.jdx holds {unit.lower()}, and 0.jdx absorbance" in message_of(tmp_path / "jcamp")
        assert "convert them to one" in message_of(tmp_path / "jcamp", axis=tuple(AXIS))


def test_signals_that_some_blocks_of_jcamp_lack(tmp_path):
    pytest.importorskip("nirs4all_formats")
    ntuples = """##TITLE=a
##JCAMP-DX=5.00
##DATA TYPE=NMR SPECTRUM
##DATA CLASS=NTUPLES
##NTUPLES=NMR SPECTRUM
##SYMBOL=X, R, N
##VAR_TYPE=INDEPENDENT, DEPENDENT, PAGE
##VAR_FORM=AFFN, AFFN, AFFN
##VAR_DIM=4, 4, 1
##UNITS=HZ, ARBITRARY UNITS,
##FIRST=0, 1, 1
##LAST=3, 4, 1
##FACTOR=1, 1, 1
##PAGE=N=1
##DATA TABLE=(X++(R..R)), XYDATA
0 1 2 3 4
##END NTUPLES=NMR SPECTRUM
##END=
"""
    block = (jcamp(tmp_path / "jcamp") / "0.jdx").read_text()
    assert "spectrum 2 has no signal, but signal_1" in message_of(written(tmp_path, block + ntuples, "a.jdx"))


def test_an_image_of_envi_is_named(tmp_path):
    assert "is the header of an ENVI image" in message_of(written(tmp_path, "ENVI\nsamples = 5\n", "a.hdr"))


@pytest.mark.parametrize(
    ("name", "start", "package", "says"),
    [
        ("a.0", b"\x0a\x0a\xfe\xfe" + bytes(60), "nirs4all_formats", "Bruker OPUS"),
        ("a.txt", b"##TITLE=a\n##JCAMP-DX=4.24\n", "nirs4all_formats", "JCAMP-DX"),
        ("a.spc", b"\0\x4b" + bytes(600), "nirs4all_formats", "Galactic SPC"),
        ("a.dat", b"\x89HDF\r\n\x1a\n" + bytes(60), "h5py", "HDF5"),
        ("a.mat", b"MATLAB 7.3 MAT-file" + bytes(600), "h5py", "HDF5"),
        ("a.xlsx", None, "openpyxl", "an Excel workbook"),
    ],
)
def test_without_the_package_a_line_names_the_format(tmp_path, monkeypatch, name, start, package, says):
    path = book(tmp_path / name, A=TABLE) if start is None else written(tmp_path, start, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = message_of(path, MissingExtraError)
    assert says in message
    assert "pip install 'pyrovae[formats]'" in message


def test_time_series_of_the_ucr_archive(tmp_path):
    head = "# a comment\n@problemName P\n@timeStamps false\n@univariate true\n\n@classLabel true a b\n@data\n"
    lines = [",".join(map(str, row)) + ":" + "ab"[i % 2] for i, row in enumerate(X)]
    path = written(tmp_path, head + "\n".join(lines) + "\n", "a.ts")
    found = same(read_spectra(path), axis=np.arange(20))
    assert list(found.targets["label"]) == ["ab"[i % 2] for i in range(22)]
    assert "row 10: the series has 19 values, the first one 20" in message_of(
        written(tmp_path, head + "\n".join([*lines[:2], lines[2].split(",", 1)[1]]), "b.ts")
    )
    assert "2 variables" in message_of(written(tmp_path, head + "1,2:3,4:a\n", "c.ts"))
    assert "no line @data" in message_of(written(tmp_path, "1,2,3\n", "d.ts"))
    weka = [*(f"@attribute att{j} numeric" for j in range(len(AXIS))), "@attribute 'the class' {a, b}"]
    rows = [f"{','.join(map(str, row))},{'ab'[i % 2]}" for i, row in enumerate(X.tolist())]
    text = "\n".join(["% from Weka", "@relation leaves", *weka, "@data", *rows])
    found = same(read_spectra(written(tmp_path, text, "d.arff")), axis=np.arange(len(AXIS)))
    assert found.targets["the class"].tolist() == ["a", "b"] * 11
    bad = head + "\n".join([lines[0], "x" + lines[1][1:], *lines[2:]])
    assert "row 9, column 2 ('t0'): 'x" in message_of(written(tmp_path, bad, "e.ts"))


def test_images_with_labels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 5), dtype=np.uint8)
    labels = np.arange(30) % 10
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.savez(tmp_path / "b.npz", x_train=images[..., None], y_train=labels, x_test=images[:7], y_test=labels[:7])
    for found in (read_spectra(tmp_path / "a.npz"), read_spectra(tmp_path / "b.npz", table="x_train")):
        np.testing.assert_array_equal(found.x.numpy(), images.reshape(30, 20).astype(np.float32) / 255)
        assert (found.unit, found.targets["label"].tolist()) == (PIXEL, labels.tolist())
    assert "say which array" in message_of(tmp_path / "b.npz")
    (tmp_path / "t-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx(labels))
    assert read_spectra(tmp_path / "t-images-idx3-ubyte").targets["label"].tolist() == labels.tolist()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_and_devices_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a pipe (FIFO), not a file" in message_of(tmp_path / "pipe.csv")
    assert "is a device, not a file" in message_of("/dev/zero")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "pipe.csv")
    assert "without files" in message_of(tmp_path / "folder")


def test_memory_is_bounded_in_every_format(tmp_path):
    rows = "\n".join(f"{'long text ' * 30},{i},{i + 1},{i * i}" for i in range(9000))
    text = gzip.compress(f"note,900,910,920\n{rows}\n".encode())
    np.savez_compressed(tmp_path / "many.npz", x=X, **{f"z{k}": np.zeros(400_000) for k in range(20)})
    files = [
        written(tmp_path, text, "text.csv.gz"),
        tmp_path / "many.npz",
        written(tmp_path, gzip.compress(idx(np.zeros((900, 40, 40)))), "a-idx3-ubyte.gz"),
        written(tmp_path, gzip.compress(b"900,901\n" + b"1,2\n" * 200_000), "rows.csv.gz"),
    ]
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {"note": ["long text " * 500] * 3000, "900": np.arange(3000.0), "901": np.arange(3000.0) ** 2}
    )
    parquet.write_table(table, tmp_path / "text.parquet")
    for path in [*files, tmp_path / "text.parquet"]:
        assert "would need about" in message_of(path, max_gib=0.004), path
    assert read_spectra(files[0], max_gib=1).x.shape == (9000, 3)


def test_files_of_different_units_are_not_joined(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    for i, row in enumerate(X):
        unit = "cm-1" if i == 4 else "nm"
        lines = [f"{unit}\tA", *(f"{a}\t{v}" for a, v in zip(AXIS, row, strict=True))]
        (folder / f"s{i}.txt").write_text("\n".join(lines))
    assert "s4.txt: its axis is in cm⁻¹, and that of s0.txt in nm" in message_of(folder)
    (folder / "s4.txt").unlink()
    (folder / "readme.md").write_text("x")
    assert "--data" not in "\n".join(read_spectra(folder).reading.lines(on_console=True))


def test_values_that_netcdf_packs(tmp_path):
    h5py = pytest.importorskip("h5py")
    packed = ((X - 0.1) / 1e-4).round().astype(np.int16)
    packed[2, 5] = -32000
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["reflectance"], file["wavelength"] = packed, AXIS
        file["reflectance"].attrs.update(scale_factor=np.array([1e-4]), add_offset=0.1, _FillValue=np.int16(-32000))
    assert "row 3, column 6: the value is missing, one of 1" in message_of(tmp_path / "a.nc")
    found = read_spectra(tmp_path / "a.nc", missing="mask")
    expected = X.copy()
    expected[2, 5] = np.nan
    np.testing.assert_allclose(found.x, expected, atol=6e-5)


@pytest.mark.parametrize("start", [b"CDF\1" + bytes(90), b"BZh9" + bytes(range(1, 250)), b"ARROW1\0\0" + bytes(60)])
def test_a_binary_file_of_no_known_format(start, tmp_path):
    assert "is not text, and in no format that pyrovae reads" in message_of(written(tmp_path, start, "a.dat"))


@pytest.mark.parametrize(
    "content", ['{"x": [1, 2]}', "[[1, 2], [3, 4]]", "<?xml version='1.0'?>\n<a>1</a>", "{\\rtf1 1 2}"]
)
def test_files_of_marks_are_no_tables(content, tmp_path):
    assert "is a page of the web, XML, JSON or RTF" in message_of(written(tmp_path, content))


def test_a_folder_whose_headers_name_other_quantities(tmp_path):
    for i, row in enumerate(X):
        header = {3: "%T", 5: "leaf 5"}.get(i, "Abs")
        rows = "".join(f"{a},{v}\n" for a, v in zip(AXIS, row, strict=True))
        (tmp_path / f"{i}.csv").write_text(f"nm,{header}\n{rows}")
    assert "3.csv holds %t, and 0.csv abs; convert them to one" in message_of(tmp_path)
    (tmp_path / "3.csv").write_text((tmp_path / "3.csv").read_text().replace("%T", "Abs"))
    same(read_spectra(tmp_path))
