"""Tables of spectra as people bring them, written in ways of chance, with the array that they hold.

The writer shares nothing with the reader. A table is clear, and must be read to its array, or it may be meant in two
ways, and may be refused; it must never be read to another array.
"""

import gzip
from dataclasses import dataclass, field

import numpy as np

UNITS = ("", " nm", "nm", "cm-1", " cm-1", " (nm)", " [1/cm]", "µm")
PREFIXES = ("", "wl_", "X", "spc.", "NIR.", "R_", "abs ", "λ=", "A[", "band")
SUFFIXES = ("", "_ref", " abs", ".mean", "]", ")")
CORNERS = (
    "",
    "wavelength",
    "Wavenumber (cm-1)",
    "nm",
    "lambda",
    "Wellenlänge",
    "Raman shift / cm-1",
    "wl",
    "x",
    "sample",
)
NAMES = ("sample-{}", "S{:03d}", "leaf {}", "{}", "Probe ä{}", "A{}b")
DELIMITERS = ((",", "."), (";", ","), (";", "."), ("\t", "."), ("\t", ","), ("|", "."), (" ", "."), (" ", ","))


@dataclass
class Truth:
    """Spectra, their axis, and what is known of them."""

    x: np.ndarray
    axis: np.ndarray
    names: list[str]
    label: np.ndarray | None = None


@dataclass
class TableCase:
    """A file, what it holds, and whether it must be read."""

    name: str
    content: bytes
    truth: Truth
    is_clear: bool
    suffix: str = ".csv"
    options: dict = field(default_factory=dict)
    says: tuple[str, ...] = ()
    """One of these is in the line that it is refused with, where it must be."""


def spectra(rng, *, kind=None, num=None, n=None):
    """Smooth spectra that differ in position and width of a band, of counts or absorbances, with noise."""
    num, n = num or int(rng.integers(12, 50)), n or int(rng.integers(12, 60))
    start, step = float(rng.choice([340, 400, 900, 1100.5, 3999.7])), float(rng.choice([1, 2, 3.86, 10]))
    axis = start + step * np.arange(n)
    if rng.integers(3) == 0:  # the steps of a grating
        axis = start + np.cumsum(np.linspace(step, step * 0.6, n))
    if rng.integers(3) == 0:
        axis = axis[::-1]
    axis = axis.round(3)
    at = np.linspace(0, 1, n)
    centre, width = rng.uniform(0.2, 0.8, num), rng.uniform(0.1, 0.25, num)
    x = 0.3 + 0.2 * rng.random((num, 1)) + np.exp(-0.5 * ((at - centre[:, None]) / width[:, None]) ** 2)
    x += 0.005 * rng.standard_normal((num, n))
    kind = kind or rng.choice(["absorbance", "counts", "percent", "log"])
    x = {
        "absorbance": x.round(5),
        "counts": (x * 900 + 50).round(),
        "percent": (x * 60).round(3),
        "log": np.log(x).round(4),
    }[kind]
    pattern = NAMES[int(rng.integers(len(NAMES)))]
    names = [pattern.format(i) for i in range(num)]
    return Truth(x, axis, names)


@dataclass
class Style:
    """How a file is written."""

    delimiter: str
    decimal: str
    end: str
    encoding: str
    zipped: bool

    def number(self, value):
        return f"{value:.10g}".replace(".", self.decimal)

    def quoted(self, cell):
        return f'"{cell}"' if self.delimiter in cell or (self.delimiter == " " and not cell) else cell

    def bytes(self, rows, before=()):
        lines = [*before, *(self.delimiter.join(map(self.quoted, row)) for row in rows)]
        text = self.end.join([*lines, ""])
        try:
            content = text.encode(self.encoding)
        except UnicodeEncodeError:
            content = text.encode()
        return gzip.compress(content) if self.zipped else content


def style(rng):
    delimiter, decimal = DELIMITERS[rng.integers(len(DELIMITERS))]
    end = ["\n", "\r\n", "\r"][rng.integers(3)]
    encoding = ["utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16"][rng.integers(5)]
    return Style(delimiter, decimal, end, encoding, bool(rng.integers(4) == 0))


def _label(rng, num):
    kind = rng.integers(4)
    if kind == 0:
        return rng.permutation(np.arange(num) % int(rng.integers(2, 5)) + 1).astype(str)
    if kind == 1:
        return np.array(["ripe", "raw", "spoilt"])[rng.integers(0, 3, num)]
    if kind == 2:
        return rng.permutation(np.where(np.arange(num) % 2, 1, -1)).astype(str)
    return np.array([f"class {i}" for i in rng.integers(0, 3, num)])


