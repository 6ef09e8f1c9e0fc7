"""Tables in which several things are unusual at once: few rows, two headers, labels, markers, blanks, remarks.

Each holds a known array. It is read to this array or refused, never read to another one.
"""

import gzip

import numpy as np

from tests.reliability.tables import DELIMITERS, TableCase, spectra

WORDS = ("NA", "", "n.d.", "NaN", "#N/A", "-")
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be")


def _one_of(rng, *values):
    return values[rng.integers(len(values))]


def combined(rng):
    """A table in rows or in columns, with a header, and with anything else by chance."""
    is_thin = rng.integers(3) == 0
    sizes = {"num": int(rng.integers(3, 7)), "n": int(rng.integers(4, 9))} if is_thin else {}
    t = spectra(rng, **sizes)
    said = []
    if _one_of(rng, 0, 0, 1):
        t.x = (t.x - t.x.mean()).round(5)
        said.append("negative")
    delimiter, decimal = DELIMITERS[rng.integers(len(DELIMITERS))]
    form = _one_of(rng, "%.10g", "%.10g", "%.6e", "%.5f", "%012.5f")
    if form == "%.6e":
        t.x = np.array([[float(form % v) for v in row] for row in t.x])

    def number(value):
        return (form % value).replace(".", decimal)

    cells = [[number(v) for v in row] for row in t.x]
    options, missing = {}, _one_of(rng, "", "", "word", "marker")
    if missing:
        word = WORDS[rng.integers(len(WORDS))] if missing == "word" else _one_of(rng, "-9999", "-999.25", "1e30")
        word = "NA" if delimiter == " " and not word else word.replace(".", decimal) if missing == "marker" else word
        places = rng.random(t.x.shape) < 0.03
        places[1, 2] = places[-1, 1] = True
        t.x = np.where(places, np.nan, t.x)
        cells = [[word if p else c for c, p in zip(*both, strict=True)] for both in zip(cells, places, strict=True)]
        options = {"missing": "mask"} | ({"missing_value": word} if missing == "marker" else {})
        said.append(f"{missing} {word}")
    names, axis = list(t.names), [f"{a:.10g}".replace(".", decimal) for a in t.axis]
    corner = _one_of(rng, "id", "Sample", "", "Größe")
    unit = _one_of(rng, "", "", "nm", "cm-1")
    in_columns = bool(rng.integers(3) == 0)
    if in_columns:
        said.append("in columns")
        rows = [[a, *column] for a, column in zip(axis, zip(*cells, strict=True), strict=True)]
        top = [[_one_of(rng, "wavelength", "nm", "x", ""), *names]]
        if _one_of(rng, 0, 0, 1) and t.names[0][0].isalpha():
            top.append([_one_of(rng, "class", "batch"), *(str(v) for v in rng.integers(0, 3, len(names)))])
            said.append("class row")
    else:
        left = [[], [names], [names, [str(i + 2300) for i in range(len(names))]]][rng.integers(3)]
        kind, moisture = (
            [_one_of(rng, "ripe", "raw") for _ in names],
            [number(v) for v in rng.normal(12, 2, len(names))],
        )
        right = [[], [kind], [moisture]][rng.integers(3)]
        rows = [[*(c[i] for c in left), *row, *(c[i] for c in right)] for i, row in enumerate(cells)]
        header = [*[corner, "Charge"][: len(left)], *(f"{a} {unit}".strip() for a in axis), *["moisture"][: len(right)]]
        top = [header]
        said.append(f"{len(left)} left, {len(right)} right")
        if unit and rng.integers(2):
            header[len(left) : len(left) + len(axis)] = axis
            units = [*[""] * len(left), *[unit] * len(axis), *[""] * len(right)]
            top = [header, units] if rng.integers(2) else [units, header]
            said.append("unit row")
    width = len(rows[0])
    table = [*top, *rows]
    if delimiter != " ":
        how = _one_of(rng, "", "", "", "blank rows", "blank column", "trailing")
        if how == "blank rows":
            table = [row for one in table for row in (one, [""] * width)]
        elif how == "blank column":
            at = int(_one_of(rng, 0, width))
            table = [[*row[:at], "", *row[at:]] for row in table]
        elif how == "trailing":
            table = [[*row, ""] for row in table]
        said.append(how)
    quote = _one_of(rng, "", "", '"', "'")
    always, sign = bool(quote), quote or '"'
    lines = []
    for row in table:
        signed = [always or delimiter in cell or (delimiter == " " and not cell) for cell in row]
        lines.append(delimiter.join(f"{sign}{c}{sign}" if q else c for c, q in zip(row, signed, strict=True)))
    before = _one_of(
        rng, [], [], [], ["# made by hand"], ["% gain 2", "% scans 3"], ["Gerät: NIR-1", "Date: 2024-01-02", ""],
        [f"Operator{delimiter}A", f"Scans{delimiter}32", ""], [">>>>Begin Data<<<<"],
    )  # fmt: skip
    end = _one_of(rng, "\n", "\r\n", "\r")
    text = end.join([*before, *lines]) + _one_of(rng, end, end, "", end + end)
    encoding = ENCODINGS[rng.integers(len(ENCODINGS))]
    content = text.encode(encoding)
    if rng.integers(6) == 0:
        content = gzip.compress(content)
    said += [repr(delimiter), decimal, form, quote, repr(end), encoding, *before[:1], f"{t.x.shape}"]
    return TableCase(f"combined: {', '.join(filter(None, said))}", content, t, False, options=options)
