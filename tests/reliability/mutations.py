"""Files of spectra in the formats that instruments write, and what is done to them, with what must come of it.

The writer shares nothing with the reader: what a file holds is known from how it was made.
"""

import gzip
import zlib
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

NOT_NUMBERS = ("high", "1_0", "1.2.3", "--1", "0x1F", "12 34", "1e", "True", "1,2,3", "<0.1", "0.5 nm", "_1")
MISSING = ("", "NA", "nan", "NULL", "n/a", "#REF!", "-", "?", "None")
INFINITE = ("inf", "-Infinity", "1e999", "1e39", "-1E400")


@dataclass
class File:
    """A table of text: a label, the channels, a target; ``cells`` are what is written."""

    values: np.ndarray
    axis: list[str]
    delimiter: str
    decimal: str
    unit: str
    newline: str
    zipped: bool
    mark: bool
    cells: list[list[str]] = field(init=False)

    def __post_init__(self):
        header = ["label", *(self.text(position) + self.unit for position in self.axis), "fat"]
        rows = [
            [f"s{i}", *(self.text(repr(float(v))) for v in row), self.text(str(i + 0.5))]
            for i, row in enumerate(self.values)
        ]
        self.cells = [header, *rows]

    def text(self, number):
        """A number as this file writes it."""
        return number.replace(".", self.decimal)

    def quoted(self, cell):
        """A cell that holds the delimiter in quotes."""
        return f'"{cell}"' if self.delimiter in cell else cell

    def lines(self):
        return [self.delimiter.join(map(self.quoted, row)) for row in self.cells]

    def bytes(self, lines=None, encoding="utf-8"):
        text = self.newline.join([*(self.lines() if lines is None else lines), ""])
        content = b"\xef\xbb\xbf" * (self.mark and encoding == "utf-8") + text.encode(encoding)
        return gzip.compress(content) if self.zipped else content


@dataclass
class Case:
    """A file, the options that it is read with, and either what it holds or what the error must say."""

    name: str
    content: bytes
    expected: np.ndarray | None = None
    says: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    axis: list[float] | None = None
    suffix: str = ".csv"


def make(rng):
    """A file that is sound."""
    num, n = int(rng.integers(8, 14)), int(rng.integers(3, 7))
    delimiter, decimal = [(",", "."), (";", ","), (";", "."), ("\t", "."), ("\t", ","), ("|", ".")][rng.integers(6)]
    axis = [f"{900 + 2.5 * j:g}" for j in range(n)]
    return File(
        values=np.round(rng.normal(size=(num, n)) * 10.0 ** rng.integers(-3, 4), 5) + np.arange(n),
        axis=axis,
        delimiter=delimiter,
        decimal=decimal,
        unit=["", " nm", "cm-1"][rng.integers(3)],
        newline=["\n", "\r\n"][rng.integers(2)],
        zipped=bool(rng.integers(2)),
        mark=bool(rng.integers(2)),
    )


def sound(file, rng):
    how = ["as it is", "spaces", "quotes", "blank lines", "a comment", "exponents", "plus signs", "no last newline"]
    how = how[rng.integers(len(how))]
    lines = file.lines()
    if how == "spaces":
        lines = [line.replace(file.delimiter, f" {file.delimiter} ") for line in lines]
    elif how == "quotes":
        lines = [file.delimiter.join(f'"{cell}"' for cell in row) for row in file.cells]
    elif how == "blank lines":
        k = int(rng.integers(1, len(lines)))
        lines = [*lines[:k], "", "  ", *lines[k:]]
    elif how == "a comment":
        lines = ["# made by an instrument", *lines]
    elif how in ("exponents", "plus signs"):
        form = "{:.17e}" if how == "exponents" else "{:+.17g}"
        rows = [
            [row[0], *(file.text(form.format(v)) for v in values), row[-1]]
            for row, values in zip(file.cells[1:], file.values, strict=True)
        ]
        lines = [lines[0], *(file.delimiter.join(row) for row in rows)]
    content = file.bytes(lines)
    if how == "no last newline" and not file.zipped:
        content = content.removesuffix(file.newline.encode())
    return Case(how, content, file.values)


def bad_cell(file, rng):
    """One value is not a number, infinite or missing."""
    i, j = (int(rng.integers(size)) for size in file.values.shape)
    kind = ["text", "infinite", "missing", "masked"][rng.integers(4)]
    choices = {"text": NOT_NUMBERS, "infinite": INFINITE}.get(kind, MISSING)
    cell = choices[rng.integers(len(choices))]
    file.cells[i + 1][j + 1] = cell if kind != "infinite" else file.text(cell)
    place = f"row {i + 2}, column {j + 2} ("
    if kind == "masked":
        expected = file.values.copy()
        expected[i, j] = np.nan
        return Case(f"masked {cell!r}", file.bytes(), expected, options={"missing": "mask"})
    word = {"text": "is not a number", "infinite": "infinite", "missing": "the value is missing"}[kind]
    return Case(f"{kind} {cell!r}", file.bytes(), says=(place, word))


