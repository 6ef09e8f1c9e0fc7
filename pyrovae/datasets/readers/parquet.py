"""Parquet files."""

from pathlib import Path

import numpy as np

from pyrovae.datasets.readers._table import Choose, Table, check_size, default_dtype
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.errors import InputError, MissingExtraError, one_line


def read_parquet(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """A table in a parquet file."""
    import pandas as pd

    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("read_spectra needs pyarrow for parquet: pip install 'pyrovae[parquet]'") from None
    where = str(path)
    try:
        description = pyarrow.parquet.ParquetFile(path)
        names = [str(name) for name in description.schema_arrow.names]
        rows = description.metadata.num_rows
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise InputError(f"{where} is no parquet file, or is damaged: {one_line(error, 200)}") from None
    if not rows or not names:
        raise InputError(f"{where} is empty")
    layout = choose(names)
    check_size(where, 2.0 * 8 * rows * len(names), settings.max_gib)
    try:
        frame = description.read().to_pandas()
    except Exception as error:
        raise InputError(f"{where} is damaged: {one_line(error, 200)}") from None
    frame.columns = names
    others = [i for i in range(len(names)) if i not in set(layout.columns)]
    numbers = np.empty((rows, len(layout.columns)), dtype=default_dtype())
    table = Table(where, names, layout, range(1, rows + 1), numbers, frame.iloc[:, others])
    for j, i in enumerate(layout.columns):
        column = frame.iloc[:, i]
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.isnan(values) & ~column.isna().to_numpy()
        if bad.any() and column.dtype.kind not in "fiu":
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{table.cell(row, j)}: {str(column.iloc[row])[:40]!r} is not a number")
        with np.errstate(over="ignore"):
            numbers[:, j] = values
    return table
