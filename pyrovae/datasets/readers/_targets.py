"""The other columns of each sample."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pyrovae.datasets.readers._numbers import MISSING
from pyrovae.datasets.readers._table import Table

if TYPE_CHECKING:
    import pandas as pd


def targets_of(table: Table) -> pd.DataFrame:
    """One row a sample: the columns that are not channels, or what a header says of samples in columns."""
    import pandas as pd

    layout = table.layout
    if not layout.in_columns:
        return _typed(table).reset_index(drop=True)
    names = [table.names[i] for i in layout.columns]
    columns = {"sample": pd.Series(names)} if any(names) else {}
    for name, values in layout.about.items():
        columns[name if name not in columns else f"{name}_"] = _as_numbers(pd.Series(values), table.decimal)
    return pd.DataFrame(columns, index=range(len(layout.columns)))


def _typed(table: Table) -> pd.DataFrame:
    """Columns of text as numbers if they all are, names of samples such as 007 excepted; without empty columns."""
    import pandas as pd

    others = table.others
    columns: dict[str, pd.Series] = {}
    for position, label in enumerate(others.columns):
        column = others.iloc[:, position]
        name = table.names[label] if isinstance(label, int) and label < len(table.names) else str(label)
        if not name and column.dtype.kind not in "fiu" and (column == "").all():
            continue
        key = name or (f"column {label + 1}" if isinstance(label, int) else str(label))
        while key in columns:
            key += "_"
        columns[key] = _as_numbers(column, table.decimal)
    return pd.DataFrame(columns, index=others.index)


def _as_numbers(column: pd.Series, decimal: str) -> pd.Series:
    import pandas as pd

    if column.dtype.kind in "fiub":
        return column
    text = column.astype(str).str.strip()
    if text.str.fullmatch(re.compile(r"0\d+")).any():
        return column.where(column != "", None)
    values = pd.to_numeric(text.str.replace(",", ".") if decimal == "," else text, errors="coerce")
    are_numbers = (values.notna() | text.str.lower().isin(MISSING)).all() and values.notna().any()
    return values if are_numbers else column.where(column != "", None)
