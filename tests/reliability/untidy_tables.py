"""Tables with what does not belong to them: remarks, words below, the header again, means, markers, quotes.

Each says itself whether it must be read to its array or refused; none may be read to another array.
"""

import numpy as np

from tests.reliability.tables import TableCase, spectra, style


def _rows(t, s):
    return [[name, *map(s.number, row)] for name, row in zip(t.names, t.x, strict=True)]


def _start(rng, **kinds):
    t, s = spectra(rng, **kinds), style(rng)
    s.zipped = False
    if s.delimiter == " ":
        s.delimiter = "\t"
    return t, s, ["id", *(f"{s.number(a)} nm" for a in t.axis)]


def aside(rng):
    """Remarks amid the rows, words or delimiters below, a delimiter at the header's end, the header once more."""
    t, s, header = _start(rng)
    rows = [header, *_rows(t, s)]
    i = int(rng.integers(4, len(rows)))
    how = ["remark", "words", "end", "delimiter", "again"][rng.integers(5)]
    lines = [s.delimiter.join(map(s.quoted, row)) for row in rows]
    if how == "remark":
        lines.insert(i, ["# lamp replaced", "% gain 2", "// pause"][rng.integers(3)])
    elif how == "words":
        lines += [[""], []][rng.integers(2)] + [
            ["End of file", ">>>>>End Spectral Data<<<<<", "Operator: A"][rng.integers(3)]
        ]
    elif how == "end":
        lines += [s.delimiter * (len(header) - 1)] * 2
    elif how == "delimiter":
        lines[0] += s.delimiter
    else:
        lines.insert(i, lines[0])
    content = s.end.join([*lines, ""])
    encoding = s.encoding if s.encoding != "latin-1" else "utf-8"
    return TableCase(f"aside, {how}", content.encode(encoding), t, True)


def torn(rng):
    """The last line is cut off after one of its fields."""
    t, s, header = _start(rng)
    s.encoding = "utf-8"
    last = _rows(t, s)[-1]
    lost = int(rng.integers(1, len(last)))  # a number that is torn is a number
    whole = s.bytes([header, *_rows(t, s)]).rstrip()
    content = whole[: -len(s.delimiter.join(last[-lost:]).encode()) - int(rng.integers(2))]
    return TableCase("torn", content, t, False, says=("",))


def quoted(rng):
    """Fields in quotes, or written as formulas."""
    t, s, header = _start(rng)
    left, right = [('"', '"'), ("'", "'"), ('="', '"')][rng.integers(3)]
    lines = [s.delimiter.join(f"{left}{cell}{right}" for cell in row) for row in [header, *_rows(t, s)]]
    encoding = s.encoding if s.encoding != "latin-1" else "utf-8"
    return TableCase(f"quoted {left}", s.end.join([*lines, ""]).encode(encoding), t, True)


def exponents(rng):
    """Numbers with exponents, as Fortran and printf write them."""
    t, s, header = _start(rng)
    letter = ["e", "E", "D"][rng.integers(3)]
    t.x = np.array([[float(f"{v:.6e}") for v in row] for row in t.x])
    rows = [
        [i, *(f"{v:.6e}".replace("e", letter).replace(".", s.decimal) for v in row)]
        for i, row in zip(t.names, t.x, strict=True)
    ]
    return TableCase(f"exponents {letter}", s.bytes([header, *rows]), t, True)


def summaries(rng):
    """Means and deviations among the samples, in rows or in columns, named or not."""
    t, s, header = _start(rng, n=int(rng.integers(15, 50)))
    digits = int(rng.integers(3, 7))
    mean, deviation = t.x.mean(0).round(digits), t.x.std(0, ddof=int(rng.integers(2))).round(digits)
    both = [mean, deviation][: int(rng.integers(1, 3))]
    words = [("Mean", "SD"), ("average", "std. dev."), ("Mittelwert", "Stabw."), ("x1", "x2")][rng.integers(4)]
    if rng.integers(2):
        rows = [header, *_rows(t, s), *([w, *map(s.number, v)] for w, v in zip(words, both, strict=False))]
    else:
        values = np.concatenate([t.x, both]).T
        rows = [["nm", *t.names, *words[: len(both)]]]
        rows += [[s.number(a), *map(s.number, row)] for a, row in zip(t.axis, values, strict=True)]
    return TableCase("summaries", s.bytes(rows), t, False, says=("drop_rows=", "drop="))


def long_table(rng):
    """One row for each value, with a header or without."""
    t, s, _ = _start(rng, num=int(rng.integers(4, 9)), n=int(rng.integers(12, 30)))
    names = [str(i + 1) for i in range(len(t.x))] if rng.integers(2) else t.names
    rows = [
        [name, s.number(a), s.number(v)]
        for name, row in zip(names, t.x, strict=True)
        for a, v in zip(t.axis, row, strict=True)
    ]
    order = [[0, 1, 2], [1, 2, 0], [1, 0, 2]][rng.integers(3)]
    header = [["sample", "wavelength", "absorbance"]] * int(rng.integers(2))
    return TableCase(
        "long",
        s.bytes([[r[k] for k in order] for r in [*header, *rows]]),
        t,
        False,
        says=("long table", "decimal sign"),
    )


def spikes(rng):
    """A marker of the values' own size: 999 amid counts, 0 amid values that have none."""
    t, s, header = _start(rng, kind="counts", num=int(rng.integers(15, 40)), n=int(rng.integers(20, 50)))
    t.x += 400
    cells, marker = t.x.copy(), [0, 9999][rng.integers(2)]
    places = rng.random(cells.shape) < 0.02
    places[2, 3] = places[5, 8] = places[9, 11] = True
    cells[places] = marker
    t.x = np.where(places, np.nan, t.x)
    rows = [[name, *map(s.number, row)] for name, row in zip(t.names, cells, strict=True)]
    return TableCase(f"spikes {marker}", s.bytes([header, *rows]), t, False, says=("missing_value=", "decimal sign"))


UNTIDY = (aside, aside, torn, quoted, exponents, summaries, long_table, spikes)
