"""The other columns of each sample."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pyrovae.datasets.readers._numbers import Numerals
from pyrovae.datasets.readers._replicates import names_samples
from pyrovae.datasets.readers._table import Table
from pyrovae.datasets.reading import Finding
from pyrovae.errors import Option

if TYPE_CHECKING:
    import pandas as pd

_NO_NUMBERS = re.compile(r"0\d+|\d+[eE]\d+")
"""Texts such as 007 and 1e0, which no program writes for a number."""
_AS_WRITTEN = re.compile(r"-?(0|[1-9]\d*)([.,]\d*[1-9])?")
"""Numbers that are written again as they were: neither 0.10 nor +1."""


def targets_of(table: Table) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """One row a sample: the columns that are not channels, or what a header says of samples in columns; and notes."""
    import pandas as pd

    layout, found = table.layout, []
    if layout.in_columns:
        names = [table.names[i] for i in layout.columns]
        columns = {"sample": pd.Series(names)} if any(names) else {}
        found = [(name, name, pd.Series(values)) for name, values in layout.about.items()]
        index: pd.Index = pd.RangeIndex(len(layout.columns))
    else:
        columns, index = {}, table.others.index
        for position, label in enumerate(table.others.columns):
            column = table.others.iloc[:, position]
            name = table.names[label] if isinstance(label, int) and label < len(table.names) else str(label)
            if name or column.dtype.kind in "fiu" or not (column == "").all():
                found.append((name, name or f"column {int(label) + 1}", column))
    notes: list[Finding] = []
    for name, key, column in found:
        if not layout.in_columns and _is_written_once(column):
            what, empty = f"{key} as it stands", int((column == "").sum())
            notes.append(Finding(what, f"{empty} of its {len(column)} cells are empty: do they repeat the one above?"))
        while key in columns:
            key += "_"
        names_rows = names_samples(name) if name else any(table.names)
        columns[key] = _as_numbers(key, column, table.numerals, notes, names_rows=names_rows)
    return pd.DataFrame(columns, index=index).reset_index(drop=True), tuple(notes)


def _is_written_once(column: pd.Series) -> bool:
    """Whether a column says a group once and is empty below, as merged cells are."""
    if column.dtype.kind in "fiub" or len(column) < 4:
        return False
    is_said = (column.astype(str).str.strip() != "").to_numpy()
    return bool(is_said[0] and 1 < is_said.sum() <= len(column) / 2 and column[is_said].is_unique)


def _as_numbers(
    title: str, column: pd.Series, numerals: Numerals, notes: list[Finding], *, names_rows: bool
) -> pd.Series:
    """A column of text as numbers, if it holds nothing else, and if they are no names of samples."""
    import pandas as pd

    if column.dtype.kind in "fiub":
        return column
    text = column.astype(str).str.strip()
    as_text = column.where(column != "", None)
    missing = text.str.lower().isin(numerals.missing)
    if text.str.fullmatch(_NO_NUMBERS).any() or (names_rows and not (missing | text.str.fullmatch(_AS_WRITTEN)).all()):
        return as_text
    own = numerals.of_column(text.unique().tolist())
    if own.thousands and text.str[1:].str.contains(f"[{re.escape(own.thousands)}]").any():
        values = pd.Series([own.value(field) for field in text], index=column.index, dtype=object)
        if values.isna().sum() > missing.sum() or missing.all():
            return as_text
        values = values.astype(float)
    else:
        values = pd.to_numeric(text.str.replace(",", ".") if own.decimal == "," else text, errors="coerce")
    are_numbers = (values.notna() | missing).all() and values.notna().any()
    if not are_numbers or (text.is_unique and values.nunique() < len(text) - missing.sum()):  # 1.1 and 1.10 differ
        return as_text
    if own.thousands != numerals.thousands:  # said, as no other column has them
        new = "".join(sorted({*own.thousands} - {*numerals.thousands}))
        other = "," if numerals.decimal == "." else "."
        option = Option("decimal", other) if new == other else None
        notes.append(Finding(f"{title} with {new!r} between thousands", "its numbers are written so", option))
    return values
