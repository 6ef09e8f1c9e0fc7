"""Columns that say which rows belong to one sample."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.datasets.readers._names import number
from pyrovae.errors import InputWarning, Option

if TYPE_CHECKING:
    import pandas as pd

_NAMES = re.compile(
    r"(sample|specimen|index|spectrum|subject|patient|plot|tree|leaf|plant|batch|lot|donor|animal|probe|id|name|object|fruit|well)"
    r"([\s_-]?(id|name|no\.?|nr\.?|number|code|#|s))?s?",
    re.IGNORECASE,
)
_SUFFIX = re.compile(
    r"[\s_.\-]*[\s_.\-(](?:rep(?:licate)?|scan|r|run|m|nr)?[\s_.\-]*(?:\d{1,2}|[a-z])\)?$|(?<=\d)[a-z]$", re.IGNORECASE
)
_OF_FILE = re.compile(r"\.(?=[a-z])\w{1,4}$", re.IGNORECASE)
_MOST = 20


def names_samples(name: str) -> bool:
    """Whether a column's name says that it names samples, such as ``Sample ID``."""
    return _NAMES.fullmatch(name.strip()) is not None


def warn_of_replicates(targets: pd.DataFrame, path: Path, stacklevel: int) -> None:
    """Warn where a column seems to name samples that were measured several times."""
    for name in targets.columns:
        column = targets[name]
        if column.isna().any() or (column.dtype.kind == "f" and not (column == column.round()).all()):
            continue
        is_named = names_samples(str(name))
        is_text = all(isinstance(value, str) for value in column)
        if (is_named or is_text) and _are_replicates(column, 3 if is_named else 8):
            _warn(
                path,
                column,
                f"{column.nunique()} values in column {name!r}",
                "with ",
                Option("group", name),
                stacklevel,
            )
            return
        stems = column.str.replace(_OF_FILE, "", regex=True).str.replace(_SUFFIX, "", regex=True) if is_text else column
        example, stem = str(column.iloc[0]), str(stems.iloc[0])
        if is_text and (stems != column).all() and number(example) is None and _are_replicates(stems, 3):
            what = f"{stems.nunique()} names in column {name!r} without their last part ({stem!r} of {example!r})"
            _warn(path, column, what, f"by a column with {stem!r} alone, and ", Option("group"), stacklevel)
            return


def _are_replicates(column: pd.Series, fewest: int) -> bool:
    """Whether values repeat like those of replicates: many values, each in few rows."""
    counts = column.value_counts()
    repeated = float((counts > 1).mean())
    return bool(fewest <= len(counts) <= len(column) / 1.5 and repeated > 0.5 and counts.median() <= _MOST)


def _warn(path: Path, column: pd.Series, what: str, how: str, option: Option, stacklevel: int) -> None:
    warnings.warn(
        InputWarning(
            f"{path}: the {len(column)} spectra have {what}, as replicates of one sample have: keep them in one part "
            f"of a split {how}",
            option,
        ),
        stacklevel=stacklevel + 2,
    )
