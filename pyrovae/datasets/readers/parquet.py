"""Parquet files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._header import Header
from pyrovae.datasets.readers._missing import given_markers, without_markers
from pyrovae.datasets.readers._table import Choose, Head, Table, default_dtype
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.errors import InputError, needing_extra, reading

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_BATCH_BYTES, _OF_TEXT, _EVIDENCE = 2**28, 100, 2**20


def read_parquet(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """A table in a parquet file."""
    with needing_extra(f"{path} is parquet: pip install 'pyrovae[parquet]' to read it (pyarrow)"):
        import pyarrow.parquet
    where = str(path)
    with reading(where, "a parquet file"):
        description = pyarrow.parquet.ParquetFile(path)
        schema = description.schema_arrow
        indices = (schema.pandas_metadata or {}).get("index_columns", ())
        of_index = [name for name in indices if isinstance(name, str)]
        order = sorted(range(len(schema.names)), key=lambda i: schema.names[i] not in of_index)
        names = [re.sub(r"__index_level_\d+__", "", schema.names[i]) for i in order]
        rows = description.metadata.num_rows
        counted = next((_counted(index, rows) for index in indices if isinstance(index, dict)), None)
        largest = max(
            (
                description.metadata.row_group(k).column(j).total_uncompressed_size
                for k in range(description.metadata.num_row_groups)
                for j in range(description.metadata.num_columns)
            ),
            default=1,
        )
    if not rows or not names:
        raise InputError(f"{where} is empty")
    check_size(where, 2.0 * 8 * rows * len(names), settings.max_gib)
    batches: list[pa.RecordBatch] = []
    size = 0.0
    with reading(where):
        # a small file may hold long texts again and again, but none that is longer than a column of it
        for batch in description.iter_batches(min(65536, max(16, _BATCH_BYTES // max(1, largest)))):
            texts = sum(not pyarrow.types.is_primitive(kind) for kind in batch.schema.types)
            size += 2.0 * batch.nbytes + _OF_TEXT * texts * batch.num_rows
            check_size(where, size, settings.max_gib)
            batches.append(batch)
        frame = pyarrow.Table.from_batches(batches).to_pandas(ignore_metadata=True).iloc[:, order]
    if counted is not None:
        names = [counted[0], *names]
        frame.insert(0, "", counted[1])
    frame.columns = range(len(names))
    head = frame.iloc[: max(8, _EVIDENCE // len(names))]
    found = [_numbers(head.iloc[:, i]) for i in range(len(names))]
    evidence = np.stack([values for values, _ in found], axis=1)
    text = np.stack([bad for _, bad in found], axis=1)
    markers = given_markers(settings)
    header = Header(0, names, names)
    layout = choose(Head(where, header, np.asarray(without_markers(evidence, markers), dtype=np.float64), text))
    others = [i for i in range(len(names)) if i not in {*layout.columns, *layout.dropped}]
    numbers = np.empty((rows, len(layout.columns)), dtype=default_dtype())
    table = Table(where, names, layout, range(1, rows + 1), numbers, frame.iloc[:, others])
    for j, i in enumerate(layout.columns):
        values, bad = _numbers(frame.iloc[:, i])
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{table.cell(row, j)}: {str(frame.iloc[row, i])[:40]!r} is not a number")
        with np.errstate(over="ignore"):
            numbers[:, j] = without_markers(values, markers)
    return table


def _counted(index: dict[str, object], rows: int) -> tuple[str, range] | None:
    """Name and values of an index that pandas writes as a range; None if it only counts the rows from 0."""
    found = range(*(int(str(index[name])) for name in ("start", "stop", "step")))
    name = str(index["name"] or "")
    return (name, found) if len(found) == rows and (name or found != range(rows)) else None


def _numbers(column: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A column as numbers, NaN where they are missing, and which of its values are none."""
    import pandas as pd

    if column.dtype.kind in "mM":
        return np.full(len(column), np.nan), np.ones(len(column), dtype=np.bool_)
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.isnan(values) & ~column.isna().to_numpy()
    return values, bad & (column.dtype.kind not in "fiu")
