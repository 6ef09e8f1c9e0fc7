"""Further kinds of files, as instruments and public collections have them: read to their array, or refused in words."""

import numpy as np

from tests.datasets.readers.files import (
    AXIS,
    CLASS,
    IDS,
    NUM,
    N,
    X,
    columns_of,
    rows_of,
    text,
)  # fmt: skip

COUNTED = np.arange(N, dtype=float)
HALF = N // 2
rng = np.random.default_rng(5)
PROPERTY = rng.uniform(*np.quantile(X, [0.2, 0.8]), NUM).round(4)
LEVELS = np.sort(rng.uniform(1, 10, NUM)).round(3)
SERIES = (LEVELS[:, None] * X[0] / 5 + X[1] + 0.002 * rng.standard_normal(X.shape)).round(4)
"""One substance in another, sorted by its share: smooth across the rows, and down them."""


def below(*rows, axis=AXIS):
    """A table with a header, names and more rows."""
    return text([["id", *axis], *rows_of(left=IDS), *rows])


def with_axis(axis, header=True):
    """Samples in columns beside an axis of no name."""
    rows = [[float(a), *column[1:]] for a, column in zip(axis, columns_of(), strict=True)]
    return text([*[["", *IDS]] * header, *rows])


def lines(rows, ends):
    return "".join(line + end for line, end in zip(text(rows).split("\n"), ends, strict=False))


