"""Columns that say which rows are of one sample."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.errors import InputWarning, Option

if TYPE_CHECKING:
    import pandas as pd

_NAMES = re.compile(
    r"(sample|specimen|subject|patient|plot|tree|leaf|plant|batch|lot|donor|animal|probe|id|name|object|fruit|well)"
    r"([\s_-]?(id|name|no|nr|number|#|s))?s?",
    re.IGNORECASE,
)
_MOST = 20


def replicated_column(targets: pd.DataFrame) -> str | None:
    """The column whose values come again as those of replicates do: many values, each in few rows."""
    for name in targets.columns:
        column = targets[name]
        if column.isna().any() or (column.dtype.kind == "f" and not (column == column.round()).all()):
            continue
        counts = column.value_counts()
        repeated = float((counts > 1).mean())
        named = _NAMES.fullmatch(str(name).strip()) is not None
        fewest = 3 if named else 8
        is_id = named or column.dtype.kind not in "fiu"
        if is_id and fewest <= len(counts) <= len(column) / 1.5 and repeated > 0.5 and counts.median() <= _MOST:
            return str(name)
    return None


def warn_of_replicates(targets: pd.DataFrame, path: Path, stacklevel: int) -> None:
    """Warn where a column seems to name samples that were measured several times."""
    name = replicated_column(targets)
    if name is not None:
        num, of = len(targets), targets[name].nunique()
        warnings.warn(
            InputWarning(
                f"{path}: the {num} spectra have {of} values in column {name!r}, as replicates of one sample have: "
                "keep them in one part of a split with ",
                Option("group", name),
            ),
            stacklevel=stacklevel + 1,
        )