def in_rows(rng):
    """Samples in rows below a header of positions, with names, a label, a target."""
    t, s = spectra(rng), style(rng)
    prefix, unit, suffix = (c[rng.integers(len(c))] for c in (PREFIXES, UNITS, SUFFIXES))
    header = [f"{prefix}{s.number(a)}{unit}{suffix}" for a in t.axis]
    rows = [[s.number(v) for v in row] for row in t.x]
    if rng.integers(2):
        header = [["id", "", "Sample ID", "Größe"][rng.integers(4)], *header]
        rows = [[name, *row] for name, row in zip(t.names, rows, strict=True)]
    if rng.integers(2):
        label = _label(rng, len(rows))
        header, rows = [*header, "class"], [[*r, v] for r, v in zip(rows, label, strict=True)]
    if rng.integers(3) == 0:
        header, rows = [*header, "protein"], [[*r, s.number(10 + i * 0.37 % 3)] for i, r in enumerate(rows)]
    before = ["Instrument: NIR-1", "Operator: A", "", "Date: 2024-01-02"] if rng.integers(3) == 0 else []
    return TableCase("in rows", s.bytes([header, *rows], before if s.delimiter != " " else ()), t, True)


def in_columns(rng):
    """Samples in columns beside the axis."""
    t, s = spectra(rng, n=int(rng.integers(15, 60))), style(rng)
    corner = CORNERS[rng.integers(len(CORNERS))]
    rows = [[s.number(a), *map(s.number, column)] for a, column in zip(t.axis, t.x.T, strict=True)]
    names = t.names if rng.integers(2) else [str(i) for i in range(len(t.names))]
    if rng.integers(3):
        if rng.integers(4) == 0:
            rows = [["unit", *["a.u."] * len(names)], *rows]
        rows = [[corner, *names], *rows]
    return TableCase("in columns", s.bytes(rows), t, True)


def without_header(rng):
    """Numbers alone, with a label or names at an edge."""
    t, s = spectra(rng), style(rng)
    rows = [[s.number(v) for v in row] for row in t.x]
    how = ["alone", "label first", "label last", "names first", "index first"][rng.integers(5)]
    counts = bool((t.x == np.round(t.x)).all())
    if how.startswith("label"):
        label = _label(rng, len(rows))
        rows = [[v, *r] if how == "label first" else [*r, v] for v, r in zip(label, rows, strict=True)]
    elif how != "alone":
        left = t.names if how == "names first" else [str(i + 1) for i in range(len(rows))]
        rows = [[v, *r] for v, r in zip(left, rows, strict=True)]
    t.axis = np.arange(len(t.axis), dtype=float)
    return TableCase(f"without header, {how}", s.bytes(rows), t, not counts)


def two_headers(rng):
    """Names and the axis, groups and the axis, or the axis and units."""
    t, s = spectra(rng), style(rng)
    axis, n = [s.number(a) for a in t.axis], len(t.axis)
    how = rng.integers(4)
    if how == 0:
        header = [["sample", *[f"ch{j}" for j in range(n)]], [["nm", "wavelength", ""][rng.integers(3)], *axis]]
    elif how == 1:
        header = [["", *["nir"] * n], ["", *axis]]
    elif how == 2:
        header = [["sample", *axis], ["", *["nm"] * n]]
    else:
        header = [["name", *[f"pixel {j + 1}" for j in range(n)]], ["", *["nir"] * n], ["nm", *axis]]
    rows = [[name, *map(s.number, row)] for name, row in zip(t.names, t.x, strict=True)]
    return TableCase(f"two headers {how}", s.bytes([*header, *rows]), t, True)


def bare_axis(rng):
    """A first row of positions, above numbers alone."""
    t, s = spectra(rng), style(rng)
    rows = [[s.number(v) for v in row] for row in [t.axis, *t.x]]
    return TableCase("bare axis", s.bytes(rows), t, False)


def pairs(rng):
    """Pairs of columns, positions and values."""
    t, s = spectra(rng, num=int(rng.integers(3, 9))), style(rng)
    rows = [
        [cell for v in column for cell in (s.number(a), s.number(v))] for a, column in zip(t.axis, t.x.T, strict=True)
    ]
    how = rng.integers(3)
    if how == 0:
        rows = [[cell for name in t.names for cell in ("wavelength", name)], *rows]
    elif how == 1:
        rows = [[cell for i in range(len(t.names)) for cell in (f"x{i}", f"y{i}")], *rows]
    return TableCase("pairs", s.bytes(rows), t, True)


def one_spectrum(rng):
    """Two columns: refused, as no model can be trained on one spectrum."""
    t, s = spectra(rng), style(rng)
    rows = [[s.number(a), s.number(v)] for a, v in zip(t.axis, t.x[0], strict=True)]
    if rng.integers(2):
        rows = [[CORNERS[rng.integers(len(CORNERS))] or "x", "intensity"], *rows]
    before = ["Title: a"] if rng.integers(2) and s.delimiter != " " else []
    return TableCase("one spectrum", s.bytes(rows, before), t, False, says=("one spectrum", "the decimal sign"))