TWICE = np.where(np.arange(N) == 9, AXIS[8], AXIS)
OVERLAPPING = np.r_[AXIS[:12], AXIS[9:17] + 3]
SWAPPED = AXIS[[*range(4), 5, 4, *range(6, N)]]
READ = {
    "plain, with quotes": (text([[f'"{a:g}"' for a in AXIS], *rows_of()]), {}),
    "plain, with empty lines": (text([AXIS.tolist(), *rows_of()]).replace("\n", "\n\n"), {}),
    "a class last, named": (text([[*AXIS, "class"], *rows_of(right=CLASS)]), {"targets": ["class"]}),
    "a class in words, and a date": (
        text([["date", "class", *AXIS], *([f"2024-01-{i + 1:02d}", f"c{c}", *row] for i, (c, row) in enumerate(zip(CLASS, rows_of(), strict=True)))]),
        {"targets": ["date", "class"]},
    ),
    "a prefix of a word": (text([[f"abs_{a:g}" for a in AXIS], *rows_of()]), {}),
    "a prefix and a suffix": (text([["id", *(f"wavelength_{a:g}nm_reflectance" for a in AXIS)], *rows_of(left=IDS)]), {}),
    "decimal commas and tabs": (text([["id", *AXIS], *rows_of(left=IDS)], "\t", decimal=","), {}),
    "decimal commas and exponents": (
        text([["id", *AXIS], *([i, *(f"{v:.8E}" for v in row)] for i, row in zip(IDS, X, strict=True))], ";").replace(".", ","),
        {},
    ),
    "a group of two words": (text([["", *["near infrared"] * N], ["id", *AXIS], *rows_of(left=IDS)]), {"targets": ["id"]}),
    "old mac with names": (text([["id", *AXIS], *rows_of(left=IDS)], ";", "\r"), {"targets": ["id"]}),
    "line ends of three kinds": (lines([["id", *AXIS], *rows_of(left=IDS)], ["\r\n", "\n", "\r"] * NUM), {"targets": ["id"]}),
    "a number before the position": (text([["id", *(f"Band_{j}_{a:g}nm" for j, a in enumerate(AXIS, 1))], *rows_of(left=IDS)]), {}),
    "a number, the position in brackets": (text([[*(f"b{j} ({a:.6f})" for j, a in enumerate(AXIS, 1)), "fat"], *rows_of(right=CLASS)]), {"targets": ["fat"]}),
    "names in two parts": (text([["id", *(f"\"({a}, 'abs')\"" for a in AXIS)], *rows_of(left=IDS)]), {"targets": ["id"]}),
    "the axis's title in a row of its own": (
        text([["Sample", *IDS], ["fat", *CLASS], ["Wavelength", *[""] * NUM], *columns_of()]),
        {"targets": ["sample", "fat"]},
    ),
    "the names' title in a row of its own": (text([["nm", *AXIS], ["sample", *[""] * N], *rows_of(left=IDS)]), {"targets": ["sample"]}),
    "shares above samples in columns, two equal": (text([["nm", *(abs(i - 5) / 4 for i in range(NUM))], *columns_of((X * 90).round())]), {"x": (X * 90).round()}),
    "line ends of two kinds": (lines([["id", *AXIS], *rows_of(left=IDS)], ["\r\n", "\n"] * NUM), {"targets": ["id"]}),
    "indices of pandas": (
        text([["Unnamed: 0.1", "Unnamed: 0", *AXIS], *([i, i, *row] for i, row in enumerate(rows_of()))]),
        {},
    ),
    "rows that were chosen": (text([["", *AXIS], *rows_of(left=np.sort(rng.choice(900, NUM, replace=False)))]), {}),
    "a name amid the channels": (
        text([[*AXIS[:HALF], "name", *AXIS[HALF:]], *([*row[:HALF], i, *row[HALF:]] for i, row in zip(IDS, rows_of(), strict=True))]),
        {"targets": ["name"]},
    ),
    "an empty column amid the channels": (
        text([["id", *AXIS[:HALF], "", *AXIS[HALF:]], *([i, *row[:HALF], "", *row[HALF:]] for i, row in zip(IDS, rows_of(), strict=True))]),
        {"targets": ["id"]},
    ),
    "empty columns beside them": (
        text([["id", "", *AXIS, "", "class"], *([i, "", *row, "", c] for i, row, c in zip(IDS, rows_of(), CLASS, strict=True))]),
        {"targets": ["id", "class"]},
    ),
    "what is known, last": (
        text([[*AXIS, "date", "operator", "brix"], *([*row, "2024-01-02", "A", 5.25 + i] for i, row in enumerate(rows_of()))]),
        {"targets": ["date", "operator", "brix"]},
    ),
    "micrometres": (text([["id", *(f"{a / 1000:.6g}" for a in AXIS)], *rows_of(left=IDS)]), {"axis": AXIS / 1000}),
    "tabs at some rows' ends": (
        "".join("\t".join(map(str, row)) + "\t" * (i % 5 == 4) + "\n" for i, row in enumerate([["id", *AXIS], *rows_of(left=IDS)])),
        {},
    ),
    "a map with places": (text([["", "", *AXIS], *([i // 5 * 1.5, i % 5 * 2.5, *row] for i, row in enumerate(rows_of()))], "\t"), {}),
    "a row of units, names above": (
        text([["X-Axis", *(f"Map_F({i}/0)" for i in range(NUM))], ["rel. 1/cm", *["CCD cts"] * NUM], *columns_of()], "\t"),
        {"targets": ["sample"]},
    ),
    "units in brackets": ("Averaging: 79\n\n" + text([["Wave", *IDS], ["[nm]", *["[counts]"] * NUM], *columns_of()], ";"), {"targets": ["sample"]}),
    "files of an instrument in columns": (text([["Wavelength", *(f"leaf{i:05d}.asd" for i in range(NUM))], *columns_of()], "\t"), {}),
    "a time before the channels": (text([["time (s)", *AXIS], *rows_of(SERIES, left=np.arange(NUM) * 2.5)]), {"x": SERIES}),
    "a class of decimals": (text([[float(c), *row] for c, row in zip(CLASS, rows_of(), strict=True)]), {"axis": COUNTED}),
    "a number and a class": (
        text([[i, *row, c] for i, row, c in zip(rng.permutation(NUM) + 1, rows_of(), CLASS, strict=True)]),
        {"axis": COUNTED, "targets": ["column 1", f"column {N + 2}"]},
    ),
}  # fmt: skip
# ruff: noqa: E501


NEITHER = r"is it a label or a channel\? say label"
REFUSED = {
    # positions with a fault
    "a position twice": (with_axis(TWICE), r"row 11, column 1: the channel 1160 .* there twice"),
    "a position twice, no header": (with_axis(TWICE, header=False), r"the channel 1160 .* there twice"),
    "a position twice, one spectrum": (text([[float(a), v] for a, v in zip(TWICE, X[0], strict=True)]), "there twice"),
    "a position twice, in a row": (text([TWICE.tolist(), *rows_of((X * 900).round() + 900)]), "axis='row' or axis='none'"),
    "two positions swapped": (with_axis(SWAPPED), "not in order"),
    "two detectors that overlap": (with_axis(OVERLAPPING), "not in order"),
    "an axis in the last column": (text([[*column[1:], column[0]] for column in columns_of()]), "axis='column:26'"),
    # a property among nameless channels
    "a property last": (text(rows_of(right=PROPERTY)), f"column 21 does not continue .*{NEITHER}='21'"),
    "a property first": (text(rows_of(left=PROPERTY)), f"column 1 does not continue .*{NEITHER}='1'"),
    "a property at both edges": (text(rows_of(left=PROPERTY, right=PROPERTY)), r"label=\('1', '22'\) or label='none'"),
    "a property named like channels": (text([[f"V{j}" for j in range(N + 1)], *rows_of(right=PROPERTY)]), NEITHER),
    "a property of few digits": (text(rows_of(right=(X[:, -1] + 0.05).round(2))), "fewer digits .*" + NEITHER),
    "a property, sorted": (text(rows_of(SERIES, left=LEVELS)), r"column 1.*(order|continue)"),
    "a property, sorted, last": (text(rows_of(SERIES, right=LEVELS)), r"column (1|21).*(order|continue)"),
    "a property amid the channels": (
        text([[*AXIS[:HALF], "fat", *AXIS[HALF:]], *([*row[:HALF], f, *row[HALF:]] for row, f in zip(rows_of(), PROPERTY, strict=True))]),
        "'fat' stands among the channels",
    ),
    # rows and columns that are no samples
    "a dark row": (below(["dark", *(X[0] / 100).round(4)]), "row 27: the row is named 'dark'"),
    "a white reference": (below(["White reference", *(X[0] + 9).round(4)]), "is named 'White reference'"),
    "dark and reference in columns": (
        text([["Wave", *IDS, "Dark", "Reference"], *([*column, 0.01, 3.02] for column in columns_of())], ";"),
        r"named 'Dark': .* drop=\('27', '28'\)",
    ),
    "means and deviations in turns": (
        text([["nm", *(f"{i} {w}" for i in IDS[:9] for w in ("mean", "sd"))], *([c[0], *(v for y in c[1:10] for v in (y, round(y / 90, 4)))] for c in columns_of())]),
        r"'tablet 0 sd': .* drop=\('3', '5', ",
    ),
    "deviations of each channel": (
        text([["id", *(f"{a:g}{w}" for a in AXIS for w in ("", "_sd"))], *([i, *(v for y in row for v in (y, 0.01))] for i, row in zip(IDS, rows_of(), strict=True))]),
        "as many",
    ),
    "samples in columns, no axis": (text([IDS, *X.T.tolist()]), "smooth down the columns .* samples='columns'.* samples='rows'"),
    "samples in columns, no axis, no header": (text(X.T.tolist(), "\t"), "smooth down the columns"),
    "shares above counted positions": (
        text([["", *(0.4 * i + 1.3 for i in range(NUM))], *([j, *column] for j, column in enumerate(X.T.tolist()))]),
        "samples='columns'.* samples='rows'",
    ),
    "a detector's end": (below(*(["x", *np.where(np.arange(N) == k, 65535, 9000 + 900 * X[k])] for k in range(9))), "65535 is far"),
    "a saturated row": (below(["x", *[1.5] * N]), "row 27: the row holds 1.5 at every channel"),
    "widths of channels": (text([["id", *AXIS], ["bandwidth", *[0.9] * N], *rows_of(left=IDS)]), "row 2: the row holds 0.9 at every"),
    "a second table on another axis": (below(["id", *(AXIS + 5)], *rows_of(left=IDS)), "row 27: the row is in order, as the channels' positions are"),
    # what is no table
    "units in cells": (below(["x", *(f"{v} AU" for v in X[0])]), "is not a number"),
    "deviations in cells": (below(["x", *(f"{v} ± 0.01" for v in X[0])]), "is not a number"),
    "rows that lack a field": (below(["x", *X[0, 1:]], ["y", *X[1]]), "row 27, column 21"),
    "one column of positions": (text([[a] for a in AXIS]), "one column of numbers"),
    "a page of the web": ("<table>" + text([["<tr><td>1</td>", "<td>2</td></tr>"]] * 9) + "</table>", "is a page of the web"),
}  # fmt: skip