def bad_row(file, rng):
    """A row is cut, longer, or holds bytes that are no text."""
    lines, i = file.lines(), int(rng.integers(2, len(file.cells)))
    width, how = len(file.cells[0]), ["short", "long", "zero byte", "another encoding", "open quote"][rng.integers(5)]
    place = f"row {i + 1}, column "
    if how == "short":
        k = int(rng.integers(1, width))
        lines[i] = file.delimiter.join(map(file.quoted, file.cells[i][:k]))
        return Case(how, file.bytes(lines), says=(f"{place}{k + 1}:", f"the row has {k} fields"))
    if how == "long":
        lines[i] += file.delimiter + "1"
        return Case(how, file.bytes(lines), says=(f"{place}{width + 1}:", f"the row has {width + 1} fields"))
    j = int(rng.integers(width))
    file.cells[i][j] = {"zero byte": "\0", "another encoding": "\xe9", "open quote": '"1'}[how]
    lines = file.lines()
    if how == "another encoding":
        options = {"encoding": "latin-1"} if rng.integers(2) else {}
        if j in (0, width - 1):  # a label or the target: the encoding can be told, or is given
            return Case("latin-1", file.bytes(lines, "latin-1"), file.values, options=options)
        return Case(how, file.bytes(lines, "latin-1"), says=(f"{place}{j + 1} (", "is not a number"), options=options)
    if how == "zero byte":
        return Case(how, file.bytes(lines), says=(f"{place}{j + 1}:", "zero byte"))
    return Case(how, file.bytes(lines), says=(f"row {i + 1}",))


def bad_column(file, rng):
    """A channel that is there twice, out of order, constant or never observed."""
    n = len(file.axis)
    j, how = int(rng.integers(1, n - 1)), ["twice", "order", "constant", "dropped", "unobserved"][rng.integers(5)]
    place = f"column {j + 2} ("
    if how == "twice":
        file.cells[0][j + 2] = file.cells[0][j + 1]
        return Case(how, file.bytes(), says=(f"columns {j + 2} and {j + 3}", "leave one out"))
    if how == "order":
        header = file.cells[0]
        header[1], header[2] = header[2], header[1]
        return Case(how, file.bytes(), says=(", column ", "sort the columns"))
    for row in file.cells[1:]:
        row[j + 1] = "NA" if how == "unobserved" else "3"
    if how == "dropped":
        axis = [float(a) for k, a in enumerate(file.axis) if k != j]
        expected = np.delete(file.values, j, axis=1)
        return Case(how, file.bytes(), expected, options={"drop_constant": True}, axis=axis)
    options = {"missing": "mask"} if how == "unobserved" else {}
    return Case(how, file.bytes(), says=(place, "never observed" if options else "constant"), options=options)


def cut(file, rng):
    """A file that ends too early, in the middle of a row or of a gzip stream."""
    if file.zipped:
        content = file.bytes()
        return Case("torn gzip", content[: int(rng.integers(20, len(content)))], says=("is damaged after row",))
    file.mark, lines = False, file.lines()
    i = int(rng.integers(4, len(lines)))
    k = int(rng.integers(1, len(lines[i]) - len(file.cells[i][-1])))  # the target is gone, and maybe more
    content = file.newline.join([*lines[:i], lines[i][:k]]).encode()
    fields = lines[i][:k].count(file.delimiter) + 1
    if fields == len(file.cells[0]):  # cut right before the target, which is missing then
        return Case("cut before the target", content, file.values[:i])
    return Case("cut", content, says=(f"row {i + 1}, column {fields + 1}:", f"the row has {fields} fields"))


def flipped(file, rng):
    """A bit of a gzip stream changed: its checksum tells, but for the few bits that fill its last byte."""
    file.zipped = True
    content = bytearray(file.bytes())
    content[int(rng.integers(12, len(content) - 8))] ^= 1 << int(rng.integers(8))
    with suppress(EOFError, OSError, zlib.error):
        gzip.decompress(bytes(content))
        return Case("flipped padding", bytes(content), file.values)
    return Case("flipped gzip", bytes(content), says=("row ",))


def in_columns(file, rng):
    """Samples in columns, the axis in the first one."""
    descending, how = bool(rng.integers(2)), ["sound", "text", "axis", "order"][rng.integers(4)]
    num, n = file.values.shape
    axis = [900.327 + 1.9 * j for j in range(n)][:: -1 if descending else 1]
    cells = [["wavelength (nm)", *(f"s{i}" for i in range(num))]]
    cells += [[file.text(repr(a)), *(file.text(repr(float(v))) for v in file.values[:, j])] for j, a in enumerate(axis)]
    i, j = int(rng.integers(1, n)), int(rng.integers(num))
    says = ()
    if how == "text":
        cells[i + 1][j + 1], says = "high", (f"row {i + 2}, column {j + 2} (", "is not a number")
    elif how == "axis":
        cells[i + 1][0], says = ["x", "", "1_0", "nan", "inf"][rng.integers(5)], (f"row {i + 2}, column 1 (",)
    elif how == "order":
        cells[i + 1][0], says = cells[i][0], (f"row {i + 2}, column 1 (", "is not in order, or is there twice")
    file.cells = cells
    return Case(f"columns, {how}", file.bytes(), None if says else file.values, says, axis=axis)


MUTATIONS = (sound, bad_cell, bad_cell, bad_row, bad_row, bad_column, cut, flipped, in_columns)