def marker(rng):
    """Values that stand for missing ones."""
    t, s = spectra(rng), style(rng)
    value = float(rng.choice([-9999, -999, 1e30, -1.23e34, 99999, -32768]))
    cells = t.x.copy()
    places = rng.random(cells.shape) < 0.02
    places[2, 3] = places[5, 1] = True
    cells[places] = value
    rows = [[s.number(v) for v in row] for row in [t.axis, *cells]]
    rows[0] = [f"{cell} nm" for cell in rows[0]]
    if rng.integers(2):
        t.x = np.where(places, np.nan, t.x)
        options = {"missing_value": [f"{value:g}"], "missing": "mask"}
        return TableCase("marker given", s.bytes(rows), t, True, options=options)
    return TableCase("marker", s.bytes(rows), t, False, says=("missing_value=",))


def named_label(rng):
    """A label or a target that is named like the channels."""
    t, s = spectra(rng, kind=["absorbance", "log"][rng.integers(2)]), style(rng)
    n = len(t.axis)
    last = [s.number(v) for v in 1000.0 * rng.permutation(np.arange(len(t.x)) % 3)]
    rows = [[f"x{j}" for j in range(n + 1)], *([*map(s.number, row), v] for row, v in zip(t.x, last, strict=True))]
    t.axis = np.arange(n, dtype=float)
    return TableCase("named label", s.bytes(rows), t, False, says=(f"x{n}",))


def thousands(rng):
    """A sign between thousands."""
    t, s = spectra(rng, kind="counts"), style(rng)
    t.x = (t.x * 7 + rng.integers(0, 100, t.x.shape) / 100).round(2)
    signs = {".": [",", "'"], ",": [".", "\u202f", " "]}[s.decimal]
    sign = signs[rng.integers(len(signs))]
    s.encoding = "utf-8"
    if s.delimiter in (sign, " "):
        s.delimiter = ";"

    def number(value):
        whole, _, rest = f"{value:,.2f}".partition(".")
        return whole.replace(",", sign) + s.decimal + rest

    header = ["id", *(f"{s.number(a)} nm" for a in t.axis)]
    rows = [[name, *map(number, row)] for name, row in zip(t.names, t.x, strict=True)]
    return TableCase("thousands", s.bytes([header, *rows]), t, True)


def damaged(rng):
    """A table in which one thing is wrong: read to its array all the same, or refused."""
    t, s = spectra(rng), style(rng)
    s.zipped, in_rows_ = False, bool(rng.integers(2))
    if in_rows_:
        rows = [["id", *(f"{s.number(a)} nm" for a in t.axis)]]
        rows += [[name, *map(s.number, row)] for name, row in zip(t.names, t.x, strict=True)]
    else:
        rows = [["wavelength", *t.names]]
        rows += [[s.number(a), *map(s.number, column)] for a, column in zip(t.axis, t.x.T, strict=True)]
    i, j = int(rng.integers(1, len(rows))), int(rng.integers(1, len(rows[0])))
    how = DAMAGES[rng.integers(len(DAMAGES))]
    header = rows[0]
    if how == "letter in the header" and in_rows_:
        header[j] = header[j].replace("0", "O") if "0" in header[j] else "l" + header[j][1:]
    elif how == "no name" and in_rows_:
        header[j] = ""
    elif how == "swapped names" and in_rows_:
        k = j - 1 or 2
        header[j], header[k] = header[k], header[j]
    elif how == "field lost":
        del rows[i][j]
    elif how == "field lost in the header":
        del header[j]
    elif how == "field more":
        rows[i].insert(j, rows[i][j])
    elif how == "column lost below":
        for row in rows[i:]:
            del row[j]
    elif how == "no header":
        del rows[0]
        t.axis = None if in_rows_ else t.axis
    elif how == "header again":
        rows.insert(i, list(header))
    elif how == "position lost" and not in_rows_:
        rows[i][0] = ["", "x", "nan"][rng.integers(3)]
    elif how == "position again" and not in_rows_:
        rows[i][0] = rows[i - 1 if i > 1 else 2][0]
    elif how == "row empty":
        rows[i] = [rows[i][0], *[""] * (len(rows[i]) - 1)]
    else:
        rows[i][j] = ["high", "1_0", "1.2.3", "", "NA", "-9999", "inf", "12 34"][rng.integers(8)]
        how = f"cell {rows[i][j]}"
    return TableCase(f"damaged, {how}", s.bytes(rows), t, False)


DAMAGES = (
    "letter in the header", "no name", "swapped names", "field lost", "field lost in the header", "field more",
    "column lost below", "no header", "header again", "position lost", "position again", "row empty", "cell", "cell",
)  # fmt: skip

TABLES = (
    in_rows, in_rows, in_columns, in_columns, without_header, two_headers, bare_axis, pairs, one_spectrum, marker,
    named_label, thousands, damaged, damaged,
)  # fmt: skip
